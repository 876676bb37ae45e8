//! Evidence: two statements of one validator in one place, of which an honest node makes only one.
//!
//! It needs nothing else to be believed: both signatures are in it, and neither can be made without the key. What
//! happens to its author is runtime's business.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::Versioned;
use crate::error::EvidenceError;
use crate::hash::Domain;
use crate::ids::{BlockHash, ChainId, Digest, NodeId};
use crate::keys::{self, Signature};
use crate::limits::EVIDENCE_BYTES_MAX;
use crate::units::{Height, Round};

/// What a validator says once in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Said {
    /// As proposer: this block. `polka` is the earlier round in which it had two thirds of the prevotes.
    Proposal {
        /// The block.
        block: BlockHash,
        /// See above.
        polka: Option<Round>,
    },
    /// It would commit this block, or none.
    Prevote(Option<BlockHash>),
    /// It commits this block, or none in this round.
    Precommit(Option<BlockHash>),
}

impl Said {
    /// The block it is about.
    pub fn block(&self) -> Option<BlockHash> {
        match self {
            Said::Proposal { block, .. } => Some(*block),
            Said::Prevote(block) | Said::Precommit(block) => *block,
        }
    }

    /// Its name, for people and programs.
    pub fn name(&self) -> &'static str {
        match self {
            Said::Proposal { .. } => "proposal",
            Said::Prevote(_) => "prevote",
            Said::Precommit(_) => "precommit",
        }
    }

    fn is_signed(&self, by: &NodeId, chain: &ChainId, height: Height, round: Round, signature: &Signature) -> bool {
        match self {
            Said::Proposal { block, polka } => {
                keys::verify_proposal(by, chain, height, round, block, *polka, signature)
            }
            Said::Prevote(block) => keys::verify_prevote(by, chain, height, round, block.as_ref(), signature),
            Said::Precommit(Some(block)) => keys::verify_precommit(by, chain, height, round, block, signature),
            Said::Precommit(None) => keys::verify_nil_precommit(by, chain, height, round, signature),
        }
    }
}

/// Two statements that contradict each other. The one whose block has the lower hash comes first, no block before any: one
/// contradiction has one encoding.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Evidence {
    /// Who made both.
    pub node_id: NodeId,
    /// Height they are about.
    pub height: Height,
    /// Round they are about.
    pub round: Round,
    /// One.
    pub first: (Said, Signature),
    /// The other.
    pub second: (Said, Signature),
}

impl Evidence {
    /// Puts two statements in their order. Whether they contradict each other, [`check`](Evidence::check) tells.
    pub fn new(
        node_id: NodeId,
        height: Height,
        round: Round,
        one: (Said, Signature),
        other: (Said, Signature),
    ) -> Evidence {
        let (first, second) = if one.0.block() <= other.0.block() { (one, other) } else { (other, one) };
        Evidence { node_id, height, round, first, second }
    }

    /// Checks that both are signed, of one kind, about different blocks, and in order.
    pub fn check(&self, chain_id: &ChainId) -> Result<(), EvidenceError> {
        let (first, second) = (&self.first, &self.second);
        if first.0.name() != second.0.name() {
            return Err(EvidenceError::Kinds { first: first.0.name(), second: second.0.name() });
        }
        if first.0.block() >= second.0.block() {
            return Err(EvidenceError::Order);
        }
        for (said, signature) in [first, second] {
            if !said.is_signed(&self.node_id, chain_id, self.height, self.round, signature) {
                return Err(EvidenceError::Signature { node: self.node_id, kind: said.name() });
            }
        }
        Ok(())
    }

    /// Digest over every byte.
    pub fn digest(&self) -> Digest {
        Domain::EVIDENCE.hash(&self.encode())
    }
}

impl Versioned for Evidence {
    const NAME: &'static str = "evidence";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = EVIDENCE_BYTES_MAX;
}
