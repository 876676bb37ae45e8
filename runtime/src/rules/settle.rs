//! How a record settles when its block includes it: what is credited to whom, and the traces it leaves in the totals.
//!
//! Where the validator set has one member, that member vouches for itself and the record settles at inclusion. With more
//! members it waits for an audit: [`super::audit`].

use aria_chain::ids::NodeId;
use aria_chain::proof::VerifiedProof;
use aria_chain::record::{BackendClass, InferenceRecord, RecordStatus, Stage};
use aria_chain::request::AuditMode;
use aria_chain::units::{Microjoules, NanoAria, WorkUnits};

use crate::fixed::part;
use crate::params::Params;
use crate::reward::{Effort, counted_energy_uj, reward};
use crate::rules::record::{InclusionError, Place, RecordFault};
use crate::rules::sobriety;
use crate::state::{Model, Overlay, Sobriety, StateError, key};
use crate::work::stage_share;

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
    /// Other validators have to audit it first. This is what it would earn.
    Awaiting(Earned),
    /// Provenance only: nothing is ever credited.
    Included(Unsettled),
}

/// What a record earns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earned {
    /// Credited to the stages by layers.
    pub work: WorkUnits,
    /// Paid to the stages by layers.
    pub reward: NanoAria,
}

/// Why a record earned nothing at inclusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsettled {
    /// Not computed by canonical arithmetic: nobody can re-execute it.
    NotCanonical,
    /// Its model is not registered: nobody knows its work.
    ModelNotRegistered,
    /// Its requester wants nobody to see its tokens, so nobody can check them.
    Private,
    /// One of its nodes has less of a bond than it could lose by a false answer.
    NotBonded,
}

impl Settlement {
    /// The status that the chain shows.
    pub fn status(&self) -> RecordStatus {
        match self {
            Settlement::SelfAudited { .. } => RecordStatus::SelfAudited,
            Settlement::Awaiting(_) | Settlement::Included(_) => RecordStatus::Included,
        }
    }
}

/// Decides how a valid record settles at inclusion.
pub(super) fn decide(
    proof: &VerifiedProof,
    model: Option<&Model>,
    place: Place<'_>,
    overlay: &Overlay<'_>,
) -> Result<Settlement, StateError> {
    let record = proof.record();
    if proof.request().audit == AuditMode::None {
        return Ok(Settlement::Included(Unsettled::Private));
    }
    match record.backend {
        BackendClass::Canonical => {}
        BackendClass::External | BackendClass::Simulation => {
            return Ok(Settlement::Included(Unsettled::NotCanonical));
        }
    }
    let Some(model) = model else {
        return Ok(Settlement::Included(Unsettled::ModelNotRegistered));
    };
    let params = place.params();
    let ops = model.shape.ops_per_token().expect("a registered shape was checked");
    let effort = sobriety::believed(Effort::of(record, ops, params), record, place, overlay)?;
    let (work, reward) = (WorkUnits::new(effort.ops), reward(&effort, params));
    if place.is_one_alone {
        return Ok(Settlement::SelfAudited { work, reward });
    }
    Ok(Settlement::Awaiting(Earned { work, reward }))
}

/// Whether each node of a record has enough of a bond to lose.
pub(super) fn is_bonded(record: &InferenceRecord, place: Place<'_>, overlay: &Overlay<'_>) -> Result<bool, StateError> {
    for stage in &record.stages {
        let bond = overlay.read().account(&stage.node_id)?.unwrap_or_default().backing();
        if bond < NanoAria::new(place.params().provider_bond_min_nano) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the record's effects: its request is counted, its stages are credited, the epoch's totals grow.
pub(super) fn write(
    proof: &VerifiedProof,
    settlement: Settlement,
    model: Option<&Model>,
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
    spend(record, (model, settlement), &mut totals.sobriety, place, overlay)?;
    overlay.put(key::epoch(place.epoch()), &totals);
    if let Settlement::SelfAudited { work, reward } = settlement {
        credit(&record.stages, Earned { work, reward }, &[], true, place, overlay)?;
    }
    Ok(())
}

/// Counts what an answer took, for all and for each node that ran a stage of it.
fn spend(
    record: &InferenceRecord,
    (model, settlement): (Option<&Model>, Settlement),
    all: &mut Sobriety,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), InclusionError> {
    let ops = model.map_or(0, |model| model.shape.ops_per_token().expect("a registered shape was checked"));
    let effort = Effort::of(record, ops, place.params());
    let Some(energy_uj) = counted_energy_uj(&effort, place.params()) else {
        return Ok(());
    };
    let count = |sobriety: &mut Sobriety, tokens: u64, energy_uj: u64| -> Result<(), InclusionError> {
        let spent = if effort.is_measured { &mut sobriety.measured } else { &mut sobriety.estimated };
        spent.tokens = add(spent.tokens, tokens)?;
        spent.energy_uj = spent.energy_uj.checked_add(Microjoules::new(energy_uj))?;
        Ok(())
    };
    count(all, effort.tokens, energy_uj.get())?;
    let layers = record.stages.last().map_or(0, |stage| stage.layer_end);
    for stage in &record.stages {
        let share = |whole: u64| stage_share(whole, stage.layer_start, stage.layer_end, layers);
        let mut own = overlay.read().sobriety(place.epoch(), &stage.node_id)?;
        let (tokens, energy_uj) = (share(effort.tokens), share(energy_uj.get()));
        count(&mut own, tokens, energy_uj)?;
        // Nodes are compared by what they put a bond on: what nobody checks would let strangers move the median for nothing.
        if effort.is_measured && matches!(settlement, Settlement::Awaiting(_)) {
            sobriety::count((&record.model_id, &stage.node_id), (tokens, energy_uj), place, overlay)?;
        }
        overlay.put(key::sobriety(place.epoch(), &stage.node_id), &own);
    }
    Ok(())
}

/// What an auditor gets for a right verdict, and loses where it is drawn and says nothing. It does not depend on what the record
/// is paid: a slow answer, and a false one, take as much to check.
pub fn audit_fee(params: &Params) -> NanoAria {
    NanoAria::new(part(params.base_rate_nano, params.audit_fee_ppm))
}

/// Credits what a record earned to those who ran it, if they earned it, and what its audit earned to those who were right.
pub(super) fn credit(
    stages: &[Stage],
    earned: Earned,
    auditors: &[NodeId],
    is_earned: bool,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), InclusionError> {
    let params = place.params();
    let (mut work, mut paid) = (WorkUnits::ZERO, NanoAria::ZERO);
    let mut give = |node: &NodeId, (done, reward): (u64, u64), overlay: &mut Overlay<'_>| {
        let (done, reward) = (WorkUnits::new(done), NanoAria::new(reward));
        work = work.checked_add(done)?;
        paid = paid.checked_add(reward)?;
        credit_node(node, done, reward, place, overlay)
    };
    let each_fee = audit_fee(params).get();
    let each_work = part(earned.work.get(), params.audit_work_ppm);
    for auditor in auditors {
        give(auditor, (each_work, each_fee), overlay)?;
    }
    if is_earned {
        let layers = stages.last().map_or(0, |stage| stage.layer_end);
        for stage in stages {
            let share = |whole: u64| stage_share(whole, stage.layer_start, stage.layer_end, layers);
            give(&stage.node_id, (share(earned.work.get()), share(earned.reward.get())), overlay)?;
        }
    }
    let mut totals = overlay.read().epoch_totals(place.epoch())?;
    totals.settled = add(totals.settled, u64::from(is_earned))?;
    totals.work = totals.work.checked_add(work)?;
    totals.rewards = totals.rewards.checked_add(paid)?;
    overlay.put(key::epoch(place.epoch()), &totals);
    issue(paid, overlay)
}

fn credit_node(
    node: &NodeId,
    work: WorkUnits,
    reward: NanoAria,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), InclusionError> {
    let done = overlay.read().work(place.epoch(), node)?.checked_add(work)?;
    overlay.put(key::work(place.epoch(), node), &done);
    let mut account = overlay.read().account(node)?.unwrap_or_default();
    account.balance = account.balance.checked_add(reward)?;
    account.rewards_total = account.rewards_total.checked_add(reward)?;
    overlay.put(key::account(node), &account);
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
