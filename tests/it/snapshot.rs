//! A node that begins with a snapshot of a running network.

use std::path::Path;
use std::time::{Duration, Instant};

use aria_tests::node::PATIENCE;
use aria_tests::{Devnet, Node, aria};
use serde_json::{Value, json};

/// Blocks come by themselves; a snapshot is taken every ten epochs, that is every forty blocks.
const SHORT: &[(&str, i64)] = &[("epoch_blocks", 4), ("heartbeat_ms", 200)];
/// The block of the first snapshot.
const BASE: u64 = 39;

/// The node of a folder, which knows all of a network.
fn newcomer(network: &Devnet, folder: &Path, flags: &[&str]) -> Node {
    let (genesis, bootstrap) = (network.genesis(), network.bootstrap(None));
    let mut all = vec!["--bootstrap", &bootstrap, "--genesis", genesis.to_str().unwrap()];
    all.extend(flags);
    Node::start_with(folder, &all)
}

/// Waits until a node has a height; returns its status.
fn wait_for(height: u64, status: impl Fn() -> Value) -> Value {
    let begun = Instant::now();
    loop {
        let status = status();
        if status["height"].as_u64() >= Some(height) {
            return status;
        }
        assert!(begun.elapsed() < PATIENCE, "never at height {height}: {status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_newcomer_begins_with_a_snapshot_and_follows() {
    let folder = tempfile::tempdir().unwrap();
    let network = Devnet::start_with(folder.path(), 2, SHORT);
    let old = &network.members[0];
    let early = old.ask("What comes before?");
    assert!(old.sealed(&early) < BASE);
    wait_for(BASE + 3, || old.result("chain_status", json!([])));
    let late = network.members[1].ask("And after?");
    let height = old.sealed(&late);
    let hash_there = |height: u64| old.result("chain_getHeader", json!([height]))["hash"].as_str().unwrap().to_owned();

    let fresh = tempfile::tempdir().unwrap();
    let trust = format!("20:{}", hash_there(20));
    let node = newcomer(&network, fresh.path(), &["--fast-start", "--trust", &trust]);
    let status = wait_for(height, || node.result("chain_status", json!([])));
    let base = status["base_height"].as_u64().unwrap();
    assert!(base >= BASE && (base + 1) % 40 == 0, "{status}");
    assert_eq!(node.result("chain_getHeader", json!([height]))["hash"], json!(hash_there(height)));
    // It has what lies above its base, and says that it has nothing below.
    if height > base {
        node.sealed(&late);
        // It knows the changes of the set since the block that it trusts, and none before.
        let proof = node.result("chain_getLightProof", json!({"id": late, "trusted_height": 20}));
        assert_eq!(proof["header"], old.result("chain_getLightProof", json!([late]))["header"]);
    }
    assert_eq!(node.result("chain_getRecord", json!([early])), Value::Null);
    assert_eq!(node.result("chain_getBlock", json!([base - 1])), Value::Null);
    let verified = node.result("chain_verify", json!([]));
    assert_eq!(verified["ok"], json!(true), "{verified}");

    node.kill();
    let offline = aria(fresh.path(), &["--json", "ledger", "verify"]);
    let offline: Value = serde_json::from_slice(&offline.stdout).unwrap();
    assert_eq!((&offline["ok"], &offline["from"]), (&json!(true), &json!(base)), "{offline}");
    let stats = aria(fresh.path(), &["--json", "ledger", "stats"]);
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert_eq!(stats["base_height"], json!(base), "{stats}");
    let export = aria(fresh.path(), &["ledger", "export"]);
    assert!(String::from_utf8_lossy(&export.stderr).contains(&format!("--from {base}")));
    let export = aria(fresh.path(), &["ledger", "export", "--from", &base.to_string(), "--to", &base.to_string()]);
    assert_eq!(String::from_utf8_lossy(&export.stdout).lines().count(), 1);
    let node = newcomer(&network, fresh.path(), &["--fast-start"]);
    let height = old.sealed(&old.ask("Are you still there?"));
    let status = wait_for(height, || node.result("chain_status", json!([])));
    assert_eq!(status["base_height"], json!(base));
    assert_eq!(node.result("chain_getHeader", json!([height]))["hash"], json!(hash_there(height)));

    // Another history than the trusted one is followed up to where they part, by whatever way.
    let other = tempfile::tempdir().unwrap();
    let misled = newcomer(&network, other.path(), &["--trust", &format!("20:{}", "0".repeat(64))]);
    wait_for(19, || misled.result("chain_status", json!([])));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(misled.result("chain_status", json!([]))["height"], json!(19));
    network.terminate();
}
