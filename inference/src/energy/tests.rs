//! The meter over made-up trees of counters.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{EnergySource, Meter, WATTS_PER_THREAD, WINDOW};

/// A machine with counters that the test sets. Four processors.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine { folder: TempDir::new().unwrap() };
        fs::create_dir_all(machine.folder.path().join("proc/self")).unwrap();
        fs::create_dir_all(machine.folder.path().join("powercap")).unwrap();
        machine.ticks(0, 0);
        machine
    }

    fn domain(&self, path: &str, name: &str, range: u64) -> &Machine {
        let folder = self.folder.path().join("powercap").join(path);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("name"), format!("{name}\n")).unwrap();
        fs::write(folder.join("max_energy_range_uj"), format!("{range}\n")).unwrap();
        self.energy(path, 0)
    }

    fn energy(&self, path: &str, microjoules: u64) -> &Machine {
        let file = self.folder.path().join("powercap").join(path).join("energy_uj");
        fs::write(file, format!("{microjoules}\n")).unwrap();
        self
    }

    /// Busy hundredths of the machine, and of the process.
    fn ticks(&self, machine: u64, process: u64) -> &Machine {
        let proc = self.folder.path().join("proc");
        let half = process / 2;
        let rest = process - half;
        // Idle, waiting and stolen time must not count.
        let stat = format!("cpu  {machine} 0 0 99999 777 0 0 555 0 0\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\nintr 5\n");
        fs::write(proc.join("stat"), stat).unwrap();
        fs::write(proc.join("self/stat"), format!("42 (a) b (c) R 1 1 1 0 -1 0 1 2 3 4 {half} {rest} 9 9 20 0"))
            .unwrap();
        self
    }

    fn meter(&self) -> Meter {
        Meter::with_roots(&self.folder.path().join("powercap"), &self.folder.path().join("proc"))
    }
}

const SECOND: Duration = Duration::from_secs(1);
const PACKAGE: &str = "intel-rapl:0";
const RANGE: u64 = 262_143_328_850;

/// When the meter's first window began.
fn began(meter: &Meter) -> Instant {
    meter.lock().last.at
}

/// Ends a window of one second and asks for the energy of one second of processor time.
fn ask(meter: &Meter, now: &mut Instant) -> (u64, EnergySource) {
    *now += SECOND;
    let energy = meter.of_cpu_at(SECOND, *now);
    (energy.microjoules, energy.source)
}

#[test]
fn energy_is_shared_by_processor_time() {
    let machine = Machine::new();
    let meter = machine.domain(PACKAGE, "package-0", RANGE).meter();
    let mut now = began(&meter);
    // 30 J in a second in which the machine was busy for two processor seconds: 15 J for each.
    machine.energy(PACKAGE, 30_000_000).ticks(200, 0);
    assert_eq!(ask(&meter, &mut now), (15_000_000, EnergySource::Measured));
}

#[test]
fn all_packages_and_their_memory_count_once() {
    let machine = Machine::new();
    let memory = "intel-rapl:1/intel-rapl:1:1";
    machine
        .domain(PACKAGE, "package-0", RANGE)
        .domain("intel-rapl:1", "package-1", RANGE)
        .domain(memory, "dram", RANGE);
    // Contained in a package, or containing the packages, or the same by another way.
    let others = [
        ("intel-rapl:0/intel-rapl:0:0", "core"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
        ("intel-rapl:0:0", "core"),
    ];
    for (path, name) in others {
        machine.domain(path, name, RANGE);
    }
    let meter = machine.meter();
    for (path, _) in others {
        machine.energy(path, 500_000_000);
    }
    machine.energy(PACKAGE, 1_000_000).energy("intel-rapl:1", 2_000_000).energy(memory, 4_000_000).ticks(100, 0);
    assert_eq!(ask(&meter, &mut began(&meter)), (7_000_000, EnergySource::Measured));
}

#[test]
fn a_counter_may_go_round() {
    let machine = Machine::new();
    let meter = machine.domain(PACKAGE, "package-0", RANGE).energy(PACKAGE, RANGE - 3_000_000).meter();
    machine.energy(PACKAGE, 7_000_000).ticks(100, 0);
    assert_eq!(ask(&meter, &mut began(&meter)), (10_000_000, EnergySource::Measured));
}

#[test]
fn a_counter_that_was_reset_is_not_believed() {
    let machine = Machine::new();
    let meter = machine.domain(PACKAGE, "package-0", RANGE).energy(PACKAGE, 100_000_000_000).meter();
    machine.energy(PACKAGE, 1_000_000).ticks(100, 0);
    assert_eq!(ask(&meter, &mut began(&meter)).1, EnergySource::Estimated);
}

#[test]
fn idle_draw_is_nobodys() {
    let machine = Machine::new();
    let meter = machine.domain(PACKAGE, "package-0", RANGE).meter();
    let mut now = began(&meter);
    // Nothing to do for a second: 8 W. Nothing was measured about work yet.
    machine.energy(PACKAGE, 8_000_000).ticks(2, 0);
    assert_eq!(ask(&meter, &mut now).1, EnergySource::Estimated);
    machine.energy(PACKAGE, 8_000_000 + 28_000_000).ticks(202, 0);
    assert_eq!(ask(&meter, &mut now), (10_000_000, EnergySource::Measured));
    // A long pause teaches idle draw, and the last measured power stays in use.
    now += 60 * SECOND;
    machine.energy(PACKAGE, 36_000_000 + 61 * 4_000_000).ticks(202, 0);
    assert_eq!(ask(&meter, &mut now), (10_000_000, EnergySource::Measured));
    machine.energy(PACKAGE, 36_000_000 + 61 * 4_000_000 + 28_000_000).ticks(402, 0);
    assert_eq!(ask(&meter, &mut now), (12_000_000, EnergySource::Measured));
}

#[test]
fn without_counters_it_is_an_estimate() {
    let machine = Machine::new();
    let meter = machine.meter();
    assert!(!meter.can_measure());
    let expected = (1_875_000, EnergySource::Estimated);
    assert_eq!(ask(&meter, &mut began(&meter)), expected);
    assert_eq!(WATTS_PER_THREAD, 1.875);

    let nowhere = Meter::with_roots(Path::new("/nowhere/powercap"), Path::new("/nowhere/proc"));
    assert_eq!(ask(&nowhere, &mut began(&nowhere)), expected);
}

#[test]
fn counters_that_vanish_end_the_measurement() {
    let machine = Machine::new();
    let meter = machine.domain(PACKAGE, "package-0", RANGE).meter();
    let mut now = began(&meter);
    machine.energy(PACKAGE, 30_000_000).ticks(100, 0);
    assert_eq!(ask(&meter, &mut now).1, EnergySource::Measured);
    fs::remove_file(machine.folder.path().join("powercap").join(PACKAGE).join("energy_uj")).unwrap();
    assert_eq!(ask(&meter, &mut now).1, EnergySource::Estimated);
}

#[test]
fn the_process_is_measured_by_its_own_time() {
    let machine = Machine::new();
    machine.ticks(1_000, 400);
    let meter = machine.meter();
    let reading = meter.start();
    machine.ticks(1_400, 500);
    let energy = meter.since(&reading);
    assert_eq!((energy.microjoules, energy.source), (1_875_000, EnergySource::Estimated));
}

#[test]
fn short_windows_do_not_end() {
    let machine = Machine::new();
    let meter = machine.domain(PACKAGE, "package-0", RANGE).meter();
    machine.energy(PACKAGE, 30_000_000).ticks(100, 0);
    let energy = meter.of_cpu_at(SECOND, began(&meter) + WINDOW / 5);
    assert_eq!(energy.source, EnergySource::Estimated);
}

#[test]
fn a_sum_is_measured_only_if_all_of_it_is() {
    let energy = |microjoules, source| super::Energy { microjoules, source };
    let (measured, estimated) = (energy(1, EnergySource::Measured), energy(2, EnergySource::Estimated));
    assert_eq!(measured.plus(&measured), energy(2, EnergySource::Measured));
    assert_eq!(measured.plus(&estimated), energy(3, EnergySource::Estimated));
}
