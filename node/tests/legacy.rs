//! Older ARIA nodes on the peers' port of a real node: readable JSON, unsigned.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use std::time::{SystemTime, UNIX_EPOCH};

use aria_node::cli::StartArgs;
use aria_node::config::{ConfigFile, NodeConfig};
use aria_node::node::Node;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_util::sync::CancellationToken;

type Socket = WebSocketStream<TcpStream>;

async fn connect(address: &str, subprotocol: Option<&'static str>) -> Option<Socket> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut request = format!("ws://{address}/").into_client_request().unwrap();
    if let Some(name) = subprotocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", name.parse().unwrap());
    }
    tokio_tungstenite::client_async(request, stream).await.ok().map(|(socket, _)| socket)
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

async fn say(socket: &mut Socket, message: &Value) -> Value {
    socket.send(Message::text(message.to_string())).await.unwrap();
    loop {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

async fn ask(socket: &mut Socket, kind: &str, data: Value) -> Value {
    let message =
        json!({"type": kind, "request_id": "r-1", "sender": "node-alice", "data": data, "timestamp": now_s()});
    say(socket, &message).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_node_pings_announces_lists_reads_and_asks() {
    let folder = tempfile::tempdir().unwrap();
    let flags = StartArgs {
        port: Some(0),
        api_port: Some(0),
        rpc_port: Some(0),
        dashboard_port: Some(0),
        client_fee: Some("0.003".parse().unwrap()),
        ..StartArgs::default()
    };
    let config = NodeConfig::settle(&flags, &ConfigFile::default()).unwrap();
    let stop = CancellationToken::new();
    let node = Node::start(&config, folder.path(), stop.clone()).await.unwrap();
    let (address, id) = (node.running.p2p.clone(), node.running.node_id.clone());
    let rpc = node.running.rpc.clone();
    let running = tokio::spawn(node.run());

    assert!(connect(&address, Some("chat")).await.is_none(), "some other protocol");
    assert!(connect(&address, Some("aria.v0")).await.is_some());
    let mut socket = connect(&address, None).await.unwrap();
    let pong = ask(&mut socket, "ping", json!({})).await;
    assert_eq!(
        (&pong["type"], &pong["request_id"], &pong["data"]["node_id"]),
        (&json!("pong"), &json!("r-1"), &json!(id))
    );
    let reply =
        ask(&mut socket, "peer_announce", json!({"node_id": "node-alice", "host": "127.0.0.1", "port": 8765})).await;
    assert_eq!((&reply["status"], &reply["peer_id"]), (&json!("accepted"), &json!(id)));
    assert_eq!(ask(&mut socket, "get_peers", json!({"max_peers": 5})).await["peers"], json!([]));
    let stats = ask(&mut socket, "get_stats", json!({})).await;
    assert!(stats["data"]["is_running"] == json!(true) && stats["uptime_seconds"].is_number(), "{stats}");
    // What is told to everybody has no reply: the next one is that to the next question.
    for (kind, data) in [("shard_announce", json!({"shard_ids": ["m_L0-7"]})), ("pong", json!({}))] {
        let told = json!({"type": kind, "sender_id": "node-alice", "data": data, "timestamp": now_s()});
        socket.send(Message::text(told.to_string())).await.unwrap();
        assert_eq!(ask(&mut socket, "ping", json!({})).await["type"], json!("pong"), "after {kind}");
    }
    let shards = ask(&mut socket, "shard_announce", json!({"shard_ids": ["m_L0-7"]})).await;
    assert_eq!((&shards["request_id"], &shards["status"]), (&json!("r-1"), &json!("ignored")), "who asks is answered");
    let answer = ask(&mut socket, "inference_request", json!({"query": "What is a block?", "max_tokens": 12})).await;
    assert_eq!((&answer["type"], &answer["status"]), (&json!("inference_response"), &json!("completed")), "{answer}");
    assert!(!answer["output"].as_str().unwrap().is_empty() && answer["tokens_generated"] == answer["tokens"]);
    assert!(answer["data"]["record_id"].is_string(), "it leaves a record like any answer: {answer}");
    let proof = loop {
        let id = json!([answer["data"]["record_id"]]);
        let proof = aria_node::client::rpc(&rpc, "chain_getUsefulWorkProof", id).await.unwrap();
        if !proof.is_null() {
            break proof;
        }
    };
    assert_eq!(proof["request"]["max_fee"], json!("0"), "this node pays for its own clients, not for strangers");

    // What is wrong is named, and nothing ends the node.
    let old = json!({"type": "get_stats", "data": {}, "timestamp": now_s() - 400.0});
    for (message, code) in [
        (json!([1]), "INVALID_MESSAGE"),
        (json!({"type": "get_stats"}), "INVALID_MESSAGE"),
        (json!({"type": "get_blocks", "timestamp": now_s()}), "UNKNOWN_TYPE"),
        (json!({"type": "pipeline_forward", "timestamp": now_s()}), "UNAUTHORIZED"),
        (old, "INVALID_MESSAGE"),
        (
            json!({"type": "peer_announce", "timestamp": now_s(), "data": {"node_id": id, "host": "h", "port": 1}}),
            "CONFLICT",
        ),
        (
            json!({"type": "inference_request", "timestamp": now_s(), "data": {"query": "x", "max_tokens": 0}}),
            "INVALID_MESSAGE",
        ),
        (
            json!({"type": "inference_request", "timestamp": now_s(), "data": {"query": "x", "model_id": "y"}}),
            "NOT_FOUND",
        ),
    ] {
        let reply = say(&mut socket, &message).await;
        assert_eq!((&reply["type"], &reply["error_code"]), (&json!("error"), &json!(code)), "{message}: {reply}");
    }
    consent_holds_here_too(&mut socket, folder.path()).await;
    let mut codes = Vec::new();
    for _ in 0..8 {
        codes.push(ask(&mut socket, "ping", json!({})).await["error_code"].clone());
    }
    assert!(codes.contains(&json!("RATE_LIMITED")), "{codes:?}");
    socket.send(Message::text("x".repeat(20_000))).await.unwrap();
    assert!(!matches!(socket.next().await, Some(Ok(Message::Text(_)))), "too long a message ends the connection");
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// What the contract of the running node forbids is refused with its clause, and told in its statistics.
async fn consent_holds_here_too(socket: &mut Socket, data_dir: &std::path::Path) {
    let door = data_dir.join("admin.sock");
    let state = async |contract: Value| {
        aria_node::client::admin(&door, "admin_setConsent", json!({"contract": contract})).await.unwrap()
    };
    let question = |more: Value| {
        let mut data = json!({"query": "What is a block?", "max_tokens": 4});
        for (key, value) in more.as_object().unwrap() {
            data[key] = value.clone();
        }
        data
    };
    state(json!({"task_types": ["code_gen"]})).await;
    for (more, clause) in [
        (json!({}), "task"),
        (json!({"task_type": "text_generation"}), "task"),
        (json!({"task_type": "code_gen", "ram_mb": 513}), "ram"),
    ] {
        let reply = ask(socket, "inference_request", question(more)).await;
        assert_eq!((&reply["type"], &reply["error_code"]), (&json!("error"), &json!("FORBIDDEN")), "{reply}");
        assert_eq!(reply["details"]["clause"], json!(clause), "{reply}");
    }
    let unknown = ask(socket, "inference_request", question(json!({"task_type": "poetry"}))).await;
    assert_eq!(unknown["error_code"], json!("INVALID_MESSAGE"), "{unknown}");
    let fitting = question(json!({"task_type": "code_generation", "ram_mb": 512}));
    assert_eq!(ask(socket, "inference_request", fitting).await["status"], json!("completed"));
    let stats = ask(socket, "get_stats", json!({})).await;
    assert_eq!(stats["consent"]["task_types"], json!(["code_gen"]), "{stats}");
    state(json!({"task_types": "any"})).await;
    assert_eq!(ask(socket, "inference_request", question(json!({}))).await["status"], json!("completed"));
}
