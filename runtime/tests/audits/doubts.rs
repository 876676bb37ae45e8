//! Auditors that attest what they did not run, and who doubts them.

use aria_runtime::rules::doubt::{deposit, doubted_until};
use aria_runtime::rules::transaction::TransactionFault;

use super::*;

/// What its judges would be paid: 32 fees.
const DEPOSIT: u64 = 32 * FEE;
const TRANSACTION_FEE: u64 = 100_000;

fn doubts(chain: &Scenario, by: u8, at: Height, accused: u8) -> VerifiedTransaction {
    chain.order(by, Action::Doubt { height: at, index: 0, auditor: key(accused).node_id() }, |_| {})
}

fn order(chain: &mut Scenario, order: VerifiedTransaction) {
    chain.transactions = vec![order];
    chain.advance(chain.soon(), Vec::new());
    chain.transactions.clear();
}

fn balance(chain: &Scenario, n: u8) -> u64 {
    chain.reader().account(&key(n).node_id()).unwrap().unwrap().balance.get()
}

/// A record that keys 2 to 5 found valid, in whose truth nobody lied.
fn verified(chain: &mut Scenario) -> (RecordId, Height) {
    let (record, at, _) = included(chain);
    let said: Vec<(u8, Verdict)> = committee(chain, at).into_iter().map(|n| (n, Verdict::Valid)).collect();
    let executed = judge(chain, at, &record, &said);
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Verified)]);
    (record, at)
}

#[test]
fn an_auditor_that_did_not_run_the_record_pays_and_who_found_it_out_is_paid() {
    let mut chain = chain(5, &[]);
    assert_eq!(deposit(chain.genesis.params()), NanoAria::new(DEPOSIT));
    let (record, at) = verified(&mut chain);
    let opened = chain.reader().opened(at, 0).unwrap().unwrap();
    assert_eq!((opened.record, opened.roots.len()), (record, 4));
    let (before, fees) = (balance(&chain, 1), [1, 2, 4, 5].map(|n| earned_by(&chain, n)));
    let doubt = doubts(&chain, 1, at, 3);
    order(&mut chain, doubt);
    let spent = before - balance(&chain, 1);
    assert!(
        (DEPOSIT + TRANSACTION_FEE / 2..=DEPOSIT + TRANSACTION_FEE).contains(&spent),
        "half of the fee may be its own"
    );
    conserved(&chain);
    // All others judge: with the provider, without the accused.
    let mut judging = committee(&chain, at);
    judging.sort_unstable();
    assert_eq!((judging, audit(&chain, at).unwrap().phase), (vec![1, 2, 4, 5], Phase::Doubted));
    let again = doubts(&chain, 1, at, 2);
    chain.refuses(&again, &TransactionFault::DoubtTooEarly { height: at, index: 0 });

    let said = [1, 2, 4, 5].map(|n| (n, Verdict::Invalid));
    let executed = judge(&mut chain, at, &record, &said);
    assert_eq!((executed.changes.statuses.len(), executed.changes.audits.len()), (0, 0), "the record stays verified");
    assert_eq!((audit(&chain, at), chain.reader().doubt(at, 0).unwrap()), (None, None));
    assert_eq!(bond(&chain, 3), 900 * ARIA);
    assert_eq!(chain.reader().reputation(&key(3).node_id()).unwrap().misjudged, 1);
    assert!(chain.reader().candidate(&key(3).node_id()).unwrap().unwrap().barred > Epoch::ZERO);
    let gained = balance(&chain, 1) + spent - before;
    assert_eq!(gained, 50 * ARIA + DEPOSIT + FEE, "its own again, half of what the liar lost, and the fee of a judge");
    assert_eq!([1, 2, 4, 5].map(|n| earned_by(&chain, n)), fees.map(|fee| fee + FEE));
    conserved(&chain);

    // Once is enough; the others' roots may be doubted still.
    let again = doubts(&chain, 1, at, 3);
    let nothing = TransactionFault::NothingToDoubt { auditor: key(3).node_id(), height: at, index: 0 };
    chain.refuses(&again, &nothing);
    let other = doubts(&chain, 1, at, 2);
    order(&mut chain, other);
    assert_eq!(committee(&chain, at).len(), 4);
}

#[test]
fn a_doubt_without_ground_costs_what_it_was_backed_with() {
    let mut chain = chain(5, &[]);
    let (record, at) = verified(&mut chain);
    let before = balance(&chain, 1);
    let doubt = doubts(&chain, 1, at, 3);
    order(&mut chain, doubt);
    // One of the judges lies with the doubter; four have more than two thirds.
    let said = [(1, Verdict::Valid), (2, Verdict::Valid), (4, Verdict::Valid), (5, Verdict::Invalid)];
    judge(&mut chain, at, &record, &said);
    assert_eq!([3, 5].map(|n| bond(&chain, n)), [1_000 * ARIA, 900 * ARIA]);
    assert!(balance(&chain, 1) <= before - DEPOSIT + FEE, "it judged rightly, and its doubt is paid for");
    assert_eq!(chain.reader().reputation(&key(3).node_id()).unwrap().misjudged, 0);
    conserved(&chain);
}

#[test]
fn a_doubt_that_nobody_decides_costs_nobody() {
    let mut chain =
        chain(5, &[("audit_blocks = 64", "audit_blocks = 6"), ("challenge_blocks = 16", "challenge_blocks = 1")]);
    let (record, at) = verified(&mut chain);
    let before = balance(&chain, 1);
    let doubt = doubts(&chain, 1, at, 3);
    order(&mut chain, doubt);
    let fee = before - DEPOSIT - balance(&chain, 1);
    let said = [(1, Verdict::Invalid), (2, Verdict::Valid)];
    let all = said.map(|(n, verdict)| commits(&chain, n, at, &record, verdict)).to_vec();
    seal(&mut chain, all);
    let early = opens(&chain, 2, at, &record, Verdict::Valid);
    let from = height(at.get() + 2 + 3 * 6 + 3);
    refused(&mut chain, &early, &AttestationFault::TooEarly { index: 0, from });
    while chain.tip.height.next().unwrap() < from {
        chain.beat();
    }
    let all = said.map(|(n, verdict)| opens(&chain, n, at, &record, verdict)).to_vec();
    seal(&mut chain, all);
    while audit(&chain, at).is_some() {
        assert!(chain.tip.height.get() < at.get() + 2 + 4 * 6);
        chain.beat();
    }
    assert_eq!(balance(&chain, 1) + fee, before);
    assert!([1, 2, 3, 4, 5].iter().all(|n| bond(&chain, *n) == 1_000 * ARIA));
    conserved(&chain);
}

#[test]
fn only_what_was_opened_is_doubted_and_not_for_ever() {
    let mut chain =
        chain(5, &[("audit_blocks = 64", "audit_blocks = 6"), ("challenge_blocks = 16", "challenge_blocks = 1")]);
    let (record, at, _) = included(&mut chain);
    let early = doubts(&chain, 1, at, 3);
    chain.refuses(&early, &TransactionFault::DoubtTooEarly { height: at, index: 0 });
    let said: Vec<(u8, Verdict)> = committee(&chain, at).into_iter().map(|n| (n, Verdict::Valid)).collect();
    judge(&mut chain, at, &record, &said);
    let nothing = |n: u8| TransactionFault::NothingToDoubt { auditor: key(n).node_id(), height: at, index: 0 };
    let provider = doubts(&chain, 1, at, 1);
    chain.refuses(&provider, &nothing(1));
    // Who cannot back it cannot doubt.
    let left = balance(&chain, 2);
    assert!((TRANSACTION_FEE..DEPOSIT).contains(&left), "{left}");
    let poor = doubts(&chain, 2, at, 3);
    let needed = NanoAria::new(DEPOSIT);
    let balance = NanoAria::new(left - TRANSACTION_FEE);
    chain.refuses(&poor, &TransactionFault::BalanceTooLow { balance, needed });
    let last = doubted_until(at, chain.genesis.params());
    while chain.tip.height < last {
        assert!(chain.reader().opened(at, 0).unwrap().is_some());
        chain.beat();
    }
    let late = doubts(&chain, 1, at, 3);
    chain.refuses(&late, &TransactionFault::DoubtTooLate { height: at, last });
    chain.beat();
    assert_eq!(chain.reader().opened(at, 0).unwrap(), None, "the state forgets it");

    // A refuted record has no roots, nor has a disputed one.
    let (record, at, _) = included(&mut chain);
    judge(&mut chain, at, &record, &(2..=5).map(|n| (n, Verdict::Invalid)).collect::<Vec<_>>());
    assert_eq!(chain.reader().opened(at, 0).unwrap(), None);
}
