//! Clients that pay by themselves: they sign the request before the answer and the record after it.

use aria_chain::codec::Versioned;
use aria_chain::keys::NodeKey;
use aria_chain::request::InferenceRequest;
use aria_tests::devnet::Member;
use aria_tests::http::{self, Answer};
use aria_tests::{Devnet, aria, told};
use serde_json::{Value, json};

use crate::audits::{hex, nano, node_id, settled};

fn door(member: &Member) -> String {
    format!("127.0.0.1:{}", member.base_port + 1)
}

fn ask(member: &Member, aria: &Value) -> Answer {
    ask_for(member, 1, aria)
}

fn ask_for(member: &Member, choices: u8, aria: &Value) -> Answer {
    let messages = json!([{"role": "user", "content": "Who pays for this?"}]);
    let body = json!({"model": "aria-tiny", "messages": messages, "max_tokens": 8, "n": choices, "aria": aria});
    http::post(&door(member), "/v1/chat/completions", &body)
}

/// The request that a client is offered to sign.
fn offered(member: &Member, key: &NodeKey, max_fee: u64) -> InferenceRequest {
    let offer = ask(member, &json!({"requester": key.node_id(), "max_fee": max_fee}));
    let view = offer.json();
    assert_eq!((offer.status, view["error"]["code"].as_str()), (402, Some("sign_request")), "{view}");
    let request = InferenceRequest::decode(&hex(view["aria"]["request"].as_str().unwrap())).unwrap();
    assert_eq!(view["aria"]["request_id"], json!(request.id()));
    assert_eq!((request.requester, request.max_fee.get(), request.max_tokens), (key.node_id(), max_fee, 8));
    request
}

fn signed(request: &InferenceRequest, key: &NodeKey) -> Value {
    let signature = key.sign_request(&request.chain_id, &request.id());
    json!({"request_id": request.id(), "signature": signature.to_string()})
}

/// Gives a receipt for a record; the status.
fn receipt(member: &Member, record: &str, request: &InferenceRequest, key: &NodeKey) -> u16 {
    let signature = key.sign_receipt(&request.chain_id, &record.parse().unwrap());
    let body = json!({"record_id": record, "signature": signature.to_string()});
    http::post(&door(member), "/v1/aria/receipts", &body).status
}

fn balance(member: &Member, key: &NodeKey) -> u64 {
    nano(&member.result("chain_getAccount", json!([key.node_id()])), "balance")
}

#[test]
fn a_client_with_a_key_pays_for_its_answers_and_signs_for_them() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Nothing was ever started there: an account needs no node.
    let other = elsewhere.path().join("aria");
    let network = Devnet::start(folder.path(), 4);
    let (first, second) = (&network.members[0], &network.members[1]);
    let rpc = format!("127.0.0.1:{}", first.base_port + 2);
    let api = format!("http://{}/v1", door(first));
    let infer = ["infer", "What is a fee?", "--at", &api, "--pay", "0.005"];

    // Nobody is answered on credit.
    let poor = aria(&other, &infer);
    assert!(String::from_utf8_lossy(&poor.stderr).contains("account has besides"), "{poor:?}");
    told(&other, &["wallet", "faucet", "1", "--rpc", &rpc]);
    let key = NodeKey::load(&other.join("node.key")).unwrap();
    let before = balance(first, &key);

    // From another machine's key, with the program.
    let answer = told(&other, &infer);
    assert!(!answer["text"].as_str().unwrap().is_empty(), "{answer}");
    let record = answer["record_id"].as_str().unwrap();
    assert_eq!(settled(second, record), "verified");
    let audit = second.result("chain_getAudit", json!([record]));
    assert_eq!((audit["requester"].clone(), nano(&audit, "fee")), (json!(key.node_id()), 5_000_000), "{audit}");
    assert_eq!(balance(second, &key), before - 5_000_000);
    let rewards = second.result("chain_getRewards", json!([node_id(first)]));
    assert!(
        nano(&rewards["records"][0], "of_fee") == 250_000 && nano(&rewards["records"][0], "minted") > 0,
        "{rewards}"
    );

    // Of several the one with the best reputation is asked, which answered already; who does not answer is none of them.
    let third = format!("http://{}/v1", door(&network.members[2]));
    let several = format!("http://127.0.0.1:1/v1,{third},{api}");
    let answer = told(&other, &["infer", "And reputation?", "--at", &several, "--rpc", &rpc, "--pay", "0.001"]);
    let record = answer["record_id"].as_str().unwrap();
    assert_eq!(settled(second, record), "verified");
    let stages = second.result("chain_getRecord", json!([record]));
    assert!(stages.to_string().contains(&node_id(first)), "{stages}");
    let nobody = aria(&other, &["infer", "Anybody?", "--at", "http://127.0.0.1:1/v1"]);
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no node can be asked"), "{nobody:?}");
    let unknown = aria(&other, &["infer", "Whom?", "--at", &several]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("--rpc"), "{unknown:?}");

    // No request pays more than the chain lets it.
    let rich = ask(first, &json!({"requester": key.node_id(), "max_fee": 10_000_001_u64}));
    assert_eq!((rich.status, rich.json()["error"]["param"].as_str()), (400, Some("aria.max_fee")), "{rich:?}");

    // By hand: what was offered is run, once, and for its requester alone.
    let request = offered(first, &key, 1_000_000);
    let stranger = NodeKey::from_seed(&[99; 32]);
    let forged = ask(first, &signed(&request, &stranger));
    assert_eq!((forged.status, forged.json()["error"]["param"].as_str()), (400, Some("aria.signature")), "{forged:?}");
    let answer = ask_for(first, 3, &signed(&request, &key)).json();
    assert_eq!(answer["choices"].as_array().unwrap().len(), 1, "what was signed, whatever is said later");
    let record = answer["aria"]["record_id"].as_str().unwrap();
    let again = ask(first, &signed(&request, &key));
    assert_eq!(
        (again.status, again.json()["error"]["param"].as_str()),
        (400, Some("aria.request_id")),
        "once: {again:?}"
    );
    assert_eq!(second.result("mempool_get", json!([record])), Value::Null, "no proof without a receipt");
    assert_eq!(receipt(first, record, &request, &stranger), 400);
    assert_eq!(receipt(first, record, &request, &key), 200);
    assert_eq!(receipt(first, record, &request, &key), 400, "a receipt is given once");
    assert_eq!(settled(second, record), "verified");

    // Who does not sign for answers is given no more until it does.
    let mut owed = Vec::new();
    for _ in 0..4 {
        let request = offered(first, &key, 0);
        let answer = ask(first, &signed(&request, &key)).json();
        owed.push((answer["aria"]["record_id"].as_str().unwrap().to_owned(), request));
    }
    let refused = ask(first, &json!({"requester": key.node_id()}));
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (402, Some("receipt_owed")), "{refused:?}");
    let listed = http::get(&door(first), &format!("/v1/aria/receipts/{}", key.node_id())).json();
    let mut records: Vec<&str> =
        listed["records"].as_array().unwrap().iter().map(|one| one["record_id"].as_str().unwrap()).collect();
    let mut expected: Vec<&str> = owed.iter().map(|(record, _)| record.as_str()).collect();
    records.sort_unstable();
    expected.sort_unstable();
    assert_eq!(records, expected, "{listed}");
    for (record, request) in &owed {
        assert_eq!(receipt(first, record, request, &key), 200);
    }
    // Who compares offers signs few of them.
    let offers: Vec<InferenceRequest> = (0..20).map(|_| offered(first, &key, 0)).collect();
    assert_eq!(ask(first, &signed(&offers[0], &key)).status, 400, "the oldest gave way");
    assert_eq!(ask(first, &signed(&offers[19], &key)).status, 200);
    assert_eq!(settled(second, &owed[3].0), "verified");
    network.terminate();
}
