//! Headers in pages and who votes, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[expect(dead_code, reason = "headers and votes need a part of the script only")]
mod scripted;

use scripted::{Script, Scripted, call, open_chain};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_headers_join_into_the_chain() {
    let node = Scripted::new(Script::Words(&[]));
    node.grow(12);
    let (address, _handle) = open_chain(&node).await;
    let (mut from, mut previous, mut heights) = (json!(0), json!("0".repeat(64)), Vec::new());
    while !from.is_null() {
        let page = call(address, "chain_getHeaders", json!({"from": from, "limit": 5}))["result"].take();
        let headers = page["headers"].as_array().unwrap();
        assert!((1..=5).contains(&headers.len()), "{page}");
        for header in headers {
            assert_eq!(header["previous_hash"], previous);
            previous = header["hash"].clone();
            heights.push(header["index"].as_u64().unwrap());
        }
        assert_eq!(page["at"]["height"], json!(12));
        from = page["next"].clone();
    }
    assert_eq!(heights, (0..=12).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_bounded_and_beyond_the_tip_there_are_none() {
    let node = Scripted::new(Script::Words(&[]));
    node.grow(101);
    let (address, _handle) = open_chain(&node).await;
    let page = call(address, "chain_getHeaders", json!([0, 100_000]))["result"].take();
    assert_eq!((page["headers"].as_array().unwrap().len(), &page["next"]), (100, &json!(100)));
    for from in [102, u64::MAX] {
        let page = call(address, "chain_getHeaders", json!([from]))["result"].take();
        assert_eq!((&page["headers"], &page["next"]), (&json!([]), &Value::Null), "{from}");
    }
    for params in [json!([]), json!([-1]), json!(["latest"])] {
        let error = call(address, "chain_getHeaders", params)["error"].take();
        assert_eq!((&error["code"], &error["data"]["param"]), (&json!(-32602), &json!("from")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn validators_have_exact_shares_and_a_page_ends() {
    let node = Scripted::new(Script::Words(&[]));
    node.grow(1);
    let (address, _handle) = open_chain(&node).await;
    let all = call(address, "chain_listValidators", json!([]))["result"].take();
    let one = &all["validators"][0];
    assert_eq!((&all["count"], &all["height"], &all["next_cursor"]), (&json!(1), &json!(1), &Value::Null));
    assert_eq!(
        (&one["share"], &one["share_ppm"], &one["power"]),
        (&json!("1/1"), &json!(1_000_000), &all["total_power"])
    );
    let header = call(address, "chain_getHeader", json!(["latest"]))["result"].take();
    assert_eq!(all["set_hash"], header["validators_hash"]);
    let past = call(address, "chain_listValidators", json!({"block": 0, "limit": 0, "cursor": one["node_id"]}));
    assert_eq!((&past["result"]["validators"], &past["result"]["next_cursor"]), (&json!([]), &Value::Null));
    assert_eq!(call(address, "chain_listValidators", json!([99]))["result"], Value::Null);
    let error = call(address, "chain_listValidators", json!({"cursor": "x"}))["error"].take();
    assert_eq!((&error["code"], &error["data"]["param"]), (&json!(-32602), &json!("cursor")));
}
