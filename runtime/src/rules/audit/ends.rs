//! What an audit's end means for money, work and standing.

use std::collections::{BTreeMap, BTreeSet};

use aria_chain::attestation::Verdict;
use aria_chain::ids::NodeId;
use aria_chain::record::RecordStatus;
use aria_chain::units::NanoAria;

use crate::params::Params;
use crate::reputation::Outcome;
use crate::rules::evidence::{forfeit, slash};
use crate::rules::record::{InclusionError, Place};
use crate::rules::settle::Earned;
use crate::rules::{fee, settle};
use crate::state::{Audit, Overlay, StateError, key};

/// Pays and punishes, by the status that a record ends with, and by whether its provider is to blame where nobody could check it.
pub(super) fn pay(
    audit: &Audit,
    (status, is_withheld): (RecordStatus, bool),
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), StateError> {
    let truth = match status {
        RecordStatus::Verified => Some(Verdict::Valid),
        RecordStatus::Refuted => Some(Verdict::Invalid),
        _ => None,
    };
    let mut said: BTreeMap<NodeId, Verdict> = audit.first.iter().copied().collect();
    said.extend(audit.members.iter().filter_map(|member| Some((member.node, member.verdict?))));
    let right: Vec<NodeId> =
        said.iter().filter(|(_, verdict)| Some(**verdict) == truth).map(|(node, _)| *node).collect();
    // Who lied pays first: nobody is paid more than the fee brings and a lie costs.
    let liars = liars(audit, truth);
    let mut lost = judged(&liars, place, overlay)?;
    if status == RecordStatus::Refuted {
        for stage in &audit.stages {
            lost = plus(lost, punish(&stage.node_id, place, overlay)?);
        }
    }
    let is_earned = matches!(status, RecordStatus::Verified | RecordStatus::Accepted);
    if is_earned || truth.is_some() {
        let pool = if is_earned { pool(&audit.earned, place.params()) } else { NanoAria::ZERO };
        let each = share(plus(pool, lost), right.len(), &audit.earned);
        credit(audit, (&right, each), is_earned.then_some(pool), place, overlay)?;
    }
    if !is_earned {
        fee::give_back(&audit.requester, audit.earned.fee, overlay)?;
    }
    let outcome = match status {
        RecordStatus::Verified => Some(Outcome::Verified),
        RecordStatus::Refuted => Some(Outcome::Refuted),
        RecordStatus::Unavailable if is_withheld => Some(Outcome::Unavailable),
        _ => None,
    };
    if let Some(outcome) = outcome {
        for stage in &audit.stages {
            remember(&stage.node_id, outcome, overlay)?;
        }
    }
    if truth.is_some() { lapse(audit, overlay) } else { Ok(()) }
}

/// Takes from liars what a lie costs. Returns how much that was.
fn judged(liars: &BTreeSet<NodeId>, place: Place<'_>, overlay: &mut Overlay<'_>) -> Result<NanoAria, StateError> {
    let mut lost = NanoAria::ZERO;
    for node in liars {
        lost = plus(lost, punish(node, place, overlay)?);
        remember(node, Outcome::Misjudged, overlay)?;
    }
    Ok(lost)
}

/// Parts of one supply.
fn plus(a: NanoAria, b: NanoAria) -> NanoAria {
    NanoAria::new(a.get().saturating_add(b.get()))
}

/// Whoever said the opposite of the truth, in the committee or as a judge.
fn liars(audit: &Audit, truth: Option<Verdict>) -> BTreeSet<NodeId> {
    let Some(truth) = truth else { return BTreeSet::new() };
    let later = audit.members.iter().filter_map(|member| Some((member.node, member.verdict?)));
    let said = audit.first.iter().copied().chain(later);
    said.filter(|(_, said)| *said != Verdict::Missing && *said != truth).map(|(node, _)| node).collect()
}

/// What a fee brings all auditors together.
fn pool(earned: &Earned, params: &Params) -> NanoAria {
    NanoAria::new(earned.audit_fee.get().saturating_mul(u64::from(params.committee_size)))
}

/// An equal share of what there is for each who was right, at most what a place of the committee is worth.
fn share(most: NanoAria, right: usize, earned: &Earned) -> NanoAria {
    let right = u64::try_from(right).unwrap_or(u64::MAX);
    most.get().checked_div(right).map_or(NanoAria::ZERO, |share| earned.audit_fee.min(NanoAria::new(share)))
}

/// Rule 6. To call the payload missing is to say nothing: who has it gives it to the rest of the committee. Who found the truth as a
/// judge has made up for it.
fn lapse(audit: &Audit, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    let missing = audit.first.iter().filter(|(_, said)| *said == Verdict::Missing);
    let mut silent: BTreeSet<NodeId> = missing.map(|(node, _)| *node).collect();
    for member in &audit.members {
        match member.verdict {
            None | Some(Verdict::Missing) => silent.insert(member.node),
            Some(Verdict::Valid | Verdict::Invalid) => silent.remove(&member.node),
        };
    }
    silent.iter().try_for_each(|node| forfeit(node, audit.earned.audit_fee, overlay).map(drop))
}

/// Pays the judges of a doubt who found the truth from what it costs who was wrong; who is silent or wrong loses as auditors do.
pub(in crate::rules) fn pay_judges(
    audit: &Audit,
    truth: Verdict,
    lost: NanoAria,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), StateError> {
    let lost = plus(lost, judged(&liars(audit, Some(truth)), place, overlay)?);
    let right = audit.members.iter().filter(|member| member.verdict == Some(truth)).map(|member| member.node);
    let right: Vec<NodeId> = right.collect();
    credit(audit, (&right, share(lost, right.len(), &audit.earned)), None, place, overlay)?;
    lapse(audit, overlay)
}

pub(in crate::rules) fn remember(node: &NodeId, outcome: Outcome, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    let reputation = overlay.read().reputation(node)?.after(outcome);
    overlay.put(key::reputation(node), &reputation);
    Ok(())
}

/// `most`: what the fee brings auditors, where the record earned it.
fn credit(
    audit: &Audit,
    auditors: (&[NodeId], NanoAria),
    most: Option<NanoAria>,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), StateError> {
    settle::credit(&audit.stages, audit.earned, auditors, most, place, overlay).map_err(|error| match error {
        InclusionError::State(error) => error,
        // Admission saw to it that one record's amounts fit; all of a chain together do not reach 64 bits.
        InclusionError::Fault(_) => StateError::Damaged { key: key::SUPPLY.to_vec() },
    })
}

/// Destroys a part of a bond, and keeps its owner from voting for a while: longer each time.
/// Returns how much that was.
pub(in crate::rules) fn punish(
    node: &NodeId,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<NanoAria, StateError> {
    let lost = slash(node, place.params().refuted_slash_ppm, overlay)?;
    if let Some(mut candidate) = overlay.read().candidate(node)? {
        candidate.bar(place.epoch());
        overlay.put(key::candidate(node), &candidate);
    }
    Ok(lost)
}
