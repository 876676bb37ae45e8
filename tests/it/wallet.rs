//! Orders of accounts: typed at the command line, gossiped, sealed, kept through kill -9.

use aria_tests::{Devnet, Node, refused, told};
use serde_json::{Value, json};

fn nano(view: &Value, field: &str) -> u64 {
    view[field].as_str().unwrap().parse().unwrap()
}

#[test]
fn an_account_is_filled_emptied_bonded_and_freed() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = Node::start(folder.path());
    let here = folder.path();
    let stranger = told(other.path(), &["key", "show"])["node_id"].as_str().unwrap().to_owned();
    let rpc = node.result("net_info", json!([]));
    let me = rpc["node_id"].as_str().unwrap().to_owned();

    // Somebody without a node of their own, through the door of this one.
    let door = node.address("rpc").to_owned();
    let empty = told(other.path(), &["wallet", "balance", "--rpc", &door]);
    assert_eq!((nano(&empty, "balance"), empty["next_nonce"].as_u64()), (0, Some(0)));
    let nothing = refused(other.path(), &["wallet", "send", &me, "1", "--rpc", &door]);
    assert!(nothing.contains("no account") && nothing.contains("faucet"), "{nothing}");
    let given = told(other.path(), &["wallet", "faucet", "--rpc", &door]);
    assert_eq!(given["receipt"]["success"], json!(true), "{given}");
    let sent = told(other.path(), &["wallet", "send", &me, "40.5", "--fee", "0.001", "--rpc", &door]);
    let receipt = &sent["receipt"];
    assert_eq!((nano(receipt, "fee_burned"), nano(receipt, "fee_to_proposer")), (500_000, 500_000), "{receipt}");
    let left = told(other.path(), &["wallet", "balance", "--rpc", &door]);
    assert_eq!((nano(&left, "balance"), left["nonce"].as_u64()), (59_499_000_000, Some(1)));

    // What cannot be is refused before it waits, with the remedy.
    let much = refused(here, &["wallet", "send", &stranger, "99999999"]);
    assert!(much.contains("lower the amount"), "{much}");
    let cheap = refused(here, &["wallet", "bond", "1", "--fee", "0.000000001"]);
    assert!(cheap.contains("fee") && cheap.contains("raise it"), "{cheap}");
    let form = refused(here, &["wallet", "send", &stranger, "1,5"]);
    assert!(form.contains("as in 1.5"), "{form}");

    let before = told(here, &["wallet", "balance"]);
    told(here, &["wallet", "bond", "7"]);
    told(here, &["wallet", "unbond", "3"]);
    let after = told(here, &["wallet", "balance"]);
    assert_eq!(nano(&after, "bond"), nano(&before, "bond") + 7_000_000_000);
    assert_eq!(nano(&after, "unbonding"), 3_000_000_000);

    // Every order can be found again, and what exists still adds up.
    let id = sent["id"].as_str().unwrap();
    let found = node.result("chain_getTransaction", json!([id]));
    assert_eq!((found["action"].as_str(), found["to"].as_str()), (Some("transfer"), Some(me.as_str())));
    let listed = node.result("chain_listTransactions", json!({"limit": 2}));
    assert_eq!(listed["transactions"][0]["action"], json!("unbond"), "{listed}");
    let rest = node.result("chain_listTransactions", json!({"cursor": listed["next_cursor"]}));
    assert_eq!(rest["transactions"].as_array().unwrap().len(), 2, "{rest}");
    let accounts = node.result("chain_listAccounts", json!([]));
    let held: u64 =
        accounts["accounts"].as_array().unwrap().iter().map(|one| nano(one, "balance") + nano(one, "bond")).sum();
    let supply = node.result("chain_getSupply", json!([]));
    assert_eq!(held, nano(&supply, "total"), "{supply}");
    assert_eq!(node.result("chain_verify", json!([]))["ok"], json!(true));
    node.terminate();
}

#[test]
fn an_order_that_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = Devnet::start(folder.path(), 4);
    let everyone = [0, 1, 2, 3];
    let first = network.members[0].data_dir.clone();
    let to = network.members[1].result("net_info", json!([]))["node_id"].as_str().unwrap().to_owned();
    // Whoever proposes seals it, not only the node that took it.
    let orders: Vec<String> = (0..4)
        .map(|_| told(&first, &["wallet", "send", &to, "1", "--no-wait"])["id"].as_str().unwrap().to_owned())
        .collect();
    for (member, id) in network.members.iter().cycle().zip(&orders) {
        let begun = std::time::Instant::now();
        while member.result("chain_getReceipt", json!([id])).is_null() {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{id} is in no block");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    // Two of four decide nothing, so the next one waits; its node ends with no warning.
    network.kill(2);
    network.kill(3);
    let waiting = told(&first, &["wallet", "send", &to, "1", "--no-wait"])["id"].as_str().unwrap().to_owned();
    let listed = network.members[0].result("mempool_list", json!({"kind": "transaction"}));
    assert_eq!(listed["waiting"][0]["id"], json!(waiting), "{listed}");
    network.kill(0);
    network.start_again(0);
    assert_eq!(network.members[0].result("mempool_get", json!([waiting]))["id"], json!(waiting), "it is on disk");
    network.start_again(2);
    network.start_again(3);
    let begun = std::time::Instant::now();
    let receipt = loop {
        let receipt = network.members[3].result("chain_getReceipt", json!([waiting]));
        if !receipt.is_null() {
            break receipt;
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(120), "{waiting} is in no block");
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let hashes = network.hashes_at(&everyone, receipt["height"].as_u64().unwrap());
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    network.terminate();
}
