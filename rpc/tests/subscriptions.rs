//! Subscriptions over real sockets.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[expect(dead_code, reason = "subscriptions need a part of the script only")]
mod scripted;

use std::sync::Arc;
use std::time::Duration;

use aria_rpc::chain;
use aria_rpc::services::Services;
use scripted::socket::Socket;
use scripted::{MODEL, Script, Scripted, key, open_chain};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn heads_of_the_past_run_on_into_new_ones_without_a_gap() {
    let node = Scripted::new(Script::Words(&[]));
    let (address, _handle) = open_chain(&node).await;
    node.grow(5);
    let mut socket = Socket::open(address);
    let id = socket.subscribe("chain_subscribeNewHeads", json!({"from": 2}));
    let mut previous = Value::Null;
    for seq in 1..=4_u64 {
        let item = socket.item("chain_newHead", &id);
        assert_eq!(
            (&item["seq"], &item["height"], &item["head"]["index"]),
            (&json!(seq), &json!(seq + 1), &json!(seq + 1))
        );
        assert!(previous.is_null() || item["head"]["previous_hash"] == previous);
        previous = item["head"]["hash"].clone();
    }
    node.grow(3);
    for seq in 5..=7_u64 {
        let item = socket.item("chain_newHead", &id);
        assert_eq!((&item["seq"], &item["head"]["previous_hash"]), (&json!(seq), &previous));
        previous = item["head"]["hash"].clone();
    }
    socket.send("chain_unsubscribeNewHeads", json!([id]));
    assert_eq!(socket.next()["result"], json!(true));
    node.grow(1);
    socket.send("chain_status", json!([]));
    assert_eq!(socket.next()["result"]["height"], json!(9), "no item comes after the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_subscribed_is_refused_by_name() {
    let (address, _handle) = open_chain(&Scripted::new(Script::Words(&[]))).await;
    let mut socket = Socket::open(address);
    for (method, params, param) in [
        ("chain_subscribeNewHeads", json!({"from": 2}), "from"),
        ("chain_subscribeNewHeads", json!({"form": 0}), "form"),
        ("chain_subscribeNewRecords", json!({"filter": {"node": "x"}}), "node"),
        ("chain_subscribeNewRecords", json!({"filter": {"node_id": "x"}}), "node_id"),
    ] {
        socket.send(method, params);
        let answer = socket.next();
        assert_eq!(answer["error"]["code"], json!(-32602), "{answer}");
        assert!(answer["error"].to_string().contains(param), "{answer}");
    }
    // A refused one keeps its place on its connection until a little after the answer.
    let mut socket = Socket::open(address);
    for _ in 0..chain::subscribe::SUBSCRIPTIONS_MAX {
        socket.subscribe("chain_subscribeFinalizedHeads", json!([]));
    }
    socket.send("chain_subscribeNewHeads", json!([]));
    assert_eq!(socket.next()["error"]["code"], json!(-32006));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_told_where_to_go_on() {
    let node = Scripted::new(Script::Words(&[]));
    node.grow(30);
    let services: Arc<dyn Services> = node.clone();
    // The module itself, with a queue that is soon full.
    let module = chain::module(services);
    let mut subscription = module.subscribe("chain_subscribeNewHeads", [1_u64], 12).await.unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    let mut items: Vec<Value> = Vec::new();
    while let Some(Ok((item, _))) = subscription.next::<Value>().await {
        items.push(item);
    }
    let last = items.pop().unwrap();
    let read = u64::try_from(items.len()).unwrap();
    assert!(read > 0 && read < 30);
    assert_eq!(items.last().unwrap()["height"], json!(read));
    assert_eq!(last, json!({"lagged": 30 - read, "resume": read + 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_the_past_run_on_into_new_ones_in_their_order() {
    let node = Scripted::new(Script::Words(&[]));
    let (address, _handle) = open_chain(&node).await;
    let mut ids = node.seal(&[1, 2]);
    node.grow(1);
    ids.extend(node.seal(&[2]));
    let mut socket = Socket::open(address);
    let id = socket.subscribe("chain_subscribeNewRecords", json!({"from": 0}));
    for (seq, (height, index)) in [(1, 0), (1, 1), (3, 0)].into_iter().enumerate() {
        let item = socket.item("chain_newRecord", &id);
        assert_eq!((&item["seq"], &item["height"]), (&json!(seq + 1), &json!(height)));
        assert_eq!((&item["record"]["id"], &item["record"]["index"]), (&json!(ids[seq]), &json!(index)));
    }
    let new = node.seal(&[1]);
    let item = socket.item("chain_newRecord", &id);
    assert_eq!((&item["seq"], &item["height"], &item["record"]["id"]), (&json!(4), &json!(4), &json!(new[0])));
    socket.send("chain_unsubscribeNewRecords", json!([id]));
    assert_eq!(socket.next()["result"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_of_records_leaves_out_the_others_and_counts_what_it_gives() {
    let node = Scripted::new(Script::Words(&[]));
    let (address, _handle) = open_chain(&node).await;
    let first = node.seal(&[1, 2, 1]);
    let mut socket = Socket::open(address);
    let second = json!(key(2).node_id());
    let id = socket.subscribe("chain_subscribeNewRecords", json!([{"node_id": second, "model_id": MODEL}, 1]));
    let item = socket.item("chain_newRecord", &id);
    assert_eq!((&item["seq"], &item["record"]["id"]), (&json!(1), &json!(first[1])));
    assert_eq!(item["record"]["node_ids"], json!([second]));
    node.seal(&[1]);
    let last = node.seal(&[1, 2]);
    let item = socket.item("chain_newRecord", &id);
    assert_eq!((&item["seq"], &item["height"]), (&json!(2), &json!(3)));
    assert_eq!(item["record"]["id"], json!(last[1]));
    let other = json!({"filter": {"model_id": "ab".repeat(32)}, "from": 0});
    socket.subscribe("chain_subscribeNewRecords", other);
    socket.send("chain_status", json!([]));
    assert_eq!(socket.next()["result"]["height"], json!(3), "of another model there is nothing");
}
