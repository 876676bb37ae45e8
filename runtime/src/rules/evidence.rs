//! Evidence in the context of a block: whom it concerns, and what it costs them.
//!
//! That both statements are signed and contradict each other was checked with the block. Whether their author was in the
//! set of that height does not matter: no honest key signs both, and nobody needs an old set to see it.

use aria_chain::evidence::Evidence;
use aria_chain::ids::NodeId;
use aria_chain::units::{Height, NanoAria};

use super::fee;
use super::record::Place;
use crate::fixed::part;
use crate::state::{Overlay, StateError, Supply, key};

/// Why a block may not hold a piece of evidence. One variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceFault {
    /// Only who may get power can misuse it.
    #[error("{node} is no candidate")]
    Stranger {
        /// The accused.
        node: NodeId,
    },
    /// A node is excluded once.
    #[error("{node} was excluded in block {height}")]
    Excluded {
        /// The accused.
        node: NodeId,
        /// Block that holds the evidence.
        height: Height,
    },
}

/// Evidence that cannot be used, or a state that cannot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvictError {
    /// See [`EvidenceFault`].
    #[error(transparent)]
    Fault(#[from] EvidenceFault),
    /// See [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
}

/// Excludes the author from all sets to come, and destroys a part of its bond. Where it fails, the overlay is as before.
pub(crate) fn convict(evidence: &Evidence, place: Place<'_>, overlay: &mut Overlay<'_>) -> Result<(), ConvictError> {
    let node = evidence.node_id;
    let mut candidate = overlay.read().candidate(&node)?.ok_or(EvidenceFault::Stranger { node })?;
    if let Some(height) = candidate.excluded {
        return Err(EvidenceFault::Excluded { node, height }.into());
    }
    candidate.excluded = Some(place.height);
    overlay.put(key::candidate(&node), &candidate);
    slash(&node, place.params().slash_ppm, overlay)?;
    Ok(())
}

/// Destroys a part of a bond. Returns how much that was.
pub(super) fn slash(node: &NodeId, ppm: u32, overlay: &mut Overlay<'_>) -> Result<NanoAria, StateError> {
    let bond = overlay.read().account(node)?.unwrap_or_default().bond;
    forfeit(node, NanoAria::new(part(bond.get(), ppm)), overlay)
}

/// Destroys so much of a bond, or what there is. Returns how much that was.
pub(super) fn forfeit(node: &NodeId, most: NanoAria, overlay: &mut Overlay<'_>) -> Result<NanoAria, StateError> {
    let mut account = overlay.read().account(node)?.unwrap_or_default();
    let lost = most.min(account.bond);
    account.bond = account.bond.minus_or_zero(lost);
    overlay.put(key::account(node), &account);
    fee::change(overlay, |supply| Ok(Supply { burned: supply.burned.checked_add(lost)?, ..supply }))?;
    Ok(lost)
}
