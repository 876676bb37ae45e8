//! How a record settles when its block includes it: what is credited to whom, and the traces it leaves in the totals.
//!
//! For now a record settles at inclusion or not at all: where the validator set has one member, that member vouches for
//! itself. With more members it awaits an audit.

use aria_chain::proof::VerifiedProof;
use aria_chain::record::{BackendClass, EnergySource, InferenceRecord, RecordStatus};
use aria_chain::units::{NanoAria, WorkUnits};

use crate::reward::{Effort, reward};
use crate::rules::record::{InclusionError, Place, RecordFault};
use crate::state::{Model, Overlay, key};
use crate::work::{counted_tokens, stage_share, work};

/// How a record leaves its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The validator set has one member, which vouches for itself: work and reward are credited, and the record says so.
    SelfAudited {
        /// Credited to the stages by layers.
        work: WorkUnits,
        /// Paid to the stages by layers.
        reward: NanoAria,
    },
    /// Provenance only, for now: nothing is credited.
    Included(Unsettled),
}

/// Why a record earned nothing at inclusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsettled {
    /// Not computed by canonical arithmetic: nobody can re-execute it.
    NotCanonical,
    /// Its model is not registered: nobody knows its work.
    ModelNotRegistered,
    /// Other validators have to audit it first.
    AwaitsAudit,
}

impl Settlement {
    /// The status that the chain shows.
    pub fn status(&self) -> RecordStatus {
        match self {
            Settlement::SelfAudited { .. } => RecordStatus::SelfAudited,
            Settlement::Included(_) => RecordStatus::Included,
        }
    }
}

/// Decides how a valid record settles at inclusion.
pub(super) fn decide(record: &InferenceRecord, model: Option<&Model>, place: Place<'_>) -> Settlement {
    match record.backend {
        BackendClass::Canonical => {}
        BackendClass::External | BackendClass::Simulation => {
            return Settlement::Included(Unsettled::NotCanonical);
        }
    }
    let Some(model) = model else {
        return Settlement::Included(Unsettled::ModelNotRegistered);
    };
    if !place.is_one_alone {
        return Settlement::Included(Unsettled::AwaitsAudit);
    }
    let params = place.params();
    let ops = model.shape.ops_per_token().expect("a registered shape was checked");
    let tokens = counted_tokens(record.prompt_tokens, record.tokens_generated, params.prompt_credit_ratio);
    let work = work(tokens, ops);
    let effort = Effort {
        tokens: u64::from(record.tokens_generated),
        first_token_ms: record.first_token_ms.get(),
        latency_ms: record.latency_ms.get(),
        energy_uj: record.energy_uj.get(),
        is_measured: record.energy_source == EnergySource::Measured,
        ops: work.get(),
    };
    Settlement::SelfAudited { work, reward: reward(&effort, params) }
}

/// Writes the record's effects: its request is counted, its stages are credited, the epoch's totals grow.
pub(super) fn write(
    proof: &VerifiedProof,
    settlement: Settlement,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), InclusionError> {
    let record = proof.record();
    overlay.put(key::request(proof.request().expiry, &proof.request_id()), &place.height);
    let mut totals = overlay.read().epoch_totals(place.epoch())?;
    totals.records = add(totals.records, 1)?;
    totals.prompt_tokens = add(totals.prompt_tokens, u64::from(record.prompt_tokens))?;
    totals.generated_tokens = add(totals.generated_tokens, u64::from(record.tokens_generated))?;
    totals.energy_uj = totals.energy_uj.checked_add(record.energy_uj)?;
    if let Settlement::SelfAudited { work, reward } = settlement {
        totals.settled = add(totals.settled, 1)?;
        totals.work = totals.work.checked_add(work)?;
        totals.rewards = totals.rewards.checked_add(reward)?;
        credit_stages(record, work, reward, place, overlay)?;
        issue(reward, overlay)?;
    }
    overlay.put(key::epoch(place.epoch()), &totals);
    Ok(())
}

fn credit_stages(
    record: &InferenceRecord,
    whole_work: WorkUnits,
    whole_reward: NanoAria,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), InclusionError> {
    for stage in &record.stages {
        let share = |whole: u64| stage_share(whole, stage.layer_start, stage.layer_end, record.layers());
        let work = WorkUnits::new(share(whole_work.get()));
        let reward = NanoAria::new(share(whole_reward.get()));
        let node = &stage.node_id;

        let done = overlay.read().work(place.epoch(), node)?.checked_add(work)?;
        overlay.put(key::work(place.epoch(), node), &done);

        let mut account = overlay.read().account(node)?.unwrap_or_default();
        account.balance = account.balance.checked_add(reward)?;
        account.rewards_total = account.rewards_total.checked_add(reward)?;
        overlay.put(key::account(node), &account);
    }
    Ok(())
}

/// Mints a reward. Genesis and issued amounts together fit 64 bits, hence every sum of balances does.
fn issue(reward: NanoAria, overlay: &mut Overlay<'_>) -> Result<(), InclusionError> {
    let mut supply = overlay.read().supply()?;
    supply.issued = supply.issued.checked_add(reward)?;
    supply.total()?;
    overlay.put(key::SUPPLY.to_vec(), &supply);
    Ok(())
}

fn add(a: u64, b: u64) -> Result<u64, RecordFault> {
    a.checked_add(b).ok_or(RecordFault::Overflow { quantity: "EpochTotals" })
}
