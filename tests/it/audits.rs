//! Validators that check each other's answers: honest ones are verified and paid, a liar is found out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aria_chain::attestation::{Opening, Statement, Verdict};
use aria_chain::codec::Versioned;
use aria_chain::hash::commit_output;
use aria_chain::ids::{Digest, RecordId};
use aria_chain::keys::NodeKey;
use aria_chain::proof::SignedProof;
use aria_node::audit::payload::{Payload, Payloads};
use aria_tests::Devnet;
use aria_tests::devnet::Member;
use serde_json::{Value, json};

use crate::stranger::Stranger;

/// Longest wait for an audit.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn status(member: &Member, record: &str) -> String {
    member.result("chain_getRecord", json!([record]))["status"].as_str().unwrap_or("waiting").to_owned()
}

/// Waits until a record is more than included; how it ended.
pub(crate) fn settled(member: &Member, record: &str) -> String {
    let begun = Instant::now();
    loop {
        let status = status(member, record);
        if status != "waiting" && status != "included" {
            return status;
        }
        let audit = || member.result("chain_getAudit", json!([record]));
        assert!(begun.elapsed() < PATIENCE, "{record} is {status}: {}\n{}", audit(), member.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn node_id(member: &Member) -> String {
    member.result("net_info", json!([]))["node_id"].as_str().unwrap().to_owned()
}

pub(crate) fn account(member: &Member, node: &str) -> Value {
    member.result("chain_getAccount", json!([node]))
}

pub(crate) fn nano(view: &Value, field: &str) -> u64 {
    view[field].as_str().unwrap().parse().unwrap()
}

/// What a node keeps of an answer that it just gave, and the proof of it.
pub(crate) fn taken(member: &Member, record: &str) -> (Payload, SignedProof) {
    let (payloads, id) = (Payloads::new(member.data_dir.join("payloads")), record.parse::<RecordId>().unwrap());
    let payload = Payload::decode(&payloads.read(&id).expect("kept for auditors")).unwrap();
    let begun = Instant::now();
    loop {
        let waiting = member.result("mempool_get", json!([record]));
        if let Some(bytes) = waiting["bytes_hex"].as_str() {
            return (payload, SignedProof::decode(&hex(bytes)).unwrap());
        }
        assert!(begun.elapsed() < PATIENCE, "{waiting}");
    }
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Another answer to another request, with one wrong token, as the operator of a node with its key can make it.
fn forge(member: &Member, payload: &Payload, proof: &SignedProof, nonce: u64) -> String {
    let mut payload = payload.clone();
    let token = payload.outputs[0].first_mut().unwrap();
    *token = if *token == 700 { 701 } else { 700 };
    submit(member, &payload, proof.clone(), nonce)
}

/// Signs what lies in a payload as the answer to another request, as the operator of a node with its key can, and submits it.
pub(crate) fn submit(member: &Member, payload: &Payload, mut proof: SignedProof, nonce: u64) -> String {
    let key = NodeKey::load_or_create(&member.data_dir.join("node.key")).unwrap();
    proof.request.nonce = nonce;
    proof.record.request_id = proof.request.id();
    proof.record.output_hash = commit_output(&payload.output_salt, &payload.outputs);
    let (chain, id) = (proof.request.chain_id.clone(), proof.record.id());
    proof.request_signature = key.sign_request(&chain, &proof.request.id());
    proof.receipt_signature = key.sign_receipt(&chain, &id);
    proof.stage_signatures = vec![key.sign_stage(&chain, &id, 0)];
    Payloads::new(member.data_dir.join("payloads")).keep(&id, payload).unwrap();
    let submitted = member.result("mempool_submit", json!([to_hex(&proof.encode())]));
    assert_eq!(submitted, json!(id));
    id.to_string()
}

#[test]
fn honest_answers_are_verified_and_a_liar_loses_bond_and_vote() {
    let folder = tempfile::tempdir().unwrap();
    // What is asked for on the chain is waited for in blocks.
    let mut network = Devnet::start_with(folder.path(), 4, &[("epoch_blocks", 10), ("heartbeat_ms", 1_000)]);
    let nodes: Vec<String> = network.members.iter().map(node_id).collect();
    let first = &network.members[0];

    // Every node answers; everybody else checks.
    let honest: Vec<String> =
        (0..16).map(|turn| network.members[turn % 4].ask(&format!("What is {turn} and one?"))).collect();
    for record in &honest {
        assert_eq!(settled(first, record), "verified");
    }
    let audit = first.result("chain_getAudit", json!([honest[0]]));
    let auditors = audit["auditors"].as_array().unwrap();
    assert_eq!((auditors.len(), audit["phase"].as_str()), (3, Some("ended")), "{audit}");
    assert!(
        auditors.iter().all(|auditor| auditor["verdict"] == json!("valid") && auditor["node_id"] != json!(nodes[0]))
    );
    let roots: std::collections::BTreeSet<&str> =
        auditors.iter().map(|auditor| auditor["root"].as_str().unwrap()).collect();
    assert_eq!(roots.len(), 3, "each root is of the auditor's own run: {audit}");
    assert!(nodes.iter().all(|node| nano(&account(first, node), "rewards_total") > 0));
    let payload = |record: &str| network.members[0].data_dir.join("payloads").join(record);
    assert!(payload(&honest[0]).exists(), "its auditors may still be doubted");

    // What was paid is what the formula says, for provider and auditors.
    let rewards = first.result("chain_getRewards", json!([nodes[0]]));
    let paid: u64 = rewards["records"].as_array().unwrap().iter().map(|record| nano(record, "paid")).sum();
    let fees = nano(&account(first, &nodes[0]), "rewards_total") - paid;
    assert!(paid > 0 && fees > 0, "{rewards}");
    // The fee of a request is spent: half of it destroyed, most of the rest its auditors'. Nobody gets what nobody pays.
    let last = &rewards["records"][0];
    assert_eq!(
        (nano(last, "fee"), nano(last, "of_fee"), nano(last, "audit_fee")),
        (3_000_000, 150_000, 270_000),
        "{last}"
    );
    assert!((1..=1_350_000).contains(&nano(last, "minted")), "{last}");
    let supply = first.result("chain_getSupply", json!([]));
    assert!(nano(&supply, "issued") < nano(&supply, "burned"), "{supply}");
    let offered = |max_fee: u64| {
        let question = json!([{"role": "user", "content": "Is it free?"}]);
        let body = json!({"model": "aria-tiny", "messages": question, "aria": {"max_fee": max_fee}});
        let door = format!("127.0.0.1:{}", first.base_port + 1);
        aria_tests::http::post(&door, "/v1/chat/completions", &body)
    };
    let free = offered(0).json()["aria"]["record_id"].as_str().unwrap().to_owned();
    assert_eq!(settled(first, &free), "verified");
    let listed = first.result("chain_getRewards", json!([nodes[0]]));
    let free = listed["records"].as_array().unwrap().iter().find(|one| one["record_id"] == json!(free)).unwrap();
    assert_eq!((nano(free, "paid"), nano(free, "audit_fee")), (0, 0), "{free}");
    assert!(nano(free, "work") > 0 && nano(free, "reward") > 0, "{free}");
    let refused = offered(3_000_001);
    let (code, refusal) = (refused.status, refused.json());
    assert_eq!((code, refusal["error"]["param"].as_str()), (400, Some("aria.max_fee")), "{refusal}");
    assert!(refusal["error"]["message"].as_str().unwrap().contains("--client-fee"), "{refusal}");

    let told = aria_tests::aria(&first.data_dir, &["ledger", "audit", &honest[0]]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("verified"), "{told:?}");
    let told = aria_tests::aria(&first.data_dir, &["ledger", "election"]);
    assert!(nodes.iter().all(|node| String::from_utf8_lossy(&told.stdout).contains(node)), "{told:?}");
    let told = aria_tests::aria(&first.data_dir, &["ledger", "rewards"]);
    assert_eq!(String::from_utf8_lossy(&told.stdout).lines().count(), 6, "{told:?}");
    let score = |node: usize| first.result("chain_getReputation", json!([nodes[node]]))["score_ppm"].as_u64().unwrap();
    assert!((0..4).all(|node| score(node) > 500_000));

    // What nobody may see is not kept, not checked, and not paid.
    let body = json!({"model": "aria-tiny", "messages": [{"role": "user", "content": "A secret?"}], "aria": {"audit": "none"}});
    let door = format!("127.0.0.1:{}", network.members[0].base_port + 1);
    let answer = aria_tests::http::post(&door, "/v1/chat/completions", &body).json();
    let secret = answer["aria"]["record_id"].as_str().unwrap();
    first.sealed(secret);
    assert!(!first.data_dir.join("payloads").join(secret).exists());
    assert_eq!(
        (status(first, secret).as_str(), first.result("chain_getAudit", json!([secret]))),
        ("included", Value::Null)
    );
    let wrong =
        json!({"model": "aria-tiny", "messages": [{"role": "user", "content": "?"}], "aria": {"audit": "some"}});
    let refused = aria_tests::http::post(&door, "/v1/chat/completions", &wrong);
    assert_eq!((refused.status, refused.json()["error"]["param"].as_str()), (400, Some("aria.audit")));

    // Who picks the auditors that it answers gains nothing: the others give it on.
    let picked = |minutes: &str| {
        let told = aria_tests::aria(&network.members[3].data_dir, &["network", "ban", &nodes[1], "--minutes", minutes]);
        assert!(told.status.success(), "{told:?}");
    };
    picked("10");
    let record = network.members[3].ask("Who may see this?");
    assert_eq!(settled(first, &record), "verified");
    let audit = first.result("chain_getAudit", json!([record]));
    let left_out = audit["auditors"].as_array().unwrap().iter().find(|one| one["node_id"] == json!(nodes[1])).unwrap();
    assert_eq!(left_out["verdict"], json!("valid"), "{audit}");
    picked("0");

    // Two are away for a moment, so that the proof of the one still waits when it is looked at.
    network.kill(1);
    network.kill(2);
    let record = network.members[3].ask("What is a lie?");
    let (payload, proof) = taken(&network.members[3], &record);
    // It will not give this one to its auditors.
    std::fs::remove_file(network.members[3].data_dir.join("payloads").join(&record)).unwrap();
    network.start_again(1);
    network.start_again(2);
    let (first, liar) = (&network.members[0], &network.members[3]);
    let bond = nano(&account(first, &nodes[3]), "bond");
    let lies: Vec<String> = (0..3).map(|nonce| forge(liar, &payload, &proof, nonce)).collect();
    // One answer in twenty is a lie; and the others go on.
    let own = (0..57).map(|turn| network.members[3].ask(&format!("Is it {turn}?")));
    let between: Vec<String> =
        own.chain((0..6).map(|turn| network.members[turn % 3].ask(&format!("Is it {turn}?")))).collect();
    for lie in &lies {
        assert_eq!(settled(first, lie), "refuted");
    }
    for record in &between {
        assert_eq!(settled(first, record), "verified", "no honest record is ever refuted");
    }
    assert_eq!(settled(first, &record), "unavailable", "what is withheld earns nothing");
    let audit = first.result("chain_getAudit", json!([lies[0]]));
    assert!(audit["auditors"].as_array().unwrap().iter().all(|one| one["verdict"] == json!("invalid")), "{audit}");
    let left = nano(&account(first, &nodes[3]), "bond");
    assert!(left <= bond * 9 / 10 * 9 / 10 * 9 / 10 + 3, "a tenth of the rest for each lie: {left} of {bond}");
    for node in &nodes[..3] {
        assert_eq!(nano(&account(first, node), "bond"), bond, "the honest lose nothing");
    }

    // Each has attested what its answers took, by itself.
    let begun = Instant::now();
    for node in &nodes[..3] {
        let told = || first.result("chain_getSobriety", json!([node, 100]));
        while told()["epochs"].as_array().unwrap().iter().all(|epoch| epoch["attested"].is_null()) {
            assert!(begun.elapsed() < PATIENCE, "{}", told());
            network.members[0].ask("How much was it?");
            std::thread::sleep(Duration::from_millis(100));
        }
        let epochs = told();
        let epochs = epochs["epochs"].as_array().unwrap();
        let epoch = epochs.iter().find(|epoch| !epoch["attested"].is_null()).unwrap();
        let (attested, known) = (&epoch["attested"], &epoch["estimated"]);
        assert!(
            attested["inferences"].as_u64() > Some(0) && !attested["hardware"].as_str().unwrap().is_empty(),
            "{epoch}"
        );
        assert!(attested["tokens"].as_u64() >= known["tokens"].as_u64() && attested["rating"].is_string(), "{epoch}");
    }

    let fallen = first.result("chain_getReputation", json!([nodes[3]]));
    assert_eq!((fallen["refuted"].as_u64(), fallen["unavailable"].as_u64()), (Some(3), Some(1)), "{fallen}");

    // Some epochs on, it proposes nothing any more.
    let begun = Instant::now();
    for turn in 0.. {
        let election = network.members[0].result("chain_getElection", json!([]));
        let votes = election["validators"].as_array().unwrap().iter().any(|one| one["node_id"] == json!(nodes[3]));
        if !votes {
            let schedule = election["schedule"].as_array().unwrap();
            assert!(schedule.iter().all(|slot| slot["proposer"] != json!(nodes[3])), "{schedule:?}");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "it still votes: {election}");
        let record = network.members[turn % 3].ask(&format!("And {turn}?"));
        network.members[0].sealed(&record);
    }
    assert_eq!(network.members[2].result("chain_verify", json!([]))["ok"], json!(true));
    network.terminate();
}

/// Says "valid" of every record that it is drawn for, under a root out of thin air, as soon as the chain lets it.
fn guess(lazy: &Stranger, audit: &Value, me: &str) {
    let auditors = audit["auditors"].as_array().unwrap();
    let Some(own) = auditors.iter().find(|one| one["node_id"] == json!(me)) else { return };
    let record: RecordId = audit["record_id"].as_str().unwrap().parse().unwrap();
    let opening = Opening { secret: *record.as_bytes(), verdict: Verdict::Valid, root: Digest::new([7; 32]) };
    let (height, index) = (audit["height"].as_u64().unwrap(), u32::try_from(audit["index"].as_u64().unwrap()).unwrap());
    if own["commitment"].is_null() {
        lazy.attest(height, Statement::Commit(vec![(index, lazy.commitment(&opening, &record))]));
    } else if own["verdict"].is_null() && auditors.iter().all(|one| !one["commitment"].is_null()) {
        lazy.attest(height, Statement::Open(vec![(index, opening)]));
    }
}

#[test]
fn an_auditor_that_guesses_is_found_out_by_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = Devnet::start(folder.path(), 5);
    let nodes: Vec<String> = network.members.iter().map(node_id).collect();
    let key = NodeKey::load_or_create(&network.members[4].data_dir.join("node.key")).unwrap();
    network.kill(4);
    let lazy = Stranger::connect(&network, Arc::new(key), Some(4));
    let first = &network.members[0];
    let bonds = || nodes.iter().map(|node| nano(&account(first, node), "bond")).collect::<Vec<u64>>();
    let before = bonds();
    let mut records: Vec<String> = Vec::new();
    let begun = Instant::now();
    let fallen = || first.result("chain_getReputation", json!([nodes[4]]))["misjudged"].as_u64().unwrap();
    for turn in 0.. {
        if fallen() > 0 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody finds it out, in {} records", records.len());
        if turn % 3 == 0 {
            records.push(network.members[turn % 4].ask(&format!("What is {turn}?")));
        }
        for record in records.iter().rev().take(20) {
            let audit = first.result("chain_getAudit", json!([record]));
            if audit["phase"] == json!("drawn") {
                guess(&lazy, &audit, &nodes[4]);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // Its guesses were right, and they were guesses: a tenth of the bond is gone, and nobody else lost anything.
    let after = bonds();
    assert!(after[4] <= before[4] / 10 * 9, "{after:?}");
    assert_eq!(after[..4], before[..4], "the honest lose nothing");
    let settled = records.iter().filter(|record| status(first, record) == "verified").count();
    assert!(settled > 0 && records.iter().all(|record| status(first, record) != "refuted"));
    let orders = first.result("chain_listTransactions", json!([]));
    let doubts: Vec<&Value> =
        orders["transactions"].as_array().unwrap().iter().filter(|one| one["action"] == json!("doubt")).collect();
    assert!(!doubts.is_empty() && doubts.iter().all(|one| one["doubt"]["auditor"] == json!(nodes[4])), "{orders}");
    println!("found out after {} records in {:?}", records.len(), begun.elapsed());
    network.terminate();
}
