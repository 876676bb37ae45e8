//! Signatures of consensus: each message kind in its own domain, checked by the one strict rule of `aria-chain`.

use std::future::Future;
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};

use aria_chain::ids::{BlockHash, ChainId, NodeId};
use aria_chain::keys::{self, NodeKey, Signature};
use aria_chain::units::Round as ChainRound;
use async_trait::async_trait;
use malachite_signing::{Error, VerificationResult, Verifier};
use malachite_types::{NilOrVal, Round, SigningScheme, ValidatorProof, VoteExtensionScope, VoteType};

use super::context::{Address, BlockId, Pouw, Proposal, Signed, Vote};

/// Ed25519. Keys are addresses; private keys never reach the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ed25519;

impl SigningScheme for Ed25519 {
    type DecodingError = String;
    type Signature = Signed;
    type PublicKey = Address;
    type PrivateKey = ();

    fn decode_signature(bytes: &[u8]) -> Result<Signed, String> {
        let bytes = bytes.try_into().map_err(|_| format!("a signature has 64 bytes, not {}", bytes.len()))?;
        Ok(Signed(Signature::new(bytes)))
    }

    fn encode_signature(signature: &Signed) -> Vec<u8> {
        signature.0.as_bytes().to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<Address, String> {
        let bytes = bytes.try_into().map_err(|_| format!("a key has 32 bytes, not {}", bytes.len()))?;
        Ok(Address(NodeId::new(bytes)))
    }

    fn encode_public_key(key: &Address) -> Vec<u8> {
        key.0.as_bytes().to_vec()
    }
}

/// A round in which something can be signed: `None` for the one before the first.
fn chain_round(round: Round) -> Option<ChainRound> {
    round.as_u32().map(ChainRound::new)
}

fn block_of(value: &NilOrVal<BlockId>) -> Option<&BlockHash> {
    match value {
        NilOrVal::Nil => None,
        NilOrVal::Val(block) => Some(&block.0),
    }
}

/// Signs a vote.
///
/// # Panics
/// If its round is before the first: the core signs nothing there.
pub fn sign_vote(key: &NodeKey, chain_id: &ChainId, vote: &Vote) -> Signed {
    let round = chain_round(vote.round).expect("votes have rounds");
    let height = vote.height.0;
    Signed(match (vote.kind, block_of(&vote.value)) {
        (VoteType::Prevote, block) => key.sign_prevote(chain_id, height, round, block),
        (VoteType::Precommit, Some(block)) => key.sign_precommit(chain_id, height, round, block),
        (VoteType::Precommit, None) => key.sign_nil_precommit(chain_id, height, round),
    })
}

/// Whether its voter signed a vote.
pub fn is_vote_signed(chain_id: &ChainId, vote: &Vote, signature: &Signed) -> bool {
    let Some(round) = chain_round(vote.round) else { return false };
    let (height, voter, signature) = (vote.height.0, &vote.voter.0, &signature.0);
    match (vote.kind, block_of(&vote.value)) {
        (VoteType::Prevote, block) => keys::verify_prevote(voter, chain_id, height, round, block, signature),
        (VoteType::Precommit, Some(block)) => keys::verify_precommit(voter, chain_id, height, round, block, signature),
        (VoteType::Precommit, None) => keys::verify_nil_precommit(voter, chain_id, height, round, signature),
    }
}

/// Signs a proposal.
///
/// # Panics
/// If its round is before the first: the core signs nothing there.
pub fn sign_proposal(key: &NodeKey, chain_id: &ChainId, proposal: &Proposal) -> Signed {
    let round = chain_round(proposal.round).expect("proposals have rounds");
    let polka = chain_round(proposal.pol_round);
    Signed(key.sign_proposal(chain_id, proposal.height.0, round, &proposal.value.0, polka))
}

/// Whether its proposer signed a proposal.
pub fn is_proposal_signed(chain_id: &ChainId, proposal: &Proposal, signature: &Signed) -> bool {
    let Some(round) = chain_round(proposal.round) else { return false };
    let (proposer, polka) = (&proposal.proposer.0, chain_round(proposal.pol_round));
    keys::verify_proposal(proposer, chain_id, proposal.height.0, round, &proposal.value.0, polka, &signature.0)
}

/// Checks the signatures of one chain, for the core's certificates.
#[derive(Clone, Debug)]
pub struct Checker(pub ChainId);

#[async_trait]
impl Verifier<Pouw> for Checker {
    async fn verify_signed_vote(
        &self,
        vote: &Vote,
        signature: &Signed,
        key: &Address,
    ) -> Result<VerificationResult, Error> {
        let is_valid = vote.voter == *key && is_vote_signed(&self.0, vote, signature);
        Ok(VerificationResult::from_bool(is_valid))
    }

    async fn verify_signed_proposal(
        &self,
        proposal: &Proposal,
        signature: &Signed,
        key: &Address,
    ) -> Result<VerificationResult, Error> {
        let is_valid = proposal.proposer == *key && is_proposal_signed(&self.0, proposal, signature);
        Ok(VerificationResult::from_bool(is_valid))
    }

    async fn verify_signed_vote_extension(
        &self,
        _: &VoteExtensionScope<Pouw>,
        (): &(),
        _: &Signed,
        _: &Address,
    ) -> Result<VerificationResult, Error> {
        Ok(VerificationResult::Invalid)
    }

    async fn verify_validator_proof(&self, _: &ValidatorProof<Pouw>) -> Result<VerificationResult, Error> {
        Ok(VerificationResult::Invalid)
    }
}

/// The result of a future that never waits, which all of the core's checks are.
///
/// # Panics
/// If it does wait.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("checks of signatures wait for nothing"),
    }
}
