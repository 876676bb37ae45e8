//! Committees of which half or more say nothing: the strongest voters look instead.

use super::*;

/// Of seven places of judges, what a committee of three gets for each place.
const PLACE: u64 = PAID * 3 / 20;

/// Eight nodes; a record with its committee of three.
fn drawn() -> (Scenario, RecordId, Height, Earned, Vec<u8>) {
    let mut chain = chain(
        8,
        &[
            ("committee_size = 5", "committee_size = 3"),
            ("audit_blocks = 64", "audit_blocks = 6"),
            ("challenge_blocks = 16", "challenge_blocks = 1"),
        ],
    );
    let (record, at, earned) = included(&mut chain);
    let drawn = committee(&chain, at);
    assert_eq!(drawn.len(), 3);
    (chain, record, at, earned, drawn)
}

#[test]
fn auditors_who_say_that_nothing_came_do_not_take_away_what_others_find() {
    let (mut chain, record, at, earned, drawn) = drawn();
    let colluding = &drawn[1..];
    let said = |n: u8| if colluding.contains(&n) { Verdict::Missing } else { Verdict::Valid };
    let executed = judge(&mut chain, at, &record, &drawn.iter().map(|n| (*n, said(*n))).collect::<Vec<_>>());
    assert_eq!(executed.changes.statuses, [], "two of three do not decide that");
    assert_eq!((audit(&chain, at).unwrap().phase, committee(&chain, at).len()), (Phase::Disputed, 7));
    let executed = judge(&mut chain, at, &record, &(2..=8).map(|n| (n, said(n))).collect::<Vec<_>>());
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Verified)]);
    assert_eq!(earned_by(&chain, 1), KEPT + earned.reward.get());
    // What the fee brings is for five now, and nothing is minted beside the reward.
    let right: Vec<u8> = (2..=8).filter(|n| !colluding.contains(n)).collect();
    assert!(right.iter().all(|n| earned_by(&chain, *n) == PLACE * 3 / 5));
    assert_eq!(chain.reader().supply().unwrap().issued, earned.reward);
    let whole = 1_000 * ARIA;
    assert!(right.iter().all(|n| bond(&chain, *n) == whole));
    assert!(colluding.iter().all(|n| bond(&chain, *n) == whole - PLACE), "once, though they said it twice");
    assert!((2..=8).all(|n| chain.reader().reputation(&key(n).node_id()).unwrap() == Reputation::default()));
    conserved(&chain);
}

#[test]
fn who_found_it_at_last_is_not_fined_for_what_it_could_not_tell_at_first() {
    let (mut chain, record, at, _, drawn) = drawn();
    // Nobody of the committee says anything until the time is over.
    while audit(&chain, at).unwrap().phase == Phase::Drawn {
        chain.beat();
    }
    let all: Vec<(u8, Verdict)> = (2..=8).map(|n| (n, Verdict::Valid)).collect();
    let executed = judge(&mut chain, at, &record, &all);
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Verified)]);
    assert!(drawn.iter().all(|n| bond(&chain, *n) == 1_000 * ARIA && earned_by(&chain, *n) == PLACE * 3 / 7));
    conserved(&chain);
}

#[test]
fn what_the_judges_do_not_get_either_is_unavailable() {
    let (mut chain, record, at, _, drawn) = drawn();
    judge(&mut chain, at, &record, &drawn.iter().map(|n| (*n, Verdict::Missing)).collect::<Vec<_>>());
    let executed = judge(&mut chain, at, &record, &(2..=8).map(|n| (n, Verdict::Missing)).collect::<Vec<_>>());
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Unavailable)]);
    assert_eq!(chain.reader().reputation(&key(1).node_id()).unwrap().unavailable, 1);
    assert_eq!(chain.reader().supply().unwrap().held, NanoAria::ZERO, "its requester has its fee back");
    assert!((1..=8).all(|n| bond(&chain, n) == 1_000 * ARIA), "nobody is fined for what nobody could tell");

    // A third of the power that says nothing keeps a record undecided, and blames nobody.
    let (mut chain, record, at, _, drawn) = self::drawn();
    judge(&mut chain, at, &record, &drawn.iter().map(|n| (*n, Verdict::Missing)).collect::<Vec<_>>());
    let said = |n: u8| if drawn.contains(&n) { Verdict::Missing } else { Verdict::Valid };
    let executed = judge(&mut chain, at, &record, &(2..=8).map(|n| (n, said(n))).collect::<Vec<_>>());
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Unavailable)]);
    assert_eq!(chain.reader().reputation(&key(1).node_id()).unwrap().unavailable, 0);
    conserved(&chain);
}
