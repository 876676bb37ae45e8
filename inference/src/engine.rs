//! A loaded model with everything needed to run it: weights, kernels, threads, tokenizer, chat template.

use std::num::NonZeroUsize;

use crate::arith::ARITHMETIC_VERSION;
use crate::arith::mode::FloatModeError;
use crate::backend::ModelInfo;
use crate::chat::{ChatError, ChatTemplate};
use crate::digest::{self, DigestError, ModelDigest};
use crate::forward::{FaultCode, LOGIT_ROWS_MAX, Observe, Row, Runner, Scores, Wants};
use crate::gguf::{Gguf, GgufError};
use crate::hyper::Hyper;
use crate::kernels::self_test::{SelfTestError, self_test};
use crate::kernels::{KernelError, KernelKind, Kernels};
use crate::model::{Model, ModelError};
use crate::pool::{Pool, PoolError, THREADS_MAX};
use crate::session::Session;
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::transcript::Hash;

/// Most choices computed together: each may want logits in the same pass.
pub const SESSIONS_MAX: usize = LOGIT_ROWS_MAX;
/// Most requests that may wait. Beyond, the last would wait for minutes.
pub const QUEUE_MAX: usize = 4096;

/// How a model is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Threads of a forward pass, `1..=THREADS_MAX`.
    pub threads: usize,
    /// A kernel path, or the best of this CPU.
    pub kernel: Option<KernelKind>,
    /// Requests that may wait, `1..=QUEUE_MAX`.
    pub queue_max: usize,
    /// Choices computed together, `1..=SESSIONS_MAX`.
    pub sessions_max: usize,
    /// Bytes of all caches together.
    pub kv_bytes_max: u64,
    /// Bytes of ended sessions that are kept, so that a request with the same beginning starts behind it. 0 keeps none.
    pub prefix_bytes_max: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            threads: std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX),
            kernel: None,
            queue_max: 64,
            sessions_max: 16,
            kv_bytes_max: 2 << 30,
            prefix_bytes_max: 256 << 20,
        }
    }
}

/// A model that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Its tensors.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Its chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// Its digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The kernel path.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The threads.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The kernels compute something else than the canonical arithmetic.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    /// An option out of range.
    #[error("{option}: must be between {least} and {most}, not {value}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What it was.
        value: u64,
        /// Least allowed.
        least: u64,
        /// Greatest allowed.
        most: u64,
    },
}

/// A request that began and could not be finished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// R1: a number stopped being finite. Canonical: an auditor finds the same.
    #[error(
        "the model's numbers left the range of binary32 at position {position}, layer {layer} ({code:?}); this prompt has no answer"
    )]
    NotFinite {
        /// First position concerned.
        position: u32,
        /// First layer concerned there.
        layer: u32,
        /// First step concerned there.
        code: FaultCode,
    },
    /// R1: a thread's float environment was changed.
    #[error(transparent)]
    FloatMode(#[from] FloatModeError),
    /// Several nodes gave the answer, and could not end it.
    #[error("the nodes that give this answer together could not end it: {0}; ask again")]
    Stages(String),
    /// The engine ended before the request did.
    #[error("the engine stopped before the request was finished")]
    Stopped,
}

/// A model ready to compute. One thread owns it; see [`crate::backend::builtin`] for the shared form.
#[derive(Debug)]
pub struct Engine {
    model: Model,
    runner: Runner,
    tokenizer: Tokenizer,
    chat: Option<ChatTemplate>,
    info: ModelInfo,
    options: EngineOptions,
}

impl Engine {
    /// Loads a model: repacks its weights, starts the threads, and tests the kernels.
    pub fn load(gguf: &Gguf, options: &EngineOptions) -> Result<Engine, LoadError> {
        check_range("sessions_max", options.sessions_max as u64, 1, SESSIONS_MAX as u64)?;
        check_range("queue_max", options.queue_max as u64, 1, QUEUE_MAX as u64)?;
        let kernels = match options.kernel {
            Some(kind) => Kernels::forced(kind)?,
            None => Kernels::detect(),
        };
        self_test(&kernels)?;
        let pool = Pool::new(options.threads)?;
        let threads = NonZeroUsize::new(options.threads).unwrap_or(NonZeroUsize::MIN);

        let hyper = Hyper::from_gguf(gguf)?;
        let tokenizer = Tokenizer::from_gguf(gguf)?;
        let chat = ChatTemplate::from_gguf(gguf)?;
        let digest = digest::model_digest(gguf)?;
        let context = context(&hyper, options)?;
        let model = Model::load(gguf, hyper, context, threads)?;
        let info = info(&model, digest, &kernels, options);
        let runner = Runner::new(kernels, pool);
        Ok(Engine { model, runner, tokenizer, chat, info, options: options.clone() })
    }

    /// What is loaded.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Runs on another number of threads from now on. Results do not change.
    ///
    /// # Errors
    /// If that many threads cannot be started; then nothing changed.
    pub fn set_threads(&mut self, threads: usize) -> Result<(), PoolError> {
        self.runner = Runner::new(*self.runner.kernels(), Pool::new(threads)?);
        (self.info.threads, self.options.threads) = (threads, threads);
        Ok(())
    }

    /// Gives running requests this much memory for their caches from now on. The longest request stays what it was at the start.
    pub fn set_kv_bytes_max(&mut self, bytes: u64) {
        self.options.kv_bytes_max = bytes;
    }

    /// The options it was loaded with.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// The model's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The model's chat template, if it has one.
    #[must_use]
    pub fn chat(&self) -> Option<&ChatTemplate> {
        self.chat.as_ref()
    }

    /// The weights.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The same, with a second transcript under a secret.
    #[must_use]
    pub fn witnessed_session(&self, capacity: usize, salt: Hash, secret: Option<Hash>) -> Session {
        self.session(capacity, Some(salt)).with_witness(self.model.kv_shape(), secret)
    }

    /// An empty session with room for `capacity` positions; with a salt it keeps a transcript.
    #[must_use]
    pub fn session(&self, capacity: usize, salt: Option<Hash>) -> Session {
        Session::new(self.model.kv_shape(), capacity, salt)
    }

    /// Computes one batch; see [`Runner::forward`] for what it demands.
    pub fn forward(&mut self, sessions: &mut [Session], rows: &[Row]) {
        self.runner.forward(&self.model, sessions, rows, None);
    }

    /// One stage of a pipeline; see [`Runner::forward_stage`] for what it takes and demands. Returns the states for the next stage.
    pub fn forward_stage(
        &mut self,
        sessions: &mut [Session],
        rows: &[Row],
        layers: std::ops::Range<usize>,
        states: Option<&[f32]>,
    ) -> &[f32] {
        self.runner.forward_stage(&self.model, sessions, rows, layers, states);
        self.runner.states()
    }

    /// As `forward`, showing the residual stream at every boundary.
    pub fn forward_observed(&mut self, sessions: &mut [Session], rows: &[Row], observe: &mut dyn Observe) {
        self.runner.forward(&self.model, sessions, rows, Some(observe));
    }

    /// All logits of the `index`-th row of the last batch that wanted some.
    ///
    /// # Panics
    /// If there is no such row, or it did not want all.
    #[must_use]
    pub fn logits(&self, index: usize) -> &[f32] {
        self.runner.logits(&self.model, index)
    }

    /// What is known of the logits of the `index`-th row of the last batch that wanted some.
    pub fn scores(&mut self, index: usize) -> Scores<'_> {
        self.runner.scores(&self.model, index)
    }

    /// Feeds `tokens` to one session, wanting these logits of the last. The first fault is the canonical one.
    pub fn feed(&mut self, session: &mut Session, tokens: &[u32], wants: Wants) -> Result<(), EngineError> {
        let chunks = tokens.chunks(crate::forward::ROWS_MAX).count();
        for (index, chunk) in tokens.chunks(crate::forward::ROWS_MAX).enumerate() {
            let start = session.position();
            let rows: Vec<Row> = chunk
                .iter()
                .enumerate()
                .map(|(offset, &token)| Row {
                    session: 0,
                    token,
                    position: start + offset,
                    wants: if index + 1 == chunks && offset + 1 == chunk.len() { wants } else { Wants::NOTHING },
                })
                .collect();
            self.forward(std::slice::from_mut(session), &rows);
            self.first_fault(&rows, 0..rows.len()).map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// The first fault among some rows of the last batch. For rows of one session it is the canonical one, since they are in order.
    #[must_use]
    pub fn first_fault(&self, rows: &[Row], range: std::ops::Range<usize>) -> Option<EngineError> {
        range.into_iter().find_map(|index| {
            let fault = self.runner.faults()[index]?;
            let position = u32::try_from(rows[index].position).unwrap_or(u32::MAX);
            Some(EngineError::NotFinite { position, layer: fault.layer, code: fault.code })
        })
    }

    /// R1, before a result is signed: every thread still computes as it should.
    pub fn check_float_mode(&mut self) -> Result<(), FloatModeError> {
        self.runner.pool().check_float_mode()
    }

    /// The kernel functions in use.
    #[must_use]
    pub fn kernels(&self) -> &Kernels {
        self.runner.kernels()
    }
}

fn check_range(option: &'static str, value: u64, least: u64, most: u64) -> Result<(), LoadError> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(LoadError::Option { option, value, least, most }) }
}

/// Positions a session may have: the model's, or as many as the cache memory holds.
fn context(hyper: &Hyper, options: &EngineOptions) -> Result<usize, LoadError> {
    let shape = crate::kv_cache::KvShape { layers: hyper.layers, kv_heads: hyper.kv_heads, head_dim: hyper.head_dim };
    let per_position = shape.bytes_per_position().max(1) as u64;
    let fits = usize::try_from(options.kv_bytes_max / per_position).unwrap_or(usize::MAX);
    check_range("kv_bytes_max", options.kv_bytes_max, 2 * per_position, u64::MAX)?;
    Ok(hyper.context.min(fits))
}

fn info(model: &Model, digest: ModelDigest, kernels: &Kernels, options: &EngineOptions) -> ModelInfo {
    ModelInfo {
        name: model.hyper.name.clone(),
        digest,
        hyper: model.hyper.clone(),
        context: model.context,
        kernel: kernels.kind,
        threads: options.threads,
        arithmetic: ARITHMETIC_VERSION,
        weight_bytes: model.size_bytes(),
    }
}
