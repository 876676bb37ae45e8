//! One stage of a pipeline: some layers of a model, run over the states that the stage before them left.
//!
//! The first stage takes tokens. What is behind the last layer, final norm, logits and draws, is a stage without layers, `layers..layers`: it
//! belongs to whoever has the tokens. A stage hashes what it takes over and what it passes on under the key of the leaves, which tells it
//! nothing of the text. Results do not depend on where a model is cut.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::energy::Energy;
use crate::engine::EngineError;
use crate::forward::ROWS_MAX;
use crate::generation::{FinishReason, GenerationRequest, TokenLogprobs};
use crate::transcript::Hash;

/// Positions of one call.
pub const STAGE_ROWS_MAX: usize = ROWS_MAX;

/// A stage of one answer in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageId(u64);

impl StageId {
    /// One that nothing else has.
    #[must_use]
    pub fn next() -> StageId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        StageId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a stage computes.
#[derive(Clone, Debug, PartialEq)]
pub struct StagePlan {
    /// Which layers; none, at the end, for final norm and draws.
    pub layers: Range<usize>,
    /// Positions there is to be room for.
    pub positions: usize,
    /// See [`crate::transcript::leaf_key`].
    pub leaf_key: Hash,
    /// What is drawn, by a stage without layers: the request, and which of its choices.
    pub draws: Option<(Box<GenerationRequest>, u32)>,
}

/// What enters a stage: the next positions of its answer.
#[derive(Clone, Debug, PartialEq)]
pub enum StageInput {
    /// Their tokens, for the first stage.
    Tokens(Vec<u32>),
    /// Their states, `[positions][dim]`.
    States(Vec<f32>),
}

/// Something for a stage to do.
pub enum StageJob {
    /// Begins.
    Open {
        /// What it is called from now on.
        id: StageId,
        /// What it computes.
        plan: StagePlan,
        /// Receives [`StageOutput::Open`].
        reply: StageSink,
    },
    /// Goes on.
    Run {
        /// Which one.
        id: StageId,
        /// With these positions.
        input: StageInput,
        /// Receives states, or what was drawn.
        reply: StageSink,
    },
    /// Ends it.
    Close {
        /// Which one.
        id: StageId,
        /// Receives [`StageOutput::Closed`].
        reply: StageSink,
    },
}

impl std::fmt::Debug for StageJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, id) = match self {
            StageJob::Open { id, .. } => ("Open", id),
            StageJob::Run { id, .. } => ("Run", id),
            StageJob::Close { id, .. } => ("Close", id),
        };
        f.debug_tuple(name).field(id).finish()
    }
}

/// Receives what came of a job, on the engine's thread: it must not block. It is dropped where the engine ends before.
pub type StageSink = Box<dyn FnOnce(Result<StageOutput, StageError>) + Send>;

/// What came of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum StageOutput {
    /// It can begin.
    Open,
    /// The states behind its layers, `[positions][dim]`.
    States(Vec<f32>),
    /// What was drawn behind the last position; nothing before the prompt ends.
    Drawn(Option<Drawn>),
    /// It ended.
    Closed(StageEnd),
}

/// A token that was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The token.
    pub token: u32,
    /// Text that it releases.
    pub text: String,
    /// If it was asked for.
    pub logprob: Option<TokenLogprobs>,
    /// If it is the last: why, and text that was held back.
    pub finish: Option<(FinishReason, String)>,
}

/// What a stage leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct StageEnd {
    /// Roots of what it took over, of what each of its layers gave, and, without layers, of the final norm.
    pub roots: Vec<Hash>,
    /// Positions that it computed.
    pub positions: usize,
    /// Energy attributed to it.
    pub energy: Energy,
}

/// Why a stage does not do what it is asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StageError {
    /// There is no memory, or no place, for one more.
    #[error(
        "this node computes {open} stages of answers of others and has no room for one more; try again in a moment"
    )]
    Busy {
        /// Those that are open.
        open: usize,
    },
    /// Layers that this model does not have, or no room for a single position.
    #[error("layers {start} to {end} of a model with {layers}: there are none, or for no positions")]
    Plan {
        /// The first.
        start: usize,
        /// Behind the last.
        end: usize,
        /// The model's.
        layers: usize,
    },
    /// Nothing is called so, or not any more.
    #[error("there is no such stage; it ended, or was never begun")]
    Unknown,
    /// What enters is of another length than positions have, of a token that is none, or more than there is room for.
    #[error("{0}")]
    Input(&'static str),
    /// See [`EngineError`].
    #[error(transparent)]
    Engine(#[from] EngineError),
}
