//! Kill -9 at any moment, and damage on disk.

use std::{
    io::{Seek, SeekFrom, Write},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aria_tests::{Node, aria, http};
use serde_json::{Value, json};

#[test]
fn kill_9_under_load_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let acknowledged = Mutex::new(Vec::new());
    for round in 0..4_u64 {
        let node = Node::start(folder.path());
        let (address, model) = (node.address("api").to_owned(), node.ready["model"].clone());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for client in 0..3 {
                let (address, model, stop, acknowledged) = (&address, &model, &stop, &acknowledged);
                scope.spawn(move || {
                    for turn in 0..1000 {
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        let question = format!("What is {client} plus {turn}?");
                        let body = json!({"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 12});
                        if let Some(id) = try_ask(address, &body) {
                            acknowledged.lock().unwrap().push(id);
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(700 + round * 450));
            node.kill();
            stop.store(true, Ordering::SeqCst);
        });
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > 20, "the load was real: {}", acknowledged.len());
    let node = Node::start(folder.path());
    for id in &acknowledged {
        node.sealed(id);
    }
    let (status, _) = node.terminate();
    assert!(status.success());
    let report = aria(folder.path(), &["--json", "ledger", "verify"]);
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stdout));
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["ok"], true, "{report}");
}

#[test]
fn a_full_disk_is_said_and_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_on_a_small_disk(folder.path(), 2 << 20);
    let question = json!({"model": node.ready["model"], "messages": [{"role": "user", "content": "What is 7 plus 5?"}], "max_tokens": 2});
    let mut acknowledged = Vec::new();
    let refused = loop {
        let answer = node.post("/v1/chat/completions", &question);
        match answer.json()["aria"]["record_id"].as_str() {
            Some(id) if answer.status == 200 => acknowledged.push(id.to_owned()),
            _ => break answer,
        }
        assert!(acknowledged.len() < 5000, "two MiB hold no more than a few hundred records");
    };
    // The first answer that could not be kept was computed and says so, or was not begun any more.
    assert!(matches!(refused.status, 200 | 503), "{} {}", refused.status, refused.body);
    let health = http::get(node.address("api"), "/health");
    assert_eq!(health.status, 503, "{}", health.body);
    let reason = health.json()["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("free some space"), "{reason}");
    let again = node.post("/v1/chat/completions", &question);
    let is_stopped = again.status == 503 && again.json()["error"]["code"] == "store_stopped";
    assert!(is_stopped || again.json()["aria"]["record_id"].is_null(), "{}", again.body);
    node.terminate();
    assert!(acknowledged.len() > 50, "records were kept before the disk was full: {}", acknowledged.len());

    let node = Node::start(folder.path());
    for id in &acknowledged {
        node.sealed(id);
    }
    assert_eq!(http::get(node.address("api"), "/health").status, 200);
}

/// Asks until the connection breaks; the record's id, if the whole answer came.
pub(crate) fn try_ask(address: &str, body: &Value) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    let text = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n"
    );
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{text}", text.len()).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let answer: Value = serde_json::from_str(body).ok()?;
    Some(answer["aria"]["record_id"].as_str()?.to_owned())
}

#[test]
fn a_tampered_store_is_detected_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let answer = node.ask("What is a block?");
    let id = answer["aria"]["record_id"].as_str().unwrap().to_owned();
    let record = node.sealed(&id);
    node.terminate();
    let clean = aria(folder.path(), &["--json", "ledger", "verify"]);
    assert!(clean.status.success(), "{}", String::from_utf8_lossy(&clean.stdout));

    // The commitment to the answer, as raw bytes, wherever the store keeps it.
    let wanted = hex(record["output_hash"].as_str().unwrap());
    let hits = overwrite(&folder.path().join("chain"), &wanted);
    assert!(hits > 0, "the record's bytes were found on disk");
    let report = aria(folder.path(), &["--json", "ledger", "verify"]);
    assert_eq!(report.status.code(), Some(4), "{}", String::from_utf8_lossy(&report.stdout));
    let text = String::from_utf8_lossy(&report.stdout).into_owned() + &String::from_utf8_lossy(&report.stderr);
    assert!(
        text.contains(&format!("height\":{}", record["height"]))
            || text.contains(&format!("height {}", record["height"])),
        "the height is named: {text}"
    );
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Flips the first byte of every occurrence of `wanted` in the files below `folder`.
fn overwrite(folder: &Path, wanted: &[u8]) -> usize {
    let mut hits = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            hits += overwrite(&path, wanted);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len().saturating_sub(wanted.len()) {
            if &bytes[at..at + wanted.len()] == wanted {
                let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.seek(SeekFrom::Start(at as u64)).unwrap();
                file.write_all(&[wanted[0] ^ 1]).unwrap();
                hits += 1;
            }
        }
    }
    hits
}

#[test]
fn a_stop_ends_open_streams_within_seconds_and_a_restart_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let before = node.result("chain_status", json!([]));
    let body = json!({"model": node.ready["model"], "messages": [{"role": "user", "content": "Tell me a story about a wolf."}],
                      "max_tokens": 1500, "stream": true, "temperature": 1.0, "logit_bias": {"4095": -100, "4094": -100}});
    let stream = http::send(
        node.address("api"),
        "POST",
        "/v1/chat/completions",
        &[("content-type", "application/json")],
        &body.to_string(),
    );
    std::thread::sleep(Duration::from_millis(150));
    let (status, took) = node.terminate();
    drop(stream);
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    let node = Node::start(folder.path());
    let after = node.result("chain_status", json!([]));
    assert_eq!(before["genesis_hash"], after["genesis_hash"]);
    node.sealed(node.ask("Hi!")["aria"]["record_id"].as_str().unwrap());
}
