//! What a person types, and what the machine refuses.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use aria_tests::node::binary;
use aria_tests::{Node, aria};
use serde_json::{Value, json};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn value(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

#[test]
fn who_reads_only_the_beginning_is_told_nothing_of_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.arg("--data-dir").arg(folder.path()).args(["model", "list"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output)), (Some(141), String::new()));
}

#[test]
fn infer_asks_the_running_node_and_says_so_when_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let ask = ["--json", "infer", "What is 7 plus 5?", "--temperature", "0"];
    let alone = value(&aria(folder.path(), &ask));
    assert_eq!(alone["text"], "7 plus 5 is 12.");
    assert_eq!(alone["record_id"], Value::Null);
    let shown = aria(folder.path(), &["infer", "What is 7 plus 5?", "--temperature", "0"]);
    assert!(
        text(&shown).contains("7 plus 5 is 12.") && text(&shown).contains("nothing was recorded"),
        "{}",
        text(&shown)
    );

    let node = Node::start(folder.path());
    let asked = value(&aria(folder.path(), &ask));
    assert_eq!(asked["text"], alone["text"]);
    node.sealed(asked["record_id"].as_str().unwrap());
    for key in ["transcript_root", "prompt_tokens", "tokens_generated", "latency_ms"] {
        assert!(!asked[key].is_null(), "{key} in {asked}");
    }
}

#[test]
fn every_kernel_of_this_machine_gives_the_same_transcript() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |more: &[&str]| {
        let base = ["--json", "infer", "What is a validator?", "--temperature", "0.8", "--seed", "11"];
        value(&aria(folder.path(), &[&base, more].concat()))
    };
    let reference = ask(&["--kernel", "scalar", "--threads", "1"]);
    let mut asked = 0;
    for kernel in ["avx2", "avx512-plain", "avx512", "neon"] {
        let arguments = ["--json", "infer", "x", "--max-tokens", "1", "--kernel", kernel];
        let tried = aria(folder.path(), &arguments);
        if !tried.status.success() {
            assert!(text(&tried).contains("this CPU cannot run"), "{}", text(&tried));
            continue;
        }
        asked += 1;
        for threads in ["1", "3"] {
            let other = ask(&["--kernel", kernel, "--threads", threads]);
            for key in ["text", "tokens", "transcript_root"] {
                assert_eq!(other[key], reference[key], "{key} on {kernel}, {threads} threads");
            }
        }
    }
    assert!(asked > 0, "this CPU has something better than plain Rust");
}

#[test]
fn bench_measures_and_says_what_of() {
    let folder = tempfile::tempdir().unwrap();
    let ask =
        ["--json", "bench", "--shape", "tiny", "--prompt", "40", "--generate", "8", "--repeat", "1", "--threads", "1"];
    let report = value(&aria(folder.path(), &ask));
    for key in ["prefill_tok_s", "decode_tok_s", "audit_ratio", "rss_bytes", "read_gb_s", "int8_gmac_s", "file_bytes"] {
        assert!(report[key].as_f64().is_some_and(|number| number > 0.0), "{key} in {report}");
    }
    assert!(report["commit_share"].is_number(), "{report}");
    assert_eq!((&report["threads"], &report["prompt"], &report["batch"]), (&json!(1), &json!(40), &json!(1)));
    assert!(report["kernel"].is_string() && report["model_digest"].as_str().is_some_and(|digest| digest.len() == 64));

    let several =
        ["--json", "bench", "--prompt", "16", "--generate", "4", "--repeat", "1", "--batch", "1,3", "--threads", "1,2"];
    let report = value(&aria(folder.path(), &several));
    assert_eq!(report["runs"].as_array().map(Vec::len), Some(4), "{report}");
    assert_eq!(report["model"], "aria-tiny");

    let wrong = aria(folder.path(), &["bench", "--shape", "3b"]);
    assert!(!wrong.status.success() && text(&wrong).contains("0.7b"), "{}", text(&wrong));
    let long = aria(folder.path(), &["bench", "--prompt", "3000"]);
    assert!(!long.status.success() && text(&long).contains("context of 2048"), "{}", text(&long));
}

#[test]
fn status_stats_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let none = aria(folder.path(), &["node", "status"]);
    assert_eq!(none.status.code(), Some(3), "{}", text(&none));
    assert!(text(&none).contains("aria node start"), "{}", text(&none));

    let mut node = Node::start(folder.path());
    let id = node.ask("Hello!")["aria"]["record_id"].as_str().unwrap().to_owned();
    node.sealed(&id);
    let status = value(&aria(folder.path(), &["--json", "node", "status"]));
    assert_eq!(status["node_id"], node.ready["node_id"]);
    let running = value(&aria(folder.path(), &["--json", "ledger", "stats"]));
    assert_eq!(running["records"], 1);

    let stop = aria(folder.path(), &["node", "stop"]);
    assert!(stop.status.success(), "{}", text(&stop));
    assert!(node.wait().success());
    let offline = value(&aria(folder.path(), &["--json", "ledger", "stats"]));
    assert_eq!(offline["records"], 1);
    assert_eq!(offline["height"], running["height"]);
    let exported = aria(folder.path(), &["ledger", "export"]);
    let blocks: Vec<Value> =
        String::from_utf8_lossy(&exported.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(blocks.len() as u64, offline["height"].as_u64().unwrap() + 1);
    assert!(blocks.iter().any(|block| block["records"][0]["id"] == json!(id)));
}

#[test]
fn keys_are_made_once_and_private() {
    let folder = tempfile::tempdir().unwrap();
    let first = value(&aria(folder.path(), &["--json", "key", "show"]));
    assert_eq!(first, value(&aria(folder.path(), &["--json", "key", "show"])));
    let mode = std::fs::metadata(folder.path().join("node.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::set_permissions(folder.path().join("node.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = aria(folder.path(), &["key", "show"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("chmod 600"), "{}", text(&refused));
}

#[test]
fn models_are_listed_and_damaged_ones_named() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models/broken");
    std::fs::create_dir_all(&models).unwrap();
    std::fs::write(models.join("broken.gguf"), b"GGUF\x03\x00\x00\x00garbage").unwrap();
    let list = value(&aria(folder.path(), &["--json", "model", "list"]));
    let names: Vec<&str> = list.as_array().unwrap().iter().filter_map(|model| model["name"].as_str()).collect();
    assert!(names.contains(&"aria-tiny") && names.contains(&"broken"), "{list}");
    let broken = list.as_array().unwrap().iter().find(|model| model["name"] == "broken").unwrap();
    assert!(broken["error"].is_string(), "{broken}");
}

fn refused(data_dir: &Path, arguments: &[&str], words: &[&str]) {
    let output = aria(data_dir, arguments);
    assert!(!output.status.success(), "{arguments:?} was accepted: {}", text(&output));
    for word in words {
        assert!(text(&output).contains(word), "{arguments:?} should say {word:?}: {}", text(&output));
    }
}

const FREE: [&str; 8] = ["--port", "0", "--api-port", "0", "--rpc-port", "0", "--dashboard-port", "0"];

#[test]
fn what_cannot_be_started_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refused(
        folder.path(),
        &[&["node", "start"], &FREE[..2], &["--api-port", &port], &FREE[4..]].concat(),
        &["--api-port", &port],
    );
    refused(
        folder.path(),
        &[&["node", "start"], &FREE[..], &["--model", "no-such"]].concat(),
        &["no-such", "aria model list"],
    );
    refused(folder.path(), &[&["node", "start"], &FREE[..], &["--host", "0.0.0.0"]].concat(), &["aria key api"]);
    refused(folder.path(), &[&["node", "start"], &FREE[..], &["--threads", "0"]].concat(), &["threads"]);
    refused(folder.path(), &["node", "strat"], &["start"]);
    std::fs::write(folder.path().join("config.toml"), "[node]\napi_prt = 1\n").unwrap();
    refused(folder.path(), &[&["node", "start"], &FREE[..]].concat(), &["api_prt"]);
}

#[test]
fn one_data_directory_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    refused(folder.path(), &[&["node", "start"], &FREE[..]].concat(), &["another process", &node.pid().to_string()]);
    node.ask("Hello!");
}

#[test]
fn damaged_models_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let good = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../genesis/aria-tiny.gguf")).unwrap();
    let path = folder.path().join("bad.gguf");
    let start = [&["node", "start", "--model", path.to_str().unwrap()], &FREE[..]].concat();
    for keep in [0, 3, 24, 1000, good.len() / 2, good.len() - 1] {
        std::fs::write(&path, &good[..keep]).unwrap();
        refused(folder.path(), &start, &["bad.gguf"]);
    }
    let mut flipped = good;
    flipped[8] ^= 0x40; // the tensor count
    std::fs::write(&path, &flipped).unwrap();
    refused(folder.path(), &start, &["bad.gguf"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    refused(&file, &[&["node", "start"], &FREE[..]].concat(), &["--data-dir"]);
    refused(
        Path::new("/proc/aria-cannot-be-here"),
        &[&["node", "start"], &FREE[..]].concat(),
        &["/proc/aria-cannot-be-here"],
    );
    let locked = folder.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o500)).unwrap();
    // The superuser writes everywhere, so this can only be seen as somebody else.
    if std::fs::write(locked.join("probe"), "").is_err() {
        refused(&locked, &[&["node", "start"], &FREE[..]].concat(), &["--data-dir"]);
    }
}

#[test]
fn every_view_of_the_chain_is_shown_to_people_and_to_scripts() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let record = node.ask("What is a ledger?")["aria"]["record_id"].as_str().unwrap().to_owned();
    node.sealed(&record);
    let given = value(&aria(folder.path(), &["--json", "wallet", "faucet"]));
    let order = given["id"].as_str().unwrap();
    let views: [(&[&str], &str); 9] = [
        (&["reputation"], "score_ppm"),
        (&["work", "--epochs", "3"], "epochs"),
        (&["epochs"], "total"),
        (&["supply"], "issued"),
        (&["params"], "audit_rate_ppm"),
        (&["accounts", "--limit", "1"], "accounts"),
        (&["transaction", order], "receipt"),
        (&["proof", &record], "receipt_signature"),
        (&["waiting"], "waiting"),
    ];
    for (words, field) in views {
        let told = value(&aria(folder.path(), &[&["--json", "ledger"], words].concat()));
        assert!(told.get(field).is_some(), "{words:?}: {told}");
        let shown = aria(folder.path(), &[&["ledger"], words].concat());
        assert!(shown.status.success() && text(&shown).contains(field), "{words:?}: {}", text(&shown));
    }
    let nobody = "0".repeat(64);
    let refused = aria(folder.path(), &["ledger", "transaction", &nobody]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("no such thing"));
}
