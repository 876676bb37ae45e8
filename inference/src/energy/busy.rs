//! Processor time, as Linux shows it below `/proc`: of this process, and of the whole machine.

use std::fs;
use std::path::Path;

/// Counted hundredths in a second: a constant of Linux's interface on every architecture, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of the machine since it started.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Machine {
    /// Seconds that all processors together were busy.
    pub(super) seconds: f64,
    /// Number of processors.
    pub(super) processors: f64,
}

/// Seconds that all threads of this process were running, user and system.
pub(super) fn process_seconds(proc_root: &Path) -> Option<f64> {
    let stat = fs::read_to_string(proc_root.join("self/stat")).ok()?;
    // The second field is a name in brackets that may contain anything; the fields after it are counted from 3.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(14 - 3);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(seconds(user.checked_add(system)?))
}

/// The first line of `/proc/stat` counts user, nice, system, idle, waiting, interrupts, soft interrupts, stolen. Stolen
/// time was some other machine's, and guests are contained in user.
pub(super) fn machine(proc_root: &Path) -> Option<Machine> {
    let stat = fs::read_to_string(proc_root.join("stat")).ok()?;
    let first = stat.lines().next()?.strip_prefix("cpu ")?;
    let counts: Vec<u64> = first.split_ascii_whitespace().map_while(|count| count.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6].iter().try_fold(0_u64, |sum, &index| sum.checked_add(*counts.get(index)?))?;
    let processors = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let processors = f64::from(u32::try_from(processors).ok()?);
    Some(Machine { seconds: seconds(busy), processors: processors.max(1.0) })
}

#[expect(clippy::cast_precision_loss, reason = "2^53 hundredths of a second are three million years")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}
