//! The chain's random number, which nobody chooses: after each block it is a hash over the value of the proposer's verifiable random
//! function for the number before and the height.
//!
//! The proposer can compute it and cannot change it; what it can do is to let its turn pass, at the price of the turn. A
//! block hash could be tried again with another nonce, and the signatures of a certificate can be picked, so neither may
//! seed anything.

use aria_chain::hash::Domain;
use aria_chain::ids::{Digest, NodeId};
use aria_chain::keys::VrfProof;
use aria_chain::units::Height;

use crate::state::{Reader, StateError, View};

/// What the proposer of a block puts into its function, on the state after the parent.
pub fn input(height: Height, state: &dyn View) -> Result<Vec<u8>, StateError> {
    let before = Reader(state).beacon()?;
    Ok([before.as_bytes(), &height.get().to_le_bytes()[..]].concat())
}

/// The number after a block; none if the proof is not this proposer's for this input.
pub(crate) fn next(proposer: &NodeId, input: &[u8], proof: &VrfProof) -> Option<Digest> {
    proof.verify(proposer, input).map(|value| Domain::BEACON.hash(&value))
}

/// The number before the first block.
pub(crate) fn first(genesis: &Digest) -> Digest {
    Domain::BEACON.hash(genesis.as_bytes())
}
