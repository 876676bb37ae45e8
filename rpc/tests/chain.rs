//! The chain's door over real sockets: HTTP, WebSocket, and the document that describes it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[expect(dead_code, reason = "the chain's door needs a part of the script only")]
mod scripted;

use std::collections::BTreeSet;

use aria_rpc::chain::api;
use aria_rpc::services::Services as _;
use scripted::socket::Socket;
use scripted::{Script, Scripted, ask, call, open_chain, post};
use serde_json::{Value, json};

#[test]
fn the_document_names_the_methods_that_there_are() {
    let document: Value = serde_json::from_str(api::OPENRPC).unwrap();
    let described: BTreeSet<&str> =
        document["methods"].as_array().unwrap().iter().map(|method| method["name"].as_str().unwrap()).collect();
    let registered: BTreeSet<&str> = api::METHODS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(described, registered);
    for (name, params, _) in api::METHODS {
        let method = document["methods"].as_array().unwrap().iter().find(|method| method["name"] == *name).unwrap();
        let described: Vec<&str> =
            method["params"].as_array().unwrap().iter().map(|param| param["name"].as_str().unwrap()).collect();
        assert_eq!(&described, params, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_go_by_position_and_by_name() {
    let (address, _handle) = open_chain(&Scripted::new(Script::Words(&[]))).await;
    let by_position = call(address, "chain_getBlock", json!(["latest", 0]));
    let by_name = call(address, "chain_getBlock", json!({"block": "earliest", "verbosity": 0}));
    assert_eq!(by_position["result"], by_name["result"]);
    let block = &by_name["result"];
    assert_eq!((&block["index"], &block["records"]), (&json!(0), &json!([])));
    let by_hash = call(address, "chain_getBlock", json!([block["hash"]]));
    assert_eq!(by_hash["result"]["hash"], block["hash"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_and_what_is_absent_is_null() {
    let (address, _handle) = open_chain(&Scripted::new(Script::Words(&[]))).await;
    let wrong = [
        ("chain_getBlock", json!([]), "block"),
        ("chain_getBlock", json!(["pending"]), "block"),
        ("chain_getBlock", json!([-1]), "block"),
        ("chain_getBlock", json!([0, 7]), "verbosity"),
        ("chain_getBlock", json!([0, 1, 2]), "params"),
        ("chain_getRecord", json!(["AB"]), "id"),
        ("chain_getRecord", json!({"ID": "x"}), "ID"),
        ("chain_listRecords", json!([{"colour": 1}]), "colour"),
        ("chain_listRecords", json!([{"cursor": "x"}]), "cursor"),
        ("chain_listRecords", json!([{"order": "up"}]), "order"),
        ("chain_listRecords", json!([{"status": "odd"}]), "status"),
        ("chain_verify", json!([5, 1]), "to"),
        ("chain_verifyRecordProof", json!([{}]), "proof"),
    ];
    for (method, params, param) in wrong {
        let error = call(address, method, params.clone())["error"].clone();
        assert_eq!(
            (&error["code"], &error["data"]["param"]),
            (&json!(-32602), &json!(param)),
            "{method} {params}: {error}"
        );
        assert_eq!(error["data"]["reason"], "invalid_params");
    }
    let absent = "ab".repeat(32);
    for method in
        ["chain_getRecord", "chain_getRecordProof", "chain_getUsefulWorkProof", "chain_getBlock", "chain_getAccount"]
    {
        assert_eq!(call(address, method, json!([absent]))["result"], Value::Null, "{method}");
    }
    let page = call(address, "chain_listRecords", json!([{"limit": 1000}]))["result"].clone();
    assert_eq!((&page["records"], &page["next_cursor"], &page["at"]["height"]), (&json!([]), &Value::Null, &json!(0)));
    assert_eq!(call(address, "no_such", json!([]))["error"]["code"], -32601);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_bounded_and_examples_are_true() {
    let (address, _handle) = open_chain(&Scripted::new(Script::Words(&[]))).await;
    let batch = |count: usize| -> Value {
        let calls: Vec<Value> =
            (0..count).map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "chain_status", "params": []})).collect();
        let answer = post(address, "/", &json!(calls));
        serde_json::from_str(
            answer
                .body
                .trim_start_matches(|letter| letter != '[' && letter != '{')
                .trim_end_matches(|letter| letter != ']' && letter != '}'),
        )
        .unwrap()
    };
    assert_eq!(batch(50).as_array().unwrap().len(), 50);
    assert_eq!(batch(51)["error"]["code"], -32010);
    let document: Value = serde_json::from_str(api::OPENRPC).unwrap();
    for method in document["methods"].as_array().unwrap() {
        for example in method["examples"].as_array().into_iter().flatten() {
            let answer = call(address, method["name"].as_str().unwrap(), example["params"].clone());
            for (key, value) in example["result"]["value"].as_object().unwrap() {
                assert_eq!(&answer["result"][key], value, "{method}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_hosts_and_plain_text_are_refused_and_health_is_a_get() {
    let (address, _handle) = open_chain(&Scripted::new(Script::Words(&[]))).await;
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"chain_status","params":[]}"#;
    let json = ("content-type", "application/json");
    assert_eq!(ask(address, "POST", "/", &[json], request).status, 200);
    assert_eq!(ask(address, "POST", "/", &[json, ("host", "evil.example")], request).status, 403);
    assert_eq!(ask(address, "POST", "/", &[("content-type", "text/plain")], request).status, 415);
    let health = ask(address, "GET", "/health", &[], "");
    assert!(health.status == 200 && health.body.contains("healthy"), "{}", health.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_methods_answer_on_a_websocket() {
    let (address, _handle) = open_chain(&Scripted::new(Script::Words(&[]))).await;
    let mut socket = Socket::open(address);
    socket.send("mempool_status", json!([]));
    let answer = socket.next();
    assert_eq!((&answer["id"], &answer["result"]["pending"]), (&json!(9), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_private_door_states_changes_and_revokes_a_contract() {
    let node = Scripted::new(Script::Words(&[]));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = aria_rpc::admin::router(node.clone());
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(aria_rpc::server::serve(listener, routes, stop, 8));
    assert_eq!(call(address, "admin_getConsent", json!([]))["result"], Value::Null);
    let set = call(address, "admin_setConsent", json!({"contract": {"cpu_percent": 40, "days": "sat,sun"}}));
    let (contract, digest) = (&set["result"]["contract"], &set["result"]["digest"]);
    assert_eq!((&contract["cpu_percent"], &contract["days"]), (&json!(40), &json!(["sat", "sun"])), "{set}");
    let again = call(address, "admin_setConsent", json!([{"max_ram_mb": 100}]));
    assert_eq!(again["result"]["contract"]["cpu_percent"], 40, "what is not named stays");
    assert_ne!(&again["result"]["digest"], digest);
    assert_eq!(call(address, "admin_getConsent", json!([]))["result"], again["result"]);
    for wrong in [json!([{"cpu_percent": 0}]), json!([{"cpu": 5}]), json!([5]), json!([])] {
        let error = call(address, "admin_setConsent", wrong.clone())["error"].clone();
        assert_eq!((&error["code"], &error["data"]["param"]), (&json!(-32602), &json!("contract")), "{wrong}: {error}");
    }
    assert_eq!(call(address, "admin_revokeConsent", json!([]))["result"]["revoked"], true);
    // On chain stands what was registered there, and nothing was.
    let (public, _handle) = open_chain(&node).await;
    let mine = node.status().node_id;
    assert_eq!(call(public, "chain_getConsent", json!([mine]))["result"], Value::Null);
    assert_eq!(call(public, "chain_getConsent", json!(["x"]))["error"]["data"]["param"], "node");
    assert_eq!(call(public, "net_listPeers", json!([]))["result"]["peers"][0]["consent"], Value::Null);
    assert_eq!(call(public, "admin_setConsent", json!([{}]))["error"]["code"], -32601, "not at a public door");
}
