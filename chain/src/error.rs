//! The rules that types of this crate keep, one error variant each. The lists of variants are the lists of rules.
//!
//! Keys, Merkle proofs and the store have errors of their own beside their code.

use crate::consent::ConsentError;
use crate::ids::{BlockHash, ChainId, Digest, ModelId, NodeId, RecordId, RequestId, TransactionId};
use crate::limits::{
    ATTESTATION_ITEMS_MAX, BLOCK_ATTESTATIONS_MAX, BLOCK_EVIDENCE_MAX, BLOCK_RECORDS_MAX, BLOCK_TRANSACTIONS_MAX,
    BODY_BYTES_MAX, CHOICES_MAX, DELIVERY_PART_BYTES_MAX, DELIVERY_PARTS_MAX, POWER_TOTAL_MAX, STAGES_MAX,
    STAMP_ZERO_DIGITS_MAX, VALIDATORS_MAX,
};
use crate::model::ShapeError;
use crate::units::{Height, Millis};

/// Why bytes are no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Every encoding starts with a version byte.
    #[error("{name}: no bytes at all")]
    Empty {
        /// The type.
        name: &'static str,
    },
    /// Each type has a longest encoding.
    #[error("{name}: {got} bytes, at most {max} are allowed")]
    TooLong {
        /// The type.
        name: &'static str,
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Only known versions are read.
    #[error("{name}: version {got} is not known, this program knows {known}; use a newer one")]
    Version {
        /// The type.
        name: &'static str,
        /// Version given.
        got: u8,
        /// Version that this program writes.
        known: u8,
    },
    /// The bytes are one value exactly, with nothing missing and nothing left.
    #[error("{name}: {reason}")]
    Malformed {
        /// The type.
        name: &'static str,
        /// Which part is wrong.
        reason: String,
    },
}

/// Why a request is refused by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A number lies outside of what the sampler is defined for.
    #[error("request field {field} is {got}, it must lie between {min} and {max}")]
    Range {
        /// The field.
        field: &'static str,
        /// As given.
        got: i64,
        /// Least allowed.
        min: i64,
        /// Most allowed.
        max: i64,
    },
    /// Somebody must want something.
    #[error("request field choices is {got}, it must lie between 1 and {CHOICES_MAX}")]
    Choices {
        /// As given.
        got: u8,
    },
    /// An answer has at least one token's room.
    #[error("request field max_tokens is zero, it must be at least 1")]
    NoTokens,
}

/// Why a record is refused by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Somebody ran it, and not more than a pipeline can have.
    #[error("record has {got} stages, it must have 1 to {STAGES_MAX}")]
    StageCount {
        /// Stages given.
        got: usize,
    },
    /// A stage runs at least one layer.
    #[error("record stage {stage} runs no layer: layer_start must be below layer_end")]
    StageEmpty {
        /// Its place.
        stage: usize,
    },
    /// The first stage starts at layer 0, and each next one where its predecessor ended.
    #[error("record stage {stage} starts at layer {got}, it must start at {expected}")]
    StageGap {
        /// Its place.
        stage: usize,
        /// Where it starts.
        got: u16,
        /// Where it must start.
        expected: u16,
    },
    /// The first token does not come after the last.
    #[error("record first_token_ms {first_token} is above latency_ms {latency}")]
    FirstTokenLate {
        /// As given.
        first_token: Millis,
        /// As given.
        latency: Millis,
    },
    /// A model answers to something.
    #[error("record prompt_tokens is zero, a prompt has at least one token")]
    NoPrompt,
    /// Only a canonical run has a transcript, and every canonical run has one.
    #[error("record transcript_root must be set for the canonical backend and zero for every other")]
    Transcript,
}

/// Why a signed proof is refused by itself: docs/proof.md, step 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The request must be sound.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The record must be sound.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A proof counts on one chain only.
    #[error("request was made for chain {got}, this is {expected}")]
    Chain {
        /// Chain of the request.
        got: ChainId,
        /// Chain of this node.
        expected: ChainId,
    },
    /// The record answers this request.
    #[error("record names request {got}, the request's id is {expected}")]
    RequestId {
        /// As the record says.
        got: RequestId,
        /// As it must be.
        expected: RequestId,
    },
    /// The record was made by the model that was asked for.
    #[error("record names model {got}, the request asked for {expected}")]
    Model {
        /// As the record says.
        got: ModelId,
        /// As requested.
        expected: ModelId,
    },
    /// The record answers the prompt that was asked.
    #[error("record query_hash {got} is not the request's prompt_commitment {expected}")]
    Prompt {
        /// As the record says.
        got: Digest,
        /// As requested.
        expected: Digest,
    },
    /// No more tokens than asked for.
    #[error("record has {got} generated tokens, the request allows {max}")]
    TooManyTokens {
        /// As the record says.
        got: u32,
        /// Choices times max_tokens.
        max: u64,
    },
    /// Every stage that ran a record signs it, and nobody else.
    #[error("record has {stages} stages and {signatures} stage signatures, it needs one for each")]
    StageSignatureCount {
        /// Stages.
        stages: usize,
        /// Signatures.
        signatures: usize,
    },
    /// A stage's signature is its own, over this record.
    #[error("record {record}: stage {stage} did not sign")]
    StageUnsigned {
        /// The record.
        record: RecordId,
        /// The stage's place.
        stage: u16,
    },
    /// The requester signs what it asks.
    #[error("request {request}: the requester did not sign")]
    RequestUnsigned {
        /// The request.
        request: RequestId,
    },
    /// The requester signs what it got.
    #[error("record {record}: the requester did not sign the receipt")]
    ReceiptUnsigned {
        /// The record.
        record: RecordId,
    },
}

/// Why a validator set, a vote or a certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Somebody must be able to vote.
    #[error("validator set has {got} members, it must have 1 to {VALIDATORS_MAX}")]
    SetSize {
        /// Members given.
        got: usize,
    },
    /// Members stand in ascending order of their id, each once.
    #[error("validator {node} is out of order or listed twice")]
    SetOrder {
        /// The member.
        node: NodeId,
    },
    /// A member has power.
    #[error("validator {node} has no power")]
    NoPower {
        /// The member.
        node: NodeId,
    },
    /// Sums of power stay far from overflow.
    #[error("power of all validators is above {POWER_TOTAL_MAX}; scale it down")]
    PowerTotal,
    /// A set votes on the blocks that name it.
    #[error("block names validator set {expected}, this one is {got}")]
    WrongSet {
        /// Hash of this set.
        got: Digest,
        /// Hash in the header.
        expected: Digest,
    },
    /// A certificate is for one block.
    #[error("certificate is for block {got}, this is {expected}")]
    WrongBlock {
        /// Hash in the certificate.
        got: BlockHash,
        /// Hash of the block.
        expected: BlockHash,
    },
    /// A certificate is for one height.
    #[error("certificate is for height {got}, this is {expected}")]
    WrongHeight {
        /// As the certificate says.
        got: Height,
        /// As the header says.
        expected: Height,
    },
    /// Only members of the set sign.
    #[error("certificate: {node} is no validator")]
    Stranger {
        /// The signer.
        node: NodeId,
    },
    /// Signatures stand in ascending order of their signer, each once: nobody counts twice.
    #[error("certificate: {node} signs twice or out of order")]
    SignatureOrder {
        /// The signer.
        node: NodeId,
    },
    /// A signature is the member's own, over this block.
    #[error("certificate: the signature of {node} is not valid")]
    Signature {
        /// The signer.
        node: NodeId,
    },
    /// More than two thirds of all power.
    #[error("certificate has power {power} of {total}, it needs more than two thirds")]
    NoQuorum {
        /// Power of those who signed.
        power: u64,
        /// Power of the set.
        total: u64,
    },
}

/// Why a block is refused by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A block belongs to one chain.
    #[error("block is for chain {got}, this is {expected}")]
    Chain {
        /// As the header says.
        got: ChainId,
        /// Chain of this node.
        expected: ChainId,
    },
    /// Height 0 is the genesis block's alone, which nobody proposes.
    #[error("a proposed block has at least height 1")]
    GenesisHeight,
    /// A block's number of records is bounded.
    #[error("block has {got} records, at most {BLOCK_RECORDS_MAX} are allowed")]
    TooManyRecords {
        /// Records given.
        got: usize,
    },
    /// A block's size is bounded.
    #[error("body has {got} bytes, at most {BODY_BYTES_MAX} are allowed")]
    BodyTooLong {
        /// Bytes given.
        got: usize,
    },
    /// The header counts the records.
    #[error("header counts {header} records, the body has {body}")]
    RecordCount {
        /// As the header says.
        header: u32,
        /// As the body has.
        body: usize,
    },
    /// The header commits to the ids of the records, in order.
    #[error("header records_root {header} is not the root {body} of the body's records")]
    RecordsRoot {
        /// As the header says.
        header: Digest,
        /// As the body has.
        body: Digest,
    },
    /// The header commits to every byte of the body.
    #[error("header body_root {header} is not the root {body} of the body")]
    BodyRoot {
        /// As the header says.
        header: Digest,
        /// As the body has.
        body: Digest,
    },
    /// A block's evidence is bounded.
    #[error("block has {got} pieces of evidence, at most {BLOCK_EVIDENCE_MAX} are allowed")]
    TooMuchEvidence {
        /// Pieces given.
        got: usize,
    },
    /// The header counts the evidence.
    #[error("header counts {header} pieces of evidence, the body has {body}")]
    EvidenceCount {
        /// As the header says.
        header: u32,
        /// As the body has.
        body: usize,
    },
    /// Each piece of evidence must be sound.
    #[error("evidence {index}: {fault}")]
    Evidence {
        /// Its place in the body.
        index: usize,
        /// What is wrong with it.
        fault: EvidenceError,
    },
    /// A record stands in a block once.
    #[error("record {record} stands in the block twice")]
    DuplicateRecord {
        /// The record.
        record: RecordId,
    },
    /// A stamp against spam.
    #[error("block hash {hash} has fewer than {digits} leading zero digits")]
    Stamp {
        /// The hash.
        hash: BlockHash,
        /// Digits that must be zero.
        digits: u8,
    },
    /// The stamp is no lottery.
    #[error("a stamp of {digits} digits is above {STAMP_ZERO_DIGITS_MAX}; lower it in the genesis file")]
    StampTooHard {
        /// As asked for.
        digits: u8,
    },
    /// A block's number of transactions is bounded.
    #[error("block has {got} transactions, at most {BLOCK_TRANSACTIONS_MAX} are allowed")]
    TooManyTransactions {
        /// Transactions given.
        got: usize,
    },
    /// A block's places for transactions are bounded.
    #[error("transactions of the block take {got} places, there are {BLOCK_TRANSACTIONS_MAX}")]
    TransactionPlaces {
        /// Places taken.
        got: usize,
    },
    /// The header counts the transactions.
    #[error("header counts {header} transactions, the body has {body}")]
    TransactionCount {
        /// As the header says.
        header: u32,
        /// As the body has.
        body: usize,
    },
    /// Each transaction must be sound.
    #[error("transaction {index}: {fault}")]
    Transaction {
        /// Its place in the body.
        index: usize,
        /// What is wrong with it.
        fault: TransactionError,
    },
    /// A block's number of attestations is bounded.
    #[error("block has {got} attestations, at most {BLOCK_ATTESTATIONS_MAX} are allowed")]
    TooManyAttestations {
        /// Attestations given.
        got: usize,
    },
    /// The header counts the attestations.
    #[error("header counts {header} attestations, the body has {body}")]
    AttestationCount {
        /// As the header says.
        header: u32,
        /// As the body has.
        body: usize,
    },
    /// Each attestation must be sound.
    #[error("attestation {index}: {fault}")]
    Attestation {
        /// Its place in the body.
        index: usize,
        /// What is wrong with it.
        fault: AttestationError,
    },
    /// Each proof must be sound.
    #[error("proof {index}: {fault}")]
    Proof {
        /// Its place in the body.
        index: usize,
        /// What is wrong with it.
        fault: ProofError,
    },
}

/// Why a transaction is refused by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// A transaction belongs to one chain.
    #[error("chain_id: the transaction is for chain {got}, this is {expected}; sign one for this chain")]
    Chain {
        /// As it says.
        got: ChainId,
        /// Chain of this node.
        expected: ChainId,
    },
    /// What moves nothing only fills blocks.
    #[error("amount is zero; give one above zero")]
    NoAmount,
    /// A contract says what can be.
    #[error("the consent contract cannot be: {0}")]
    Consent(#[from] ConsentError),
    /// Every node computes work from registered shapes, so they must be possible ones.
    #[error("shape: {0}")]
    Shape(#[from] ShapeError),
    /// A payload has some parts, and not too many.
    #[error("parts is {parts}, it must be 1 to {DELIVERY_PARTS_MAX}")]
    Parts {
        /// As it says.
        parts: u8,
    },
    /// A part is one of them.
    #[error("part {part} is none of {parts}; count from 0")]
    Part {
        /// As it says.
        part: u8,
        /// As it says.
        parts: u8,
    },
    /// A part has some bytes, and not too many.
    #[error("sealed has {got} bytes, it must have 1 to {DELIVERY_PART_BYTES_MAX}")]
    PartBytes {
        /// Bytes given.
        got: usize,
    },
    /// The sender signs what it orders.
    #[error("transaction {transaction} is not signed by its sender {sender}")]
    Unsigned {
        /// The transaction.
        transaction: TransactionId,
        /// Whose account it is.
        sender: NodeId,
    },
}

/// Why an attestation is refused by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// An attestation belongs to one chain.
    #[error("attestation is for chain {got}, this is {expected}")]
    Chain {
        /// As it says.
        got: ChainId,
        /// Chain of this node.
        expected: ChainId,
    },
    /// It speaks of some records, and of not too many.
    #[error("attestation speaks of {got} records, it must be 1 to {ATTESTATION_ITEMS_MAX}")]
    Items {
        /// Records that it speaks of.
        got: usize,
    },
    /// It speaks of each record once, in their order.
    #[error("the records of an attestation are not in order, or one is there twice")]
    Order,
    /// The auditor signs what it says.
    #[error("attestation is not signed by its auditor {auditor}")]
    Unsigned {
        /// Who is said to have said it.
        auditor: NodeId,
    },
}

/// Why two statements are no evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Only statements of one kind contradict each other.
    #[error("a {first} and a {second} do not contradict each other")]
    Kinds {
        /// Of the first.
        first: &'static str,
        /// Of the second.
        second: &'static str,
    },
    /// One contradiction has one encoding.
    #[error("the two statements are about one block, or not in the order of their blocks")]
    Order,
    /// Both are signed by who made them.
    #[error("{node} did not sign this {kind}")]
    Signature {
        /// The accused.
        node: NodeId,
        /// What it is said to have signed.
        kind: &'static str,
    },
}

/// Why the mempool does not take a proof or a transaction. One variant per admission rule; see [`crate::mempool`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// It waits already. Submitting again is harmless.
    #[error("record {record} waits already; nothing more to do")]
    DuplicateRecord {
        /// The record.
        record: RecordId,
    },
    /// A request counts once, so a second record for it can never be included.
    #[error("request {request} is answered already by record {record}; ask again with a new nonce")]
    DuplicateRequest {
        /// The request.
        request: RequestId,
        /// The record that waits for it.
        record: RecordId,
    },
    /// An expired request can never be included.
    #[error("request expires at height {expiry}, the next block is {next}; ask again with a later expiry")]
    Expired {
        /// Last height at which the record can be included.
        expiry: Height,
        /// Height of the next block.
        next: Height,
    },
    /// It waits already. Submitting again is harmless.
    #[error("transaction {transaction} waits already; nothing more to do")]
    DuplicateTransaction {
        /// The transaction.
        transaction: TransactionId,
    },
    /// Another transaction of the account has this number.
    #[error("nonce {nonce} of {sender} is taken by waiting transaction {transaction}; use the next one")]
    NonceTaken {
        /// Whose account it is.
        sender: NodeId,
        /// The number.
        nonce: u64,
        /// Which waits with it.
        transaction: TransactionId,
    },
    /// Transactions of an account wait in a row, so that each of them can be included.
    #[error("nonce {nonce} of {sender} is out of turn, the next one is {next}; sign it again with that")]
    NonceOutOfTurn {
        /// Whose account it is.
        sender: NodeId,
        /// Of the transaction.
        nonce: u64,
        /// The one that may wait.
        next: u64,
    },
    /// An expired transaction can never be included.
    #[error("transaction expires at height {expiry}, the next block is {next}; sign one with a later expiry")]
    TransactionExpired {
        /// Last height at which it can be included.
        expiry: Height,
        /// Height of the next block.
        next: Height,
    },
    /// One account's share is bounded.
    #[error("{sender} has {max} transactions waiting; wait for a block")]
    SenderFull {
        /// Whose account it is.
        sender: NodeId,
        /// Most that may wait.
        max: usize,
    },
    /// One account's share of the bytes is bounded.
    #[error("{sender} has {bytes} of at most {max} bytes of transactions waiting; wait for a block")]
    SenderBytesFull {
        /// Whose account it is.
        sender: NodeId,
        /// Bytes that wait.
        bytes: usize,
        /// Most bytes that may wait.
        max: usize,
    },
    /// The bytes of waiting transactions are bounded.
    #[error("waiting transactions have {bytes} of at most {max} bytes; wait for a block")]
    TransactionBytesFull {
        /// Bytes that wait.
        bytes: usize,
        /// Most bytes that may wait.
        max: usize,
    },
    /// The number of waiting transactions is bounded.
    #[error("{max} transactions are waiting, which is the most; wait for a block")]
    TransactionsFull {
        /// Most that may wait.
        max: usize,
    },
    /// One requester's share is bounded.
    #[error("requester {requester} has {max} proofs waiting; wait for a block")]
    RequesterFull {
        /// The requester.
        requester: NodeId,
        /// Most that may wait.
        max: usize,
    },
    /// The number of waiting proofs is bounded.
    #[error("{max} proofs are waiting, which is the most; wait for a block")]
    Full {
        /// Most that may wait.
        max: usize,
    },
    /// The bytes of waiting proofs are bounded.
    #[error("waiting proofs have {bytes} of at most {max} bytes; wait for a block")]
    BytesFull {
        /// Bytes that wait.
        bytes: usize,
        /// Most bytes that may wait.
        max: usize,
    },
}

impl AdmissionError {
    /// The rule's stable name, which clients match on.
    pub fn rule(&self) -> &'static str {
        match self {
            AdmissionError::DuplicateRecord { .. } => "DuplicateRecord",
            AdmissionError::DuplicateRequest { .. } => "DuplicateRequest",
            AdmissionError::Expired { .. } => "Expired",
            AdmissionError::DuplicateTransaction { .. } => "DuplicateTransaction",
            AdmissionError::NonceTaken { .. } => "NonceTaken",
            AdmissionError::NonceOutOfTurn { .. } => "NonceOutOfTurn",
            AdmissionError::TransactionExpired { .. } => "TransactionExpired",
            AdmissionError::SenderFull { .. } => "SenderFull",
            AdmissionError::SenderBytesFull { .. } => "SenderBytesFull",
            AdmissionError::TransactionBytesFull { .. } => "TransactionBytesFull",
            AdmissionError::TransactionsFull { .. } => "TransactionsFull",
            AdmissionError::RequesterFull { .. } => "RequesterFull",
            AdmissionError::Full { .. } => "Full",
            AdmissionError::BytesFull { .. } => "BytesFull",
        }
    }
}
