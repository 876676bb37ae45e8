//! Models that the chain knows, over real sockets: pages that join, and what a proposal has come to.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[expect(dead_code, reason = "models need a part of the script only")]
mod scripted;

use aria_chain::ids::ModelId;
use aria_chain::model::{ModelName, Shape, proposal_id};
use aria_chain::transaction::Action;
use scripted::{MODEL, Script, Scripted, call, genesis, key, open_chain};
use serde_json::{Value, json};

const SHAPE: Shape = Shape { layers: 6, dim: 512, ffn: 1_024, heads: 8, kv_heads: 4, head_dim: 64, vocab: 8_192 };

fn proposed(n: u8) -> (ModelId, ModelName) {
    (ModelId::new([n; 32]), ModelName::new(format!("model-{n}")).unwrap())
}

fn register(n: u8) -> Action {
    let (model, name) = proposed(n);
    Action::RegisterModel { model, name, shape: SHAPE }
}

fn confirm(n: u8) -> Action {
    let (model, name) = proposed(n);
    Action::ConfirmModel { model, proposal: proposal_id(&model, &name, &SHAPE) }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_models_join_and_say_what_became_of_each() {
    let node = Scripted::new(Script::Words(&[]));
    node.order((1..=7).map(register).collect());
    node.order(vec![confirm(2), confirm(5)]);
    let (address, _handle) = open_chain(&node).await;
    let all = call(address, "chain_listModels", json!([]))["result"].take();
    let ids = |page: &Value| -> Vec<(String, String)> {
        let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
        page["models"].as_array().unwrap().iter().map(|one| (text(one, "status"), text(one, "model_id"))).collect()
    };
    let known = |status: &str, model: &dyn std::fmt::Display| (status.to_owned(), model.to_string());
    let mut expected: Vec<_> = [2, 5].map(|n| known("registered", &proposed(n).0)).into();
    expected.push(known("registered", &MODEL));
    expected.extend([1, 3, 4, 6, 7].map(|n| known("proposed", &proposed(n).0)));
    assert_eq!((ids(&all), &all["next_cursor"]), (expected.clone(), &Value::Null));
    for limit in 1..=8 {
        let (mut cursor, mut joined) = (Value::Null, Vec::new());
        loop {
            let page = call(address, "chain_listModels", json!({"limit": limit, "cursor": cursor}))["result"].take();
            joined.extend(ids(&page));
            cursor = page["next_cursor"].clone();
            if cursor.is_null() {
                break;
            }
        }
        assert_eq!(joined, expected, "pages of {limit}");
    }
    let some = |status: &str| call(address, "chain_listModels", json!({"status": status}))["result"].take();
    assert_eq!(ids(&some("registered")), expected[..3]);
    assert_eq!(ids(&some("proposed")), expected[3..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_shows_all_that_a_voter_looks_at() {
    let node = Scripted::new(Script::Words(&[]));
    node.order(vec![register(1)]);
    let (address, _handle) = open_chain(&node).await;
    let page = call(address, "chain_listModels", json!(["proposed"]))["result"].take();
    let (one, (model, name)) = (&page["models"][0], proposed(1));
    let ops = SHAPE.ops_per_token().unwrap();
    assert_eq!((one["ops_per_token"].as_u64(), one["parameters"].as_u64()), (Some(ops), Some(ops / 2)));
    assert_eq!((&one["shape"], &one["name"]), (&json!(SHAPE), &json!("model-1")));
    assert_eq!(one["proposal"], json!(proposal_id(&model, &name, &SHAPE)));
    assert_eq!((&one["proposer"], &one["height"]), (&json!(key(1).node_id()), &json!(1)));
    assert_eq!(one["ends"], json!(1 + genesis().params().unbond_blocks));
    assert_eq!((&one["confirmed_by"], &one["confirmed_ppm"]), (&json!([]), &json!(0)));
    assert_eq!((&one["confirmed_power"], &one["total_power"]), (&json!("0"), &json!("1000000000")));
    assert_eq!(page["registration_fee"], json!("1000000000"));

    // The transaction says the same, and what it cost.
    let block = call(address, "chain_getBlock", json!([1]))["result"].take();
    let order = &block["transactions"][0];
    assert_eq!(
        (&order["action"], &order["amount"], &order["to"]),
        (&json!("register_model"), &Value::Null, &Value::Null)
    );
    assert_eq!((&order["model_id"], &order["proposal"]), (&one["model_id"], &one["proposal"]));
    let receipt = call(address, "chain_getReceipt", json!([order["id"]]))["result"].take();
    assert_eq!((&receipt["fee_burned"], &receipt["registration_fee"]), (&json!("50000"), &json!("1000000000")));
    for (params, param) in [(json!({"status": "odd"}), "status"), (json!({"cursor": "x"}), "cursor")] {
        let error = call(address, "chain_listModels", params)["error"].take();
        assert_eq!((&error["code"], &error["data"]["param"]), (&json!(-32602), &json!(param)));
    }
}
