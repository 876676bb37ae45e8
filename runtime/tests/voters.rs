//! Who votes, epoch by epoch, on real blocks: work, presence, evidence.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

mod scenario;

use std::ops::ControlFlow;

use aria_chain::evidence::{Evidence, Said};
use aria_chain::ids::{BlockHash, NodeId};
use aria_chain::record::Stage;
use aria_chain::store::{MemoryStore, Store};
use aria_chain::units::{Height, NanoAria, Round};
use aria_runtime::execute::{BlockFault, ExecuteError};
use aria_runtime::rules::evidence::EvidenceFault;
use aria_runtime::verify::verify_chain;
use aria_runtime::voters::POWER_TOTAL;
use scenario::{DEVNET, LAYERS, Scenario, finalise_by, key};

/// Blocks of an epoch here.
const EPOCH: u64 = 8;

fn node(n: u8) -> NodeId {
    key(n).node_id()
}

fn validator(n: u8) -> String {
    format!("[[validators]]\nkey = \"{}\"\npower = 1\n", node(n))
}

fn bonded(n: u8) -> String {
    format!("[[accounts]]\nkey = \"{}\"\nbalance_nano = 0\nbond_nano = 1_000_000_000_000\n", node(n))
}

/// A devnet with short epochs, and with lines added and replaced.
fn chain(lines: &str, replace: &[(&str, &str)]) -> Scenario {
    let mut text = DEVNET.replace("epoch_blocks = 100", &format!("epoch_blocks = {EPOCH}"));
    for (old, new) in replace {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    Scenario::new(&format!("{text}\n{lines}"))
}

/// Four validators of equal power, keys 1 to 4.
fn four() -> Scenario {
    chain(&[2, 3, 4].map(|n| validator(n) + &bonded(n)).concat(), &[])
}

/// Heartbeats until the tip has a height.
fn run_to(chain: &mut Scenario, height: u64) {
    while chain.tip.height.get() < height {
        chain.beat();
    }
}

fn power(chain: &Scenario, n: u8) -> u64 {
    chain.voters().set.power_of(&node(n))
}

fn equivocation(chain: &Scenario, n: u8) -> Evidence {
    let (key, id, height, round) = (key(n), chain.genesis.chain_id(), Height::new(1), Round::ZERO);
    let vote = |byte: u8| {
        let block = BlockHash::new([byte; 32]);
        (Said::Precommit(Some(block)), key.sign_precommit(id, height, round, &block))
    };
    Evidence::new(key.node_id(), height, round, vote(1), vote(2))
}

#[test]
fn where_nothing_changes_the_set_stays_to_the_byte() {
    let mut chain = four();
    let genesis = chain.genesis.validators().clone();
    assert_eq!(genesis.total_power(), POWER_TOTAL);
    for _ in 0..4 * EPOCH {
        assert_eq!(chain.voters().set, genesis);
        let (block, executed) = chain.beat();
        let begins = block.header().height.get() % EPOCH == 0;
        assert_eq!(executed.changes.validators, begins.then(|| genesis.clone()));
    }
}

#[test]
fn verified_work_takes_over_power_as_far_as_its_bond_backs_it() {
    // A record here is 0.8 giga-operations; five of them replace all that genesis gave.
    let mut chain = chain(&bonded(2), &[("base_work = 1_000_000_000_000_000", "base_work = 4_000_000_000")]);
    for _ in 0..EPOCH - 1 {
        let proof = chain.proof(|claim| {
            claim.record.stages = vec![Stage { node_id: node(2), layer_start: 0, layer_end: LAYERS }];
            claim.stage_keys = vec![2];
        });
        chain.advance(chain.soon(), vec![proof]);
    }
    let work = |chain: &Scenario| chain.reader().work(aria_chain::units::Epoch::ZERO, &node(2)).unwrap();
    assert!(work(&chain).served.get() > 4_000_000_000);
    run_to(&mut chain, 2 * EPOCH - 1);
    assert_eq!(power(&chain, 2), POWER_TOTAL / 3 - 333, "a third of the power in the first epoch");
    run_to(&mut chain, 3 * EPOCH - 1);
    assert_eq!(power(&chain, 2), 2 * (POWER_TOTAL / 3 - 333));
    run_to(&mut chain, 4 * EPOCH - 1);
    assert_eq!((power(&chain, 1), power(&chain, 2)), (1_000, POWER_TOTAL - 1_000));
    run_to(&mut chain, 5 * EPOCH - 1);
    assert_eq!((power(&chain, 1), power(&chain, 2)), (0, POWER_TOTAL), "work rules");
    assert_eq!(chain.proposer(), node(2));
    // The work grows old, and what genesis gave comes back.
    run_to(&mut chain, 15 * EPOCH - 1);
    assert_eq!((power(&chain, 1), power(&chain, 2)), (POWER_TOTAL, 0));

    let unbacked = chain_without_backing();
    assert_eq!((power(&unbacked, 1), power(&unbacked, 2)), (POWER_TOTAL, 0), "work without a bond gives no power");
}

#[test]
fn fees_destroyed_for_answers_back_work_as_a_bond_does() {
    // The bond of key 2 backs a thousandth of its work.
    let replace = [
        ("base_work = 1_000_000_000_000_000", "base_work = 4_000_000_000"),
        ("work_per_bond_nano = 1_000 ", "work_per_bond_nano = 1 "),
    ];
    let power_at = |fee: u64| {
        let lines = bonded(2).replace("bond_nano = 1_000_000_000_000", "bond_nano = 1_000_000_000");
        let mut chain = chain(&(lines + &Scenario::requester()), &replace);
        for _ in 0..EPOCH - 1 {
            let proof = chain.proof(|claim| {
                claim.record.stages = vec![Stage { node_id: node(2), layer_start: 0, layer_end: LAYERS }];
                claim.stage_keys = vec![2];
                claim.request.max_fee = aria_chain::units::NanoAria::new(fee);
            });
            chain.advance(chain.soon(), vec![proof]);
        }
        run_to(&mut chain, 3 * EPOCH - 1);
        power(&chain, 2)
    };
    let (free, paid) = (power_at(0), power_at(10_000_000));
    assert!(free > 0 && free.abs_diff(POWER_TOTAL / 4) < 1_000, "as far as its bond goes: {free}");
    let burned = (EPOCH - 1) * 5_000_000;
    let expected = POWER_TOTAL / 4_000 * (1_000_000_000 + burned) / 1_000_000;
    assert!(paid.abs_diff(expected) < 1_000, "{paid}, not {expected}");
}

fn chain_without_backing() -> Scenario {
    let replace = [
        ("base_work = 1_000_000_000_000_000", "base_work = 4_000_000_000"),
        ("work_per_bond_nano = 1_000 ", "work_per_bond_nano = 0 "),
    ];
    let mut chain = chain(&bonded(2), &replace);
    for _ in 0..3 {
        let proof = chain.proof(|claim| {
            claim.record.stages = vec![Stage { node_id: node(2), layer_start: 0, layer_end: LAYERS }];
            claim.stage_keys = vec![2];
        });
        chain.advance(chain.soon(), vec![proof]);
    }
    run_to(&mut chain, 3 * EPOCH);
    chain
}

/// Heartbeats in which the turns of one node pass, until the tip has a height.
fn run_without(chain: &mut Scenario, n: u8, height: u64) {
    while chain.tip.height.get() < height {
        chain.round = Round::ZERO;
        if chain.proposer() == node(n) {
            chain.round = Round::new(1);
        }
        chain.beat();
    }
    chain.round = Round::ZERO;
}

#[test]
fn who_lets_its_turns_pass_loses_its_power_and_gets_it_back() {
    let (lines, epoch) = ([2, 3, 4, 5].map(|n| validator(n) + &bonded(n)).concat(), 10);
    let mut chain = chain(&lines, &[("epoch_blocks = 8", "epoch_blocks = 10")]);
    run_without(&mut chain, 3, epoch - 1);
    let absent = chain.reader().candidate(&node(3)).unwrap().unwrap();
    assert_eq!((absent.missed, absent.taken), (2, 0));
    run_without(&mut chain, 3, 2 * epoch - 1);
    assert_eq!(chain.voters().set.members().len(), 4);
    assert_eq!((power(&chain, 3), chain.voters().set.total_power()), (0, POWER_TOTAL));
    let others = chain.proposer();
    assert_ne!(others, node(3));
    // It missed the second epoch as well, in which it still had power: away for one more, and two after that.
    run_without(&mut chain, 3, 5 * epoch - 1);
    assert_eq!(chain.voters().set.members(), chain.genesis.validators().members(), "it may show that it is back");
    run_to(&mut chain, 8 * epoch);
    assert_eq!(power(&chain, 3), POWER_TOTAL / 5);
    assert_eq!(chain.reader().candidate(&node(3)).unwrap().unwrap().strikes, 0);
}

#[test]
fn absence_sends_nobody_away_below_four() {
    // Three of equal power need each other, so a fourth is kept, here or not.
    let mut chain = four();
    run_without(&mut chain, 3, 4 * EPOCH);
    assert!(chain.reader().candidate(&node(3)).unwrap().unwrap().strikes > 0);
    assert_eq!(chain.voters().set.members(), chain.genesis.validators().members());
    // Of seven, two that are away go; of five, one of the two.
    for (last, staying, count) in [(7, vec![1, 4, 5, 6, 7], 5), (5, vec![1, 4, 5], 4)] {
        let lines: String = (2..=last).map(|n| validator(n) + &bonded(n)).collect();
        let mut chain = super_epoch(&lines);
        while chain.tip.height.get() < 39 {
            chain.round = Round::ZERO;
            let turn = |chain: &Scenario| (2..=3).any(|n| chain.proposer() == node(n));
            while turn(&chain) {
                chain.round = Round::new(chain.round.get() + 1);
            }
            chain.beat();
        }
        let set = chain.voters().set;
        assert_eq!(set.members().len(), count, "of {last}");
        assert!(staying.iter().all(|n| set.power_of(&node(*n)) > 0));
    }
}

/// A chain with these validators besides key 1, and epochs in which each has several turns.
fn super_epoch(lines: &str) -> Scenario {
    chain(lines, &[("epoch_blocks = 8", "epoch_blocks = 20")])
}

#[test]
fn nobody_proposes_out_of_turn() {
    let chain = four();
    let mut draft = chain.draft(chain.after_ms(60_000));
    let expected = draft.proposer;
    draft.round = Round::new(1);
    let turn = chain.voters().schedule().proposer(Height::new(1), Round::new(1));
    let fault = BlockFault::Proposer { got: expected, expected: turn, round: Round::new(1) };
    assert_eq!(chain.execute(draft, Vec::new()), Err(ExecuteError::Invalid(fault)));
}

#[test]
fn who_contradicts_itself_is_slashed_and_excluded_for_ever() {
    let mut chain = four();
    let before = chain.held();
    chain.evidence = vec![equivocation(&chain, 3)];
    let (block, _) = chain.advance(chain.soon(), Vec::new());
    assert_eq!((block.header().record_count, block.header().evidence_count), (0, 1), "evidence waits for no heartbeat");
    let burned = 50_000_000_000;
    assert_eq!(chain.held(), before - burned);
    let supply = chain.reader().supply().unwrap();
    assert_eq!((supply.burned.get(), supply.total().unwrap().get()), (burned, before - burned));
    let account = chain.reader().account(&node(3)).unwrap().unwrap();
    assert_eq!(account.bond, NanoAria::new(1_000_000_000_000 - burned));
    assert_eq!(chain.reader().candidate(&node(3)).unwrap().unwrap().excluded, Some(Height::new(1)));

    // The same or other evidence against it is of no use any more.
    let proposal = chain.propose(chain.after_ms(60_000), Vec::new()).unwrap();
    assert_eq!((proposal.stale.len(), proposal.block.unwrap().0.header().evidence_count), (1, 0));
    let fault = EvidenceFault::Excluded { node: node(3), height: Height::new(1) };
    let refused = chain.execute(chain.draft(chain.soon()), Vec::new());
    assert_eq!(refused, Err(ExecuteError::Invalid(BlockFault::Evidence { index: 0, fault })));
    chain.evidence = vec![equivocation(&chain, 9)];
    let fault = EvidenceFault::Stranger { node: node(9) };
    let refused = chain.execute(chain.draft(chain.soon()), Vec::new());
    assert_eq!(refused, Err(ExecuteError::Invalid(BlockFault::Evidence { index: 0, fault })));

    chain.evidence.clear();
    run_to(&mut chain, 2 * EPOCH - 1);
    for _ in 0..3 * EPOCH {
        assert_eq!(power(&chain, 3), 0);
        chain.beat();
    }
}

#[test]
fn a_stored_chain_with_changing_sets_verifies() {
    let mut chain = four();
    let store = MemoryStore::new(&chain.genesis.block(), &chain.genesis.changes()).unwrap();
    for height in 1..=4 * EPOCH {
        let set = chain.voters().set;
        if height == 3 {
            chain.evidence = vec![equivocation(&chain, 2)];
        }
        let (timestamp, below) = (chain.after_ms(60_000), chain.tip.clone());
        let (block, executed) = chain.advance(timestamp, Vec::new());
        chain.evidence.clear();
        assert_eq!(block.header().validators_hash, below.next_validators_hash);
        let voters: Vec<u8> = (1..=4).filter(|n| set.power_of(&node(*n)) > 0).collect();
        store.commit(&finalise_by(block, &set, &voters), &executed.changes).unwrap();
    }
    let mut go_on = |_| ControlFlow::Continue(());
    let report = verify_chain(&store, &chain.genesis, Height::ZERO, Height::new(u64::MAX), &mut go_on);
    assert_eq!(report.fault, None);
    assert!(report.is_state_compared && report.to == chain.tip.height);
    let last = store.validators(&chain.tip.validators_hash).unwrap().unwrap();
    assert_eq!(last.members().len(), 3);
    assert_eq!(store.evidence(None, 9).unwrap().len(), 1);
}
