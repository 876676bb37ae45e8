//! `aria network`: the peers of a running node.

use std::process::ExitCode;

use serde_json::json;

use super::{Setting, not_running, print_json};
use crate::client::rpc;

pub(super) async fn peers(setting: &Setting) -> anyhow::Result<ExitCode> {
    let Some(node) = setting.existing().running() else { return Err(not_running(&setting.data_dir)) };
    let list = rpc(&node.rpc, "net_listPeers", json!([])).await?;
    if setting.json {
        print_json(&list);
        return Ok(ExitCode::SUCCESS);
    }
    let peers = list["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if peers.is_empty() {
        println!("no peers; name some with `aria node start --bootstrap HOST:PORT`");
    }
    for peer in peers {
        let text = |field: &str| peer[field].as_str().unwrap_or("").to_owned();
        println!("{}  {:<22} {}", text("node_id"), text("address"), text("direction"));
    }
    Ok(ExitCode::SUCCESS)
}
