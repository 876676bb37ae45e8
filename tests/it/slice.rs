//! Prompt in, answer out, record sealed, proof served.

use aria_tests::{Node, http};
use serde_json::{Value, json};

use crate::clients::keccak_root;

#[test]
fn an_answer_becomes_a_record_in_a_final_block_with_a_proof() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let answer = node.ask("What is 7 plus 5?");
    assert_eq!(answer["choices"][0]["message"]["content"], "7 plus 5 is 12.");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let aria = &answer["aria"];
    assert_eq!(aria["node_ids"], json!([node.ready["node_id"]]));
    assert_eq!(aria["backend"], "builtin");

    let id = aria["record_id"].as_str().unwrap();
    let record = node.sealed(id);
    assert_eq!(record["id"], id);
    assert_eq!(record["tokens_generated"], answer["usage"]["completion_tokens"]);
    assert_eq!(record["node_ids"], aria["node_ids"]);
    assert_eq!(record["status"], "self_audited");

    let block = node.result("chain_getBlock", json!([record["height"]]));
    assert!(block["hash"].as_str().unwrap().starts_with("00"), "the stamp: {block}");
    assert_eq!(block["miner_id"], node.ready["node_id"]);
    let listed: Vec<&Value> = block["records"].as_array().unwrap().iter().filter(|record| record["id"] == id).collect();
    assert_eq!(listed.len(), 1);
    let parent = node.result("chain_getBlock", json!({"block": block["previous_hash"]}));
    assert_eq!(parent["index"].as_u64().unwrap() + 1, block["index"].as_u64().unwrap());

    let proof = node.result("chain_getRecordProof", json!([id]));
    assert_eq!(proof["format"], "openzeppelin-standard-v1");
    assert_eq!(proof["leaf"], json!([record["height"].to_string(), record["index"].to_string(), id]));
    assert_eq!(proof["root"], block["records_root"]);
    assert_eq!(keccak_root(&proof), proof["root"].as_str().unwrap(), "recomputed by other code");
}

#[test]
fn streamed_and_plain_answers_are_the_same_and_each_leaves_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let body = |stream: bool| {
        json!({"model": node.ready["model"], "messages": [{"role": "user", "content": "Tell me a story about a fox."}],
               "temperature": 0.9, "seed": 5, "max_tokens": 80, "stream": stream})
    };
    let plain = node.post("/v1/chat/completions", &body(false)).json();
    let streamed = node.post("/v1/chat/completions", &body(true));
    let events = streamed.events();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, plain["choices"][0]["message"]["content"].as_str().unwrap());
    assert!(chunks.len() > 20, "a true token stream, not one piece: {}", chunks.len());
    let last = chunks.last().unwrap();
    let (first, second) = (plain["aria"]["record_id"].as_str().unwrap(), last["aria"]["record_id"].as_str().unwrap());
    assert_ne!(first, second);
    let (one, two) = (node.sealed(first), node.sealed(second));
    assert_ne!(one["query_hash"], two["query_hash"], "commitments are salted: the same prompt cannot be recognised");
}

#[test]
fn no_pending_record_no_block_but_a_heartbeat() {
    let folder = tempfile::tempdir().unwrap();
    let genesis = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../genesis/devnet.toml")).unwrap();
    let quick = genesis
        .replace("heartbeat_ms = 60000", "heartbeat_ms = 1500")
        .replace("heartbeat_ms = 60_000", "heartbeat_ms = 1500");
    assert_ne!(genesis, quick, "the genesis file names its heartbeat");
    let path = folder.path().join("quick.toml");
    std::fs::write(&path, quick).unwrap();
    let node = Node::start_with(&folder.path().join("node"), &["--genesis", path.to_str().unwrap()]);
    let height = || node.result("chain_status", json!([]))["height"].as_u64().unwrap();
    let start = std::time::Instant::now();
    while height() < 3 {
        assert!(start.elapsed() < aria_tests::node::PATIENCE, "no heartbeat");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let time = |height: u64| node.result("chain_getBlock", json!([height]))["timestamp"].as_u64().unwrap();
    assert!(time(2) - time(1) >= 1500 && time(3) - time(2) >= 1500, "empty blocks are a heartbeat apart");
    let block = node.result("chain_getBlock", json!([1]));
    assert_eq!(block["records"], json!([]));
}

#[test]
fn health_and_metrics_tell_what_happens() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    node.ask("Hello!");
    let health = http::get(node.address("api"), "/health");
    assert_eq!(health.status, 200, "{}", health.body);
    let metrics = http::get(node.address("api"), "/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.lines().any(|line| line.starts_with("aria_") && !line.ends_with(" 0")), "{}", metrics.body);
}

#[test]
fn amounts_and_work_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    for question in ["What is one?", "What is two?"] {
        node.sealed(node.ask(question)["aria"]["record_id"].as_str().unwrap());
    }
    let number = |value: &Value| value.as_str().unwrap().parse::<u128>().unwrap();
    let params = node.result("chain_getParams", json!([]));
    assert!(params["base_rate_nano"].is_u64() && node.result("chain_getParams", json!([0])) == params, "{params}");
    assert_eq!(node.result("chain_getParams", json!([999_999])), Value::Null, "there is no such block");
    let supply = node.result("chain_getSupply", json!([]));
    let (mut sum, mut bonded, mut cursor) = (0, 0, Value::Null);
    loop {
        let page = node.result("chain_listAccounts", json!({"limit": 1, "cursor": cursor}));
        for account in page["accounts"].as_array().unwrap() {
            sum += number(&account["balance"]) + number(&account["bond"]);
            bonded += number(&account["bond"]);
        }
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!((sum, bonded), (number(&supply["total"]), number(&supply["bonded"])), "{supply}");
    assert_eq!(number(&supply["genesis"]) + number(&supply["issued"]) - number(&supply["burned"]), sum);
    assert!(number(&supply["issued"]) > 0, "{supply}");

    let own = node.ready["node_id"].clone();
    let work = node.result("chain_getWork", json!([own]));
    assert!(
        number(&work["epochs"][0]["work"]) > 0 && work["epochs"][0]["work"] == work["epochs"][0]["network"],
        "{work}"
    );
    let stats = node.result("chain_getNetworkStats", json!({"epochs": 1}));
    // One node, so it spent what all spent. Where its energy comes from depends on the machine.
    let sobriety = node.result("chain_getSobriety", json!([own, 1]));
    assert_eq!(sobriety["total"], stats["total"]["sobriety"], "{sobriety}");
    let spent = ["measured", "estimated"].map(|how| &sobriety["total"][how]);
    assert_eq!(
        spent.map(|one| one["tokens"].as_u64().unwrap()).iter().sum::<u64>(),
        stats["total"]["generated_tokens"]
    );
    for one in spent {
        let signed = |field: &str| one[field].as_str().unwrap().parse::<i128>().unwrap();
        assert_eq!(signed("saved_uj"), signed("baseline_uj") - signed("energy_uj"), "{one}");
        assert_eq!(one["tokens"] == 0, one["rating"].is_null(), "{one}");
    }
    assert_eq!((&stats["total"]["records"], &stats["validators"]), (&json!(2), &json!(1)), "{stats}");
    assert_eq!(stats["total"]["rewards"], supply["issued"], "{stats}");
    let listed = node.result("chain_listRecords", json!([]));
    let tokens: u64 =
        listed["records"].as_array().unwrap().iter().map(|record| record["tokens_generated"].as_u64().unwrap()).sum();
    assert_eq!(stats["total"]["generated_tokens"], json!(tokens));
    for params in [json!([0]), json!([101]), json!(["x"])] {
        let error = node.call("chain_getNetworkStats", params)["error"].take();
        assert_eq!((&error["code"], &error["data"]["param"]), (&json!(-32602), &json!("epochs")));
    }
}
