//! The energy counters of the processor packages, as Linux shows them below `/sys/class/powercap`.
//!
//! `intel-rapl:N` is a package if its `name` says so (`psys` would count the packages again); its parts are
//! `intel-rapl:N:M`, of which `dram` is not contained in the package and is added, while `core` and `uncore` are. AMD
//! processors appear under the same names.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Domains that are read. Machines with more than eight sockets and their memory are not expected.
const DOMAINS_MAX: usize = 64;
/// Power that one domain may plausibly draw. A counter that says more was reset, or went round more than once.
const WATTS_MAX: f64 = 2_000.0;
/// Slack for the counter's own steps in a short window.
const JOULES_SLACK: f64 = 5.0;

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Domain {
    energy: PathBuf,
    /// The counter goes from here to zero.
    range_uj: u64,
}

/// All packages and their memory. Empty if there is nothing to read.
pub(super) fn domains(root: &Path) -> Vec<Domain> {
    let mut domains = Vec::new();
    for package in children(root, "intel-rapl:", 1) {
        if name_of(&package).is_some_and(|name| name.starts_with("package")) {
            domains.extend(domain_of(&package));
            let parts = children(&package, "intel-rapl:", 2);
            let memory = parts.into_iter().filter(|part| name_of(part).as_deref() == Some("dram"));
            domains.extend(memory.filter_map(|part| domain_of(&part)));
        }
    }
    domains.truncate(DOMAINS_MAX);
    domains
}

/// The counters of all domains; none if one of them cannot be read, because a part of the energy is not the energy.
pub(super) fn read_all(domains: &[Domain]) -> Option<Vec<u64>> {
    if domains.is_empty() {
        return None;
    }
    domains.iter().map(|domain| number_in(&domain.energy)).collect()
}

/// Energy between two readings of all domains; none if it is implausible, as after a counter was reset, or when the
/// time was long enough for a counter to go round twice.
pub(super) fn joules(domains: &[Domain], before: &[u64], after: &[u64], elapsed: Duration) -> Option<f64> {
    let seconds = elapsed.as_secs_f64();
    let mut total = 0.0;
    for ((domain, &before), &after) in domains.iter().zip(before).zip(after) {
        let delta =
            if after >= before { after - before } else { domain.range_uj.checked_sub(before)?.checked_add(after)? };
        let joules = to_joules(delta);
        if joules > WATTS_MAX * seconds + JOULES_SLACK || to_joules(domain.range_uj) < WATTS_MAX / 4.0 * seconds {
            return None;
        }
        total += joules;
    }
    Some(total)
}

#[expect(clippy::cast_precision_loss, reason = "counters stay below 2^53 microjoules, nine gigajoules")]
fn to_joules(microjoules: u64) -> f64 {
    microjoules as f64 / 1e6
}

/// Folders `prefix` + numbers separated by `colons - 1` more colons, sorted.
fn children(folder: &Path, prefix: &str, colons: usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let is_child = |name: &str| {
        name.starts_with(prefix)
            && name.matches(':').count() == colons
            && name
                .split(':')
                .skip(1)
                .all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut children: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(is_child))
        .map(|entry| entry.path())
        .collect();
    children.sort();
    children
}

fn domain_of(folder: &Path) -> Option<Domain> {
    let range_uj = number_in(&folder.join("max_energy_range_uj"))?;
    Some(Domain { energy: folder.join("energy_uj"), range_uj })
}

fn name_of(folder: &Path) -> Option<String> {
    Some(fs::read_to_string(folder.join("name")).ok()?.trim().to_owned())
}

fn number_in(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}
