//! `aria ledger election`, `audit` and `rewards`: what the chain decided, in tables.

use std::process::ExitCode;

use aria_chain::ids::{NodeId, RecordId};
use aria_chain::keys::NodeKey;
use aria_chain::units::NanoAria;
use serde_json::{Value, json};

use super::{Setting, not_running, print_json};
use crate::amount::Amount;
use crate::client::rpc;

/// Proposers of the next blocks that are shown.
const SHOWN: usize = 8;

pub(super) async fn ask(setting: &Setting, method: &str, params: Value) -> anyhow::Result<Value> {
    let Some(node) = setting.existing().running() else { return Err(not_running(&setting.data_dir)) };
    Ok(rpc(&node.rpc, method, params).await?)
}

fn text<'v>(view: &'v Value, field: &str) -> &'v str {
    view[field].as_str().unwrap_or("-")
}

fn each<'v>(view: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    view[field].as_array().into_iter().flatten()
}

fn aria_of(view: &Value, field: &str) -> String {
    let nano = view[field].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    Amount(NanoAria::new(nano)).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "shown to people in whole percents")]
fn percent(ppm: u64) -> f64 {
    ppm as f64 / 10_000.0
}

pub(super) async fn election(setting: &Setting) -> anyhow::Result<ExitCode> {
    let view = ask(setting, "chain_getElection", json!([])).await?;
    if setting.json {
        print_json(&view);
        return Ok(ExitCode::SUCCESS);
    }
    println!("epoch {}, behind block {}", view["epoch"], view["at"]["height"]);
    println!("{:<64}  {:>7}  {:>5}  {:>6}", "validator", "power", "taken", "missed");
    for member in each(&view, "validators") {
        let node = text(member, "node_id");
        let turns = each(&view, "candidates").find(|one| text(one, "node_id") == node);
        let turn = |field: &str| turns.and_then(|turns| turns[field].as_u64()).unwrap_or(0);
        let share = percent(member["share_ppm"].as_u64().unwrap_or(0));
        println!("{node}  {share:>6.2}%  {:>5}  {:>6}", turn("turns_taken"), turn("turns_missed"));
    }
    for slot in each(&view, "schedule").take(SHOWN) {
        println!("block {:>8}  {}", slot["height"], text(slot, "proposer"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn audit(setting: &Setting, record: RecordId) -> anyhow::Result<ExitCode> {
    let view = ask(setting, "chain_getAudit", json!([record])).await?;
    if setting.json {
        print_json(&view);
        return Ok(ExitCode::SUCCESS);
    }
    if view.is_null() {
        println!(
            "nothing is audited under this id: it waits for a block, was audited by its own node, or earns nothing"
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("{record} of block {} is {} ({})", view["height"], text(&view, "status"), text(&view, "phase"));
    for auditor in each(&view, "auditors") {
        let said =
            auditor["verdict"].as_str().unwrap_or(if auditor["commitment"].is_null() { "-" } else { "committed" });
        println!("{}  {said}", text(auditor, "node_id"));
    }
    let challenge = &view["challenge"];
    if challenge.is_object() {
        let parts = challenge["parts"].as_u64().map_or("an unknown number of".to_owned(), |parts| parts.to_string());
        let (delivered, until) = (&challenge["delivered"], &challenge["until"]);
        println!(
            "challenged by {}: {delivered} of {parts} parts are there; time is up to block {until}",
            text(challenge, "by")
        );
    }
    if let Some(height) = view["settled_at"].as_u64() {
        println!("settled in block {height}, for a reward of {}", aria_of(&view, "reward"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The node that is named, else that of this data directory.
pub(super) fn node_or_own(setting: &Setting, node: Option<NodeId>) -> anyhow::Result<NodeId> {
    node.map_or_else(|| Ok(NodeKey::load(&setting.existing().key_file())?.node_id()), Ok)
}

pub(super) async fn sobriety(setting: &Setting, node: Option<NodeId>) -> anyhow::Result<ExitCode> {
    let view = ask(setting, "chain_getSobriety", json!([node_or_own(setting, node)?])).await?;
    if setting.json {
        print_json(&view);
        return Ok(ExitCode::SUCCESS);
    }
    let baseline = view["baseline_uj_per_token"].as_f64().unwrap_or(0.0) / 1e3;
    println!("energy of {} in its last epochs; baseline {baseline} mJ per token", text(&view, "node_id"));
    println!("{:<8}  {:<9}  {:>10}  {:>12}  {:>12}  rating", "epoch", "energy is", "tokens", "energy J", "saved J");
    let rows = each(&view, "epochs").map(|epoch| (epoch["epoch"].to_string(), epoch));
    for (epoch, spent) in rows.chain([("together".to_owned(), &view["total"])]) {
        for how in ["measured", "estimated"] {
            let one = &spent[how];
            let joules = |field: &str| text(one, field).parse::<f64>().unwrap_or(0.0) / 1e6;
            if one["tokens"] != 0 {
                println!(
                    "{epoch:<8}  {how:<9}  {:>10}  {:>12.3}  {:>12.3}  {}",
                    one["tokens"],
                    joules("energy_uj"),
                    joules("saved_uj"),
                    text(one, "rating"),
                );
            }
        }
        if let Some(told) = spent["attested"].as_object() {
            println!(
                "{epoch:<8}  attested on {}, {} answers",
                told["hardware"].as_str().unwrap_or(""),
                told["inferences"]
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn rewards(setting: &Setting, node: Option<NodeId>) -> anyhow::Result<ExitCode> {
    let view = ask(setting, "chain_getRewards", json!([node_or_own(setting, node)?])).await?;
    if setting.json {
        print_json(&view);
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{:<64}  {:<12}  {:>7}  {:>10}  {:>16}  {:>18}",
        "record", "status", "quality", "efficiency", "fee", "paid"
    );
    for record in each(&view, "records") {
        let part = |field: &str| percent(record[field].as_u64().unwrap_or(0));
        println!(
            "{}  {:<12}  {:>6.1}%  {:>9.1}%  {:>16}  {:>18}",
            text(record, "record_id"),
            text(record, "status"),
            part("quality_ppm"),
            part("efficiency_ppm"),
            aria_of(record, "fee"),
            aria_of(record, "paid"),
        );
    }
    if view["next_cursor"].is_string() {
        println!("… older ones: `chain_getRewards` with this cursor: {}", text(&view, "next_cursor"));
    }
    Ok(ExitCode::SUCCESS)
}
