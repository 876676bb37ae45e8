//! `aria network`: the peers of a running node, and others.

use std::process::ExitCode;
use std::sync::Arc;

use aria_chain::keys::NodeKey;
use serde_json::{Value, json};

use super::{Setting, not_running, print_json};
use crate::cli::NetworkCommand;
use crate::client::{admin, rpc};
use crate::network::dial;

pub(super) async fn network(setting: &Setting, command: NetworkCommand) -> anyhow::Result<ExitCode> {
    match command {
        NetworkCommand::Peers => peers(setting).await,
        NetworkCommand::Add { address } => {
            tell(setting, "admin_addPeer", json!({"address": address})).await?;
            say(setting, &json!({"added": address}), &format!("{address} is dialled until there is a connection"))
        }
        NetworkCommand::Remove { address } => {
            tell(setting, "admin_removePeer", json!({"address": address})).await?;
            let text =
                format!("{address} is dialled no longer; `aria network ban` keeps a node out that comes by itself");
            say(setting, &json!({"removed": address}), &text)
        }
        NetworkCommand::Ban { node_id, minutes, reason } => {
            let mut params = json!({"node_id": node_id, "seconds": minutes * 60});
            if let Some(reason) = reason {
                params["reason"] = reason.into();
            }
            tell(setting, "admin_banPeer", params).await?;
            let text = if minutes == 0 {
                "it may connect again".to_owned()
            } else {
                format!("kept out for {minutes} minutes")
            };
            say(setting, &json!({"node_id": node_id, "minutes": minutes}), &text)
        }
        NetworkCommand::Bans => bans(setting).await,
        NetworkCommand::Ping { address } => ping(setting, &address).await,
    }
}

async fn tell(setting: &Setting, method: &str, params: Value) -> anyhow::Result<Value> {
    let dir = setting.existing();
    if dir.running().is_none() {
        return Err(not_running(&setting.data_dir));
    }
    Ok(admin(&dir.admin_socket(), method, params).await?)
}

fn say(setting: &Setting, view: &Value, text: &str) -> anyhow::Result<ExitCode> {
    if setting.json {
        print_json(view);
    } else {
        println!("{text}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines of a list, or a sentence where it is empty.
fn list(
    setting: &Setting,
    view: &Value,
    field: &str,
    empty: &str,
    line: impl Fn(&Value) -> String,
) -> anyhow::Result<ExitCode> {
    let entries = view[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines: Vec<String> = entries.iter().map(line).collect();
    say(setting, view, &if lines.is_empty() { empty.to_owned() } else { lines.join("\n") })
}

fn text(view: &Value, field: &str) -> String {
    view[field].as_str().unwrap_or("").to_owned()
}

async fn peers(setting: &Setting) -> anyhow::Result<ExitCode> {
    let Some(node) = setting.existing().running() else { return Err(not_running(&setting.data_dir)) };
    let view = rpc(&node.rpc, "net_listPeers", json!([])).await?;
    let empty = "no peers; name some with `aria node start --bootstrap HOST:PORT` or `aria network add HOST:PORT`";
    list(setting, &view, "peers", empty, |peer| {
        let height = peer["height"].as_u64().map_or("-".to_owned(), |height| format!("block {height}"));
        let round_ms = peer["round_trip_us"].as_f64().map_or("-".to_owned(), |time| format!("{:.2} ms", time / 1e3));
        let (node, address, direction) = (text(peer, "node_id"), text(peer, "address"), text(peer, "direction"));
        format!("{node}  {address:<22} {direction:<8}  {height:<12} {round_ms}")
    })
}

async fn bans(setting: &Setting) -> anyhow::Result<ExitCode> {
    let view = tell(setting, "admin_listBans", json!([])).await?;
    list(setting, &view, "bans", "nobody is kept out", |ban| {
        let minutes = ban["seconds_left"].as_u64().unwrap_or(0).div_ceil(60);
        format!("{}  {minutes:>6} min  {}", text(ban, "node_id"), text(ban, "reason"))
    })
}

async fn ping(setting: &Setting, address: &str) -> anyhow::Result<ExitCode> {
    // Whoever asks is nobody in particular.
    let key = Arc::new(NodeKey::generate()?);
    let found = dial::ping(&key, address).await?;
    let (connect_ms, round_ms) = (found.connect.as_secs_f64() * 1e3, found.round_trip.as_secs_f64() * 1e3);
    let view =
        json!({"node_id": found.node_id, "address": address, "connect_ms": connect_ms, "round_trip_ms": round_ms});
    say(setting, &view, &format!("{}  {round_ms:.2} ms (connected and proven in {connect_ms:.2} ms)", found.node_id))
}
