//! Who votes, who proposes, and headers for those who check both.

use aria_chain::certificate::ValidatorSet;
use aria_chain::store::{Store, StoreError};
use aria_chain::units::{Height, Round};
use aria_runtime::election::{ProposerSchedule, SCHEDULE_TURNS};
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Value, json};

use super::api::{Answer, height_of, unavailable};
use super::arguments::{Arguments, BlockRef, invalid};
use super::views;
use crate::services::Services;

/// Headers of one answer.
const HEADERS_MAX: u64 = 100;
/// Proposers that are told ahead.
const SCHEDULE_SHOWN: u64 = 20;

pub(super) fn get_headers(services: &dyn Services, arguments: &Arguments) -> Answer {
    let store = services.store();
    let from = arguments.opt_u64("from")?.ok_or_else(|| invalid("from", "is missing"))?;
    let limit = arguments.opt_u64("limit")?.unwrap_or(HEADERS_MAX).clamp(1, HEADERS_MAX);
    let tip = store.tip().map_err(|error| unavailable(&error))?;
    let end = from.saturating_add(limit).min(tip.height.get().saturating_add(1));
    let headers = (from..end).filter_map(|height| store.header(Height::new(height)).transpose());
    let headers = headers.map(|header| header.map(|header| views::header(&header)));
    let headers = headers.collect::<Result<Vec<Value>, StoreError>>().map_err(|error| unavailable(&error))?;
    let next = (end <= tip.height.get()).then_some(end);
    Ok(json!({"at": views::at(&tip), "headers": headers, "next": next}))
}

/// The set that votes on the block of a height, which for the one above the tip is the tip's own in this version.
fn set_of(store: &dyn Store, height: Height) -> Result<Option<ValidatorSet>, ErrorObjectOwned> {
    let header = store.header(height).map_err(|error| unavailable(&error))?;
    let Some(header) = header else { return Ok(None) };
    store.validators(&header.validators_hash).map_err(|error| unavailable(&error))
}

fn members(set: &ValidatorSet) -> Vec<Value> {
    let total = u128::from(set.total_power().max(1));
    let view = |member: &aria_chain::certificate::Validator| {
        let share_ppm = u64::try_from(u128::from(member.power) * 1_000_000 / total).unwrap_or(1_000_000);
        json!({"node_id": member.node_id, "power": member.power.to_string(), "share_ppm": share_ppm})
    };
    set.members().iter().map(view).collect()
}

pub(super) fn list_validators(services: &dyn Services, arguments: &Arguments) -> Answer {
    let store = services.store();
    let block = arguments.opt_block("block")?.unwrap_or(BlockRef::Latest);
    let Some(height) = height_of(&*store, block)? else { return Ok(Value::Null) };
    let Some(set) = set_of(&*store, height)? else { return Ok(Value::Null) };
    Ok(json!({
        "height": height,
        "set_hash": set.hash(),
        "total_power": set.total_power().to_string(),
        "validators": members(&set),
    }))
}

pub(super) fn get_election(services: &dyn Services, _: &Arguments) -> Answer {
    let store = services.store();
    let tip = store.tip().map_err(|error| unavailable(&error))?;
    let Some(set) = set_of(&*store, tip.height)? else { return Ok(Value::Null) };
    let schedule = ProposerSchedule::new(&set, SCHEDULE_TURNS);
    let next = tip.height.get().saturating_add(1);
    let turns = (next..next.saturating_add(SCHEDULE_SHOWN))
        .map(|height| json!({"height": height, "proposer": schedule.proposer(Height::new(height), Round::ZERO)}));
    Ok(json!({
        "at": views::at(&tip),
        "epoch": tip.height.get() / services.status().epoch_blocks.max(1),
        "set_hash": set.hash(),
        "total_power": set.total_power().to_string(),
        "validators": members(&set),
        "schedule": turns.collect::<Vec<Value>>(),
    }))
}
