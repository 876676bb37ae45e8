//! What it costs to give an answer by several nodes: a devnet of processes on one machine, once each node alone, then two and three together.
//!
//! `cargo build --release && cargo bench -p aria-benches --bench pipeline`: the same long answer again and again, one at a time and eight at
//! once, with its record. On one machine stages share its processors, so what is seen is the price of the hand-overs and none of their gain.

#![expect(clippy::print_stdout, reason = "a bench prints its result")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use aria_benches::devnet::Devnet;
use serde_json::{Value, json};

/// Answers that are timed, after one that is not.
const ANSWERS: usize = 16;

fn main() {
    let mut alone = None;
    for nodes in 1..=3 {
        let folder = tempfile::tempdir().expect("a folder");
        let (devnet, port) = start(folder.path(), nodes);
        let (tokens, by) = ask(port);
        assert_eq!(by, nodes, "all of them answer");
        let begun = Instant::now();
        (0..ANSWERS).for_each(|_| assert_eq!(ask(port), (tokens, nodes)));
        let one = begun.elapsed().as_secs_f64() * 1e6 / (ANSWERS * tokens) as f64;
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..ANSWERS / 4).for_each(|_| assert_eq!(ask(port), (tokens, nodes))));
            }
        });
        let eight = begun.elapsed().as_secs_f64() * 1e6 / (2 * ANSWERS * tokens) as f64;
        drop(devnet);
        let base = *alone.get_or_insert((one, eight));
        println!(
            "{nodes} nodes: {one:.0} us a token one at a time ({:.2} of one node), {eight:.0} eight at once ({:.2})",
            one / base.0,
            eight / base.1
        );
    }
}

fn start(folder: &Path, pipeline: usize) -> (Devnet, u16) {
    let (devnet, ready) = Devnet::start(folder, 4, &["--pipeline", &pipeline.to_string()]);
    let port = |name: &str| u16::try_from(ready["nodes"][0][name].as_u64().expect("a port")).expect("a port");
    // Who is ready has not met the others yet.
    while post(port("rpc_port"), "/", &json!({"jsonrpc": "2.0", "id": 1, "method": "net_listPeers", "params": []}))
        ["result"]["peers"]
        .as_array()
        .is_none_or(|peers| peers.len() < 3)
    {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    (devnet, port("api_port"))
}

/// Tokens of the answer, and how many nodes gave it.
fn ask(port: u16) -> (usize, usize) {
    let body = json!({
        "model": "aria-tiny", "messages": [{"role": "user", "content": "Tell me a story about the sea."}],
        "max_tokens": 150, "seed": 11, "temperature": 1.2,
    });
    let answer = post(port, "/v1/chat/completions", &body);
    let tokens = answer["usage"]["completion_tokens"].as_u64().unwrap_or_else(|| panic!("no answer: {answer}"));
    assert!(answer["aria"]["record_id"].is_string(), "it has a record");
    (usize::try_from(tokens).expect("few"), answer["aria"]["node_ids"].as_array().expect("nodes").len())
}

fn post(port: u16, path: &str, body: &Value) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the door is open");
    let body = body.to_string();
    let head = "content-type: application/json\r\nconnection: close";
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the whole answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}
