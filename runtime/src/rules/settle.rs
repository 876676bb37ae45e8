//! How a record settles when its block includes it: what is credited to whom, and the traces it leaves in the totals.
//!
//! Where the validator set has one member, that member vouches for itself and the record settles at inclusion. With more
//! members it waits for an audit: [`super::audit`].

use aria_chain::ids::NodeId;
use aria_chain::proof::VerifiedProof;
use aria_chain::record::{BackendClass, InferenceRecord, RecordStatus, Stage};
use aria_chain::request::AuditMode;
use aria_chain::units::{Microjoules, NanoAria, WorkUnits};
use borsh::{BorshDeserialize, BorshSerialize};

use crate::fixed::part;
use crate::reward::{Effort, counted_energy_uj, reward};
use crate::rules::fee;
use crate::rules::record::{InclusionError, Place, RecordFault};
use crate::rules::sobriety;
use crate::state::{Model, Overlay, Sobriety, StateError, Work, key};
use crate::work::stage_share;

/// How a record leaves its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The validator set has one member, which vouches for itself: this is credited, and the record says so.
    SelfAudited(Earned),
    /// Other validators have to audit it first. This is what it would earn.
    Awaiting(Earned),
    /// Nobody can run it again. Its requester has signed that it got the answer, and pays this for it.
    Paid(NanoAria),
    /// Provenance only: nothing is ever credited.
    Included(Unsettled),
}

/// What a record earns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Earned {
    /// Credited to the stages by layers.
    pub work: WorkUnits,
    /// Minted for the stages by layers.
    pub reward: NanoAria,
    /// What the requester pays. What of it nobody gets is destroyed.
    pub fee: NanoAria,
    /// Of the fee to the stages by layers.
    pub kept: NanoAria,
    /// Of the fee to each auditor who is right, and lost from the bond of each who says nothing.
    pub audit_fee: NanoAria,
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
    /// Its requester has not the fee that it signed for.
    Unpaid,
}

impl Settlement {
    /// The status that the chain shows.
    pub fn status(&self) -> RecordStatus {
        match self {
            Settlement::SelfAudited(_) => RecordStatus::SelfAudited,
            Settlement::Awaiting(_) | Settlement::Paid(_) | Settlement::Included(_) => RecordStatus::Included,
        }
    }

    /// What its requester has to have.
    pub(super) fn fee(&self) -> NanoAria {
        match self {
            Settlement::SelfAudited(earned) | Settlement::Awaiting(earned) => earned.fee,
            Settlement::Paid(fee) => *fee,
            Settlement::Included(_) => NanoAria::ZERO,
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
    let (record, fee) = (proof.record(), proof.request().max_fee);
    if proof.request().audit == AuditMode::None {
        return Ok(Settlement::Included(Unsettled::Private));
    }
    match record.backend {
        BackendClass::Canonical => {}
        BackendClass::External if fee > NanoAria::ZERO => return Ok(Settlement::Paid(fee)),
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
    let earned = Earned { work, reward, fee, ..Earned::default() };
    if place.is_one_alone {
        return Ok(Settlement::SelfAudited(earned.at_once(params)));
    }
    Ok(Settlement::Awaiting(earned.if_found_right(params)))
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
    match settlement {
        Settlement::SelfAudited(earned) => {
            let nobody = (&[][..], NanoAria::ZERO);
            credit(&record.stages, earned, nobody, Some(NanoAria::ZERO), place, overlay)
        }
        Settlement::Paid(fee) => {
            let earned = Earned { fee, ..Earned::default() }.at_once(place.params());
            credit_stages(&record.stages, earned, NanoAria::ZERO, place, overlay)
        }
        Settlement::Awaiting(_) | Settlement::Included(_) => Ok(()),
    }
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

/// Credits what a record earned to those who ran it, and what its audit earned to those who were right, so much each. `most`: what of
/// the fee is auditors', where the record earned its fee; auditors are minted what is beyond.
pub(super) fn credit(
    stages: &[Stage],
    earned: Earned,
    (auditors, each): (&[NodeId], NanoAria),
    most: Option<NanoAria>,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), InclusionError> {
    let audited = WorkUnits::new(part(earned.work.get(), place.params().audit_work_ppm));
    let (mut work, mut fees) = (WorkUnits::ZERO, NanoAria::ZERO);
    for auditor in auditors {
        credit_node(auditor, &Work { audited, ..Work::default() }, each, place, overlay)?;
        work = work.checked_add(audited)?;
        fees = fees.checked_add(each)?;
    }
    let mut minted = fees;
    if let Some(most) = most {
        let from_fee = fees.min(most);
        credit_stages(stages, earned, from_fee, place, overlay)?;
        work = work.checked_add(earned.work)?;
        minted = fees.checked_sub(from_fee)?.checked_add(earned.reward)?;
    }
    let mut totals = overlay.read().epoch_totals(place.epoch())?;
    totals.settled = add(totals.settled, u64::from(most.is_some()))?;
    totals.work = totals.work.checked_add(work)?;
    totals.rewards = totals.rewards.checked_add(minted)?;
    overlay.put(key::epoch(place.epoch()), &totals);
    issue(minted, overlay)
}

/// Gives each stage its share by layers, of the work, of the reward, and of the fee. What of the fee neither stages nor auditors get is
/// destroyed; the part that is destroyed in any case backs work.
fn credit_stages(
    stages: &[Stage],
    earned: Earned,
    auditors: NanoAria,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), InclusionError> {
    let Earned { work, reward, fee, kept, .. } = earned;
    let (burned, paid) = (fee::burned(fee, place.params()), kept.checked_add(reward)?);
    if fee > NanoAria::ZERO {
        fee::release(fee, fee.checked_sub(kept)?.checked_sub(auditors)?, overlay)?;
        let mut totals = overlay.read().epoch_totals(place.epoch())?;
        totals.paid = totals.paid.checked_add(fee)?;
        overlay.put(key::epoch(place.epoch()), &totals);
    }
    let layers = stages.last().map_or(0, |stage| stage.layer_end);
    for stage in stages {
        let share = |whole: u64| stage_share(whole, stage.layer_start, stage.layer_end, layers);
        let (served, burned) = (WorkUnits::new(share(work.get())), NanoAria::new(share(burned.get())));
        let done = Work { served, burned, ..Work::default() };
        credit_node(&stage.node_id, &done, NanoAria::new(share(paid.get())), place, overlay)?;
    }
    Ok(())
}

fn credit_node(
    node: &NodeId,
    work: &Work,
    amount: NanoAria,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), InclusionError> {
    let done = overlay.read().work(place.epoch(), node)?.plus(work)?;
    overlay.put(key::work(place.epoch(), node), &done);
    let mut account = overlay.read().account(node)?.unwrap_or_default();
    account.balance = account.balance.checked_add(amount)?;
    account.rewards_total = account.rewards_total.checked_add(amount)?;
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
