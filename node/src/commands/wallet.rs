//! `aria wallet`: what an account has, and orders of it. This program signs; a node never holds another's key.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use aria_chain::codec::Versioned;
use aria_chain::ids::{ChainId, NodeId};
use aria_chain::keys::NodeKey;
use aria_chain::transaction::{Action, SignedTransaction, Transaction};
use aria_chain::units::{Height, NanoAria};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::{Setting, not_running, print_json};
use crate::amount::Amount;
use crate::cli::{OrderArgs, WalletCommand};
use crate::client::rpc;

/// Blocks for which an order stands. At a heartbeat a minute this is more than a day.
const EXPIRY_BLOCKS: u64 = 2_000;
/// Longest wait for a block that has the order.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// How often to ask for it.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Whoever reads this can spend what the faucet of a devnet has, which is what it is for.
const FAUCET_SEED: &[u8; 32] = b"aria devnet faucet, of no value.";

pub(super) async fn wallet(setting: &Setting, command: WalletCommand) -> anyhow::Result<ExitCode> {
    let own = || setting.own_key();
    match command {
        WalletCommand::Balance { account, rpc } => balance(setting, account, rpc.as_deref()).await,
        WalletCommand::Send { to, amount, order } => {
            run(setting, &own()?, Action::Transfer { to, amount: amount.0 }, &order).await
        }
        WalletCommand::Bond { amount, order } => run(setting, &own()?, Action::Bond { amount: amount.0 }, &order).await,
        WalletCommand::Unbond { amount, order } => {
            run(setting, &own()?, Action::Unbond { amount: amount.0 }, &order).await
        }
        WalletCommand::Faucet { amount, to, order } => {
            let to = to.map_or_else(|| own().map(|key| key.node_id()), Ok)?;
            let faucet = NodeKey::from_seed(FAUCET_SEED);
            run(setting, &faucet, Action::Transfer { to, amount: amount.0 }, &order).await
        }
    }
}

/// The JSON-RPC door of the node to ask.
pub(super) fn door(setting: &Setting, named: Option<&str>) -> anyhow::Result<String> {
    if let Some(url) = named {
        return Ok(if url.contains("://") { url.to_owned() } else { format!("http://{url}/") });
    }
    setting.existing().running().map(|node| node.rpc).ok_or_else(|| not_running(&setting.data_dir))
}

async fn balance(setting: &Setting, account: Option<NodeId>, named: Option<&str>) -> anyhow::Result<ExitCode> {
    let url = door(setting, named)?;
    let account = match account {
        Some(account) => account,
        None => NodeKey::load(&setting.existing().key_file())?.node_id(),
    };
    let view = rpc(&url, "chain_getAccount", json!([account])).await?;
    if setting.json {
        let none = json!({"node_id": account, "balance": "0", "bond": "0", "unbonding": "0", "rewards_total": "0", "nonce": 0, "next_nonce": 0});
        print_json(if view.is_null() { &none } else { &view });
        return Ok(ExitCode::SUCCESS);
    }
    let shown = |field: &str| {
        let nano = view[field].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
        Amount(NanoAria::new(nano)).to_string()
    };
    println!("{account}");
    if view.is_null() {
        println!("  there is no such account yet; the first payment begins it");
        return Ok(ExitCode::SUCCESS);
    }
    println!("  free to spend  {:>24}", shown("balance"));
    println!("  bonded         {:>24}", shown("bond"));
    println!("  of it, freed   {:>24}", shown("unbonding"));
    println!("  earned so far  {:>24}", shown("rewards_total"));
    Ok(ExitCode::SUCCESS)
}

/// Orders something and says what came of it.
async fn run(setting: &Setting, key: &NodeKey, action: Action, args: &OrderArgs) -> anyhow::Result<ExitCode> {
    let ordered = order(setting, key, action, args).await?;
    if setting.json {
        print_json(&ordered);
    } else {
        println!("{}", said(&ordered)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// What came of an order, in words.
pub(super) fn said(ordered: &Value) -> anyhow::Result<String> {
    let (id, receipt) = (text(ordered, "id")?, &ordered["receipt"]);
    if receipt.is_null() {
        return Ok(format!("{id} waits for a block"));
    }
    let fee = Amount(NanoAria::new(text(receipt, "fee")?.parse()?));
    Ok(format!("{id} is in block {}, for a fee of {fee}", receipt["height"]))
}

/// Signs an order, submits it, and waits until a block has it, if that is wanted: its id and receipt.
pub(super) async fn order(setting: &Setting, key: &NodeKey, action: Action, args: &OrderArgs) -> anyhow::Result<Value> {
    let url = door(setting, args.rpc.as_deref())?;
    let status = rpc(&url, "chain_status", json!([])).await?;
    let chain_id: ChainId = text(&status, "chain_id")?.parse().context("the node's chain_id")?;
    let height = status["height"].as_u64().context("the node's height")?;
    let params = rpc(&url, "chain_getParams", json!([])).await?;
    let least = NanoAria::new(params["fee_min_nano"].as_u64().context("the chain's least fee")?);
    let account = rpc(&url, "chain_getAccount", json!([key.node_id()])).await?;
    if account.is_null() {
        bail!(
            "{} has no account on {chain_id}, so nothing to spend; on a devnet `aria wallet faucet` gives some",
            key.node_id()
        );
    }
    let transaction = Transaction {
        chain_id: chain_id.clone(),
        sender: key.node_id(),
        nonce: account["next_nonce"].as_u64().context("the account's next nonce")?,
        fee: args.fee.map_or(least, |fee| fee.0),
        expiry: Height::new(height.saturating_add(EXPIRY_BLOCKS)),
        action,
    };
    let signature = key.sign_transaction(&chain_id, &transaction.id());
    let id = transaction.id().to_string();
    let bytes = hex::encode(SignedTransaction { transaction, signature }.encode());
    rpc(&url, "mempool_submit", json!([bytes])).await?;
    let receipt = if args.no_wait { Value::Null } else { receipt(setting, &url, &id).await? };
    Ok(json!({"id": id, "receipt": receipt}))
}

async fn receipt(setting: &Setting, url: &str, id: &str) -> anyhow::Result<Value> {
    let spinner = if setting.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    spinner.set_message("waiting for a block");
    let begun = Instant::now();
    while begun.elapsed() < WAIT_MAX {
        let receipt = rpc(url, "chain_getReceipt", json!([id])).await?;
        if !receipt.is_null() {
            spinner.finish_and_clear();
            return Ok(receipt);
        }
        spinner.tick();
        tokio::time::sleep(ASK_EVERY).await;
    }
    bail!("no block has it after {} s; it still waits, and `chain_getReceipt` tells of it: {id}", WAIT_MAX.as_secs())
}

fn text<'v>(view: &'v Value, field: &str) -> anyhow::Result<&'v str> {
    view[field].as_str().with_context(|| format!("the node's answer has no {field}"))
}
