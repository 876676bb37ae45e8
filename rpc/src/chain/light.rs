//! Light proofs: what somebody without the chain needs to see that a record is final.

use aria_chain::ids::{Digest, RecordId};
use aria_chain::light::{FinalHeader, LIGHT_STEPS_MAX, LightProof, LightStep, set_changes};
use aria_chain::merkle::RecordTree;
use aria_chain::units::Height;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::Value;

use super::api::{Answer, no_proof, unavailable};
use super::arguments::{Arguments, invalid};
use crate::services::Services;

/// Headers that are looked at for one proof: ends of epochs.
const EPOCHS_MAX: u64 = 10_000;

pub(super) fn get_light_proof(services: &dyn Services, arguments: &Arguments) -> Answer {
    let id: RecordId = arguments.parse("id")?;
    let trusted = Height::new(arguments.opt_u64("trusted_height")?.unwrap_or(0));
    let store = services.store();
    let Some(entry) = store.record(&id).map_err(|error| unavailable(&error))? else { return Ok(Value::Null) };
    if trusted > entry.height {
        return Err(invalid("trusted_height", format!("must be at most {}, the record's height", entry.height)));
    }
    let ids = store.record_ids(entry.height).map_err(|error| unavailable(&error))?;
    let path = RecordTree::new(entry.height, &ids).and_then(|tree| tree.proof(entry.index)).map_err(no_proof)?;
    let (span, epoch) = ((trusted, entry.height), services.status().epoch_blocks);
    if (entry.height.get() - trusted.get()) / epoch.max(1) > EPOCHS_MAX {
        return Err(too_far("more than 10000 epochs lie between"));
    }
    let steps = set_changes(&*store, span, epoch, LIGHT_STEPS_MAX + 1).map_err(|error| unavailable(&error))?;
    if steps.len() > LIGHT_STEPS_MAX {
        return Err(too_far(&format!("the set changes more than {LIGHT_STEPS_MAX} times")));
    }
    let last = FinalHeader::of(&*store, entry.height).map_err(|error| unavailable(&error))?;
    let last = last.ok_or_else(|| no_proof(format!("block {} is gone", entry.height)))?;
    let begun = store.header(trusted).map_err(|error| unavailable(&error))?;
    if !begun.is_some_and(|begun| is_linked(begun.validators_hash, &steps, &last)) {
        return Err(no_proof(format!(
            "this node began with a snapshot and does not have every change of the set since block {trusted}; trust a later block, \
             or ask another node"
        )));
    }
    let steps = steps.iter().map(LightStep::from).collect();
    serde_json::to_value(LightProof::new(steps, path, (&last).into())).map_err(no_proof)
}

/// Whether each header is by the set that the one before names, the first by `trusted`.
fn is_linked(trusted: Digest, steps: &[FinalHeader], last: &FinalHeader) -> bool {
    let mut set = trusted;
    let is_step = |step: &FinalHeader| {
        let is_next = step.header.validators_hash == set;
        set = step.header.next_validators_hash;
        is_next
    };
    steps.iter().all(is_step) && last.header.validators_hash == set
}

fn too_far(why: &str) -> ErrorObjectOwned {
    invalid("trusted_height", format!("is too far below: {why}; trust a later block first"))
}
