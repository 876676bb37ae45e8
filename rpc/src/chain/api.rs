//! The methods. Each is a function from the node's services and the call's arguments to JSON; all read the disk, so all run
//! on blocking threads.

use aria_chain::{
    ids::{ModelId, NodeId, RecordId},
    merkle::{RecordProof, RecordTree},
    record::RecordStatus,
    store::{Order, Page, RecordFilter, Store, StoredBlock},
    units::Height,
};
use jsonrpsee::{
    RpcModule,
    types::{ErrorObjectOwned, Params},
};
use serde_json::{Value, json};

use super::{
    Context,
    arguments::{Arguments, BlockRef, invalid},
    audits, consents, ledger, light, models, rewards, subscribe, transactions, views, votes,
};
use crate::services::{Readiness, Services};

/// The OpenRPC document, kept by hand.
pub const OPENRPC: &str = include_str!("../../openrpc.json");

/// -32021: the node cannot answer this now.
pub const UNAVAILABLE: i32 = -32021;
/// -32022: the pool does not take this.
pub const REJECTED: i32 = -32022;
/// -32030: a proof cannot be built.
pub const NO_PROOF: i32 = -32030;

pub(super) type Answer = Result<Value, ErrorObjectOwned>;
type Method = fn(&dyn Services, &Arguments) -> Answer;

/// Every public method: name, parameters in their order, what it does.
pub const METHODS: &[(&str, &[&str], Method)] = &[
    ("chain_status", &[], status),
    ("chain_getBlock", &["block", "verbosity"], get_block),
    ("chain_getHeader", &["block"], get_header),
    ("chain_getCertificate", &["block"], get_certificate),
    ("chain_getHeaders", &["from", "limit"], votes::get_headers),
    ("chain_listValidators", &["block", "limit", "cursor"], votes::list_validators),
    ("chain_getElection", &[], votes::get_election),
    ("chain_getEvidence", &["limit", "cursor"], votes::get_evidence),
    ("chain_getRecord", &["id"], get_record),
    ("chain_listRecords", &["filter"], list_records),
    ("chain_getRecordProof", &["id"], get_record_proof),
    ("chain_getLightProof", &["id", "trusted_height"], light::get_light_proof),
    ("chain_verifyRecordProof", &["proof"], verify_record_proof),
    ("chain_getUsefulWorkProof", &["id"], get_useful_work_proof),
    ("chain_getAudit", &["id"], audits::get_audit),
    ("chain_getReputation", &["node"], audits::get_reputation),
    ("chain_getConsent", &["node"], consents::get_consent),
    ("chain_getRewards", &["node", "limit", "cursor"], rewards::get_rewards),
    ("chain_getTransaction", &["id"], transactions::get_transaction),
    ("chain_getReceipt", &["id"], transactions::get_receipt),
    ("chain_listTransactions", &["limit", "cursor"], transactions::list_transactions),
    ("chain_getAccount", &["id"], get_account),
    ("chain_listAccounts", &["limit", "cursor"], ledger::list_accounts),
    ("chain_getSupply", &[], ledger::get_supply),
    ("chain_getWork", &["node", "epochs"], ledger::get_work),
    ("chain_getSobriety", &["node", "epochs"], ledger::get_sobriety),
    ("chain_getNetworkStats", &["epochs"], ledger::get_network_stats),
    ("chain_listModels", &["status", "limit", "cursor"], models::list_models),
    ("chain_getParams", &["block"], get_params),
    ("chain_verify", &["from", "to"], verify),
    ("mempool_status", &[], mempool_status),
    ("mempool_list", &["limit", "cursor", "kind"], transactions::mempool_list),
    ("mempool_get", &["id"], transactions::mempool_get),
    ("mempool_submit", &["bytes"], transactions::mempool_submit),
    ("mempool_simulate", &["bytes"], transactions::mempool_simulate),
    ("net_info", &[], net_info),
    ("net_listPeers", &[], net_list_peers),
    ("model_list", &[], model_list),
    ("node_status", &[], node_status),
    ("node_health", &[], node_health),
    ("rpc_limits", &[], limits),
    ("rpc_methods", &[], methods),
    ("rpc.discover", &[], discover),
];

/// Puts every method into the module.
pub fn register(module: &mut RpcModule<Context>) {
    for (name, names, method) in METHODS {
        let call = move |params: Params<'_>, services: std::sync::Arc<Context>, _: jsonrpsee::Extensions| {
            metrics::counter!("aria_rpc_calls_total", "method" => *name).increment(1);
            method(services.as_ref().as_ref(), &Arguments::read(&params, names)?)
        };
        module.register_blocking_method(name, call).expect("the list names each method once");
    }
}

pub(super) fn unavailable(error: &dyn std::error::Error) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(UNAVAILABLE, error.to_string(), Some(json!({"reason": "unavailable"})))
}

pub(super) fn height_of(store: &dyn Store, block: BlockRef) -> Result<Option<Height>, ErrorObjectOwned> {
    let height = match block {
        BlockRef::Latest => store.tip().map(|tip| Some(tip.height)),
        BlockRef::Height(height) => Ok(Some(height)),
        BlockRef::Hash(hash) => store.height_of(&hash),
    };
    height.map_err(|error| unavailable(&error))
}

fn wanted_block(services: &dyn Services, arguments: &Arguments) -> Result<Option<StoredBlock>, ErrorObjectOwned> {
    let block = arguments.opt_block("block")?.ok_or_else(|| invalid("block", "is missing"))?;
    let store = services.store();
    match height_of(&*store, block)? {
        Some(height) => store.block(height).map_err(|error| unavailable(&error)),
        None => Ok(None),
    }
}

fn status(services: &dyn Services, _: &Arguments) -> Answer {
    let tip = services.store().tip().map_err(|error| unavailable(&error))?;
    let node = services.status();
    Ok(json!({
        "chain_id": node.chain_id,
        "genesis_hash": node.genesis_hash,
        "height": tip.height,
        // The lowest block that this node has whole; genesis is always there.
        "base_height": services.store().base(),
        "hash": tip.hash,
        "timestamp": tip.timestamp_ms,
        "state_root": tip.state_root,
        "epoch": tip.height.get() / node.epoch_blocks.max(1),
        // One block behind is what everyone is while its votes are on their way.
        "syncing": node.behind > 1,
        "behind": node.behind,
        "peers": node.peers,
        "version": node.version,
    }))
}

fn get_block(services: &dyn Services, arguments: &Arguments) -> Answer {
    let verbosity = arguments.opt_u64("verbosity")?.unwrap_or(1);
    if verbosity > 2 {
        return Err(invalid("verbosity", "must be 0 (ids), 1 (records) or 2 (records, proofs and certificate)"));
    }
    match wanted_block(services, arguments)? {
        Some(block) => block_view(services, &block, verbosity),
        None => Ok(Value::Null),
    }
}

/// A block as `chain_getBlock` shows it.
pub fn block_view(services: &dyn Services, block: &StoredBlock, verbosity: u64) -> Answer {
    let ids = block.body.proofs.iter().map(|proof| proof.record.id());
    let records = match verbosity {
        0 => ids.map(|id| json!(id)).collect(),
        _ => ids.map(|id| record_view(services, &id)).collect::<Result<Vec<Value>, ErrorObjectOwned>>()?,
    };
    let mut view = views::block(block, records);
    if verbosity == 2 {
        view["certificate"] = block.certificate.as_ref().map_or(Value::Null, views::certificate);
        view["proofs"] = block.body.proofs.iter().map(views::useful_work_proof).collect();
    }
    Ok(view)
}

fn get_header(services: &dyn Services, arguments: &Arguments) -> Answer {
    Ok(wanted_block(services, arguments)?.map_or(Value::Null, |block| views::header(&block.header)))
}

fn get_certificate(services: &dyn Services, arguments: &Arguments) -> Answer {
    let certificate = wanted_block(services, arguments)?.and_then(|block| block.certificate);
    Ok(certificate.as_ref().map_or(Value::Null, views::certificate))
}

fn record_view(services: &dyn Services, id: &RecordId) -> Answer {
    let entry = services.store().record(id).map_err(|error| unavailable(&error))?;
    let Some(entry) = entry else { return Ok(Value::Null) };
    let model = services.model_name(&entry.record.model_id).map_err(|error| unavailable(&error))?;
    Ok(views::record(&entry, model.as_deref()))
}

fn get_record(services: &dyn Services, arguments: &Arguments) -> Answer {
    record_view(services, &arguments.parse("id")?)
}

const FILTER: &[&str] = &["node_id", "model_id", "block", "from", "to", "status", "limit", "cursor", "order"];

fn list_records(services: &dyn Services, arguments: &Arguments) -> Answer {
    let store = services.store();
    let asked = arguments.object("filter", FILTER)?;
    let mut filter = RecordFilter {
        node: asked.opt_parse::<NodeId>("node_id")?,
        model: asked.opt_parse::<ModelId>("model_id")?,
        status: record_status(&asked)?,
        from: asked.opt_u64("from")?.map(Height::new),
        to: asked.opt_u64("to")?.map(Height::new),
    };
    let tip = store.tip().map_err(|error| unavailable(&error))?;
    if let Some(block) = asked.opt_block("block")? {
        let Some(height) = height_of(&*store, block)? else {
            return Ok(json!({"at": views::at(&tip), "records": [], "next_cursor": null}));
        };
        (filter.from, filter.to) = (Some(height), Some(height));
    }
    let page = store.records(&filter, &page(&asked)?).map_err(|error| unavailable(&error))?;
    let records = page.records.iter().map(|entry| {
        let model = services.model_name(&entry.record.model_id).map_err(|error| unavailable(&error))?;
        Ok(views::record(entry, model.as_deref()))
    });
    let records = records.collect::<Result<Vec<Value>, ErrorObjectOwned>>()?;
    Ok(json!({"at": views::at(&tip), "records": records, "next_cursor": page.next.map(|cursor| cursor.to_string())}))
}

fn record_status(asked: &Arguments) -> Result<Option<RecordStatus>, ErrorObjectOwned> {
    let Some(value) = asked.get("status") else { return Ok(None) };
    let known = "must be included, verified, refuted, unavailable, accepted or self_audited";
    serde_json::from_value(value.clone()).map(Some).map_err(|_| invalid("status", known))
}

fn page(asked: &Arguments) -> Result<Page, ErrorObjectOwned> {
    let limit = asked.opt_u64("limit")?.unwrap_or(25);
    let order = match asked.get("order").map(|order| order.as_str()) {
        None | Some(Some("desc")) => Order::Descending,
        Some(Some("asc")) => Order::Ascending,
        Some(_) => return Err(invalid("order", "must be `desc` or `asc`")),
    };
    // More than a full page is a full page and a cursor, never an error.
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, aria_chain::limits::PAGE_RECORDS_MAX);
    Ok(Page { limit, after: asked.opt_parse("cursor")?, order })
}

fn get_record_proof(services: &dyn Services, arguments: &Arguments) -> Answer {
    let id: RecordId = arguments.parse("id")?;
    let store = services.store();
    let Some(entry) = store.record(&id).map_err(|error| unavailable(&error))? else { return Ok(Value::Null) };
    let ids = store.record_ids(entry.height).map_err(|error| unavailable(&error))?;
    let block = store.block(entry.height).map_err(|error| unavailable(&error))?;
    let proof = RecordTree::new(entry.height, &ids).and_then(|tree| tree.proof(entry.index)).map_err(no_proof)?;
    let mut view = serde_json::to_value(proof).map_err(no_proof)?;
    if let Some(block) = block {
        view["header"] = views::header(&block.header);
        view["certificate"] = block.certificate.as_ref().map_or(Value::Null, views::certificate);
    }
    Ok(view)
}

pub(super) fn no_proof(error: impl std::fmt::Display) -> ErrorObjectOwned {
    let message = format!("the proof cannot be built: {error}");
    ErrorObjectOwned::owned(NO_PROOF, message, Some(json!({"reason": "proof_cannot_be_built"})))
}

/// Takes what `chain_getRecordProof` gave, header and certificate or not. For shells: whoever wants certainty checks it alone.
fn verify_record_proof(_: &dyn Services, arguments: &Arguments) -> Answer {
    let Some(Value::Object(given)) = arguments.get("proof") else { return Err(invalid("proof", "must be an object")) };
    let mut bare = given.clone();
    bare.remove("header");
    bare.remove("certificate");
    let proof: RecordProof = serde_json::from_value(Value::Object(bare))
        .map_err(|error| invalid("proof", format!("is not right: {error}")))?;
    Ok(json!(proof.verify().is_ok()))
}

fn get_useful_work_proof(services: &dyn Services, arguments: &Arguments) -> Answer {
    let proof = services.store().proof(&arguments.parse("id")?).map_err(|error| unavailable(&error))?;
    Ok(proof.as_ref().map_or(Value::Null, views::useful_work_proof))
}

fn get_account(services: &dyn Services, arguments: &Arguments) -> Answer {
    let account = services.account(&arguments.parse("id")?).map_err(|error| unavailable(&error))?;
    Ok(json!(account))
}

/// Those of genesis: they are the same at every block that there is.
fn get_params(services: &dyn Services, arguments: &Arguments) -> Answer {
    let is_known = arguments.get("block").is_none() || wanted_block(services, arguments)?.is_some();
    Ok(if is_known { services.params() } else { Value::Null })
}

fn verify(services: &dyn Services, arguments: &Arguments) -> Answer {
    let from = Height::new(arguments.opt_u64("from")?.unwrap_or_default());
    let to = arguments.opt_u64("to")?.map(Height::new);
    if to.is_some_and(|to| to < from) {
        return Err(invalid("to", "must not be below `from`"));
    }
    let report = services.verify(from, to).map_err(|error| unavailable(&error))?;
    Ok(json!(report))
}

fn mempool_status(services: &dyn Services, _: &Arguments) -> Answer {
    Ok(json!(services.mempool()))
}

fn net_info(services: &dyn Services, _: &Arguments) -> Answer {
    let (address, peers) = services.peers();
    let outbound = peers.iter().filter(|peer| peer.direction == "outbound").count();
    Ok(json!({
        "node_id": services.status().node_id,
        "address": address.map(|address| address.to_string()),
        "peers": peers.len(),
        "outbound": outbound,
        "inbound": peers.len() - outbound,
    }))
}

fn net_list_peers(services: &dyn Services, _: &Arguments) -> Answer {
    let peers = services.peers().1.into_iter().map(|peer| {
        let mut view = json!(peer);
        view["consent"] = consents::summary(services, &peer.node_id)?;
        Ok(view)
    });
    Ok(json!({"peers": peers.collect::<Result<Vec<Value>, ErrorObjectOwned>>()?}))
}

fn model_list(services: &dyn Services, _: &Arguments) -> Answer {
    let cards = services.models().into_iter().map(|card| {
        json!({
            "name": card.id,
            "model_id": card.digest,
            "arithmetic": card.arithmetic,
            "context": card.context,
            "parameters": card.parameters,
            "backend": card.backend,
        })
    });
    Ok(cards.collect())
}

fn node_status(services: &dyn Services, _: &Arguments) -> Answer {
    Ok(json!(services.status()))
}

fn node_health(services: &dyn Services, _: &Arguments) -> Answer {
    match services.readiness() {
        Readiness::Ready => Ok(json!({"status": "healthy"})),
        Readiness::NotReady { reason } => {
            Err(ErrorObjectOwned::owned(UNAVAILABLE, reason, Some(json!({"reason": "not_ready"}))))
        }
    }
}

fn limits(_: &dyn Services, _: &Arguments) -> Answer {
    Ok(json!({
        "batch_max": super::BATCH_MAX,
        "request_bytes_max": super::REQUEST_BYTES_MAX,
        "response_bytes_max": super::RESPONSE_BYTES_MAX,
        "connections_max": super::CONNECTIONS_MAX,
        "page_records_max": aria_chain::limits::PAGE_RECORDS_MAX,
    }))
}

fn methods(_: &dyn Services, _: &Arguments) -> Answer {
    Ok(METHODS.iter().map(|(name, ..)| *name).chain(subscribe::names()).collect())
}

fn discover(_: &dyn Services, _: &Arguments) -> Answer {
    Ok(serde_json::from_str(OPENRPC).expect("a test reads the document"))
}
