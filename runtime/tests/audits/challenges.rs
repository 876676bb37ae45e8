//! Providers that are asked on the chain for what did not come over the wire.

use aria_chain::limits::DELIVERY_PART_BYTES_MAX;
use aria_runtime::rules::challenge::{challenged_until, deposit, parts_max};
use aria_runtime::rules::transaction::TransactionFault;
use aria_runtime::state::Challenge;

use super::*;

const TRANSACTION_FEE: u64 = 100_000;
/// What the longest part takes of a deposit: twelve places.
const PART: u64 = 12 * TRANSACTION_FEE;
/// Three of them, which is enough for a short answer.
const DEPOSIT: u64 = 3 * PART;
const WHOLE: u64 = 1_000 * ARIA;
/// What auditors have to spend.
const PURSE: u64 = ARIA;

/// Keys 1 to `last`; all auditors have some money. A record with its committee.
fn drawn(last: u8, replace: &[(&str, &str)]) -> (Scenario, RecordId, Height) {
    let replace: Vec<_> = [&[("balance_nano = 0\n", "balance_nano = 1_000_000_000\n")], replace].concat();
    let mut chain = chain(last, &replace);
    let (record, at, _) = included(&mut chain);
    (chain, record, at)
}

fn challenges(chain: &Scenario, by: u8, at: Height) -> VerifiedTransaction {
    chain.order(by, Action::Challenge { height: at, index: 0 }, |_| {})
}

/// A part of so many bytes, of so many; `later`: how many orders of the same account come before it in the block.
fn part(
    chain: &Scenario,
    by: u8,
    at: Height,
    (part, parts): (u8, u8),
    length: usize,
    later: u64,
) -> VerifiedTransaction {
    let sealed = vec![part; length];
    let action = Action::Deliver { height: at, index: 0, part, parts, sealed };
    chain.order(by, action, |order| order.nonce += later)
}

fn delivers(chain: &Scenario, at: Height, number: (u8, u8)) -> VerifiedTransaction {
    part(chain, 1, at, number, DELIVERY_PART_BYTES_MAX, 0)
}

fn order(chain: &mut Scenario, orders: Vec<VerifiedTransaction>) -> ExecutedBlock {
    chain.transactions = orders;
    let executed = seal(chain, Vec::new());
    chain.transactions.clear();
    executed
}

fn challenge(chain: &Scenario, at: Height) -> Option<Challenge> {
    chain.reader().challenge(at, 0).unwrap()
}

fn balance(chain: &Scenario, n: u8) -> u64 {
    chain.reader().account(&key(n).node_id()).unwrap().unwrap_or_default().balance.get()
}

fn held(chain: &Scenario) -> u64 {
    chain.reader().supply().unwrap().held.get()
}

fn unavailable(chain: &Scenario) -> u64 {
    chain.reader().reputation(&key(1).node_id()).unwrap().unavailable
}

/// Heartbeats up to a height.
fn beats_to(chain: &mut Scenario, to: u64) {
    while chain.tip.height.get() < to {
        assert_eq!(chain.beat().1.changes.statuses, []);
    }
}

/// Nothing of challenges is left in the state.
#[track_caller]
fn forgotten(chain: &Scenario) {
    let left = chain.state.entries().filter(|(key, _)| [0x17, 0x18, 0x19].contains(&key[0])).count();
    assert_eq!(left, 0);
}

#[test]
fn what_did_not_come_is_posted_and_the_audit_goes_on() {
    let (mut chain, record, at) = drawn(4, &[]);
    let params = chain.genesis.params().clone();
    assert_eq!((parts_max(71, &params), deposit(71, &params)), (Some(3), Some(NanoAria::new(DEPOSIT))));
    let first = challenges(&chain, 3, at);
    order(&mut chain, vec![first]);
    let open = challenge(&chain, at).unwrap();
    let until = chain.tip.height.plus(16).unwrap();
    assert_eq!((open.by, open.until, open.is_answered()), (key(3).node_id(), until, false));
    let mut readers: Vec<u8> = (1..=9).filter(|n| open.readers.contains(&key(*n).node_id())).collect();
    readers.sort_unstable();
    assert_eq!(readers, [2, 3, 4]);
    assert_eq!(held(&chain), PAID + DEPOSIT);
    // A proposer has half of its own fee back.
    let left = balance(&chain, 3);
    assert!((PURSE - TRANSACTION_FEE..PURSE).contains(&(left + DEPOSIT)), "{left}");
    conserved(&chain);

    // Two parts in one block, of which the first is the shorter: each pays by its length, from the deposit.
    let (provider, burned) = (balance(&chain, 1), chain.reader().supply().unwrap().burned.get());
    let both = vec![part(&chain, 1, at, (1, 2), 300, 0), part(&chain, 1, at, (0, 2), DELIVERY_PART_BYTES_MAX, 1)];
    let cost = 2 * TRANSACTION_FEE + PART;
    assert_eq!(both.iter().map(VerifiedTransaction::places).sum::<usize>(), 14);
    order(&mut chain, both);
    let answered = challenge(&chain, at).unwrap();
    assert!(answered.is_answered() && answered.spent == NanoAria::new(cost), "{answered:?}");
    assert_eq!(balance(&chain, 1), provider, "who answers pays nothing, and gets nothing");
    assert_eq!(balance(&chain, 3), left + DEPOSIT - cost, "what was not needed is back");
    assert_eq!(chain.reader().supply().unwrap().burned.get(), burned + cost, "nobody has the rest");
    let posted = chain.reader().delivered((at, 0), 2).unwrap().unwrap();
    assert_eq!(posted, [vec![0; DELIVERY_PART_BYTES_MAX], vec![1; 300]].concat());
    conserved(&chain);

    beats_to(&mut chain, until.get() + 2);
    let executed = judge(&mut chain, at, &record, &[2, 3, 4].map(|n| (n, Verdict::Valid)));
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Verified)]);
    assert_eq!([2, 3, 4].map(|n| earned_by(&chain, n)), [FEE; 3]);
    forgotten(&chain);
    conserved(&chain);
}

#[test]
fn who_posts_nothing_is_unavailable_when_the_time_is_over_and_blamed() {
    let (mut chain, record, at) = drawn(5, &[]);
    let requester = balance(&chain, REQUESTER);
    let one = challenges(&chain, 3, at);
    order(&mut chain, vec![one]);
    let (until, left) = (challenge(&chain, at).unwrap().until, balance(&chain, 3));
    beats_to(&mut chain, until.get());
    // The last block could still have taken it.
    let (_, executed) = chain.beat();
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Unavailable)]);
    let ended = Audit::from_bytes(&executed.changes.audits[0].1).unwrap();
    assert_eq!(ended.outcome, Some((RecordStatus::Unavailable, chain.tip.height)));
    assert_eq!((audit(&chain, at), unavailable(&chain)), (None, 1), "without any judge");
    assert_eq!((balance(&chain, 3), held(&chain)), (left + DEPOSIT, 0));
    assert_eq!(balance(&chain, REQUESTER), requester + PAID, "the requester has its fee back");
    assert_eq!([1, 2, 3, 4, 5].map(|n| bond(&chain, n)), [WHOLE; 5], "nobody is fined for silence");
    forgotten(&chain);
    conserved(&chain);
}

#[test]
fn a_provider_that_posts_some_parts_and_not_all_pays_for_them() {
    let (mut chain, record, at) = drawn(4, &[]);
    let one = challenges(&chain, 3, at);
    order(&mut chain, vec![one]);
    let two = vec![delivers(&chain, at, (0, 3)), part(&chain, 1, at, (2, 3), 10, 1)];
    order(&mut chain, two);
    let (until, left) = (challenge(&chain, at).unwrap().until, balance(&chain, 3));
    beats_to(&mut chain, until.get());
    let (_, executed) = chain.beat();
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Unavailable)]);
    assert_eq!(balance(&chain, 3), left + DEPOSIT, "all of it is back");
    assert_eq!(bond(&chain, 1), WHOLE - PART - TRANSACTION_FEE);
    forgotten(&chain);
    conserved(&chain);
}

#[test]
fn who_has_no_money_can_answer_all_the_same() {
    let (mut chain, ..) = drawn(4, &[("balance_nano = 1_000_000_000_000_000", "balance_nano = 0")]);
    // Key 5 has a bond, and nothing else.
    let proof = chain.proof(|claim| {
        claim.record.stages = vec![Stage { node_id: key(4).node_id(), layer_start: 0, layer_end: 6 }];
        claim.stage_keys = vec![4];
    });
    chain.advance(chain.soon(), vec![proof]);
    let at = chain.tip.height;
    let all = chain.order(
        4,
        Action::Transfer { to: key(9).node_id(), amount: NanoAria::new(PURSE - TRANSACTION_FEE) },
        |_| {},
    );
    order(&mut chain, vec![all]);
    chain.advance(chain.soon(), Vec::new());
    let one = challenges(&chain, 3, at);
    order(&mut chain, vec![one]);
    let poor = balance(&chain, 4);
    let answer = part(&chain, 4, at, (0, 1), DELIVERY_PART_BYTES_MAX, 0);
    order(&mut chain, vec![answer]);
    assert!(challenge(&chain, at).unwrap().is_answered());
    assert!(balance(&chain, 4) <= poor + TRANSACTION_FEE, "but for what it got as a proposer");
    // What is offered above the least fee is its own to pay, and the proposer's as any fee.
    conserved(&chain);
}

#[test]
fn whoever_was_drawn_and_has_not_committed_may_challenge_once_and_in_time() {
    let (mut chain, record, at) = drawn(6, &[("committee_size = 5", "committee_size = 3")]);
    let members = committee(&chain, at);
    let other = (2..=6).find(|n| !members.contains(n)).unwrap();
    let refuse = |chain: &mut Scenario, by: u8, fault: &TransactionFault| {
        let order = challenges(chain, by, at);
        chain.refuses(&order, fault);
    };
    let (height, index) = (at, 0);
    refuse(&mut chain, other, &TransactionFault::ChallengeNotDrawn { height, index });
    refuse(&mut chain, 1, &TransactionFault::ChallengeNotDrawn { height, index });
    let elsewhere = chain.order(members[0], Action::Challenge { height: at, index: 1 }, |_| {});
    chain.refuses(&elsewhere, &TransactionFault::NothingToChallenge { height, index: 1 });
    let bound = commits(&chain, members[0], at, &record, Verdict::Valid);
    seal(&mut chain, vec![bound]);
    refuse(&mut chain, members[0], &TransactionFault::ChallengeCommitted { height, index });

    // Who cannot back it cannot challenge.
    let gone = balance(&chain, members[1]) - 2 * TRANSACTION_FEE;
    let gift = Action::Transfer { to: key(9).node_id(), amount: NanoAria::new(gone) };
    let gift = chain.order(members[1], gift, |_| {});
    order(&mut chain, vec![gift]);
    let left = NanoAria::new(balance(&chain, members[1]) - TRANSACTION_FEE);
    refuse(&mut chain, members[1], &TransactionFault::BalanceTooLow { balance: left, needed: NanoAria::new(DEPOSIT) });

    let last = challenged_until(at, chain.genesis.params()).unwrap();
    assert_eq!(last.get(), at.get() + 2 + 32 - 16);
    beats_to(&mut chain, last.get() - 1);
    let mut late = Scenario::new(&chain.genesis.to_toml());
    (late.state, late.tip) = (chain.state.clone(), chain.tip.clone());
    late.beat();
    refuse(&mut late, members[2], &TransactionFault::ChallengeTooLate { height, index });
    let good = challenges(&chain, members[2], at);
    order(&mut chain, vec![good]);
    refuse(&mut chain, members[2], &TransactionFault::ChallengedBefore { height, index });
    // Also when it is over, here because somebody has committed.
    let until = challenge(&chain, at).unwrap().until;
    assert_eq!(until.get(), at.get() + 2 + 32, "the other half is the committee's");
    beats_to(&mut chain, until.get() + 1);
    assert!(audit(&chain, at).is_some());
    refuse(&mut chain, members[2], &TransactionFault::ChallengedBefore { height, index });
}

#[test]
fn what_is_too_long_for_the_chain_is_not_asked_for() {
    let (mut chain, ..) = drawn(4, &[]);
    let proof =
        chain.proof(|claim| (claim.record.prompt_tokens, claim.request.max_fee) = (33_600, NanoAria::new(PAID)));
    chain.advance(chain.soon(), vec![proof]);
    let at = chain.tip.height;
    chain.advance(chain.soon(), Vec::new());
    chain.advance(chain.soon(), Vec::new());
    let order = challenges(&chain, 3, at);
    chain.refuses(&order, &TransactionFault::PayloadTooLong { tokens: 33_600 + 51 });
}

#[test]
fn no_more_is_asked_for_than_blocks_have_room_for() {
    // One part in a block; nine blocks, of which half may be filled.
    let narrow = [
        ("transactions_per_block_max = 256", "transactions_per_block_max = 12"),
        ("challenge_blocks = 16", "challenge_blocks = 9"),
    ];
    let (mut chain, ..) = drawn(4, &narrow);
    let proofs = (0..2).map(|_| chain.proof(|claim| claim.request.max_fee = NanoAria::new(PAID))).collect();
    chain.advance(chain.soon(), proofs);
    let at = chain.tip.height;
    chain.advance(chain.soon(), Vec::new());
    chain.advance(chain.soon(), Vec::new());
    let asks = |chain: &Scenario, index: u32| chain.order(3, Action::Challenge { height: at, index }, |_| {});
    let first = asks(&chain, 0);
    order(&mut chain, vec![first]);
    let second = asks(&chain, 1);
    chain.refuses(&second, &TransactionFault::ChallengesFull { parts: 3, room: 5 });
    let answer = delivers(&chain, at, (0, 1));
    order(&mut chain, vec![answer]);
    let second = asks(&chain, 1);
    order(&mut chain, vec![second]);
    assert_eq!(chain.reader().open_challenges(9).unwrap().len(), 1);
}

#[test]
fn only_the_provider_delivers_each_part_once_and_all_of_one_whole() {
    let (mut chain, _, at) = drawn(4, &[]);
    let (height, index) = (at, 0);
    let nothing = TransactionFault::NothingToDeliver { height, index };
    let early = delivers(&chain, at, (0, 1));
    chain.refuses(&early, &nothing);
    let one = challenges(&chain, 3, at);
    order(&mut chain, vec![one]);
    let other = part(&chain, 2, at, (0, 1), 10, 0);
    chain.refuses(&other, &TransactionFault::DeliveredByOther { height, index });
    let many = delivers(&chain, at, (0, 4));
    chain.refuses(&many, &TransactionFault::TooManyParts { parts: 4, max: 3 });
    let good = delivers(&chain, at, (1, 3));
    order(&mut chain, vec![good]);
    let again = delivers(&chain, at, (1, 3));
    chain.refuses(&again, &TransactionFault::DeliveredBefore { part: 1 });
    let short = delivers(&chain, at, (0, 2));
    chain.refuses(&short, &TransactionFault::OtherParts { parts: 2, expected: 3 });
    let cheap = chain.order(
        1,
        Action::Deliver { height: at, index: 0, part: 0, parts: 3, sealed: vec![1; DELIVERY_PART_BYTES_MAX] },
        |order| order.fee = NanoAria::new(PART - 1),
    );
    chain.refuses(&cheap, &TransactionFault::FeeTooLow { fee: NanoAria::new(PART - 1), min: PART });
    let rest = vec![delivers(&chain, at, (0, 3)), part(&chain, 1, at, (2, 3), 10, 1)];
    order(&mut chain, rest);
    let late = delivers(&chain, at, (0, 3));
    chain.refuses(&late, &nothing);
    conserved(&chain);
}

#[test]
fn a_tip_above_the_least_fee_is_the_providers_to_pay() {
    let (mut chain, _, at) = drawn(4, &[]);
    let one = challenges(&chain, 3, at);
    order(&mut chain, vec![one]);
    let before = balance(&chain, 1);
    let action = Action::Deliver { height: at, index: 0, part: 0, parts: 1, sealed: vec![1; 10] };
    let tipped = chain.order(1, action, |order| order.fee = NanoAria::new(5 * TRANSACTION_FEE));
    order(&mut chain, vec![tipped]);
    assert_eq!(challenge(&chain, at).unwrap().spent, NanoAria::new(TRANSACTION_FEE));
    let paid = before - balance(&chain, 1);
    assert!([2, 4].contains(&(paid / TRANSACTION_FEE)), "{paid}: half of it may be its own, as of who proposes");
    conserved(&chain);
}

#[test]
fn a_challenge_whose_audit_ends_before_costs_what_was_posted() {
    let (mut chain, record, at) = drawn(4, &[]);
    let one = challenges(&chain, 3, at);
    order(&mut chain, vec![one]);
    let left = balance(&chain, 3);
    let some = delivers(&chain, at, (0, 2));
    order(&mut chain, vec![some]);
    // It came over the wire after all.
    let executed = judge(&mut chain, at, &record, &[2, 3, 4].map(|n| (n, Verdict::Valid)));
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Verified)]);
    assert_eq!(balance(&chain, 3), left + DEPOSIT - PART + FEE);
    assert_eq!((held(&chain), bond(&chain, 1)), (0, WHOLE));
    forgotten(&chain);
    conserved(&chain);
}

#[test]
fn what_is_posted_and_no_payload_goes_before_the_judges() {
    let (mut chain, record, at) = drawn(8, &[("committee_size = 5", "committee_size = 3")]);
    let drawn = committee(&chain, at);
    let one = challenges(&chain, drawn[0], at);
    order(&mut chain, vec![one]);
    let garbage = delivers(&chain, at, (0, 1));
    order(&mut chain, vec![garbage]);
    let missing: Vec<(u8, Verdict)> = drawn.iter().map(|n| (*n, Verdict::Missing)).collect();
    assert_eq!(judge(&mut chain, at, &record, &missing).changes.statuses, []);
    assert_eq!(audit(&chain, at).unwrap().phase, Phase::Disputed);
    forgotten(&chain);
    let all: Vec<(u8, Verdict)> = (2..=8).map(|n| (n, Verdict::Missing)).collect();
    let executed = judge(&mut chain, at, &record, &all);
    assert_eq!((executed.changes.statuses, unavailable(&chain)), (vec![(record, RecordStatus::Unavailable)], 1));
    conserved(&chain);
}

#[test]
fn two_of_three_cannot_take_away_pay_by_a_challenge() {
    // The third was given all it needs. The two say that nothing came to them, while the provider is away and does not answer.
    let (mut chain, record, at) = drawn(8, &[("committee_size = 5", "committee_size = 3")]);
    let drawn = committee(&chain, at);
    let one = challenges(&chain, drawn[1], at);
    chain.attestations = vec![commits(&chain, drawn[0], at, &record, Verdict::Valid)];
    chain.transactions = vec![one];
    chain.advance(chain.soon(), Vec::new());
    (chain.attestations, chain.transactions) = (Vec::new(), Vec::new());
    let until = challenge(&chain, at).unwrap().until;
    beats_to(&mut chain, until.get() + 1);
    // Somebody has what the others miss, so the chain takes nobody's word: the audit goes on.
    assert_eq!((audit(&chain, at).unwrap().phase, held(&chain)), (Phase::Drawn, PAID));
    let said = drawn[1..].iter().map(|n| commits(&chain, *n, at, &record, Verdict::Missing)).collect();
    seal(&mut chain, said);
    let verdict = |n: u8| if n == drawn[0] { Verdict::Valid } else { Verdict::Missing };
    let all = drawn.iter().map(|n| opens(&chain, *n, at, &record, verdict(*n))).collect();
    assert_eq!(seal(&mut chain, all).changes.statuses, []);
    assert_eq!(audit(&chain, at).unwrap().phase, Phase::Disputed, "nor the two's");
    let judges: Vec<(u8, Verdict)> =
        (2..=8).map(|n| (n, if drawn[1..].contains(&n) { Verdict::Missing } else { Verdict::Valid })).collect();
    let executed = judge(&mut chain, at, &record, &judges);
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Verified)]);
    assert_eq!((unavailable(&chain), bond(&chain, 1)), (0, WHOLE));
    assert!(drawn[1..].iter().all(|n| bond(&chain, *n) < WHOLE), "they pay for their silence");
    conserved(&chain);
}

#[test]
fn a_liar_is_not_saved_by_a_friend_who_challenges_it() {
    let (mut chain, record, at) = drawn(5, &[]);
    let one = challenges(&chain, 5, at);
    chain.attestations = [2, 3, 4].map(|n| commits(&chain, n, at, &record, Verdict::Invalid)).to_vec();
    chain.transactions = vec![one];
    chain.advance(chain.soon(), Vec::new());
    (chain.attestations, chain.transactions) = (Vec::new(), Vec::new());
    let until = challenge(&chain, at).unwrap().until;
    beats_to(&mut chain, until.get().max(at.get() + 2 + 32));
    let all = [2, 3, 4].map(|n| opens(&chain, n, at, &record, Verdict::Invalid)).to_vec();
    seal(&mut chain, all);
    while audit(&chain, at).is_some() {
        chain.beat();
    }
    assert_eq!((bond(&chain, 1), unavailable(&chain)), (900 * ARIA, 0));
    assert!(balance(&chain, 5) >= PURSE - TRANSACTION_FEE, "the deposit is back");
    conserved(&chain);
}
