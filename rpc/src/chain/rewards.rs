//! What a node's records earned, with every factor of it.

use aria_chain::attestation::Verdict;
use aria_chain::ids::NodeId;
use aria_chain::record::{RecordEntry, RecordStatus};
use aria_chain::store::{Page, RecordFilter, Store, StoreError};
use aria_chain::units::NanoAria;

use aria_runtime::params::Params;
use aria_runtime::reward::{Effort, efficiency, quality, reward};
use aria_runtime::rules::fee::{burned, mint_max};
use aria_runtime::state::{Audit, Reader, StoreView};
use aria_runtime::work::stage_share;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Value, json};

use super::api::{Answer, unavailable};
use super::arguments::{Arguments, invalid};
use super::views;
use crate::services::Services;

/// Records of one page.
const PAGE: u64 = 25;

/// Those of the chain.
pub(super) fn params(services: &dyn Services) -> Result<Params, ErrorObjectOwned> {
    serde_json::from_value(services.params()).map_err(|error| invalid("params", error))
}

/// Records of a node, the newest first, each with its work, the factors of its reward, and what the node got of both.
pub(super) fn get_rewards(services: &dyn Services, arguments: &Arguments) -> Answer {
    let (node, store) = (arguments.parse::<NodeId>("node")?, services.store());
    let limit = arguments.opt_u64("limit")?.unwrap_or(PAGE).clamp(1, 4 * PAGE);
    let params = params(services)?;
    let page =
        Page { limit: usize::try_from(limit).unwrap_or(1), after: arguments.opt_parse("cursor")?, ..Page::default() };
    let tip = store.tip().map_err(|error| unavailable(&error))?;
    let filter = RecordFilter { node: Some(node), ..RecordFilter::default() };
    let found = store.records(&filter, &page).map_err(|error| unavailable(&error))?;
    let shown = found.records.iter().map(|entry| view(entry, &node, &*store, &params));
    let shown = shown.collect::<Result<Vec<Value>, StoreError>>().map_err(|error| unavailable(&error))?;
    Ok(json!({
        "at": views::at(&tip),
        "node_id": node,
        "base_rate": params.base_rate_nano.to_string(),
        "records": shown,
        "next_cursor": found.next.map(|cursor| cursor.to_string()),
    }))
}

fn view(entry: &RecordEntry, node: &NodeId, store: &dyn Store, params: &Params) -> Result<Value, StoreError> {
    let record = &entry.record;
    let damaged = |error: aria_runtime::state::StateError| StoreError::Damaged {
        place: "state".into(),
        reason: error.to_string(),
    };
    let model = Reader(&StoreView(store)).model(&record.model_id).map_err(damaged)?;
    let ops = model.and_then(|model| model.shape.ops_per_token().ok()).unwrap_or(0);
    let audit = store.audit(&entry.id)?.as_deref().and_then(Audit::from_bytes);
    let plain = Effort::of(record, ops, params);
    let fee = store.proof(&entry.id)?.map_or(NanoAria::ZERO, |proof| proof.request.max_fee);
    let is_alone = entry.status == RecordStatus::SelfAudited;
    // Whether somebody vouched for its energy then shows in what its audit says that it mints; alone, a node does so itself.
    let is_vouched = match &audit {
        Some(audit) => audit.earned.reward > reward(&plain, params).min(mint_max(fee, params)),
        None => is_alone,
    };
    let effort = Effort { is_vouched, ..plain };
    let is_paid = is_alone || matches!(entry.status, RecordStatus::Verified | RecordStatus::Accepted);
    let reward = reward(&effort, params);
    let (minted, kept) = match &audit {
        Some(audit) => (audit.earned.reward, audit.earned.kept),
        None if is_alone => (reward, fee.minus_or_zero(burned(fee, params))),
        None => (NanoAria::ZERO, NanoAria::ZERO),
    };
    let share = |whole: u64| -> u64 {
        let own = record.stages.iter().filter(|stage| stage.node_id == *node);
        own.map(|stage| stage_share(whole, stage.layer_start, stage.layer_end, record.layers())).sum()
    };
    let settled = |amount: u64| (if is_paid { share(amount) } else { 0 }).to_string();
    Ok(json!({
        "record_id": entry.id,
        "height": entry.height,
        "status": entry.status,
        "quality_ppm": quality(&effort, params).ppm(),
        "efficiency_ppm": efficiency(&effort, params).ppm(),
        "reward": reward.to_string(),
        "fee": fee.to_string(),
        "minted": settled(minted.get()),
        "of_fee": settled(kept.get()),
        "auditors": audit.as_ref().map_or(0, right),
        "audit_fee": audit.as_ref().map_or(NanoAria::ZERO, |audit| audit.earned.audit_fee).to_string(),
        "paid": settled(minted.get().saturating_add(kept.get())),
        "work": settled(effort.ops),
    }))
}

/// Auditors of a verified record who said so.
fn right(audit: &Audit) -> u64 {
    let mut nodes: Vec<NodeId> =
        audit.first.iter().filter(|(_, said)| *said == Verdict::Valid).map(|(node, _)| *node).collect();
    nodes.extend(audit.members.iter().filter(|one| one.verdict == Some(Verdict::Valid)).map(|one| one.node));
    nodes.sort_unstable();
    nodes.dedup();
    u64::try_from(nodes.len()).unwrap_or(0)
}
