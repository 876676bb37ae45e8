//! Auditors whose openings somebody knows before their time.

use aria_runtime::rules::transaction::TransactionFault;

use super::*;

const TRANSACTION_FEE: u64 = 100_000;
const WHOLE: u64 = 1_000 * ARIA;

fn shows(chain: &Scenario, by: u8, at: Height, accused: u8, opening: Opening) -> VerifiedTransaction {
    chain.order(by, Action::Leak { height: at, index: 0, auditor: key(accused).node_id(), opening }, |_| {})
}

/// The opening of a node's verdict, shown by the provider.
fn leaks(chain: &Scenario, at: Height, record: &RecordId, accused: u8, verdict: Verdict) -> VerifiedTransaction {
    shows(chain, 1, at, accused, opening(chain, accused, record, verdict))
}

fn order(chain: &mut Scenario, order: VerifiedTransaction) {
    chain.transactions = vec![order];
    seal(chain, Vec::new());
    chain.transactions.clear();
}

fn binds(chain: &mut Scenario, at: Height, record: &RecordId, who: &[(u8, Verdict)]) {
    let all = who.iter().map(|(n, verdict)| commits(chain, *n, at, record, *verdict)).collect();
    seal(chain, all);
}

fn balance(chain: &Scenario, n: u8) -> u64 {
    chain.reader().account(&key(n).node_id()).unwrap().unwrap().balance.get()
}

fn misjudged(chain: &Scenario, n: u8) -> u64 {
    chain.reader().reputation(&key(n).node_id()).unwrap().misjudged
}

fn nothing(at: Height, n: u8) -> TransactionFault {
    TransactionFault::NothingToLeak { auditor: key(n).node_id(), height: at, index: 0 }
}

fn too_late(at: Height) -> TransactionFault {
    TransactionFault::LeakTooLate { height: at, index: 0 }
}

#[test]
fn an_auditor_that_told_its_secret_pays_and_who_shows_it_is_paid() {
    let mut chain = chain(5, &[]);
    let (record, at, _) = included(&mut chain);
    binds(&mut chain, at, &record, &[(3, Verdict::Valid), (4, Verdict::Valid)]);
    let before = balance(&chain, 1);
    let leak = leaks(&chain, at, &record, 3, Verdict::Valid);
    order(&mut chain, leak);
    assert_eq!((bond(&chain, 3), misjudged(&chain, 3)), (900 * ARIA, 1));
    assert!(chain.reader().candidate(&key(3).node_id()).unwrap().unwrap().barred > Epoch::ZERO);
    let gained = balance(&chain, 1) + TRANSACTION_FEE - before;
    assert!((50 * ARIA..=50 * ARIA + TRANSACTION_FEE / 2).contains(&gained), "half of the fee may be its own");
    conserved(&chain);

    // It has no voice any more, and nobody waits for it.
    let fault = AttestationFault::NotDrawn { node: key(3).node_id(), index: 0 };
    let late = opens(&chain, 3, at, &record, Verdict::Valid);
    refused(&mut chain, &late, &fault);
    let again = commits(&chain, 3, at, &record, Verdict::Invalid);
    refused(&mut chain, &again, &fault);
    let twice = leaks(&chain, at, &record, 3, Verdict::Valid);
    chain.refuses(&twice, &nothing(at, 3));
    binds(&mut chain, at, &record, &[(2, Verdict::Valid), (5, Verdict::Valid)]);
    let all = [2, 4, 5].map(|n| opens(&chain, n, at, &record, Verdict::Valid)).to_vec();
    let executed = seal(&mut chain, all);
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Verified)]);
    // Nor is it fined for silence besides.
    assert_eq!([2, 3, 4, 5].map(|n| bond(&chain, n)), [WHOLE, 900 * ARIA, WHOLE, WHOLE]);
    assert_eq!([2, 3, 4, 5].map(|n| earned_by(&chain, n)), [FEE, 0, FEE, FEE]);
    conserved(&chain);
}

#[test]
fn only_who_is_bound_can_leak() {
    let mut chain = chain(5, &[("committee_size = 5", "committee_size = 3")]);
    let proof = chain.proof(|_| {});
    let record = proof.record_id();
    chain.advance(chain.soon(), vec![proof]);
    let at = chain.tip.height;
    let undrawn = leaks(&chain, at, &record, 3, Verdict::Valid);
    chain.refuses(&undrawn, &nothing(at, 3));
    chain.advance(chain.soon(), Vec::new());
    chain.advance(chain.soon(), Vec::new());
    let drawn = committee(&chain, at);
    let other = (2..=5).find(|n| !drawn.contains(n)).unwrap();
    binds(&mut chain, at, &record, &[(drawn[0], Verdict::Valid)]);
    for n in [other, drawn[1]] {
        let unbound = leaks(&chain, at, &record, n, Verdict::Valid);
        chain.refuses(&unbound, &nothing(at, n));
    }
    let nowhere = leaks(&chain, height(at.get() + 1), &record, drawn[0], Verdict::Valid);
    chain.refuses(&nowhere, &nothing(height(at.get() + 1), drawn[0]));
}

#[test]
fn what_may_be_opened_is_no_leak() {
    let mut chain = chain(4, &[]);
    let (record, at, _) = included(&mut chain);
    let valid = [2, 3, 4].map(|n| (n, Verdict::Valid));
    binds(&mut chain, at, &record, &valid);
    let late = |chain: &Scenario| leaks(chain, at, &record, 3, Verdict::Valid);
    let bound = late(&chain);
    chain.refuses(&bound, &too_late(at));
    let two = [3, 4].map(|n| opens(&chain, n, at, &record, Verdict::Valid)).to_vec();
    seal(&mut chain, two);
    let opened = late(&chain);
    chain.refuses(&opened, &too_late(at));
    let last = opens(&chain, 2, at, &record, Verdict::Valid);
    seal(&mut chain, vec![last]);
    let ended = late(&chain);
    chain.refuses(&ended, &nothing(at, 3));
}

#[test]
fn a_leak_ends_in_the_block_before_the_first_openings() {
    let mut chain = chain(5, &[]);
    let (record, at, _) = included(&mut chain);
    binds(&mut chain, at, &record, &[(3, Verdict::Valid), (4, Verdict::Valid)]);
    let from = at.get() + 2 + 32;
    while chain.tip.height.get() < from - 2 {
        chain.beat();
    }
    let last = leaks(&chain, at, &record, 4, Verdict::Valid);
    order(&mut chain, last);
    assert_eq!((chain.tip.height.get(), bond(&chain, 4)), (from - 1, 900 * ARIA));
    // From now on an honest auditor may tell everybody.
    let late = leaks(&chain, at, &record, 3, Verdict::Valid);
    chain.refuses(&late, &too_late(at));
    let open = opens(&chain, 3, at, &record, Verdict::Valid);
    seal(&mut chain, vec![open]);
    assert_eq!(bond(&chain, 3), WHOLE);
}

#[test]
fn a_leak_and_the_last_commitment_fit_one_block() {
    let mut chain = chain(4, &[]);
    let (record, at, _) = included(&mut chain);
    binds(&mut chain, at, &record, &[(2, Verdict::Valid), (3, Verdict::Valid)]);
    // Nobody honest tells anything before this block is final.
    let last = commits(&chain, 4, at, &record, Verdict::Valid);
    chain.transactions = vec![leaks(&chain, at, &record, 3, Verdict::Valid)];
    seal(&mut chain, vec![last]);
    chain.transactions.clear();
    assert_eq!([2, 3, 4].map(|n| bond(&chain, n)), [WHOLE, 900 * ARIA, WHOLE]);
    let all = [2, 4].map(|n| opens(&chain, n, at, &record, Verdict::Valid)).to_vec();
    assert_eq!(seal(&mut chain, all).changes.statuses, [(record, RecordStatus::Verified)]);
}

#[test]
fn nobody_is_accused_of_what_it_did_not_commit_to() {
    let mut chain = chain(4, &[]);
    let (record, at, _) = included(&mut chain);
    binds(&mut chain, at, &record, &[(2, Verdict::Valid), (3, Verdict::Valid)]);
    let right = opening(&chain, 3, &record, Verdict::Valid);
    let wrong = [
        Opening { verdict: Verdict::Invalid, ..right },
        Opening { root: Digest::ZERO, ..right },
        Opening { secret: [0; 32], ..right },
        opening(&chain, 2, &record, Verdict::Valid),
    ];
    for opening in wrong {
        let guess = shows(&chain, 1, at, 3, opening);
        let other = TransactionFault::OtherCommitment { auditor: key(3).node_id(), height: at, index: 0 };
        chain.refuses(&guess, &other);
    }
    assert_eq!(bond(&chain, 3), WHOLE);
}

#[test]
fn who_accuses_itself_gets_half_of_what_it_loses() {
    let mut chain = chain(4, &[]);
    let (record, at, _) = included(&mut chain);
    judge(&mut chain, at, &record, &[2, 3, 4].map(|n| (n, Verdict::Valid)));
    let (record, at, _) = included(&mut chain);
    binds(&mut chain, at, &record, &[(3, Verdict::Valid)]);
    let before = balance(&chain, 3);
    let own = shows(&chain, 3, at, 3, opening(&chain, 3, &record, Verdict::Valid));
    order(&mut chain, own);
    assert_eq!(bond(&chain, 3), 900 * ARIA);
    assert!(balance(&chain, 3) < before + 50 * ARIA);
    conserved(&chain);
}

#[test]
fn a_judge_leaks_like_an_auditor_and_its_first_lie_is_not_forgotten() {
    let mut chain = chain(6, &[("committee_size = 5", "committee_size = 3")]);
    let (record, at, _) = included(&mut chain);
    let drawn = committee(&chain, at);
    let liar = drawn[2];
    let verdict = |n: u8| if n == liar { Verdict::Invalid } else { Verdict::Valid };
    judge(&mut chain, at, &record, &drawn.iter().map(|n| (*n, verdict(*n))).collect::<Vec<_>>());
    assert_eq!(audit(&chain, at).unwrap().phase, Phase::Disputed);
    binds(&mut chain, at, &record, &[(liar, Verdict::Valid)]);
    let leak = leaks(&chain, at, &record, liar, Verdict::Valid);
    order(&mut chain, leak);
    assert_eq!((bond(&chain, liar), committee(&chain, at).len()), (900 * ARIA, 4));
    let honest: Vec<(u8, Verdict)> = committee(&chain, at).into_iter().map(|n| (n, Verdict::Valid)).collect();
    let executed = judge(&mut chain, at, &record, &honest);
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Verified)]);
    assert_eq!((bond(&chain, liar), misjudged(&chain, liar)), (810 * ARIA, 2));
    assert_eq!((2..=6).filter(|n| bond(&chain, *n) == WHOLE).count(), 4);
    conserved(&chain);
}

#[test]
fn who_judges_a_doubt_leaks_too() {
    let mut chain = chain(5, &[]);
    let (record, at, _) = included(&mut chain);
    judge(&mut chain, at, &record, &[2, 3, 4, 5].map(|n| (n, Verdict::Valid)));
    let doubt = chain.order(1, Action::Doubt { height: at, index: 0, auditor: key(3).node_id() }, |_| {});
    order(&mut chain, doubt);
    binds(&mut chain, at, &record, &[(5, Verdict::Valid)]);
    let leak = leaks(&chain, at, &record, 5, Verdict::Valid);
    order(&mut chain, leak);
    judge(&mut chain, at, &record, &[1, 2, 4].map(|n| (n, Verdict::Invalid)));
    assert_eq!(audit(&chain, at), None);
    assert_eq!([1, 2, 3, 4, 5].map(|n| bond(&chain, n)), [WHOLE, WHOLE, 900 * ARIA, WHOLE, 900 * ARIA]);
    assert_eq!([3, 5].map(|n| misjudged(&chain, n)), [1, 1]);
    conserved(&chain);
}
