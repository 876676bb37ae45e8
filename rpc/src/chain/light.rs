//! Light proofs: what somebody without the chain needs to see that a record is final.

use aria_chain::ids::RecordId;
use aria_chain::light::{LIGHT_STEPS_MAX, LightProof, LightStep};
use aria_chain::merkle::RecordTree;
use aria_chain::store::Store;
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
    let steps = steps(&*store, trusted, entry.height, services.status().epoch_blocks.max(1))?;
    let last = step(&*store, entry.height)?;
    serde_json::to_value(LightProof::new(steps, path, last)).map_err(no_proof)
}

/// The headers from `trusted` to below `height` after which another set votes. Sets change where epochs end.
fn steps(store: &dyn Store, trusted: Height, height: Height, epoch: u64) -> Result<Vec<LightStep>, ErrorObjectOwned> {
    let later = |what: &str| invalid("trusted_height", format!("is too far below: {what}; trust a later block first"));
    let first = trusted.get() - trusted.get() % epoch + epoch - 1;
    let mut steps = Vec::new();
    for (looked_at, last_of_epoch) in
        (first..height.get()).step_by(usize::try_from(epoch).unwrap_or(usize::MAX)).enumerate()
    {
        if looked_at as u64 == EPOCHS_MAX {
            return Err(later("more than 10000 epochs lie between"));
        }
        let last = Height::new(last_of_epoch);
        let header = store.header(last).map_err(|error| unavailable(&error))?;
        let header = header.ok_or_else(|| no_proof(format!("block {last} is gone")))?;
        if header.validators_hash != header.next_validators_hash {
            if steps.len() == LIGHT_STEPS_MAX {
                return Err(later(&format!("the set changes more than {LIGHT_STEPS_MAX} times")));
            }
            steps.push(step(store, last)?);
        }
    }
    Ok(steps)
}

fn step(store: &dyn Store, height: Height) -> Result<LightStep, ErrorObjectOwned> {
    let header = store.header(height).map_err(|error| unavailable(&error))?;
    let certificate = store.certificate(height).map_err(|error| unavailable(&error))?;
    let (Some(header), Some(certificate)) = (header, certificate) else {
        return Err(no_proof(format!("block {height} is gone")));
    };
    let set = store.validators(&header.validators_hash).map_err(|error| unavailable(&error))?;
    let set = set.ok_or_else(|| no_proof("its validator set is gone"))?;
    Ok(LightStep::new(&header, &certificate, &set))
}
