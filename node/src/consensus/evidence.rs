//! What the core noticed of validators that contradict themselves, in the words of the chain.

use std::collections::BTreeMap;

use aria_chain::evidence::{Evidence, Said};
use aria_chain::ids::{ChainId, NodeId};
use aria_chain::keys::Signature;
use aria_chain::units::{Height, Round as ChainRound};
use malachite_core::MisbehaviorEvidence;
use malachite_types::{NilOrVal, Round, SignedProposal, SignedVote, VoteType};

use super::context::Pouw;

/// One piece against each validator that can be convicted. The core also notices what proves nothing, such as the same
/// block proposed for two reasons.
pub fn convictions(noticed: &MisbehaviorEvidence<Pouw>, chain_id: &ChainId) -> Vec<Evidence> {
    let votes = noticed.votes.iter().flat_map(|(_, pairs)| pairs).map(|(one, other)| (vote(one), vote(other)));
    let proposals =
        noticed.proposals.iter().flat_map(|(_, pairs)| pairs).map(|(one, other)| (proposal(one), proposal(other)));
    let pieces = votes.chain(proposals).filter_map(|pair| match pair {
        (Some(one), Some(other)) if one.place == other.place => {
            let (node_id, height, round) = one.place;
            Some(Evidence::new(node_id, height, round, one.said, other.said))
        }
        _ => None,
    });
    let sound = pieces.filter(|piece| piece.check(chain_id).is_ok());
    let by_node: BTreeMap<NodeId, Evidence> = sound.map(|piece| (piece.node_id, piece)).collect();
    by_node.into_values().collect()
}

/// Something signed, and where.
struct Statement {
    place: (NodeId, Height, ChainRound),
    said: (Said, Signature),
}

fn vote(vote: &SignedVote<Pouw>) -> Option<Statement> {
    let block = match &vote.value {
        NilOrVal::Nil => None,
        NilOrVal::Val(block) => Some(block.0),
    };
    let said = match vote.kind {
        VoteType::Prevote => Said::Prevote(block),
        VoteType::Precommit => Said::Precommit(block),
    };
    let place = (vote.voter.0, vote.height.0, round(vote.round)?);
    Some(Statement { place, said: (said, vote.signature.0) })
}

fn proposal(proposal: &SignedProposal<Pouw>) -> Option<Statement> {
    let said = Said::Proposal { block: proposal.value.0, polka: round(proposal.pol_round) };
    let place = (proposal.proposer.0, proposal.height.0, round(proposal.round)?);
    Some(Statement { place, said: (said, proposal.signature.0) })
}

fn round(round: Round) -> Option<ChainRound> {
    round.as_u32().map(ChainRound::new)
}
