//! `aria node`: start, status, stop.

use std::{
    io::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{Setting, not_running, print_json};
use crate::{
    cli::StartArgs,
    client::{admin, rpc},
    config::NodeConfig,
    data_dir::RunningNode,
    node::Node,
};

/// Longest wait for a node that was told to stop: its stages may take twelve seconds each.
const STOP_MAX: Duration = Duration::from_secs(40);

pub(super) async fn start(setting: &Setting, args: &StartArgs) -> anyhow::Result<ExitCode> {
    let config = NodeConfig::settle(args, &setting.config)?;
    let stop = CancellationToken::new();
    tokio::spawn(listen_for_signals(stop.clone()));
    let begun = Instant::now();
    let node = Node::start(&config, &setting.data_dir, stop.clone()).await?;
    announce(setting, &node.running, begun.elapsed());
    node.run().await?;
    Ok(ExitCode::SUCCESS)
}

/// The first signal stops in order; the second at once.
pub(super) async fn listen_for_signals(stop: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals cannot be heard; use `aria node stop`");
        return;
    };
    let mut wait = async || {
        tokio::select! {
            _ = interrupt.recv() => "Ctrl-C",
            _ = terminate.recv() => "SIGTERM",
        }
    };
    let signal = wait().await;
    eprintln!("{signal}: stopping; open answers may end first (again to stop at once)");
    stop.cancel();
    wait().await;
    std::process::exit(130);
}

fn announce(setting: &Setting, node: &RunningNode, took: Duration) {
    let RunningNode { api, rpc, dashboard, model, chain_id, node_id, .. } = node;
    if setting.json {
        let mut line = json!(node);
        line["event"] = json!("ready");
        print_json(&line);
    } else {
        println!(
            "aria {} is ready ({} ms)\n\n  OpenAI API  {api}\n  JSON-RPC    {rpc}\n  status page {dashboard}\n  model       {model}\n  chain       {chain_id}\n  node        {node_id}\n  data        {}\n\nAsk it something:\n\n  curl -s {api}/chat/completions -H 'content-type: application/json' \\\n    -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"What is a block?\"}}]}}'\n\nCtrl-C stops it.",
            node.version,
            took.as_millis(),
            node.data_dir.display(),
        );
    }
    // A reader that waits for this line sees it now.
    let _ = std::io::stdout().flush();
}

pub(super) async fn status(setting: &Setting) -> anyhow::Result<ExitCode> {
    let Some(node) = setting.existing().running() else { return Err(not_running(&setting.data_dir)) };
    let mut view = rpc(&node.rpc, "node_status", json!([])).await?;
    let chain = rpc(&node.rpc, "chain_status", json!([])).await?;
    let pending = rpc(&node.rpc, "mempool_status", json!([])).await?;
    for (key, value) in [("height", &chain["height"]), ("hash", &chain["hash"]), ("pending", &pending["pending"])] {
        view[key] = value.clone();
    }
    for (key, value) in [("api", &node.api), ("rpc", &node.rpc), ("dashboard", &node.dashboard)] {
        view[key] = json!(value);
    }
    if setting.json {
        print_json(&view);
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in view.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        println!("{name:<14} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn stop(setting: &Setting) -> anyhow::Result<ExitCode> {
    let dir = setting.existing();
    let Some(node) = dir.running() else { return Err(not_running(&setting.data_dir)) };
    admin(&dir.admin_socket(), "admin_stop", json!([])).await?;
    let begun = Instant::now();
    while dir.running().is_some_and(|running| running.pid == node.pid) {
        if begun.elapsed() > STOP_MAX {
            anyhow::bail!("process {} is still stopping after {} s; see its log", node.pid, STOP_MAX.as_secs());
        }
        sleep(Duration::from_millis(20)).await;
    }
    if setting.json {
        print_json(&json!({"stopped": true, "pid": node.pid}));
    } else {
        println!("stopped (process {})", node.pid);
    }
    Ok(ExitCode::SUCCESS)
}
