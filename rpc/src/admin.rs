//! The private door of a node, on a unix socket that only its owner can open: what changes the node, not the chain.

use std::sync::Arc;
use std::time::Duration;

use aria_chain::consent::Consent;
use aria_chain::ids::NodeId;
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use jsonrpsee::RpcModule;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde_json::{Value, json};

use crate::chain::Context;
use crate::chain::arguments::{Arguments, invalid};
use crate::consent;
use crate::dashboard::call;
use crate::services::Services;

/// Longest ban: a year.
const BAN_SECONDS_MAX: u64 = 365 * 24 * 3_600;
/// Longest reason of a ban.
const REASON_BYTES_MAX: usize = 200;
/// Longest name of a host, by DNS.
const HOST_BYTES_MAX: usize = 253;

type Answer = Result<Value, ErrorObjectOwned>;
type Method = fn(&dyn Services, &Arguments) -> Answer;

const METHODS: &[(&str, &[&str], Method)] = &[
    ("admin_stop", &[], stop),
    ("admin_addPeer", &["address"], add_peer),
    ("admin_removePeer", &["address"], remove_peer),
    ("admin_banPeer", &["node_id", "seconds", "reason"], ban_peer),
    ("admin_listBans", &[], list_bans),
    ("admin_getConsent", &[], get_consent),
    ("admin_setConsent", &["contract"], set_consent),
    ("admin_revokeConsent", &[], revoke_consent),
];

/// The door.
///
/// # Panics
/// Never: the list names each method once.
pub fn router(services: Arc<dyn Services>) -> Router {
    let mut module: RpcModule<Context> = RpcModule::new(services);
    for (name, names, method) in METHODS {
        let serve = move |params: Params<'_>, services: Arc<Context>, _: jsonrpsee::Extensions| {
            method(services.as_ref().as_ref(), &Arguments::read(&params, names)?)
        };
        module.register_blocking_method(name, serve).expect("the list names each method once");
    }
    let module = Arc::new(module);
    Router::new().route("/", post(move |body: Bytes| call(Arc::clone(&module), body)))
}

fn stop(services: &dyn Services, _: &Arguments) -> Answer {
    services.stop();
    Ok(json!(true))
}

fn text<'a>(arguments: &'a Arguments, name: &str) -> Result<&'a str, ErrorObjectOwned> {
    arguments.get(name).and_then(Value::as_str).ok_or_else(|| invalid(name, "must be text"))
}

fn address(arguments: &Arguments) -> Result<&str, ErrorObjectOwned> {
    let address = text(arguments, "address")?;
    let is_address = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && host.len() <= HOST_BYTES_MAX && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !is_address {
        return Err(invalid("address", "must be HOST:PORT"));
    }
    Ok(address)
}

fn remove_peer(services: &dyn Services, arguments: &Arguments) -> Answer {
    services.remove_peer(address(arguments)?).map_err(|reason| invalid("address", reason))?;
    Ok(json!(true))
}

fn add_peer(services: &dyn Services, arguments: &Arguments) -> Answer {
    services.add_peer(address(arguments)?).map_err(|reason| invalid("address", reason))?;
    Ok(json!(true))
}

fn ban_peer(services: &dyn Services, arguments: &Arguments) -> Answer {
    let node: NodeId = arguments.parse("node_id")?;
    let seconds = arguments.opt_u64("seconds")?.unwrap_or(3_600);
    if seconds > BAN_SECONDS_MAX {
        return Err(invalid("seconds", format!("must be at most {BAN_SECONDS_MAX}, a year")));
    }
    let reason = if arguments.get("reason").is_some() { text(arguments, "reason")? } else { "by its operator" };
    if reason.len() > REASON_BYTES_MAX {
        return Err(invalid("reason", format!("must have at most {REASON_BYTES_MAX} bytes")));
    }
    services.ban_peer(node, Duration::from_secs(seconds), reason).map_err(|reason| invalid("node_id", reason))?;
    Ok(json!(true))
}

fn list_bans(services: &dyn Services, _: &Arguments) -> Answer {
    let view = |ban: crate::services::BanView| json!({"node_id": ban.node_id, "reason": ban.reason, "seconds_left": ban.left.as_secs()});
    Ok(json!({"bans": services.bans().into_iter().map(view).collect::<Vec<Value>>()}))
}

/// The contract in force, which may differ from the one on chain; null where none was stated.
fn get_consent(services: &dyn Services, _: &Arguments) -> Answer {
    Ok(services.consent().map_or(Value::Null, |consent| view(&consent.contract, consent.is_revoked)))
}

fn view(contract: &Consent, is_revoked: bool) -> Value {
    json!({"contract": consent::show(contract), "digest": contract.digest(), "revoked": is_revoked})
}

/// Changes the clauses that are named, at once and for later starts.
fn set_consent(services: &dyn Services, arguments: &Arguments) -> Answer {
    let Some(Value::Object(fields)) = arguments.get("contract") else {
        return Err(invalid("contract", "must be an object of clauses"));
    };
    let contract =
        services.set_consent(fields).map_err(|reason| invalid("contract", format!("cannot be: {reason}")))?;
    Ok(view(&contract, false))
}

fn revoke_consent(services: &dyn Services, arguments: &Arguments) -> Answer {
    services.revoke_consent().map_err(|reason| invalid("contract", reason))?;
    get_consent(services, arguments)
}
