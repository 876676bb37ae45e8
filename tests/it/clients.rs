//! Other people's clients against a node, and a proof checker that shares no code with it.

use std::{path::PathBuf, process::Command};

use aria_tests::Node;
use serde_json::{Value, json};
use tiny_keccak::{Hasher, Keccak};

/// Root of a record proof by the rules of OpenZeppelin's StandardMerkleTree: the leaf is keccak(keccak(abi)), pairs are sorted.
pub(crate) fn keccak_root(proof: &Value) -> String {
    let leaf = proof["leaf"].as_array().unwrap();
    let number = |value: &Value| -> [u8; 32] {
        let number: u64 = value.as_str().unwrap().parse().unwrap();
        let mut word = [0; 32];
        word[24..].copy_from_slice(&number.to_be_bytes());
        word
    };
    let id = leaf[2].as_str().unwrap().as_bytes();
    // abi.encode(uint256, uint256, string): two words, the offset of the string (96), its length, its bytes padded to words.
    let mut abi = Vec::new();
    abi.extend(number(&leaf[0]));
    abi.extend(number(&leaf[1]));
    abi.extend(number(&json!("96")));
    abi.extend(number(&json!(id.len().to_string())));
    abi.extend(id);
    abi.resize(abi.len().next_multiple_of(32), 0);
    let mut node = keccak(&keccak(&abi));
    for sibling in proof["proof"].as_array().unwrap() {
        let sibling = unhex(sibling.as_str().unwrap());
        let (low, high) =
            if node.as_slice() <= sibling.as_slice() { (node.to_vec(), sibling) } else { (sibling, node.to_vec()) };
        node = keccak(&[low, high].concat());
    }
    node.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn keccak(bytes: &[u8]) -> [u8; 32] {
    let mut keccak = Keccak::v256();
    keccak.update(bytes);
    let mut out = [0; 32];
    keccak.finalize(&mut out);
    out
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A folder beside the build where packages for the tests are installed once.
fn packages(name: &str) -> PathBuf {
    let target = aria_tests::node::binary().ancestors().nth(2).unwrap().join("test-packages").join(name);
    std::fs::create_dir_all(&target).unwrap();
    target
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out.into_owned()
}

#[test]
fn the_openai_package_for_python_works() {
    if !has("python3") {
        eprintln!("not run: there is no python3 here");
        return;
    }
    let venv = packages("python");
    let python = venv.join("bin/python");
    let installed =
        Command::new(&python).args(["-c", "import openai"]).output().is_ok_and(|output| output.status.success());
    if !installed {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "openai==3.*",
        ]));
    }
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/it/clients/openai_client.py");
    let seen: Value =
        serde_json::from_str(&run(Command::new(&python).arg(script).arg(node.ready["api"].as_str().unwrap()))).unwrap();
    assert_eq!(seen["text"], "7 plus 5 is 12.");
    assert_eq!(seen["refusals"]["unknown_model"], json!([404, "model_not_found", "model"]));
    assert_eq!(seen["refusals"]["negative_max_tokens"][0], 400);
    assert_eq!(seen["refusals"]["negative_max_tokens"][2], "max_tokens");
    assert_eq!(seen["refusals"]["too_long"], json!([400, "context_length_exceeded", "messages"]));
    for answer in ["aria", "stream_aria"] {
        node.sealed(seen[answer]["record_id"].as_str().unwrap());
    }
}

#[test]
fn the_openai_package_for_node_works() {
    if !has("node") || !has("npm") {
        eprintln!("not run: there is no node here");
        return;
    }
    let place = packages("node");
    if !place.join("node_modules/openai/package.json").exists() {
        run(Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
            .arg(&place)
            .arg("openai@7"));
    }
    let script = place.join("openai_client.mjs");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/it/clients/openai_client.mjs"), &script).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let seen: Value =
        serde_json::from_str(&run(Command::new("node").arg(&script).arg(node.ready["api"].as_str().unwrap()))).unwrap();
    assert_eq!(seen["text"], "7 plus 5 is 12.");
    node.sealed(seen["aria"]["record_id"].as_str().unwrap());
}
