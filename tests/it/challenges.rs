//! A provider that gives its auditors nothing over the wire is asked on the chain.

use std::time::{Duration, Instant};

use aria_tests::Devnet;
use aria_tests::devnet::Member;
use serde_json::{Value, json};

use crate::audits::{account, nano, node_id, settled};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until a record's provider is challenged; the audit as it is then.
fn challenged(member: &Member, record: &str) -> Value {
    let begun = Instant::now();
    loop {
        let audit = member.result("chain_getAudit", json!([record]));
        if audit["challenge"].is_object() {
            return audit;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody challenges it: {audit}\n{}", member.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_gives_its_auditors_nothing_posts_it_on_the_chain_or_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = Devnet::start_with(folder.path(), 4, &[("heartbeat_ms", 500)]);
    let nodes: Vec<String> = network.members.iter().map(node_id).collect();

    // Nothing is sealed while two are away, so that nobody is given anything before it is gone.
    network.kill(1);
    network.kill(2);
    let provider = &network.members[3];
    // What is behind a long question takes several parts.
    let long = "What comes late? ".repeat(300);
    let [late, never] = [&long, "What never comes?"].map(|question| provider.ask(question));
    let payloads = provider.data_dir.join("payloads");
    let kept = std::fs::read(payloads.join(&late)).unwrap();
    for record in [&late, &never] {
        std::fs::remove_file(payloads.join(record)).unwrap();
    }
    network.start_again(1);
    network.start_again(2);
    let (first, provider) = (&network.members[0], &network.members[3]);

    let audit = challenged(first, &late);
    let challenge = &audit["challenge"];
    let by = challenge["by"].as_str().unwrap().to_owned();
    assert!(nodes[..3].contains(&by), "{audit}");
    assert_eq!(
        (&challenge["parts"], &challenge["delivered"], &challenge["answered"]),
        (&Value::Null, &json!(0), &json!(false))
    );
    assert!(audit["auditors"].as_array().unwrap().iter().all(|auditor| auditor["verdict"].is_null()), "{audit}");
    let told = aria_tests::aria(&first.data_dir, &["ledger", "audit", &late]);
    assert!(String::from_utf8_lossy(&told.stdout).contains(&format!("challenged by {by}")), "{told:?}");
    std::fs::write(payloads.join(&late), kept).unwrap();
    assert_eq!(settled(first, &late), "verified", "{}", provider.log());

    let score = |node: &str| first.result("chain_getReputation", json!([node]))["score_ppm"].as_u64().unwrap();
    assert_eq!(settled(first, &never), "unavailable");
    let audit = first.result("chain_getAudit", json!([never]));
    assert!(audit["auditors"].as_array().unwrap().iter().all(|auditor| auditor["verdict"].is_null()), "{audit}");
    assert_eq!((&audit["was_disputed"], &audit["challenge"]), (&json!(false), &Value::Null), "no judge was needed");
    let fallen = first.result("chain_getReputation", json!([nodes[3]]));
    assert_eq!((fallen["verified"].as_u64(), fallen["unavailable"].as_u64()), (Some(1), Some(1)), "{fallen}");
    assert!(score(&nodes[3]) < score(&nodes[0]), "{fallen}");

    let orders = first.result("chain_listTransactions", json!([]));
    let of = |action: &str| {
        let orders = orders["transactions"].as_array().unwrap().iter();
        orders.filter(|one| one["action"] == json!(action)).collect::<Vec<&Value>>()
    };
    let (asked, posted) = (of("challenge"), of("deliver"));
    let parts = posted[0]["delivery"]["parts"].as_u64().unwrap();
    assert!(asked.len() == 2 && parts > 1 && posted.len() as u64 == parts, "{orders}");
    for part in posted {
        assert_eq!((&part["sender"], &part["delivery"]["parts"]), (&json!(nodes[3]), &json!(parts)));
        let receipt = first.result("chain_getReceipt", json!([part["id"]]));
        assert_eq!((&receipt["fee_of_deposit"], &receipt["fee_burned"]), (&part["fee"], &part["fee"]), "{receipt}");
    }
    for node in &nodes {
        assert_eq!(nano(&account(first, node), "bond"), 1_000_000_000_000, "nobody is fined");
    }
    assert_eq!(first.result("chain_getSupply", json!([]))["held"], json!("0"));
    assert_eq!(network.members[2].result("chain_verify", json!([]))["ok"], json!(true));
    network.terminate();
}
