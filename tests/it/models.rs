//! Models that a running network takes up: proposed by one, looked into and judged by all who have them, paid from then on.

use std::time::{Duration, Instant};

use aria_chain::codec::Versioned;
use aria_chain::ids::{ChainId, ModelId};
use aria_chain::keys::NodeKey;
use aria_chain::model::{ModelName, Shape};
use aria_chain::transaction::{Action, SignedTransaction, Transaction};
use aria_chain::units::{Height, NanoAria};
use aria_inference::synthetic;
use aria_tests::devnet::Member;
use aria_tests::{Devnet, aria, http, refused, told};
use serde_json::{Value, json};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);
/// The built-in model, which the genesis of these networks does not know.
const TINY: &str = "56fc921370e640c07d286b1c51a234c26166af582fdc86936b584bee64b2d4d7";
/// Thirty times as wide as it is.
const INFLATED: Shape = Shape { layers: 6, dim: 7_680, ffn: 768, heads: 4, kv_heads: 2, head_dim: 64, vocab: 4_096 };

fn wait_for(what: &str, member: &Member, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        let models = || member.result("chain_listModels", json!([]));
        assert!(begun.elapsed() < PATIENCE, "{what}: {}\n{}", models(), member.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Models of a status, by digest and name.
fn models(member: &Member, status: &str) -> Vec<(String, String)> {
    let listed = member.result("chain_listModels", json!({"status": status}));
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    listed["models"].as_array().unwrap().iter().map(|one| (text(one, "model_id"), text(one, "name"))).collect()
}

fn status(member: &Member, record: &str) -> String {
    member.result("chain_getRecord", json!([record]))["status"].as_str().unwrap_or("waiting").to_owned()
}

/// Proposes a model with a shape that its file does not have, as somebody can who signs by hand.
fn lie(member: &Member) -> String {
    let key = NodeKey::load_or_create(&member.data_dir.join("node.key")).unwrap();
    let chain = member.result("chain_status", json!([]));
    let chain_id: ChainId = chain["chain_id"].as_str().unwrap().parse().unwrap();
    let account = member.result("chain_getAccount", json!([key.node_id()]));
    let model: ModelId = TINY.parse().unwrap();
    let transaction = Transaction {
        chain_id: chain_id.clone(),
        sender: key.node_id(),
        nonce: account["next_nonce"].as_u64().unwrap(),
        fee: NanoAria::new(100_000),
        expiry: Height::new(chain["height"].as_u64().unwrap() + 1_000),
        action: Action::RegisterModel { model, name: ModelName::new("aria-tiny").unwrap(), shape: INFLATED },
    };
    let signature = key.sign_transaction(&chain_id, &transaction.id());
    let bytes = SignedTransaction { transaction, signature }.encode();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    member.result("mempool_submit", json!([hex])).as_str().unwrap().to_owned()
}

#[test]
fn a_model_is_paid_once_voters_found_its_shape_and_a_false_one_never() {
    let folder = tempfile::tempdir().unwrap();
    let network = Devnet::start_without_models(folder.path(), 4);
    let (first, here) = (&network.members[0], network.members[0].data_dir.clone());
    let me = first.result("net_info", json!([]))["node_id"].as_str().unwrap().to_owned();
    let rewards = || first.result("chain_getAccount", json!([me]))["rewards_total"].as_str().unwrap() != "0";

    let early = first.ask("What is too early?");
    first.sealed(&early);
    assert_eq!((models(first, "registered"), rewards()), (vec![], false));

    // Everybody has the model, so everybody sees the lie.
    let liar = &network.members[1];
    lie(liar);
    wait_for("the lie is proposed", first, || !models(first, "proposed").is_empty());
    for member in &network.members {
        wait_for("the lie is seen", member, || member.log().contains("false shape"));
    }
    let by_hand = refused(&here, &["model", "confirm", TINY]);
    assert!(by_hand.contains("shape of aria-tiny, which is built in"), "{by_hand}");
    let proposed = first.result("chain_listModels", json!([]));
    assert_eq!(proposed["models"][0]["confirmed_by"], json!([]), "{proposed}");
    let unpaid = first.ask("Is it paid now?");
    first.sealed(&unpaid);

    // Said once by one node, the truth is confirmed by all, and nobody types anything.
    let balance = |member: &Member| told(&member.data_dir, &["wallet", "balance"]);
    let registered = told(&here, &["model", "register", "aria-tiny"]);
    assert_eq!(registered["receipt"]["registration_fee"], json!("1000000000"), "{registered}");
    assert_eq!((&registered["model_id"], &registered["shape"]["dim"]), (&json!(TINY), &json!(256)));
    for member in &network.members {
        wait_for("the truth is confirmed", member, || !models(member, "registered").is_empty());
        assert_eq!(models(member, "registered"), [(TINY.to_owned(), "aria-tiny".to_owned())]);
        assert_eq!(models(member, "proposed"), [], "the lie is gone");
    }
    assert!(network.members.iter().all(|member| balance(member)["nonce"].as_u64() <= Some(2)), "once each");
    let again = refused(&here, &["model", "register", "aria-tiny"]);
    assert!(again.contains("registered already"), "{again}");

    // From now on answers of it are checked and paid. What came before stays what it was.
    let paid = first.ask("And now?");
    wait_for("the answer is verified", first, || status(first, &paid) == "verified");
    assert!(rewards());
    assert_eq!((status(first, &early).as_str(), status(first, &unpaid).as_str()), ("included", "included"));
    assert_eq!(first.result("chain_verify", json!([]))["ok"], json!(true));
    let supply = first.result("chain_getSupply", json!([]));
    assert!(supply["burned"].as_str().unwrap().parse::<u64>().unwrap() >= 2_000_000_000, "{supply}");
    network.terminate();
}

#[test]
fn a_model_in_the_folders_of_three_of_four_is_registered() {
    let folder = tempfile::tempdir().unwrap();
    let network = Devnet::start(folder.path(), 4);
    let file = synthetic::Shape::named("tiny").unwrap().file(7);
    let (first, here) = (&network.members[0], network.members[0].data_dir.clone());
    let path = folder.path().join("strange.gguf");
    std::fs::write(&path, &file).unwrap();
    let proposed = told(&here, &["model", "register", path.to_str().unwrap(), "--name", "strange-1"]);
    let id = proposed["model_id"].as_str().unwrap().to_owned();
    let listed = told(&here, &["model", "registered"]);
    assert_eq!(listed["models"][1]["proposal"], proposed["proposal"], "{listed}");
    assert_eq!(listed["models"][0]["ops_per_token"], listed["models"][1]["ops_per_token"], "of one shape");
    let nothing = refused(&here, &["model", "confirm", &id]);
    assert!(nothing.contains("name it with --file"), "{nothing}");

    // One by hand, the others by themselves as soon as they have the file.
    told(&here, &["model", "confirm", &id, "--file", path.to_str().unwrap()]);
    let twice = refused(&here, &["model", "confirm", &id, "--file", path.to_str().unwrap()]);
    assert!(twice.contains("wait for the others"), "{twice}");
    let shown = aria(&here, &["model", "registered"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("strange-1") && shown.contains("proposed, 25 %"), "{shown}");
    for member in &network.members[1..3] {
        let models = member.data_dir.join("models/any-name");
        std::fs::create_dir_all(&models).unwrap();
        // Written elsewhere and renamed, so that nobody reads half of it.
        std::fs::write(member.data_dir.join("whole"), &file).unwrap();
        std::fs::rename(member.data_dir.join("whole"), models.join("model.gguf")).unwrap();
    }
    wait_for("three of four confirmed it", first, || models(first, "registered").len() == 2);
    assert!(models(first, "registered").contains(&(id, "strange-1".to_owned())));
    assert_eq!(models(first, "proposed"), []);
    network.terminate();
}

/// Asks a node for a few words of the model that it serves, and returns the id of the record.
fn ask(member: &Member, model: &str, prompt: &str) -> String {
    let body = json!({"model": model, "prompt": prompt, "max_tokens": 8, "seed": 1});
    let answer = http::post(&format!("127.0.0.1:{}", member.base_port + 1), "/v1/completions", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["aria"]["record_id"].as_str().unwrap().to_owned()
}

#[test]
fn whoever_has_a_model_judges_its_answers_whatever_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = Devnet::start(folder.path(), 4);
    let strange = ["strange-1", "strange-2"];
    for (seed, name) in (1..).zip(strange) {
        let file = synthetic::Shape::named("tiny").unwrap().file(seed);
        for member in &network.members {
            let models = member.data_dir.join("models").join(name);
            std::fs::create_dir_all(&models).unwrap();
            std::fs::write(models.join("whole"), &file).unwrap();
            std::fs::rename(models.join("whole"), models.join("model.gguf")).unwrap();
        }
        told(&network.members[0].data_dir, &["model", "register", name]);
    }
    let first = &network.members[0];
    wait_for("all models are registered", first, || models(first, "registered").len() == 3);
    for (index, name) in (2..).zip(strange) {
        network.kill(index);
        network.start_again_with(index, &["--model", name]);
    }

    // Two serve the built-in model and two another each, so everybody needs two models beside its own.
    let first = &network.members[0];
    let nodes = network.members.iter().map(|member| member.result("net_info", json!([]))["node_id"].clone());
    let nodes: Vec<Value> = nodes.collect();
    let bonds = || nodes.iter().map(|node| first.result("chain_getAccount", json!([node]))["bond"].clone());
    let before: Vec<Value> = bonds().collect();
    let serving = [(0, "aria-tiny"), (1, "aria-tiny"), (2, strange[0]), (3, strange[1])];
    let records: Vec<(usize, String)> = (0..3)
        .flat_map(|turn| serving.map(|(index, model)| (index, model, format!("Question {turn}"))))
        .map(|(index, model, prompt)| (index, ask(&network.members[index], model, &prompt)))
        .collect();
    for (index, record) in &records {
        wait_for("the answer is checked", first, || !["waiting", "included"].contains(&&*status(first, record)));
        let audit = first.result("chain_getAudit", json!([record]));
        assert_eq!(status(first, record), "verified", "of node {index}: {audit}");
        let auditors = audit["auditors"].as_array().unwrap();
        assert_eq!(auditors.len(), 3, "{audit}");
        assert!(auditors.iter().all(|one| one["verdict"] == json!("valid")), "of node {index}: {audit}");
    }
    assert_eq!(bonds().collect::<Vec<Value>>(), before, "nobody was silent");
    assert_eq!(first.result("chain_verify", json!([]))["ok"], json!(true));
    network.terminate();
}
