//! The useful-work proof: a record, the request it answers, and the signature of everyone involved.
//!
//! [`SignedProof`] is what arrives; [`VerifiedProof`] is what passed [`SignedProof::verify`]. Only the latter enters the
//! mempool and blocks.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::Versioned;
use crate::error::ProofError;
use crate::hash::Domain;
use crate::ids::{ChainId, Digest, RecordId, RequestId};
use crate::keys::{self, Signature};
use crate::limits::PROOF_BYTES_MAX;
use crate::record::InferenceRecord;
use crate::request::InferenceRequest;

/// A proof as it travels and rests. Nothing about it is known to be true.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedProof {
    /// What was asked.
    pub request: InferenceRequest,
    /// What is claimed.
    pub record: InferenceRecord,
    /// One signature per stage over the record, in the order of the stages.
    #[borsh(deserialize_with = "crate::codec::bounded::stages")]
    pub stage_signatures: Vec<Signature>,
    /// The requester's, over the request.
    pub request_signature: Signature,
    /// The requester's, over the record it received.
    pub receipt_signature: Signature,
}

impl Versioned for SignedProof {
    const NAME: &'static str = "proof";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = PROOF_BYTES_MAX;
}

impl SignedProof {
    /// Checks every rule that needs no state, and every signature.
    pub fn verify(self, chain_id: &ChainId) -> Result<VerifiedProof, ProofError> {
        self.request.check()?;
        self.record.check()?;
        let request_id = self.request.id();
        let record_id = self.record.id();
        self.check_claim(chain_id, request_id)?;
        self.check_signatures(chain_id, request_id, record_id)?;
        let encoded = self.encode();
        Ok(VerifiedProof {
            request_id,
            record_id,
            digest: Domain::PROOFS.hash(&encoded),
            size_bytes: encoded.len(),
            proof: self,
        })
    }

    /// Whether the record answers the request, on this chain.
    fn check_claim(&self, chain_id: &ChainId, request_id: RequestId) -> Result<(), ProofError> {
        let SignedProof { request, record, .. } = self;
        if request.chain_id != *chain_id {
            return Err(ProofError::Chain { got: request.chain_id.clone(), expected: chain_id.clone() });
        }
        if record.request_id != request_id {
            return Err(ProofError::RequestId { got: record.request_id, expected: request_id });
        }
        if record.model_id != request.model_id {
            return Err(ProofError::Model { got: record.model_id, expected: request.model_id });
        }
        if record.query_hash != request.prompt_commitment {
            return Err(ProofError::Prompt { got: record.query_hash, expected: request.prompt_commitment });
        }
        if u64::from(record.tokens_generated) > request.tokens_max() {
            return Err(ProofError::TooManyTokens { got: record.tokens_generated, max: request.tokens_max() });
        }
        Ok(())
    }

    fn check_signatures(&self, chain_id: &ChainId, request: RequestId, record: RecordId) -> Result<(), ProofError> {
        let stages = &self.record.stages;
        if stages.len() != self.stage_signatures.len() {
            return Err(ProofError::StageSignatureCount {
                stages: stages.len(),
                signatures: self.stage_signatures.len(),
            });
        }
        let requester = &self.request.requester;
        if !keys::verify_request(requester, chain_id, &request, &self.request_signature) {
            return Err(ProofError::RequestUnsigned { request });
        }
        for (place, (ran, signature)) in (0u16..).zip(stages.iter().zip(&self.stage_signatures)) {
            if !keys::verify_stage(&ran.node_id, chain_id, &record, place, signature) {
                return Err(ProofError::StageUnsigned { record, stage: place });
            }
        }
        if !keys::verify_receipt(requester, chain_id, &record, &self.receipt_signature) {
            return Err(ProofError::ReceiptUnsigned { record });
        }
        Ok(())
    }
}

/// A proof whose every rule and signature was checked. Whether its claim is true is for auditors to find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedProof {
    proof: SignedProof,
    request_id: RequestId,
    record_id: RecordId,
    digest: Digest,
    size_bytes: usize,
}

impl VerifiedProof {
    /// The proof itself.
    pub fn proof(&self) -> &SignedProof {
        &self.proof
    }

    /// What was asked.
    pub fn request(&self) -> &InferenceRequest {
        &self.proof.request
    }

    /// What is claimed.
    pub fn record(&self) -> &InferenceRecord {
        &self.proof.record
    }

    /// Id of the request.
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// Id of the record.
    pub fn record_id(&self) -> RecordId {
        self.record_id
    }

    /// Digest of the whole proof, signatures included.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Length of its encoding.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The proof, no longer known to be verified.
    pub fn into_signed(self) -> SignedProof {
        self.proof
    }
}
