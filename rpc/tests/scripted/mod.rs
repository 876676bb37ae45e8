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
    block::{FinalBlock, Header},
    certificate::{CommitCertificate, Vote},
    consent::{Consent, Refusal},
    ids::{Digest, ModelId, NodeId, RecordId, TransactionId},
    keys::{NodeKey, Signature},
    proof::{SignedProof, VerifiedProof},
    record::{BackendClass, EnergySource, InferenceRecord, Stage},
    request::{AuditMode, InferenceRequest, TaskType},
    store::{MemoryStore, Store, StoreError},
    transaction::{Action, SignedTransaction, Transaction},
    units::{Height, Microjoules, Millis, NanoAria, Round, Timestamp},
};
use aria_inference::{
    backend::CancelToken,
    generation::{FinishReason, RequestError},
};
use aria_rpc::{
    auth::Gate,
    chain, openai, server,
    services::{
        AccountView, AriaExtension, BanView, CancelGuard, ConsentView, Finished, GenerateCall, GenerateError,
        Generation, GenerationEvent, Logprob, MempoolView, ModelCard, NodeStatus, Owed, PeerView, Prompt, Readiness,
        Services, Submission, TokenChance, VerifyView, WaitingProof, WaitingTransaction,
    },
};
use aria_runtime::{
    beacon,
    genesis::Genesis,
    propose::{Slot, Waiting, propose},
    state::{Reader, StoreView},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) mod socket;

/// The model of the development network.
pub(crate) const MODEL: &str = "56fc921370e640c07d286b1c51a234c26166af582fdc86936b584bee64b2d4d7";

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
    /// Its consent forbids it.
    Refuses(Refusal),
    /// Is not ready.
    Loading,
}

/// The node.
pub(crate) struct Scripted {
    script: Mutex<Script>,
    store: Arc<dyn Store>,
    /// The tip, for subscriptions.
    pub(crate) tip: tokio::sync::watch::Sender<Height>,
    /// Who was banned.
    pub(crate) bans: Mutex<Vec<BanView>>,
    /// The consent contract in force.
    pub(crate) consent: Mutex<Option<ConsentView>>,
    /// The last order.
    pub(crate) asked: Mutex<Option<GenerateCall>>,
    /// Answers that are being told.
    pub(crate) running: Arc<AtomicUsize>,
}

impl Scripted {
    /// A node that follows `script`.
    pub(crate) fn new(script: Script) -> Arc<Scripted> {
        let genesis = genesis();
        let store = MemoryStore::new(&genesis.block(), &genesis.changes()).unwrap();
        Arc::new(Scripted {
            script: Mutex::new(script),
            store: Arc::new(store),
            tip: tokio::sync::watch::Sender::new(Height::ZERO),
            bans: Mutex::default(),
            consent: Mutex::default(),
            asked: Mutex::default(),
            running: Arc::default(),
        })
    }

    /// Makes so many blocks without records.
    pub(crate) fn grow(&self, blocks: u64) {
        for _ in 0..blocks {
            self.seal(&[]);
        }
    }

    /// Makes a block with a record of each of these nodes, named by the seed of their keys: 1 or 2.
    pub(crate) fn seal(&self, nodes: &[u8]) -> Vec<RecordId> {
        let (genesis, parent) = (genesis(), self.tip_header());
        let proofs: Vec<VerifiedProof> =
            (0..).zip(nodes).map(|(place, node)| proof(&genesis, &parent, place, *node)).collect();
        let ids: Vec<RecordId> = proofs.iter().map(VerifiedProof::record_id).collect();
        self.seal_all(proofs.into());
        ids
    }

    /// Makes a block with orders of the account of key 1.
    pub(crate) fn order(&self, actions: Vec<Action>) {
        let (genesis, key, parent) = (genesis(), key(1), self.tip_header());
        let account = Reader(&StoreView(&*self.store)).account(&key.node_id()).unwrap().unwrap();
        let order = |(nonce, action): (u64, Action)| {
            let fee = NanoAria::new(genesis.params().fee_min_nano);
            let (chain_id, sender) = (genesis.chain_id().clone(), key.node_id());
            let expiry = parent.height.plus(10).unwrap();
            let transaction = Transaction { chain_id, sender, nonce, fee, expiry, action };
            let signature = key.sign_transaction(genesis.chain_id(), &transaction.id());
            SignedTransaction { transaction, signature }.verify(genesis.chain_id()).unwrap()
        };
        let transactions = (account.nonce..).zip(actions).map(order).collect();
        self.seal_all(Waiting { transactions, ..Waiting::default() });
    }

    fn tip_header(&self) -> Header {
        self.store.header(self.store.tip().unwrap().height).unwrap().unwrap()
    }

    fn seal_all(&self, waiting: Waiting) {
        let (genesis, key, parent) = (genesis(), key(1), self.tip_header());
        let timestamp = Timestamp::new(parent.timestamp_ms.get() + genesis.params().heartbeat_ms);
        let input = beacon::input(parent.height.next().unwrap(), &StoreView(&*self.store)).unwrap();
        let (proposer, vrf) = (key.node_id(), key.prove_vrf(&input));
        let slot = Slot { parent: &parent, round: Round::ZERO, timestamp, proposer, vrf };
        let proposal = propose(slot, waiting, &StoreView(&*self.store), &genesis).unwrap();
        assert_eq!((proposal.skipped, proposal.refused), (vec![], vec![]));
        let (block, executed) = proposal.block.unwrap();
        let (height, hash) = (block.header().height, block.hash());
        let vote = Vote::sign(&key, genesis.chain_id(), height, Round::ZERO, hash);
        let certificate = CommitCertificate::gather(height, Round::ZERO, hash, &[vote]);
        let block = FinalBlock::new(block, certificate, genesis.validators()).unwrap();
        self.store.commit(&block, &executed.changes).unwrap();
        self.tip.send_replace(height);
    }

    /// Changes what it does.
    pub(crate) fn follow(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }
}

/// The key of a seed.
pub(crate) fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed(&[seed; 32])
}

/// The development network with a second node that may answer, but not vote.
pub(crate) fn genesis() -> Genesis {
    let second = format!(
        "\n[[accounts]]\nkey = \"{}\"\nbalance_nano = 1_000_000_000_000\nbond_nano = 1_000_000_000_000\n",
        key(2).node_id()
    );
    let text = include_str!("../../../genesis/devnet.toml").to_owned() + &second;
    Genesis::from_toml(&text, Some(key(1).node_id())).unwrap()
}

/// A record that one node ran alone, asked for by the first, as the block above `parent` may hold it.
fn proof(genesis: &Genesis, parent: &Header, place: u64, node: u8) -> VerifiedProof {
    let (chain, requester) = (genesis.chain_id(), key(1));
    let request = InferenceRequest {
        chain_id: chain.clone(),
        model_id: MODEL.parse().unwrap(),
        prompt_commitment: Digest::new([3; 32]),
        temperature_ppm: 700_000,
        top_p_ppm: 1_000_000,
        top_k: 40,
        min_p_ppm: 0,
        repetition_penalty_ppm: 1_000_000,
        presence_penalty_ppm: 0,
        frequency_penalty_ppm: 0,
        logit_bias_commitment: Digest::new([4; 32]),
        seed: 42,
        choices: 1,
        max_tokens: 64,
        stop_commitment: Digest::new([5; 32]),
        task_type: TaskType::TextGeneration,
        audit: AuditMode::Committee,
        max_fee: NanoAria::ZERO,
        requester: requester.node_id(),
        nonce: parent.height.get() * 1_000 + place,
        expiry: parent.height.plus(1_000).unwrap(),
    };
    let record = InferenceRecord {
        request_id: request.id(),
        query_hash: request.prompt_commitment,
        output_hash: Digest::new([6; 32]),
        model_id: request.model_id,
        stages: vec![Stage { node_id: key(node).node_id(), layer_start: 0, layer_end: 6 }],
        energy_uj: Microjoules::new(1_000_000),
        energy_source: EnergySource::Estimated,
        latency_ms: Millis::new(1_200),
        first_token_ms: Millis::new(200),
        prompt_tokens: 20,
        tokens_generated: 51,
        timestamp_ms: parent.timestamp_ms,
        backend: BackendClass::Canonical,
        transcript_root: Digest::new([7; 32]),
    };
    let id = record.id();
    let signed = SignedProof {
        stage_signatures: vec![key(node).sign_stage(chain, &id, 0)],
        request_signature: requester.sign_request(chain, &request.id()),
        receipt_signature: requester.sign_receipt(chain, &id),
        request,
        record,
    };
    signed.verify(chain).unwrap()
}

fn done() -> GenerationEvent {
    let aria = AriaExtension {
        record_id: Some("ab".repeat(32)),
        receipt_for: None,
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
            Script::Refuses(refusal) => return Err(refusal.into()),
            _ if call.model != "tiny" => return Err(GenerateError::UnknownModel(call.model)),
            _ => {}
        }
        if let Prompt::Text(text) = &call.prompt
            && text.len() > 1000
        {
            return Err(RequestError::TooLong { context: 100, requested: 1016, prompt: 1000, completion: 16 }.into());
        }
        let (cancel, choices) = (CancelToken::new(), call.choices);
        let (to, events) = mpsc::channel(4);
        tokio::spawn(tell(script, call, cancel.clone(), to, Arc::clone(&self.running)));
        Ok(Generation { request_id: "cd".repeat(32), prompt_tokens: 7, choices, events, guard: CancelGuard(cancel) })
    }

    fn owed(&self, _: &NodeId) -> Vec<Owed> {
        Vec::new()
    }

    fn receive(&self, _: &RecordId, _: Signature) -> Result<(), String> {
        Err("no receipt is owed".into())
    }

    fn consent(&self) -> Option<ConsentView> {
        *self.consent.lock().unwrap()
    }

    fn set_consent(&self, fields: &serde_json::Map<String, Value>) -> Result<Consent, String> {
        let mut stated = self.consent.lock().unwrap();
        let base = stated.map_or_else(Consent::default, |stated| stated.contract);
        let contract = aria_rpc::consent::amend(base, fields).map_err(|error| error.to_string())?;
        *stated = Some(ConsentView { contract, is_revoked: false });
        Ok(contract)
    }

    fn revoke_consent(&self) -> Result<(), String> {
        let mut stated = self.consent.lock().unwrap();
        let contract = stated.map_or_else(Consent::default, |stated| stated.contract);
        *stated = Some(ConsentView { contract, is_revoked: true });
        Ok(())
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
            height: Some(3),
            round_trip_us: None,
        };
        ("127.0.0.1:9".parse().ok(), vec![peer])
    }

    fn add_peer(&self, address: &str) -> Result<(), String> {
        if address == "nowhere:1" { Err("there is no such place".into()) } else { Ok(()) }
    }

    fn remove_peer(&self, address: &str) -> Result<(), String> {
        self.add_peer(address)
    }

    fn ban_peer(&self, node: NodeId, time: std::time::Duration, reason: &str) -> Result<(), String> {
        self.bans.lock().unwrap().push(BanView { node_id: node, reason: reason.into(), left: time });
        Ok(())
    }

    fn bans(&self) -> Vec<BanView> {
        self.bans.lock().unwrap().clone()
    }

    fn tip_changes(&self) -> tokio::sync::watch::Receiver<Height> {
        self.tip.subscribe()
    }

    fn submit(&self, what: Submission) -> Result<String, String> {
        Ok(match what {
            Submission::Proof(proof) => proof.record.id().to_string(),
            Submission::Transaction(transaction) => transaction.transaction.id().to_string(),
        })
    }

    fn waiting_transaction(&self, _: &TransactionId) -> Option<WaitingTransaction> {
        None
    }

    fn waiting_transactions_after(&self, _: Option<&TransactionId>, _: usize) -> Vec<WaitingTransaction> {
        Vec::new()
    }

    fn waiting(&self, _: &RecordId) -> Option<WaitingProof> {
        None
    }

    fn waiting_after(&self, _: Option<&RecordId>, _: usize) -> Vec<WaitingProof> {
        Vec::new()
    }

    fn simulate(&self, what: Submission) -> Result<String, String> {
        self.submit(what)
    }

    fn mempool(&self) -> MempoolView {
        MempoolView { pending: 0, bytes: 0, pending_max: 1, oldest_ms: None, transactions: 0, transactions_max: 1 }
    }

    fn params(&self) -> Value {
        serde_json::to_value(genesis().params()).unwrap()
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

/// Opens the chain's door of `node`.
pub(crate) async fn open_chain(node: &Arc<Scripted>) -> (SocketAddr, jsonrpsee::server::ServerHandle) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let services: Arc<dyn Services> = node.clone();
    (address, chain::serve(listener, services, chain::hosts_of(address)).unwrap())
}

/// Calls a method of the chain's door.
pub(crate) fn call(address: SocketAddr, method: &str, params: Value) -> Value {
    post(address, "/", &json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).json()
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
