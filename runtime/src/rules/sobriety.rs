//! Whose energy is believed. A node signs the energy of its own answers, and nobody can measure it from outside. What can be done: to
//! compare nodes that run the same model on the same hardware.
//!
//! 1. In an epoch a node may attest the one before: hardware, energy, tokens, answers; no less than its records claim.
//! 2. The first block of an epoch looks at the epoch before the last, whose attestations are in. Of at least three nodes with the same
//!    model and the same hardware the median of measured energy for a token is taken. Who claims less than half of it is an outlier; the
//!    others are vouched for.
//! 3. A bonus for measured energy is paid in an epoch to who is vouched for, and for no less energy than the median: who understates
//!    gains nothing by it. An outlier, and a node with which nobody can be compared, is paid like one that estimates. Where one node has
//!    all the power there is nobody to compare, and nobody to lose.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use aria_chain::ids::{ModelId, NodeId};
use aria_chain::limits::STATE_SCAN_MAX;
use aria_chain::record::InferenceRecord;
use aria_chain::sobriety::{Hardware, SobrietyAttestation};
use aria_chain::units::{Epoch, Microjoules};

use super::record::{InclusionError, Place};
use super::transaction::{OrderError, TransactionFault};
use crate::fixed::scale_ceil;
use crate::reward::Effort;
use crate::state::{Overlay, Spent, Standing, StateError, View, entry, key};

/// So many nodes have a median that none of them makes alone.
const ALIKE_MIN: usize = 3;
const THOUSAND: NonZeroU64 = NonZeroU64::new(1_000).expect("it is not zero");

/// Rule 1.
pub(super) fn attest(
    node: &NodeId,
    attestation: &SobrietyAttestation,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), OrderError> {
    let (epoch, now) = (attestation.epoch, place.epoch());
    if epoch.get().checked_add(1) != Some(now.get()) {
        return Err(TransactionFault::SobrietyEpoch { got: epoch, now }.into());
    }
    if overlay.read().attested(epoch, node)?.is_some() {
        return Err(TransactionFault::SobrietyTold { epoch }.into());
    }
    let known = overlay.read().sobriety(epoch, node)?;
    let tokens = known.measured.tokens.saturating_add(known.estimated.tokens);
    let energy_uj = known.measured.energy_uj.checked_add(known.estimated.energy_uj)?;
    if tokens == 0 || attestation.tokens < tokens || attestation.energy_uj < energy_uj {
        return Err(TransactionFault::SobrietyBelow { epoch, tokens, energy_uj }.into());
    }
    overlay.put(key::attested(epoch, node), attestation);
    Ok(())
}

/// Counts measured energy, for the comparison.
pub(super) fn count(
    (model, node): (&ModelId, &NodeId),
    (tokens, energy_uj): (u64, u64),
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), InclusionError> {
    let mut spent = overlay.read().measured(place.epoch(), model, node)?;
    spent.tokens = spent.tokens.saturating_add(tokens);
    spent.energy_uj = spent.energy_uj.checked_add(Microjoules::new(energy_uj))?;
    overlay.put(key::measured(place.epoch(), model, node), &spent);
    Ok(())
}

/// Rule 2, in the first block of an epoch.
pub(crate) fn compare(now: Epoch, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    for (stale, _) in overlay.scan(key::STANDINGS, STATE_SCAN_MAX)? {
        overlay.delete(stale);
    }
    let Some(past) = now.get().checked_sub(2).map(Epoch::new) else { return Ok(()) };
    let mut alike: BTreeMap<(ModelId, Hardware), Vec<(NodeId, u128)>> = BTreeMap::new();
    for (found, value) in overlay.scan(&key::measured_in(past), STATE_SCAN_MAX)? {
        let damaged = || StateError::Damaged { key: found.clone() };
        let (model, node) = key::ids_of_measured(&found).ok_or_else(damaged)?;
        let spent: Spent = entry::decode(&value).ok_or_else(damaged)?;
        let each = u128::from(spent.energy_uj.get()).saturating_mul(1_000).checked_div(u128::from(spent.tokens));
        overlay.delete(found);
        if let (Some(told), Some(each)) = (overlay.read().attested(past, &node)?, each) {
            alike.entry((model, told.hardware)).or_default().push((node, each));
        }
    }
    for ((model, _), mut nodes) in alike.into_iter().filter(|(_, nodes)| nodes.len() >= ALIKE_MIN) {
        nodes.sort_by_key(|(node, each)| (*each, *node));
        let Some((_, median)) = nodes.get(nodes.len().div_euclid(2)).copied() else { continue };
        for (node, each) in nodes {
            let median_uj = u64::try_from(median).unwrap_or(u64::MAX);
            let standing = Standing { is_outlier: each.saturating_mul(2) < median, median_uj };
            overlay.put(key::standing(&node, &model), &standing);
        }
    }
    Ok(())
}

/// Rule 3: what a record claims, as far as it is believed.
pub(super) fn believed(
    effort: Effort,
    record: &InferenceRecord,
    place: Place<'_>,
    overlay: &Overlay<'_>,
) -> Result<Effort, StateError> {
    if place.is_one_alone {
        return Ok(Effort { is_vouched: true, ..effort });
    }
    let mut least_uj = 0;
    for stage in &record.stages {
        let standing = overlay.read().standing(&stage.node_id, &record.model_id)?;
        let Some(standing) = standing.filter(|standing| !standing.is_outlier) else { return Ok(effort) };
        least_uj = standing.median_uj.max(least_uj);
    }
    let median_uj = scale_ceil(least_uj, effort.tokens, THOUSAND);
    // Unknown energy stays unknown.
    let energy_uj = if effort.energy_uj == 0 { 0 } else { effort.energy_uj.max(median_uj) };
    Ok(Effort { is_vouched: true, energy_uj, ..effort })
}
