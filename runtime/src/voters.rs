//! Who votes: validator sets by epoch, from verified work, bonds, genesis and presence.
//!
//! The set of epoch `e + 1` is computed in the first block of epoch `e`, from the epochs before, and named by the last
//! header of epoch `e`: it is known long before anybody votes by it.
//!
//! 1. A candidate's work is what was verified of its answers in the last `work_window_epochs`, at most what its bond and the fees
//!    destroyed for those answers back; and what it audited, at most what its bond backs.
//! 2. Genesis gave some nodes power to begin with. Together it counts as `base_work`, less all work under 1: as work is
//!    verified, it fades to nothing.
//! 3. Who let more turns to propose pass than it took is absent (one is free, and remembered until one is taken), and
//!    returns after 1, 2, 4 ... epochs; but nobody is sent away where fewer than four would stay, because three cannot do
//!    without any of them. Who contradicted itself is excluded for ever, and whom audits found to have lied for 2, 4, 8 ...
//!    epochs.
//! 4. The weights are scaled to [`POWER_TOTAL`], the strongest [`VALIDATORS_MAX`] stay, and at most `power_change_ppm` of
//!    all power changes hands from one epoch to the next.

use std::collections::BTreeMap;

use aria_chain::certificate::{Validator, ValidatorSet};
use aria_chain::error::CertificateError;
use aria_chain::ids::{Digest, NodeId};
use aria_chain::limits::VALIDATORS_MAX;
use aria_chain::units::{Epoch, Height, Round};

use crate::election::ProposerSchedule;
use crate::genesis::Genesis;
use crate::params::{PPM, Params};
use crate::state::{Candidate, Overlay, Reader, StateError, View, key};

/// Power of every set. Work is scaled to it, so that no sum of ours or of the consensus engine's comes near 64 bits.
pub const POWER_TOTAL: u64 = 1_000_000_000;

/// Turns that one block may record as missed: rounds beyond are a network that is down, not a proposer.
const MISSED_PER_BLOCK_MAX: u32 = 16;
/// Turns that anybody may miss in an epoch.
const MISSED_FREE: u32 = 1;
/// So many voters can do without one of them; fewer cannot, so absence sends nobody away below that.
const VOTERS_MIN: usize = 4;
/// Longest absence that follows from being absent once more, in epochs.
const ABSENCE_EPOCHS_MAX: u64 = 64;

/// Who votes at a height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voters {
    /// The set.
    pub set: ValidatorSet,
    /// First height of the epoch: the order of proposers begins there.
    pub first: Height,
}

impl Voters {
    /// Who votes on the block above a state's tip, which has this height.
    pub fn above(tip: Height, state: &dyn View, params: &Params) -> Result<Voters, StateError> {
        let height = tip.next().unwrap_or(tip);
        let reader = Reader(state);
        let set = if params.is_epoch_start(height) { reader.next_voters()? } else { reader.voters()? };
        Ok(Voters { set, first: params.epoch_start(height) })
    }

    /// The order in which they propose.
    pub fn schedule(&self) -> ProposerSchedule {
        ProposerSchedule::new(&self.set, self.first)
    }
}

/// Brings the sets to a height, before anything else of its block is executed. Returns who votes on the block, the hash of
/// the set above it, and the new set where one was computed.
pub(crate) fn turn(
    height: Height,
    genesis: &Genesis,
    overlay: &mut Overlay<'_>,
) -> Result<(Voters, Digest, Option<ValidatorSet>), StateError> {
    let params = genesis.params();
    let computed = if params.is_epoch_start(height) { Some(rotate(height, params, overlay)?) } else { None };
    let reader = overlay.read();
    let voters = Voters { set: reader.voters()?, first: params.epoch_start(height) };
    let above = height.next().unwrap_or(height);
    let next = if params.is_epoch_start(above) { reader.next_voters()?.hash() } else { voters.set.hash() };
    Ok((voters, next, computed))
}

/// Notes who let its turn pass before this block, and who took it.
pub(crate) fn attend(
    height: Height,
    round: Round,
    schedule: &ProposerSchedule,
    overlay: &mut Overlay<'_>,
) -> Result<(), StateError> {
    let missed = 0..round.get().min(MISSED_PER_BLOCK_MAX);
    for passed in missed {
        let node = schedule.proposer(height, Round::new(passed));
        change(&node, overlay, |candidate| candidate.missed = candidate.missed.saturating_add(1))?;
    }
    let node = schedule.proposer(height, round);
    change(&node, overlay, |candidate| candidate.taken = candidate.taken.saturating_add(1))
}

fn change(node: &NodeId, overlay: &mut Overlay<'_>, how: impl FnOnce(&mut Candidate)) -> Result<(), StateError> {
    if let Some(mut candidate) = overlay.read().candidate(node)? {
        how(&mut candidate);
        overlay.put(key::candidate(node), &candidate);
    }
    Ok(())
}

/// The first block of an epoch: its set votes, and the one of the next epoch is computed.
fn rotate(height: Height, params: &Params, overlay: &mut Overlay<'_>) -> Result<ValidatorSet, StateError> {
    let next_epoch = Epoch::new(params.epoch_of(height).get().saturating_add(1));
    let current = overlay.read().next_voters()?;
    let mut candidates = overlay.read().candidates()?;
    for (node, candidate) in &mut candidates {
        let before = *candidate;
        candidate.end_epoch(next_epoch);
        if *candidate != before {
            overlay.put(key::candidate(node), candidate);
        }
    }
    let weights = weights(&candidates, next_epoch, params, overlay)?;
    let next = match strongest(&weights) {
        Some(target) => limited(&current, &target, params.power_change_ppm),
        // Nobody may vote, and a chain needs somebody: those who do go on.
        None => current.clone(),
    };
    overlay.put(key::VOTERS.to_vec(), &current);
    overlay.put(key::NEXT_VOTERS.to_vec(), &next);
    Ok(next)
}

impl Candidate {
    /// Unless it contradicted itself, or an audit found against it lately.
    fn may_vote(&self, epoch: Epoch) -> bool {
        self.excluded.is_none() && self.barred <= epoch
    }

    /// Closes the account of its turns. `next` is the epoch that a set is computed for.
    fn end_epoch(&mut self, next: Epoch) {
        let (taken, missed) = (std::mem::take(&mut self.taken), std::mem::take(&mut self.missed));
        if missed > taken.max(MISSED_FREE) {
            let away = 1_u64.checked_shl(u32::from(self.strikes)).unwrap_or(u64::MAX).min(ABSENCE_EPOCHS_MAX);
            self.strikes = self.strikes.saturating_add(1);
            self.returns = Epoch::new(next.get().saturating_add(away));
        } else if taken > 0 {
            self.strikes = 0;
        } else {
            // Where voters are many, each has a turn an epoch or none: who takes none adds up what it misses.
            self.missed = missed;
        }
    }
}

/// Rules 1 to 3.
fn weights(
    candidates: &[(NodeId, Candidate)],
    epoch: Epoch,
    params: &Params,
    overlay: &Overlay<'_>,
) -> Result<BTreeMap<NodeId, u128>, StateError> {
    let mut work = BTreeMap::new();
    for (node, _) in candidates.iter().filter(|(_, candidate)| candidate.may_vote(epoch)) {
        work.insert(*node, backed_work(node, epoch, params, overlay)?);
    }
    let verified = work.values().fold(0_u128, |sum, work| sum.saturating_add(*work));
    let left = u128::from(params.base_work).saturating_sub(verified);
    let base = candidates.iter().fold(0_u128, |sum, (_, candidate)| sum.saturating_add(u128::from(candidate.base)));
    for (node, candidate) in candidates {
        if let Some(weight) = work.get_mut(node) {
            let share = u128::from(candidate.base).saturating_mul(left).checked_div(base).unwrap_or(0);
            *weight = weight.saturating_add(share);
        }
    }
    work.retain(|_, weight| *weight > 0);
    let mut absent: Vec<&(NodeId, Candidate)> =
        candidates.iter().filter(|(node, candidate)| candidate.returns > epoch && work.contains_key(node)).collect();
    absent.sort_by_key(|(node, candidate)| (std::cmp::Reverse((candidate.strikes, candidate.returns)), *node));
    for (node, _) in absent.into_iter().take(work.len().saturating_sub(VOTERS_MIN)) {
        work.remove(node);
    }
    Ok(work)
}

/// Rule 1. The epoch before `epoch` has just begun, so the window ends with the one before that.
fn backed_work(node: &NodeId, epoch: Epoch, params: &Params, overlay: &Overlay<'_>) -> Result<u128, StateError> {
    let reader = overlay.read();
    let bond = reader.account(node)?.unwrap_or_default().backing();
    let backed = u128::from(bond.get()).saturating_mul(u128::from(params.work_per_bond_nano));
    let (mut served, mut audited, mut burned) = (0_u128, 0_u128, 0_u128);
    for back in 2..=params.work_window_epochs.saturating_add(1) {
        let Some(past) = epoch.get().checked_sub(back) else { break };
        let work = reader.work(Epoch::new(past), node)?;
        served = served.saturating_add(u128::from(work.served.get()));
        audited = audited.saturating_add(u128::from(work.audited.get()));
        burned = burned.saturating_add(u128::from(work.burned.get()));
    }
    let paid = burned.saturating_mul(u128::from(params.work_per_bond_nano));
    Ok(served.min(backed.saturating_add(paid)).saturating_add(audited.min(backed)))
}

/// The strongest nodes, with all of the power among them. None: there is no weight.
fn strongest(weights: &BTreeMap<NodeId, u128>) -> Option<ValidatorSet> {
    let mut order: Vec<(NodeId, u128)> = weights.iter().map(|(node, weight)| (*node, *weight)).collect();
    order.sort_by_key(|(node, weight)| (std::cmp::Reverse(*weight), *node));
    order.truncate(VALIDATORS_MAX);
    scaled(&order).ok()
}

/// Scales weights to [`POWER_TOTAL`] exactly, by largest remainders; among equal ones the lower id gains.
pub(crate) fn scaled(weights: &[(NodeId, u128)]) -> Result<ValidatorSet, CertificateError> {
    // Far above any weight that can come about, and low enough for the product below.
    let weights = weights.iter().map(|(node, weight)| (*node, (*weight).min(u128::from(u64::MAX) << 16)));
    let weights: Vec<(NodeId, u128)> = weights.collect();
    let whole = weights.iter().fold(0_u128, |sum, (_, weight)| sum.saturating_add(*weight));
    let part = |weight: u128| {
        let product = weight.saturating_mul(u128::from(POWER_TOTAL));
        (product.checked_div(whole).unwrap_or(0), product.checked_rem(whole).unwrap_or(0))
    };
    let mut shares: Vec<(NodeId, u128, u128)> = weights
        .iter()
        .map(|(node, weight)| (*node, part(*weight)))
        .map(|(node, (power, remainder))| (node, power, remainder))
        .collect();
    let given = shares.iter().fold(0_u128, |sum, (_, power, _)| sum.saturating_add(*power));
    let left = usize::try_from(u128::from(POWER_TOTAL).saturating_sub(given)).unwrap_or(0);
    shares.sort_by_key(|(node, _, remainder)| (std::cmp::Reverse(*remainder), *node));
    for (_, power, _) in shares.iter_mut().take(left).filter(|(_, _, remainder)| *remainder > 0) {
        *power = power.saturating_add(1);
    }
    let member = |(node_id, power, _): (NodeId, u128, u128)| {
        let power = u64::try_from(power).unwrap_or(POWER_TOTAL);
        (power > 0).then_some(Validator { node_id, power })
    };
    ValidatorSet::new(shares.into_iter().filter_map(member).collect())
}

/// The way from one set to another, as far as one epoch may go.
fn limited(from: &ValidatorSet, to: &ValidatorSet, change_ppm: u32) -> ValidatorSet {
    let mut powers: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
    for member in from.members() {
        powers.entry(member.node_id).or_default().0 = member.power;
    }
    for member in to.members() {
        powers.entry(member.node_id).or_default().1 = member.power;
    }
    // Both sets have the same total, so what some lose is what others gain.
    let change = powers.values().fold(0_u64, |sum, (old, new)| sum.saturating_add(old.saturating_sub(*new)));
    let most = u128::from(POWER_TOTAL).saturating_mul(u128::from(change_ppm)).div_euclid(u128::from(PPM));
    if u128::from(change) <= most {
        return to.clone();
    }
    let step = |distance: u64| u128::from(distance).saturating_mul(most).checked_div(u128::from(change)).unwrap_or(0);
    let moved = powers.into_iter().map(|(node, (old, new))| {
        let gained = u128::from(old).saturating_add(step(new.saturating_sub(old)));
        (node, gained.saturating_sub(step(old.saturating_sub(new))))
    });
    strongest(&moved.collect()).unwrap_or_else(|| from.clone())
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "numbers of a test are small")]
mod tests;
