//! Whether an auditor ran what it attested. A verdict alone can be guessed: almost every record is right. So an auditor opens, with
//! its secret, the root of its own run under that secret, which follows from nothing but a whole run.
//!
//! Whoever has run the record again with the opened secret and found another root may say so until three spans after the record,
//! and puts money on it. The strongest voters run it again with that secret, and commit and open like auditors; more than two thirds of
//! their power decide. A root that is not what the run gives costs its owner what a lie costs, and half of that is the doubter's; a
//! doubt without ground costs what it was backed with. If they do not decide, nobody gains and nobody loses.

use aria_chain::attestation::{Opening, Verdict};
use aria_chain::ids::{Digest, NodeId};
use aria_chain::limits::BLOCK_RECORDS_MAX;
use aria_chain::units::{Height, NanoAria};

use super::audit::{self, DRAW_AFTER, JUDGES_MAX, back, decided, judges};
use super::fee;
use super::record::Place;
use super::settle::Earned;
use super::transaction::{OrderError, TransactionFault, credit_balance};
use crate::params::Params;
use crate::reputation::Outcome;
use crate::state::{Audit, Doubt, Opened, OpenedRoot, Overlay, Phase, StateError, Supply, View, key};

/// Spans of an audit after which a root stands: nobody may doubt it any more.
const DOUBT_SPANS: u64 = 3;
/// Spans after which a doubt is over, and with it all that a record can bring.
pub const SPANS: u64 = 4;

/// What a doubt is backed with: what its judges are paid, if they find no ground for it.
pub fn deposit(params: &Params) -> NanoAria {
    NanoAria::new(judge_fee(params).get().saturating_mul(u64::from(JUDGES_MAX)))
}

/// What a judge of a doubt gets for a right verdict: as much as the auditors of the best paid answer.
fn judge_fee(params: &Params) -> NanoAria {
    fee::audit_fee(params.request_fee_max(), params)
}

/// Up to this height an auditor's root on a record of a block may be doubted.
pub fn doubted_until(record: Height, params: &Params) -> Height {
    let span = params.audit_blocks.saturating_mul(DOUBT_SPANS).saturating_add(DRAW_AFTER);
    Height::new(record.get().saturating_add(span))
}

/// Keeps what an auditor opened about a record that it found valid.
pub(super) fn note(
    audit: &Audit,
    at: (Height, u32),
    node: NodeId,
    opening: &Opening,
    overlay: &mut Overlay<'_>,
) -> Result<(), StateError> {
    if audit.phase != Phase::Drawn || opening.verdict != Verdict::Valid {
        return Ok(());
    }
    let mut opened =
        overlay.read().opened(at.0, at.1)?.unwrap_or_else(|| Opened { record: audit.record, roots: Vec::new() });
    opened.roots.push(OpenedRoot { node, secret: opening.secret, root: opening.root });
    overlay.put(key::opened(at.0, at.1), &opened);
    Ok(())
}

/// Forgets the roots of a record that nobody found right, and those that stand by now.
pub(super) fn forget(at: (Height, u32), overlay: &mut Overlay<'_>) {
    overlay.delete(key::opened(at.0, at.1));
}

/// What is too old to be doubted is forgotten.
pub(super) fn expire(place: Place<'_>, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    let behind = place.params().audit_blocks.saturating_mul(DOUBT_SPANS).saturating_add(DRAW_AFTER).saturating_add(1);
    let Some(height) = back(place.height, behind) else { return Ok(()) };
    for (entry, _) in overlay.scan(&key::opened_of(height), BLOCK_RECORDS_MAX)? {
        overlay.delete(entry);
    }
    Ok(())
}

/// Begins a doubt.
pub(super) fn raise(
    doubter: &NodeId,
    (height, index): (Height, u32),
    auditor: &NodeId,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), OrderError> {
    let nothing = TransactionFault::NothingToDoubt { auditor: *auditor, height, index };
    let last = doubted_until(height, place.params());
    if place.height > last {
        return Err(TransactionFault::DoubtTooLate { height, last }.into());
    }
    if overlay.read().audit(height, index)?.is_some() {
        return Err(TransactionFault::DoubtTooEarly { height, index }.into());
    }
    let mut opened = overlay.read().opened(height, index)?.ok_or(nothing.clone())?;
    let at = opened.roots.iter().position(|root| root.node == *auditor).ok_or(nothing)?;
    let accused = opened.roots.swap_remove(at);
    let members = judges(overlay, |node| *node == accused.node)?;
    let deposit = deposit(place.params());
    if !fee::hold(doubter, deposit, overlay)? {
        let balance = overlay.read().account(doubter)?.unwrap_or_default().balance;
        return Err(TransactionFault::BalanceTooLow { balance, needed: deposit }.into());
    }
    let audit = Audit {
        record: opened.record,
        requester: *doubter,
        stages: Vec::new(),
        earned: Earned { audit_fee: judge_fee(place.params()), ..Earned::default() },
        tokens: 0,
        seed: Digest::ZERO,
        phase: Phase::Doubted,
        members,
        first: Vec::new(),
        outcome: None,
    };
    overlay.put(key::opened(height, index), &opened);
    overlay.put(key::audit(height, index), &audit);
    overlay.put(key::doubt(height, index), &Doubt { by: *doubter, deposit, accused });
    Ok(())
}

/// Ends a doubt: what the judges found is what it means.
pub(super) fn settle(
    at: (Height, u32),
    audit: &Audit,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), StateError> {
    let entry = key::doubt(at.0, at.1);
    let Some(doubt) = overlay.read().doubt(at.0, at.1)? else { return Err(StateError::Damaged { key: entry }) };
    overlay.delete(entry);
    let found = decided(audit);
    let Some(truth) = found else { return fee::give_back(&doubt.by, doubt.deposit, overlay) };
    let lost = if truth == Verdict::Invalid {
        fee::give_back(&doubt.by, doubt.deposit, overlay)?;
        expose(&doubt.accused.node, &doubt.by, place, overlay)?
    } else {
        fee::release(doubt.deposit, doubt.deposit, overlay)?;
        doubt.deposit
    };
    audit::pay_judges(audit, truth, lost, place, overlay)
}

/// Takes from an auditor what a lie costs. Half of it is minted to who showed what it did: half, so that nobody gains by accusing
/// itself. Returns the other half.
pub(super) fn expose(
    accused: &NodeId,
    by: &NodeId,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<NanoAria, StateError> {
    let lost = audit::punish(accused, place, overlay)?;
    audit::remember(accused, Outcome::Misjudged, overlay)?;
    let half = NanoAria::new(lost.get().div_euclid(2));
    mint(by, half, overlay)?;
    Ok(lost.minus_or_zero(half))
}

fn mint(node: &NodeId, amount: NanoAria, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    credit_balance(node, amount, overlay)?;
    fee::change(overlay, |supply| Ok(Supply { issued: supply.issued.checked_add(amount)?, ..supply }))
}
