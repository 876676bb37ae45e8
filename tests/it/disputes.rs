//! Auditors who contradict each other: one layer decides where the record is false, and the whole of it where it is not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aria_chain::attestation::{Opening, Statement, Verdict};
use aria_chain::ids::{Digest, RecordId};
use aria_chain::keys::NodeKey;
use aria_chain::proof::SignedProof;
use aria_inference::digest::ModelDigest;
use aria_inference::generation::FinishReason;
use aria_inference::transcript::{choice_root, request_root, text_hash};
use aria_node::audit::parts::Part;
use aria_node::audit::payload::Payload;
use aria_node::services::gateway::transcript_salt;
use aria_tests::Devnet;
use aria_tests::devnet::Member;
use serde_json::{Value, json};

use crate::audits::{PATIENCE, account, nano, node_id, status, submit, taken};
use crate::stranger::Stranger;

/// The one whose place a stranger takes.
const BOUGHT: usize = 4;

/// An answer with another last token than is drawn. Whoever made it computed everything else, and its root binds all of it.
fn lie(member: &Member, payload: &Payload, proof: &SignedProof, nonce: u64) -> String {
    let (mut payload, mut proof) = (payload.clone(), proof.clone());
    let token = payload.outputs[0].last_mut().unwrap();
    *token = if *token == 700 { 701 } else { 700 };
    let finish = if payload.ends[0].is_cut { FinishReason::Length } else { FinishReason::Stop };
    let salt = transcript_salt(&payload.output_salt);
    let text = text_hash(&salt, &payload.prompt, &payload.outputs[0], finish);
    let model = ModelDigest(*proof.record.model_id.as_bytes());
    let root = choice_root(&model, &payload.ends[0].boundary_roots, &text);
    proof.record.transcript_root = Digest::new(request_root(&[root]));
    submit(member, &payload, proof, nonce)
}

/// Says what it was told to of a record, as its auditor and as a judge, as soon as the chain lets it. Returns how it ended.
fn attend(
    bought: &Stranger,
    first: &Member,
    record: &str,
    verdict: Verdict,
    each: impl Fn(RecordId),
) -> (String, Value) {
    let (id, me) = (record.parse::<RecordId>().unwrap(), bought.node_id().to_string());
    let begun = Instant::now();
    loop {
        let audit = first.result("chain_getAudit", json!([record]));
        let phase = audit["phase"].as_str().unwrap_or_default().to_owned();
        if phase == "ended" {
            return (status(first, record), audit);
        }
        each(id);
        let auditors = audit["auditors"].as_array().cloned().unwrap_or_default();
        if let Some(own) = auditors.iter().find(|one| one["node_id"] == json!(me)) {
            // It is no auditor that tells its secret before its time.
            let secret = if phase == "disputed" { [2; 32] } else { *id.as_bytes() };
            let root = if verdict == Verdict::Valid { Digest::new([7; 32]) } else { Digest::ZERO };
            let opening = Opening { secret, verdict, root };
            let height = audit["height"].as_u64().unwrap();
            let index = u32::try_from(audit["index"].as_u64().unwrap()).unwrap();
            if own["commitment"].is_null() {
                bought.attest(height, Statement::Commit(vec![(index, bought.commitment(&opening, &id))]));
            } else if own["verdict"].is_null() && auditors.iter().all(|one| !one["commitment"].is_null()) {
                bought.attest(height, Statement::Open(vec![(index, opening)]));
            }
        }
        assert!(begun.elapsed() < PATIENCE, "{audit}\n{}", first.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Five nodes, of whom three audit each record, and the key of one of them in the hands of a stranger.
fn bought(network: &mut Devnet) -> (Vec<String>, Arc<NodeKey>) {
    let nodes = network.members.iter().map(node_id).collect();
    let key = NodeKey::load_or_create(&network.members[BOUGHT].data_dir.join("node.key")).unwrap();
    network.kill(BOUGHT);
    (nodes, Arc::new(key))
}

/// Disputes that a node judged in this way.
fn judged(member: &Member, by: &str) -> u64 {
    let metrics = aria_tests::http::get(&format!("127.0.0.1:{}", member.base_port + 1), "/metrics");
    let name = format!("aria_disputes_total{{by=\"{by}\"}} ");
    let count = metrics.body.lines().find_map(|line| line.strip_prefix(&name));
    count.map_or(0, |count| count.parse().unwrap())
}

fn bonds(first: &Member, nodes: &[String]) -> Vec<u64> {
    nodes.iter().map(|node| nano(&account(first, node), "bond")).collect()
}

#[test]
fn a_lie_that_a_bought_auditor_calls_right_is_refuted_by_one_layer() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = Devnet::start_with(folder.path(), 5, &[("committee_size", 3)]);
    let (nodes, key) = bought(&mut network);
    // With another one away for a moment no block comes, and a proof can be looked at.
    network.kill(2);
    let record = network.members[3].ask("What is a lie?");
    let (payload, proof) = taken(&network.members[3], &record);
    network.start_again(2);
    let bought = Stranger::connect(&network, key, Some(BOUGHT));
    let curious = Stranger::connect(&network, Arc::new(NodeKey::from_seed(&[99; 32])), Some(BOUGHT));
    let first = &network.members[0];
    let before = bonds(first, &nodes);

    let mut lies = 0;
    let audit = loop {
        assert!(lies < 8, "it is never drawn");
        let lie = lie(&network.members[3], &payload, &proof, lies);
        lies += 1;
        let (status, audit) = attend(&bought, first, &lie, Verdict::Valid, |record| curious.ask_layer(record));
        assert_eq!(status, "refuted", "{audit}");
        if audit["was_disputed"] == json!(true) {
            break audit;
        }
    };
    let after = bonds(first, &nodes);
    let left = (0..lies).fold(before[3], |bond, _| bond / 10 * 9 + 9);
    assert!(after[3] <= left, "a tenth of the rest for each lie: {after:?} of {before:?}");
    assert!(after[BOUGHT] <= before[BOUGHT] / 10 * 9, "{after:?} of {before:?}");
    assert_eq!(after[..3], before[..3], "the honest lose nothing");

    // Who was in no committee saw one layer, which it was shown by those who were.
    let accused = audit["first_verdicts"].as_array().unwrap();
    let was_drawn = |node: &String| accused.iter().any(|one| one["node_id"] == json!(node));
    let judges = (0..3).filter(|node| !was_drawn(&nodes[*node])).map(|node| &network.members[node]);
    let judges: Vec<&Member> = judges.collect();
    assert!(!judges.is_empty(), "{audit}");
    for judge in judges {
        assert_eq!((judged(judge, "layer"), judged(judge, "record")), (1, 0), "{}", judge.log());
    }
    let shown = curious.shown.lock().unwrap();
    assert!(!shown.is_empty() && shown.iter().all(Option::is_none), "who judges nothing is shown nothing");
    network.terminate();
}

#[test]
fn who_accuses_an_honest_record_is_heard_and_pays() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = Devnet::start_with(folder.path(), 5, &[("committee_size", 3)]);
    let (nodes, key) = bought(&mut network);
    let bought = Stranger::connect(&network, key, Some(BOUGHT));
    // The layer that it names is right: nothing but the tokens enters the first one.
    bought.shows.lock().unwrap().0 = Some(Part { choice: 0, layer: 0, parts: 1, bytes: Vec::new() });
    let first = &network.members[0];
    let before = bonds(first, &nodes);
    for turn in 0.. {
        assert!(turn < 12, "it is never drawn");
        let record = first.ask(&format!("Is {turn} right?"));
        let (status, audit) = attend(&bought, first, &record, Verdict::Invalid, |_| {});
        assert_eq!(status, "verified", "{audit}");
        if audit["was_disputed"] == json!(true) {
            break;
        }
    }
    let after = bonds(first, &nodes);
    assert!(after[BOUGHT] <= before[BOUGHT] / 10 * 9, "{after:?} of {before:?}");
    assert_eq!(after[..BOUGHT], before[..BOUGHT], "the honest lose nothing");
    for judge in &network.members[1..BOUGHT] {
        assert_eq!((judged(judge, "layer"), judged(judge, "record")), (0, 1), "{}", judge.log());
    }
    assert!(bought.shows.lock().unwrap().1 >= 3, "each judge asked what it has to show");
    network.terminate();
}
