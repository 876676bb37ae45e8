//! Who votes, who proposes, and headers for those who check both.

use aria_chain::certificate::{Validator, ValidatorSet};
use aria_chain::evidence::Evidence;
use aria_chain::ids::NodeId;
use aria_chain::limits::{PAGE_RECORDS_MAX, VALIDATORS_MAX};
use aria_chain::store::{Cursor, Store, StoreError};
use aria_chain::units::{Height, Round};
use aria_runtime::election::ProposerSchedule;
use aria_runtime::state::{Candidate, Reader, StoreView};
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
/// Candidates of one answer.
const CANDIDATES_SHOWN: usize = 200;

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

/// The set that votes on the block of a height.
fn set_of(store: &dyn Store, height: Height) -> Result<Option<ValidatorSet>, ErrorObjectOwned> {
    let header = store.header(height).map_err(|error| unavailable(&error))?;
    let Some(header) = header else { return Ok(None) };
    store.validators(&header.validators_hash).map_err(|error| unavailable(&error))
}

fn member(member: &Validator, total: u64) -> Value {
    let share_ppm = u128::from(member.power) * 1_000_000 / u128::from(total.max(1));
    json!({
        "node_id": member.node_id,
        "power": member.power.to_string(),
        "share": share(member.power, total),
        "share_ppm": u64::try_from(share_ppm).unwrap_or(1_000_000),
    })
}

/// A part of the whole as a fraction in lowest terms: a third has no decimal text that is exact.
fn share(power: u64, total: u64) -> String {
    let (mut divisor, mut rest) = (power.max(1), total);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    format!("{}/{}", power / divisor, total / divisor)
}

fn members(set: &ValidatorSet) -> Vec<Value> {
    set.members().iter().map(|one| member(one, set.total_power())).collect()
}

/// A page in the order of ids. The cursor is the last id shown, so a page stays right when others join or leave.
pub(super) fn list_validators(services: &dyn Services, arguments: &Arguments) -> Answer {
    let store = services.store();
    let block = arguments.opt_block("block")?.unwrap_or(BlockRef::Latest);
    let limit = arguments.opt_u64("limit")?.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(VALIDATORS_MAX);
    let after = arguments.opt_parse::<NodeId>("cursor")?;
    let Some(height) = height_of(&*store, block)? else { return Ok(Value::Null) };
    let Some(set) = set_of(&*store, height)? else { return Ok(Value::Null) };
    let rest = set.members().iter().filter(|member| after.is_none_or(|after| member.node_id > after));
    let rest: Vec<&Validator> = rest.collect();
    let shown = &rest[..rest.len().min(limit.clamp(1, VALIDATORS_MAX))];
    let is_more = shown.len() < rest.len();
    Ok(json!({
        "height": height,
        "set_hash": set.hash(),
        "total_power": set.total_power().to_string(),
        "count": set.members().len(),
        "validators": shown.iter().map(|one| member(one, set.total_power())).collect::<Vec<Value>>(),
        "next_cursor": shown.last().filter(|_| is_more).map(|last| last.node_id),
    }))
}

/// Who votes on the next block, who proposes when, and how those who may get power stand.
pub(super) fn get_election(services: &dyn Services, _: &Arguments) -> Answer {
    let store = services.store();
    let tip = store.tip().map_err(|error| unavailable(&error))?;
    let header = store.header(tip.height).map_err(|error| unavailable(&error))?;
    let Some(header) = header else { return Ok(Value::Null) };
    let set = store.validators(&header.next_validators_hash).map_err(|error| unavailable(&error))?;
    let Some(set) = set else { return Ok(Value::Null) };
    let (next, epoch_blocks) = (tip.height.get().saturating_add(1), services.status().epoch_blocks.max(1));
    let epoch = next / epoch_blocks;
    let schedule = ProposerSchedule::new(&set, Height::new(epoch * epoch_blocks));
    // The next epoch has an order of its own.
    let end = next.saturating_add(SCHEDULE_SHOWN).min((epoch + 1).saturating_mul(epoch_blocks));
    let turns = (next..end)
        .map(|height| json!({"height": height, "proposer": schedule.proposer(Height::new(height), Round::ZERO)}));
    Ok(json!({
        "at": views::at(&tip),
        "epoch": epoch,
        "set_hash": set.hash(),
        "total_power": set.total_power().to_string(),
        "validators": members(&set),
        "candidates": candidates(&*store)?,
        "schedule": turns.collect::<Vec<Value>>(),
    }))
}

/// All that may get power, with what became of their turns in this epoch.
fn candidates(store: &dyn Store) -> Result<Vec<Value>, ErrorObjectOwned> {
    let candidates = Reader(&StoreView(store)).candidates().map_err(|error| unavailable(&error))?;
    let view = |(node, candidate): (NodeId, Candidate)| {
        json!({
            "node_id": node,
            "turns_taken": candidate.taken,
            "turns_missed": candidate.missed,
            "absences": candidate.strikes,
            "returns_in_epoch": candidate.returns,
            "excluded_at": candidate.excluded,
        })
    };
    Ok(candidates.into_iter().take(CANDIDATES_SHOWN).map(view).collect())
}

/// Validators that contradicted themselves, the newest first.
pub(super) fn get_evidence(services: &dyn Services, arguments: &Arguments) -> Answer {
    let store = services.store();
    let limit = arguments.opt_u64("limit")?.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(PAGE_RECORDS_MAX).clamp(1, PAGE_RECORDS_MAX);
    let before = arguments.opt_parse::<Cursor>("cursor")?;
    let tip = store.tip().map_err(|error| unavailable(&error))?;
    let found = store.evidence(before, limit).map_err(|error| unavailable(&error))?;
    let next = found.last().filter(|_| found.len() == limit).map(|(place, _)| place.to_string());
    let view = |(place, piece): &(Cursor, Evidence)| {
        let mut view = views::evidence(piece);
        view["block"] = json!(place.height);
        view
    };
    Ok(json!({"at": views::at(&tip), "evidence": found.iter().map(view).collect::<Vec<Value>>(), "next_cursor": next}))
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_is_exact_and_in_lowest_terms() {
        let quarter = aria_chain::limits::POWER_TOTAL_MAX / 4;
        for (power, total, text) in [
            (1, 1, "1/1"),
            (10, 40, "1/4"),
            (1, 3, "1/3"),
            (6, 9, "2/3"),
            (7, 1 << 60, "7/1152921504606846976"),
            (quarter, 4 * quarter, "1/4"),
        ] {
            assert_eq!(share(power, total), text);
        }
    }
}
