//! What requesters pay, what becomes of it, and that nobody gains by asking themselves.

use super::*;
use scenario::{LAYERS, REQUESTER};

fn money(chain: &Scenario, n: u8) -> u64 {
    let account = chain.reader().account(&key(n).node_id()).unwrap().unwrap();
    account.balance.get() + account.bond.get()
}

fn held(chain: &Scenario) -> u64 {
    chain.reader().supply().unwrap().held.get()
}

/// A record for which its requester pays so much, up to its draw.
fn asked(chain: &mut Scenario, requester: u8, fee: u64) -> (RecordId, Height, Earned) {
    let proof = chain.proof(|claim| {
        claim.request.max_fee = NanoAria::new(fee);
        claim.requester_key = requester;
    });
    let record = proof.record_id();
    let (block, executed) = chain.advance(chain.soon(), vec![proof]);
    let Settlement::Awaiting(earned) = executed.settlements[0] else { panic!("{:?}", executed.settlements) };
    chain.advance(chain.soon(), Vec::new());
    chain.advance(chain.soon(), Vec::new());
    (record, block.header().height, earned)
}

fn all(verdict: Verdict) -> Vec<(u8, Verdict)> {
    (2..=4).map(|n| (n, verdict)).collect()
}

#[test]
fn a_fee_is_held_while_its_record_is_audited_and_spent_when_it_is_verified() {
    let mut chain = chain(4, &[]);
    let before = money(&chain, REQUESTER);
    let (record, at, _) = asked(&mut chain, REQUESTER, PAID);
    assert_eq!((held(&chain), money(&chain, REQUESTER)), (PAID, before - PAID));
    conserved(&chain);
    judge(&mut chain, at, &record, &all(Verdict::Valid));
    assert_eq!((held(&chain), money(&chain, REQUESTER)), (0, before - PAID));
    let supply = chain.reader().supply().unwrap();
    assert_eq!(supply.burned.get(), PAID - KEPT - 3 * FEE, "two of five places of the committee are empty");
    assert_eq!(supply.issued.get(), 950_000);
    let work = chain.reader().work(Epoch::ZERO, &key(1).node_id()).unwrap();
    assert_eq!(work.burned.get(), PAID / 2, "what is destroyed in any case");
    conserved(&chain);
}

#[test]
fn whoever_got_a_false_answer_or_one_that_nobody_could_check_has_its_fee_back() {
    let mut chain = chain(4, &[]);
    let before = money(&chain, REQUESTER);
    for verdict in [Verdict::Invalid, Verdict::Missing] {
        let (record, at, _) = asked(&mut chain, REQUESTER, PAID);
        judge(&mut chain, at, &record, &all(verdict));
        assert_eq!((held(&chain), money(&chain, REQUESTER)), (0, before), "{verdict:?}");
        conserved(&chain);
    }
    // Auditors contradict each other, and nobody decides.
    let (record, at, _) = asked(&mut chain, REQUESTER, PAID);
    judge(&mut chain, at, &record, &[(2, Verdict::Valid), (3, Verdict::Invalid), (4, Verdict::Valid)]);
    assert_eq!(audit(&chain, at).unwrap().phase, Phase::Disputed);
    assert_eq!(held(&chain), PAID);
    while audit(&chain, at).is_some() {
        chain.beat();
    }
    assert_eq!((held(&chain), money(&chain, REQUESTER)), (0, before));
    conserved(&chain);

    // Nobody is left who could audit.
    let two = [1, 2].map(|n| Stage {
        node_id: key(n).node_id(),
        layer_start: if n == 1 { 0 } else { 3 },
        layer_end: if n == 1 { 3 } else { LAYERS },
    });
    let mut pair = super::chain(2, &[]);
    let proof = pair.proof(|claim| {
        claim.request.max_fee = NanoAria::new(PAID);
        claim.record.stages = two.to_vec();
        claim.stage_keys = vec![1, 2];
    });
    pair.advance(pair.soon(), vec![proof]);
    assert_eq!(held(&pair), PAID);
    pair.advance(pair.soon(), Vec::new());
    pair.advance(pair.soon(), Vec::new());
    assert_eq!((held(&pair), money(&pair, REQUESTER)), (0, before));
    conserved(&pair);
}

#[test]
fn what_nobody_pays_for_mints_nothing_and_counts_as_work() {
    let mut chain = chain(4, &[]);
    let (record, at, earned) = asked(&mut chain, REQUESTER, 0);
    assert_eq!((earned.reward, earned.audit_fee), (NanoAria::ZERO, NanoAria::ZERO));
    let executed = judge(&mut chain, at, &record, &all(Verdict::Valid));
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Verified)]);
    assert_eq!([1, 2, 3, 4].map(|n| earned_by(&chain, n)), [0; 4]);
    assert_eq!(chain.reader().supply().unwrap().issued, NanoAria::ZERO);
    assert!([1, 2, 3, 4].iter().all(|n| work(&chain, *n) > 0));
    // Who is not paid is not fined for saying nothing.
    let (record, at, _) = asked(&mut chain, REQUESTER, 0);
    let two = [2, 3].map(|n| commits(&chain, n, at, &record, Verdict::Valid)).to_vec();
    seal(&mut chain, two);
    while chain.tip.height.get() < at.get() + 2 + 32 {
        chain.beat();
    }
    let two = [2, 3].map(|n| opens(&chain, n, at, &record, Verdict::Valid)).to_vec();
    seal(&mut chain, two);
    while audit(&chain, at).is_some() {
        chain.beat();
    }
    assert_eq!(bond(&chain, 4), 1_000 * ARIA);
}

#[test]
fn a_small_fee_mints_little() {
    let mut chain = chain(4, &[]);
    let (record, at, _) = asked(&mut chain, REQUESTER, 1_000_000);
    judge(&mut chain, at, &record, &all(Verdict::Valid));
    // Half is destroyed, of which nine tenths are minted; nine tenths of the other half are for five auditors.
    assert_eq!([1, 2, 3, 4].map(|n| earned_by(&chain, n)), [50_000 + 450_000, 90_000, 90_000, 90_000]);
    conserved(&chain);
}

#[test]
fn all_of_a_network_together_lose_by_asking_themselves() {
    for fee in [0, 1, 1_000_000, 4_000_000, PAID] {
        let mut chain = chain(4, &[]);
        let before: u64 = (1..=4).map(|n| money(&chain, n)).sum();
        let (record, at, _) = asked(&mut chain, 1, fee);
        judge(&mut chain, at, &record, &all(Verdict::Valid));
        let after: u64 = (1..=4).map(|n| money(&chain, n)).sum();
        let destroyed = fee / 2;
        assert!(before - after >= destroyed / 10, "{fee}: {} of {destroyed}", before - after);
        conserved(&chain);
    }
}

#[test]
fn who_finds_a_lie_is_paid_what_the_liar_loses_and_no_more() {
    let mut chain = chain(4, &POOR);
    let (record, at, _) = asked(&mut chain, 1, PAID);
    judge(&mut chain, at, &record, &all(Verdict::Invalid));
    // A tenth of 3,000,000, for three.
    assert_eq!([2, 3, 4].map(|n| earned_by(&chain, n)), [100_000; 3]);
    let supply = chain.reader().supply().unwrap();
    assert_eq!((supply.issued.get(), supply.burned.get(), bond(&chain, 1)), (300_000, 300_000, 2_700_000));
    // A bond that is used up pays nobody: false records by the hundred bring their finders no new money.
    while bond(&chain, 1) > 0 {
        let before = chain.reader().supply().unwrap();
        let (record, at, _) = asked(&mut chain, 1, PAID);
        judge(&mut chain, at, &record, &all(Verdict::Invalid));
        let supply = chain.reader().supply().unwrap();
        assert!(supply.issued.get() - before.issued.get() <= supply.burned.get() - before.burned.get());
        if bond(&chain, 1) < 10 {
            break;
        }
    }
    conserved(&chain);
}
