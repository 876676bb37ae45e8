//! All that the doors ask of a node. The node implements [`Services`]; the doors know nothing else of it.
//!
//! Calls marked *blocks* read the disk: the doors make them on blocking threads. The others return at once.

use std::sync::Arc;

use aria_chain::{
    consent::{Consent, Refusal},
    ids::{NodeId, RecordId, RequestId},
    keys::Signature,
    request::InferenceRequest,
    store::{Store, StoreError},
    units::{Height, NanoAria},
};
use aria_inference::{
    backend::CancelToken,
    chat::ChatMessage,
    generation::{FinishReason, RequestError},
    sampler::Sampling,
};
use serde::Serialize;
use tokio::sync::mpsc;

/// A node, as its doors see it.
pub trait Services: Send + Sync + 'static {
    /// Whether it can answer prompts, and if not, why.
    fn readiness(&self) -> Readiness;

    /// The models it serves. Empty until ready.
    fn models(&self) -> Vec<ModelCard>;

    /// Starts an answer. What goes wrong later comes as an event.
    fn generate(&self, call: GenerateCall) -> Result<Generation, GenerateError>;

    /// What a requester has to sign for.
    fn owed(&self, requester: &NodeId) -> Vec<Owed>;

    /// Takes a requester's signature for a record, which is then on its way into a block, on disk. The error says which rule it
    /// breaks. *Blocks.*
    fn receive(&self, record: &RecordId, receipt: Signature) -> Result<(), String>;

    /// The consent contract in force, if one was stated.
    fn consent(&self) -> Option<ConsentView>;

    /// Changes what is named of it, at once and for later starts. The error says which clause cannot be. *Blocks.*
    fn set_consent(&self, fields: &serde_json::Map<String, serde_json::Value>) -> Result<Consent, String>;

    /// Takes it back: nothing is answered any more. *Blocks.*
    fn revoke_consent(&self) -> Result<(), String>;

    /// Blocks, records and state at rest. Its methods block.
    fn store(&self) -> Arc<dyn Store>;

    /// What the node is and does now.
    fn status(&self) -> NodeStatus;

    /// Connected peers, by key, and where this node listens for them.
    fn peers(&self) -> (Option<std::net::SocketAddr>, Vec<PeerView>);

    /// Keeps a connection to an address from now on. The error says why there are no peers.
    fn add_peer(&self, address: &str) -> Result<(), String>;

    /// Ends what [`add_peer`](Services::add_peer) began. The error says that it did not.
    fn remove_peer(&self, address: &str) -> Result<(), String>;

    /// Ends the connection to a peer and keeps it out for so long; no time at all lets it in again.
    fn ban_peer(&self, node: aria_chain::ids::NodeId, time: std::time::Duration, reason: &str) -> Result<(), String>;

    /// Who is kept out.
    fn bans(&self) -> Vec<BanView>;

    /// The height of the last block, now and whenever it changes.
    fn tip_changes(&self) -> tokio::sync::watch::Receiver<aria_chain::units::Height>;

    /// Proofs that wait for a block.
    fn mempool(&self) -> MempoolView;

    /// A proof that waits, with when it came, milliseconds since 1970.
    fn waiting(&self, record: &aria_chain::ids::RecordId) -> Option<WaitingProof>;

    /// Up to `limit` of those that wait, in the order in which blocks take them, behind `after`.
    fn waiting_after(&self, after: Option<&aria_chain::ids::RecordId>, limit: usize) -> Vec<WaitingProof>;

    /// A transaction that waits. *Blocks.*
    fn waiting_transaction(&self, id: &aria_chain::ids::TransactionId) -> Option<WaitingTransaction>;

    /// Up to `limit` waiting transactions by account and number, beginning behind one of them. *Blocks.*
    fn waiting_transactions_after(
        &self,
        after: Option<&aria_chain::ids::TransactionId>,
        limit: usize,
    ) -> Vec<WaitingTransaction>;

    /// Whether something could be in the next block; its id. The error says which rule it breaks. *Blocks.*
    fn simulate(&self, what: Submission) -> Result<String, String>;

    /// Makes something signed wait to be sealed, on disk; the same again is no new one. Its id. The error says which rule it breaks.
    /// *Blocks.*
    fn submit(&self, what: Submission) -> Result<String, String>;

    /// Parameters of the chain as JSON: field names of the genesis file.
    fn params(&self) -> serde_json::Value;

    /// Account of a node after the tip. *Blocks.*
    fn account(&self, node: &aria_chain::ids::NodeId) -> Result<Option<AccountView>, StoreError>;

    /// Name of a registered model. *Blocks.*
    fn model_name(&self, model: &aria_chain::ids::ModelId) -> Result<Option<String>, StoreError>;

    /// Checks blocks `from..=to` (to the tip, if none): hashes, signatures, roots, and the state by executing them again. *Blocks.*
    fn verify(&self, from: Height, to: Option<Height>) -> Result<VerifyView, StoreError>;

    /// Metrics in the text format of Prometheus.
    fn metrics(&self) -> String;

    /// Begins an orderly stop.
    fn stop(&self);
}

/// A consent contract in force.
#[derive(Debug, Clone, Copy)]
pub struct ConsentView {
    /// What it says.
    pub contract: Consent,
    /// It was taken back.
    pub is_revoked: bool,
}

/// A peer that is kept out.
#[derive(Debug, Clone)]
pub struct BanView {
    /// Its key.
    pub node_id: aria_chain::ids::NodeId,
    /// Why.
    pub reason: String,
    /// For how long.
    pub left: std::time::Duration,
}

/// Whether prompts can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// They can.
    Ready,
    /// Not now, because of this.
    NotReady {
        /// In words, for people.
        reason: String,
    },
}

/// A model that is served.
#[derive(Debug, Clone)]
pub struct ModelCard {
    /// Name to ask for.
    pub id: String,
    /// When this node loaded it, seconds since 1970.
    pub created: u64,
    /// Canonical digest, 64 hex digits.
    pub digest: String,
    /// Version of the arithmetic.
    pub arithmetic: u32,
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// Weights.
    pub parameters: u64,
    /// What runs it: `builtin` or `simulation`.
    pub backend: &'static str,
}

/// What is to be continued.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A conversation, through the model's chat template.
    Chat(Vec<ChatMessage>),
    /// Bare text.
    Text(String),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// Whose money pays for an answer, and who signs the request.
#[derive(Debug, Clone)]
pub enum Payer {
    /// The node, at most so much; where the client says nothing, what it pays for every client.
    Node(Option<NanoAria>),
    /// A client with a key of its own. Its request is offered, for it to sign.
    Client(NodeId, NanoAria),
    /// The same, with the signature of what was offered.
    Signed(RequestId, Signature),
}

/// A record that its requester has not signed for yet.
#[derive(Debug, Clone)]
pub struct Owed {
    /// Its id: what is to be signed.
    pub record_id: RecordId,
    /// Its bytes.
    pub record: Vec<u8>,
}

/// An order for an answer, its parameters in range as far as the door can tell.
#[derive(Debug, Clone)]
pub struct GenerateCall {
    /// Name of the model.
    pub model: String,
    /// What to continue.
    pub prompt: Prompt,
    /// How many answers.
    pub choices: u32,
    /// Most tokens of each; the rest of the context if none.
    pub max_tokens: Option<u32>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// How to draw. Its seed is used only if [`GenerateCall::is_seeded`].
    pub sampling: Sampling,
    /// Whether the client chose the seed; if not, the node draws one.
    pub is_seeded: bool,
    /// Who may see its tokens afterwards.
    pub audit: aria_chain::request::AuditMode,
    /// What kind of task the client says it is.
    pub task: aria_chain::request::TaskType,
    /// Memory that the client says its task takes, in megabytes; zero if it says nothing.
    pub ram_mb: u32,
    /// Whose money pays for it.
    pub payer: Payer,
    /// Report logarithms of probabilities, and this many alternatives.
    pub logprobs: Option<u8>,
}

/// An answer in the making.
#[derive(Debug)]
pub struct Generation {
    /// Id of the signed request, 64 hex digits.
    pub request_id: String,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// How many answers.
    pub choices: u32,
    /// What happens, in order; the last is `Done` or `Failed`.
    pub events: mpsc::Receiver<GenerationEvent>,
    /// Ends the answer when it is dropped, which is harmless after the end.
    pub guard: CancelGuard,
}

/// Cancels a generation when dropped: the client went away.
#[derive(Debug)]
pub struct CancelGuard(pub CancelToken);

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// What happens to an answer.
#[derive(Debug, Clone)]
pub enum GenerationEvent {
    /// One more token.
    Token {
        /// Of which choice.
        choice: u32,
        /// Text that it released; may be empty.
        text: String,
        /// If asked for.
        logprob: Option<Logprob>,
    },
    /// A choice ended.
    ChoiceDone {
        /// Which.
        choice: u32,
        /// Why.
        finish: FinishReason,
        /// Text that was held back until now.
        text: String,
    },
    /// All ended; the record is signed and on disk.
    Done(Box<Finished>),
    /// No answer after all.
    Failed(GenerateError),
}

/// Logarithm of a token's probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprob {
    /// The drawn token.
    pub drawn: TokenChance,
    /// The likeliest ones.
    pub top: Vec<TokenChance>,
}

/// A token and the logarithm of its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenChance {
    /// Its bytes: may be a part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm.
    pub logprob: f32,
}

/// The end of an answer, with exact counts.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of those, computed by an earlier request.
    pub cached_tokens: u32,
    /// Tokens of all choices.
    pub completion_tokens: u32,
    /// What is ours alone.
    pub aria: AriaExtension,
}

/// The object `aria` of an answer.
#[derive(Debug, Clone, Serialize)]
pub struct AriaExtension {
    /// The record on its way into a block; nothing if the answer cannot be recorded, and then the log says why.
    pub record_id: Option<String>,
    /// The record as hex, where its requester is to sign for it first; it is on its way after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt_for: Option<String>,
    /// The signed request.
    pub request_id: String,
    /// Nodes that ran it, in order.
    pub node_ids: Vec<String>,
    /// What ran it.
    pub backend: &'static str,
    /// Energy in millijoules.
    pub energy_mj: f64,
    /// `measured` or `estimated`.
    pub energy_source: &'static str,
    /// Whole milliseconds from the start to the last token.
    pub latency_ms: u64,
    /// Whole milliseconds from the start to the first token.
    pub first_token_ms: u64,
    /// Root of the transcript; equal on every machine for the same request and salt.
    pub transcript_root: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GenerateError {
    /// The model is not served here.
    #[error("The model `{0}` does not exist or is not served by this node; see /v1/models.")]
    UnknownModel(String),
    /// The model is still being loaded, or the node is stopping.
    #[error("{reason}")]
    NotReady {
        /// In words.
        reason: String,
    },
    /// The node writes no more: an answer could leave no record. It needs repair, not another try.
    #[error("{reason}")]
    StoreStopped {
        /// In words.
        reason: String,
    },
    /// Too much is waiting.
    #[error("{reason}")]
    Busy {
        /// In words.
        reason: String,
        /// When it is worth another try.
        retry_after_s: u64,
    },
    /// The node's consent contract forbids it.
    #[error(transparent)]
    Consent(#[from] Refusal),
    /// The fee cannot be paid.
    #[error("{0}")]
    Fee(String),
    /// Its requester is to sign it first.
    #[error("sign the request and send it again with aria.request_id and aria.signature; see docs/rpc.md")]
    Unsigned {
        /// What is to be signed.
        request: Box<InferenceRequest>,
        /// Who will run it.
        provider: NodeId,
    },
    /// A request was not offered, or not signed by whom it was offered to.
    #[error("{field} {rule}")]
    Signature {
        /// Of the call.
        field: &'static str,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// Who does not sign for answers is given no more.
    #[error("{requester} owes receipts for {owed} answers; see /v1/aria/receipts/{requester}")]
    ReceiptOwed {
        /// The requester.
        requester: NodeId,
        /// How many.
        owed: usize,
    },
    /// A parameter cannot work with this model.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The messages cannot be put into the model's template.
    #[error("messages: {0}")]
    Messages(String),
    /// The engine failed.
    #[error("{0}")]
    Engine(String),
}

/// What a node is and does.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// Public key.
    pub node_id: String,
    /// Name of its chain.
    pub chain_id: String,
    /// Hash of the first block.
    pub genesis_hash: String,
    /// Of the program.
    pub version: &'static str,
    /// Process id.
    pub pid: u32,
    /// Whole seconds since the start.
    pub uptime_s: u64,
    /// Whether prompts are answered.
    pub ready: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Model served.
    pub model: Option<String>,
    /// What runs it.
    pub backend: Option<&'static str>,
    /// Instruction set in use.
    pub kernel: Option<&'static str>,
    /// Threads of a forward pass.
    pub threads: Option<usize>,
    /// Answers in the making.
    pub active: usize,
    /// Requests that wait.
    pub queued: usize,
    /// Requests that may wait.
    pub queue_max: usize,
    /// Whether the store still writes; if not, why.
    pub store_fault: Option<String>,
    /// Connected peers.
    pub peers: usize,
    /// Blocks that the best peer has and this node has not.
    pub behind: u64,
    /// Blocks of an epoch.
    pub epoch_blocks: u64,
}

/// A connected peer.
#[derive(Debug, Clone, Serialize)]
pub struct PeerView {
    /// Its key.
    pub node_id: String,
    /// Where it is.
    pub address: String,
    /// `outbound` if this node dialled, else `inbound`.
    pub direction: &'static str,
    /// Connected for so long.
    pub connected_ms: u64,
    /// Bytes that came from it.
    pub bytes_received: u64,
    /// Bytes that were sent to it.
    pub bytes_sent: u64,
    /// The last block that it says it has.
    pub height: Option<u64>,
    /// From the last ping to its answer, in microseconds.
    pub round_trip_us: Option<u64>,
}

/// What waits for a block.
#[derive(Debug, Clone, Serialize)]
pub struct MempoolView {
    /// How many proofs.
    pub pending: usize,
    /// Their size.
    pub bytes: usize,
    /// Most that may wait.
    pub pending_max: usize,
    /// Arrival of the oldest, milliseconds since 1970.
    pub oldest_ms: Option<u64>,
    /// How many transactions.
    pub transactions: usize,
    /// Most of them that may wait.
    pub transactions_max: usize,
}

/// What a client may make wait for a block.
#[derive(Debug, Clone)]
pub enum Submission {
    /// An inference, signed by everyone involved.
    Proof(Box<aria_chain::proof::SignedProof>),
    /// An order of an account.
    Transaction(Box<aria_chain::transaction::SignedTransaction>),
}

/// A transaction that waits.
#[derive(Debug, Clone)]
pub struct WaitingTransaction {
    /// The transaction.
    pub transaction: aria_chain::transaction::VerifiedTransaction,
    /// When it came, milliseconds since 1970.
    pub since_ms: u64,
}

/// A proof that waits.
#[derive(Debug, Clone)]
pub struct WaitingProof {
    /// The proof.
    pub proof: aria_chain::proof::VerifiedProof,
    /// When it came, milliseconds since 1970.
    pub since_ms: u64,
}

/// Money and merit of a node.
#[derive(Debug, Clone, Serialize)]
pub struct AccountView {
    /// The node.
    pub node_id: String,
    /// Nano-ARIA, free.
    pub balance: String,
    /// Nano-ARIA, held as security.
    pub bond: String,
    /// The part of the bond that is being freed.
    pub unbonding: String,
    /// Nano-ARIA ever earned.
    pub rewards_total: String,
    /// Next nonce.
    pub nonce: u64,
    /// The same behind what waits here: the one to sign with.
    pub next_nonce: u64,
    /// Work units of the current epoch.
    pub work: u64,
}

/// What a check of the chain found.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyView {
    /// Nothing wrong.
    pub ok: bool,
    /// First height checked.
    pub from: u64,
    /// Last height checked.
    pub to: u64,
    /// Blocks checked.
    pub blocks: u64,
    /// Records in them.
    pub records: u64,
    /// The first fault.
    pub fault: Option<FaultView>,
}

/// A fault in the chain.
#[derive(Debug, Clone, Serialize)]
pub struct FaultView {
    /// Where.
    pub height: u64,
    /// The rule that is broken, a stable word.
    pub rule: String,
    /// In words.
    pub message: String,
}
