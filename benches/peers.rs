//! What peers cost a node: memory with none, with many that are silent, and with many that speak.
//!
//! `cargo build --release && cargo bench -p aria-benches --bench peers -- 100`: one node as a process, 100 peers in this one, each
//! with a key and a TLS connection of its own.

#![expect(clippy::print_stdout, reason = "a bench prints its result")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aria_benches::program;
use aria_chain::codec::Versioned;
use aria_chain::ids::BlockHash;
use aria_chain::keys::NodeKey;
use aria_chain::store::{OpenOptions, SledStore, Store};
use aria_chain::units::Height;
use aria_node::consensus::talk::Gossip;
use aria_node::network::{Channel, Identity, Kept, Network, NetworkConfig};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

struct Node {
    child: Child,
    p2p: String,
}

impl Node {
    fn start(folder: &Path) -> Node {
        let mut command = Command::new(program());
        command.arg("--data-dir").arg(folder).args(["--json", "node", "start", "--threads", "1"]);
        for flag in ["--port", "--api-port", "--rpc-port", "--dashboard-port"] {
            command.args([flag, "0"]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("aria starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).expect("a ready line");
        Node { child, p2p: ready["p2p"].as_str().expect("an address").to_owned() }
    }

    fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of memory");
        let kib: f64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        kib / 1_024.0
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("the child is ours");
    }
}

fn main() {
    let Some(count) = std::env::args().find_map(|word| word.parse::<u32>().ok()) else {
        println!("give a number of peers, as in: -- 100");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    // A first start makes the chain; its name and first hash are read while nobody has it open.
    drop(Node::start(folder.path()));
    let (store, _) = SledStore::open_existing(&folder.path().join("chain"), OpenOptions::default()).expect("a chain");
    let chain = store.chain().clone();
    drop(store);
    let node = Node::start(folder.path());
    let alone = node.resident_mib();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let peers: Vec<Network> = (0..count)
        .map(|_| {
            let key = Arc::new(NodeKey::generate().expect("a key"));
            let identity = Identity { key, chain_id: chain.chain_id.clone(), genesis: chain.genesis_hash };
            runtime.block_on(connect(identity, node.p2p.clone()))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let silent = node.resident_mib();
    let tip = Gossip::Tip(Height::ZERO, BlockHash::ZERO).encode();
    let mut most: f64 = 0.0;
    for _ in 0..100 {
        for peer in &peers {
            (0..20).for_each(|_| peer.broadcast(Channel::Gossip, &tip, None));
        }
        std::thread::sleep(Duration::from_millis(100));
        most = most.max(node.resident_mib());
    }
    let connected = peers.iter().filter(|peer| !peer.peers().is_empty()).count();
    println!(
        "{connected} of {count} peers: {alone:.1} MiB alone, {silent:.1} MiB with silent peers ({:.0} KiB each), at most {most:.1} MiB while each says 200 things a second",
        (silent - alone) * 1_024.0 / f64::from(count)
    );
}

async fn connect(identity: Identity, address: String) -> Network {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let bound = listener.local_addr().expect("bound");
    let config = NetworkConfig { outbound_max: 0, ..NetworkConfig::default() };
    let (network, mut events) =
        Network::start((listener, bound), identity, config, Kept::default(), None, CancellationToken::new());
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    network.dial(address);
    network
}
