//! A validator that lies in every way its key allows.

use std::collections::BTreeSet;
use std::sync::Arc;

use aria_chain::ids::BlockHash;
use aria_chain::keys::NodeKey;
use aria_node::consensus::context::{Address, At, BlockId, NilOrVal, Proposal, Round, SignedMessage, Vote, VoteType};
use aria_node::consensus::crypto::{sign_proposal, sign_vote};
use aria_node::consensus::message::Message;

use crate::node::Shared;

pub(crate) struct Liar {
    pub(crate) key: Arc<NodeKey>,
    seen: BTreeSet<(u64, u32)>,
}

impl Liar {
    pub(crate) fn new(key: Arc<NodeKey>) -> Liar {
        Liar { key, seen: BTreeSet::new() }
    }

    /// What it says to each of its two halves of the network when it hears of a round. `tip` is the hash below.
    pub(crate) fn hear(&mut self, shared: &Shared, message: &Message, tip: BlockHash, salt: u64) -> [Vec<Message>; 2] {
        let (height, Some(round)) = (message.height(), message.round().as_u32()) else { return Default::default() };
        if !self.seen.insert((height.get(), round)) {
            return Default::default();
        }
        let me = self.key.node_id();
        let blocks = [salt, if salt.is_multiple_of(3) { Shared::POISON } else { salt + 1 }]
            .map(|salt| shared.block(me, height, round, tip, salt, Vec::new()));
        let named = match message {
            Message::Vote(vote) => match &vote.value {
                NilOrVal::Val(block) => block.0,
                NilOrVal::Nil => blocks[0].hash(),
            },
            Message::Proposal(proposal, _) => proposal.value.0,
            Message::Polka(certificate) => certificate.value_id.0,
            Message::Skip(_) => blocks[0].hash(),
        };
        let mut said = [Vec::new(), Vec::new()];
        for (half, block) in said.iter_mut().zip(&blocks) {
            for at in [Some(round), Some(round + 1), round.checked_add(1_000)].into_iter().flatten() {
                if shared.work_set(height).proposer(height, Round::new(at)) == me {
                    half.push(self.propose(shared, block, at));
                }
            }
        }
        let values = [NilOrVal::Val(BlockId(named)), NilOrVal::Nil, NilOrVal::Val(BlockId(blocks[1].hash()))];
        for (index, value) in values.into_iter().enumerate() {
            for kind in [VoteType::Prevote, VoteType::Precommit] {
                let vote = Vote { kind, height: At(height), round: Round::new(round), value, voter: Address(me) };
                let signature = sign_vote(&self.key, &shared.chain_id, &vote);
                said[index % 2].push(Message::Vote(SignedMessage::new(vote.clone(), signature)));
                // For another chain: a signature that counts nowhere.
                let elsewhere = "aria-other".parse().unwrap();
                let signature = sign_vote(&self.key, &elsewhere, &vote);
                said[(index + 1) % 2].push(Message::Vote(SignedMessage::new(vote, signature)));
            }
        }
        said
    }

    fn propose(&self, shared: &Shared, block: &aria_chain::block::ProposedBlock, round: u32) -> Message {
        let proposal = Proposal {
            height: At(block.header().height),
            round: Round::new(round),
            value: BlockId(block.hash()),
            pol_round: Round::Nil,
            proposer: Address(self.key.node_id()),
        };
        let signature = sign_proposal(&self.key, &shared.chain_id, &proposal);
        let wire = Box::new((block.header().clone(), block.body()));
        Message::Proposal(SignedMessage::new(proposal, signature), Some(wire))
    }
}
