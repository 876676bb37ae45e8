//! A node made of a script: its answers, delays and refusals are set by the test. The doors in front of it are the real
//! ones, on real sockets.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aria_chain::{
    block::FinalBlock,
    certificate::{CommitCertificate, Vote},
    ids::{ModelId, NodeId},
    keys::NodeKey,
    store::{MemoryStore, Store, StoreError},
    units::{Height, Round, Timestamp},
};
use aria_inference::{
    backend::CancelToken,
    generation::{FinishReason, RequestError},
};
use aria_rpc::{
    auth::Gate,
    openai, server,
    services::{
        AccountView, AriaExtension, CancelGuard, Finished, GenerateCall, GenerateError, Generation, GenerationEvent,
        Logprob, MempoolView, ModelCard, NodeStatus, PeerView, Prompt, Readiness, Services, TokenChance, VerifyView,
    },
};
use aria_runtime::{
    genesis::Genesis,
    propose::{Slot, propose},
    state::StoreView,
};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What the scripted node does with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// Tells these words and ends.
    Words(&'static [&'static str]),
    /// Tells a word every ten milliseconds until it is cancelled.
    Endless,
    /// Tells one word, then fails.
    Fails,
    /// Has no room.
    Busy,
    /// Is not ready.
    Loading,
}

/// The node.
pub(crate) struct Scripted {
    script: Mutex<Script>,
    store: Arc<dyn Store>,
    /// The tip, for subscriptions.
    pub(crate) tip: tokio::sync::watch::Sender<Height>,
    /// The last order.
    pub(crate) asked: Mutex<Option<GenerateCall>>,
    /// Answers that are being told.
    pub(crate) running: Arc<AtomicUsize>,
}

impl Scripted {
    /// A node that follows `script`.
    pub(crate) fn new(script: Script) -> Arc<Scripted> {
        let key = NodeKey::from_seed(&[1; 32]);
        let genesis = Genesis::from_toml(include_str!("../../../genesis/devnet.toml"), Some(key.node_id())).unwrap();

        let store = MemoryStore::new(&genesis.block(), &genesis.changes()).unwrap();
        Arc::new(Scripted {
            script: Mutex::new(script),
            store: Arc::new(store),
            tip: tokio::sync::watch::Sender::new(Height::ZERO),
            asked: Mutex::default(),
            running: Arc::default(),
        })
    }

    /// Makes so many blocks without records.
    pub(crate) fn grow(&self, blocks: u64) {
        let key = NodeKey::from_seed(&[1; 32]);
        let genesis = Genesis::from_toml(include_str!("../../../genesis/devnet.toml"), Some(key.node_id())).unwrap();
        for _ in 0..blocks {
            let parent = self.store.header(self.store.tip().unwrap().height).unwrap().unwrap();
            let timestamp = Timestamp::new(parent.timestamp_ms.get() + genesis.params().heartbeat_ms);
            let slot = Slot { parent: &parent, round: Round::ZERO, timestamp, proposer: key.node_id() };
            let (block, executed) = propose(slot, [], &StoreView(&*self.store), &genesis).unwrap().block.unwrap();
            let (height, hash) = (block.header().height, block.hash());
            let vote = Vote::sign(&key, genesis.chain_id(), height, Round::ZERO, hash);
            let certificate = CommitCertificate::gather(height, Round::ZERO, hash, &[vote]);
            let block = FinalBlock::new(block, certificate, genesis.validators()).unwrap();
            self.store.commit(&block, &executed.changes).unwrap();
            self.tip.send_replace(height);
        }
    }

    /// Changes what it does.
    pub(crate) fn follow(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }
}

fn done() -> GenerationEvent {
    let aria = AriaExtension {
        record_id: Some("ab".repeat(32)),
        request_id: "cd".repeat(32),
        node_ids: vec!["ef".repeat(32)],
        backend: "builtin",
        energy_mj: 1.5,
        energy_source: "estimated",
        latency_ms: 3,
        first_token_ms: 1,
        transcript_root: "00".repeat(32),
    };
    GenerationEvent::Done(Box::new(Finished { prompt_tokens: 7, cached_tokens: 3, completion_tokens: 4, aria }))
}

async fn tell(
    script: Script,
    call: GenerateCall,
    cancel: CancelToken,
    to: mpsc::Sender<GenerationEvent>,
    running: Arc<AtomicUsize>,
) {
    running.fetch_add(1, Ordering::SeqCst);
    let words: &[&str] = if let Script::Words(words) = script { words } else { &["word "] };
    let logprob = call.logprobs.map(|top| {
        let chance = |logprob| TokenChance { bytes: b"w".to_vec(), logprob };
        Logprob { drawn: chance(-0.5), top: (0..top).map(|_| chance(-0.5)).collect() }
    });
    'all: for choice in 0..call.choices {
        let mut rounds = 0;
        loop {
            for word in words {
                let event = GenerationEvent::Token { choice, text: (*word).to_owned(), logprob: logprob.clone() };
                if cancel.is_cancelled() || to.send(event).await.is_err() {
                    break 'all;
                }
            }
            rounds += 1;
            if script != Script::Endless || rounds > 1000 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if script == Script::Fails {
            let _ = to.send(GenerationEvent::Failed(GenerateError::Engine("a scripted fault".into()))).await;
            break;
        }
        let _ = to.send(GenerationEvent::ChoiceDone { choice, finish: FinishReason::Stop, text: String::new() }).await;
    }
    if script != Script::Fails {
        let _ = to.send(done()).await;
    }
    running.fetch_sub(1, Ordering::SeqCst);
}

impl Services for Scripted {
    fn readiness(&self) -> Readiness {
        match *self.script.lock().unwrap() {
            Script::Loading => Readiness::NotReady { reason: "the model is being loaded".into() },
            _ => Readiness::Ready,
        }
    }

    fn models(&self) -> Vec<ModelCard> {
        let digest = "12".repeat(32);
        vec![ModelCard {
            id: "tiny".into(),
            created: 1,
            digest,
            arithmetic: 1,
            context: 100,
            parameters: 5,
            backend: "builtin",
        }]
    }

    fn generate(&self, call: GenerateCall) -> Result<Generation, GenerateError> {
        *self.asked.lock().unwrap() = Some(call.clone());
        let script = *self.script.lock().unwrap();
        match script {
            Script::Busy => return Err(GenerateError::Busy { reason: "full".into(), retry_after_s: 3 }),
            Script::Loading => return Err(GenerateError::NotReady { reason: "loading".into() }),
            _ if call.model != "tiny" => return Err(GenerateError::UnknownModel(call.model)),
            _ => {}
        }
        if let Prompt::Text(text) = &call.prompt
            && text.len() > 1000
        {
            return Err(RequestError::TooLong { context: 100, requested: 1016, prompt: 1000, completion: 16 }.into());
        }
        let cancel = CancelToken::new();
        let (to, events) = mpsc::channel(4);
        tokio::spawn(tell(script, call, cancel.clone(), to, Arc::clone(&self.running)));
        Ok(Generation { request_id: "cd".repeat(32), prompt_tokens: 7, events, guard: CancelGuard(cancel) })
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            node_id: "ef".repeat(32),
            chain_id: "scripted".into(),
            genesis_hash: "00".repeat(32),
            version: "0",
            pid: 1,
            uptime_s: 0,
            ready: true,
            reason: None,
            model: None,
            backend: None,
            kernel: None,
            threads: None,
            active: 0,
            queued: 0,
            queue_max: 1,
            store_fault: None,
            peers: 1,
            behind: 0,
            epoch_blocks: 100,
        }
    }

    fn peers(&self) -> (Option<std::net::SocketAddr>, Vec<PeerView>) {
        let peer = PeerView {
            node_id: "34".repeat(32),
            address: "127.0.0.1:8765".into(),
            direction: "inbound",
            connected_ms: 5,
            bytes_received: 6,
            bytes_sent: 7,
        };
        ("127.0.0.1:9".parse().ok(), vec![peer])
    }

    fn tip_changes(&self) -> tokio::sync::watch::Receiver<Height> {
        self.tip.subscribe()
    }

    fn submit(&self, proof: aria_chain::proof::SignedProof) -> Result<aria_chain::ids::RecordId, String> {
        Ok(proof.record.id())
    }

    fn mempool(&self) -> MempoolView {
        MempoolView { pending: 0, bytes: 0, pending_max: 1, oldest_ms: None }
    }

    fn params(&self) -> Value {
        Value::Null
    }

    fn account(&self, _: &NodeId) -> Result<Option<AccountView>, StoreError> {
        Ok(None)
    }

    fn model_name(&self, _: &ModelId) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    fn verify(&self, from: Height, _: Option<Height>) -> Result<VerifyView, StoreError> {
        Ok(VerifyView { ok: true, from: from.get(), to: 0, blocks: 1, records: 0, fault: None })
    }

    fn metrics(&self) -> String {
        "aria_height 0\n".into()
    }

    fn stop(&self) {}
}

/// Serves the OpenAI door of a scripted node with these keys; ends when the token is cancelled.
pub(crate) async fn open(node: &Arc<Scripted>, keys: &[String]) -> (SocketAddr, CancellationToken) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let services: Arc<dyn Services> = node.clone();
    let router = Gate::new(address, keys, &["https://page.example".into()]).protect(openai::router(services));
    tokio::spawn(server::serve(listener, router, stop.clone(), 64));
    (address, stop)
}

/// Status, head and body of an answer.
pub(crate) struct Answer {
    /// Status code.
    pub(crate) status: u16,
    /// Status line and headers, in lower case.
    pub(crate) head: String,
    /// Body as it came, chunk sizes included.
    pub(crate) body: String,
}

impl Answer {
    /// The JSON object in the body.
    pub(crate) fn json(&self) -> Value {
        let (from, to) = (self.body.find('{').unwrap(), self.body.rfind('}').unwrap());
        serde_json::from_str(&self.body[from..=to]).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The data of a stream's events.
    pub(crate) fn events(&self) -> Vec<String> {
        self.body.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    }
}

/// Sends a request and leaves its answer unread.
pub(crate) fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if headers.iter().all(|(name, _)| *name != "host") {
        head += &format!("host: {address}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    stream
}

/// Sends a request and reads the whole answer.
pub(crate) fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut text = String::new();
    send(address, method, path, headers, body).read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not HTTP: {text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// Posts JSON.
pub(crate) fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    ask(address, "POST", path, &[("content-type", "application/json")], &body.to_string())
}
