//! What auditors say of records: first a commitment to a verdict, then its opening, so that nobody copies another's.
//!
//! One attestation speaks of several records of one block. Who was drawn as an auditor, and what follows from verdicts, is
//! runtime's business.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;

use crate::codec::Versioned;
use crate::error::AttestationError;
use crate::hash::Domain;
use crate::ids::{AttestationId, ChainId, Digest, NodeId, RecordId};
use crate::keys::{self, Signature};
use crate::limits::{ATTESTATION_BYTES_MAX, ATTESTATION_ITEMS_MAX};
use crate::units::Height;

/// What an auditor found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize, Serialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every token and every hidden state is the canonical one.
    Valid = 1,
    /// Something is not.
    Invalid = 2,
    /// The provider did not deliver what an audit needs.
    Missing = 3,
}

/// A verdict, and what shows that its author computed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Opening {
    /// The auditor's fresh secret. Before the opening nobody else knows it.
    pub secret: [u8; 32],
    /// What it found.
    pub verdict: Verdict,
    /// Root of a transcript of the auditor's own run, keyed with the secret; zero where there was no whole run. It follows
    /// neither from the record nor from another auditor's.
    pub root: Digest,
}

impl Opening {
    /// The commitment to it.
    pub fn commitment(&self, chain_id: &ChainId, auditor: &NodeId, record: &RecordId) -> Digest {
        Domain::AUDIT.hash_of(&(chain_id, auditor, record, self))
    }
}

/// What is said of records, each by its index in the block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Statement {
    /// Commitments to openings that will follow.
    Commit(#[borsh(deserialize_with = "crate::codec::bounded::attested")] Vec<(u32, Digest)>) = 1,
    /// What was committed to.
    Open(#[borsh(deserialize_with = "crate::codec::bounded::attested")] Vec<(u32, Opening)>) = 2,
}

impl Statement {
    /// Indexes of the records that it speaks of, in order.
    pub fn indexes(&self) -> Vec<u32> {
        match self {
            Statement::Commit(items) => items.iter().map(|(index, _)| *index).collect(),
            Statement::Open(items) => items.iter().map(|(index, _)| *index).collect(),
        }
    }
}

/// What an auditor says of records of one block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Attestation {
    /// The chain on which it counts.
    pub chain_id: ChainId,
    /// Who says it.
    pub auditor: NodeId,
    /// Height of the block that holds the records.
    pub height: Height,
    /// What it says.
    pub statement: Statement,
}

impl Versioned for Attestation {
    const NAME: &'static str = "attestation";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = ATTESTATION_BYTES_MAX;
}

impl Attestation {
    /// Its id: the hash of all of it.
    pub fn id(&self) -> AttestationId {
        AttestationId::new(*Domain::ATTESTATION.hash(&self.encode()).as_bytes())
    }
}

/// An attestation as it travels and rests. Nothing about it is known to be true.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedAttestation {
    /// What is said.
    pub attestation: Attestation,
    /// The auditor's, over it.
    pub signature: Signature,
}

impl Versioned for SignedAttestation {
    const NAME: &'static str = "signed attestation";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = ATTESTATION_BYTES_MAX;
}

impl SignedAttestation {
    /// Checks every rule that needs no state, and the signature.
    pub fn verify(self, chain_id: &ChainId) -> Result<VerifiedAttestation, AttestationError> {
        let Attestation { chain_id: got, auditor, statement, .. } = &self.attestation;
        if got != chain_id {
            return Err(AttestationError::Chain { got: got.clone(), expected: chain_id.clone() });
        }
        let indexes = statement.indexes();
        if !(1..=ATTESTATION_ITEMS_MAX).contains(&indexes.len()) {
            return Err(AttestationError::Items { got: indexes.len() });
        }
        if !indexes.is_sorted_by(|one, next| one < next) {
            return Err(AttestationError::Order);
        }
        let id = self.attestation.id();
        if !keys::verify_attestation(auditor, chain_id, &id, &self.signature) {
            return Err(AttestationError::Unsigned { auditor: *auditor });
        }
        let encoded = self.encode();
        let digest = Domain::ATTESTATIONS.hash(&encoded);
        Ok(VerifiedAttestation { id, digest, size_bytes: encoded.len(), signed: self })
    }
}

/// An attestation that its auditor signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedAttestation {
    signed: SignedAttestation,
    id: AttestationId,
    digest: Digest,
    size_bytes: usize,
}

impl VerifiedAttestation {
    /// What is said.
    pub fn attestation(&self) -> &Attestation {
        &self.signed.attestation
    }

    /// The same with its signature, as it travels.
    pub fn signed(&self) -> &SignedAttestation {
        &self.signed
    }

    /// Its id.
    pub fn id(&self) -> AttestationId {
        self.id
    }

    /// Digest of the whole, signature included.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Length of its encoding.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}
