//! From included to verified: draws, commitments, openings, disputes, and what each end means for money, work and standing.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

mod scenario;

#[path = "audits/challenges.rs"]
mod challenges;
#[path = "audits/doubts.rs"]
mod doubts;
#[path = "audits/fees.rs"]
mod fees;
#[path = "audits/leaks.rs"]
mod leaks;
#[path = "audits/overruled.rs"]
mod overruled;

use aria_chain::attestation::{Attestation, Opening, SignedAttestation, Statement, Verdict, VerifiedAttestation};
use aria_chain::block::ProposedBlock;
use aria_chain::ids::{Digest, NodeId, RecordId};
use aria_chain::record::{RecordStatus, Stage};
use aria_chain::transaction::{Action, VerifiedTransaction};
use aria_chain::units::{Epoch, Height, NanoAria};
use aria_runtime::execute::{BlockFault, ExecuteError, ExecutedBlock, execute};
use aria_runtime::reputation::Reputation;
use aria_runtime::rules::audit::AttestationFault;
use aria_runtime::rules::settle::{Earned, Settlement, Unsettled};
use aria_runtime::state::{Audit, Phase};
use proptest::prelude::*;
use scenario::{REQUESTER, Scenario, height, key};

const ARIA: u64 = 1_000_000_000;
/// What requesters pay here: enough for every reward. Half of it is destroyed.
const PAID: u64 = 10_000_000;
/// Of that, to the stages.
const KEPT: u64 = 500_000;
/// Of that, to each auditor: nine tenths of the other half, for five.
const FEE: u64 = 900_000;

fn validator(n: u8) -> String {
    format!(
        "[[validators]]\nkey = \"{0}\"\npower = 1\n[[accounts]]\nkey = \"{0}\"\nbalance_nano = 0\nbond_nano = {1}\n",
        key(n).node_id(),
        1_000 * ARIA
    )
}

/// Keys 1 to `last` validate with equal power; 1 answers everything.
fn chain(last: u8, replace: &[(&str, &str)]) -> Scenario {
    let mut text = scenario::DEVNET.to_owned();
    text.extend((2..=last).map(|n| format!("\n{}", validator(n))));
    text.push_str(&Scenario::requester());
    for (old, new) in replace {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    Scenario::new(&text)
}

/// Includes a record, and the blocks up to its draw.
fn included(chain: &mut Scenario) -> (RecordId, Height, Earned) {
    let proof = chain.proof(|claim| claim.request.max_fee = NanoAria::new(PAID));
    let record = proof.record_id();
    let (block, executed) = chain.advance(chain.soon(), vec![proof]);
    let Settlement::Awaiting(earned) = executed.settlements[0] else { panic!("{:?}", executed.settlements) };
    assert_eq!(executed.changes.statuses, [], "it is included and no more");
    // No heartbeat has to be waited for.
    chain.advance(chain.soon(), Vec::new());
    chain.advance(chain.soon(), Vec::new());
    assert!(chain.propose(chain.soon(), Vec::new()).unwrap().block.is_none(), "then nothing hurries any more");
    (record, block.header().height, earned)
}

fn audit(chain: &Scenario, at: Height) -> Option<Audit> {
    chain.reader().audit(at, 0).unwrap()
}

fn committee(chain: &Scenario, at: Height) -> Vec<u8> {
    let number = |node: NodeId| (1..=30).find(|n| key(*n).node_id() == node).unwrap();
    audit(chain, at).unwrap().members.iter().map(|member| number(member.node)).collect()
}

fn opening(chain: &Scenario, n: u8, record: &RecordId, verdict: Verdict) -> Opening {
    Opening { secret: key(n).audit_secret(chain.genesis.chain_id(), record), verdict, root: Digest::new([n; 32]) }
}

fn says(chain: &Scenario, n: u8, at: Height, statement: Statement) -> VerifiedAttestation {
    let chain_id = chain.genesis.chain_id();
    let attestation = Attestation { chain_id: chain_id.clone(), auditor: key(n).node_id(), height: at, statement };
    let signature = key(n).sign_attestation(chain_id, &attestation.id());
    SignedAttestation { attestation, signature }.verify(chain_id).unwrap()
}

fn commits(chain: &Scenario, n: u8, at: Height, record: &RecordId, verdict: Verdict) -> VerifiedAttestation {
    let opening = opening(chain, n, record, verdict);
    let commitment = opening.commitment(chain.genesis.chain_id(), &key(n).node_id(), record);
    says(chain, n, at, Statement::Commit(vec![(0, commitment)]))
}

fn opens(chain: &Scenario, n: u8, at: Height, record: &RecordId, verdict: Verdict) -> VerifiedAttestation {
    says(chain, n, at, Statement::Open(vec![(0, opening(chain, n, record, verdict))]))
}

/// A block with these attestations.
fn seal(chain: &mut Scenario, attestations: Vec<VerifiedAttestation>) -> ExecutedBlock {
    chain.attestations = attestations;
    let (_, executed) = chain.advance(chain.soon(), Vec::new());
    chain.attestations.clear();
    executed
}

/// All of these commit to these verdicts and open them; what the last block did.
fn judge(chain: &mut Scenario, at: Height, record: &RecordId, verdicts: &[(u8, Verdict)]) -> ExecutedBlock {
    let all = verdicts.iter().map(|(n, verdict)| commits(chain, *n, at, record, *verdict)).collect();
    seal(chain, all);
    let all = verdicts.iter().map(|(n, verdict)| opens(chain, *n, at, record, *verdict)).collect();
    seal(chain, all)
}

#[track_caller]
fn refused(chain: &mut Scenario, attestation: &VerifiedAttestation, fault: &AttestationFault) {
    chain.attestations = vec![attestation.clone()];
    assert_eq!(chain.propose(chain.soon(), Vec::new()).unwrap().unheard, [(attestation.id(), fault.clone())]);
    let fault = BlockFault::Attestation { index: 0, attestation: attestation.id(), fault: fault.clone() };
    assert_eq!(chain.execute(chain.draft(chain.soon()), Vec::new()), Err(ExecuteError::Invalid(fault)));
    chain.attestations.clear();
}

fn work(chain: &Scenario, n: u8) -> u64 {
    chain.reader().work(Epoch::ZERO, &key(n).node_id()).unwrap().total().try_into().unwrap()
}

fn bond(chain: &Scenario, n: u8) -> u64 {
    chain.reader().account(&key(n).node_id()).unwrap().unwrap().bond.get()
}

fn earned_by(chain: &Scenario, n: u8) -> u64 {
    chain.reader().account(&key(n).node_id()).unwrap().unwrap().rewards_total.get()
}

#[track_caller]
fn conserved(chain: &Scenario) {
    assert_eq!(chain.held(), chain.reader().supply().unwrap().total().unwrap().get());
}

#[test]
fn a_record_that_all_auditors_find_valid_is_verified_and_paid() {
    let mut chain = chain(4, &[]);
    let (record, at, earned) = included(&mut chain);
    assert_eq!(committee(&chain, at).len(), 3, "everybody else");
    assert!(!committee(&chain, at).contains(&1), "nobody audits itself");
    let executed = judge(&mut chain, at, &record, &[(2, Verdict::Valid), (3, Verdict::Valid), (4, Verdict::Valid)]);
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Verified)]);
    assert_eq!(audit(&chain, at), None, "the state forgets it");
    let kept = Audit::from_bytes(&executed.changes.audits[0].1).unwrap();
    assert_eq!(kept.outcome, Some((RecordStatus::Verified, chain.tip.height)));
    assert!(kept.members.iter().all(|member| member.verdict == Some(Verdict::Valid)));
    let reward = earned.reward.get();
    assert_eq!((reward, earned.fee.get()), (950_000, PAID));
    assert_eq!([1, 2, 3, 4].map(|n| earned_by(&chain, n)), [KEPT + reward, FEE, FEE, FEE]);
    let (whole, part) = (earned.work.get(), earned.work.get() / 4);
    assert_eq!([1, 2, 3, 4].map(|n| work(&chain, n)), [whole, part, part, part]);
    let totals = chain.reader().epoch_totals(Epoch::ZERO).unwrap();
    assert_eq!((totals.records, totals.settled, totals.rewards), (1, 1, NanoAria::new(reward)));
    let reputation = |n: u8| chain.reader().reputation(&key(n).node_id()).unwrap();
    assert_eq!((reputation(1).verified, reputation(1).score_ppm, reputation(2)), (1, 515_625, Reputation::default()));
    conserved(&chain);
}

#[test]
fn a_refuted_record_costs_its_provider_a_part_of_its_bond_and_its_vote() {
    let mut chain = chain(5, &[("epoch_blocks = 100", "epoch_blocks = 8")]);
    let (record, at, _) = included(&mut chain);
    let said: Vec<(u8, Verdict)> = (2..=5).map(|n| (n, Verdict::Invalid)).collect();
    let executed = judge(&mut chain, at, &record, &said);
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Refuted)]);
    assert_eq!((bond(&chain, 1), work(&chain, 1), earned_by(&chain, 1)), (900 * ARIA, 0, 0));
    assert_eq!(earned_by(&chain, 2), FEE, "who found it out is paid all the same");
    conserved(&chain);
    let set = |chain: &Scenario| chain.voters().set.power_of(&key(1).node_id());
    assert!(set(&chain) > 0);
    while chain.tip.height.get() < 16 {
        chain.beat();
    }
    assert_eq!(set(&chain), 0, "its share of the proposals is nothing");
    let candidate = chain.reader().candidate(&key(1).node_id()).unwrap().unwrap();
    assert_eq!((candidate.refuted, candidate.barred), (1, Epoch::new(3)));
    while chain.tip.height.get() < 32 {
        chain.beat();
    }
    assert!(set(&chain) > 0, "it may try again");
}

#[test]
fn who_contradicts_is_judged_by_all_and_a_false_auditor_pays() {
    let mut chain = chain(6, &[("committee_size = 5", "committee_size = 3")]);
    let (record, at, _) = included(&mut chain);
    let drawn = committee(&chain, at);
    assert_eq!(drawn.len(), 3);
    // Two colluding auditors of three call a right answer false. The majority of the committee decides nothing.
    let said: Vec<(u8, Verdict)> = drawn
        .iter()
        .zip([Verdict::Valid, Verdict::Invalid, Verdict::Invalid])
        .map(|(n, verdict)| (*n, verdict))
        .collect();
    let executed = judge(&mut chain, at, &record, &said);
    assert_eq!(executed.changes.statuses, []);
    assert_eq!(audit(&chain, at).unwrap().phase, Phase::Disputed);
    assert_eq!(committee(&chain, at).len(), 5, "everybody but who answered");
    // Of the judges the two lie again; three are honest, which is not two thirds of five.
    let honest: Vec<u8> = (2..=6).filter(|n| !drawn[1..].contains(n)).collect();
    let again: Vec<(u8, Verdict)> =
        (2..=6).map(|n| (n, if honest.contains(&n) { Verdict::Valid } else { Verdict::Invalid })).collect();
    let executed = judge(&mut chain, at, &record, &again);
    assert_eq!(executed.changes.statuses, [], "nobody decides, nobody loses");
    assert_eq!([1, 2, 3, 4, 5, 6].map(|n| bond(&chain, n)), [1_000 * ARIA; 6]);
    assert_eq!(audit(&chain, at), None);

    // One liar among five judges is found out.
    let (record, at, earned) = included(&mut chain);
    let drawn = committee(&chain, at);
    let liar = drawn[2];
    let verdict = |n: u8| if n == liar { Verdict::Invalid } else { Verdict::Valid };
    judge(&mut chain, at, &record, &drawn.iter().map(|n| (*n, verdict(*n))).collect::<Vec<_>>());
    let executed = judge(&mut chain, at, &record, &(2..=6).map(|n| (n, verdict(n))).collect::<Vec<_>>());
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Verified)]);
    assert_eq!(bond(&chain, liar), 900 * ARIA);
    assert_eq!(chain.reader().reputation(&key(liar).node_id()).unwrap().misjudged, 1);
    assert_eq!((2..=6).filter(|n| bond(&chain, *n) == 1_000 * ARIA).count(), 4);
    assert_eq!(earned_by(&chain, 1), KEPT + earned.reward.get());
    let right = (2..=6).filter(|n| *n != liar);
    assert_eq!(
        right.map(|n| earned_by(&chain, n)).collect::<Vec<_>>(),
        [PAID * 3 / 20; 4],
        "once each, as auditor or as judge"
    );
    conserved(&chain);
}

#[test]
fn a_record_that_nobody_can_check_is_unavailable() {
    let mut chain = chain(4, &[]);
    let (record, at, _) = included(&mut chain);
    let said: Vec<(u8, Verdict)> = (2..=4).map(|n| (n, Verdict::Missing)).collect();
    let executed = judge(&mut chain, at, &record, &said);
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Unavailable)]);
    assert_eq!((bond(&chain, 1), earned_by(&chain, 1), earned_by(&chain, 2)), (1_000 * ARIA, 0, 0));
    let reputation = |chain: &Scenario| chain.reader().reputation(&key(1).node_id()).unwrap();
    let blamed = reputation(&chain);
    assert!(blamed.score_ppm < Reputation::default().score_ppm);

    // The same if the auditors say nothing at all, but then nobody blames the provider.
    let (record, at, _) = included(&mut chain);
    let last = at.get() + 2 + chain.genesis.params().audit_blocks;
    while chain.tip.height.get() < last - 1 {
        let (_, executed) = chain.beat();
        assert_eq!(executed.changes.statuses, []);
    }
    let (_, executed) = chain.beat();
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Unavailable)]);
    assert_eq!(reputation(&chain), blamed);
}

#[test]
fn who_is_drawn_and_says_nothing_loses_what_it_would_have_earned() {
    let mut chain = chain(6, &[]);
    let (record, at, earned) = included(&mut chain);
    assert_eq!(committee(&chain, at).len(), 5);
    // Three judge, one says that it got nothing, one says nothing.
    let said = [(2, Verdict::Valid), (3, Verdict::Valid), (4, Verdict::Valid), (5, Verdict::Missing)];
    let all = said.map(|(n, verdict)| commits(&chain, n, at, &record, verdict)).to_vec();
    seal(&mut chain, all);
    while chain.tip.height.get() < at.get() + 2 + 32 {
        chain.beat();
    }
    let all = said.map(|(n, verdict)| opens(&chain, n, at, &record, verdict)).to_vec();
    seal(&mut chain, all);
    while audit(&chain, at).is_some() {
        chain.beat();
    }
    let whole = 1_000 * ARIA;
    assert_eq!([1, 2, 3, 4].map(|n| bond(&chain, n)), [whole; 4]);
    assert_eq!([5, 6].map(|n| (bond(&chain, n), earned_by(&chain, n))), [(whole - FEE, 0); 2]);
    assert_eq!((earned_by(&chain, 1), earned_by(&chain, 2)), (KEPT + earned.reward.get(), FEE));
    conserved(&chain);

    // Where nobody could judge, nobody was lazy.
    let (record, at, _) = included(&mut chain);
    let said: Vec<(u8, Verdict)> = (2..=4).map(|n| (n, Verdict::Missing)).collect();
    let all = said.iter().map(|(n, verdict)| commits(&chain, *n, at, &record, *verdict)).collect();
    seal(&mut chain, all);
    while audit(&chain, at).is_some() {
        chain.beat();
    }
    assert_eq!([2, 3, 4].map(|n| bond(&chain, n)), [whole; 3]);
    assert_eq!(bond(&chain, 6), whole - FEE);
}

#[test]
fn openings_wait_for_all_commitments_or_half_of_the_time() {
    let mut chain = chain(4, &[]);
    let (record, at, _) = included(&mut chain);
    let two = [2, 3].map(|n| commits(&chain, n, at, &record, Verdict::Valid)).to_vec();
    seal(&mut chain, two);
    let from = height(at.get() + 2 + 32);
    let early = opens(&chain, 2, at, &record, Verdict::Valid);
    refused(&mut chain, &early, &AttestationFault::TooEarly { index: 0, from });
    while chain.tip.height.next().unwrap() < from {
        chain.beat();
    }
    let two = [2, 3].map(|n| opens(&chain, n, at, &record, Verdict::Valid)).to_vec();
    seal(&mut chain, two);
    // The third commits too late to be heard, and two of three are enough when the time is over.
    while chain.tip.height.get() < at.get() + 2 + 64 - 1 {
        chain.beat();
    }
    let (_, executed) = chain.beat();
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::Verified)]);
}

#[test]
fn nobody_else_speaks_and_nobody_speaks_twice_or_changes_its_mind() {
    let mut chain = chain(5, &[("committee_size = 5", "committee_size = 2")]);
    let proof = chain.proof(|_| {});
    let record = proof.record_id();
    chain.advance(chain.soon(), vec![proof]);
    let at = chain.tip.height;
    let not_yet = commits(&chain, 2, at, &record, Verdict::Valid);
    refused(&mut chain, &not_yet, &AttestationFault::NotAudited { height: at, index: 0 });
    chain.advance(chain.soon(), Vec::new());
    chain.advance(chain.soon(), Vec::new());
    let drawn = committee(&chain, at);
    let other = (1..=5).find(|n| !drawn.contains(n)).unwrap();
    let stranger = commits(&chain, other, at, &record, Verdict::Valid);
    refused(&mut chain, &stranger, &AttestationFault::NotDrawn { node: key(other).node_id(), index: 0 });
    let (one, two) = (drawn[0], drawn[1]);
    let both = [one, two].map(|n| commits(&chain, n, at, &record, Verdict::Valid)).to_vec();
    seal(&mut chain, both);
    let again = commits(&chain, one, at, &record, Verdict::Invalid);
    refused(&mut chain, &again, &AttestationFault::CommittedBefore { node: key(one).node_id(), index: 0 });
    let fault = AttestationFault::OtherOpening { node: key(one).node_id(), index: 0 };
    let changed = opens(&chain, one, at, &record, Verdict::Invalid);
    refused(&mut chain, &changed, &fault);
    // Another's opening, word for word, opens nothing: the commitment is the auditor's own.
    let copied = says(&chain, one, at, Statement::Open(vec![(0, opening(&chain, two, &record, Verdict::Valid))]));
    refused(&mut chain, &copied, &fault);
    let good = opens(&chain, one, at, &record, Verdict::Valid);
    seal(&mut chain, vec![good.clone()]);
    refused(&mut chain, &good, &fault);
}

#[test]
fn a_copied_commitment_cannot_be_opened() {
    let mut chain = chain(3, &[]);
    let (record, at, _) = included(&mut chain);
    let seen =
        opening(&chain, 2, &record, Verdict::Valid).commitment(chain.genesis.chain_id(), &key(2).node_id(), &record);
    let both = vec![
        says(&chain, 2, at, Statement::Commit(vec![(0, seen)])),
        says(&chain, 3, at, Statement::Commit(vec![(0, seen)])),
    ];
    seal(&mut chain, both);
    let copy = says(&chain, 3, at, Statement::Open(vec![(0, opening(&chain, 2, &record, Verdict::Valid))]));
    refused(&mut chain, &copy, &AttestationFault::OtherOpening { node: key(3).node_id(), index: 0 });
}

#[test]
fn who_lied_twice_is_not_drawn_any_more() {
    let mut chain = chain(5, &[("committee_size = 5", "committee_size = 4")]);
    // Key 2 answers falsely twice; its vote lasts until the next set.
    for _ in 0..2 {
        let proof = chain.proof(|claim| {
            claim.record.stages = vec![Stage { node_id: key(2).node_id(), layer_start: 0, layer_end: 6 }];
            claim.stage_keys = vec![2];
        });
        let record = proof.record_id();
        let at = chain.advance(chain.soon(), vec![proof]).0.header().height;
        chain.advance(chain.soon(), Vec::new());
        chain.advance(chain.soon(), Vec::new());
        let said: Vec<(u8, Verdict)> = committee(&chain, at).into_iter().map(|n| (n, Verdict::Invalid)).collect();
        judge(&mut chain, at, &record, &said);
    }
    assert_eq!(chain.reader().reputation(&key(2).node_id()).unwrap().score_ppm, 125_000);
    assert!(chain.voters().set.power_of(&key(2).node_id()) > 0);
    let (_, at, _) = included(&mut chain);
    let mut drawn = committee(&chain, at);
    drawn.sort_unstable();
    assert_eq!(drawn, [3, 4, 5]);
}

#[test]
fn records_that_are_not_drawn_are_accepted_when_the_time_is_over() {
    let seldom = [
        ("audit_rate_ppm = 1_000_000", "audit_rate_ppm = 100_000"),
        ("refuted_slash_ppm = 100_000", "refuted_slash_ppm = 300_000"),
    ];
    let mut chain = chain(4, &seldom);
    let proofs: Vec<_> = (0..40).map(|_| chain.proof(|claim| claim.request.max_fee = NanoAria::new(PAID))).collect();
    let records: Vec<RecordId> = proofs.iter().map(|proof| proof.record_id()).collect();
    chain.advance(chain.soon(), proofs);
    let at = chain.tip.height;
    chain.advance(chain.soon(), Vec::new());
    chain.advance(chain.soon(), Vec::new());
    let audits = chain.reader().audits(99).unwrap();
    let passed = audits.iter().filter(|(_, audit)| audit.phase == Phase::Passed).count();
    assert!((28..40).contains(&passed), "{passed} of 40 at a rate of a tenth");
    while chain.tip.height.get() < at.get() + 2 + 64 - 1 {
        chain.beat();
    }
    assert_eq!(earned_by(&chain, 1), 0, "nothing is earned before the time is over");
    let (_, executed) = chain.beat();
    let accepted = executed.changes.statuses.iter().filter(|(_, status)| *status == RecordStatus::Accepted).count();
    assert_eq!((accepted, executed.changes.statuses.len()), (passed, 40));
    assert!(executed.changes.statuses.iter().all(|(record, _)| records.contains(record)));
    assert!(earned_by(&chain, 1) > 0);
    conserved(&chain);
}

#[test]
fn committees_are_drawn_by_power_and_by_nothing_else() {
    let mut chain = chain(
        6,
        &[("committee_size = 5", "committee_size = 1"), ("key = \"local\"\npower = 1", "key = \"local\"\npower = 2")],
    );
    let mut drawn = [0_u32; 7];
    for _ in 0..8 {
        let proofs: Vec<_> = (0..50)
            .map(|_| {
                chain.proof(|claim| {
                    claim.record.stages = vec![Stage { node_id: key(6).node_id(), layer_start: 0, layer_end: 6 }];
                    claim.stage_keys = vec![6];
                })
            })
            .collect();
        chain.advance(chain.soon(), proofs);
        let at = chain.tip.height;
        chain.advance(chain.soon(), Vec::new());
        chain.advance(chain.soon(), Vec::new());
        for ((of, _), audit) in chain.reader().audits(9_999).unwrap() {
            if of == at {
                let n = (1..=6).find(|n| key(*n).node_id() == audit.members[0].node).unwrap();
                drawn[usize::from(n)] += 1;
            }
        }
    }
    // 400 draws among power 2, 1, 1, 1, 1: 133 and 67 each; four deviations are 38 and 30.
    assert_eq!((drawn.iter().sum::<u32>(), drawn[6]), (400, 0));
    assert!((95..=171).contains(&drawn[1]), "{drawn:?}");
    assert!(drawn[2..6].iter().all(|count| (37..=97).contains(count)), "{drawn:?}");
}

#[test]
fn who_has_nothing_to_lose_earns_nothing() {
    let mut chain = chain(3, &[("bond_nano = 1_000_000_000_000", "bond_nano = 999_999_999")]);
    let proof = chain.proof(|_| {});
    let (_, executed) = chain.advance(chain.soon(), vec![proof]);
    assert_eq!(executed.settlements, [Settlement::Included(Unsettled::NotBonded)]);
    assert_eq!(chain.reader().audits(9).unwrap(), []);
}

#[test]
fn the_number_is_the_proposers_and_nobody_chooses_it() {
    let mut chain = chain(4, &[]);
    let before = chain.reader().beacon().unwrap();
    let stranger = (1..=4).map(key).find(|key| key.node_id() != chain.proposer()).unwrap();
    let mut draft = chain.draft(chain.after_ms(60_000));
    draft.vrf = stranger.prove_vrf(before.as_bytes());
    let fault = BlockFault::Beacon { proposer: chain.proposer() };
    assert_eq!(chain.execute(draft, Vec::new()), Err(ExecuteError::Invalid(fault)));
    let mut seen = std::collections::BTreeSet::from([before]);
    for _ in 0..20 {
        chain.beat();
        assert!(seen.insert(chain.reader().beacon().unwrap()), "each is another");
    }
}

/// Bonds of which a tenth is less than what auditors get for finding a lie.
const POOR: [(&str, &str); 3] = [
    ("provider_bond_min_nano = 1_000_000_000", "provider_bond_min_nano = 1"),
    ("bond_nano = 1_000_000_000_000", "bond_nano = 3_000_000"),
    ("bond_nano = 1000000000000", "bond_nano = 3_000_000"),
];

/// One block of a random history.
#[derive(Clone, Debug)]
struct Step {
    /// Providers of the records that it includes.
    providers: Vec<u8>,
    /// Who speaks, and what each would say: valid, invalid or missing.
    says: Vec<(u8, u8)>,
    /// Whose root key 1 doubts, if there is one.
    doubts: Option<u8>,
    /// Whose commitment the requester shows the opening of, if there is one.
    leaks: Option<u8>,
    /// Who challenges the provider of a record that it was drawn for.
    challenges: Option<u8>,
    /// Whether what was asked for is posted, a part of so many.
    delivers: Option<(u8, u8)>,
    /// What each requester pays.
    fee: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let providers = prop::collection::vec(1_u8..=5, 0..3);
    let says = prop::collection::vec((1_u8..=5, 0_u8..8), 0..6);
    let fee = prop::sample::select(vec![0_u64, 1, 999_999, 5_000_001, PAID]);
    let (doubts, leaks) = (prop::option::of(2_u8..=5), prop::option::of(1_u8..=5));
    let (challenges, delivers) =
        (prop::option::of(1_u8..=5), prop::option::of(prop::sample::select(vec![(0, 1), (0, 2), (1, 2)])));
    let all = (providers, says, (doubts, leaks), (challenges, delivers), fee);
    all.prop_map(|(providers, says, (doubts, leaks), (challenges, delivers), fee)| Step {
        providers,
        says,
        doubts,
        leaks,
        challenges,
        delivers,
        fee,
    })
}

/// A doubt about what a node opened of any record.
fn doubt(chain: &Scenario, accused: u8) -> Option<VerifiedTransaction> {
    let auditor = key(accused).node_id();
    let heights = (1..=chain.tip.height.get()).map(Height::new);
    let mut places = heights.flat_map(|at| (0..3).map(move |index| (at, index)));
    let (height, index) = places.find(|(at, index)| {
        let opened = chain.reader().opened(*at, *index).unwrap();
        opened.is_some_and(|opened| opened.roots.iter().any(|root| root.node == auditor))
    })?;
    Some(chain.order(1, Action::Doubt { height, index, auditor }, |_| {}))
}

/// What a node committed to about any record, shown by the requester.
fn leak(chain: &Scenario, accused: u8) -> Option<VerifiedTransaction> {
    let auditor = key(accused).node_id();
    let bound = chain.reader().audits(999).unwrap().into_iter().find_map(|(place, audit)| {
        let member = audit.members.iter().find(|member| member.node == auditor && member.verdict.is_none())?;
        Some((place, audit.record, member.commitment?))
    });
    let ((height, index), record, commitment) = bound?;
    let opening = committed(chain, accused, &record, commitment);
    Some(chain.order(REQUESTER, Action::Leak { height, index, auditor, opening }, |_| {}))
}

/// A challenge of a record that a node was drawn for and has not judged.
fn challenge(chain: &Scenario, by: u8) -> Option<VerifiedTransaction> {
    let is_his = |audit: &Audit| {
        let own = audit.members.iter().find(|member| member.node == key(by).node_id());
        audit.phase == Phase::Drawn && own.is_some_and(|own| own.commitment.is_none())
    };
    let audits = chain.reader().audits(999).unwrap();
    let ((height, index), _) = audits.into_iter().rev().find(|(_, audit)| is_his(audit))?;
    Some(chain.order(by, Action::Challenge { height, index }, |_| {}))
}

/// A part of what some provider was asked for.
fn delivery(chain: &Scenario, (part, parts): (u8, u8)) -> Option<VerifiedTransaction> {
    let next = chain.tip.height.next().unwrap();
    let open = chain.reader().open_challenges(999).unwrap();
    let stands = |place: &(Height, u32)| chain.reader().challenge(place.0, place.1).unwrap().unwrap().stands(next);
    let (height, index) = open.into_iter().find(stands)?;
    let provider = chain.reader().audit(height, index).unwrap()?.stages[0].node_id;
    let n = (1..=5).find(|n| key(*n).node_id() == provider)?;
    let sealed = vec![part; 700 * usize::from(part + 1)];
    Some(chain.order(n, Action::Deliver { height, index, part, parts, sealed }, |_| {}))
}

/// The opening of a commitment of a node.
fn committed(chain: &Scenario, n: u8, record: &RecordId, commitment: Digest) -> Opening {
    let all = [Verdict::Valid, Verdict::Invalid, Verdict::Missing].map(|verdict| opening(chain, n, record, verdict));
    let is_it = |one: &Opening| one.commitment(chain.genesis.chain_id(), &key(n).node_id(), record) == commitment;
    all.into_iter().find(is_it).unwrap()
}

/// What a node may say now of any record that it was drawn for.
fn duties(chain: &Scenario, n: u8, mood: u8) -> Vec<VerifiedAttestation> {
    let verdict = match mood {
        0 => Verdict::Invalid,
        1 => Verdict::Missing,
        _ => Verdict::Valid,
    };
    let mut said = Vec::new();
    for ((at, index), audit) in chain.reader().audits(999).unwrap() {
        let Some(member) = audit.members.iter().find(|member| member.node == key(n).node_id()) else { continue };
        match member.commitment {
            None => {
                let opening = opening(chain, n, &audit.record, verdict);
                let bound = opening.commitment(chain.genesis.chain_id(), &key(n).node_id(), &audit.record);
                said.push(says(chain, n, at, Statement::Commit(vec![(index, bound)])));
            }
            Some(commitment) if member.verdict.is_none() => {
                // It opens what it committed to, whatever its mood is now.
                let mine = committed(chain, n, &audit.record, commitment);
                said.push(says(chain, n, at, Statement::Open(vec![(index, mine)])));
            }
            Some(_) => {}
        }
    }
    said
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever answers and whoever says what, in whatever order and however late: money is conserved to the last unit, whoever
    /// executes a block finds what its proposer found, and every audit ends.
    #[test]
    fn audits_conserve_money_and_end(steps in prop::collection::vec(step(), 1..50), is_poor: bool) {
        let mut short = vec![
            ("epoch_blocks = 100", "epoch_blocks = 5"),
            ("audit_blocks = 64", "audit_blocks = 8"), ("challenge_blocks = 16", "challenge_blocks = 2"),
            ("committee_size = 5", "committee_size = 3"),
            ("balance_nano = 0\n", "balance_nano = 1_000_000_000\n"),
        ];
        if is_poor {
            // Whoever loses has less than finding it out is worth.
            short.extend(POOR);
        } else {
            short.push(("audit_rate_ppm = 1_000_000", "audit_rate_ppm = 800_000"));
        }
        let mut chain = chain(5, &short);
        for Step { providers, says, doubts, leaks, challenges, delivers, fee } in steps {
            let mut proofs = Vec::new();
            for provider in providers {
                proofs.push(chain.proof(|claim| {
                    claim.record.stages = vec![Stage { node_id: key(provider).node_id(), layer_start: 0, layer_end: 6 }];
                    claim.stage_keys = vec![provider];
                    claim.request.max_fee = NanoAria::new(fee);
                }));
            }
            let mut speakers = std::collections::BTreeMap::new();
            speakers.extend(says);
            chain.attestations = speakers.into_iter().flat_map(|(n, mood)| duties(&chain, n, mood)).collect();
            let doubted = doubts.and_then(|accused| doubt(&chain, accused));
            let leaked = leaks.and_then(|accused| leak(&chain, accused));
            let challenged = challenges.and_then(|by| challenge(&chain, by));
            let delivered = delivers.and_then(|part| delivery(&chain, part));
            chain.transactions = doubted.into_iter().chain(leaked).chain(challenged).chain(delivered).collect();
            let proposal = chain.propose(chain.after_ms(60_000), proofs).unwrap();
            let (block, executed) = proposal.block.unwrap();
            let (chain_id, digits) = (chain.genesis.chain_id().clone(), chain.genesis.params().stamp_zero_digits);
            let again = ProposedBlock::check(block.header().clone(), block.body(), &chain_id, digits).unwrap();
            let again = execute(&again, &chain.tip, &chain.state, &chain.genesis);
            prop_assert_eq!(again.as_ref(), Ok(&executed));
            chain.state.apply(&executed.changes.entries);
            chain.tip = block.header().clone();
            prop_assert_eq!(executed.changes.state_root, chain.state.full_root());
            let supply = chain.reader().supply().unwrap();
            prop_assert_eq!(chain.held(), supply.genesis.get() + supply.issued.get() - supply.burned.get());
            prop_assert!(supply.issued <= supply.burned, "whatever is minted, more was destroyed for it");
        }
        chain.attestations.clear();
        chain.transactions.clear();
        for _ in 0..=34 {
            chain.beat();
        }
        prop_assert_eq!(chain.reader().audits(9).unwrap(), vec![]);
        let left = chain.state.entries().filter(|(key, _)| [0x17, 0x18, 0x19].contains(&key[0])).count();
        prop_assert_eq!((left, chain.reader().supply().unwrap().held), (0, NanoAria::ZERO));
        prop_assert_eq!(chain.held(), chain.reader().supply().unwrap().total().unwrap().get());
    }
}
