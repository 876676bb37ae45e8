//! The consent contract: what each clause admits, at its edges, and that a contract which cannot be is refused.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

use aria_chain::consent::{Ask, BANDWIDTH_KBPS_MAX, Consent, ConsentError, Days, Refusal, Schedule, TaskTypes};
use aria_chain::error::TransactionError;
use aria_chain::request::TaskType;
use aria_chain::units::{NanoAria, Timestamp};
use proptest::prelude::*;

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{chain_id, consent};

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;
/// The first Monday after 1970 began, in minutes.
const MONDAY: u64 = 4 * DAY_MINUTES;
const NANO: u64 = 1_000_000_000;

/// A moment of the week that begins on that Monday: day 0 is Monday.
fn at(day: u64, time: &str) -> Timestamp {
    let (hours, minutes) = time.split_once(':').unwrap();
    let minute = hours.parse::<u64>().unwrap() * 60 + minutes.parse::<u64>().unwrap();
    // The last millisecond of the minute: an edge is inside as a whole.
    Timestamp::new((MONDAY + day * DAY_MINUTES + minute) * MINUTE_MS + MINUTE_MS - 1)
}

fn ask() -> Ask {
    Ask { at: at(0, "12:00"), task: TaskType::Any, ram_mb: 0, reward: NanoAria::ZERO, running: 0 }
}

#[test]
fn the_defaults_are_those_of_the_seeds() {
    let contract = Consent::default();
    assert_eq!((contract.cpu_percent, contract.max_ram_mb, contract.max_bandwidth_kbps), (25, 512, 10_000));
    assert_eq!((contract.max_concurrent_tasks, contract.min_reward), (2, NanoAria::ZERO));
    assert!(contract.allow_logging && !contract.allow_geo_tracking);
    assert_eq!((contract.schedule.to_string(), contract.days), ("00:00-23:59".to_owned(), Days::ALL));
    assert_eq!((contract.task_types, TaskType::ALL.len()), (TaskTypes::ANY, 6));
    assert_eq!(contract.check(), Ok(()));
    assert_eq!(contract.admits(&ask()), Ok(()));
}

#[test]
fn the_digest_names_the_contract() {
    let digest = |cpu_percent| Consent { cpu_percent, ..Consent::default() }.digest();
    assert_eq!(digest(25).to_string().len(), 64);
    assert_eq!(digest(25), digest(25));
    assert_ne!(digest(25), digest(50));
    assert_eq!(digest(25).to_string(), "9eeb1dfac493c53b476eed484486d75292162902381eaaadcdd135813b453d9b");
}

#[test]
fn a_list_of_tasks_refuses_others_and_what_is_not_told() {
    let asked = |tasks: &str, task| {
        let contract = Consent { task_types: tasks.parse().unwrap(), ..Consent::default() };
        contract.admits(&Ask { task, ..ask() }).map_err(|refusal| refusal.clause())
    };
    for task in TaskType::ALL {
        assert_eq!(asked("any", task), Ok(()), "any accepts all");
    }
    assert_eq!(asked("text_gen", TaskType::TextGeneration), Ok(()));
    assert_eq!(asked("text_generation,code_gen", TaskType::TextGeneration), Ok(()), "an older name");
    assert_eq!(asked("text_gen", TaskType::CodeGeneration), Err("task"));
    assert_eq!(asked("text_gen,code_gen", TaskType::Any), Err("task"), "a request without a type");
}

#[test]
fn memory_reward_and_number_hold_at_their_edges() {
    let contract = Consent { min_reward: NanoAria::new(NANO / 100), ..Consent::default() };
    let reward = contract.min_reward;
    let fitting = Ask { ram_mb: 512, reward, running: 1, ..ask() };
    assert_eq!(contract.admits(&fitting), Ok(()), "equal is enough");
    let refused = |ask: Ask| contract.admits(&ask).unwrap_err();
    assert_eq!(refused(Ask { ram_mb: 513, ..fitting }), Refusal::Ram { asked_mb: 513, max_mb: 512 });
    let less = NanoAria::new(reward.get() - 1);
    assert_eq!(refused(Ask { reward: less, ..fitting }), Refusal::Reward { offered: less, min: reward });
    assert_eq!(refused(Ask { running: 2, ..fitting }), Refusal::Concurrency { running: 2, max: 2 });
    let pays = |min: u64, offer: u64| {
        let contract = Consent { min_reward: NanoAria::new(min), ..Consent::default() };
        contract.admits(&Ask { reward: NanoAria::new(offer), ..ask() }).is_ok()
    };
    assert!(pays(NANO / 1_000, NANO / 100) && !pays(NANO / 10, NANO / 100), "0.001 and 0.1 against 0.01");
}

/// What the clauses of time say to a day and a time.
fn when(schedule: &str, days: &str, day: u64, time: &str) -> &'static str {
    let contract = Consent { schedule: schedule.parse().unwrap(), days: days.parse().unwrap(), ..Consent::default() };
    match contract.admits(&Ask { at: at(day, time), ..ask() }) {
        Ok(()) => "yes",
        Err(refusal) => refusal.clause(),
    }
}

#[test]
fn a_window_holds_both_its_edges_and_belongs_to_the_day_on_which_it_begins() {
    let (work, night, all) = ("08:00-22:00", "22:00-06:00", "mon-fri");
    for (schedule, days, day, time, expected) in [
        (work, all, 0, "08:00", "yes"),
        (work, all, 0, "07:59", "schedule"),
        (work, all, 0, "22:00", "yes"),
        (work, all, 0, "22:01", "schedule"),
        (work, all, 5, "12:00", "days"),
        (night, "all", 2, "23:00", "yes"),
        (night, "all", 2, "22:00", "yes"),
        (night, "all", 2, "21:59", "schedule"),
        (night, "all", 2, "06:00", "yes"),
        (night, "all", 2, "06:01", "schedule"),
        // The night that begins on Friday is open on Saturday; the one that ends on Monday began on Sunday.
        (night, all, 5, "03:00", "yes"),
        (night, all, 5, "06:01", "schedule"),
        (night, all, 5, "22:00", "days"),
        (night, all, 0, "03:00", "days"),
        (night, "sun", 0, "03:00", "yes"),
        // Start and end in one minute are the whole day, and the last minute of a day is whole too.
        ("09:00-09:00", "tue", 1, "00:00", "yes"),
        ("09:00-09:00", "tue", 1, "23:59", "yes"),
        ("09:00-09:00", "tue", 2, "00:00", "days"),
        ("00:00-23:59", "all", 6, "23:59", "yes"),
    ] {
        assert_eq!(when(schedule, days, day, time), expected, "{schedule} on {days}: day {day}, {time}");
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let default = Consent::default();
    for (contract, field) in [
        (Consent { cpu_percent: 0, ..default }, "cpu_percent"),
        (Consent { cpu_percent: 101, ..default }, "cpu_percent"),
        (Consent { max_ram_mb: 0, ..default }, "max_ram_mb"),
        (Consent { max_bandwidth_kbps: BANDWIDTH_KBPS_MAX + 1, ..default }, "max_bandwidth_kbps"),
        (Consent { max_concurrent_tasks: 0, ..default }, "max_concurrent_tasks"),
        (Consent { min_reward: NanoAria::new(u64::MAX), ..default }, "min_reward_nano"),
    ] {
        let error = contract.check().unwrap_err();
        assert!(matches!(error, ConsentError::Range { field: found, .. } if found == field), "{error}");
        let refused = consent(1, 0, Some(contract)).verify(&chain_id());
        assert_eq!(refused, Err(TransactionError::Consent(error)), "nor is it ever in a block");
    }
    for text in ["", "8:00-22:00", "08:00", "24:00-06:00", "08:60-09:00", "08:00-22:00-23:00", "+8:00-22:00"] {
        assert!(text.parse::<Schedule>().is_err(), "{text}");
    }
    for text in ["", ",", "mo", "mon-", "fri-funday"] {
        assert!(text.parse::<Days>().is_err(), "{text}");
    }
    for text in ["", "poetry", "text_gen,,poetry"] {
        assert!(text.parse::<TaskTypes>().is_err(), "{text}");
    }
    assert_eq!("Sat-Mon, thursday".parse::<Days>().unwrap().to_string(), "mon,thu,sat,sun");
}

#[test]
fn a_statement_moves_nothing_and_is_signed() {
    let good = consent(1, 0, Some(Consent::default()));
    assert_eq!(good.transaction.action.amount(), None);
    assert!(good.clone().verify(&chain_id()).is_ok());
    assert!(consent(1, 0, None).verify(&chain_id()).is_ok());
    let mut altered = good;
    altered.transaction.action =
        aria_chain::transaction::Action::Consent { contract: Some(Consent { cpu_percent: 100, ..Consent::default() }) };
    assert!(matches!(altered.verify(&chain_id()), Err(TransactionError::Unsigned { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// A window, walked minute by minute from its beginning on each of its days, is exactly when the contract holds.
    #[test]
    fn a_schedule_is_open_in_the_minutes_of_its_windows_alone(from in 0..DAY_MINUTES, until in 0..DAY_MINUTES, days in 1_u8..128, probe in 0..7 * DAY_MINUTES) {
        let clock = |minute: u64| format!("{:02}:{:02}", minute / 60, minute % 60);
        let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let chosen: Vec<&str> = (0..7).filter(|day| days & (1 << day) != 0).map(|day| names[day]).collect();
        let (first, length) = match from.cmp(&until) {
            std::cmp::Ordering::Less => (from, until - from + 1),
            std::cmp::Ordering::Equal => (0, DAY_MINUTES),
            std::cmp::Ordering::Greater => (from, DAY_MINUTES - from + until + 1),
        };
        let is_open = (0..7_u64).filter(|day| days & (1 << day) != 0).any(|day| {
            let begins = day * DAY_MINUTES + first;
            (probe + 7 * DAY_MINUTES - begins) % (7 * DAY_MINUTES) < length
        });
        let schedule = format!("{}-{}", clock(from), clock(until));
        let said = when(&schedule, &chosen.join(","), probe / DAY_MINUTES, &clock(probe % DAY_MINUTES));
        prop_assert_eq!(said == "yes", is_open, "{} {:?} {}", schedule, chosen, probe);
        prop_assert_eq!(schedule.parse::<Schedule>().unwrap().to_string(), schedule);
    }
}
