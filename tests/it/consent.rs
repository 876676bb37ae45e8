//! The consent contract of a real node: refused by each clause over real sockets, changed while it runs, registered, kept
//! through kill -9, and held to while it computes.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aria_tests::http::{self, Answer};
use aria_tests::{Node, START, aria, refused, told};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// States a contract on the running node alone.
fn set(node: &Node, terms: &[&str]) {
    let stated = told(&node.data_dir, &[&["consent", "set", "--no-register"], terms].concat());
    assert_eq!(stated["is_running"], json!(true), "{stated}");
}

fn question(more: Value) -> Value {
    let message = json!([{"role": "user", "content": "What is a block?"}]);
    let mut body = json!({"model": "aria-tiny", "messages": message, "temperature": 0, "max_tokens": 8});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn ask(node: &Node, more: Value) -> Answer {
    node.post(CHAT, &question(more))
}

/// The status and code of an answer, or 200.
fn outcome(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or("").to_owned())
}

fn is_answered(node: &Node, more: Value) {
    let answer = ask(node, more);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// A window of one hour that begins in two, and two days of the week that are neither today nor tomorrow.
fn some_other_time() -> (String, &'static str) {
    let minutes = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60;
    let clock = |minute: u64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    let other_days = ["sat,sun", "sun,mon", "mon,tue", "tue,wed", "wed,thu", "thu,fri", "fri,sat"];
    // The first of January 1970 was a Thursday.
    let today = usize::try_from(minutes / (24 * 60) % 7).unwrap();
    (format!("{}-{}", clock(minutes + 120), clock(minutes + 180)), other_days[today])
}

/// Terms that refuse a request, the request, the code; other terms, and a request that they admit.
type Case<'c> = (&'c [&'c str], Value, &'c str, &'c [&'c str], Value);

#[test]
fn every_clause_is_refused_by_name_and_changed_while_the_node_runs() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let shown = aria(folder.path(), &["consent", "show"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("no consent is stated") && shown.contains("aria consent set"), "{shown}");
    is_answered(&node, json!({}));

    let (schedule, days) = some_other_time();
    let code = json!({"aria": {"task_type": "code_gen"}});
    let long = json!({"max_tokens": 1_900, "n": 8});
    let private = json!({"aria": {"audit": "none"}});
    let cases: [Case<'_>; 6] = [
        (&["--schedule", &schedule], json!({}), "consent_schedule", &["--schedule", "00:00-23:59"], json!({})),
        (&["--days", days], json!({}), "consent_days", &["--days", "all"], json!({})),
        (&["--tasks", "code_gen"], json!({}), "consent_task", &["--tasks", "code_gen"], code),
        (&["--tasks", "any", "--ram", "110"], long, "consent_ram", &["--ram", "110"], json!({})),
        (
            &["--ram", "512", "--min-reward", "0.002"],
            json!({}),
            "consent_reward",
            &["--min-reward", "0.001"],
            json!({}),
        ),
        (&["--min-reward", "0.001"], private.clone(), "consent_reward", &["--min-reward", "0"], private),
    ];
    for (terms, wanted, code, others, fitting) in cases {
        set(&node, terms);
        let answer = ask(&node, wanted);
        assert_eq!(outcome(&answer), (403, code.to_owned()), "{terms:?}: {}", answer.body);
        set(&node, others);
        is_answered(&node, fitting);
    }
    // Who says no length gets what there is memory for.
    set(&node, &["--ram", "110"]);
    is_answered(&node, json!({"max_tokens": null}));
    // An editor does as well as a command.
    let file = folder.path().join("consent.json");
    let mut edited: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    edited["task_types"] = json!(["embedding"]);
    std::fs::write(&file, edited.to_string()).unwrap();
    let begun = Instant::now();
    while ask(&node, json!({})).status == 200 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the file is looked at");
        std::thread::sleep(Duration::from_millis(50));
    }
    set(&node, &["--tasks", "any"]);
    // A contract that cannot be changes nothing.
    let wrong = refused(folder.path(), &["consent", "set", "--cpu", "250"]);
    assert!(wrong.contains("cpu_percent must be 1 to 100"), "{wrong}");
    is_answered(&node, json!({}));
    node.terminate();
}

#[test]
fn no_more_answers_at_once_than_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_with(folder.path(), &["--concurrent", "1", "--cpu", "50"]);
    let headers = [("content-type", "application/json")];
    let body = question(json!({"stream": true, "max_tokens": 1_800, "temperature": 1.5, "logit_bias": {}}));
    let mut open = http::send(node.address("api"), "POST", CHAT, &headers, &body.to_string());
    let mut seen = [0; 512];
    assert!(open.read(&mut seen).unwrap() > 0);
    let second = ask(&node, json!({}));
    assert_eq!(outcome(&second), (429, "consent_concurrency".into()), "{}", second.body);
    assert_eq!(second.header("retry-after"), Some("1"));
    // Two are allowed from now on, without a restart.
    set(&node, &["--concurrent", "2"]);
    is_answered(&node, json!({}));
    set(&node, &["--concurrent", "1"]);
    drop(open);
    let begun = Instant::now();
    while outcome(&ask(&node, json!({}))).0 != 200 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the answer of a client that is gone ends");
        std::thread::sleep(Duration::from_millis(20));
    }
    node.terminate();
}

#[test]
fn a_contract_is_registered_replaced_revoked_and_kept_through_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let node = Node::start(here);
    let me = node.ready["node_id"].as_str().unwrap().to_owned();
    assert_eq!(node.result("chain_getConsent", json!([me])), Value::Null);
    let first = told(here, &["consent", "set", "--cpu", "50", "--tasks", "code_generation", "--days", "mon-sun"]);
    assert_eq!(first["registered"]["receipt"]["action"], "consent", "{first}");
    let stated = node.result("chain_getConsent", json!([me]));
    assert_eq!(stated["contract"], first["in_force"]["contract"]);
    assert_eq!((&stated["revision"], &stated["revoked"]), (&json!(1), &json!(false)));
    assert_eq!(
        (&stated["height"], &stated["digest"]),
        (&first["registered"]["receipt"]["height"], &first["in_force"]["digest"])
    );
    let order = node.result("chain_getTransaction", json!([first["registered"]["id"]]));
    assert_eq!((&order["action"], &order["amount"]), (&json!("consent"), &Value::Null));
    assert_eq!(order["contract"], stated["contract"]);
    // What cannot be registered is in force all the same, and said.
    let poor = aria(here, &["consent", "set", "--cpu", "60", "--fee", "0.000000001"]);
    let said = String::from_utf8_lossy(&poor.stdout).into_owned();
    assert!(!poor.status.success() && said.contains("in force at once"), "{said}");
    assert!(said.contains("not registered on chain") && said.contains("raise it"), "{said}");
    assert_ne!(told(here, &["consent", "show"])["in_force"]["digest"], stated["digest"]);
    set(&node, &["--cpu", "50"]);
    // The same again is no transaction.
    let again = told(here, &["consent", "set"]);
    assert_eq!((&again["registered"], &again["not_registered"]), (&Value::Null, &Value::Null), "{again}");

    node.kill();
    let node = Node::start(here);
    assert_eq!(node.result("chain_getConsent", json!([me]))["digest"], stated["digest"]);
    assert_eq!(outcome(&ask(&node, json!({}))), (403, "consent_task".into()), "in force without being stated again");
    let shown = told(here, &["consent", "show"]);
    assert_eq!(shown["in_force"]["digest"], shown["registered"]["digest"], "{shown}");
    let from_afar = told(tempfile::tempdir().unwrap().path(), &["consent", "show", &me, "--rpc", node.address("rpc")]);
    assert_eq!(from_afar["digest"], stated["digest"]);

    let revoked = told(here, &["consent", "revoke"]);
    assert_eq!(revoked["in_force"]["revoked"], json!(true));
    let stated = node.result("chain_getConsent", json!([me]));
    assert_eq!((&stated["revision"], &stated["revoked"], &stated["contract"]), (&json!(2), &json!(true), &Value::Null));
    assert_eq!(outcome(&ask(&node, json!({}))), (403, "consent_revoked".into()));
    node.kill();
    let node = Node::start(here);
    assert_eq!(outcome(&ask(&node, json!({}))), (403, "consent_revoked".into()), "a restart gives nothing back");
    told(here, &["consent", "set", "--tasks", "any"]);
    is_answered(&node, json!({}));
    assert_eq!(node.result("chain_getConsent", json!([me]))["revision"], json!(3));
    assert_eq!(node.result("chain_verify", json!([]))["ok"], json!(true));
    node.terminate();
}

#[test]
fn what_cannot_be_is_said_before_the_node_starts() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (flags, words) in [
        (["--schedule", "25:00-26:00"], "schedule must be two times of the day"),
        (["--cpu", "0"], "cpu_percent must be 1 to 100"),
        (["--tasks", "poetry"], "task_types must be of text_gen"),
        (["--ram", "40"], "consent allows 40 MB (clause ram)"),
    ] {
        let said = refused(here, &[START.as_slice(), &flags].concat());
        assert_eq!(said.matches(words).count(), 1, "once, {flags:?}: {said}");
    }
    // Without a node the contract is kept for its start.
    let kept = told(here, &["consent", "set", "--tasks", "code_gen"]);
    assert_eq!((&kept["is_running"], &kept["registered"]), (&json!(false), &Value::Null));
    assert!(kept["not_registered"].as_str().unwrap().contains("no node is running"), "{kept}");
    std::fs::write(here.join("config.toml"), "[consent]\nmax_concurrent_tasks = 1\ntask_types = [\"any\"]\n").unwrap();
    let node = Node::start(here);
    assert_eq!(outcome(&ask(&node, json!({}))), (403, "consent_task".into()));
    node.terminate();
}

/// Seconds of processor time that a process has taken.
fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Seconds in which processors of the machine had nothing to do.
fn idle_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    stat.split_ascii_whitespace().nth(4).unwrap().parse::<f64>().unwrap() / 100.0
}

/// Largest memory that a process ever had, in MB.
fn memory_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

/// The share of the machine that a node takes while several clients ask it without a pause, in percent, the share that nobody
/// takes meanwhile, and answers that were given.
fn share_under_load(node: &Node) -> (f64, f64, usize) {
    let (is_over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let processors = std::thread::available_parallelism().unwrap().get();
    let (share, idle) = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let answer = ask(node, json!({"max_tokens": 200, "temperature": 1.8}));
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(500));
        let (begun, before, idle) = (Instant::now(), processor_seconds(node.pid()), idle_seconds());
        std::thread::sleep(Duration::from_secs(5));
        let (taken, idle) = (processor_seconds(node.pid()) - before, idle_seconds() - idle);
        let all = begun.elapsed().as_secs_f64() * f64::from(u32::try_from(processors).unwrap());
        is_over.store(true, Ordering::Relaxed);
        (100.0 * taken / all, 100.0 * idle / all)
    });
    (share, idle, answers.into_inner())
}

#[test]
fn the_share_of_processors_and_the_memory_that_are_stated_are_kept_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_with(folder.path(), &["--cpu", "25", "--ram", "160", "--concurrent", "16"]);
    let (limited, _, answers) = share_under_load(&node);
    assert!(limited < 35.0, "a quarter is stated, {limited:.1} % were taken");
    assert!(answers > 0, "it still answers");
    set(&node, &["--cpu", "100"]);
    let (unlimited, idle, more) = share_under_load(&node);
    // Where other programs leave nothing over, there is nothing more to take.
    let takes_more = unlimited > 1.3 * limited && more > answers;
    assert!(takes_more || idle < 10.0, "{limited:.1} % with {answers}, {unlimited:.1} % with {more}, {idle:.1} % idle");
    let memory = memory_mb(node.pid());
    assert!(memory < 160, "160 MB are stated, {memory} were taken");
    eprintln!(
        "{limited:.1} % of the machine at 25 %, {unlimited:.1} % at 100 %; {answers} and {more} answers; {memory} MB"
    );
    node.terminate();
}

/// A question as an older node asks it: one text frame over a WebSocket. Returns the bytes of the reply.
fn older_node_asks(node: &Node, query: &str) -> String {
    let address = node.ready["p2p"].as_str().unwrap();
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==";
    let upgrade =
        format!("GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n\r\n");
    socket.write_all(upgrade.as_bytes()).unwrap();
    let mut bytes = [0; 4_096];
    let read = socket.read(&mut bytes).unwrap();
    assert!(bytes[..read].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&bytes[..read]));
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let data = json!({"query": query, "max_tokens": 48, "temperature": 0});
    let text = json!({"type": "inference_request", "request_id": "r", "timestamp": now_s, "data": data}).to_string();
    let length = u16::try_from(text.len()).unwrap();
    // A whole text frame of two bytes of length, masked with nothing.
    socket.write_all(&[&[0x81, 0xfe][..], &length.to_be_bytes(), &[0; 4], text.as_bytes()].concat()).unwrap();
    let read = socket.read(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[test]
fn no_text_of_a_question_or_an_answer_is_logged_or_shown() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.txt");
    let node = Node::start_logging(&folder.path().join("node"), &log);
    set(&node, &["--logging", "false"]);
    let (marker, answered) = ("zanzibarquux", "sealed with a hash and linked");
    let message = |text: &str| json!([{"role": "user", "content": text}]);
    let answer = ask(&node, json!({"max_tokens": 48}));
    assert!(answer.body.contains(answered), "{}", answer.body);
    is_answered(&node, json!({"messages": message(marker)}));
    let streamed = ask(&node, json!({"messages": message(marker), "stream": true}));
    assert_eq!(streamed.status, 200);
    let reply = older_node_asks(&node, "What is a block?");
    assert!(reply.contains("completed") && reply.contains(answered), "{reply}");
    // What is refused is not repeated either.
    assert_eq!(ask(&node, json!({"messages": message(&marker.repeat(900))})).status, 400);
    set(&node, &["--tasks", "code_gen"]);
    assert_eq!(ask(&node, json!({"messages": message(marker)})).status, 403);
    let reply = older_node_asks(&node, marker);
    assert!(reply.contains("FORBIDDEN") && reply.contains("task"), "{reply}");
    for path in ["/", "/metrics", "/dashboard.js"] {
        let page = http::get(node.address("dashboard"), path).body;
        assert!(!page.contains(marker) && !page.contains(answered), "{path}");
    }
    for method in ["mempool_list", "node_status", "chain_listRecords"] {
        let shown = node.result(method, json!([])).to_string();
        assert!(!shown.contains(marker) && !shown.contains(answered), "{method}: {shown}");
    }
    node.terminate();
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("final block") && logged.contains("TRACE"), "everything is logged");
    assert!(!logged.contains(marker) && !logged.contains(answered), "no text is");
}

#[test]
fn the_local_network_is_told_only_what_consent_allows() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let quiet = Node::start_with(one.path(), &["--mdns", "--geo", "false"]);
    let genesis = one.path().join("genesis.toml");
    let open = Node::start_with(other.path(), &["--mdns", "--genesis", genesis.to_str().unwrap()]);
    std::thread::sleep(Duration::from_secs(2));
    let peers = |node: &Node| node.result("net_info", json!([]))["peers"].as_u64().unwrap();
    assert_eq!((peers(&quiet), peers(&open)), (0, 0), "it says nothing of itself");
    set(&quiet, &["--geo", "true"]);
    let begun = Instant::now();
    while peers(&open) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it may be found now");
        std::thread::sleep(Duration::from_millis(50));
    }
    let listed = open.result("net_listPeers", json!([]));
    assert_eq!(listed["peers"][0]["consent"], Value::Null, "it registered none: {listed}");
    quiet.terminate();
    open.terminate();
}
