//! What is claimed on chain: who ran which layers of which model, how long it took and what it cost. No prompt, no
//! output, no weights.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::codec::Versioned;
use crate::error::RecordError;
use crate::hash::Domain;
use crate::ids::{Digest, ModelId, NodeId, RecordId, RequestId};
use crate::limits::{RECORD_BYTES_MAX, STAGES_MAX};
use crate::units::{Height, Microjoules, Millis, Timestamp};

/// The claim that a request was answered.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct InferenceRecord {
    /// What it answers.
    pub request_id: RequestId,
    /// Salted commitment to the prompt's token ids; the request's own.
    pub query_hash: Digest,
    /// Salted commitment to the token ids of every choice.
    pub output_hash: Digest,
    /// The model that answered.
    pub model_id: ModelId,
    /// Who ran which layers, in order.
    #[borsh(deserialize_with = "crate::codec::bounded::stages")]
    pub stages: Vec<Stage>,
    /// Energy of all stages.
    pub energy_uj: Microjoules,
    /// Where that number comes from. Measured and estimated energy are never mixed.
    pub energy_source: EnergySource,
    /// From admission to the last token.
    pub latency_ms: Millis,
    /// From admission to the first token.
    pub first_token_ms: Millis,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of all choices.
    pub tokens_generated: u32,
    /// When it was finished, by the clock of the first stage.
    pub timestamp_ms: Timestamp,
    /// What kind of engine ran it.
    pub backend: BackendClass,
    /// Root of the transcript of a canonical run; zero for every other.
    pub transcript_root: Digest,
}

/// A node's share of a run: layers `layer_start..layer_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Stage {
    /// The node.
    pub node_id: NodeId,
    /// Its first layer.
    pub layer_start: u16,
    /// The layer after its last.
    pub layer_end: u16,
}

/// Where a number of energy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum EnergySource {
    /// A meter of the machine.
    Measured = 1,
    /// A model of the machine.
    Estimated = 2,
}

/// What kind of engine ran a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum BackendClass {
    /// Canonical arithmetic: anyone can run it again, bit for bit.
    Canonical = 1,
    /// Another engine: provenance only, no election weight.
    External = 2,
    /// Nothing ran; earns nothing outside a devnet.
    Simulation = 3,
}

/// How far a record has come. The last five are ends.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum RecordStatus {
    /// In a block; earns nothing yet.
    Included = 1,
    /// Auditors found it valid.
    Verified = 2,
    /// Auditors found it false.
    Refuted = 3,
    /// Its provider did not deliver what an audit needs.
    Unavailable = 4,
    /// Was not drawn for an audit, and the challenge window closed.
    Accepted = 5,
    /// Audited by the only validator there is.
    SelfAudited = 6,
}

impl RecordStatus {
    /// All of them, in order.
    pub const ALL: [RecordStatus; 6] = [
        RecordStatus::Included,
        RecordStatus::Verified,
        RecordStatus::Refuted,
        RecordStatus::Unavailable,
        RecordStatus::Accepted,
        RecordStatus::SelfAudited,
    ];

    /// Its name at the doors.
    pub fn name(self) -> &'static str {
        match self {
            RecordStatus::Included => "included",
            RecordStatus::Verified => "verified",
            RecordStatus::Refuted => "refuted",
            RecordStatus::Unavailable => "unavailable",
            RecordStatus::Accepted => "accepted",
            RecordStatus::SelfAudited => "self_audited",
        }
    }
}

/// A record as the chain knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordEntry {
    /// Its id.
    pub id: RecordId,
    /// The claim.
    pub record: InferenceRecord,
    /// How far it has come.
    pub status: RecordStatus,
    /// The block that holds it.
    pub height: Height,
    /// Its place in that block, from 0.
    pub index: u32,
}

impl Versioned for InferenceRecord {
    const NAME: &'static str = "record";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = RECORD_BYTES_MAX;
}

impl InferenceRecord {
    /// Its id: the hash of all of it.
    pub fn id(&self) -> RecordId {
        RecordId::new(*Domain::RECORD.hash(&self.encode()).as_bytes())
    }

    /// Checks the record by itself. What it claims is checked by an audit.
    pub fn check(&self) -> Result<(), RecordError> {
        if !(1..=STAGES_MAX).contains(&self.stages.len()) {
            return Err(RecordError::StageCount { got: self.stages.len() });
        }
        let mut expected = 0;
        for (stage, layers) in self.stages.iter().enumerate() {
            if layers.layer_start >= layers.layer_end {
                return Err(RecordError::StageEmpty { stage });
            }
            if layers.layer_start != expected {
                return Err(RecordError::StageGap { stage, got: layers.layer_start, expected });
            }
            expected = layers.layer_end;
        }
        if self.first_token_ms > self.latency_ms {
            return Err(RecordError::FirstTokenLate { first_token: self.first_token_ms, latency: self.latency_ms });
        }
        if self.prompt_tokens == 0 {
            return Err(RecordError::NoPrompt);
        }
        let is_canonical = self.backend == BackendClass::Canonical;
        if is_canonical == (self.transcript_root == Digest::ZERO) {
            return Err(RecordError::Transcript);
        }
        Ok(())
    }

    /// Layers of all stages together.
    pub fn layers(&self) -> u16 {
        self.stages.last().map_or(0, |stage| stage.layer_end)
    }
}
