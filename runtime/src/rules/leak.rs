//! Openings that got about before their time. The root of an opening follows from nothing but a whole run under its auditor's secret,
//! so an auditor that has a friend run a record in its place, or shares one run with others, tells that secret before it commits.
//! Whoever knows it may show it: the auditor loses what a lie costs, half of it is theirs, and its commitment is void.
//!
//! Who keeps its secret until block `b` may open cannot be hit. Let an honest node tell its opening when block `t` is the last final
//! one that it knows: it does so only if block `t + 1` takes openings ([`takes_openings`]). Blocks up to `t` were decided before; a leak
//! there could not name the secret. Let a leak be in a later block `b`:
//!
//! - Transactions come before the attestations of their block. What comes before transactions binds nobody; where it ends a phase,
//!   nobody is bound in the next one yet. So the leak is judged by the commitments after block `b - 1` and the height `b`: by the
//!   condition under which block `b` takes openings.
//! - While a phase lasts that condition, once true, stays true: commitments are added, heights grow, and a leak, which takes a
//!   commitment away, is not valid any more. So it is true in block `b`, and the leak is invalid.
//! - In a later phase, who is drawn again commits again, under another secret, which follows from none that it opened.
//!
//! The accused leaves the committee: nothing waits for its opening, it is not fined for silence too, and it has no voice. Others decide
//! with more than half of those who are left, never with nobody: where all were bound, nothing could leak. That moves a verdict away from
//! who colludes with the accused, and so nobody gains a verdict by accusing a friend. What the accused opened as an auditor, before a
//! dispute in which it leaks, stands: else a liar could take its lie back for half the price.

use aria_chain::attestation::Opening;
use aria_chain::ids::NodeId;
use aria_chain::units::Height;

use super::audit::takes_openings;
use super::doubt;
use super::record::Place;
use super::transaction::{OrderError, TransactionFault};
use crate::state::{Overlay, key};

/// Shows what an auditor committed to. Who has opened is past that: openings are taken by then.
pub(super) fn show(
    by: &NodeId,
    (height, index): (Height, u32),
    (auditor, opening): (&NodeId, &Opening),
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), OrderError> {
    let nothing = TransactionFault::NothingToLeak { auditor: *auditor, height, index };
    let mut audit = overlay.read().audit(height, index)?.ok_or(nothing.clone())?;
    let is_bound = audit.members.iter().position(|member| member.node == *auditor && member.commitment.is_some());
    let at = is_bound.ok_or(nothing)?;
    if takes_openings(&audit, height, place.height, place.params()) {
        return Err(TransactionFault::LeakTooLate { height, index }.into());
    }
    let accused = audit.members.remove(at);
    if accused.commitment != Some(opening.commitment(place.genesis.chain_id(), auditor, &audit.record)) {
        return Err(TransactionFault::OtherCommitment { auditor: *auditor, height, index }.into());
    }
    overlay.put(key::audit(height, index), &audit);
    doubt::expose(auditor, by, place, overlay)?;
    Ok(())
}
