//! `consent.json` in the data directory: the contract as the operator stated it last, for its owner alone.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aria_chain::consent::Consent;
use aria_rpc::consent::{amend, show};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::{Governor, InForce};
use crate::data_dir::DataDir;
use crate::error::NodeError;

/// Largest file read. A contract takes half a kilobyte.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// How often a running node looks at it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The field that says that a contract was taken back.
const REVOKED: &str = "revoked";

fn path(dir: &DataDir) -> PathBuf {
    dir.path().join("consent.json")
}

/// What was stated last, over the defaults and what the configuration says, if anything was stated.
pub fn read(dir: &DataDir, configured: &Map<String, Value>) -> Result<Option<InForce>, NodeError> {
    let path = path(dir);
    let fault = |reason: String| NodeError::Config { path: path.clone(), reason };
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error.to_string())),
        Ok(meta) if meta.len() > FILE_BYTES_MAX => {
            return Err(fault(format!("is larger than {FILE_BYTES_MAX} bytes")));
        }
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(&path).map_err(|error| fault(error.to_string()))?;
    let remedy = "state it anew with `aria consent set` after moving the file away";
    let mut fields: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| fault(format!("is no contract ({error}); {remedy}")))?;
    let is_revoked = match fields.remove(REVOKED) {
        None => false,
        Some(Value::Bool(is_revoked)) => is_revoked,
        Some(_) => return Err(fault(format!("`{REVOKED}` must be true or false; {remedy}"))),
    };
    let base = amend(Consent::default(), configured)?;
    let contract = amend(base, &fields).map_err(|error| fault(format!("{error}; {remedy}")))?;
    Ok(Some(InForce { contract, is_revoked }))
}

/// Keeps a contract: a crash leaves the one before or this one.
pub fn write(dir: &DataDir, in_force: InForce) -> Result<(), NodeError> {
    let mut fields = show(&in_force.contract);
    fields[REVOKED] = Value::Bool(in_force.is_revoked);
    let text = serde_json::to_string_pretty(&fields).expect("a contract is names and numbers");
    dir.write_private(&path(dir), text.as_bytes())
}

/// Takes over what somebody writes into the file while the node runs.
pub async fn keep_up(governor: Arc<Governor>, dir: DataDir, stop: CancellationToken) {
    let path = path(&dir);
    let look = async || tokio::fs::metadata(&path).await.ok().map(|meta| (meta.modified().ok(), meta.len()));
    let mut seen = look().await;
    while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
        let now = look().await;
        if now == seen {
            continue;
        }
        seen = now;
        let governor = Arc::clone(&governor);
        match tokio::task::spawn_blocking(move || governor.reload()).await {
            Ok(Ok(true)) => tracing::info!("the consent was changed in its file and is in force"),
            Ok(Err(error)) => tracing::warn!(%error, "the consent stays as it was"),
            Ok(Ok(false)) | Err(_) => {}
        }
    }
}
