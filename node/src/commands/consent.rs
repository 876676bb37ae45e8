//! `aria consent`: what this node lets others do with its machine, in force and on chain.

use std::process::ExitCode;

use aria_chain::consent::Consent;
use aria_chain::ids::NodeId;
use aria_chain::transaction::Action;
use aria_rpc::consent::{amend, show};
use serde_json::{Value, json};

use super::{Setting, print_json, wallet};
use crate::cli::{ConsentCommand, StateArgs, TermsArgs};
use crate::client::{admin, rpc};
use crate::consent::{InForce, file};
use crate::data_dir::DataDir;

/// How a contract is stated, where there is none.
const NONE_STATED: &str = "no consent is stated: this node answers whoever reaches its doors, with all of its machine
state one with `aria consent set`, as in

  aria consent set --cpu 25 --ram 512 --schedule 08:00-22:00 --days mon-fri";

pub(super) async fn consent(setting: &Setting, command: ConsentCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConsentCommand::Show { node: None, rpc: None } => show_own(setting).await,
        ConsentCommand::Show { node, rpc } => {
            let node = node.map_or_else(|| setting.own_key().map(|key| key.node_id()), Ok)?;
            show_registered(setting, node, rpc.as_deref()).await
        }
        ConsentCommand::Set { terms, register } => set(setting, &terms, &register).await,
        ConsentCommand::Revoke { register } => revoke(setting, &register).await,
    }
}

/// The contract in force, or kept for the next start, as the private door shows it; null where none is stated.
async fn in_force(setting: &Setting) -> anyhow::Result<Value> {
    let dir = setting.existing();
    if dir.running().is_some() {
        return Ok(admin(&dir.admin_socket(), "admin_getConsent", json!([])).await?);
    }
    Ok(file::read(&dir, &setting.config.consent)?.map_or(Value::Null, view))
}

fn view(InForce { contract, is_revoked }: InForce) -> Value {
    json!({"contract": show(&contract), "digest": contract.digest(), "revoked": is_revoked})
}

async fn show_own(setting: &Setting) -> anyhow::Result<ExitCode> {
    let stated = in_force(setting).await?;
    let running = setting.existing().running();
    let registered = match &running {
        Some(node) => rpc(&node.rpc, "chain_getConsent", json!([node.node_id])).await?,
        None => Value::Null,
    };
    if setting.json {
        print_json(&json!({"in_force": stated, "is_running": running.is_some(), "registered": registered}));
        return Ok(ExitCode::SUCCESS);
    }
    if stated.is_null() {
        println!("{NONE_STATED}");
        return Ok(ExitCode::SUCCESS);
    }
    print_contract(&stated["contract"]);
    if stated["revoked"] == json!(true) {
        println!("\nrevoked: nothing is answered until `aria consent set`");
    } else if running.is_some() {
        println!("\nin force on the running node");
    } else {
        println!("\nin force when the node starts");
    }
    if running.is_some() {
        println!("{}", registration(&stated, &registered));
    }
    Ok(ExitCode::SUCCESS)
}

/// How what is in force stands to what is on chain.
fn registration(stated: &Value, registered: &Value) -> String {
    let place = format!("revision {} since block {}", registered["revision"], registered["height"]);
    if registered.is_null() {
        "not registered on chain; `aria consent set` does that".to_owned()
    } else if registered["revoked"] == json!(true) {
        format!("on chain it is revoked ({place})")
    } else if stated["revoked"] == json!(true) || registered["digest"] != stated["digest"] {
        format!("on chain stands another one ({place}); `aria consent set` or `revoke` registers this one")
    } else {
        format!("registered on chain as {place}, digest {}", registered["digest"].as_str().unwrap_or_default())
    }
}

async fn show_registered(setting: &Setting, node: NodeId, named: Option<&str>) -> anyhow::Result<ExitCode> {
    let url = wallet::door(setting, named)?;
    let registered = rpc(&url, "chain_getConsent", json!([node])).await?;
    if setting.json {
        print_json(&registered);
    } else if registered.is_null() {
        println!("{node} has registered no consent");
    } else {
        print_contract(&registered["contract"]);
        let state = if registered["revoked"] == json!(true) { "revoked" } else { "registered" };
        println!("{state} as revision {} in block {}", registered["revision"], registered["height"]);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_contract(contract: &Value) {
    let list = |field: &str| {
        let names = contract[field].as_array().map(Vec::as_slice).unwrap_or_default();
        names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    let truth = |field: &str| if contract[field] == json!(true) { "allowed" } else { "not allowed" };
    if contract.is_null() {
        return;
    }
    println!("processors   {} %", contract["cpu_percent"]);
    println!("memory       {} MB", contract["max_ram_mb"]);
    println!("bandwidth    {} Mbit/s", contract["max_bandwidth_mbps"]);
    println!("schedule     {} UTC", contract["schedule"].as_str().unwrap_or_default());
    println!("days         {}", list("days"));
    println!("tasks        {}", list("task_types"));
    println!("at once      {} answers", contract["max_concurrent_tasks"]);
    println!("least reward {} ARIA", contract["min_reward_per_inference"]);
    println!("logging      {}", truth("allow_logging"));
    println!("its place    {}", truth("allow_geo_tracking"));
}

async fn set(setting: &Setting, terms: &TermsArgs, register: &StateArgs) -> anyhow::Result<ExitCode> {
    let (dir, fields) = (setting.existing(), terms.fields());
    // What can be in no contract is said before anybody is asked.
    amend(Consent::default(), &fields)?;
    let stated = if dir.running().is_some() {
        admin(&dir.admin_socket(), "admin_setConsent", json!({"contract": fields})).await?
    } else {
        let dir = DataDir::create(&setting.data_dir)?;
        let kept = file::read(&dir, &setting.config.consent)?;
        let base = kept.map_or_else(|| amend(Consent::default(), &setting.config.consent), |kept| Ok(kept.contract))?;
        let in_force = InForce { contract: amend(base, &fields)?, is_revoked: false };
        file::write(&dir, in_force)?;
        view(in_force)
    };
    let clauses = stated["contract"].as_object().cloned().unwrap_or_default();
    let contract = amend(Consent::default(), &clauses)?;
    if !setting.json {
        print_contract(&stated["contract"]);
    }
    conclude(setting, stated, Some(contract), register).await
}

async fn revoke(setting: &Setting, register: &StateArgs) -> anyhow::Result<ExitCode> {
    let dir = setting.existing();
    let stated = if dir.running().is_some() {
        admin(&dir.admin_socket(), "admin_revokeConsent", json!([])).await?
    } else {
        let dir = DataDir::create(&setting.data_dir)?;
        let kept = file::read(&dir, &setting.config.consent)?;
        let contract = kept.map_or_else(Consent::default, |kept| kept.contract);
        let in_force = InForce { contract, is_revoked: true };
        file::write(&dir, in_force)?;
        view(in_force)
    };
    conclude(setting, stated, None, register).await
}

/// Registers what is in force now, if that is wanted and possible, and says what happened.
async fn conclude(
    setting: &Setting,
    stated: Value,
    contract: Option<Consent>,
    register: &StateArgs,
) -> anyhow::Result<ExitCode> {
    let is_running = setting.existing().running().is_some();
    let (ordered, reason) = if register.no_register {
        (None, Some("not asked for".to_owned()))
    } else if !is_running {
        (None, Some("no node is running here; `aria consent set` or `revoke` registers it then".to_owned()))
    } else {
        match registered(setting, contract, register).await {
            Ok(ordered) => (ordered, None),
            Err(error) => (None, Some(format!("{error:#}"))),
        }
    };
    let is_failure = is_running && !register.no_register && reason.is_some();
    if setting.json {
        print_json(
            &json!({"in_force": stated, "is_running": is_running, "registered": ordered, "not_registered": reason}),
        );
    } else {
        let what = if contract.is_some() { "in force" } else { "revoked" };
        println!("\n{what} {}", if is_running { "at once" } else { "when the node starts" });
        match (&ordered, &reason) {
            (Some(ordered), _) => println!("registered: {}", wallet::said(ordered)?),
            (None, Some(reason)) => println!("not registered on chain: {reason}"),
            (None, None) => println!("on chain it stands so already"),
        }
    }
    Ok(if is_failure { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The order that registers it; none where the chain has it so already.
async fn registered(
    setting: &Setting,
    contract: Option<Consent>,
    register: &StateArgs,
) -> anyhow::Result<Option<Value>> {
    let key = setting.own_key()?;
    let url = wallet::door(setting, register.order.rpc.as_deref())?;
    let before = rpc(&url, "chain_getConsent", json!([key.node_id()])).await?;
    let is_so = match contract {
        Some(contract) => before["digest"] == json!(contract.digest()),
        None => before.is_null() || before["revoked"] == json!(true),
    };
    if is_so {
        return Ok(None);
    }
    wallet::order(setting, &key, Action::Consent { contract }, &register.order).await.map(Some)
}
