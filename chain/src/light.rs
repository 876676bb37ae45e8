//! Proof that a record is final, for who has no chain: a phone, a page, a script.
//!
//! Who trusts a validator set (from the genesis file, or by its hash) needs nothing else: the record's place in the tree of a
//! block, the block's header, and the precommits of more than two thirds of that set.

use serde::{Deserialize, Serialize};

use crate::block::{Header, verify_certificate};
use crate::certificate::{CommitCertificate, ValidatorSet};
use crate::codec::Versioned;
use crate::error::{CertificateError, CodecError};
use crate::ids::{BlockHash, ChainId, Digest, RecordId};
use crate::merkle::{MerkleError, RecordProof};
use crate::units::Height;

/// Longest text of a light proof: hex of the largest set, certificate and header, and the path.
pub const LIGHT_PROOF_BYTES_MAX: usize = 64 * 1_024;

/// What the verifier knows beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// The chain.
    pub chain_id: ChainId,
    /// Hash of a validator set of it.
    pub set_hash: Digest,
}

/// A record's proof. Its JSON is what doors hand out: hex of the values' own encodings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LightProof {
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
        "the proof is by validator set {got}, {expected} is trusted; sets change, so take a newer trusted hash from somebody you trust"
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
    /// Puts a proof together.
    pub fn new(
        record_proof: RecordProof,
        header: &Header,
        certificate: &CommitCertificate,
        validators: &ValidatorSet,
    ) -> LightProof {
        LightProof {
            record_proof,
            header: hex::encode(header.encode()),
            certificate: hex::encode(certificate.encode()),
            validators: hex::encode(validators.encode()),
        }
    }

    /// Checks every hash and signature, from what is trusted down to the record.
    pub fn verify(&self, trusted: &Trusted) -> Result<ProvenRecord, LightError> {
        let set: ValidatorSet = decode("validators", &self.validators)?;
        let header: Header = decode("header", &self.header)?;
        let certificate: CommitCertificate = decode("certificate", &self.certificate)?;
        if header.chain_id != trusted.chain_id {
            return Err(LightError::Chain { got: header.chain_id, expected: trusted.chain_id.clone() });
        }
        let got = set.hash();
        if got != trusted.set_hash {
            return Err(LightError::Set { got, expected: trusted.set_hash });
        }
        let block_hash = header.hash();
        let power = verify_certificate(&header, &block_hash, &certificate, &set)?;
        self.record_proof.verify()?;
        let (height, index, record_id) = self.record_proof.claim()?;
        if self.record_proof.root != header.records_root {
            return Err(LightError::Root { got: self.record_proof.root, expected: header.records_root });
        }
        if height != header.height {
            return Err(LightError::Height { got: height, expected: header.height });
        }
        Ok(ProvenRecord { record_id, index, height, block_hash, power: (power, set.total_power()) })
    }
}

fn decode<T: Versioned>(part: &'static str, text: &str) -> Result<T, LightError> {
    if text.len() > 2 * T::BYTES_MAX {
        return Err(CodecError::TooLong { name: T::NAME, got: text.len() / 2, max: T::BYTES_MAX }.into());
    }
    let bytes = hex::decode(text).map_err(|_| LightError::Hex { part })?;
    Ok(T::decode(&bytes)?)
}
