//! Proof that a record is final, for who has no chain: a phone, a page, a script.
//!
//! Who trusts a validator set (from the genesis file, or by its hash) needs nothing else: a final header at every change of
//! the set, each naming the set that follows; the record's place in the tree of a block; that block's header, and the
//! precommits of more than two thirds of its set.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::block::{Header, verify_certificate};
use crate::certificate::{CommitCertificate, ValidatorSet};
use crate::codec::Versioned;
use crate::error::{CertificateError, CodecError};
use crate::ids::{BlockHash, ChainId, Digest, RecordId};
use crate::limits::{CERTIFICATE_BYTES_MAX, HEADER_BYTES_MAX, VALIDATOR_SET_BYTES_MAX};
use crate::merkle::{MerkleError, RecordProof};
use crate::store::{Store, StoreError};
use crate::units::Height;

/// Changes of the set in one proof. Who is further behind takes several: the set that one ends with is trusted next.
pub const LIGHT_STEPS_MAX: usize = 64;

/// Longest text of a light proof: hex of the largest sets, certificates and headers, and the path.
pub const LIGHT_PROOF_BYTES_MAX: usize = 2 * (LIGHT_STEPS_MAX + 1) * STEP_BYTES_MAX + 16 * 1_024;

const STEP_BYTES_MAX: usize = HEADER_BYTES_MAX + CERTIFICATE_BYTES_MAX + VALIDATOR_SET_BYTES_MAX + 64;

/// What the verifier knows beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// The chain.
    pub chain_id: ChainId,
    /// Hash of a validator set of it.
    pub set_hash: Digest,
}

/// A header with all that shows to be final who trusts its set.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FinalHeader {
    /// The header.
    pub header: Header,
    /// Why it is final.
    pub certificate: CommitCertificate,
    /// Who voted on it.
    pub validators: ValidatorSet,
}

impl FinalHeader {
    /// The header of a height as a store has it, if it has it.
    pub fn of(store: &dyn Store, height: Height) -> Result<Option<FinalHeader>, StoreError> {
        let (Some(header), Some(certificate)) = (store.header(height)?, store.certificate(height)?) else {
            return Ok(None);
        };
        let validators = store.validators(&header.validators_hash)?;
        Ok(validators.map(|validators| FinalHeader { header, certificate, validators }))
    }

    /// Whether the trusted set made it final: the power that signed it and the power of all.
    pub fn check(&self, trusted: &Trusted) -> Result<(u64, u64), LightError> {
        let FinalHeader { header, certificate, validators } = self;
        if header.chain_id != trusted.chain_id {
            return Err(LightError::Chain { got: header.chain_id.clone(), expected: trusted.chain_id.clone() });
        }
        let got = validators.hash();
        if got != trusted.set_hash {
            return Err(LightError::Set { got, expected: trusted.set_hash });
        }
        let power = verify_certificate(header, &header.hash(), certificate, validators)?;
        Ok((power, validators.total_power()))
    }
}

/// The headers from `trusted` to below `height` after which another set votes, at most `limit`. Sets change where epochs end.
pub fn set_changes(
    store: &dyn Store,
    (trusted, height): (Height, Height),
    epoch_blocks: u64,
    limit: usize,
) -> Result<Vec<FinalHeader>, StoreError> {
    let epoch = epoch_blocks.max(1);
    let first = trusted.get() - trusted.get() % epoch + (epoch - 1);
    let mut changes = Vec::new();
    for last_of_epoch in (first..height.get()).step_by(usize::try_from(epoch).unwrap_or(usize::MAX)) {
        let Some(header) = store.header(Height::new(last_of_epoch))? else { continue };
        if header.validators_hash == header.next_validators_hash {
            continue;
        }
        if changes.len() == limit {
            break;
        }
        changes.extend(FinalHeader::of(store, header.height)?);
    }
    Ok(changes)
}

/// A final header: hex of the values' own encodings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LightStep {
    /// The header.
    pub header: String,
    /// Why it is final.
    pub certificate: String,
    /// Who voted on it.
    pub validators: String,
}

/// A record's proof. Its JSON is what doors hand out: hex of the values' own encodings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LightProof {
    /// Headers that name another set than their own as the next, ascending: from the trusted set to the block's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<LightStep>,
    /// The record's place in the tree of its block.
    pub record_proof: RecordProof,
    /// The block's header, in hex.
    pub header: String,
    /// Why the block is final, in hex.
    pub certificate: String,
    /// Who voted on it, in hex.
    pub validators: String,
}

/// What a light proof proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenRecord {
    /// The record.
    pub record_id: RecordId,
    /// Its place in its block.
    pub index: u32,
    /// The block.
    pub height: Height,
    /// Its hash.
    pub block_hash: BlockHash,
    /// Power that signed it, and power of all.
    pub power: (u64, u64),
}

/// Why a light proof proves nothing. One variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LightError {
    /// A part is not hex.
    #[error("{part} is not hex")]
    Hex {
        /// Which.
        part: &'static str,
    },
    /// A part cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// There are too many headers.
    #[error("the proof has {got} changes of the set, at most {LIGHT_STEPS_MAX} are allowed")]
    TooManySteps {
        /// How many there are.
        got: usize,
    },
    /// Headers ascend.
    #[error("a header of height {got} follows one of height {before}")]
    Order {
        /// Of the header.
        got: Height,
        /// Of the one before it.
        before: Height,
    },
    /// The header is of another chain.
    #[error("the proof is of chain {got}, {expected} is trusted")]
    Chain {
        /// As the header says.
        got: ChainId,
        /// As trusted.
        expected: ChainId,
    },
    /// The set is another one.
    #[error(
        "a header is by validator set {got}, {expected} is trusted there; ask for the proof from the height of the set that you trust"
    )]
    Set {
        /// Hash of the set in the proof.
        got: Digest,
        /// As trusted.
        expected: Digest,
    },
    /// The certificate does not make the block final.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The path does not lead to the root that it names.
    #[error(transparent)]
    Merkle(#[from] MerkleError),
    /// The path leads to another root than the header's.
    #[error("the record's path leads to {got}, the header has records root {expected}")]
    Root {
        /// Of the path.
        got: Digest,
        /// Of the header.
        expected: Digest,
    },
    /// The path is of another block.
    #[error("the record's row names height {got}, the header is of height {expected}")]
    Height {
        /// In the row.
        got: Height,
        /// Of the header.
        expected: Height,
    },
}

impl LightProof {
    /// Puts a proof together, the last step being the block of the record.
    pub fn new(steps: Vec<LightStep>, record_proof: RecordProof, last: LightStep) -> LightProof {
        let LightStep { header, certificate, validators } = last;
        LightProof { steps, record_proof, header, certificate, validators }
    }

    /// Checks every hash and signature, from what is trusted down to the record.
    pub fn verify(&self, trusted: &Trusted) -> Result<ProvenRecord, LightError> {
        if self.steps.len() > LIGHT_STEPS_MAX {
            return Err(LightError::TooManySteps { got: self.steps.len() });
        }
        let (mut trusted, mut before) = (trusted.clone(), Height::ZERO);
        for step in &self.steps {
            let (header, _) = final_header(&step.header, &step.certificate, &step.validators, &trusted)?;
            if header.height <= before {
                return Err(LightError::Order { got: header.height, before });
            }
            (trusted.set_hash, before) = (header.next_validators_hash, header.height);
        }
        let (header, power) = final_header(&self.header, &self.certificate, &self.validators, &trusted)?;
        if header.height <= before {
            return Err(LightError::Order { got: header.height, before });
        }
        self.record_proof.verify()?;
        let (height, index, record_id) = self.record_proof.claim()?;
        if self.record_proof.root != header.records_root {
            return Err(LightError::Root { got: self.record_proof.root, expected: header.records_root });
        }
        if height != header.height {
            return Err(LightError::Height { got: height, expected: header.height });
        }
        Ok(ProvenRecord { record_id, index, height, block_hash: header.hash(), power })
    }
}

impl From<&FinalHeader> for LightStep {
    fn from(step: &FinalHeader) -> LightStep {
        LightStep {
            header: hex::encode(step.header.encode()),
            certificate: hex::encode(step.certificate.encode()),
            validators: hex::encode(step.validators.encode()),
        }
    }
}

/// A header that the trusted set made final, with the power that signed it and the power of all.
fn final_header(
    header: &str,
    certificate: &str,
    validators: &str,
    trusted: &Trusted,
) -> Result<(Header, (u64, u64)), LightError> {
    let step = FinalHeader {
        validators: decode("validators", validators)?,
        header: decode("header", header)?,
        certificate: decode("certificate", certificate)?,
    };
    let power = step.check(trusted)?;
    Ok((step.header, power))
}

fn decode<T: Versioned>(part: &'static str, text: &str) -> Result<T, LightError> {
    if text.len() > 2 * T::BYTES_MAX {
        return Err(CodecError::TooLong { name: T::NAME, got: text.len() / 2, max: T::BYTES_MAX }.into());
    }
    let bytes = hex::decode(text).map_err(|_| LightError::Hex { part })?;
    Ok(T::decode(&bytes)?)
}
