//! One request: what is asked, what comes back while it runs, and what it ends with.

pub mod logprobs;
pub mod text;

use crate::energy::Energy;
use crate::engine::EngineError;
use crate::sampler::{Sampling, SamplingError};
use crate::transcript::Hash;

/// Choices of one request. They share the prompt's prefill, and each holds a cache of its own.
pub const CHOICES_MAX: u32 = 16;
/// Stop strings of one request. OpenAI allows four; other clients send more.
pub const STOPS_MAX: usize = 16;
/// Bytes of one stop string: it bounds the text that is held back.
pub const STOP_BYTES_MAX: usize = 256;
/// Alternatives reported per token, OpenAI's limit.
pub const TOP_LOGPROBS_MAX: u8 = 20;

/// A prompt and how to continue it. Everything here is bound by the request, nothing is chosen by the node but the salt.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationRequest {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// Independent continuations of the one prompt, `1..=CHOICES_MAX`.
    pub choices: u32,
    /// Most tokens per choice, at least one. Prompt and this together fit the model's context.
    pub max_tokens: u32,
    /// A choice ends where its text contains one of these. They never appear in the text.
    pub stop: Vec<String>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// `Some(n)`: report the logarithm of each token's probability, and of the `n` likeliest.
    pub logprobs: Option<u8>,
    /// Key of the transcript's leaves. Secret of node and auditors: it hides hidden states, which would reveal text.
    pub salt: [u8; 32],
}

/// A request that can never run, whatever the load.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// There is nothing to continue.
    #[error("prompt: has no tokens; send at least one")]
    EmptyPrompt,
    /// A token id outside of the vocabulary.
    #[error("prompt: token id {token} at index {index} is not below the vocabulary size {vocab}")]
    UnknownToken {
        /// The id.
        token: u32,
        /// Where in the prompt.
        index: usize,
        /// The model's vocabulary size.
        vocab: usize,
    },
    /// Prompt and answer together do not fit the model.
    #[error(
        "This model's maximum context length is {context} tokens. However, you requested {requested} tokens \
         ({prompt} in the messages, {completion} in the completion)."
    )]
    TooLong {
        /// The model's limit.
        context: usize,
        /// Prompt and completion together.
        requested: usize,
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        completion: usize,
    },
    /// `choices` outside of its range.
    #[error("n: must be between 1 and {CHOICES_MAX}, not {0}")]
    Choices(u32),
    /// `max_tokens` is zero.
    #[error("max_tokens: must be at least 1")]
    MaxTokens,
    /// Too many stop strings.
    #[error("stop: at most {STOPS_MAX} strings, not {0}")]
    Stops(usize),
    /// A stop string that is empty or too long.
    #[error("stop[{index}]: must be 1 to {STOP_BYTES_MAX} bytes long, not {size_bytes}")]
    Stop {
        /// Which one.
        index: usize,
        /// Its length.
        size_bytes: usize,
    },
    /// Too many alternatives per token.
    #[error("top_logprobs: must be at most {TOP_LOGPROBS_MAX}, not {0}")]
    Logprobs(u8),
    /// The caches of all choices together exceed what the node gives to one request.
    #[error(
        "n: {choices} choices of this length need {needed_bytes} bytes of cache, {limit_bytes} are there; ask for fewer or shorter ones"
    )]
    Memory {
        /// Asked for.
        choices: u32,
        /// Bytes they need.
        needed_bytes: u64,
        /// Bytes there are.
        limit_bytes: u64,
    },
    /// More choices than the node computes together.
    #[error("n: this node computes at most {limit} choices together, not {choices}")]
    Sessions {
        /// Asked for.
        choices: u32,
        /// Possible.
        limit: usize,
    },
    /// A sampling parameter outside of its range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}

impl RequestError {
    /// The request's field that has to change, as OpenAI's API names it.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            RequestError::EmptyPrompt | RequestError::UnknownToken { .. } | RequestError::TooLong { .. } => "prompt",
            RequestError::Choices(_) | RequestError::Memory { .. } | RequestError::Sessions { .. } => "n",
            RequestError::MaxTokens => "max_tokens",
            RequestError::Stops(_) | RequestError::Stop { .. } => "stop",
            RequestError::Logprobs(_) => "top_logprobs",
            RequestError::Sampling(error) => error.field(),
        }
    }
}

impl GenerationRequest {
    /// Checks every field against its range and the model's vocabulary and context.
    pub fn check(&self, vocab: usize, context: usize) -> Result<(), RequestError> {
        if self.prompt.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        if let Some((index, &token)) = self.prompt.iter().enumerate().find(|&(_, &t)| t as usize >= vocab) {
            return Err(RequestError::UnknownToken { token, index, vocab });
        }
        if !(1..=CHOICES_MAX).contains(&self.choices) {
            return Err(RequestError::Choices(self.choices));
        }
        if self.max_tokens == 0 {
            return Err(RequestError::MaxTokens);
        }
        let (prompt, completion) = (self.prompt.len(), self.max_tokens as usize);
        let requested = prompt + completion;
        if requested > context {
            return Err(RequestError::TooLong { context, requested, prompt, completion });
        }
        if self.stop.len() > STOPS_MAX {
            return Err(RequestError::Stops(self.stop.len()));
        }
        if let Some((index, s)) = self.stop.iter().enumerate().find(|(_, s)| s.is_empty() || s.len() > STOP_BYTES_MAX) {
            return Err(RequestError::Stop { index, size_bytes: s.len() });
        }
        if let Some(count) = self.logprobs.filter(|&n| n > TOP_LOGPROBS_MAX) {
            return Err(RequestError::Logprobs(count));
        }
        self.sampling.check(vocab)?;
        Ok(())
    }

    /// Positions one choice occupies at most: the last token is drawn, never fed back.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.prompt.len() + self.max_tokens as usize - 1
    }
}

/// Why a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended its turn, or a stop string appeared.
    Stop,
    /// `max_tokens` were drawn.
    Length,
    /// The request was cancelled: not a canonical end, and never part of a record.
    Cancelled,
}

/// The logarithm of a token's probability under the model's own distribution (before penalties and temperature).
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the token that was drawn.
    pub logprob: f32,
    /// The likeliest tokens and theirs, in the order of R12; as many as the request asked for.
    pub top: Vec<(u32, f32)>,
}

/// What a running request tells, in order. The last is `Done` or `Failed`, exactly one of them.
#[derive(Clone, Debug)]
pub enum Event {
    /// The request left the queue.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: u32,
    },
    /// One more token of a choice.
    Token {
        /// Which choice.
        choice: u32,
        /// The token drawn.
        token: u32,
        /// Text released by it: may be empty while a character is incomplete or a stop string may be beginning.
        text: String,
        /// If asked for.
        logprob: Option<TokenLogprobs>,
    },
    /// A choice ended.
    ChoiceDone {
        /// Which choice.
        choice: u32,
        /// Why.
        finish: FinishReason,
        /// Text that had been held back and is not part of a stop string.
        text: String,
    },
    /// All choices ended, or the request was cancelled (then [`Outcome::cancelled`]).
    Done(Box<Outcome>),
    /// The request ended without a result.
    Failed(EngineError),
}

/// One finished continuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceOutcome {
    /// Every token drawn, the end token included.
    pub tokens: Vec<u32>,
    /// Their text, without end token and stop string. Equal to the texts of the events joined.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// Roots of the transcript's boundaries, of which the outcome's root is made. None where there is no transcript.
    pub boundary_roots: Vec<Hash>,
}

/// The result of a request, with what a record needs.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One per choice, in order.
    pub choices: Vec<ChoiceOutcome>,
    /// The commitment of `docs/proof.md` over all choices. Meaningless if `cancelled`.
    pub transcript_root: [u8; 32],
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the prompt that an earlier request had computed.
    pub cached_tokens: u32,
    /// Tokens drawn over all choices.
    pub generated_tokens: u32,
    /// From leaving the queue to the first token.
    pub first_token_ms: u32,
    /// From leaving the queue to the end.
    pub total_ms: u32,
    /// From leaving the queue to the last prompt token.
    pub prefill_ms: u32,
    /// Processor time of the engine's threads attributed to this request by its share of the computed rows.
    pub cpu_us: u64,
    /// Energy attributed to this request in the same way.
    pub energy: Energy,
    /// The caller cancelled: the texts are what was there by then.
    pub cancelled: bool,
}
