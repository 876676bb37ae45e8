//! What accounts order: a transaction, signed by its sender.
//!
//! [`SignedTransaction`] is what arrives; [`VerifiedTransaction`] is what passed [`SignedTransaction::verify`]. Only the
//! latter waits or enters a block. Whether the sender can pay is for the state to tell.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::attestation::Opening;
use crate::codec::Versioned;
use crate::consent::Consent;
use crate::error::TransactionError;
use crate::hash::Domain;
use crate::ids::{ChainId, Digest, ModelId, NodeId, TransactionId};
use crate::keys::{self, Signature};
use crate::limits::{
    DELIVERY_PART_BYTES_MAX, DELIVERY_PARTS_MAX, SIGNATURE_BYTES, TRANSACTION_BYTES_MAX, TRANSACTION_PLACE_BYTES,
};
use crate::model::{ModelName, Shape};
use crate::sobriety::SobrietyAttestation;
use crate::units::{Height, NanoAria};

/// What is ordered, by whom, and what it may cost.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Transaction {
    /// The chain on which it counts.
    pub chain_id: ChainId,
    /// Whose account it is. Signs it.
    pub sender: NodeId,
    /// How many transactions of this account came before: each counts once, in order.
    pub nonce: u64,
    /// Paid by the sender. A part is burned, the rest is the proposer's.
    pub fee: NanoAria,
    /// Last height at which it can be included.
    pub expiry: Height,
    /// What is to happen.
    pub action: Action,
}

/// What a transaction does.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Action {
    /// Gives money away.
    Transfer {
        /// Who gets it. An account that is not there yet begins with it.
        to: NodeId,
        /// How much.
        amount: NanoAria,
    } = 1,
    /// Sets money aside as security: it backs verified work, and can be slashed.
    Bond {
        /// How much.
        amount: NanoAria,
    } = 2,
    /// Frees money that is set aside. It backs nothing from now on, and can be slashed until it is paid out.
    Unbond {
        /// How much.
        amount: NanoAria,
    } = 3,
    /// States what the sender lets others do with its machine, in place of what it stated before.
    Consent {
        /// The contract; nothing takes the one that is registered back.
        contract: Option<Consent>,
    } = 4,
    /// Proposes a model. It is registered once voters with more than two thirds of the power have confirmed it.
    RegisterModel {
        /// Its digest.
        model: ModelId,
        /// Its name for people.
        name: ModelName,
        /// Its sizes, as the model file's header has them.
        shape: Shape,
    } = 5,
    /// Says, as a voter, that a proposal is true: this node has the model and found this shape in it.
    ConfirmModel {
        /// The model's digest.
        model: ModelId,
        /// See [`proposal_id`](crate::model::proposal_id).
        proposal: Digest,
    } = 6,
    /// Says that an auditor did not run a record that it attested: its opened root is not what the run gives.
    Doubt {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
        /// The accused.
        auditor: NodeId,
    } = 7,
    /// Says what the sender's answers took in the epoch before.
    Sobriety(SobrietyAttestation) = 8,
    /// Shows what an auditor committed to before it may be known: the auditor told somebody its secret.
    Leak {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
        /// The accused.
        auditor: NodeId,
        /// What it committed to.
        opening: Opening,
    } = 9,
    /// Says, as one who was drawn for a record, that what an audit needs did not come: its provider is to post it.
    Challenge {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    } = 10,
    /// Posts a part of what an audit needs, sealed to those who were drawn.
    Deliver {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
        /// Which part, from 0 on.
        part: u8,
        /// How many there are.
        parts: u8,
        /// Its bytes.
        #[borsh(deserialize_with = "crate::codec::bounded::sealed")]
        sealed: Vec<u8>,
    } = 11,
}

impl Action {
    /// Its name at the doors.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Transfer { .. } => "transfer",
            Action::Bond { .. } => "bond",
            Action::Unbond { .. } => "unbond",
            Action::Consent { .. } => "consent",
            Action::RegisterModel { .. } => "register_model",
            Action::ConfirmModel { .. } => "confirm_model",
            Action::Doubt { .. } => "doubt",
            Action::Sobriety(_) => "sobriety",
            Action::Leak { .. } => "leak",
            Action::Challenge { .. } => "challenge",
            Action::Deliver { .. } => "deliver",
        }
    }

    /// What it moves, if it is there to move something.
    pub fn amount(&self) -> Option<NanoAria> {
        match self {
            Action::Transfer { amount, .. } | Action::Bond { amount } | Action::Unbond { amount } => Some(*amount),
            Action::Consent { .. }
            | Action::RegisterModel { .. }
            | Action::ConfirmModel { .. }
            | Action::Doubt { .. }
            | Action::Sobriety(_)
            | Action::Leak { .. }
            | Action::Challenge { .. }
            | Action::Deliver { .. } => None,
        }
    }

    /// What it takes from the sender's balance to give it elsewhere, besides all fees.
    pub fn spends(&self) -> NanoAria {
        match self {
            Action::Transfer { amount, .. } | Action::Bond { amount } => *amount,
            Action::Unbond { .. }
            | Action::Consent { .. }
            | Action::RegisterModel { .. }
            | Action::ConfirmModel { .. }
            | Action::Doubt { .. }
            | Action::Sobriety(_)
            | Action::Leak { .. }
            | Action::Challenge { .. }
            | Action::Deliver { .. } => NanoAria::ZERO,
        }
    }
}

impl Versioned for Transaction {
    const NAME: &'static str = "transaction";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = TRANSACTION_BYTES_MAX;
}

impl Transaction {
    /// Its id: the hash of all of it. The signature is no part of it.
    pub fn id(&self) -> TransactionId {
        TransactionId::new(*Domain::TRANSACTION.hash(&self.encode()).as_bytes())
    }

    /// Places that it takes in a block once it is signed.
    pub fn places(&self) -> usize {
        places(self.encode().len() + SIGNATURE_BYTES)
    }
}

/// A transaction as it travels and rests. Nothing about it is known to be true.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedTransaction {
    /// What is ordered.
    pub transaction: Transaction,
    /// The sender's, over it.
    pub signature: Signature,
}

impl Versioned for SignedTransaction {
    const NAME: &'static str = "signed transaction";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = TRANSACTION_BYTES_MAX;
}

impl SignedTransaction {
    /// Checks every rule that needs no state, and the signature.
    pub fn verify(self, chain_id: &ChainId) -> Result<VerifiedTransaction, TransactionError> {
        let Transaction { chain_id: got, sender, action, .. } = &self.transaction;
        if got != chain_id {
            return Err(TransactionError::Chain { got: got.clone(), expected: chain_id.clone() });
        }
        if action.amount() == Some(NanoAria::ZERO) {
            return Err(TransactionError::NoAmount);
        }
        match action {
            Action::Consent { contract: Some(contract) } => contract.check()?,
            Action::RegisterModel { shape, .. } => shape.check()?,
            Action::Deliver { part, parts, sealed, .. } => check_part(*part, *parts, sealed.len())?,
            _ => {}
        }
        let id = self.transaction.id();
        if !keys::verify_transaction(sender, chain_id, &id, &self.signature) {
            return Err(TransactionError::Unsigned { transaction: id, sender: *sender });
        }
        let encoded = self.encode();
        let digest = Domain::TRANSACTIONS.hash(&encoded);
        Ok(VerifiedTransaction { id, digest, size_bytes: encoded.len(), signed: self })
    }
}

/// What every part of a payload keeps to by itself.
fn check_part(part: u8, parts: u8, got: usize) -> Result<(), TransactionError> {
    if !(1..=DELIVERY_PARTS_MAX).contains(&parts) {
        return Err(TransactionError::Parts { parts });
    }
    if part >= parts {
        return Err(TransactionError::Part { part, parts });
    }
    if !(1..=DELIVERY_PART_BYTES_MAX).contains(&got) {
        return Err(TransactionError::PartBytes { got });
    }
    Ok(())
}

/// Places that a transaction of this size takes in a block; it pays the least fee for each.
fn places(size_bytes: usize) -> usize {
    size_bytes.div_ceil(TRANSACTION_PLACE_BYTES)
}

/// A transaction that its sender signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedTransaction {
    signed: SignedTransaction,
    id: TransactionId,
    digest: Digest,
    size_bytes: usize,
}

impl VerifiedTransaction {
    /// What is ordered.
    pub fn transaction(&self) -> &Transaction {
        &self.signed.transaction
    }

    /// The same with its signature, as it travels.
    pub fn signed(&self) -> &SignedTransaction {
        &self.signed
    }

    /// Its id.
    pub fn id(&self) -> TransactionId {
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

    /// Places that it takes in a block.
    pub fn places(&self) -> usize {
        places(self.size_bytes)
    }
}
