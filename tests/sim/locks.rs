//! Locks that nobody else knows of: who saw two thirds of the prevotes for a block is bound to it, and may be the only one.

use std::cell::Cell;

use aria_node::consensus::context::{NilOrVal, Round, VoteType};
use aria_node::consensus::message::Message;

use crate::faults::seeds;
use crate::world::World;

/// Until a node is in this round the network hides what would free the others. From round 10 on nodes pass on what locked them.
const HIDDEN_UNTIL: u32 = 12;

/// A network that makes two nodes lock on two blocks, in rounds 0 and 1 of the first height, and lets nobody else see why.
/// Certificates of prevotes get through from a round on, or never.
fn with_hidden_locks(seed: u64, certificates_from: Option<u32>) -> World {
    let mut world = World::new(seed, &[1; 4]);
    let height = aria_chain::units::Height::new(1);
    let proposer = |round: u32| {
        let node = world.shared.work_set(height).proposer(height, Round::new(round));
        world.nodes.iter().position(|other| other.id() == node).unwrap()
    };
    let (first, second) = (proposer(0), proposer(1));
    let others: Vec<usize> = (0..4).filter(|index| *index != first && *index != second).collect();
    // The second proposer does not see the first block; one of the rest locks on it.
    let blind = second;
    let locked = [others[0], others[1]];
    let keys: Vec<_> = world.nodes.iter().map(super::node::SimNode::id).collect();
    let latest = Cell::new(0);
    world.loses = Box::new(move |_, to, message| {
        let Some(round) = message.round().as_u32() else { return false };
        if !matches!(message, Message::Polka(_)) {
            latest.set(latest.get().max(round));
        }
        match message {
            _ if message.height() != height => false,
            Message::Polka(_) => certificates_from.is_none_or(|from| latest.get() < from),
            Message::Proposal(..) => round == 0 && to == blind,
            // What the locked node adds to the prevotes, and what it says of its lock, reaches nobody.
            Message::Vote(vote) if round < 2 && vote.value != NilOrVal::Nil => {
                let is_of_locked = vote.voter.0 == keys[locked[usize::try_from(round).unwrap()]];
                vote.kind == VoteType::Precommit || is_of_locked
            }
            _ => false,
        }
    });
    world
}

#[test]
fn locks_that_were_hidden_past_round_ten_are_resolved_by_certificates() {
    for seed in seeds(4) {
        let mut world = with_hidden_locks(seed, Some(HIDDEN_UNTIL));
        world.start_all();
        let time = world.run_to(1, 400_000);
        assert!(time.is_some(), "seed {seed}: {}", world.describe());
        let round = world.nodes[0].chain[0].certificate().round.get();
        assert!(round >= HIDDEN_UNTIL, "seed {seed}: decided in round {round}, the locks were not hidden");
        assert!(world.double_signed.is_empty() && world.run_to(4, 60_000).is_some(), "seed {seed}");
    }
}

#[test]
fn without_certificates_hidden_locks_hold_for_ever() {
    let mut world = with_hidden_locks(1, None);
    world.start_all();
    assert_eq!(world.run_to(1, 1_200_000), None, "the test above sees certificates at work");
    assert!(world.nodes.iter().all(|node| node.driver.as_ref().is_some_and(|d| d.round() > Some(20))));
}
