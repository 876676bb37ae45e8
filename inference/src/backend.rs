//! What a node asks of anything that can answer a prompt.
//!
//! Two kinds run today: [`builtin`], the exact engine on its own thread, and [`simulation`], which makes text up, says so, and
//! runs only where it is named.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::chat::ChatTemplate;
use crate::digest::ModelDigest;
use crate::engine::EngineError;
use crate::generation::{Event, GenerationRequest, RequestError};
use crate::hyper::Hyper;
use crate::kernels::KernelKind;
use crate::kv_cache::KvShape;
use crate::pace::Limits;
use crate::stage::StageJob;
use crate::tokenizer::Tokenizer;
use crate::verify::{Claim, LayerClaim, LayerVerdict, Verdict};

pub mod builtin;
pub mod simulation;

/// Which backend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// The exact engine: its records can be audited.
    Builtin,
    /// Made-up text: its records are marked and earn nothing.
    Simulation,
}

impl BackendKind {
    /// The name used in configuration and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            BackendKind::Builtin => "builtin",
            BackendKind::Simulation => "simulation",
        }
    }
}

/// What is being served.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// The name in the file.
    pub name: String,
    /// The canonical digest.
    pub digest: ModelDigest,
    /// The shapes.
    pub hyper: Hyper,
    /// Positions a request may occupy: the model's, or fewer where memory is bounded.
    pub context: usize,
    /// The kernel path in use.
    pub kernel: KernelKind,
    /// Threads of a forward pass.
    pub threads: usize,
    /// Version of `docs/arithmetic.md`.
    pub arithmetic: u32,
    /// Bytes of weights held in memory.
    pub weight_bytes: u64,
}

impl ModelInfo {
    /// What decides the size of caches.
    #[must_use]
    pub fn kv_shape(&self) -> KvShape {
        KvShape { layers: self.hyper.layers, kv_heads: self.hyper.kv_heads, head_dim: self.hyper.head_dim }
    }
}

/// How busy a backend is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests being computed.
    pub active: usize,
    /// Requests waiting.
    pub queued: usize,
    /// Requests that may wait.
    pub limit: usize,
}

/// Ends a request from outside, running or still queued, within one decode step. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that nobody has cancelled.
    #[must_use]
    pub fn new() -> CancelToken {
        CancelToken::default()
    }

    /// Asks the request to end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full: try again later.
    #[error("{queued} requests are waiting and no more than {limit} may; try again in a moment")]
    Busy {
        /// Requests waiting.
        queued: usize,
        /// Requests that may wait.
        limit: usize,
    },
    /// The request can never run.
    #[error(transparent)]
    Invalid(#[from] RequestError),
    /// The backend was stopped, or its thread ended.
    #[error("the backend has stopped; restart the node")]
    Stopped,
    /// The backend cannot do this.
    #[error("the {backend} backend cannot {action}")]
    Unsupported {
        /// Its name.
        backend: &'static str,
        /// What was asked.
        action: &'static str,
    },
}

/// Receives the events of one request, on the backend's thread: it must not block.
pub type EventSink = Box<dyn FnMut(Event) + Send>;
/// Receives one verdict, on the backend's thread: it must not block.
pub type VerdictSink<V = Verdict> = Box<dyn FnOnce(Result<V, EngineError>) + Send>;

/// Anything that answers prompts. All methods return at once; work happens on threads of the backend.
pub trait Backend: Send + Sync {
    /// Which one this is.
    fn kind(&self) -> BackendKind;
    /// What it serves.
    fn model(&self) -> &ModelInfo;
    /// The model's tokenizer.
    fn tokenizer(&self) -> &Tokenizer;
    /// The model's chat template, if its file has one.
    fn chat(&self) -> Option<&ChatTemplate>;
    /// Queues a request. Every accepted request ends with exactly one `Done` or `Failed`.
    fn submit(&self, request: GenerationRequest, cancel: CancelToken, sink: EventSink) -> Result<(), SubmitError>;
    /// Queues the re-execution of a claim.
    fn verify(&self, claim: Claim, cancel: CancelToken, sink: VerdictSink) -> Result<(), SubmitError>;
    /// Queues the re-execution of some layers of a claim.
    fn verify_layers(
        &self,
        asked: LayerClaim,
        cancel: CancelToken,
        sink: VerdictSink<LayerVerdict>,
    ) -> Result<(), SubmitError>;
    /// Hands a stage of a pipeline something to do. Where the backend ends before, the job's sink is dropped.
    fn stage(&self, job: StageJob) -> Result<(), SubmitError>;
    /// Takes no more than this of the machine, from the next step on. Results do not change.
    fn limit(&self, limits: Limits);
    /// How busy it is.
    fn load(&self) -> Load;
    /// Ends: with `drain`, what was accepted is finished first; without, it is cancelled. Later requests are refused. Returns when the
    /// backend's threads have ended.
    fn stop(&self, drain: bool);
}
