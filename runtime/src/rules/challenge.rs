//! A payload that does not come, asked for on the chain. Whoever was drawn for a record and has not committed may challenge its
//! provider, once for a record, as long as the committee has half of its time left when the answer is in. The provider posts what an
//! audit needs, in parts, sealed to those who were drawn, within [`Params::challenge_blocks`].
//!
//! - All parts are there: the challenge is answered, and the audit goes on. What was posted is no better than what comes over the wire:
//!   auditors look whether it belongs to the record, and say that it is missing if it does not.
//! - They are not, and nobody of the committee has committed: nobody has it, and the record is unavailable at once. Its requester has its
//!   fee back, and its provider is blamed, because the chain itself has seen that nothing came.
//! - They are not, but somebody has committed: it may have the payload, and gives it to the others. So nothing follows but that the
//!   audit goes on. Otherwise a provider that is being found out would have a friend in the committee challenge it, and stay silent: an
//!   unavailable record costs less than a refuted one. And a friend of its enemies could take away its pay while it is offline.
//!
//! **Who pays for the room in blocks.** The challenger holds a deposit: the least fees of the most parts that the record can take.
//! Each part is paid from it, at the least fee, and all of that is destroyed; the rest comes back. So
//!
//! - who is challenged needs no money to answer, and loses none by it;
//! - who challenges without need pays for every byte, and nobody gets it: neither a provider, which would gain by keeping still on the
//!   wire until it is challenged, nor a proposer, who may be one of the two;
//! - a provider that posts some parts and not all pays them itself, from its bond, to who challenged it in vain.
//!
//! Room is sure: the parts of all open challenges take at most half of the places of the blocks that one lasts. So nobody makes a
//! provider fail by challenging more of its records than blocks can hold.

use aria_chain::ids::NodeId;
use aria_chain::keys::SEAL_BYTES_MAX;
use aria_chain::limits::{
    BLOCK_TRANSACTIONS_MAX, DELIVERY_PART_BYTES_MAX, DELIVERY_PARTS_MAX, PAYLOAD_OPTIONS_BYTES_MAX,
    SEAL_RECIPIENTS_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_PLACE_BYTES,
};
use aria_chain::units::{Height, NanoAria, Overflow};

use super::audit::DRAW_AFTER;
use super::fee;
use super::record::Place;
use super::transaction::{OrderError, TransactionFault, credit_balance};
use crate::params::{COMMITTEE_MAX, Params};
use crate::state::{Audit, Challenge, Overlay, Phase, RecordPlace, StateError, View, key};

/// Places that the longest part takes in a block.
const PART_PLACES: usize = TRANSACTION_BYTES_MAX.div_ceil(TRANSACTION_PLACE_BYTES);
/// Bytes of a token's id.
const TOKEN_BYTES: u64 = 4;

const _: () = assert!(COMMITTEE_MAX as usize <= SEAL_RECIPIENTS_MAX, "a payload can be sealed to a whole committee");
const _: () = assert!(DELIVERY_PARTS_MAX as u32 <= u64::BITS, "each part has a bit");

/// Most parts in which what is behind a record of so many tokens comes. None: it is too long to be posted for sure.
pub fn parts_max(tokens: u64, params: &Params) -> Option<u8> {
    let other = u64::try_from(PAYLOAD_OPTIONS_BYTES_MAX.saturating_add(SEAL_BYTES_MAX)).ok()?;
    let bytes = tokens.checked_mul(TOKEN_BYTES)?.checked_add(other)?;
    let parts = u8::try_from(bytes.div_ceil(u64::try_from(DELIVERY_PART_BYTES_MAX).ok()?)).ok()?;
    (parts <= DELIVERY_PARTS_MAX && usize::from(parts) <= room(params)).then_some(parts)
}

/// Parts for which there is room in half of the places of the blocks that a challenge lasts. All that are open fit it together, and each
/// can be answered to the end.
pub fn room(params: &Params) -> usize {
    let places = usize::try_from(params.transactions_per_block_max).unwrap_or(usize::MAX);
    let blocks = usize::try_from(params.challenge_blocks).unwrap_or(usize::MAX);
    places.div_euclid(PART_PLACES).saturating_mul(blocks).div_ceil(2)
}

/// What a challenge about a record of so many tokens is backed with: the least fees of all that its provider may post. None: it cannot
/// be challenged.
pub fn deposit(tokens: u64, params: &Params) -> Option<NanoAria> {
    let places = usize::from(parts_max(tokens, params)?).saturating_mul(PART_PLACES);
    Some(fee::least(places, params))
}

/// The last block in which a record of a block can be challenged. None: no block is early enough.
pub fn challenged_until(record: Height, params: &Params) -> Option<Height> {
    let half = params.audit_blocks.div_euclid(2).saturating_add(DRAW_AFTER);
    Some(Height::new(record.get().saturating_add(half.checked_sub(params.challenge_blocks)?)))
}

/// Begins a challenge.
pub(super) fn raise(
    by: &NodeId,
    (height, index): RecordPlace,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), OrderError> {
    let audit = overlay.read().audit(height, index)?.filter(|audit| audit.phase == Phase::Drawn);
    let audit = audit.ok_or(TransactionFault::NothingToChallenge { height, index })?;
    let member = audit.members.iter().find(|member| member.node == *by);
    let member = member.ok_or(TransactionFault::ChallengeNotDrawn { height, index })?;
    if member.commitment.is_some() {
        return Err(TransactionFault::ChallengeCommitted { height, index }.into());
    }
    if overlay.read().challenge(height, index)?.is_some() {
        return Err(TransactionFault::ChallengedBefore { height, index }.into());
    }
    let params = place.params();
    let last = challenged_until(height, params).filter(|last| place.height <= *last);
    if last.is_none() {
        return Err(TransactionFault::ChallengeTooLate { height, index }.into());
    }
    let tokens = audit.tokens;
    let bounds = parts_max(tokens, params).zip(deposit(tokens, params));
    let (parts_max, deposit) = bounds.ok_or(TransactionFault::PayloadTooLong { tokens })?;
    let room = room(params);
    if promised(room, overlay)?.saturating_add(parts_max.into()) > room {
        return Err(TransactionFault::ChallengesFull { parts: parts_max, room }.into());
    }
    if !fee::hold(by, deposit, overlay)? {
        let balance = overlay.read().account(by)?.unwrap_or_default().balance;
        return Err(TransactionFault::BalanceTooLow { balance, needed: deposit }.into());
    }
    let until = place.height.plus(params.challenge_blocks)?;
    let readers = audit.members.iter().map(|member| member.node).collect();
    let challenge =
        Challenge { by: *by, deposit, spent: NanoAria::ZERO, until, readers, parts_max, parts: 0, delivered: 0 };
    overlay.put(key::challenge(height, index), &challenge);
    overlay.put(key::challenge_due(until, height, index), &());
    Ok(())
}

/// Parts that open challenges may bring yet, all together. None of them was let in beyond the room.
fn promised(room: usize, overlay: &Overlay<'_>) -> Result<usize, StateError> {
    let mut parts = 0_usize;
    for (height, index) in overlay.read().open_challenges(room)? {
        let damaged = || StateError::Damaged { key: key::challenge(height, index) };
        let open = overlay.read().challenge(height, index)?.ok_or_else(damaged)?;
        parts = parts.saturating_add(open.parts_max.into());
    }
    Ok(parts)
}

/// A part of what is behind a record.
pub(super) struct Part<'a> {
    /// Which, of how many.
    pub(super) number: (u8, u8),
    /// Its bytes.
    pub(super) sealed: &'a Vec<u8>,
    /// The least fee of the transaction that brings it.
    pub(super) fee: NanoAria,
}

/// Takes a part, and its fee from the deposit.
pub(super) fn deliver(
    by: &NodeId,
    at: RecordPlace,
    part: &Part<'_>,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), OrderError> {
    let ((height, index), (part_number, parts)) = (at, part.number);
    let nothing = TransactionFault::NothingToDeliver { height, index };
    let challenge = overlay.read().challenge(height, index)?;
    let mut challenge = challenge.filter(|challenge| challenge.stands(place.height)).ok_or(nothing.clone())?;
    let audit = overlay.read().audit(height, index)?.ok_or(nothing)?;
    if audit.stages.first().is_none_or(|stage| stage.node_id != *by) {
        return Err(TransactionFault::DeliveredByOther { height, index }.into());
    }
    if parts > challenge.parts_max {
        return Err(TransactionFault::TooManyParts { parts, max: challenge.parts_max }.into());
    }
    if challenge.parts != 0 && challenge.parts != parts {
        return Err(TransactionFault::OtherParts { parts, expected: challenge.parts }.into());
    }
    if challenge.has(part_number) {
        return Err(TransactionFault::DeliveredBefore { part: part_number }.into());
    }
    challenge.parts = parts;
    challenge.take(part_number);
    // The deposit is the least fees of the most parts, each as long as there can be.
    let damaged = |_: Overflow| StateError::Damaged { key: key::challenge(height, index) };
    challenge.spent = challenge.spent.checked_add(part.fee).map_err(damaged)?;
    fee::release(part.fee, part.fee, overlay)?;
    overlay.put(key::delivered(height, index, part_number), part.sealed);
    if challenge.is_answered() {
        fee::give_back(&challenge.by, challenge.left(), overlay)?;
        overlay.delete(key::challenge_due(challenge.until, height, index));
    }
    overlay.put(key::challenge(height, index), &challenge);
    Ok(())
}

/// Challenges that nobody answered in time; those of them whose records are unavailable are returned.
pub(super) fn expire(place: Place<'_>, overlay: &mut Overlay<'_>) -> Result<Vec<(RecordPlace, Audit)>, StateError> {
    let Some(until) = place.height.previous() else { return Ok(Vec::new()) };
    let mut withheld = Vec::new();
    for (entry, _) in overlay.scan(&key::challenges_due(until), BLOCK_TRANSACTIONS_MAX)? {
        let damaged = || StateError::Damaged { key: entry.clone() };
        let at = key::place_of_due(&entry).ok_or_else(damaged)?;
        let challenge = overlay.read().challenge(at.0, at.1)?.ok_or_else(damaged)?;
        // The entries of an audit go when it ends.
        let audit = overlay.read().audit(at.0, at.1)?.ok_or_else(damaged)?;
        overlay.delete(entry);
        fee::give_back(&challenge.by, challenge.left(), overlay)?;
        if let Some(provider) = audit.stages.first() {
            make_good(&provider.node_id, &challenge, overlay)?;
        }
        forget_parts(at, &challenge, overlay);
        if audit.members.iter().all(|member| member.commitment.is_none()) {
            withheld.push((at, audit));
        }
    }
    Ok(withheld)
}

/// Gives a challenger from the provider's bond what went for parts that are of no use.
fn make_good(provider: &NodeId, challenge: &Challenge, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    let mut account = overlay.read().account(provider)?.unwrap_or_default();
    let paid = challenge.spent.min(account.bond);
    if paid == NanoAria::ZERO {
        return Ok(());
    }
    account.bond = account.bond.minus_or_zero(paid);
    overlay.put(key::account(provider), &account);
    credit_balance(&challenge.by, paid, overlay)
}

/// Forgets a challenge with its audit. What is left of an open one goes back.
pub(super) fn end((height, index): RecordPlace, place: Place<'_>, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    let Some(challenge) = overlay.read().challenge(height, index)? else { return Ok(()) };
    if challenge.stands(place.height) {
        fee::give_back(&challenge.by, challenge.left(), overlay)?;
        overlay.delete(key::challenge_due(challenge.until, height, index));
    }
    forget_parts((height, index), &challenge, overlay);
    overlay.delete(key::challenge(height, index));
    Ok(())
}

fn forget_parts((height, index): RecordPlace, challenge: &Challenge, overlay: &mut Overlay<'_>) {
    let there = (0..challenge.parts).filter(|part| challenge.has(*part));
    there.for_each(|part| overlay.delete(key::delivered(height, index, part)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::tests::params;

    #[test]
    fn what_can_be_posted_for_sure_can_be_challenged() {
        let parts = |tokens| parts_max(tokens, &params());
        assert_eq!([0, 4_096, 8_192, 32_768, 33_500].map(parts), [Some(3), Some(8), Some(12), Some(40), Some(40)]);
        assert_eq!([33_600, u64::MAX].map(parts), [None; 2]);
        // Twelve places of a hundred thousand for each.
        assert_eq!(deposit(0, &params()), Some(NanoAria::new(3_600_000)));
        assert_eq!(deposit(32_768, &params()), Some(NanoAria::new(48_000_000)));
        assert_eq!(deposit(33_600, &params()), None);
        // Twenty-one parts in a block; four blocks, of which they may fill half.
        let short = Params { challenge_blocks: 3, ..params() };
        assert_eq!([22_000, 32_768].map(|tokens| parts_max(tokens, &short)), [Some(28), None]);
        let narrow = Params { transactions_per_block_max: 11, ..params() };
        assert_eq!(parts_max(0, &narrow), None, "no part fits a block");
    }

    #[test]
    fn the_committee_keeps_half_of_its_time() {
        let until = |params: &Params| challenged_until(Height::new(100), params);
        assert_eq!(until(&params()), Some(Height::new(100 + 2 + 32 - 16)));
        let tight = Params { audit_blocks: 1, challenge_blocks: 1, ..params() };
        assert_eq!(until(&tight), Some(Height::new(101)), "before anybody is drawn");
        assert_eq!(until(&Params { audit_blocks: 1, challenge_blocks: 3, ..params() }), None);
    }
}
