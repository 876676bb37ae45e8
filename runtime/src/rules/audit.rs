//! From an included record to a verified one: who audits it, what auditors may say, and what follows.
//!
//! 1. A record of block `h` that may earn something waits. The number of block `h + 2` ([`crate::beacon`]) decides whether it is
//!    drawn, and whom of the voters, by power, without its own nodes and those of little repute, as its committee.
//! 2. Each member commits to a verdict. When all have, or half of the time is over, they open.
//! 3. When all have opened, or the time is over: more than half found it valid, and it is verified; more than half found it
//!    invalid, and it is refuted.
//! 4. Verdicts that contradict each other are not settled by the committee: one of them is objectively false. Nor is a committee of
//!    which half or more say that nothing came, or say nothing: whoever may take away a provider's pay by silence would. The strongest
//!    voters run the record again, and more than two thirds of their power decide; who said otherwise is slashed. If they do not
//!    decide, nobody gains and nobody loses: a record that nobody could tell anything of is unavailable.
//! 5. A record that was not drawn is accepted when the time is over.
//! 6. Who was drawn for a record that others could judge, and said nothing of it, loses what it would have been paid.

use std::collections::BTreeSet;

use aria_chain::attestation::{Attestation, Opening, Statement, Verdict, VerifiedAttestation};
use aria_chain::certificate::Validator;
use aria_chain::hash::Domain;
use aria_chain::ids::{Digest, NodeId, RecordId};
use aria_chain::limits::BLOCK_RECORDS_MAX;
use aria_chain::proof::VerifiedProof;
use aria_chain::record::RecordStatus;
use aria_chain::units::Height;

use self::ends::pay;
use super::record::Place;
use super::settle::Earned;
use super::{doubt, fee};
use crate::params::{PPM, Params};
use crate::state::{Audit, Member, Overlay, Phase, StateError, View, entry, key};

mod ends;

pub(super) use self::ends::{pay_judges, punish, remember};

/// Blocks from a record to the number that draws its committee.
pub const DRAW_AFTER: u64 = 2;
/// Voters who decide where auditors contradict each other. Their state fits one entry.
pub(crate) const JUDGES_MAX: u32 = 32;

/// Why a block may not include an attestation. One variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestationFault {
    /// Only records that are being audited are spoken of.
    #[error("record {index} of block {height} is not being audited")]
    NotAudited {
        /// Of the block.
        height: Height,
        /// Of the record.
        index: u32,
    },
    /// Who was drawn may speak.
    #[error("{node} was not drawn to audit record {index}")]
    NotDrawn {
        /// The speaker.
        node: NodeId,
        /// Of the record.
        index: u32,
    },
    /// An auditor commits once.
    #[error("{node} has committed to a verdict on record {index} already")]
    CommittedBefore {
        /// The speaker.
        node: NodeId,
        /// Of the record.
        index: u32,
    },
    /// Nobody opens before the others are bound.
    #[error("record {index} is not open for openings before all of its auditors have committed, or block {from}")]
    TooEarly {
        /// Of the record.
        index: u32,
        /// From then on it is.
        from: Height,
    },
    /// An opening is of a commitment, once.
    #[error("{node} did not commit to this opening on record {index}, or opened it before")]
    OtherOpening {
        /// The speaker.
        node: NodeId,
        /// Of the record.
        index: u32,
    },
}

/// An attestation that cannot be included, or a state that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// See [`AttestationFault`].
    #[error(transparent)]
    Fault(#[from] AttestationFault),
    /// See [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
}

/// An audit that ended.
pub(crate) type Ended = (RecordId, RecordStatus, Audit);

/// Makes a record wait for its draw.
pub(super) fn wait(proof: &VerifiedProof, earned: Earned, place: Place<'_>, index: u32, overlay: &mut Overlay<'_>) {
    let audit = Audit {
        record: proof.record_id(),
        requester: proof.request().requester,
        stages: proof.record().stages.clone(),
        earned,
        seed: Digest::ZERO,
        phase: Phase::Waiting,
        members: Vec::new(),
        first: Vec::new(),
        outcome: None,
    };
    overlay.put(key::audit(place.height, index), &audit);
}

/// Whether records wait for the numbers of the next blocks on this one: they come without waiting for a heartbeat.
pub fn awaits_draw(tip: Height, state: &dyn View) -> Result<bool, StateError> {
    let heights = [Some(tip), tip.previous()];
    for height in heights.into_iter().flatten() {
        if !state.scan(&key::audits_of(height), 1)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

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
fn is_own(audit: &Audit, node: &NodeId) -> bool {
    audit.stages.iter().any(|stage| stage.node_id == *node)
}

/// Voters that have no part in it themselves.
fn others(voters: &[Validator], has_part: impl Fn(&NodeId) -> bool) -> Vec<Validator> {
    voters.iter().filter(|voter| !has_part(&voter.node_id)).copied().collect()
}

/// The strongest of those voters.
pub(super) fn judges(overlay: &Overlay<'_>, has_part: impl Fn(&NodeId) -> bool) -> Result<Vec<Member>, StateError> {
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

/// Rule 2: takes what an auditor says. Where it fails, the overlay is as before. Returns audits that ended by it.
pub(crate) fn attest(
    verified: &VerifiedAttestation,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<Vec<Ended>, AttestError> {
    let attestation = verified.attestation();
    let mut effects = Overlay::new(overlay);
    let mut ended = Vec::new();
    match &attestation.statement {
        Statement::Commit(items) => {
            for (index, commitment) in items {
                commit(attestation, *index, *commitment, &mut effects)?;
            }
        }
        Statement::Open(items) => {
            for (index, opening) in items {
                ended.extend(open(attestation, *index, opening, place, &mut effects)?);
            }
        }
    }
    let changes = effects.into_changes();
    overlay.absorb(changes);
    Ok(ended)
}

/// The audit that is spoken of, and the speaker's place in it.
fn find(attestation: &Attestation, index: u32, overlay: &Overlay<'_>) -> Result<(Audit, usize), AttestError> {
    let Attestation { auditor, height, .. } = attestation;
    let fault = AttestationFault::NotAudited { height: *height, index };
    let audit = overlay.read().audit(*height, index)?.ok_or(fault.clone())?;
    if !matches!(audit.phase, Phase::Drawn | Phase::Disputed | Phase::Doubted) {
        return Err(fault.into());
    }
    let place = audit.members.iter().position(|member| member.node == *auditor);
    let place = place.ok_or(AttestationFault::NotDrawn { node: *auditor, index })?;
    Ok((audit, place))
}

fn commit(
    attestation: &Attestation,
    index: u32,
    commitment: Digest,
    overlay: &mut Overlay<'_>,
) -> Result<(), AttestError> {
    let (mut audit, at) = find(attestation, index, overlay)?;
    let Some(member) = audit.members.get_mut(at).filter(|member| member.commitment.is_none()) else {
        return Err(AttestationFault::CommittedBefore { node: attestation.auditor, index }.into());
    };
    member.commitment = Some(commitment);
    overlay.put(key::audit(attestation.height, index), &audit);
    Ok(())
}

fn open(
    attestation: &Attestation,
    index: u32,
    opening: &Opening,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<Option<Ended>, AttestError> {
    let (mut audit, at) = find(attestation, index, overlay)?;
    let node = attestation.auditor;
    if !takes_openings(&audit, attestation.height, place.height, place.params()) {
        let from = opens_at(attestation.height, audit.phase, place.params());
        return Err(AttestationFault::TooEarly { index, from }.into());
    }
    let expected = opening.commitment(place.genesis.chain_id(), &node, &audit.record);
    let is_its_own = |member: &&mut Member| member.commitment == Some(expected) && member.verdict.is_none();
    let Some(member) = audit.members.get_mut(at).filter(is_its_own) else {
        return Err(AttestationFault::OtherOpening { node, index }.into());
    };
    member.verdict = Some(opening.verdict);
    member.root = opening.root;
    let is_complete = audit.members.iter().all(|member| member.verdict.is_some());
    let at = (attestation.height, index);
    doubt::note(&audit, at, node, opening, overlay)?;
    overlay.put(key::audit(at.0, at.1), &audit);
    if is_complete { conclude(at, audit, place, overlay).map_err(AttestError::State) } else { Ok(None) }
}

/// Whether a block takes openings about a record: once one does, all later ones of the same phase do.
pub fn takes_openings(audit: &Audit, record: Height, block: Height, params: &Params) -> bool {
    let are_bound = |member: &Member| member.commitment.is_some();
    audit.members.iter().all(are_bound) || block >= opens_at(record, audit.phase, params)
}

/// From this height on, openings are taken even where somebody has not committed.
fn opens_at(record: Height, phase: Phase, params: &Params) -> Height {
    let span = params.audit_blocks;
    let begun = match phase {
        Phase::Waiting | Phase::Drawn | Phase::Passed => 0,
        Phase::Disputed => span,
        Phase::Doubted => span.saturating_mul(doubt::SPANS.saturating_sub(1)),
    };
    let after = begun.saturating_add(span.div_euclid(2)).saturating_add(DRAW_AFTER);
    Height::new(record.get().saturating_add(after))
}

/// Rules 3 to 5 where the time is over.
pub(crate) fn expire(place: Place<'_>, overlay: &mut Overlay<'_>) -> Result<Vec<Ended>, StateError> {
    let span = place.params().audit_blocks;
    let mut ended = Vec::new();
    doubt::expire(place, overlay)?;
    let over = [(1, Phase::Drawn), (1, Phase::Passed), (2, Phase::Disputed), (doubt::SPANS, Phase::Doubted)];
    for (spans, phase) in over {
        let Some(height) = back(place.height, span.saturating_mul(spans).saturating_add(DRAW_AFTER)) else { continue };
        for (key, audit) in audits_of(height, overlay)? {
            if audit.phase == phase {
                let at = key::place_of_audit(&key).ok_or(StateError::Damaged { key })?;
                ended.extend(conclude(at, audit, place, overlay)?);
            }
        }
    }
    Ok(ended)
}

/// Ends an audit, or begins a dispute, or ends a doubt; then nothing is returned.
fn conclude(
    at: (Height, u32),
    mut audit: Audit,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<Option<Ended>, StateError> {
    let status = match audit.phase {
        Phase::Waiting | Phase::Passed => RecordStatus::Accepted,
        Phase::Drawn => {
            let (valid, invalid) = (count(&audit, Verdict::Valid), count(&audit, Verdict::Invalid));
            let half = audit.members.len().div_euclid(2);
            match (valid, invalid) {
                (valid, 0) if valid > half => RecordStatus::Verified,
                (0, invalid) if invalid > half => RecordStatus::Refuted,
                (valid, invalid) => {
                    let judges = judges(overlay, |node| is_own(&audit, node))?;
                    let is_committee = |judge: &Member| audit.members.iter().any(|member| member.node == judge.node);
                    let is_contradicted = valid > 0 && invalid > 0;
                    if is_contradicted || !judges.iter().all(is_committee) {
                        dispute(at, audit, judges, overlay)?;
                        return Ok(None);
                    }
                    RecordStatus::Unavailable
                }
            }
        }
        Phase::Disputed => match decided(&audit) {
            Some(Verdict::Valid) => RecordStatus::Verified,
            Some(Verdict::Invalid) => RecordStatus::Refuted,
            Some(Verdict::Missing) | None if is_contradicted(&audit) => RecordStatus::Included,
            Some(Verdict::Missing) | None => RecordStatus::Unavailable,
        },
        Phase::Doubted => {
            overlay.delete(key::audit(at.0, at.1));
            doubt::settle(at, &audit, place, overlay)?;
            return Ok(None);
        }
    };
    overlay.delete(key::audit(at.0, at.1));
    if status != RecordStatus::Verified {
        doubt::forget(at, overlay);
    }
    pay(&audit, status, place, overlay)?;
    audit.outcome = Some((status, place.height));
    Ok(Some((audit.record, status, audit)))
}

/// What more than two thirds of the judges' power found: valid, or invalid.
pub(super) fn decided(audit: &Audit) -> Option<Verdict> {
    let power = |of: &dyn Fn(&Member) -> bool| {
        let found = audit.members.iter().filter(|member| of(member));
        found.fold(0_u128, |sum, member| sum.saturating_add(u128::from(member.power)))
    };
    let total = power(&|_| true);
    let decides = |verdict: &Verdict| {
        power(&|member| member.verdict == Some(*verdict)).saturating_mul(3) > total.saturating_mul(2)
    };
    [Verdict::Valid, Verdict::Invalid].into_iter().find(decides)
}

/// Whether one of the two rounds said both.
fn is_contradicted(audit: &Audit) -> bool {
    let said = |verdict: Verdict| {
        audit.first.iter().any(|(_, said)| *said == verdict)
            || audit.members.iter().any(|member| member.verdict == Some(verdict))
    };
    said(Verdict::Valid) && said(Verdict::Invalid)
}

/// How many members said so.
fn count(audit: &Audit, verdict: Verdict) -> usize {
    audit.members.iter().filter(|member| member.verdict == Some(verdict)).count()
}

/// Rule 4: the strongest voters judge; what the committee said, and that it said nothing, is kept for what it deserves.
fn dispute(
    at: (Height, u32),
    mut audit: Audit,
    judges: Vec<Member>,
    overlay: &mut Overlay<'_>,
) -> Result<(), StateError> {
    doubt::forget(at, overlay);
    let said = |member: &Member| (member.node, member.verdict.unwrap_or(Verdict::Missing));
    audit.first = audit.members.iter().map(said).collect();
    audit.members = judges;
    audit.phase = Phase::Disputed;
    overlay.put(key::audit(at.0, at.1), &audit);
    Ok(())
}

fn audits_of(height: Height, overlay: &Overlay<'_>) -> Result<Vec<(Vec<u8>, Audit)>, StateError> {
    let found = overlay.scan(&key::audits_of(height), BLOCK_RECORDS_MAX)?;
    let parse = |(key, value): (Vec<u8>, Vec<u8>)| match entry::decode(&value) {
        Some(audit) => Ok((key, audit)),
        None => Err(StateError::Damaged { key }),
    };
    found.into_iter().map(parse).collect()
}

pub(super) fn back(height: Height, blocks: u64) -> Option<Height> {
    height.get().checked_sub(blocks).filter(|height| *height > 0).map(Height::new)
}
