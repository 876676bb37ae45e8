//! `aria devnet`: a whole network of processes on this machine, with a table of what they do.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use aria_chain::keys::NodeKey;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::node::listen_for_signals;
use super::{Setting, print_json};
use crate::cli::DevnetArgs;
use crate::client::{admin, rpc};
use crate::data_dir::DataDir;
use crate::node::DEVNET;

/// Ports of one node: peers, OpenAI API, JSON-RPC, status page.
const PORTS_PER_NODE: u16 = 4;
/// Most nodes of one network on one machine.
const NODES_MAX: u16 = 32;
/// Longest wait for all nodes to be ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// What each node pays for an answer to its clients: the least by which the usual answer is minted its whole reward.
const CLIENT_FEE: &str = "0.003";
/// How often the table is made anew.
const TABLE_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for a node that was told to stop.
const STOP_MAX: Duration = Duration::from_secs(40);

/// A node of the network.
struct Member {
    dir: DataDir,
    node_id: String,
    base_port: u16,
    child: Child,
    has_ended: bool,
}

/// Runs the network in the data directory if that was named for it, else in `devnet` below it.
pub(super) async fn devnet(setting: &Setting, args: &DevnetArgs, is_named: bool) -> anyhow::Result<ExitCode> {
    if !(1..=NODES_MAX).contains(&args.nodes) {
        bail!("nodes must be 1 to {NODES_MAX}");
    }
    if args.base_port.checked_add(args.nodes * PORTS_PER_NODE).is_none() || args.base_port == 0 {
        bail!("base-port must leave room for {} ports", args.nodes * PORTS_PER_NODE);
    }
    let most = args.nodes.saturating_sub(1).max(1);
    if !(1..=most).contains(&args.pipeline) {
        bail!("pipeline must be 1 to {most}: who gives an answer does not check it, and somebody has to");
    }
    let stop = CancellationToken::new();
    tokio::spawn(listen_for_signals(stop.clone()));
    let below = setting.data_dir.join("devnet");
    let folder = std::path::absolute(if is_named { &setting.data_dir } else { &below })?;
    if DataDir::existing(&folder).key_file().exists() {
        bail!("{} belongs to a node already; name another folder with --data-dir", folder.display());
    }
    check_ports(args)?;
    let mut members = start(&folder, args)?;
    let ready = wait_until_ready(&mut members, &stop).await;
    if let Err(error) = ready {
        shut_down(&mut members).await;
        return Err(error);
    }
    let description = describe(&members);
    DataDir::existing(&folder).write_private(&folder.join("devnet.json"), description.to_string().as_bytes())?;
    if setting.json {
        print_json(&description);
    } else {
        println!("{} nodes run in {}. Ctrl-C stops them.\n", members.len(), folder.display());
    }
    // A script that waits for this line sees it now.
    let _ = std::io::stdout().flush();
    watch(setting, &mut members, &stop).await;
    shut_down(&mut members).await;
    Ok(ExitCode::SUCCESS)
}

/// Makes keys and one genesis for all, unless an earlier start did, and starts the processes.
fn start(folder: &Path, args: &DevnetArgs) -> anyhow::Result<Vec<Member>> {
    DataDir::create(folder)?;
    let mut dirs = Vec::new();
    for index in 0..args.nodes {
        let dir = DataDir::create(&folder.join(format!("node-{index}")))?;
        let key = NodeKey::load_or_create(&dir.key_file())?;
        dirs.push((dir, key.node_id().to_string()));
    }
    let keys: Vec<String> = dirs.iter().map(|(_, key)| key.clone()).collect();
    let genesis = settle_genesis(folder, &keys)?;
    let port = |index: u16, door: u16| args.base_port + index * PORTS_PER_NODE + door;
    let program = std::env::current_exe().context("this program's own file")?;
    let mut members = Vec::new();
    for (index, (dir, node_id)) in (0..args.nodes).zip(dirs) {
        let peers = (0..args.nodes).filter(|peer| *peer != index).map(|peer| format!("127.0.0.1:{}", port(peer, 0)));
        let log = File::create(dir.path().join("node.log")).context("the log of a node")?;
        let mut command = Command::new(&program);
        command.arg("--data-dir").arg(dir.path()).args(["node", "start", "--genesis"]).arg(&genesis);
        command.args(["--threads", &args.threads.to_string(), "--client-fee", CLIENT_FEE]);
        if args.nodes > 1 {
            command.args(["--bootstrap", &peers.collect::<Vec<_>>().join(",")]);
        }
        if args.pipeline > 1 {
            let stages = (1..args.pipeline).map(|step| keys[usize::from((index + step) % args.nodes)].as_str());
            command.args(["--stages", &stages.collect::<Vec<_>>().join(",")]);
            command.args(["--serve-stages", &keys.join(",")]);
        }
        for (door, flag) in (0..).zip(["--port", "--api-port", "--rpc-port", "--dashboard-port"]) {
            command.args([flag, &port(index, door).to_string()]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("a node")?;
        members.push(Member { dir, node_id, base_port: port(index, 0), child, has_ended: false });
    }
    Ok(members)
}

/// The development chain with these keys as its validators. A folder keeps the one it has.
fn settle_genesis(folder: &Path, keys: &[String]) -> anyhow::Result<PathBuf> {
    let path = folder.join("genesis.toml");
    if let Ok(text) = std::fs::read_to_string(&path) {
        if keys.iter().all(|key| text.contains(key.as_str())) {
            return Ok(path);
        }
        bail!("{} is a network of other nodes; name another folder or the same number of nodes", path.display());
    }
    let mut file: toml::Table = DEVNET.parse().expect("the file that is compiled in is sound");
    let digits: String = keys[0].chars().take(8).collect();
    file.insert("chain_id".into(), format!("aria-devnet-{digits}").into());
    let table = |key: &str, fields: &[(&str, i64)]| {
        let mut entry = toml::Table::new();
        entry.insert("key".into(), key.into());
        entry.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())));
        toml::Value::Table(entry)
    };
    let validators = keys.iter().map(|key| table(key, &[("power", 1)])).collect();
    let amounts = [("balance_nano", 1_000_000_000_000_000), ("bond_nano", 1_000_000_000_000)];
    let own = keys.iter().map(|key| table(key, &amounts));
    // The faucet stays.
    let others = file["accounts"].as_array().into_iter().flatten();
    let others = others.filter(|account| account["key"].as_str() != Some("local")).cloned();
    let accounts = own.chain(others).collect();
    file.insert("validators".into(), toml::Value::Array(validators));
    file.insert("accounts".into(), toml::Value::Array(accounts));
    DataDir::existing(folder).write_private(&path, file.to_string().as_bytes())?;
    Ok(path)
}

/// A port that somebody uses is found out here, where its remedy is known.
fn check_ports(args: &DevnetArgs) -> anyhow::Result<()> {
    for port in args.base_port..args.base_port + args.nodes * PORTS_PER_NODE {
        if let Err(error) = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)) {
            bail!("port {port} cannot be used: {error}; choose others with --base-port");
        }
    }
    Ok(())
}

async fn wait_until_ready(members: &mut [Member], stop: &CancellationToken) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        if let Some(ended) = members.iter_mut().find_map(Member::end) {
            bail!("a node ended as it started; see {}", ended.display());
        }
        if members.iter().all(|member| member.dir.running().is_some()) {
            return Ok(());
        }
        if stop.is_cancelled() {
            bail!("stopped before all nodes were ready");
        }
        if begun.elapsed() > READY_MAX {
            bail!("not all nodes are ready after {} s; see their node.log", READY_MAX.as_secs());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// What scripts need to drive the network, and to break it.
fn describe(members: &[Member]) -> Value {
    let node = |member: &Member| {
        json!({
            "pid": member.child.id(),
            "node_id": member.node_id,
            "data_dir": member.dir.path(),
            "p2p_port": member.base_port,
            "api_port": member.base_port + 1,
            "rpc_port": member.base_port + 2,
            "dashboard_port": member.base_port + 3,
            "log": member.log(),
        })
    };
    json!({"event": "ready", "nodes": members.iter().map(node).collect::<Vec<_>>()})
}

/// Shows the table until told to stop, or until nobody is left.
async fn watch(setting: &Setting, members: &mut [Member], stop: &CancellationToken) {
    let is_shown = !setting.json && std::io::stdout().is_terminal();
    let mut lines = 0;
    while !stop.is_cancelled() && members.iter().any(|member| !member.has_ended) {
        for member in members.iter_mut() {
            if let Some(log) = member.end() {
                eprintln!("node {} ended; see {}", &member.node_id[..8], log.display());
            }
        }
        if is_shown {
            let table = table(members).await;
            if lines > 0 {
                // The cursor goes back over the last table.
                print!("\x1b[{lines}A\x1b[J");
            }
            print!("{table}");
            let _ = std::io::stdout().flush();
            lines = table.lines().count();
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(TABLE_EVERY) => {}
        }
    }
}

async fn table(members: &[Member]) -> String {
    let mut rows = vec![format!(
        "{:<10}{:>8}  {:<18}{:>6}{:>9}  {:<10}{}",
        "node", "height", "block", "peers", "pending", "proposer", "OpenAI API"
    )];
    for member in members {
        rows.push(member.row().await);
    }
    rows.join("\n") + "\n"
}

async fn shut_down(members: &mut [Member]) {
    // A node that somebody started again in the place of one that ended is not ours to stop.
    for member in members.iter().filter(|member| !member.has_ended) {
        // One that hears Ctrl-C itself needs no telling.
        let _ = admin(&member.dir.admin_socket(), "admin_stop", json!([])).await;
    }
    let begun = Instant::now();
    while members.iter_mut().any(|member| !member.has_ended && member.end().is_none()) && begun.elapsed() < STOP_MAX {
        sleep(Duration::from_millis(20)).await;
    }
    for member in members.iter_mut().filter(|member| !member.has_ended) {
        eprintln!("node {} does not stop and is killed", &member.node_id[..8]);
        // It may end at this moment by itself.
        let _ = member.child.kill();
        let _ = member.child.wait();
    }
}

impl Member {
    fn log(&self) -> PathBuf {
        self.dir.path().join("node.log")
    }

    /// Its log, once, when its process has ended.
    fn end(&mut self) -> Option<PathBuf> {
        if self.has_ended || !matches!(self.child.try_wait(), Ok(Some(_))) {
            return None;
        }
        self.has_ended = true;
        Some(self.log())
    }

    async fn row(&self) -> String {
        let id = &self.node_id[..8];
        if self.has_ended {
            return format!("{id:<10}{:>8}", "ended");
        }
        match self.ask().await {
            Ok((status, header, pending)) => format!(
                "{id:<10}{:>8}  {:<18}{:>6}{:>9}  {:<10}http://127.0.0.1:{}/v1",
                status["height"].as_u64().unwrap_or(0),
                short(&status["hash"], 16),
                status["peers"].as_u64().unwrap_or(0),
                pending["pending"].as_u64().unwrap_or(0),
                short(&header["miner_id"], 8),
                self.base_port + 1,
            ),
            Err(error) => format!("{id:<10}{error}"),
        }
    }

    async fn ask(&self) -> anyhow::Result<(Value, Value, Value)> {
        let url = format!("http://127.0.0.1:{}", self.base_port + 2);
        let status = rpc(&url, "chain_status", json!([])).await?;
        let header = rpc(&url, "chain_getHeader", json!(["latest"])).await?;
        Ok((status, header, rpc(&url, "mempool_status", json!([])).await?))
    }
}

fn short(value: &Value, digits: usize) -> String {
    value.as_str().unwrap_or("").chars().take(digits).collect()
}
