//! What requesters, doubters and challengers put down: held while it is open what becomes of it, then given back, or spent.
//!
//! A request's fee pays for its audit, since five auditors spend more than one provider; a part is destroyed, and a little is the
//! stages'. Its requester has all of it back where the answer was false, or nobody could check it. On a network of several, what is
//! minted for an answer is less than what its fee destroys: whoever asks, answers and audits, all of them together never gain by
//! asking themselves.

use aria_chain::ids::NodeId;
use aria_chain::units::{NanoAria, Overflow};

use super::settle::Earned;
use super::transaction::credit_balance;
use crate::fixed::part;
use crate::params::Params;
use crate::state::{Overlay, StateError, Supply, key};

/// Least fee of a transaction that takes so many places of a block.
pub fn least(places: usize, params: &Params) -> NanoAria {
    NanoAria::new(params.fee_min_nano.saturating_mul(u64::try_from(places).unwrap_or(u64::MAX)))
}

/// The part of a fee that nobody gets.
pub fn burned(fee: NanoAria, params: &Params) -> NanoAria {
    NanoAria::new(part(fee.get(), params.fee_burn_ppm))
}

/// Most that is minted for an answer that others check.
pub fn mint_max(fee: NanoAria, params: &Params) -> NanoAria {
    NanoAria::new(part(burned(fee, params).get(), params.mint_of_burn_ppm))
}

/// What each auditor gets for a right verdict, and loses where it is drawn and says nothing.
pub fn audit_fee(fee: NanoAria, params: &Params) -> NanoAria {
    let left = fee.minus_or_zero(burned(fee, params));
    let audits = part(left.get(), params.audit_share_ppm);
    // `Params::check` sees to it that a committee has members.
    NanoAria::new(audits.checked_div(u64::from(params.committee_size)).unwrap_or(0))
}

/// What the stages of an answer of full quality and usual energy get for it.
pub fn could_earn(fee: NanoAria, is_audited: bool, params: &Params) -> NanoAria {
    let whole = Earned { reward: NanoAria::new(params.base_rate_nano), fee, ..Earned::default() };
    let earned = if is_audited { whole.if_found_right(params) } else { whole.at_once(params) };
    NanoAria::new(earned.reward.get().saturating_add(earned.kept.get()))
}

impl Earned {
    /// Where others have to check: the fee is their auditors' for the most part, and no more is minted than
    /// [`Params::mint_of_burn_ppm`] of what it destroys, because the requester chose the provider.
    pub(super) fn if_found_right(self, params: &Params) -> Earned {
        let left = self.fee.minus_or_zero(burned(self.fee, params));
        let kept = left.minus_or_zero(NanoAria::new(part(left.get(), params.audit_share_ppm)));
        let reward = self.reward.min(mint_max(self.fee, params));
        Earned { reward, kept, audit_fee: audit_fee(self.fee, params), ..self }
    }

    /// Where nobody else checks: what is not destroyed is the stages'.
    pub(super) fn at_once(self, params: &Params) -> Earned {
        Earned { kept: self.fee.minus_or_zero(burned(self.fee, params)), audit_fee: NanoAria::ZERO, ..self }
    }
}

/// Takes an amount out of a balance until it is open no more what becomes of it. False: there is less, and nothing happened.
pub(super) fn hold(node: &NodeId, amount: NanoAria, overlay: &mut Overlay<'_>) -> Result<bool, StateError> {
    if amount == NanoAria::ZERO {
        return Ok(true);
    }
    let mut account = overlay.read().account(node)?.unwrap_or_default();
    let Ok(rest) = account.balance.checked_sub(amount) else { return Ok(false) };
    account.balance = rest;
    overlay.put(key::account(node), &account);
    change(overlay, |supply| Ok(Supply { held: supply.held.checked_add(amount)?, ..supply }))?;
    Ok(true)
}

/// Gives back what was held.
pub(super) fn give_back(node: &NodeId, amount: NanoAria, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    if amount == NanoAria::ZERO {
        return Ok(());
    }
    release(amount, NanoAria::ZERO, overlay)?;
    credit_balance(node, amount, overlay)
}

/// Ends the holding of an amount, of which a part is destroyed. The rest is the caller's to give.
pub(super) fn release(amount: NanoAria, burned: NanoAria, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    change(overlay, |supply| {
        let (held, burned) = (supply.held.checked_sub(amount)?, supply.burned.checked_add(burned)?);
        Ok(Supply { held, burned, ..supply })
    })
}

/// Changes what exists. What is held or burned was in a balance or a bond before, what is given back was burned before, and all of it
/// together is in the supply.
pub(super) fn change(
    overlay: &mut Overlay<'_>,
    how: impl FnOnce(Supply) -> Result<Supply, Overflow>,
) -> Result<(), StateError> {
    let supply = how(overlay.read().supply()?).map_err(|_| StateError::Damaged { key: key::SUPPLY.to_vec() })?;
    overlay.put(key::SUPPLY.to_vec(), &supply);
    Ok(())
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "numbers of a test are small")]
mod tests {
    use super::*;
    use crate::params::tests::params;

    /// For a fee, in thousandths of a base rate: what the best answer is minted, and what its provider and each auditor get of it.
    #[track_caller]
    fn check(fee: u64, reward: u64, kept: u64, auditor: u64) {
        let nano = |thousandths: u64| NanoAria::new(thousandths * 1_000);
        let best = Earned { reward: nano(2_000), fee: nano(fee), ..Earned::default() };
        let earned = best.if_found_right(&params());
        assert_eq!((earned.reward, earned.kept, earned.audit_fee), (nano(reward), nano(kept), nano(auditor)));
        assert!(fee == 0 || earned.reward < burned(nano(fee), &params()));
        assert_eq!(best.at_once(&params()).kept, nano(fee / 2));
    }

    #[test]
    fn a_fee_pays_auditors_and_destroys_more_than_is_minted() {
        check(0, 0, 0, 0);
        check(1_000, 450, 50, 90);
        check(4_000, 1_800, 200, 360);
        check(10_000, 2_000, 500, 900);
    }
}
