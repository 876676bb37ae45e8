//! A network of nodes as processes, started by the program's own command; nodes are killed and started again one by one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http;
use crate::node::{PATIENCE, aria, command, command_with_log};
use crate::wires::{Wire, Wires};

/// What each node pays for an answer to its clients, in ARIA.
const CLIENT_FEE: &str = "0.003";

/// A running network; all of its processes are killed when it is dropped.
#[derive(Debug)]
pub struct Devnet {
    /// The program's own command, where that began it.
    parent: Option<Child>,
    /// Its nodes, in order.
    pub members: Vec<Member>,
    folder: PathBuf,
}

/// One node of the network.
#[derive(Debug)]
pub struct Member {
    /// Its folder.
    pub data_dir: PathBuf,
    /// First of its four ports: peers, OpenAI API, JSON-RPC, status page.
    pub base_port: u16,
    pid: u64,
    /// The process, where a test started it.
    child: Option<Child>,
}

impl Devnet {
    /// Starts a network of so many validators and waits until all are ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start(folder: &Path, nodes: u16) -> Devnet {
        Devnet::start_with(folder, nodes, &[])
    }

    /// The same, on a chain with other parameters.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start_with(folder: &Path, nodes: u16, parameters: &[(&str, i64)]) -> Devnet {
        if !parameters.is_empty() {
            write_genesis(folder, nodes, parameters);
        }
        Devnet::begin(folder, nodes)
    }

    /// The same, on a chain whose genesis knows no model.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start_without_models(folder: &Path, nodes: u16) -> Devnet {
        write_genesis(folder, nodes, &[]);
        let path = folder.join("genesis.toml");
        let text = std::fs::read_to_string(&path).expect("it was just written");
        let mut file: toml::Table = text.parse().expect("it is sound");
        assert!(file.remove("models").is_some(), "there was a model");
        std::fs::write(&path, file.to_string()).expect("the genesis file is written");
        Devnet::begin(folder, nodes)
    }

    /// Starts the nodes of a folder by the program's own command.
    fn begin(folder: &Path, nodes: u16) -> Devnet {
        let base_port = free_ports(4 * nodes);
        let mut command = command(folder);
        command.args(["--json", "devnet", "--nodes", &nodes.to_string()]);
        command.args(["--base-port", &base_port.to_string()]);
        let mut parent = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("aria starts");
        let mut line = String::new();
        let stdout = parent.stdout.take().expect("standard output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the ready line is read");
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            panic!("no ready line but {line:?}; the network ended with {:?}", parent.wait());
        };
        let member = |node: &Value| Member {
            data_dir: node["data_dir"].as_str().expect("a folder").into(),
            base_port: u16::try_from(node["p2p_port"].as_u64().expect("a port")).expect("a port"),
            pid: node["pid"].as_u64().expect("a process"),
            child: None,
        };
        let members = ready["nodes"].as_array().expect("nodes").iter().map(member).collect();
        Devnet { parent: Some(parent), members, folder: folder.to_owned() }
    }

    /// Starts a network in which no two nodes speak to each other but over a wire of their own.
    ///
    /// # Panics
    /// If they do not come together so.
    pub fn wired(folder: &Path, nodes: u16) -> (Devnet, Wires) {
        write_genesis(folder, nodes, &[]);
        let first = free_ports(4 * nodes);
        let member = |index: u16| Member {
            data_dir: folder.join(format!("node-{index}")),
            base_port: first + 4 * index,
            pid: 0,
            child: None,
        };
        let members: Vec<Member> = (0..nodes).map(member).collect();
        let pairs = (0..members.len()).flat_map(|dialler| (0..dialler).map(move |other| (dialler, other)));
        let wire = |(dialler, other): (usize, usize)| ((dialler, other), Wire::to(members[other].base_port));
        let wires = Wires(pairs.map(wire).collect());
        let mut network = Devnet { parent: None, members, folder: folder.to_owned() };
        for dialler in 0..network.members.len() {
            let address = |other: usize| format!("127.0.0.1:{}", wires.0[&(dialler, other)].port);
            network.start_again_at(dialler, &(0..dialler).map(address).collect::<Vec<_>>().join(","), &[]);
            network.wait_for_dialled(dialler, &(0..dialler).map(address).collect());
        }
        (network, wires)
    }

    /// The genesis that all share.
    pub fn genesis(&self) -> PathBuf {
        self.folder.join("genesis.toml")
    }

    /// Peer addresses of all nodes but one, as `--bootstrap` takes them.
    pub fn bootstrap(&self, except: Option<usize>) -> String {
        let others = self.members.iter().enumerate().filter(|(index, _)| Some(*index) != except);
        others.map(|(_, member)| format!("127.0.0.1:{}", member.base_port)).collect::<Vec<_>>().join(",")
    }

    /// Kills a node as kill -9 does.
    ///
    /// # Panics
    /// If it is not running.
    pub fn kill(&mut self, index: usize) {
        let member = &mut self.members[index];
        match member.child.take() {
            Some(mut child) => {
                child.kill().expect("the child can be killed");
                child.wait().expect("the child is ours");
            }
            None => {
                signal("-KILL", member.pid);
                wait_for_end(member.pid);
            }
        }
    }

    /// Starts a killed node again, as it was, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start_again(&mut self, index: usize) {
        self.start_again_with(index, &[]);
    }

    /// The same, with more flags.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start_again_with(&mut self, index: usize, flags: &[&str]) {
        self.start_again_at(index, &self.bootstrap(Some(index)), flags);
    }

    /// Waits until a node has dialled these addresses and no others.
    fn wait_for_dialled(&self, index: usize, addresses: &BTreeSet<String>) {
        let begun = Instant::now();
        loop {
            let peers = self.members[index].result("net_listPeers", json!([]));
            let peers = peers["peers"].as_array().expect("a list").iter();
            let dialled = peers.filter(|peer| peer["direction"] == "outbound");
            let dialled: BTreeSet<String> =
                dialled.map(|peer| peer["address"].as_str().expect("a text").to_owned()).collect();
            if dialled == *addresses {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "node {index} has dialled {dialled:?}, not {addresses:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn start_again_at(&mut self, index: usize, bootstrap: &str, flags: &[&str]) {
        let genesis = self.genesis();
        let member = &mut self.members[index];
        let mut command = command_with_log(&member.data_dir, "info");
        let log = File::options().append(true).create(true).open(member.data_dir.join("node.log"));
        command.stderr(log.expect("the log can be written"));
        command.args(["--json", "node", "start", "--threads", "1", "--client-fee", CLIENT_FEE, "--genesis"]);
        command.arg(genesis).args(flags);
        if !bootstrap.is_empty() {
            command.args(["--bootstrap", bootstrap]);
        }
        for (door, flag) in (0..).zip(["--port", "--api-port", "--rpc-port", "--dashboard-port"]) {
            command.args([flag, &(member.base_port + door).to_string()]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("aria starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("standard output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the ready line is read");
        assert!(line.contains("\"ready\""), "no ready line but {line:?}; {}", member.log());
        member.pid = u64::from(child.id());
        member.child = Some(child);
    }

    /// Waits until every one of these nodes has a height, and returns the hashes of the block there.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub fn hashes_at(&self, nodes: &[usize], height: u64) -> Vec<String> {
        let hash = |index: &usize| {
            let begun = Instant::now();
            loop {
                let header = self.members[*index].result("chain_getHeader", json!([height]));
                if let Some(hash) = header["hash"].as_str() {
                    return hash.to_owned();
                }
                assert!(begun.elapsed() < PATIENCE, "node {index} did not come to height {height}");
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        nodes.iter().map(hash).collect()
    }

    /// Ends the network as Ctrl-C does.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn terminate(mut self) {
        let alone = self.members.iter_mut().filter_map(|member| member.child.as_mut());
        let mut processes: Vec<&mut Child> = match &mut self.parent {
            Some(parent) => vec![parent],
            None => alone.collect(),
        };
        processes.iter().for_each(|process| signal("-TERM", u64::from(process.id())));
        let begun = Instant::now();
        while processes.iter_mut().any(|process| process.try_wait().expect("the child is ours").is_none()) {
            assert!(begun.elapsed() < PATIENCE, "the network did not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Member {
    /// Calls JSON-RPC and returns its result.
    ///
    /// # Panics
    /// If the node answers with an error.
    pub fn result(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut answer = http::post(&format!("127.0.0.1:{}", self.base_port + 2), "/", &body).json();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Asks a question and returns the id of its record.
    ///
    /// # Panics
    /// If the node refuses, or gives no record.
    pub fn ask(&self, question: &str) -> String {
        let body = json!({"model": "aria-tiny", "messages": [{"role": "user", "content": question}], "max_tokens": 8});
        let answer = http::post(&format!("127.0.0.1:{}", self.base_port + 1), "/v1/chat/completions", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["aria"]["record_id"].as_str().expect("a record").to_owned()
    }

    /// Height of its chain.
    pub fn height(&self) -> u64 {
        self.result("chain_status", json!([]))["height"].as_u64().expect("a height")
    }

    /// Waits until a record is in a block, and returns the height.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub fn sealed(&self, record: &str) -> u64 {
        let begun = Instant::now();
        loop {
            let found = self.result("chain_getRecord", json!([record]));
            if let Some(height) = found["block"].as_u64().or_else(|| found["height"].as_u64()) {
                return height;
            }
            let waiting = || self.result("mempool_get", json!([record]));
            assert!(begun.elapsed() < PATIENCE, "record {record} was not sealed, and waits as {}", waiting());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.join("node.log")).unwrap_or_default()
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        // Whatever is still there ends now; what is gone already needs nothing.
        if let Some(parent) = &mut self.parent {
            let _ = parent.kill();
            let _ = parent.wait();
        }
        for member in &mut self.members {
            match &mut member.child {
                Some(child) => {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                None => signal("-KILL", member.pid),
            }
        }
    }
}

/// The development chain of these nodes, with other parameters. Their keys are made now; the network finds them.
fn write_genesis(folder: &Path, nodes: u16, parameters: &[(&str, i64)]) {
    let text = include_str!("../../genesis/devnet.toml");
    let mut file: toml::Table = text.parse().expect("the file of the development chain is sound");
    let table = file["parameters"].as_table_mut().expect("it has parameters");
    for (name, value) in parameters {
        assert!(table.insert((*name).to_owned(), (*value).into()).is_some(), "there is no parameter {name}");
    }
    let entries = |fields: &[(&str, i64)]| {
        let entry = |index: u16| {
            let output = aria(&folder.join(format!("node-{index}")), &["--json", "key", "show"]);
            let key: Value = serde_json::from_slice(&output.stdout).expect("a key");
            let mut entry = toml::Table::new();
            entry.insert("key".into(), key["node_id"].as_str().expect("an id").into());
            entry.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())));
            toml::Value::Table(entry)
        };
        toml::Value::Array((0..nodes).map(entry).collect())
    };
    file.insert("validators".into(), entries(&[("power", 1)]));
    let bond = [("balance_nano", 1_000_000_000_000_000), ("bond_nano", 1_000_000_000_000)];
    file.insert("accounts".into(), entries(&bond));
    std::fs::write(folder.join("genesis.toml"), file.to_string()).expect("the genesis file is written");
}

fn signal(kind: &str, pid: u64) {
    // A process that is gone already is what was wanted.
    let _ = Command::new("kill").args([kind, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Waits until a killed process that is not ours holds nothing any more.
fn wait_for_end(pid: u64) {
    let begun = Instant::now();
    let is_there = || {
        // Its files are free when its last thread has ended; the first one may wait for its parent to notice.
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        threads.into_iter().any(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // Behind the name in parentheses stands the state: Z has ended.
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
        })
    };
    while is_there() {
        assert!(begun.elapsed() < PATIENCE, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The first of so many ports in a row that nobody uses now. They lie below those that the system gives out by itself, so that
/// nobody takes one between this look and the start of the nodes.
fn free_ports(count: u16) -> u16 {
    const FIRST: u16 = 12_000;
    const PLACES: u16 = 320;
    const PLACE: u16 = 64;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    assert!(count <= PLACE, "a network of this size fits a place");
    let process = u16::try_from(std::process::id() % u32::from(PLACES)).expect("small");
    for _ in 0..PLACES {
        let place = (process + NEXT.fetch_add(1, Ordering::Relaxed)) % PLACES;
        let first = FIRST + place * PLACE;
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no {count} free ports in a row");
}
