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
//!    Before that a member may challenge the provider to post what did not come: [`super::challenge`].
//! 5. A record that was not drawn is accepted when the time is over.
//! 6. Who was drawn for a record that others could judge, and said nothing of it, loses what it would have been paid.

use aria_chain::attestation::{Attestation, Opening, Statement, Verdict, VerifiedAttestation};
use aria_chain::ids::{Digest, NodeId, RecordId};
use aria_chain::limits::BLOCK_RECORDS_MAX;
use aria_chain::proof::VerifiedProof;
use aria_chain::record::RecordStatus;
use aria_chain::units::Height;

use self::draw::is_own;
use self::ends::pay;
use super::challenge;
use super::doubt;
use super::record::Place;
use super::settle::Earned;
use crate::params::Params;
use crate::state::{Audit, Member, Overlay, Phase, StateError, View, entry, key};

mod draw;
mod ends;

pub(crate) use self::draw::draw;
pub(super) use self::draw::judges;
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
    let record = proof.record();
    let audit = Audit {
        record: proof.record_id(),
        requester: proof.request().requester,
        stages: record.stages.clone(),
        earned,
        tokens: u64::from(record.prompt_tokens).saturating_add(u64::from(record.tokens_generated)),
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
    for (at, audit) in challenge::expire(place, overlay)? {
        ended.push(end(at, audit, (RecordStatus::Unavailable, true), place, overlay)?);
    }
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
    audit: Audit,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<Option<Ended>, StateError> {
    let status = match audit.phase {
        Phase::Waiting | Phase::Passed => RecordStatus::Accepted,
        Phase::Drawn => {
            let found = of_committee(&audit);
            if found.is_none()
                && let Some(judges) = judges_beyond(&audit, overlay)?
            {
                challenge::end(at, place, overlay)?;
                dispute(at, audit, judges, overlay)?;
                return Ok(None);
            }
            found.unwrap_or(RecordStatus::Unavailable)
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
    // A provider answers for what it withholds, not for auditors who say nothing.
    let is_withheld = count(&audit, Verdict::Missing) > audit.members.len().div_euclid(2);
    end(at, audit, (status, is_withheld), place, overlay).map(Some)
}

/// Ends an audit for good.
fn end(
    at: (Height, u32),
    mut audit: Audit,
    (status, is_withheld): (RecordStatus, bool),
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<Ended, StateError> {
    challenge::end(at, place, overlay)?;
    overlay.delete(key::audit(at.0, at.1));
    if status != RecordStatus::Verified {
        doubt::forget(at, overlay);
    }
    pay(&audit, (status, is_withheld), place, overlay)?;
    audit.outcome = Some((status, place.height));
    Ok((audit.record, status, audit))
}

/// Rule 3. None: its auditors contradict each other, or half of them and more said nothing.
fn of_committee(audit: &Audit) -> Option<RecordStatus> {
    let half = audit.members.len().div_euclid(2);
    match (count(audit, Verdict::Valid), count(audit, Verdict::Invalid)) {
        (valid, 0) if valid > half => Some(RecordStatus::Verified),
        (0, invalid) if invalid > half => Some(RecordStatus::Refuted),
        _ => None,
    }
}

/// Who decides where the committee did not. Where it only said nothing, that takes somebody who was not in it.
fn judges_beyond(audit: &Audit, overlay: &Overlay<'_>) -> Result<Option<Vec<Member>>, StateError> {
    let judges = judges(overlay, |node| is_own(audit, node))?;
    let is_committee = |judge: &Member| audit.members.iter().any(|member| member.node == judge.node);
    let is_needed = is_contradicted(audit) || !judges.iter().all(is_committee);
    Ok(is_needed.then_some(judges))
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
