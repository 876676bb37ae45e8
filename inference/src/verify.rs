//! Re-execution: a claim about a request becomes a verdict.
//!
//! The claimed tokens run through one teacher-forced prefill. At every output position the canonical sampler must draw exactly the claimed token,
//! the choice must end exactly where and why it is claimed to, and the transcript must have the claimed root. No tolerance: the arithmetic
//! is exact, so an honest claim passes on every machine and any other fails.

use std::ops::Range;

use crate::digest::ModelDigest;
use crate::generation::{ChoiceOutcome, FinishReason, GenerationRequest, Outcome, RequestError};
use crate::transcript::{Hash, choice_root, request_root, text_hash};

/// What a node says a request gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The request, with the salt of its transcript.
    pub request: GenerationRequest,
    /// One per choice.
    pub choices: Vec<ClaimedChoice>,
    /// The commitment over all of it.
    pub transcript_root: [u8; 32],
    /// A secret of the one who verifies: with it the verdict brings a transcript root of its own, which follows from nothing but
    /// a whole run.
    pub secret: Option<[u8; 32]>,
}

/// What a node says about one choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedChoice {
    /// Every token drawn, the end token included.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: FinishReason,
}

impl Claim {
    /// The claim that an outcome makes about its request.
    #[must_use]
    pub fn new(request: GenerationRequest, outcome: &Outcome) -> Claim {
        let claimed = |choice: &ChoiceOutcome| ClaimedChoice { tokens: choice.tokens.clone(), finish: choice.finish };
        Claim {
            request,
            choices: outcome.choices.iter().map(claimed).collect(),
            transcript_root: outcome.transcript_root,
            secret: None,
        }
    }

    /// The checks that need no computation.
    pub(crate) fn check(&self, vocab: usize, context: usize) -> Result<(), Reason> {
        self.request.check(vocab, context).map_err(Reason::Request)?;
        if self.choices.len() != self.request.choices as usize {
            return Err(Reason::Choices { asked: self.request.choices, claimed: self.choices.len() });
        }
        for (choice, claimed) in (0_u32..).zip(&self.choices) {
            if claimed.tokens.is_empty() {
                return Err(Reason::Truncated { choice, position: self.position(0) });
            }
            if claimed.tokens.len() > self.request.max_tokens as usize {
                let position = self.position(self.request.max_tokens as usize);
                return Err(Reason::PastEnd { choice, position });
            }
            let unknown = claimed.tokens.iter().position(|&token| token as usize >= vocab);
            if let Some(index) = unknown {
                let position = self.position(index);
                return Err(Reason::UnknownToken { choice, position, token: claimed.tokens[index] });
            }
        }
        Ok(())
    }

    /// Whether these are the roots of the boundaries of every choice that the claimed root is made of.
    #[must_use]
    pub fn binds(&self, model: &ModelDigest, boundary_roots: &[Vec<Hash>]) -> bool {
        let choices = self.choices.iter().zip(boundary_roots).map(|(choice, roots)| {
            let text = text_hash(&self.request.salt, &self.request.prompt, &choice.tokens, choice.finish);
            choice_root(model, roots, &text)
        });
        boundary_roots.len() == self.choices.len()
            && request_root(&choices.collect::<Vec<Hash>>()) == self.transcript_root
    }

    /// The position of the `index`-th output token.
    pub(crate) fn position(&self, index: usize) -> u32 {
        u32::try_from(self.request.prompt.len() + index).unwrap_or(u32::MAX)
    }
}

/// Some layers of one choice, to be run again one after the other, each over all positions, against the roots of their boundaries.
///
/// The first layer includes the embedding, the last one final norm, logits and draws. So what is wrong with a claim is wrong with one layer
/// of it, and where what enters that layer is at hand, nothing else has to be computed to show it.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerClaim {
    /// What is claimed.
    pub claim: Claim,
    /// The choice that is looked at.
    pub choice: u32,
    /// The roots of all of its boundaries, which the claim [`binds`](Claim::binds).
    pub boundary_roots: Vec<Hash>,
    /// The layers.
    pub layers: Range<usize>,
    /// What enters the first of them, `[positions][dim]`. Where that is layer 0: nothing, the tokens do.
    pub states: Vec<f32>,
}

/// What came of running layers again.
#[derive(Clone, Debug, PartialEq)]
pub enum LayerVerdict {
    /// Every one of them gives what is claimed.
    Right,
    /// This one does not.
    Wrong {
        /// The first of them that does not.
        layer: usize,
        /// What enters it, `[positions][dim]`, as the claim has it; nothing for layer 0.
        states: Vec<f32>,
    },
    /// What was said to enter the first of them is not what the claim has there, or the request could never run.
    Foreign,
    /// Nobody decided: it was cancelled.
    Cancelled,
}

/// The end of a verification.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every token is the canonical one, and so is the transcript. With a secret, the root of the transcript under it.
    Valid(Option<[u8; 32]>),
    /// Something is not.
    Invalid(Reason),
    /// Nobody decided: the verification was cancelled.
    Cancelled,
}

/// The first thing that is wrong with a claim. Positions count from the first token of the prompt.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Reason {
    /// The request itself could never have run.
    #[error("the request is not a valid one: {0}")]
    Request(RequestError),
    /// Another number of choices than was asked for.
    #[error("{claimed} choices are claimed, {asked} were asked for")]
    Choices {
        /// By the request.
        asked: u32,
        /// By the claim.
        claimed: usize,
    },
    /// A token outside of the vocabulary.
    #[error("choice {choice}, position {position}: token {token} is not in the vocabulary")]
    UnknownToken {
        /// Which choice.
        choice: u32,
        /// Where.
        position: u32,
        /// The token.
        token: u32,
    },
    /// Another token than the canonical sampler draws.
    #[error("choice {choice}, position {position}: token {claimed} is claimed, {canonical} is drawn")]
    Token {
        /// Which choice.
        choice: u32,
        /// Where.
        position: u32,
        /// By the claim.
        claimed: u32,
        /// By the sampler.
        canonical: u32,
    },
    /// Tokens after the canonical end.
    #[error("choice {choice}, position {position}: the answer ended before this token")]
    PastEnd {
        /// Which choice.
        choice: u32,
        /// Of the first token too many.
        position: u32,
    },
    /// The claim ends before the answer does.
    #[error("choice {choice}, position {position}: the answer goes on here, the claim ends")]
    Truncated {
        /// Which choice.
        choice: u32,
        /// Of the first missing token.
        position: u32,
    },
    /// The right tokens, another reason for the end.
    #[error("choice {choice}: {claimed:?} is claimed as the end, {canonical:?} is right")]
    Finish {
        /// Which choice.
        choice: u32,
        /// By the claim.
        claimed: FinishReason,
        /// By the rules.
        canonical: FinishReason,
    },
    /// The numbers of the model leave binary32 (R1): the canonical result is an error, not a text.
    #[error("choice {choice}, position {position}: the canonical result is an error: a number is not finite")]
    NotFinite {
        /// Which choice.
        choice: u32,
        /// Where.
        position: u32,
    },
    /// Tokens and ends are right, the hidden states are not the canonical ones.
    #[error("the transcript root is not the canonical one")]
    Transcript,
}
