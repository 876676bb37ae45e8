//! Many nodes: real processes that agree on one chain, through kills and for newcomers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aria_chain::codec::Versioned;
use aria_chain::keys::NodeKey;
use aria_chain::store::{OpenOptions, SledStore, Store};
use aria_tests::devnet::Member;
use aria_tests::wires::Cut;
use aria_tests::{Devnet, Node, aria};
use serde_json::{Value, json};

use crate::crash::try_ask;
use crate::stranger::Stranger;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn one(hashes: &[String]) -> &str {
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "two blocks at one height: {hashes:?}");
    &hashes[0]
}

/// How long validators are killed in an ordinary run. `ARIA_KILL_SECONDS` asks for longer.
const KILL_SECONDS: u64 = 60;

#[test]
fn four_validators_keep_one_chain_through_kill_9() {
    let asked = std::env::var("ARIA_KILL_SECONDS").ok().and_then(|text| text.parse().ok());
    let span = Duration::from_secs(asked.unwrap_or(KILL_SECONDS));
    let folder = tempfile::tempdir().unwrap();
    let mut network = Devnet::start(folder.path(), 4);
    let everyone = [0, 1, 2, 3];
    let wire = Stranger::connect(&network, Arc::new(NodeKey::from_seed(&[90; 32])), None);
    let record = network.members[1].ask("What is a block?");
    let height = network.members[3].sealed(&record);
    one(&network.hashes_at(&everyone, height));
    let proof = network.members[2].result("chain_getRecordProof", json!([record]));
    assert_eq!(network.members[0].result("chain_verifyRecordProof", json!([proof])), json!(true), "{proof}");

    // Whoever is alive answers somebody all the time.
    let is_over = Arc::new(AtomicBool::new(false));
    let load = {
        let is_over = Arc::clone(&is_over);
        let ports: Vec<u16> = network.members.iter().map(|member| member.base_port + 1).collect();
        std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for turn in (0_usize..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                let body = json!({"model": "aria-tiny", "messages": [{"role": "user", "content": format!("What is {turn}?")}], "max_tokens": 4});
                acknowledged.extend(try_ask(&format!("127.0.0.1:{}", ports[turn % ports.len()]), &body));
                std::thread::sleep(Duration::from_millis(25));
            }
            acknowledged
        })
    };
    let mut records = vec![record];
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() < span {
        kills += 1;
        let victim = kills % 4;
        network.kill(victim);
        let others: Vec<usize> = everyone.into_iter().filter(|index| *index != victim).collect();
        // Three of four go on; what one of them acknowledged, all have.
        let record = network.members[others[0]].ask(&format!("What is {victim} plus {}?", records.len()));
        let height = network.members[others[1]].sealed(&record);
        one(&network.hashes_at(&others, height));
        records.push(record);
        network.start_again(victim);
    }
    is_over.store(true, Ordering::Relaxed);
    let acknowledged = load.join().unwrap();
    for record in &acknowledged {
        network.members[0].sealed(record);
    }
    let height = network.members.iter().map(Member::height).max().unwrap();
    one(&network.hashes_at(&everyone, height));
    for member in &network.members {
        for record in records.iter().chain(acknowledged.last()) {
            member.sealed(record);
        }
        let log = member.log();
        assert!(!log.contains("signed two different messages"), "{log}");
        assert_eq!(member.result("chain_getEvidence", json!([]))["evidence"], json!([]));
    }
    let heard = wire.heard.lock().unwrap();
    assert!(heard.contradictions.is_empty(), "{:?}", heard.contradictions);
    let places = heard.places();
    let answers = records.len() + acknowledged.len();
    println!(
        "{kills} kills in {span:?}, {answers} answers in {height} blocks, {places} signed statements heard, no two in one place"
    );
    assert!(kills > 3 && places > 3 * usize::try_from(height).unwrap(), "{kills} kills, {places} heard");
    drop(heard);
    network.terminate();
}

#[test]
fn a_proof_from_one_node_is_checked_without_any() {
    let folder = tempfile::tempdir().unwrap();
    let network = Devnet::start(folder.path(), 4);
    let record = network.members[0].ask("What is a proof?");
    network.members[3].sealed(&record);
    let proof = network.members[3].result("chain_getLightProof", json!([record]));
    let election = network.members[2].result("chain_getElection", json!([]));
    let (genesis, file) = (network.genesis(), folder.path().join("proof.json"));
    network.terminate();

    let away = tempfile::tempdir().unwrap();
    let check = |proof: &serde_json::Value, more: &[&str]| {
        std::fs::write(&file, proof.to_string()).unwrap();
        let flags =
            ["--json", "ledger", "verify-proof", file.to_str().unwrap(), "--genesis", genesis.to_str().unwrap()];
        let output = aria(away.path(), &[&flags, more].concat());
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), answer)
    };
    let (code, answer) = check(&proof, &[]);
    assert_eq!((code, &answer["valid"], &answer["record_id"]), (Some(0), &json!(true), &json!(record)), "{answer}");
    assert_eq!(answer["power_total"], "1000000000");
    let (code, _) = check(
        &json!({"jsonrpc": "2.0", "id": 1, "result": proof}),
        &["--trusted-set", election["set_hash"].as_str().unwrap()],
    );
    assert_eq!(code, Some(0), "a whole answer, and a set that somebody named");
    let (code, answer) = check(&proof, &["--trusted-set", &"0".repeat(64)]);
    assert!(code == Some(4) && answer["reason"].as_str().unwrap().contains("validator set"), "{answer}");
    let mut changed = proof.clone();
    changed["record_proof"]["leaf"][2] = json!("1".repeat(64));
    assert_eq!(check(&changed, &[]).0, Some(4));
}

#[test]
fn two_of_four_wait_and_go_on_when_a_third_returns() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = Devnet::start(folder.path(), 4);
    let first = network.members[0].ask("What is a chain?");
    network.members[0].sealed(&first);
    network.kill(2);
    network.kill(3);
    let waiting = network.members[0].ask("What is a node?");
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        network.members[1].result("chain_getRecord", json!([waiting])).is_null(),
        "half of the power decides nothing"
    );
    // What waits can be looked at, on the other node too, and page by page.
    let second = network.members[0].ask("What is a vote?");
    let begun = Instant::now();
    let seen = loop {
        let (first, rest): (Value, Value) = {
            let page = network.members[1].result("mempool_list", json!([1]));
            let rest = network.members[1].result("mempool_list", json!({"cursor": page["next_cursor"]}));
            (page["waiting"][0]["id"].clone(), rest["waiting"][0]["id"].clone())
        };
        if first != rest && !first.is_null() && !rest.is_null() {
            break [first, rest];
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "both wait on the other node: {first} {rest}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(seen, [json!(waiting), json!(second)], "in the order of their arrival");
    let one_waiting = network.members[1].result("mempool_get", json!([waiting]));
    assert_eq!(one_waiting["proof"]["record"]["id"].as_str().or(one_waiting["id"].as_str()), Some(waiting.as_str()));
    assert_eq!(network.members[1].result("mempool_get", json!([first])), json!(null), "it is in a block");
    // A proof that is in a block can be in no other.
    let (store, _) =
        SledStore::open_existing(&network.members[3].data_dir.join("chain"), OpenOptions::default()).unwrap();
    let sealed = store.proof(&first.parse().unwrap()).unwrap().unwrap();
    drop(store);
    let verdict = network.members[0].result("mempool_simulate", json!([hex(&sealed.encode())]));
    assert_eq!(verdict["accepted"], json!(false), "{verdict}");
    assert!(verdict["reason"].as_str().unwrap().contains("request"), "{verdict}");

    network.start_again(3);
    let height = network.members[3].sealed(&waiting);
    one(&network.hashes_at(&[0, 1, 3], height));
}

#[test]
fn a_stranger_joins_and_follows() {
    let folder = tempfile::tempdir().unwrap();
    let network = Devnet::start(folder.path(), 4);
    let mut last = 0;
    for turn in 0..6 {
        let record = network.members[turn % 4].ask(&format!("What is {turn} plus 1?"));
        last = network.members[0].sealed(&record);
    }
    let genesis = network.genesis();
    let flags = ["--genesis", genesis.to_str().unwrap(), "--bootstrap", &network.bootstrap(None)];
    let stranger = Node::start_with(&folder.path().join("stranger"), &flags);
    let begun = Instant::now();
    while stranger.result("chain_status", json!([]))["height"].as_u64() < Some(last) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the stranger does not catch up");
        std::thread::sleep(Duration::from_millis(50));
    }
    let theirs = network.hashes_at(&[0], last);
    assert_eq!(stranger.result("chain_getHeader", json!([last]))["hash"], json!(theirs[0]));
    assert_eq!(stranger.result("chain_verify", json!([]))["ok"], json!(true));
    // It has neither vote nor account: it answers, and nobody pays for that.
    assert!(stranger.ask("What is a record?")["aria"]["record_id"].is_null());
    // New blocks reach it as they are made.
    let record = network.members[2].ask("What is a vote?");
    stranger.sealed(&record);
    let peers = stranger.result("net_listPeers", json!([]));
    assert_eq!(peers["peers"].as_array().unwrap().len(), 4);
    // Named to nobody, it finds them again by its book.
    stranger.terminate();
    let stranger = Node::start_with(&folder.path().join("stranger"), &flags[..2]);
    let begun = Instant::now();
    while stranger.result("net_listPeers", json!([]))["peers"].as_array().unwrap().len() < 4 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it has forgotten its peers");
        std::thread::sleep(Duration::from_millis(50));
    }
    network.terminate();
    assert!(Path::new(&folder.path().join("devnet.json")).is_file(), "scripts find the network");
}

#[test]
fn a_network_is_not_put_where_a_node_lives() {
    let folder = tempfile::tempdir().unwrap();
    assert!(aria(folder.path(), &["key", "show"]).status.success());
    let refused = aria(folder.path(), &["devnet", "--nodes", "1"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("another folder"), "{error}");
    assert!(!folder.path().join("node-0").exists());

    // Nor where a port is taken.
    let (other, taken) = (tempfile::tempdir().unwrap(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let port = taken.local_addr().unwrap().port();
    let first = (port - 1).to_string();
    let refused = aria(other.path(), &["devnet", "--nodes", "1", "--base-port", &first]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains(&port.to_string()) && error.contains("--base-port"), "{error}");
}

#[test]
fn peers_are_pinged_added_and_banned_by_command() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let first = Node::start(&one);
    let genesis = one.join("genesis.toml");
    let second = Node::start_with(&two, &["--genesis", genesis.to_str().unwrap()]);
    let run = |data_dir: &Path, words: &[&str]| {
        let output = aria(data_dir, &[&["--json", "network"], words].concat());
        let answer = serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
        (output.status.code(), answer, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (address, key) = (first.ready["p2p"].as_str().unwrap(), first.ready["node_id"].as_str().unwrap());

    let nobody = tempfile::tempdir().unwrap();
    let (code, pinged, _) = run(nobody.path(), &["ping", address]);
    assert_eq!((code, &pinged["node_id"]), (Some(0), &json!(key)), "who pings needs no node: {pinged}");
    assert!(pinged["round_trip_ms"].as_f64().unwrap() > 0.0);
    let (code, _, error) = run(nobody.path(), &["ping", "127.0.0.1:1"]);
    assert!(code != Some(0) && error.contains("refused"), "{error}");

    let (code, _, error) = run(&two, &["add", "nowhere"]);
    assert!(code != Some(0) && error.contains("HOST:PORT"), "{error}");
    assert_eq!(run(&two, &["add", address]).0, Some(0));
    let begun = Instant::now();
    let peers = || run(&two, &["peers"]).1["peers"].as_array().unwrap().clone();
    while peers().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no connection");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(peers()[0]["node_id"], json!(key));

    // The other may dial back by itself.
    assert_eq!(run(&two, &["remove", address]).0, Some(0));
    while peers().iter().any(|peer| peer["direction"] == "outbound") {
        assert!(begun.elapsed() < Duration::from_secs(60), "the connection stands");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (code, _, error) = run(&two, &["remove", address]);
    assert!(code != Some(0) && error.contains("was not added"), "{error}");
    assert_eq!(run(&two, &["add", address]).0, Some(0));
    while peers().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no connection after it was removed");
        std::thread::sleep(Duration::from_millis(50));
    }

    assert_eq!(run(&two, &["ban", key, "--minutes", "5", "--reason", "a test"]).0, Some(0));
    let bans = run(&two, &["bans"]).1;
    assert_eq!((&bans["bans"][0]["node_id"], &bans["bans"][0]["reason"]), (&json!(key), &json!("a test")), "{bans}");
    std::thread::sleep(Duration::from_secs(1));
    assert!(peers().is_empty(), "it is dialled again and not let in");
    assert_eq!(run(&two, &["ban", key, "--minutes", "0"]).0, Some(0));
    assert_eq!(run(&two, &["bans"]).1["bans"], json!([]));
    while peers().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it does not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(second);
}

#[test]
fn a_network_that_is_cut_in_two_keeps_one_history() {
    let folder = tempfile::tempdir().unwrap();
    let (network, wires) = Devnet::wired(folder.path(), 4);
    let first = network.members[0].ask("What is a cut?");
    network.hashes_at(&[0, 1, 2, 3], network.members[0].sealed(&first));

    // Half and half: both sides answer, neither decides, and nobody is told that anything is cut.
    wires.between([&[0, 1], &[2, 3]], Cut::Holding);
    let waiting = [network.members[0].ask("What is left?"), network.members[3].ask("What is right?")];
    let heights: Vec<u64> = network.members.iter().map(Member::height).collect();
    std::thread::sleep(Duration::from_secs(8));
    // A block that was being decided as the cut came may still come through.
    for (member, before) in network.members.iter().zip(&heights) {
        assert!(member.height() <= before + 1, "half of the power decides nothing");
        assert_eq!(member.result("net_listPeers", json!([]))["peers"].as_array().unwrap().len(), 3);
    }
    // What was said meanwhile comes late, all of it.
    assert!(wires.between([&[0, 1], &[2, 3]], Cut::Mended) > 1_000, "nothing was said over the cut wires");
    for record in &waiting {
        let height = network.members[1].sealed(record);
        one(&network.hashes_at(&[0, 1, 2, 3], height));
    }

    // Three and one: three go on; what the one said and should have heard is lost, and it follows when it is reached again.
    let before = wires.between([&[0, 1, 2], &[3]], Cut::Losing);
    let alone = network.members[3].ask("Who hears this?");
    let record = network.members[1].ask("What is a majority?");
    let height = network.members[2].sealed(&record);
    one(&network.hashes_at(&[0, 1, 2], height));
    assert!(network.members[3].height() < height);
    assert!(wires.between([&[0, 1, 2], &[3]], Cut::Mended) > before + 1_000, "nothing was lost");
    network.members[3].sealed(&record);
    one(&network.hashes_at(&[0, 1, 2, 3], height));
    one(&network.hashes_at(&[0, 1, 2, 3], network.members[0].sealed(&alone)));
    for member in &network.members {
        assert_eq!(member.result("chain_getEvidence", json!([]))["evidence"], json!([]));
    }
    network.terminate();
}
