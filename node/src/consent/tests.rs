use aria_chain::request::TaskType;
use serde_json::json;

use super::*;
use crate::cli::{StartArgs, TermsArgs};
use crate::config::ConfigFile;

fn config(terms: TermsArgs, section: &str) -> NodeConfig {
    let file: ConfigFile = toml::from_str(section).unwrap();
    NodeConfig::settle(&StartArgs { terms, threads: Some(64), ..StartArgs::default() }, &file).unwrap()
}

fn open(dir: &DataDir) -> Arc<Governor> {
    Governor::open(dir, &config(TermsArgs::default(), "")).unwrap()
}

fn fields(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn wanted() -> Wanted {
    Wanted { at: Timestamp::new(0), task: TaskType::Any, ram_mb: 0, kv_bytes: 0, reward: NanoAria::ZERO }
}

#[test]
fn nothing_stated_admits_everything_and_what_is_stated_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::create(folder.path()).unwrap();
    let governor = open(&dir);
    assert_eq!((governor.in_force(), governor.threads()), (None, 64));
    let much = Wanted { kv_bytes: u64::MAX, ram_mb: u32::MAX, ..wanted() };
    assert!(governor.admit(&much).is_ok() && *governor.may_tell_place().borrow());

    let place = governor.may_tell_place();
    let stated = governor.set(&fields(json!({"cpu_percent": 30, "max_concurrent_tasks": 1}))).unwrap();
    assert_eq!((stated.cpu_percent, stated.max_ram_mb), (30, 512), "the rest is as operators begin");
    assert!(!*place.borrow());
    let again = governor.set(&fields(json!({"max_ram_mb": 200}))).unwrap();
    assert_eq!((again.cpu_percent, again.max_ram_mb), (30, 200), "what is not named stays");
    assert!(governor.set(&fields(json!({"cpu_percent": 0}))).is_err());
    assert_eq!(open(&dir).in_force(), Some(InForce { contract: again, is_revoked: false }));

    governor.revoke().unwrap();
    assert!(matches!(governor.admit(&wanted()), Err(Refusal::Revoked)));
    let later = open(&dir);
    assert_eq!(later.in_force(), Some(InForce { contract: again, is_revoked: true }));
    later.set(&Map::new()).unwrap();
    assert!(later.admit(&wanted()).is_ok(), "setting states it anew");
}

#[test]
fn flags_win_over_the_file_and_the_file_over_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::create(folder.path()).unwrap();
    let flags = TermsArgs { cpu: Some("40".into()), days: Some("mon-fri".into()), ..TermsArgs::default() };
    let section =
        "[consent]\ncpu_percent = 10\nmax_ram_mb = 100\nmax_bandwidth_mbps = 0.5\nmin_reward_per_inference = 0.001";
    let opened = |terms: &TermsArgs, section: &str| {
        Governor::open(&dir, &config(terms.clone(), section)).unwrap().in_force().unwrap().contract
    };
    let first = opened(&flags, section);
    assert_eq!((first.cpu_percent, first.max_ram_mb, first.max_bandwidth_kbps), (40, 100, 500));
    assert_eq!((first.min_reward.get(), first.days.to_string()), (1_000_000, "mon,tue,wed,thu,fri".into()));
    open(&dir).set(&fields(json!({"cpu_percent": 70}))).unwrap();
    assert_eq!(opened(&TermsArgs::default(), section).cpu_percent, 70);
    assert_eq!(opened(&flags, section).cpu_percent, 40);
    std::fs::write(folder.path().join("consent.json"), "{\"cpu_percent\": 700}").unwrap();
    let damaged = Governor::open(&dir, &config(TermsArgs::default(), "")).err().unwrap().to_string();
    assert!(damaged.contains("consent.json") && damaged.contains("cpu_percent"), "{damaged}");
}

#[test]
fn a_permit_counts_until_it_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let governor = open(&DataDir::create(folder.path()).unwrap());
    governor.set(&fields(json!({"max_concurrent_tasks": 2}))).unwrap();
    let first = governor.admit(&wanted()).unwrap();
    let second = governor.admit(&wanted()).unwrap();
    assert_eq!(governor.admit(&wanted()).err(), Some(Refusal::Concurrency { running: 2, max: 2 }));
    drop(first);
    let third = governor.admit(&wanted()).unwrap();
    // Fewer are allowed now: those in the making end by themselves.
    governor.set(&fields(json!({"max_concurrent_tasks": 1}))).unwrap();
    drop(second);
    assert_eq!(governor.admit(&wanted()).err(), Some(Refusal::Concurrency { running: 1, max: 1 }));
    drop(third);
    assert!(governor.admit(&wanted()).is_ok());
}

#[test]
fn threads_are_whole_ones_of_the_share_and_at_least_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut governor = Arc::try_unwrap(open(&DataDir::create(folder.path()).unwrap())).ok().unwrap();
    governor.unlimited.threads = 12;
    for (processors, cpu_percent, threads) in
        [(2, 25, 1), (2, 100, 2), (8, 25, 2), (8, 99, 7), (1, 1, 1), (16, 100, 12), (16, 50, 8)]
    {
        governor.processors = processors;
        let contract = Consent { cpu_percent, ..Consent::default() };
        assert_eq!(governor.threads_of(&contract), threads, "{cpu_percent} % of {processors}");
    }
}

#[test]
fn memory_is_divided_and_what_does_not_fit_is_refused_with_the_clause() {
    const MB: u64 = 1 << 20;
    let contract = Consent { max_ram_mb: 512, ..Consent::default() };
    let memory = Memory::of(&contract, 116 * MB);
    assert_eq!((memory.kv_bytes_max, memory.prefix_bytes_max), (225 * MB, 75 * MB), "of the 300 MB that are left");
    assert_eq!(memory.needed_mb(116 * MB, memory.kv_bytes_max), 512, "all of it is just allowed");
    assert_eq!(memory.needed_mb(116 * MB, memory.kv_bytes_max + 1), 513);
    assert!(memory.check(&contract, 116 * MB, 77_000).is_ok());
    let error = Memory::of(&contract, 1_100 * MB).check(&contract, 1_100 * MB, 77_000).unwrap_err();
    assert!(matches!(error, NodeError::DoesNotFit { max_mb: 512, needed_mb } if needed_mb > 1_100), "{error}");
    assert!(error.to_string().contains("--ram"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let governor = open(&DataDir::create(folder.path()).unwrap());
    governor.set(&fields(json!({"max_ram_mb": 512}))).unwrap();
    let stated = |ram_mb| governor.admit(&Wanted { ram_mb, ..wanted() }).err();
    assert_eq!((stated(512), stated(513)), (None, Some(Refusal::Ram { asked_mb: 513, max_mb: 512 })));
}

#[test]
fn a_second_model_shares_the_memory_and_takes_no_more_than_the_machine_can_spare() {
    const MB: u64 = 1 << 20;
    let contract = Consent { max_ram_mb: 512, ..Consent::default() };
    let memory = Memory::of(&contract, 216 * MB).halved();
    assert_eq!((memory.kv_bytes_max, memory.beside_bytes_max, memory.prefix_bytes_max), (75 * MB, 75 * MB, 50 * MB));
    assert_eq!(memory.needed_mb(216 * MB, memory.kv_bytes_max), 512, "both together have what is stated");
    assert!(memory.check(&contract, 216 * MB, 77_000).is_ok());
    let error = Memory::of(&contract, 320 * MB).halved().check(&contract, 320 * MB, 77_000).unwrap_err();
    assert!(matches!(error, NodeError::DoesNotFit { max_mb: 512, .. }), "alone it would fit: {error}");
    assert!(Memory::of(&contract, 320 * MB).check(&contract, 320 * MB, 77_000).is_ok());

    assert!(memory::check_machine(Some(400 * MB), (100 * MB, 77_000)).is_ok());
    assert!(memory::check_machine(None, (100 * MB, 77_000)).is_ok());
    let error = memory::check_machine(Some(200 * MB), (100 * MB, 77_000)).unwrap_err();
    assert!(matches!(error, NodeError::NoMemory { needed_mb: 138, free_mb: 200 }), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let governor = open(&DataDir::create(folder.path()).unwrap());
    let served = crate::model::locate("aria-tiny", folder.path()).unwrap();
    let options = EngineOptions::default();
    governor.take_charge(governor.load(&served, BackendChoice::Builtin, &options).unwrap());
    governor.set(&fields(json!({"max_ram_mb": 110}))).unwrap();
    let positions = || governor.positions_max(1, 3_072);
    let alone = positions();
    let backend = governor.load_beside(&served, &options).unwrap();
    assert!(positions() < alone / 2, "weights and half of the caches");
    assert!(backend.model().context <= alone / 2, "nor is a longer claim run");
    governor.leave_beside();
    assert_eq!(positions(), alone);
    governor.set(&fields(json!({"max_ram_mb": 106}))).unwrap();
    assert!(matches!(governor.load_beside(&served, &options), Err(NodeError::DoesNotFit { .. })));
}

#[test]
fn what_is_written_into_the_file_is_taken_over_and_a_damaged_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let governor = open(&DataDir::create(folder.path()).unwrap());
    assert!(!governor.reload().unwrap(), "there is no file");
    governor.set(&Map::new()).unwrap();
    assert!(!governor.reload().unwrap(), "this node wrote it itself");
    let write = |text: &str| std::fs::write(folder.path().join("consent.json"), text).unwrap();
    write("{\"cpu_percent\": 12, \"revoked\": true}");
    assert!(governor.reload().unwrap());
    let InForce { contract, is_revoked } = governor.in_force().unwrap();
    assert_eq!((contract.cpu_percent, is_revoked), (12, true));
    for damaged in ["", "{\"cpu_percent\": 12, \"revoked\": 1}", "{\"cpu\": 12}"] {
        write(damaged);
        assert!(governor.reload().is_err(), "{damaged}");
        assert_eq!(governor.in_force().unwrap().contract, contract);
    }
    std::fs::remove_file(folder.path().join("consent.json")).unwrap();
    assert!(!governor.reload().unwrap() && governor.in_force().unwrap().is_revoked);
}
