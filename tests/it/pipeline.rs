//! One answer by several nodes: the same to the letter, signed by all of them, whatever one of them does.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use aria_chain::codec::Versioned as _;
use aria_chain::ids::{BlockHash, ChainId};
use aria_chain::keys::{NodeKey, Signature};
use aria_inference::backend::Backend as _;
use aria_inference::backend::builtin::Builtin;
use aria_inference::energy::Meter;
use aria_inference::engine::{Engine, EngineOptions};
use aria_inference::gguf::Gguf;
use aria_inference::stage::{StageId, StageInput, StageJob, StageOutput, StagePlan, StageSink};
use aria_inference::transcript::Transcript;
use aria_node::network::{Channel, Identity, Kept, Network, NetworkConfig, PeerEvent};
use aria_node::pipeline::talk::{Answer, Ask, Closed, Reason, Roots, States, Talk};
use aria_tests::devnet::Member;
use aria_tests::{Devnet, http};
use serde_json::{Value, json};

use crate::audits::{nano, node_id, settled};

/// Longest wait for nodes to find each other.
const PATIENCE: Duration = Duration::from_secs(120);

/// A long answer, the same each time.
fn body(stream: bool) -> Value {
    json!({
        "model": "aria-tiny", "messages": [{"role": "user", "content": "Tell me a story about the sea."}],
        "max_tokens": 150, "seed": 11, "temperature": 1.2, "stream": stream,
    })
}

fn api(member: &Member) -> String {
    format!("127.0.0.1:{}", member.base_port + 1)
}

/// The text of the answer, its record, and who gave it.
fn answer(member: &Member) -> (String, String, Vec<String>) {
    let answer = http::post(&api(member), "/v1/chat/completions", &body(false));
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, member.log());
    let answer = answer.json();
    let nodes = answer["aria"]["node_ids"].as_array().unwrap().iter().map(|node| node.as_str().unwrap().to_owned());
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let record = answer["aria"]["record_id"].as_str().unwrap_or_else(|| panic!("no record: {}", member.log()));
    (text.to_owned(), record.to_owned(), nodes.collect())
}

/// Waits until a node is connected to these.
fn wait_for_peers(member: &Member, nodes: &[String]) {
    let begun = Instant::now();
    loop {
        let peers = member.result("net_listPeers", json!([]));
        let known: Vec<&str> =
            peers["peers"].as_array().unwrap().iter().map(|peer| peer["node_id"].as_str().unwrap()).collect();
        if nodes.iter().all(|node| known.contains(&node.as_str())) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{peers}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Starts a node again with more flags, and waits until it has met these.
fn restart(network: &mut Devnet, index: usize, flags: &[&str], met: &[String]) {
    network.kill(index);
    network.start_again_with(index, flags);
    wait_for_peers(&network.members[index], met);
}

fn metric(member: &Member, name: &str) -> u64 {
    let page = http::get(&format!("127.0.0.1:{}", member.base_port + 3), "/metrics").body;
    let line = page.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn three_nodes_give_the_answer_of_one_and_are_paid_for_their_layers() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = Devnet::start_with(folder.path(), 4, &[]);
    let nodes: Vec<String> = network.members.iter().map(node_id).collect();
    for stage in [1, 2] {
        restart(&mut network, stage, &["--serve-stages", &nodes[0]], &[]);
    }
    let named = format!("{},{}", nodes[1], nodes[2]);
    restart(&mut network, 0, &["--stages", &named], &nodes[1..3]);

    let (alone, ..) = answer(&network.members[3]);
    let (text, record, mut by) = answer(&network.members[0]);
    assert!(alone.len() > 200, "a long answer: {alone}");
    assert_eq!(text, alone, "where the model is cut changes nothing");
    assert_eq!(by[0], nodes[0], "the first layers, and with them the text, are the gateway's");
    by.sort();
    assert_eq!(by, {
        let mut all = nodes[..3].to_vec();
        all.sort();
        all
    });

    // The one voter who had no part in it ran it again.
    assert_eq!(settled(&network.members[3], &record), "verified");
    let shown = network.members[3].result("chain_getRecord", json!([record]));
    let layers: Vec<(u64, u64)> = shown["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| (stage["layer_start"].as_u64().unwrap(), stage["layer_end"].as_u64().unwrap()))
        .collect();
    assert_eq!(layers, [(0, 2), (2, 4), (4, 6)], "{shown}");
    let audit = network.members[3].result("chain_getAudit", json!([record]));
    let auditors: Vec<&str> =
        audit["auditors"].as_array().unwrap().iter().map(|one| one["node_id"].as_str().unwrap()).collect();
    assert_eq!(auditors, [nodes[3].as_str()]);
    for node in &nodes[1..3] {
        let account = network.members[3].result("chain_getAccount", json!([node]));
        assert!(nano(&account, "rewards_total") > 0, "{account}");
    }
    assert_eq!(metric(&network.members[1], "aria_stages_signed_total"), 1);

    // Who was not named runs no layers: the gateway does it alone.
    restart(&mut network, 3, &["--stages", &nodes[1]], &nodes[1..2]);
    let (text, _, by) = answer(&network.members[3]);
    assert_eq!((text, by), (alone.clone(), vec![nodes[3].clone()]));

    // A stage is killed in the middle of an answer: another one runs its layers, from what entered them so far.
    let stream = http::send(
        &api(&network.members[0]),
        "POST",
        "/v1/chat/completions",
        &[("content-type", "application/json")],
        &body(true).to_string(),
    );
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let mut text = String::new();
    let mut end = Value::Null;
    let mut killed = false;
    for line in lines {
        let Some(event) = line.strip_prefix("data: ").filter(|event| *event != "[DONE]") else { continue };
        let event: Value = serde_json::from_str(event).unwrap();
        text.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        if !killed && text.len() > 20 {
            network.kill(1);
            killed = true;
        }
        if event.get("aria").is_some_and(|aria| !aria.is_null()) {
            end = event["aria"].clone();
        }
    }
    assert_eq!(text, alone, "nobody can tell that a stage was replaced: {end}");
    assert!(killed && end["record_id"].is_string(), "{end}\n{}", network.members[0].log());
    network.terminate();
}

/// What a stage does that somebody runs who is up to no good.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Conduct {
    Honest,
    /// Says no from this step on.
    Fails(usize),
    /// Gives fewer states than entered.
    Short,
    /// Computes, and says nothing of use at the end.
    NoEnd,
    /// Computes, and does not sign.
    SignsNothing,
    /// Signs something else.
    SignsOther,
    /// Passes on what entered, as if it had run its layers, and says that every root is as it should be.
    Skips,
    /// Computes, and says at the end that something else was handed over.
    OtherRoots,
}

/// A node's key in other hands: a stage in this process.
struct Crook {
    runtime: tokio::runtime::Runtime,
    conduct: Arc<Mutex<Conduct>>,
}

fn done(backend: &Builtin, job: impl FnOnce(StageSink) -> StageJob) -> StageOutput {
    let (told, output) = mpsc::channel();
    backend.stage(job(Box::new(move |output| told.send(output).unwrap()))).unwrap();
    output.recv_timeout(PATIENCE).unwrap().unwrap()
}

/// One of its stages: the steps so far, and the root that fits what it really passed on.
struct Begun {
    id: StageId,
    steps: usize,
    end: usize,
    passed: Transcript,
}

impl Begun {
    fn note(&mut self, states: &[f32], dim: usize) {
        let mut bytes = Vec::new();
        for state in states.chunks(dim) {
            let (boundary, position) =
                (u32::try_from(self.end).unwrap(), u32::try_from(self.passed.positions()).unwrap());
            let mut leaves = vec![[0; 32]; self.passed.boundary_roots().len()];
            leaves[self.end] = self.passed.leaves().leaf(boundary, position, state, &mut bytes);
            self.passed.push(&leaves);
        }
    }
}

/// What it answers.
fn act(backend: &Builtin, key: &NodeKey, conduct: Conduct, begun: &mut HashMap<u64, Begun>, ask: Ask) -> Answer {
    match ask {
        Ask::Open(number, asked) => {
            let (id, layers) = (StageId::next(), usize::from(asked.layer_start)..usize::from(asked.layer_end));
            let (positions, leaf_key) = (asked.positions as usize, asked.leaf_key);
            done(backend, |reply| StageJob::Open {
                id,
                plan: StagePlan { layers, positions, leaf_key, draws: None },
                reply,
            });
            let passed = Transcript::new(leaf_key, backend.model().hyper.layers);
            begun.insert(number, Begun { id, steps: 0, end: usize::from(asked.layer_end), passed });
            Answer::Open
        }
        Ask::Run(number, States(states)) => {
            let stage = begun.get_mut(&number).unwrap();
            stage.steps += 1;
            match conduct {
                Conduct::Fails(at) if stage.steps >= at => Answer::Refused(Reason::new("out of order")),
                Conduct::Short => Answer::States(States(states[1..].to_vec())),
                _ => {
                    let (id, input) = (stage.id, StageInput::States(states.clone()));
                    let output = done(backend, |reply| StageJob::Run { id, input, reply });
                    let StageOutput::States(given) = output else { panic!("states") };
                    let given = if conduct == Conduct::Skips { states } else { given };
                    stage.note(&given, backend.model().hyper.dim);
                    Answer::States(States(given))
                }
            }
        }
        Ask::Close(_) if conduct == Conduct::NoEnd => Answer::Refused(Reason::new("no end")),
        Ask::Close(number) => {
            let stage = &begun[&number];
            let id = stage.id;
            let StageOutput::Closed(end) = done(backend, |reply| StageJob::Close { id, reply }) else {
                panic!("an end")
            };
            let mut roots = end.roots;
            match conduct {
                Conduct::OtherRoots => roots[0][0] ^= 1,
                _ => *roots.last_mut().unwrap() = stage.passed.boundary_roots()[stage.end],
            }
            Answer::Closed(Closed { roots: Roots(roots), energy_uj: 1, is_measured: false })
        }
        Ask::Sign(_, asked) => match conduct {
            Conduct::SignsNothing => Answer::Refused(Reason::new("not today")),
            Conduct::SignsOther => Answer::Signed(Signature::new([7; 64])),
            _ => {
                let place = asked.record.stages.iter().position(|stage| stage.node_id == key.node_id()).unwrap();
                let chain: ChainId = CHAIN.lock().unwrap().parse().unwrap();
                Answer::Signed(key.sign_stage(&chain, &asked.record.id(), u16::try_from(place).unwrap()))
            }
        },
    }
}

/// The chain of the test's network.
static CHAIN: Mutex<String> = Mutex::new(String::new());

impl Crook {
    fn connect(gateway: &Member, key: NodeKey, to: &str) -> Crook {
        let genesis = gateway.result("chain_getHeader", json!([0]));
        let chain_id: ChainId = genesis["chain_id"].as_str().unwrap().parse().unwrap();
        *CHAIN.lock().unwrap() = chain_id.to_string();
        let hash: BlockHash = genesis["hash"].as_str().unwrap().parse().unwrap();
        let key = Arc::new(key);
        let identity = Identity { key: Arc::clone(&key), chain_id, genesis: hash };
        let gguf = Gguf::from_static(include_bytes!("../../genesis/aria-tiny.gguf")).unwrap();
        let engine = Engine::load(&gguf, &EngineOptions { threads: 1, ..EngineOptions::default() }).unwrap();
        let meter = Arc::new(Meter::new(std::path::Path::new("/nonexistent")));
        let backend = Builtin::start(engine, meter).unwrap();
        let conduct = Arc::new(Mutex::new(Conduct::Honest));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let current = Arc::clone(&conduct);
        let network = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let stop = tokio_util::sync::CancellationToken::new();
            let (network, mut events) =
                Network::start((listener, address), identity, NetworkConfig::default(), Kept::default(), None, stop);
            let peers = network.clone();
            tokio::spawn(async move {
                let mut begun = HashMap::new();
                while let Some(event) = events.recv().await {
                    let PeerEvent::Frame(peer, Channel::Stages, received) = event else { continue };
                    let Ok(Talk::Ask(number, ask)) = Talk::decode(&received.bytes) else { panic!("a question") };
                    let conduct = *current.lock().unwrap();
                    let answer = act(&backend, &key, conduct, &mut begun, ask);
                    peers.send(&peer, Channel::Stages, &Talk::Answer(number, answer).encode());
                }
            });
            network
        });
        assert!(runtime.block_on(async { network.dial(to.to_owned()) }));
        Crook { runtime, conduct }
    }
}

#[test]
fn nothing_that_a_stage_does_changes_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = Devnet::start_with(folder.path(), 4, &[]);
    let nodes: Vec<String> = network.members.iter().map(node_id).collect();
    let (alone, ..) = answer(&network.members[1]);
    network.kill(3);
    network.kill(0);
    network.start_again_with(0, &["--stages", &nodes[3]]);
    let key = NodeKey::load_or_create(&network.members[3].data_dir.join("node.key")).unwrap();
    let gateway = format!("127.0.0.1:{}", network.members[0].base_port);
    let crook = Crook::connect(&network.members[0], key, &gateway);
    wait_for_peers(&network.members[0], &nodes[3..]);
    let _inside = crook.runtime.enter();
    let both = vec![nodes[0].clone(), nodes[3].clone()];
    let one = vec![nodes[0].clone()];
    let mut replaced = 0;
    for (conduct, by) in [
        (Conduct::Honest, &both),
        (Conduct::Fails(1), &one),
        (Conduct::Fails(20), &one),
        (Conduct::Short, &one),
        (Conduct::NoEnd, &one),
        (Conduct::SignsNothing, &both),
        (Conduct::SignsOther, &both),
    ] {
        *crook.conduct.lock().unwrap() = conduct;
        let (text, record, named) = answer(&network.members[0]);
        assert_eq!((&text, &named), (&alone, by), "{conduct:?}");
        let proof = network.members[0].result("mempool_get", json!([record]));
        let _ = network.members[0].sealed(&record);
        let shown = network.members[0].result("chain_getRecord", json!([record]));
        let signed = shown["stages"].as_array().unwrap().len();
        assert_eq!(signed, if conduct == Conduct::Honest { 2 } else { 1 }, "{conduct:?}: {shown} {proof}");
        replaced += u64::from(conduct != Conduct::Honest);
        assert_eq!(metric(&network.members[0], "aria_stages_replaced_total"), replaced, "{conduct:?}");
    }
    // What is wrong is never signed, and whose layers it was is not asked again.
    for conduct in [Conduct::Skips, Conduct::OtherRoots] {
        *crook.conduct.lock().unwrap() = conduct;
        let refused = http::post(&api(&network.members[0]), "/v1/chat/completions", &body(false));
        assert_eq!(refused.status, 500, "{conduct:?}: {}", refused.body);
        let why = if conduct == Conduct::Skips { "did not pass this node's own check" } else { "two stages differ" };
        assert!(refused.body.contains(why), "{conduct:?}: {}", refused.body);
        assert_eq!(metric(&network.members[0], "aria_stages_distrusted_total"), 1, "{conduct:?}");
        let (text, _, named) = answer(&network.members[0]);
        assert_eq!((&text, &named), (&alone, &one), "{conduct:?}");
        if conduct == Conduct::Skips {
            // A new start forgets it.
            network.kill(0);
            network.start_again_with(0, &["--stages", &nodes[3]]);
            wait_for_peers(&network.members[0], &nodes[3..]);
        }
    }
    network.terminate();
}
