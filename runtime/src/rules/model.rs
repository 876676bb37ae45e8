//! How a model comes to be registered: somebody proposes it, voters confirm it.
//!
//! 1. Anybody may propose a model under a name and with a shape, and burns a registration fee for it. Nothing is earned with
//!    a proposal.
//! 2. Voters who have the model confirm a proposal. It names all that they confirm, so a false shape or name stands beside
//!    the right one and never in its way.
//! 3. Where voters with more than two thirds of the power have confirmed it, it is registered, and the other proposals of
//!    the same model are gone. Only who votes then counts, whoever voted before.
//!    A voter who agrees when the others were enough already is heard, and nothing comes of it: were it refused, what its
//!    account ordered next would go with it.
//! 4. A proposal that did not come so far ends after [`Params::unbond_blocks`](crate::params::Params::unbond_blocks), and may
//!    be made again.
//!
//! Proposals that have ended are as good as gone everywhere; their entries go where the next one is made, or an epoch begins.

use aria_chain::certificate::ValidatorSet;
use aria_chain::ids::{Digest, ModelId, NodeId};
use aria_chain::limits::MODEL_PROPOSALS_MAX;
use aria_chain::model::{ModelName, Shape, proposal_id};
use aria_chain::units::Height;

use super::record::Place;
use super::transaction::OrderError;
use crate::state::{Model, ModelProposal, Overlay, StateError, View, key};

/// Why a block may not include a transaction about a model. One variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelFault {
    /// A model is registered once.
    #[error("model {model} is registered already, as `{name}`; use it")]
    Registered {
        /// The model.
        model: ModelId,
        /// Its name.
        name: String,
    },
    /// Among registered models a name means one.
    #[error("name `{name}` is that of the registered model {model}; choose another")]
    NameTaken {
        /// As proposed.
        name: String,
        /// Whose it is.
        model: ModelId,
    },
    /// A proposal is made once while it stands.
    #[error("model {model} is proposed so already, up to height {ends}; confirm proposal {proposal}")]
    Proposed {
        /// The model.
        model: ModelId,
        /// The proposal.
        proposal: Digest,
        /// The last height at which it can be confirmed.
        ends: Height,
    },
    /// See [`MODEL_PROPOSALS_MAX`].
    #[error("{MODEL_PROPOSALS_MAX} models are proposed already; try again when some are registered or have ended")]
    TooManyProposals,
    /// What is confirmed stands.
    #[error("model {model} is not proposed as {proposal}, or no more; see `aria model registered`")]
    NotProposed {
        /// The model.
        model: ModelId,
        /// As named.
        proposal: Digest,
    },
    /// Who has no power confirms nothing.
    #[error("{node} does not vote in this epoch, and only voters confirm models; leave it to them")]
    NotVoter {
        /// The sender.
        node: NodeId,
    },
    /// A voter counts once.
    #[error("{node} has confirmed proposal {proposal} already; wait for the others")]
    Confirmed {
        /// The sender.
        node: NodeId,
        /// The proposal.
        proposal: Digest,
    },
}

/// Rule 1.
pub(super) fn propose(
    proposer: &NodeId,
    (model, name, shape): (&ModelId, &ModelName, &Shape),
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), OrderError> {
    check_unregistered(model, overlay)?;
    check_name(name.as_str(), place, overlay)?;
    let standing = forget_ended(place, overlay)?;
    let proposal = proposal_id(model, name, shape);
    if let Some(found) = overlay.read().model_proposal(model, &proposal)? {
        let ends = found.ends(place.params());
        return Err(ModelFault::Proposed { model: *model, proposal, ends }.into());
    }
    if standing >= MODEL_PROPOSALS_MAX {
        return Err(ModelFault::TooManyProposals.into());
    }
    let entry = ModelProposal {
        name: name.to_string(),
        shape: *shape,
        proposer: *proposer,
        height: place.height,
        confirmed_by: Vec::new(),
    };
    overlay.put(key::model_proposal(model, &proposal), &entry);
    Ok(())
}

/// Rules 2 and 3.
pub(super) fn confirm(
    voter: &NodeId,
    (model, proposal): (&ModelId, &Digest),
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), OrderError> {
    let voters = overlay.read().voters()?;
    if voters.power_of(voter) == 0 {
        return Err(ModelFault::NotVoter { node: *voter }.into());
    }
    if overlay.read().model(model)?.is_some_and(|registered| is_proposal(*proposal, model, &registered)) {
        return Ok(());
    }
    check_unregistered(model, overlay)?;
    let found = overlay.read().model_proposal(model, proposal)?;
    let found = found.filter(|found| found.stands(place.height, place.params()));
    let mut entry = found.ok_or(ModelFault::NotProposed { model: *model, proposal: *proposal })?;
    check_name(&entry.name, place, overlay)?;
    if entry.confirmed_by.contains(voter) {
        return Err(ModelFault::Confirmed { node: *voter, proposal: *proposal }.into());
    }
    // Who votes no more counts no more, and with only voters in it the entry stays small.
    entry.confirmed_by.retain(|node| voters.power_of(node) > 0);
    entry.confirmed_by.push(*voter);
    if is_confirmed(&entry, &voters) {
        register(model, entry, overlay)?;
    } else {
        overlay.put(key::model_proposal(model, proposal), &entry);
    }
    Ok(())
}

/// What a block does about models before its transactions: where an epoch begins other nodes vote, so those who confirmed
/// a proposal may have become enough; and what has ended goes.
pub(crate) fn turn(place: Place<'_>, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    if !place.params().is_epoch_start(place.height) || forget_ended(place, overlay)? == 0 {
        return Ok(());
    }
    let voters = overlay.read().voters()?;
    for ((model, _), entry) in overlay.read().model_proposals(MODEL_PROPOSALS_MAX)? {
        // Another of the same model or name may have come first, a moment ago.
        let is_free = overlay.read().model(&model)?.is_none() && registered_as(&entry.name, place, overlay)?.is_none();
        if is_free && is_confirmed(&entry, &voters) {
            register(&model, entry, overlay)?;
        }
    }
    Ok(())
}

/// Power of the voters among those who confirmed.
pub fn confirmed_power(proposal: &ModelProposal, voters: &ValidatorSet) -> u64 {
    // All power of a set fits 64 bits, and nobody confirms twice.
    proposal.confirmed_by.iter().fold(0, |sum, node| sum.saturating_add(voters.power_of(node)))
}

fn is_confirmed(proposal: &ModelProposal, voters: &ValidatorSet) -> bool {
    voters.is_quorum(confirmed_power(proposal, voters))
}

fn register(model: &ModelId, proposal: ModelProposal, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    for (entry, _) in overlay.scan(&key::model_proposals_of(model), MODEL_PROPOSALS_MAX)? {
        overlay.delete(entry);
    }
    let ModelProposal { name, shape, .. } = proposal;
    overlay.put(key::model_name(&name), model);
    overlay.put(key::model(model), &Model { name, shape });
    Ok(())
}

/// Whether a proposal is what a model was registered as.
fn is_proposal(proposal: Digest, model: &ModelId, registered: &Model) -> bool {
    ModelName::new(registered.name.as_str()).is_ok_and(|name| proposal_id(model, &name, &registered.shape) == proposal)
}

fn check_unregistered(model: &ModelId, overlay: &Overlay<'_>) -> Result<(), OrderError> {
    match overlay.read().model(model)? {
        Some(Model { name, .. }) => Err(ModelFault::Registered { model: *model, name }.into()),
        None => Ok(()),
    }
}

fn check_name(name: &str, place: Place<'_>, overlay: &Overlay<'_>) -> Result<(), OrderError> {
    match registered_as(name, place, overlay)? {
        Some(model) => Err(ModelFault::NameTaken { name: name.to_owned(), model }.into()),
        None => Ok(()),
    }
}

/// The registered model of a name. Those of genesis have no entry by name: they never change.
fn registered_as(name: &str, place: Place<'_>, overlay: &Overlay<'_>) -> Result<Option<ModelId>, StateError> {
    match place.genesis.model_of_name(name) {
        Some(model) => Ok(Some(model)),
        None => overlay.read().model_of_name(name),
    }
}

/// Deletes the proposals that have ended; returns how many stand. There are never many.
fn forget_ended(place: Place<'_>, overlay: &mut Overlay<'_>) -> Result<usize, StateError> {
    let mut standing = 0_usize;
    for ((model, proposal), entry) in overlay.read().model_proposals(MODEL_PROPOSALS_MAX)? {
        if entry.stands(place.height, place.params()) {
            standing = standing.saturating_add(1);
        } else {
            overlay.delete(key::model_proposal(&model, &proposal));
        }
    }
    Ok(standing)
}
