//! What nodes stated of their machines, as the chain has it.

use aria_chain::ids::NodeId;
use aria_runtime::state::{Reader, StatedConsent, StoreView};
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Value, json};

use super::api::{Answer, unavailable};
use super::arguments::Arguments;
use super::views;
use crate::consent::show;
use crate::services::Services;

fn stated(services: &dyn Services, node: &NodeId) -> Result<Option<StatedConsent>, ErrorObjectOwned> {
    Reader(&StoreView(&*services.store())).consent(node).map_err(|error| unavailable(&error))
}

/// The contract of a node with its place in the row of its statements; null where it never stated one.
pub(super) fn get_consent(services: &dyn Services, arguments: &Arguments) -> Answer {
    let node: NodeId = arguments.parse("node")?;
    let tip = services.store().tip().map_err(|error| unavailable(&error))?;
    let Some(StatedConsent { contract, revision, height }) = stated(services, &node)? else { return Ok(Value::Null) };
    Ok(json!({
        "at": views::at(&tip),
        "node_id": node,
        "contract": contract.as_ref().map(show),
        "digest": contract.map(|contract| contract.digest()),
        "revision": revision,
        "height": height,
        "revoked": contract.is_none(),
    }))
}

/// Which contract a peer has registered, for a list; null where it has none in force.
pub(super) fn summary(services: &dyn Services, node: &str) -> Answer {
    let Ok(node) = node.parse::<NodeId>() else { return Ok(Value::Null) };
    let stated = stated(services, &node)?;
    let view = |StatedConsent { contract, revision, .. }| {
        contract.map(|contract| json!({"digest": contract.digest(), "revision": revision}))
    };
    Ok(stated.and_then(view).unwrap_or(Value::Null))
}
