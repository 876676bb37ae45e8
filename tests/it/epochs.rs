//! Sets of validators that change: who is away, who contradicts itself, who shouts.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aria_chain::ids::BlockHash;
use aria_chain::keys::NodeKey;
use aria_node::consensus::context::{BlockId, NilOrVal};
use aria_tests::devnet::Member;
use aria_tests::{Devnet, aria};
use serde_json::{Value, json};

use crate::stranger::Stranger;

/// Blocks come by themselves, and an epoch is over in seconds.
const SHORT: &[(&str, i64)] = &[("epoch_blocks", 8), ("heartbeat_ms", 250)];
/// Longest wait for some epochs in which a part of the turns pass.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for what an RPC method says to be so.
fn until(what: &str, member: &Member, method: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = member.result(method, json!([]));
        if is_so(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}: {answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn voters(election: &Value) -> Vec<&str> {
    election["validators"].as_array().unwrap().iter().map(|member| member["node_id"].as_str().unwrap()).collect()
}

fn node_id(data_dir: &Path) -> String {
    let output = aria(data_dir, &["--json", "key", "show"]);
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["node_id"].as_str().unwrap().to_owned()
}

#[test]
fn who_is_away_loses_its_vote_and_gets_it_back() {
    let folder = tempfile::tempdir().unwrap();
    // Five, because fewer than four never stay; two turns for each in an epoch, because one may be missed by anybody.
    let mut network = Devnet::start_with(folder.path(), 5, &[("epoch_blocks", 10), ("heartbeat_ms", 250)]);
    let absent = node_id(&network.members[3].data_dir);
    network.kill(3);
    let election = until("four vote", &network.members[0], "chain_getElection", |election| voters(election).len() == 4);
    assert!(!voters(&election).contains(&absent.as_str()));
    let candidates = election["candidates"].as_array().unwrap();
    let its_own = candidates.iter().find(|candidate| candidate["node_id"] == json!(absent)).unwrap();
    assert!(its_own["absences"].as_u64() > Some(0), "{its_own}");

    // Who knows only the genesis file believes a block by the new set.
    let record = network.members[1].ask("What is a set?");
    let height = network.members[0].sealed(&record);
    let header = network.members[0].result("chain_getHeader", json!([height]));
    let proof = network.members[0].result("chain_getLightProof", json!([record]));
    assert!(!proof["steps"].as_array().unwrap().is_empty());
    let file = folder.path().join("proof.json");
    std::fs::write(&file, proof.to_string()).unwrap();
    let genesis = network.genesis();
    let flags = ["--json", "ledger", "verify-proof", file.to_str().unwrap(), "--genesis", genesis.to_str().unwrap()];
    let away = tempfile::tempdir().unwrap();
    let answer: Value = serde_json::from_slice(&aria(away.path(), &flags).stdout).unwrap();
    assert_eq!((&answer["valid"], &answer["block_hash"]), (&json!(true), &header["hash"]), "{answer}");
    // Who trusts the new set needs no steps.
    let short = network.members[0].result("chain_getLightProof", json!({"id": record, "trusted_height": height}));
    assert!(short.get("steps").is_none());

    network.start_again(3);
    until("all five vote again", &network.members[0], "chain_getElection", |election| voters(election).len() == 5);
    let height = network.members[0].height();
    let hashes = network.hashes_at(&[0, 1, 2, 3, 4], height);
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    assert_eq!(network.members[3].result("chain_verify", json!([]))["ok"], json!(true));
    network.terminate();
}

#[test]
fn who_votes_twice_is_accused_on_chain_slashed_and_excluded() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = Devnet::start_with(folder.path(), 4, SHORT);
    let path = network.members[3].data_dir.join("node.key");
    network.kill(3);
    let key = Arc::new(NodeKey::load_or_create(&path).unwrap());
    let liar = key.node_id().to_string();
    let bond = |network: &Devnet| network.members[0].result("chain_getAccount", json!([liar]))["bond"].clone();
    assert_eq!(bond(&network), json!("1000000000000"));
    let stranger = Stranger::connect(&network, key, Some(3));
    let found = {
        let begun = Instant::now();
        loop {
            let next = network.members[0].height() + 1;
            for height in [next, next + 1] {
                let block = NilOrVal::Val(BlockId(BlockHash::new([7; 32])));
                stranger.say(&stranger.vote(height, block));
                stranger.say(&stranger.vote(height, NilOrVal::Nil));
            }
            let found = network.members[1].result("chain_getEvidence", json!([]));
            if !found["evidence"].as_array().unwrap().is_empty() {
                break found;
            }
            assert!(begun.elapsed() < PATIENCE, "never accused");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let piece = &found["evidence"][0];
    assert_eq!((&piece["node_id"], &piece["kind"]), (&json!(liar), &json!("prevote")), "{found}");
    assert_eq!(piece["statements"][0]["block_hash"], Value::Null);
    network.hashes_at(&[0, 1, 2], piece["block"].as_u64().unwrap());
    let block = network.members[2].result("chain_getBlock", json!([piece["block"]]));
    assert_eq!(block["evidence"][0]["id"], piece["id"], "{block}");
    assert_eq!(bond(&network), json!("950000000000"), "a twentieth is burned");
    until("it votes no more", &network.members[0], "chain_getElection", |election| {
        !voters(election).contains(&liar.as_str())
    });
    let all = network.members[0].result("chain_getEvidence", json!([]));
    assert_eq!(all["evidence"].as_array().unwrap().len(), 1, "once is enough: {all}");
    assert_eq!(network.members[0].result("chain_verify", json!([]))["ok"], json!(true));
}

#[test]
fn who_shouts_is_dropped_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let network = Devnet::start(folder.path(), 4);
    let key = Arc::new(NodeKey::from_seed(&[77; 32]));
    let shouter = key.node_id().to_string();
    let stranger = Stranger::connect(&network, key, None);
    // Well-formed votes by nobody that matters, as fast as the connections take them.
    let flood = std::thread::spawn(move || {
        let begun = Instant::now();
        let mut said = 0_u64;
        while begun.elapsed() < Duration::from_secs(6) {
            let message = stranger.vote(said % 1_000, NilOrVal::Nil);
            for _ in 0..500 {
                stranger.say(&message);
                said += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        said
    });
    let mut last = 0;
    for turn in 0..5 {
        let record = network.members[turn % 4].ask(&format!("What is {turn} and 2?"));
        last = network.members[(turn + 1) % 4].sealed(&record);
    }
    assert!(flood.join().unwrap() > 10_000);
    let hashes = network.hashes_at(&[0, 1, 2, 3], last);
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    // It dials again whenever it was dropped, so more than one connection of it was.
    let log = network.members[0].log();
    let connected = log.lines().filter(|line| line.contains("peer connected") && line.contains(&shouter)).count();
    assert!(connected > 1, "it was never dropped: {log}");
    network.terminate();
}
