//! A devnet of processes under load: records finalised a second, and how long one takes from submission to finality.
//!
//! `cargo build --release && cargo bench -p aria-benches --bench network -- 4 20 1000` starts 4 validators and submits 1000 proofs a
//! second for 20 seconds; with the word `audited`, records whose auditors are drawn and ask for what lies behind them, which there is not.
//! The proofs are signed by the validators' own keys, as answers of their models would be.

#![expect(clippy::print_stdout, reason = "a bench prints its result")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aria_benches::devnet::Devnet;
use aria_benches::{program, proof_at};
use aria_chain::codec::Versioned;
use aria_chain::keys::NodeKey;
use aria_chain::request::AuditMode;
use aria_chain::units::{Height, Timestamp};
use aria_runtime::genesis::Genesis;
use serde_json::{Value, json};

/// Calls of one batch.
const BATCH: u64 = 20;

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let [nodes, seconds, rate] = numbers[..] else {
        println!("give nodes, seconds and proofs a second, as in: -- 4 20 1000");
        return;
    };
    let is_audited = std::env::args().any(|word| word == "audited");
    let audit = if is_audited { AuditMode::Committee } else { AuditMode::None };
    let folder = tempfile::tempdir().expect("a folder");
    let (devnet, ports) = start(folder.path(), nodes);
    let genesis = std::fs::read_to_string(folder.path().join("genesis.toml")).expect("a genesis file");
    let genesis = Genesis::from_toml(&genesis, None).expect("a good one");
    let (submitted, latencies) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for (index, port) in ports.iter().enumerate() {
            let key = NodeKey::load(&folder.path().join(format!("node-{index}/node.key"))).expect("a key");
            let watched = ports[(index + 1) % ports.len()];
            let (genesis, submitted, latencies) = (&genesis, &submitted, &latencies);
            let (follow, followed) = std::sync::mpsc::channel();
            scope.spawn(move || watch(watched, &followed, latencies));
            let share = Share { begun, seconds, audit, per_second: rate / nodes, number: index as u64 * 1_000_000_000 };
            scope.spawn(move || share.submit(&key, genesis, *port, submitted, &follow));
        }
    });
    let took = begun.elapsed();
    let headers = all_headers(ports[0]);
    let records: u64 = headers.iter().filter_map(|header| header["record_count"].as_u64()).sum();
    let blocks = headers.len();
    let sent: u64 = ports.iter().flat_map(|port| sent_by(*port)).sum();
    let caught_up = catch_up(folder.path(), &ports, blocks as u64);
    let waiting = call(ports[0], "mempool_status", &json!([]))["pending"].as_u64().unwrap_or(0);
    drop(devnet);
    let mut latencies = latencies.into_inner().expect("no thread panicked");
    latencies.sort_unstable();
    let at = |share: usize| latencies.get((latencies.len() * share / 100).min(latencies.len().saturating_sub(1)));
    println!(
        "{nodes} validators, {} submitted in {:.1} s: {records} final in {blocks} blocks, {:.0} records/s, {waiting} still wait; submit to final p50 {:?} p99 {:?} ms of {}",
        submitted.load(Ordering::Relaxed),
        took.as_secs_f64(),
        records as f64 / took.as_secs_f64(),
        at(50),
        at(99),
        latencies.len(),
    );
    println!(
        "{:.0} bytes on the wire a record and {:.0} KiB a block, all nodes together",
        sent as f64 / records.max(1) as f64,
        sent as f64 / 1_024.0 / blocks.max(1) as f64
    );
    println!(
        "a new node read, checked and executed {blocks} blocks in {:.2} s: {:.0} blocks/s, {:.0} records/s",
        caught_up.as_secs_f64(),
        blocks as f64 / caught_up.as_secs_f64(),
        records as f64 / caught_up.as_secs_f64()
    );
}

/// Starts a node without a vote and without a chain; says how long after it was ready it had all blocks.
fn catch_up(folder: &Path, ports: &[u16], height: u64) -> Duration {
    let peers: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{}", port - 2)).collect();
    let mut command = Command::new(program());
    command.arg("--data-dir").arg(folder.join("late")).args(["--json", "node", "start", "--threads", "1"]);
    command.arg("--genesis").arg(folder.join("genesis.toml")).args(["--bootstrap", &peers.join(",")]);
    for flag in ["--port", "--api-port", "--rpc-port", "--dashboard-port"] {
        command.args([flag, "0"]);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("aria starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let begun = Instant::now();
    let ready: Value = serde_json::from_str(&line).expect("a ready line");
    let port = ready["rpc"].as_str().and_then(|url| url.rsplit(':').next()?.parse().ok()).expect("a port");
    while call(port, "chain_status", &json!([]))["height"].as_u64() < Some(height) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = begun.elapsed();
    child.kill().and_then(|()| child.wait()).expect("the child is ours");
    took
}

/// What one thread submits.
struct Share {
    audit: AuditMode,
    begun: Instant,
    seconds: u64,
    per_second: u64,
    number: u64,
}

impl Share {
    fn submit(
        &self,
        key: &NodeKey,
        genesis: &Genesis,
        port: u16,
        submitted: &AtomicU64,
        follow: &Sender<(Value, Instant)>,
    ) {
        let mut node = Connection::open(port);
        let mut count = 0;
        while self.begun.elapsed() < Duration::from_secs(self.seconds) {
            let due = self.begun.elapsed().as_secs_f64() * self.per_second as f64;
            if (count as f64) > due {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis();
            let now = Timestamp::new(u64::try_from(now).expect("a date"));
            let batch = (0..BATCH).map(|place| {
                let proof = proof_at(key, genesis, (Height::new(1_000), now), self.number + count + place, self.audit);
                json!({"jsonrpc": "2.0", "id": place, "method": "mempool_submit", "params": [hex::encode(proof.encode())]})
            });
            let sent = Instant::now();
            let answers = node.post(&Value::Array(batch.collect()));
            let answers = answers.as_array().expect("a batch");
            for answer in answers {
                assert!(answer["result"].is_string(), "{answer}");
            }
            count += BATCH;
            submitted.fetch_add(BATCH, Ordering::Relaxed);
            // One batch in many is followed to its block, as another node sees it.
            if (count / BATCH).is_multiple_of(5) {
                follow.send((answers[0]["result"].clone(), sent)).expect("the watcher watches");
            }
        }
    }
}

/// Waits for each record to be in a block.
fn watch(port: u16, followed: &Receiver<(Value, Instant)>, latencies: &Mutex<Vec<u64>>) {
    let mut node = Connection::open(port);
    for (id, sent) in followed {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "chain_getRecord", "params": [id]});
        while node.post(&request)["result"].is_null() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = u64::try_from(sent.elapsed().as_millis()).expect("short");
        latencies.lock().expect("no thread panics").push(took);
    }
}

fn start(folder: &Path, nodes: u64) -> (Devnet, Vec<u16>) {
    let (devnet, ready) = Devnet::start(folder, nodes, &[]);
    let ports = ready["nodes"].as_array().expect("nodes").iter().map(|node| node["rpc_port"].as_u64().expect("a port"));
    (devnet, ports.map(|port| u16::try_from(port).expect("a port")).collect())
}

fn call(port: u16, method: &str, params: &Value) -> Value {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    Connection::open(port).post(&request)["result"].take()
}

/// Bytes that a node sent to each of its peers.
fn sent_by(port: u16) -> Vec<u64> {
    let peers = call(port, "net_listPeers", &json!([]));
    peers["peers"]
        .as_array()
        .expect("peers")
        .iter()
        .map(|peer| peer["bytes_sent"].as_u64().expect("a number"))
        .collect()
}

fn all_headers(port: u16) -> Vec<Value> {
    let (mut from, mut headers) = (json!(1), Vec::new());
    while !from.is_null() {
        let mut page = call(port, "chain_getHeaders", &json!([from]));
        headers.extend(page["headers"].as_array().cloned().unwrap_or_default());
        from = page["next"].take();
    }
    headers
}

/// One connection that is kept.
struct Connection {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    host: Arc<str>,
}

impl Connection {
    fn open(port: u16) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a node");
        let reader = BufReader::new(stream.try_clone().expect("a socket"));
        Connection { stream, reader, host: format!("127.0.0.1:{port}").into() }
    }

    fn post(&mut self, body: &Value) -> Value {
        let body = body.to_string();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        self.stream.write_all(head.as_bytes()).and_then(|()| self.stream.write_all(body.as_bytes())).expect("sent");
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).expect("a line");
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut answer = vec![0; length];
        self.reader.read_exact(&mut answer).expect("the whole answer");
        serde_json::from_slice(&answer).expect("JSON")
    }
}
