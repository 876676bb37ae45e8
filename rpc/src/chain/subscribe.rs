//! Subscriptions: new heads, new records and what becomes of one, without a gap and without a queue of blocks.
//!
//! A subscription is a height that walks up to the tip and reads each block from the store, so that a slow reader costs no
//! memory. One that takes nothing for a while gets a last item, `{"lagged": blocks, "resume": height}`, and is closed: it
//! subscribes again `from` there and misses nothing.

use std::time::Duration;

use aria_chain::ids::RecordId;
use aria_chain::record::RecordStatus;
use aria_chain::store::StoreError;
use aria_chain::units::Height;
use aria_runtime::state::Audit;
use jsonrpsee::core::server::{PendingSubscriptionSink, SubscriptionSink};
use jsonrpsee::types::Params;
use jsonrpsee::{Extensions, RpcModule};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::arguments::{Arguments, invalid};
use super::{Context, views};

/// Subscriptions of one connection.
pub const SUBSCRIPTIONS_MAX: u32 = 16;
/// Places of a connection's queue that are kept for the last item.
const SPARE: usize = 8;
/// How long a reader may take nothing.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Every subscription: what begins it, what its items are called, what ends it, its parameters.
pub const SUBSCRIPTIONS: [(&str, &str, &str, &[&str]); 3] = [
    ("chain_subscribeNewHeads", "chain_newHead", "chain_unsubscribeNewHeads", &["from"]),
    ("chain_subscribeNewRecords", "chain_newRecord", "chain_unsubscribeNewRecords", &["filter", "from"]),
    ("chain_subscribeRecordStatus", "chain_recordStatus", "chain_unsubscribeRecordStatus", &["id", "from"]),
];

/// Fields of the filter of records.
const FILTER: &[&str] = &["node_id", "model_id"];

pub(super) fn register(module: &mut RpcModule<Context>) {
    let [heads, records, statuses] = SUBSCRIPTIONS;
    module
        .register_subscription(heads.0, heads.1, heads.2, move |params, sink, services, _: Extensions| {
            follow(
                heads.3,
                params,
                sink,
                services,
                |_| Ok(()),
                (|_, ()| None, |services, height, ()| head(services, height)),
            )
        })
        .expect("the names are used once");
    // Final is the head itself.
    module.register_alias("chain_subscribeFinalizedHeads", heads.0).expect("the name is used once");
    module
        .register_subscription(records.0, records.1, records.2, move |params, sink, services, _: Extensions| {
            follow(records.3, params, sink, services, Filter::read, (|_, _| None, self::records))
        })
        .expect("the names are used once");
    module
        .register_subscription(statuses.0, statuses.1, statuses.2, move |params, sink, services, _: Extensions| {
            let id = |arguments: &Arguments| arguments.parse::<RecordId>("id");
            follow(statuses.3, params, sink, services, id, (place_of, self::statuses))
        })
        .expect("the names are used once");
}

/// Which records a subscriber wants.
#[derive(Clone, Debug)]
struct Filter {
    node: Option<aria_chain::ids::NodeId>,
    model: Option<aria_chain::ids::ModelId>,
}

impl Filter {
    fn read(arguments: &Arguments) -> Result<Filter, jsonrpsee::types::ErrorObjectOwned> {
        let asked = arguments.object("filter", FILTER)?;
        Ok(Filter { node: asked.opt_parse("node_id")?, model: asked.opt_parse("model_id")? })
    }
}

fn head(services: &Context, height: Height) -> Result<Vec<Value>, StoreError> {
    let header = services.store().header(height)?;
    Ok(header.iter().map(|header| json!({"head": views::header(header)})).collect())
}

fn records(services: &Context, height: Height, filter: &Filter) -> Result<Vec<Value>, StoreError> {
    let store = services.store();
    let mut items = Vec::new();
    for id in store.record_ids(height)? {
        let Some(entry) = store.record(&id)? else { continue };
        let is_node = filter.node.is_none_or(|node| entry.record.stages.iter().any(|stage| stage.node_id == node));
        if is_node && filter.model.is_none_or(|model| entry.record.model_id == model) {
            let model = services.model_name(&entry.record.model_id)?;
            items.push(json!({"record": views::record(&entry, model.as_deref())}));
        }
    }
    Ok(items)
}

/// The block of a record that is in one: its life begins there.
fn place_of(services: &Context, id: &RecordId) -> Option<Height> {
    services.store().record(id).ok().flatten().map(|entry| entry.height)
}

/// What became of a record in a block: included, or its end.
fn statuses(services: &Context, height: Height, id: &RecordId) -> Result<Vec<Value>, StoreError> {
    let store = services.store();
    let Some(entry) = store.record(id)? else { return Ok(Vec::new()) };
    let first = match entry.status {
        RecordStatus::SelfAudited => RecordStatus::SelfAudited,
        _ => RecordStatus::Included,
    };
    let end = store.audit(id)?.as_deref().and_then(Audit::from_bytes).and_then(|audit| audit.outcome);
    let all = [Some((first, entry.height)), end].into_iter().flatten();
    Ok(all.filter(|(_, at)| *at == height).map(|(status, _)| json!({"record_id": id, "status": status})).collect())
}

/// Where a subscription begins if the caller does not say, and what it tells of a block.
type Steps<F> = (fn(&Context, &F) -> Option<Height>, fn(&Context, Height, &F) -> Result<Vec<Value>, StoreError>);

/// Walks from a height, or from the next block, as long as the subscriber reads.
async fn follow<F: Clone + Send + Sync + 'static>(
    names: &[&str],
    params: Params<'static>,
    pending: PendingSubscriptionSink,
    services: std::sync::Arc<Context>,
    filter: impl FnOnce(&Arguments) -> Result<F, jsonrpsee::types::ErrorObjectOwned>,
    (begin, items): Steps<F>,
) {
    let services: Context = std::sync::Arc::clone(&services);
    let mut tip = services.tip_changes();
    let latest = *tip.borrow_and_update();
    let asked = Arguments::read(&params, names).and_then(|arguments| {
        let from = arguments.opt_u64("from")?;
        if from.is_some_and(|from| from > latest.get().saturating_add(1)) {
            return Err(invalid("from", format!("must be at most {}, the next block", latest.get().saturating_add(1))));
        }
        Ok((from, filter(&arguments)?))
    });
    let (from, filter) = match asked {
        Ok(asked) => asked,
        Err(error) => return pending.reject(error).await,
    };
    let (reader, wanted) = (std::sync::Arc::clone(&services), filter.clone());
    let begun = spawn_blocking(move || begin(&reader, &wanted)).await.ok().flatten();
    let from = from.or(begun.map(Height::get)).unwrap_or(latest.get().saturating_add(1));
    // Where the connection is gone nobody waits.
    let Ok(sink) = pending.accept().await else { return };
    let (mut next, mut seq) = (from, 0_u64);
    loop {
        let latest = tip.borrow_and_update().get();
        while next <= latest {
            let (reader, wanted, height) = (std::sync::Arc::clone(&services), filter.clone(), Height::new(next));
            let read = spawn_blocking(move || items(&reader, height, &wanted)).await;
            let Ok(Ok(found)) = read else {
                tracing::warn!(%height, "a subscription ends: the block cannot be read");
                return;
            };
            for mut item in found {
                if !has_room(&sink).await {
                    let last = json!({"lagged": latest - next + 1, "resume": next});
                    // Its connection may be gone by now.
                    let _ = send(&sink, &last).await;
                    return;
                }
                seq += 1;
                item["seq"] = json!(seq);
                item["height"] = json!(next);
                if !send(&sink, &item).await {
                    return;
                }
            }
            next += 1;
        }
        tokio::select! {
            () = sink.closed() => return,
            changed = tip.changed() => if changed.is_err() { return },
        }
    }
}

async fn send(sink: &SubscriptionSink, item: &Value) -> bool {
    let Ok(text) = serde_json::value::to_raw_value(item) else { return false };
    sink.send(text).await.is_ok()
}

/// Waits for room in the connection's queue; false where the reader took nothing for too long.
async fn has_room(sink: &SubscriptionSink) -> bool {
    let mut waited = Duration::ZERO;
    while sink.capacity() <= SPARE {
        if waited >= PATIENCE || sink.is_closed() {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        waited += LOOK_EVERY;
    }
    true
}

/// Names of all subscriptions, for lists of methods.
pub fn names() -> impl Iterator<Item = &'static str> {
    SUBSCRIPTIONS.iter().flat_map(|(begin, _, end, _)| [*begin, *end]).chain(["chain_subscribeFinalizedHeads"])
}
