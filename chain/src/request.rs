//! What was asked. A request stays off the chain but for its id and the copy inside a proof; it shows commitments, never text.

use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::codec::Versioned;
use crate::error::RequestError;
use crate::hash::Domain;
use crate::ids::{ChainId, Digest, ModelId, NodeId, RequestId};
use crate::limits::{CHOICES_MAX, REQUEST_BYTES_MAX};
use crate::units::{Height, NanoAria};

/// One whole in parts per million.
pub const PPM: u32 = 1_000_000;

/// Candidates that top-k can keep at most: docs/arithmetic.md, R13.
pub const TOP_K_MAX: u32 = 1_024;

/// A requester's order: model, prompt, sampling, price and how long it stands.
///
/// Sampling parameters are integers in parts per million, so that every node reads the same numbers. Everything that
/// decides which tokens come out is bound here, and so is the seed: a provider chooses nothing.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct InferenceRequest {
    /// The chain on which it counts.
    pub chain_id: ChainId,
    /// The model asked for.
    pub model_id: ModelId,
    /// Salted commitment to the prompt's token ids.
    pub prompt_commitment: Digest,
    /// Temperature; 0 takes the likeliest token.
    pub temperature_ppm: u32,
    /// Nucleus: keep the likeliest tokens up to this much probability.
    pub top_p_ppm: u32,
    /// Keep this many candidates; 0 = the default of the arithmetic.
    pub top_k: u32,
    /// Drop candidates below this share of the likeliest one's probability.
    pub min_p_ppm: u32,
    /// Factor on tokens that came before; one million = off.
    pub repetition_penalty_ppm: u32,
    /// Subtracted from the logit of every token that came before.
    pub presence_penalty_ppm: i32,
    /// Subtracted from a token's logit for each time it came before.
    pub frequency_penalty_ppm: i32,
    /// Salted commitment to the logit bias.
    pub logit_bias_commitment: Digest,
    /// Seed of the sampler.
    pub seed: u64,
    /// Answers wanted.
    pub choices: u8,
    /// Most tokens of one answer.
    pub max_tokens: u32,
    /// Salted commitment to the stop strings.
    pub stop_commitment: Digest,
    /// What kind of task it is, for consent.
    pub task_type: TaskType,
    /// Who may see its tokens afterwards.
    pub audit: AuditMode,
    /// Most that the requester pays.
    pub max_fee: NanoAria,
    /// Who asks. Signs the request, and later the receipt.
    pub requester: NodeId,
    /// Makes two otherwise equal requests differ.
    pub nonce: u64,
    /// Last height at which its record can be included.
    pub expiry: Height,
}

/// Kind of a task. Nodes consent to kinds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum TaskType {
    /// Not told.
    #[serde(rename = "any")]
    Any = 0,
    /// Text.
    #[serde(rename = "text_gen", alias = "text_generation")]
    TextGeneration = 1,
    /// Program text.
    #[serde(rename = "code_gen", alias = "code_generation")]
    CodeGeneration = 2,
    /// A shorter text of the same meaning.
    #[serde(rename = "summarization")]
    Summarization = 3,
    /// The same text in another language.
    #[serde(rename = "translation")]
    Translation = 4,
    /// A vector.
    #[serde(rename = "embedding")]
    Embedding = 5,
}

impl TaskType {
    /// Every kind.
    pub const ALL: [TaskType; 6] = [
        TaskType::Any,
        TaskType::TextGeneration,
        TaskType::CodeGeneration,
        TaskType::Summarization,
        TaskType::Translation,
        TaskType::Embedding,
    ];

    /// Its canonical name.
    pub fn name(self) -> &'static str {
        match self {
            TaskType::Any => "any",
            TaskType::TextGeneration => "text_gen",
            TaskType::CodeGeneration => "code_gen",
            TaskType::Summarization => "summarization",
            TaskType::Translation => "translation",
            TaskType::Embedding => "embedding",
        }
    }
}

impl FromStr for TaskType {
    type Err = ();

    /// The canonical name, or one of those in which older nodes say it.
    fn from_str(text: &str) -> Result<TaskType, ()> {
        let name = match text {
            "text_generation" => "text_gen",
            "code_generation" => "code_gen",
            other => other,
        };
        TaskType::ALL.into_iter().find(|task| task.name() == name).ok_or(())
    }
}

/// Who may see the tokens of a request and its answer, besides the nodes that compute it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum AuditMode {
    /// The auditors that are drawn for its record.
    #[default]
    Committee = 1,
    /// Nobody. Its record is provenance only, and earns nothing.
    None = 2,
}

impl Versioned for InferenceRequest {
    const NAME: &'static str = "request";
    const VERSION: u8 = 2;
    const BYTES_MAX: usize = REQUEST_BYTES_MAX;
}

impl InferenceRequest {
    /// Its id: the hash of all of it.
    pub fn id(&self) -> RequestId {
        RequestId::new(*Domain::REQUEST.hash(&self.encode()).as_bytes())
    }

    /// Checks every field by itself.
    pub fn check(&self) -> Result<(), RequestError> {
        let two = i64::from(2 * PPM);
        let one = i64::from(PPM);
        let ranges = [
            ("temperature_ppm", i64::from(self.temperature_ppm), 0, two),
            ("top_p_ppm", i64::from(self.top_p_ppm), 0, one),
            ("top_k", i64::from(self.top_k), 0, i64::from(TOP_K_MAX)),
            ("min_p_ppm", i64::from(self.min_p_ppm), 0, one),
            ("repetition_penalty_ppm", i64::from(self.repetition_penalty_ppm), 1, 10 * one),
            ("presence_penalty_ppm", i64::from(self.presence_penalty_ppm), -two, two),
            ("frequency_penalty_ppm", i64::from(self.frequency_penalty_ppm), -two, two),
        ];
        for (field, got, min, max) in ranges {
            if !(min..=max).contains(&got) {
                return Err(RequestError::Range { field, got, min, max });
            }
        }
        if !(1..=CHOICES_MAX).contains(&self.choices) {
            return Err(RequestError::Choices { got: self.choices });
        }
        if self.max_tokens == 0 {
            return Err(RequestError::NoTokens);
        }
        Ok(())
    }

    /// Most tokens of all answers together.
    pub fn tokens_max(&self) -> u64 {
        u64::from(self.choices) * u64::from(self.max_tokens)
    }
}
