//! Blocks, by how much of them was checked: [`Header`] and [`Body`] as they travel, [`ProposedBlock`] well formed with
//! every proof verified, [`FinalBlock`] with a certificate. What a block does to the state is runtime's business.

use std::collections::BTreeSet;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::attestation::{SignedAttestation, VerifiedAttestation};
use crate::certificate::{CommitCertificate, ValidatorSet};
use crate::codec::Versioned;
use crate::error::{BlockError, CertificateError};
use crate::evidence::Evidence;
use crate::hash::Domain;
use crate::ids::{BlockHash, ChainId, Digest, NodeId, RecordId};
use crate::keys::VrfProof;
use crate::limits::{
    BLOCK_ATTESTATIONS_MAX, BLOCK_EVIDENCE_MAX, BLOCK_RECORDS_MAX, BLOCK_TRANSACTIONS_MAX, BODY_BYTES_MAX,
    HEADER_BYTES_MAX, STAMP_ZERO_DIGITS_MAX,
};
use crate::merkle;
use crate::proof::{SignedProof, VerifiedProof};
use crate::transaction::{SignedTransaction, VerifiedTransaction};
use crate::units::{Height, Round, Timestamp};

/// All that a block's hash covers. Its first encoded byte is the version.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// The chain.
    pub chain_id: ChainId,
    /// Number of the block.
    pub height: Height,
    /// Attempt in which it was proposed.
    pub round: Round,
    /// When it was proposed, by the proposer's clock.
    pub timestamp_ms: Timestamp,
    /// Hash of the block below; zero for genesis.
    pub parent: BlockHash,
    /// Who proposed it; zero for genesis.
    pub proposer: NodeId,
    /// Merkle root over the ids of its records: see [`crate::merkle`].
    pub records_root: Digest,
    /// Number of records.
    pub record_count: u32,
    /// Number of transactions.
    pub transaction_count: u32,
    /// Number of attestations.
    pub attestation_count: u32,
    /// Number of pieces of evidence.
    pub evidence_count: u32,
    /// Digest over every byte of its body.
    pub body_root: Digest,
    /// Root of the state on which this block is executed, which is the state after its parent. The genesis block, which
    /// has no parent, names the state that it begins with.
    pub state_root: Digest,
    /// Hash of the validator set that votes on it.
    pub validators_hash: Digest,
    /// Hash of the set that votes on the block above: who trusts this header knows whom to trust there.
    pub next_validators_hash: Digest,
    /// The proposer's share of the chain's random number: see `aria-runtime`'s beacon.
    pub vrf: VrfProof,
    /// Makes the hash start with zeros: a stamp against spam that elects nobody.
    pub nonce: u64,
}

impl Versioned for Header {
    const NAME: &'static str = "header";
    const VERSION: u8 = 3;
    const BYTES_MAX: usize = HEADER_BYTES_MAX;
}

impl Header {
    /// The block's hash.
    pub fn hash(&self) -> BlockHash {
        BlockHash::new(*Domain::BLOCK.hash(&self.encode()).as_bytes())
    }

    /// Whether it carries nothing: such a block is a heartbeat.
    pub fn is_empty(&self) -> bool {
        [self.record_count, self.transaction_count, self.attestation_count, self.evidence_count] == [0; 4]
    }
}

/// What a block carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Body {
    /// What validators are accused of, in order.
    #[borsh(deserialize_with = "crate::codec::bounded::evidence")]
    pub evidence: Vec<Evidence>,
    /// What accounts order, in order.
    #[borsh(deserialize_with = "crate::codec::bounded::transactions")]
    pub transactions: Vec<SignedTransaction>,
    /// What auditors say, in order.
    #[borsh(deserialize_with = "crate::codec::bounded::attestations")]
    pub attestations: Vec<SignedAttestation>,
    /// Proofs in their order.
    #[borsh(deserialize_with = "crate::codec::bounded::proofs")]
    pub proofs: Vec<SignedProof>,
}

impl Versioned for Body {
    const NAME: &'static str = "body";
    const VERSION: u8 = 3;
    const BYTES_MAX: usize = BODY_BYTES_MAX;
}

/// What a block carries, every signature of its transactions and proofs being checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifiedBody {
    /// See [`Body::evidence`].
    pub evidence: Vec<Evidence>,
    /// See [`Body::transactions`].
    pub transactions: Vec<VerifiedTransaction>,
    /// See [`Body::attestations`].
    pub attestations: Vec<VerifiedAttestation>,
    /// See [`Body::proofs`].
    pub proofs: Vec<VerifiedProof>,
}

impl From<Vec<VerifiedProof>> for VerifiedBody {
    /// A body with nothing but proofs.
    fn from(proofs: Vec<VerifiedProof>) -> VerifiedBody {
        VerifiedBody { proofs, ..VerifiedBody::default() }
    }
}

impl VerifiedBody {
    /// Digest over every byte of it, in order.
    pub fn root(&self) -> Digest {
        let evidence: Vec<Digest> = self.evidence.iter().map(Evidence::digest).collect();
        let transactions: Vec<Digest> = self.transactions.iter().map(VerifiedTransaction::digest).collect();
        let attestations: Vec<Digest> = self.attestations.iter().map(VerifiedAttestation::digest).collect();
        let proofs: Vec<Digest> = self.proofs.iter().map(VerifiedProof::digest).collect();
        Domain::BODY.hash_of(&(evidence, transactions, attestations, proofs))
    }

    /// Places that its transactions take.
    pub fn places(&self) -> usize {
        self.transactions.iter().map(VerifiedTransaction::places).sum()
    }

    /// Length of the transactions, attestations and proofs.
    pub fn size_bytes(&self) -> usize {
        let transactions: usize = self.transactions.iter().map(VerifiedTransaction::size_bytes).sum();
        let attestations: usize = self.attestations.iter().map(VerifiedAttestation::size_bytes).sum();
        self.proofs.iter().map(VerifiedProof::size_bytes).sum::<usize>() + transactions + attestations
    }
}

/// Whether a hash starts with this many zero hex digits.
pub fn has_stamp(hash: &BlockHash, zero_digits: u8) -> bool {
    let digits = hash.as_bytes().iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.take(usize::from(zero_digits)).all(|digit| digit == 0)
}

/// What a proposer decides about a block; the rest of the header follows from the proofs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The chain.
    pub chain_id: ChainId,
    /// Number of the block.
    pub height: Height,
    /// Attempt.
    pub round: Round,
    /// When.
    pub timestamp_ms: Timestamp,
    /// Hash of the block below.
    pub parent: BlockHash,
    /// Who proposes.
    pub proposer: NodeId,
    /// Root of the state after the parent.
    pub state_root: Digest,
    /// Hash of the set that will vote.
    pub validators_hash: Digest,
    /// Hash of the set that will vote on the block above.
    pub next_validators_hash: Digest,
    /// The proposer's share of the chain's random number.
    pub vrf: VrfProof,
}

/// A block that is well formed and whose every proof and piece of evidence is verified. Whether it fits on the chain's state, runtime tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedBlock {
    header: Header,
    hash: BlockHash,
    body: VerifiedBody,
}

impl ProposedBlock {
    /// Builds a block and finds its stamp.
    pub fn seal(draft: Draft, body: VerifiedBody, zero_digits: u8) -> Result<ProposedBlock, BlockError> {
        if zero_digits > STAMP_ZERO_DIGITS_MAX {
            return Err(BlockError::StampTooHard { digits: zero_digits });
        }
        check_evidence(&body.evidence, &draft.chain_id)?;
        check_transactions(body.transactions.len())?;
        check_attestations(body.attestations.len())?;
        let records = record_ids(draft.height, &body)?;
        let mut header = Header {
            records_root: merkle::records_root(draft.height, &records),
            record_count: count_of(&body.proofs),
            transaction_count: count_of(&body.transactions),
            attestation_count: count_of(&body.attestations),
            evidence_count: count_of(&body.evidence),
            body_root: body.root(),
            chain_id: draft.chain_id,
            height: draft.height,
            round: draft.round,
            timestamp_ms: draft.timestamp_ms,
            parent: draft.parent,
            proposer: draft.proposer,
            state_root: draft.state_root,
            validators_hash: draft.validators_hash,
            next_validators_hash: draft.next_validators_hash,
            vrf: draft.vrf,
            nonce: 0,
        };
        let mut hash = header.hash();
        while !has_stamp(&hash, zero_digits) {
            header.nonce += 1;
            hash = header.hash();
        }
        Ok(ProposedBlock { header, hash, body })
    }

    /// Checks a block that somebody else built: every rule that needs no state, every signature of every proof.
    pub fn check(header: Header, body: Body, chain_id: &ChainId, zero_digits: u8) -> Result<ProposedBlock, BlockError> {
        check_count(&header, body.proofs.len())?;
        check_transaction_count(&header, body.transactions.len())?;
        check_attestation_count(&header, body.attestations.len())?;
        let Body { evidence, transactions, attestations, proofs } = body;
        let transactions = verify_transactions(transactions, chain_id)?;
        let attestations = verify_attestations(attestations, chain_id)?;
        let proofs = verify_proofs(proofs, chain_id)?;
        let body = VerifiedBody { evidence, transactions, attestations, proofs };
        ProposedBlock::of_verified(header, body, chain_id, zero_digits)
    }

    /// The same where the signatures were checked before, here or when what it carries came to wait.
    pub fn of_verified(
        header: Header,
        body: VerifiedBody,
        chain_id: &ChainId,
        zero_digits: u8,
    ) -> Result<ProposedBlock, BlockError> {
        if header.chain_id != *chain_id {
            return Err(BlockError::Chain { got: header.chain_id, expected: chain_id.clone() });
        }
        let hash = header.hash();
        if !has_stamp(&hash, zero_digits) {
            return Err(BlockError::Stamp { hash, digits: zero_digits });
        }
        check_count(&header, body.proofs.len())?;
        check_transaction_count(&header, body.transactions.len())?;
        check_attestation_count(&header, body.attestations.len())?;
        let records = record_ids(header.height, &body)?;
        let root = merkle::records_root(header.height, &records);
        if header.records_root != root {
            return Err(BlockError::RecordsRoot { header: header.records_root, body: root });
        }
        if u32::try_from(body.evidence.len()) != Ok(header.evidence_count) {
            return Err(BlockError::EvidenceCount { header: header.evidence_count, body: body.evidence.len() });
        }
        let root = body.root();
        if header.body_root != root {
            return Err(BlockError::BodyRoot { header: header.body_root, body: root });
        }
        check_evidence(&body.evidence, chain_id)?;
        Ok(ProposedBlock { header, hash, body })
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its hash.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// What validators are accused of, in order.
    pub fn evidence(&self) -> &[Evidence] {
        &self.body.evidence
    }

    /// Its transactions, in order.
    pub fn transactions(&self) -> &[VerifiedTransaction] {
        &self.body.transactions
    }

    /// What auditors say, in order.
    pub fn attestations(&self) -> &[VerifiedAttestation] {
        &self.body.attestations
    }

    /// Its proofs, in order.
    pub fn proofs(&self) -> &[VerifiedProof] {
        &self.body.proofs
    }

    /// All that it carries.
    pub fn verified_body(&self) -> &VerifiedBody {
        &self.body
    }

    /// Its body, as it travels.
    pub fn body(&self) -> Body {
        let VerifiedBody { evidence, transactions, attestations, proofs } = &self.body;
        let attestations = attestations.iter().map(|attestation| attestation.signed().clone()).collect();
        let transactions = transactions.iter().map(|transaction| transaction.signed().clone()).collect();
        let proofs = proofs.iter().map(|proof| proof.proof().clone()).collect();
        Body { evidence: evidence.clone(), transactions, attestations, proofs }
    }
}

fn check_count(header: &Header, got: usize) -> Result<(), BlockError> {
    if got > BLOCK_RECORDS_MAX {
        return Err(BlockError::TooManyRecords { got });
    }
    if u32::try_from(got) != Ok(header.record_count) {
        return Err(BlockError::RecordCount { header: header.record_count, body: got });
    }
    Ok(())
}

fn check_transactions(got: usize) -> Result<(), BlockError> {
    if got > BLOCK_TRANSACTIONS_MAX {
        return Err(BlockError::TooManyTransactions { got });
    }
    Ok(())
}

fn check_transaction_count(header: &Header, got: usize) -> Result<(), BlockError> {
    check_transactions(got)?;
    if u32::try_from(got) != Ok(header.transaction_count) {
        return Err(BlockError::TransactionCount { header: header.transaction_count, body: got });
    }
    Ok(())
}

fn check_attestations(got: usize) -> Result<(), BlockError> {
    if got > BLOCK_ATTESTATIONS_MAX {
        return Err(BlockError::TooManyAttestations { got });
    }
    Ok(())
}

fn check_attestation_count(header: &Header, got: usize) -> Result<(), BlockError> {
    check_attestations(got)?;
    if u32::try_from(got) != Ok(header.attestation_count) {
        return Err(BlockError::AttestationCount { header: header.attestation_count, body: got });
    }
    Ok(())
}

fn check_evidence(evidence: &[Evidence], chain_id: &ChainId) -> Result<(), BlockError> {
    if evidence.len() > BLOCK_EVIDENCE_MAX {
        return Err(BlockError::TooMuchEvidence { got: evidence.len() });
    }
    let check = |(index, piece): (usize, &Evidence)| {
        piece.check(chain_id).map_err(|fault| BlockError::Evidence { index, fault })
    };
    evidence.iter().enumerate().try_for_each(check)
}

fn verify_transactions(
    transactions: Vec<SignedTransaction>,
    chain_id: &ChainId,
) -> Result<Vec<VerifiedTransaction>, BlockError> {
    let verify = |(index, transaction): (usize, SignedTransaction)| {
        transaction.verify(chain_id).map_err(|fault| BlockError::Transaction { index, fault })
    };
    transactions.into_iter().enumerate().map(verify).collect()
}

fn verify_attestations(
    attestations: Vec<SignedAttestation>,
    chain_id: &ChainId,
) -> Result<Vec<VerifiedAttestation>, BlockError> {
    let verify = |(index, attestation): (usize, SignedAttestation)| {
        attestation.verify(chain_id).map_err(|fault| BlockError::Attestation { index, fault })
    };
    attestations.into_iter().enumerate().map(verify).collect()
}

fn verify_proofs(proofs: Vec<SignedProof>, chain_id: &ChainId) -> Result<Vec<VerifiedProof>, BlockError> {
    let verify = |(index, proof): (usize, SignedProof)| {
        proof.verify(chain_id).map_err(|fault| BlockError::Proof { index, fault })
    };
    proofs.into_iter().enumerate().map(verify).collect()
}

/// Ids of the records of a block above genesis; checks number, size and sameness.
fn record_ids(height: Height, body: &VerifiedBody) -> Result<Vec<RecordId>, BlockError> {
    let proofs = &body.proofs;
    if height == Height::ZERO {
        return Err(BlockError::GenesisHeight);
    }
    if proofs.len() > BLOCK_RECORDS_MAX {
        return Err(BlockError::TooManyRecords { got: proofs.len() });
    }
    let places = body.places();
    if places > BLOCK_TRANSACTIONS_MAX {
        return Err(BlockError::TransactionPlaces { got: places });
    }
    let size = body.size_bytes();
    if size > BODY_BYTES_MAX {
        return Err(BlockError::BodyTooLong { got: size });
    }
    let mut seen = BTreeSet::new();
    for proof in proofs {
        if !seen.insert(proof.record_id()) {
            return Err(BlockError::DuplicateRecord { record: proof.record_id() });
        }
    }
    Ok(proofs.iter().map(VerifiedProof::record_id).collect())
}

fn count_of<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).expect("what a block carries was counted before")
}

/// A block that more than two thirds of its validators signed. It stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalBlock {
    block: ProposedBlock,
    certificate: CommitCertificate,
}

impl FinalBlock {
    /// Joins a block with its certificate, after checking that the set is the block's and the certificate the set's.
    pub fn new(
        block: ProposedBlock,
        certificate: CommitCertificate,
        set: &ValidatorSet,
    ) -> Result<FinalBlock, CertificateError> {
        verify_certificate(&block.header, &block.hash, &certificate, set)?;
        Ok(FinalBlock { block, certificate })
    }

    /// The block.
    pub fn block(&self) -> &ProposedBlock {
        &self.block
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.block.header
    }

    /// Its hash.
    pub fn hash(&self) -> BlockHash {
        self.block.hash
    }

    /// What made it final.
    pub fn certificate(&self) -> &CommitCertificate {
        &self.certificate
    }
}

/// Checks that a certificate makes the block of this header final, by the set that the header names; returns the power that
/// signed it.
pub(crate) fn verify_certificate(
    header: &Header,
    hash: &BlockHash,
    certificate: &CommitCertificate,
    set: &ValidatorSet,
) -> Result<u64, CertificateError> {
    let set_hash = set.hash();
    if set_hash != header.validators_hash {
        return Err(CertificateError::WrongSet { got: set_hash, expected: header.validators_hash });
    }
    if certificate.height != header.height {
        return Err(CertificateError::WrongHeight { got: certificate.height, expected: header.height });
    }
    if certificate.block_hash != *hash {
        return Err(CertificateError::WrongBlock { got: certificate.block_hash, expected: *hash });
    }
    certificate.verify(&header.chain_id, set)
}

/// The first block, which everyone computes from the genesis file and nobody signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenesisBlock {
    header: Header,
    hash: BlockHash,
    validators: ValidatorSet,
}

impl GenesisBlock {
    /// The block at height 0: no parent, no records, no stamp. `state_root` is the root of the state it begins with; the
    /// parameters of the chain must be part of that state, so that the genesis hash covers them.
    pub fn new(
        chain_id: ChainId,
        timestamp_ms: Timestamp,
        validators: ValidatorSet,
        state_root: Digest,
    ) -> GenesisBlock {
        let header = Header {
            chain_id,
            height: Height::ZERO,
            round: Round::ZERO,
            timestamp_ms,
            parent: BlockHash::ZERO,
            proposer: NodeId::ZERO,
            records_root: merkle::records_root(Height::ZERO, &[]),
            record_count: 0,
            transaction_count: 0,
            attestation_count: 0,
            evidence_count: 0,
            body_root: VerifiedBody::default().root(),
            state_root,
            validators_hash: validators.hash(),
            next_validators_hash: validators.hash(),
            vrf: VrfProof::NONE,
            nonce: 0,
        };
        GenesisBlock { hash: header.hash(), header, validators }
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The genesis hash.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// Who votes on the block above.
    pub fn validators(&self) -> &ValidatorSet {
        &self.validators
    }
}
