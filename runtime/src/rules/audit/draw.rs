//! Who audits a record, and who judges where its auditors cannot: voters, by power, and nobody by choice.

use std::collections::BTreeSet;

use aria_chain::certificate::Validator;
use aria_chain::hash::Domain;
use aria_chain::ids::{Digest, NodeId};

use super::{DRAW_AFTER, JUDGES_MAX, audits_of, back};
use crate::params::PPM;
use crate::rules::fee;
use crate::rules::record::Place;
use crate::state::{Audit, Member, Overlay, Phase, StateError};

/// Rule 1, by the number of this block.
pub(crate) fn draw(beacon: &Digest, place: Place<'_>, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    let Some(height) = back(place.height, DRAW_AFTER) else { return Ok(()) };
    let audits = audits_of(height, overlay)?;
    if audits.is_empty() {
        return Ok(());
    }
    let voters = overlay.read().voters()?;
    let mut trusted = BTreeSet::new();
    for voter in voters.members() {
        if overlay.read().reputation(&voter.node_id)?.may_audit() {
            trusted.insert(voter.node_id);
        }
    }
    for (key, mut audit) in audits {
        audit.seed = Domain::DRAW.hash_of(&(beacon, audit.record));
        let mut others = others(voters.members(), |node| is_own(&audit, node));
        // Somebody of little repute is better than nobody.
        if others.iter().any(|voter| trusted.contains(&voter.node_id)) {
            others.retain(|voter| trusted.contains(&voter.node_id));
        }
        if others.is_empty() {
            fee::give_back(&audit.requester, audit.earned.fee, overlay)?;
            overlay.delete(key);
            continue;
        }
        let is_drawn =
            number(&audit.seed, u32::MAX).rem_euclid(u128::from(PPM)) < u128::from(place.params().audit_rate_ppm);
        if is_drawn {
            audit.members = sample(&audit.seed, others, place.params().committee_size);
            audit.phase = Phase::Drawn;
        } else {
            audit.phase = Phase::Passed;
        }
        overlay.put(key, &audit);
    }
    Ok(())
}

/// Whether a node ran a part of the record.
pub(super) fn is_own(audit: &Audit, node: &NodeId) -> bool {
    audit.stages.iter().any(|stage| stage.node_id == *node)
}

/// Voters that have no part in it themselves.
fn others(voters: &[Validator], has_part: impl Fn(&NodeId) -> bool) -> Vec<Validator> {
    voters.iter().filter(|voter| !has_part(&voter.node_id)).copied().collect()
}

/// The strongest of those voters.
pub(in crate::rules) fn judges(
    overlay: &Overlay<'_>,
    has_part: impl Fn(&NodeId) -> bool,
) -> Result<Vec<Member>, StateError> {
    let mut judges = others(overlay.read().voters()?.members(), has_part);
    judges.sort_by_key(|voter| (std::cmp::Reverse(voter.power), voter.node_id));
    judges.truncate(usize::try_from(JUDGES_MAX).unwrap_or(usize::MAX));
    Ok(judges.into_iter().map(|voter| Member::new(voter.node_id, voter.power)).collect())
}

/// Number `place` that follows from a seed.
fn number(seed: &Digest, place: u32) -> u128 {
    let hash = Domain::DRAW.hash_of(&(seed, place));
    u128::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// Draws so many voters by power, none twice.
fn sample(seed: &Digest, mut from: Vec<Validator>, count: u32) -> Vec<Member> {
    let mut members = Vec::new();
    for place in 0..count {
        let total = from.iter().fold(0_u128, |sum, voter| sum.saturating_add(u128::from(voter.power)));
        let Some(mut at) = number(seed, place).checked_rem(total) else { break };
        let found = from.iter().position(|voter| {
            let is_here = at < u128::from(voter.power);
            at = at.saturating_sub(u128::from(voter.power));
            is_here
        });
        let Some(found) = found else { break };
        let voter = from.swap_remove(found);
        members.push(Member::new(voter.node_id, voter.power));
    }
    members
}
