//! Key pairs and signatures: one sign and one verify per purpose, never over bare bytes. Sole user of ed25519-dalek, curve25519-dalek and
//! chacha20poly1305.
//!
//! What is signed is a hash in the purpose's domain over the chain id and the value, so that no signature counts on
//! another chain or in another role; only the handshake of TLS, which has a form of its own, is signed as it is. Verification is the strict one everywhere, and a key must be written in its
//! canonical form: two spellings of one key would be two nodes.

use std::cell::RefCell;
use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::hash::Domain;
use crate::ids::{AttestationId, BlockHash, ChainId, Digest, NodeId, RecordId, RequestId, TransactionId};
use crate::units::{Height, Round};

mod file;
mod seal;
mod vrf;

pub use file::KeyError;
pub use seal::{SEAL_BYTES_MAX, SealError};
pub use vrf::VrfProof;

/// An ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Signature([u8; 64]);

impl Signature {
    /// From its bytes. Whether it is valid is another question.
    pub const fn new(bytes: [u8; 64]) -> Signature {
        Signature(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

/// A node's secret. Wiped from memory when dropped; never shown.
pub struct NodeKey {
    signing: SigningKey,
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey(secret of {})", self.node_id())
    }
}

impl NodeKey {
    /// A fresh key from the system's source of randomness.
    pub fn generate() -> Result<NodeKey, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|fault| KeyError::Randomness { reason: fault.to_string() })?;
        Ok(NodeKey::from_seed(&seed))
    }

    /// The key that belongs to a seed.
    pub fn from_seed(seed: &[u8; 32]) -> NodeKey {
        NodeKey { signing: SigningKey::from_bytes(seed) }
    }

    /// The public half.
    pub fn node_id(&self) -> NodeId {
        NodeId::new(self.signing.verifying_key().to_bytes())
    }

    /// As requester, over what is asked.
    pub fn sign_request(&self, chain_id: &ChainId, request: &RequestId) -> Signature {
        self.sign(request_message(chain_id, request))
    }

    /// As the node that ran stage number `stage`, over the record.
    pub fn sign_stage(&self, chain_id: &ChainId, record: &RecordId, stage: u16) -> Signature {
        self.sign(stage_message(chain_id, record, stage))
    }

    /// As requester, over the record received.
    pub fn sign_receipt(&self, chain_id: &ChainId, record: &RecordId) -> Signature {
        self.sign(receipt_message(chain_id, record))
    }

    /// As sender, over what is ordered.
    pub fn sign_transaction(&self, chain_id: &ChainId, transaction: &TransactionId) -> Signature {
        self.sign(transaction_message(chain_id, transaction))
    }

    /// As auditor, over what is said of records.
    pub fn sign_attestation(&self, chain_id: &ChainId, attestation: &AttestationId) -> Signature {
        self.sign(attestation_message(chain_id, attestation))
    }

    /// A secret that only this key's owner can know before it is told, the same each time.
    pub fn audit_secret(&self, chain_id: &ChainId, record: &RecordId) -> [u8; 32] {
        *Domain::AUDIT_SECRET.hash_of(&(self.signing.as_bytes(), chain_id, record)).as_bytes()
    }

    /// As validator, over the block to commit.
    pub fn sign_precommit(&self, chain_id: &ChainId, height: Height, round: Round, block: &BlockHash) -> Signature {
        self.sign(precommit_message(chain_id, height, round, block))
    }

    /// As validator, that no block can be committed in this round.
    pub fn sign_nil_precommit(&self, chain_id: &ChainId, height: Height, round: Round) -> Signature {
        self.sign(nil_precommit_message(chain_id, height, round))
    }

    /// As validator, over the block that it would commit, or over none.
    pub fn sign_prevote(
        &self,
        chain_id: &ChainId,
        height: Height,
        round: Round,
        block: Option<&BlockHash>,
    ) -> Signature {
        self.sign(prevote_message(chain_id, height, round, block))
    }

    /// As proposer, over the block of this round. `polka` is the earlier round in which the block had two thirds of the
    /// prevotes, if it is proposed again.
    pub fn sign_proposal(
        &self,
        chain_id: &ChainId,
        height: Height,
        round: Round,
        block: &BlockHash,
        polka: Option<Round>,
    ) -> Signature {
        self.sign(proposal_message(chain_id, height, round, block, polka))
    }

    /// As one end of a TLS 1.3 connection, over what its handshake asks to be signed (RFC 8446, 4.4.3). None: this is
    /// something else. Nothing else that a key signs looks like it: those are digests of 32 bytes.
    pub fn sign_tls(&self, message: &[u8]) -> Option<Signature> {
        is_tls(message).then(|| Signature(self.signing.sign(message).to_bytes()))
    }

    fn sign(&self, message: Digest) -> Signature {
        Signature(self.signing.sign(message.as_bytes()).to_bytes())
    }
}

/// Whether `requester` signed the request.
pub fn verify_request(requester: &NodeId, chain_id: &ChainId, request: &RequestId, signature: &Signature) -> bool {
    verify(requester, request_message(chain_id, request), signature)
}

/// Whether `node` signed the record as the one that ran stage number `stage`.
pub fn verify_stage(node: &NodeId, chain_id: &ChainId, record: &RecordId, stage: u16, signature: &Signature) -> bool {
    verify(node, stage_message(chain_id, record, stage), signature)
}

/// Whether `requester` signed the receipt of the record.
pub fn verify_receipt(requester: &NodeId, chain_id: &ChainId, record: &RecordId, signature: &Signature) -> bool {
    verify(requester, receipt_message(chain_id, record), signature)
}

/// Whether `sender` signed the transaction.
pub fn verify_transaction(
    sender: &NodeId,
    chain_id: &ChainId,
    transaction: &TransactionId,
    signature: &Signature,
) -> bool {
    verify(sender, transaction_message(chain_id, transaction), signature)
}

/// Whether `auditor` signed the attestation.
pub fn verify_attestation(
    auditor: &NodeId,
    chain_id: &ChainId,
    attestation: &AttestationId,
    signature: &Signature,
) -> bool {
    verify(auditor, attestation_message(chain_id, attestation), signature)
}

/// Whether `validator` signed the precommit.
pub fn verify_precommit(
    validator: &NodeId,
    chain_id: &ChainId,
    height: Height,
    round: Round,
    block: &BlockHash,
    signature: &Signature,
) -> bool {
    verify(validator, precommit_message(chain_id, height, round, block), signature)
}

/// Whether `validator` signed that no block can be committed in this round.
pub fn verify_nil_precommit(
    validator: &NodeId,
    chain_id: &ChainId,
    height: Height,
    round: Round,
    signature: &Signature,
) -> bool {
    verify(validator, nil_precommit_message(chain_id, height, round), signature)
}

/// Whether `validator` signed the prevote.
pub fn verify_prevote(
    validator: &NodeId,
    chain_id: &ChainId,
    height: Height,
    round: Round,
    block: Option<&BlockHash>,
    signature: &Signature,
) -> bool {
    verify(validator, prevote_message(chain_id, height, round, block), signature)
}

/// Whether `proposer` signed the proposal.
pub fn verify_proposal(
    proposer: &NodeId,
    chain_id: &ChainId,
    height: Height,
    round: Round,
    block: &BlockHash,
    polka: Option<Round>,
    signature: &Signature,
) -> bool {
    verify(proposer, proposal_message(chain_id, height, round, block, polka), signature)
}

/// Whether `node` signed the handshake of a TLS 1.3 connection.
pub fn verify_tls(node: &NodeId, message: &[u8], signature: &Signature) -> bool {
    is_tls(message) && verify_bytes(node, message, signature)
}

/// Whether a message is one that TLS 1.3 asks its ends to sign.
fn is_tls(message: &[u8]) -> bool {
    message.strip_prefix(&[b' '; 64]).is_some_and(|rest| rest.starts_with(b"TLS 1.3, "))
}

fn request_message(chain_id: &ChainId, request: &RequestId) -> Digest {
    Domain::SIGN_REQUEST.hash_of(&(chain_id, request))
}

fn stage_message(chain_id: &ChainId, record: &RecordId, stage: u16) -> Digest {
    Domain::SIGN_STAGE.hash_of(&(chain_id, record, stage))
}

fn receipt_message(chain_id: &ChainId, record: &RecordId) -> Digest {
    Domain::SIGN_RECEIPT.hash_of(&(chain_id, record))
}

fn transaction_message(chain_id: &ChainId, transaction: &TransactionId) -> Digest {
    Domain::SIGN_TRANSACTION.hash_of(&(chain_id, transaction))
}

fn attestation_message(chain_id: &ChainId, attestation: &AttestationId) -> Digest {
    Domain::SIGN_ATTESTATION.hash_of(&(chain_id, attestation))
}

fn precommit_message(chain_id: &ChainId, height: Height, round: Round, block: &BlockHash) -> Digest {
    Domain::SIGN_PRECOMMIT.hash_of(&(chain_id, height, round, block))
}

fn nil_precommit_message(chain_id: &ChainId, height: Height, round: Round) -> Digest {
    Domain::SIGN_NIL_PRECOMMIT.hash_of(&(chain_id, height, round))
}

fn prevote_message(chain_id: &ChainId, height: Height, round: Round, block: Option<&BlockHash>) -> Digest {
    Domain::SIGN_PREVOTE.hash_of(&(chain_id, height, round, block))
}

fn proposal_message(
    chain_id: &ChainId,
    height: Height,
    round: Round,
    block: &BlockHash,
    polka: Option<Round>,
) -> Digest {
    Domain::SIGN_PROPOSAL.hash_of(&(chain_id, height, round, block, polka))
}

fn verify(node: &NodeId, message: Digest, signature: &Signature) -> bool {
    verify_bytes(node, message.as_bytes(), signature)
}

fn verify_bytes(node: &NodeId, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    verifying_key(node).is_some_and(|key| key.verify_strict(message, &signature).is_ok())
}

/// Keys that a thread has read lately. Reading one takes a fifth of the time of a check, and few keys sign much.
const KEYS_KEPT: usize = 128;

thread_local! {
    static KEYS: RefCell<[Option<(NodeId, VerifyingKey)>; KEYS_KEPT]> = const { RefCell::new([None; KEYS_KEPT]) };
}

/// The point that a node's id stands for, if it is the one encoding of a point.
fn verifying_key(node: &NodeId) -> Option<VerifyingKey> {
    let place = usize::from(node.as_bytes()[0]) % KEYS_KEPT;
    let known = KEYS.with_borrow(|keys| keys[place].filter(|(known, _)| known == node).map(|(_, key)| key));
    known.or_else(|| {
        let key = VerifyingKey::from_bytes(node.as_bytes()).ok()?;
        let is_only = key.to_edwards().compress().as_bytes() == node.as_bytes();
        is_only.then(|| KEYS.with_borrow_mut(|keys| keys[place] = Some((*node, key))))?;
        Some(key)
    })
}
