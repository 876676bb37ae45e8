//! What computing costs: energy, measured where the machine can measure, and otherwise an estimate that says so.
//!
//! A meter answers one question: how much energy belongs to so much processor time. Measured, that is
//!
//! ```text
//! (energy of all packages and their memory - idle draw * time) / busy processor time of the machine * processor time
//! ```
//!
//! over the last window of at least [`WINDOW`]: the counters of the processor move every millisecond, but the system
//! counts busy time in hundredths of a second, so shorter windows would be noise. Idle draw is the least power seen while
//! the machine had nothing to do; it is not blamed on anybody. Until it was seen it counts as zero.
//!
//! Without readable counters (virtual machines, no permission, no Linux) the same processor time is multiplied by
//! [`WATTS_PER_THREAD`]. The two are never mixed: a sum with an estimated part is an estimate.
//!
//! Reading order: [`Meter`], `powercap` (the counters), `busy` (processor time).

mod busy;
mod powercap;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use powercap::Domain;

/// Where Linux shows the energy counters.
pub const POWERCAP_ROOT: &str = "/sys/class/powercap";
/// Where Linux shows processor time.
pub const PROC_ROOT: &str = "/proc";
/// Shortest time over which power is measured.
pub const WINDOW: Duration = Duration::from_millis(250);
/// Estimated power of one busy thread: 45 W for the 24 threads of the machine on which ARIA's first figures were taken.
pub const WATTS_PER_THREAD: f64 = 45.0 / 24.0;

/// A window longer than this says too little about the work at its end to be used for it.
const WINDOW_MAX: Duration = Duration::from_secs(10);
/// How long a measured power stays in use when no newer one could be taken.
const RATE_AGE_MAX: Duration = Duration::from_secs(600);
/// Least busy time of a window, in seconds, for power per busy second to mean something: five counted hundredths.
const BUSY_MIN: f64 = 0.05;
/// A machine whose processors are busy for less than this part of the time is idle.
const IDLE_PART: f64 = 0.02;

/// Processor time that all threads of this process have taken, where the system tells, in hundredths of a second.
#[must_use]
pub fn process_time() -> Option<Duration> {
    Duration::try_from_secs_f64(busy::process_seconds(Path::new(PROC_ROOT))?).ok()
}

/// Whether energy was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnergySource {
    /// By the processor's own counters.
    Measured,
    /// From processor time and a constant.
    Estimated,
}

/// An amount of energy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Energy {
    /// Millionths of a joule.
    pub microjoules: u64,
    /// Where the number is from.
    pub source: EnergySource,
}

impl Energy {
    /// Both together. An estimate makes the sum an estimate.
    #[must_use]
    pub fn plus(&self, other: &Energy) -> Energy {
        let is_measured = [self, other].iter().all(|energy| energy.source == EnergySource::Measured);
        let source = if is_measured { EnergySource::Measured } else { EnergySource::Estimated };
        Energy { microjoules: self.microjoules.saturating_add(other.microjoules), source }
    }
}

/// Attributes energy to processor time. One for the whole process; cheap to ask at every step of a generation.
#[derive(Debug)]
pub struct Meter {
    domains: Vec<Domain>,
    proc_root: PathBuf,
    power: Mutex<Power>,
}

/// What the meter knows about the machine's power.
#[derive(Debug)]
struct Power {
    last: Snapshot,
    /// Joules for each second of busy processor time, and when that was measured.
    rate: Option<(f64, Instant)>,
    /// Least watts seen while idle.
    idle_watts: Option<f64>,
}

/// All counters at one moment.
#[derive(Clone, Debug)]
struct Snapshot {
    at: Instant,
    /// Of every domain, if all could be read.
    microjoules: Option<Vec<u64>>,
    /// Busy seconds of the whole machine, and its processors.
    busy: Option<busy::Machine>,
}

/// A moment to measure from.
#[derive(Clone, Debug)]
pub struct Reading {
    at: Instant,
    process_seconds: Option<f64>,
}

impl Meter {
    /// A meter over the counters below `powercap_root`, normally [`POWERCAP_ROOT`].
    #[must_use]
    pub fn new(powercap_root: &Path) -> Meter {
        Meter::with_roots(powercap_root, Path::new(PROC_ROOT))
    }

    /// A meter that looks for processor time below `proc_root`.
    #[must_use]
    pub fn with_roots(powercap_root: &Path, proc_root: &Path) -> Meter {
        let domains = powercap::domains(powercap_root);
        let last = snapshot(&domains, proc_root, Instant::now());
        let power = Mutex::new(Power { last, rate: None, idle_watts: None });
        Meter { domains, proc_root: proc_root.to_owned(), power }
    }

    /// Whether counters were found and can be read now.
    #[must_use]
    pub fn can_measure(&self) -> bool {
        powercap::read_all(&self.domains).is_some()
    }

    /// Begins a measurement of the whole process.
    #[must_use]
    pub fn start(&self) -> Reading {
        let at = Instant::now();
        self.observe(at);
        Reading { at, process_seconds: busy::process_seconds(&self.proc_root) }
    }

    /// Energy of the whole process since a reading. The system counts in hundredths of a second: for shorter work, or
    /// for one of several requests, count its own processor time and ask [`Meter::of_cpu`].
    #[must_use]
    pub fn since(&self, reading: &Reading) -> Energy {
        let now = busy::process_seconds(&self.proc_root);
        let seconds = match (reading.process_seconds, now) {
            (Some(before), Some(now)) => (now - before).max(0.0),
            // Nobody counts: as if one thread had worked all the time.
            _ => reading.at.elapsed().as_secs_f64(),
        };
        self.of_cpu(Duration::from_secs_f64(seconds))
    }

    /// Energy of some processor time (the sum over threads) that was just spent.
    #[must_use]
    pub fn of_cpu(&self, cpu: Duration) -> Energy {
        self.of_cpu_at(cpu, Instant::now())
    }

    fn of_cpu_at(&self, cpu: Duration, now: Instant) -> Energy {
        self.observe(now);
        let rate = self.lock().rate.filter(|(_, at)| now.saturating_duration_since(*at) <= RATE_AGE_MAX);
        let (watts, source) = match rate {
            Some((watts, _)) => (watts, EnergySource::Measured),
            None => (WATTS_PER_THREAD, EnergySource::Estimated),
        };
        Energy { microjoules: microjoules(cpu.as_secs_f64() * watts), source }
    }

    /// Ends a window if it is long enough, and learns from it.
    fn observe(&self, now: Instant) {
        if self.domains.is_empty() {
            return;
        }
        let mut power = self.lock();
        if now.saturating_duration_since(power.last.at) >= WINDOW {
            let snapshot = snapshot(&self.domains, &self.proc_root, now);
            power.learn(&self.domains, snapshot);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Power> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Power {
    /// Takes the window from the last snapshot to this one into account.
    fn learn(&mut self, domains: &[Domain], now: Snapshot) {
        let last = std::mem::replace(&mut self.last, now);
        let now = &self.last;
        let (Some(before), Some(after)) = (&last.microjoules, &now.microjoules) else {
            // The counters went away: what was measured before says nothing about what comes now.
            self.rate = None;
            return;
        };
        let elapsed = now.at.saturating_duration_since(last.at);
        let Some(joules) = powercap::joules(domains, before, after, elapsed) else { return };
        let (Some(busy_before), Some(busy_after)) = (&last.busy, &now.busy) else { return };
        let seconds = elapsed.as_secs_f64();
        let busy = busy_after.seconds - busy_before.seconds;
        if busy < IDLE_PART * busy_after.processors * seconds {
            let watts = joules / seconds;
            self.idle_watts = Some(self.idle_watts.map_or(watts, |least| least.min(watts)));
        } else if busy >= BUSY_MIN && elapsed <= WINDOW_MAX {
            let idle = self.idle_watts.unwrap_or(0.0) * seconds;
            self.rate = Some(((joules - idle).max(0.0) / busy, now.at));
        }
    }
}

fn snapshot(domains: &[Domain], proc_root: &Path, at: Instant) -> Snapshot {
    let microjoules = powercap::read_all(domains);
    let busy = if microjoules.is_some() { busy::machine(proc_root) } else { None };
    Snapshot { at, microjoules, busy }
}

/// Rounded; an absurd amount saturates.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and the value is not negative"
)]
fn microjoules(joules: f64) -> u64 {
    (joules * 1e6).round() as u64
}

#[cfg(test)]
mod tests;
