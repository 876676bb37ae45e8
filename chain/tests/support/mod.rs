//! Requests, records, proofs and small chains for the tests of this crate. All keys come from fixed seeds.

use std::path::Path;

use aria_chain::attestation::{Attestation, SignedAttestation, Statement, VerifiedAttestation};
use aria_chain::block::{Draft, FinalBlock, GenesisBlock, ProposedBlock, VerifiedBody};
use aria_chain::certificate::{CommitCertificate, Validator, ValidatorSet, Vote};
use aria_chain::consent::Consent;
use aria_chain::evidence::{Evidence, Said};
use aria_chain::hash::{commit_output, commit_prompt};
use aria_chain::ids::{BlockHash, ChainId, Digest, ModelId, NodeId};
use aria_chain::keys::{NodeKey, VrfProof};
use aria_chain::model::{ModelName, Shape};
use aria_chain::proof::{SignedProof, VerifiedProof};
use aria_chain::record::{BackendClass, EnergySource, InferenceRecord, Stage};
use aria_chain::request::{AuditMode, InferenceRequest, TaskType};
use aria_chain::store::{
    ChainFault, LinkRules, OpenOptions, OpenReport, SledStore, StateChanges, Store, StoreError, Tip, verify_chain_links,
};
use aria_chain::transaction::{Action, SignedTransaction, Transaction, VerifiedTransaction};
use aria_chain::units::{Height, Microjoules, Millis, NanoAria, Round, Timestamp};

/// Digits of the stamp in these tests: one, so that a block takes sixteen tries.
pub(crate) const STAMP: u8 = 1;

pub(crate) fn chain_id() -> ChainId {
    ChainId::new("aria-test").unwrap()
}

/// The key of a seed; nodes 1 to 255.
pub(crate) fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed(&[seed; 32])
}

pub(crate) fn node(seed: u8) -> NodeId {
    key(seed).node_id()
}

/// What a proof is made from. Change what the test is about.
#[derive(Clone, Debug)]
pub(crate) struct Maker {
    pub(crate) requester: u8,
    /// Node and layers of each stage.
    pub(crate) stages: Vec<(u8, u16, u16)>,
    pub(crate) model: u8,
    pub(crate) nonce: u64,
    pub(crate) expiry: u64,
    pub(crate) backend: BackendClass,
}

impl Default for Maker {
    fn default() -> Maker {
        Maker {
            requester: 1,
            stages: vec![(2, 0, 12), (3, 12, 24)],
            model: 9,
            nonce: 0,
            expiry: 1_000,
            backend: BackendClass::Canonical,
        }
    }
}

impl Maker {
    pub(crate) fn nonce(nonce: u64) -> Maker {
        Maker { nonce, ..Maker::default() }
    }

    pub(crate) fn request(&self) -> InferenceRequest {
        InferenceRequest {
            chain_id: chain_id(),
            model_id: ModelId::new([self.model; 32]),
            prompt_commitment: commit_prompt(&[5; 32], &[1, 2, 3]),
            temperature_ppm: 700_000,
            top_p_ppm: 950_000,
            top_k: 40,
            min_p_ppm: 50_000,
            repetition_penalty_ppm: 1_100_000,
            presence_penalty_ppm: -500_000,
            frequency_penalty_ppm: 500_000,
            logit_bias_commitment: Digest::new([4; 32]),
            seed: 42,
            choices: 2,
            max_tokens: 100,
            stop_commitment: Digest::new([6; 32]),
            task_type: TaskType::TextGeneration,
            audit: AuditMode::Committee,
            max_fee: NanoAria::new(1_000_000),
            requester: node(self.requester),
            nonce: self.nonce,
            expiry: Height::new(self.expiry),
        }
    }

    pub(crate) fn record(&self) -> InferenceRecord {
        let request = self.request();
        let stages = self.stages.iter();
        let is_canonical = self.backend == BackendClass::Canonical;
        InferenceRecord {
            request_id: request.id(),
            query_hash: request.prompt_commitment,
            output_hash: commit_output(&[7; 32], &[vec![4, 5], vec![6]]),
            model_id: request.model_id,
            stages: stages
                .map(|(seed, start, end)| Stage { node_id: node(*seed), layer_start: *start, layer_end: *end })
                .collect(),
            energy_uj: Microjoules::new(28_500),
            energy_source: EnergySource::Estimated,
            latency_ms: Millis::new(1_200),
            first_token_ms: Millis::new(80),
            prompt_tokens: 3,
            tokens_generated: 3,
            timestamp_ms: Timestamp::new(1_700_000_000_000),
            backend: self.backend,
            transcript_root: if is_canonical { Digest::new([8; 32]) } else { Digest::ZERO },
        }
    }

    pub(crate) fn signed(&self) -> SignedProof {
        self.sign(self.request(), self.record())
    }

    /// Everyone's honest signature under a request and a record.
    pub(crate) fn sign(&self, request: InferenceRequest, record: InferenceRecord) -> SignedProof {
        let (chain, id) = (chain_id(), record.id());
        let stages = (0u16..).zip(&self.stages);
        let stage_signatures = stages.map(|(place, (seed, ..))| key(*seed).sign_stage(&chain, &id, place)).collect();
        let requester = key(self.requester);
        SignedProof {
            request_signature: requester.sign_request(&chain, &request.id()),
            receipt_signature: requester.sign_receipt(&chain, &id),
            request,
            record,
            stage_signatures,
        }
    }

    pub(crate) fn verified(&self) -> VerifiedProof {
        self.signed().verify(&chain_id()).unwrap()
    }
}

/// What the node of a seed commits to about two records of block 1, and opens of a third.
pub(crate) fn attestation(seed: u8) -> VerifiedAttestation {
    attest(seed, Statement::Commit(vec![(0, Digest::new([1; 32])), (7, Digest::new([2; 32]))]))
        .verify(&chain_id())
        .unwrap()
}

/// A statement about records of block 1 by the node of a seed.
pub(crate) fn attest(seed: u8, statement: Statement) -> SignedAttestation {
    let attestation = Attestation { chain_id: chain_id(), auditor: node(seed), height: Height::new(1), statement };
    let signature = key(seed).sign_attestation(&chain_id(), &attestation.id());
    SignedAttestation { attestation, signature }
}

/// A transfer of one ARIA between the nodes of two seeds.
pub(crate) fn transfer(from: u8, to: u8, nonce: u64) -> VerifiedTransaction {
    order(from, nonce, Action::Transfer { to: node(to), amount: NanoAria::new(1_000_000_000) })
}

/// Something that an account orders.
pub(crate) fn order(from: u8, nonce: u64, action: Action) -> VerifiedTransaction {
    let transaction = Transaction {
        chain_id: chain_id(),
        sender: node(from),
        nonce,
        fee: NanoAria::new(100_000),
        expiry: Height::new(1_000),
        action,
    };
    sign_transaction(from, transaction).verify(&chain_id()).unwrap()
}

/// What the node of a seed states of its machine.
pub(crate) fn consent(from: u8, nonce: u64, contract: Option<Consent>) -> SignedTransaction {
    let mut transaction = transfer(from, from, nonce).transaction().clone();
    transaction.action = Action::Consent { contract };
    sign_transaction(from, transaction)
}

/// The shape of the built-in model.
pub(crate) const SHAPE: Shape =
    Shape { layers: 6, dim: 256, ffn: 768, heads: 4, kv_heads: 2, head_dim: 64, vocab: 4_096 };

/// A transaction of one account that proposes a model.
pub(crate) fn register(from: u8, name: &str, shape: Shape) -> SignedTransaction {
    let name = ModelName::new(name).unwrap();
    let action = Action::RegisterModel { model: ModelId::new([7; 32]), name, shape };
    sign_transaction(from, Transaction { action, ..transfer(from, from, 0).transaction().clone() })
}

/// A transaction signed by the key of a seed, whoever its sender is.
pub(crate) fn sign_transaction(seed: u8, transaction: Transaction) -> SignedTransaction {
    let signature = key(seed).sign_transaction(&chain_id(), &transaction.id());
    SignedTransaction { transaction, signature }
}

/// A verified proof of one node for one model.
pub(crate) fn proof(nonce: u64) -> VerifiedProof {
    Maker::nonce(nonce).verified()
}

/// Validators of seeds 101 and up, each with power 10.
pub(crate) fn validators(count: u8) -> ValidatorSet {
    let members = (0..count).map(|place| Validator { node_id: node(101 + place), power: 10 });
    ValidatorSet::new(members.collect()).unwrap()
}

/// A chain of blocks in the making: knows what the next header must say.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) genesis: GenesisBlock,
    pub(crate) draft: Draft,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) transactions: Vec<VerifiedTransaction>,
    pub(crate) attestations: Vec<VerifiedAttestation>,
    pub(crate) members: u8,
}

/// Root of the state after a height, in these tests.
pub(crate) fn state_root(height: u64) -> Digest {
    aria_chain::hash::Domain::NO_RECORDS.hash_of(&height)
}

impl Chain {
    pub(crate) fn new(members: u8) -> Chain {
        let set = validators(members);
        let genesis = GenesisBlock::new(chain_id(), Timestamp::new(1_000), set.clone(), state_root(0));
        let draft = Draft {
            chain_id: chain_id(),
            height: Height::new(1),
            round: Round::ZERO,
            timestamp_ms: Timestamp::new(2_000),
            parent: genesis.hash(),
            proposer: node(101),
            state_root: state_root(0),
            validators_hash: set.hash(),
            next_validators_hash: set.hash(),
            vrf: VrfProof::NONE,
        };
        Chain { genesis, draft, evidence: Vec::new(), transactions: Vec::new(), attestations: Vec::new(), members }
    }

    /// State at the start: one entry.
    pub(crate) fn initial(&self) -> StateChanges {
        let entries = vec![(b"supply".to_vec(), Some(b"0".to_vec()))];
        StateChanges { entries, state_root: state_root(0), ..StateChanges::default() }
    }

    pub(crate) fn propose(&self, proofs: Vec<VerifiedProof>) -> ProposedBlock {
        let body = VerifiedBody {
            evidence: self.evidence.clone(),
            transactions: self.transactions.clone(),
            attestations: self.attestations.clone(),
            proofs,
        };
        ProposedBlock::seal(self.draft.clone(), body, STAMP).unwrap()
    }

    pub(crate) fn votes(&self, block: &ProposedBlock) -> Vec<Vote> {
        let header = block.header();
        let vote = |place| Vote::sign(&key(101 + place), &chain_id(), header.height, header.round, block.hash());
        (0..self.members).map(vote).collect()
    }

    pub(crate) fn finalise(&self, block: ProposedBlock) -> FinalBlock {
        let votes = self.votes(&block);
        let header = block.header();
        let certificate = CommitCertificate::gather(header.height, header.round, block.hash(), &votes);
        FinalBlock::new(block, certificate, &validators(self.members)).unwrap()
    }

    /// The next block and its changes; the chain moves on.
    pub(crate) fn next(&mut self, proofs: Vec<VerifiedProof>) -> (FinalBlock, StateChanges) {
        let block = self.finalise(self.propose(proofs));
        let height = self.draft.height.get();
        let entries = vec![
            (format!("height/{height:04}").into_bytes(), Some(height.to_be_bytes().to_vec())),
            (b"supply".to_vec(), Some(height.to_string().into_bytes())),
        ];
        let changes = StateChanges { entries, state_root: state_root(height), ..StateChanges::default() };
        self.draft.validators_hash = self.draft.next_validators_hash;
        self.evidence.clear();
        self.transactions.clear();
        self.attestations.clear();
        self.draft.height = Height::new(height + 1);
        self.draft.parent = block.hash();
        self.draft.state_root = changes.state_root;
        self.draft.timestamp_ms = Timestamp::new(2_000 + height);
        (block, changes)
    }
}

impl Chain {
    /// A block after which so many validators vote.
    pub(crate) fn hand_over(&mut self, members: u8) -> (FinalBlock, StateChanges) {
        let set = validators(members);
        self.draft.next_validators_hash = set.hash();
        let (block, mut changes) = self.next(Vec::new());
        changes.validators = Some(set);
        self.members = members;
        (block, changes)
    }

    /// Two votes of one validator in one place.
    pub(crate) fn equivocation(&self, seed: u8) -> Evidence {
        let (key, chain, height) = (key(seed), chain_id(), self.draft.height);
        let block = BlockHash::new([seed; 32]);
        let vote = (Said::Prevote(Some(block)), key.sign_prevote(&chain, height, Round::ZERO, Some(&block)));
        let nil = (Said::Prevote(None), key.sign_prevote(&chain, height, Round::ZERO, None));
        Evidence::new(key.node_id(), height, Round::ZERO, vote, nil)
    }

    /// Goes on behind the last block of a store.
    pub(crate) fn resume(&mut self, tip: &Tip) {
        self.draft.height = tip.height.next().unwrap();
        self.draft.parent = tip.hash;
        self.draft.state_root = tip.state_root;
        self.draft.timestamp_ms = Timestamp::new(2_000 + tip.height.get());
    }
}

/// Opens the store of a chain on disk.
pub(crate) fn open(path: &Path, chain: &Chain) -> Result<(SledStore, OpenReport), StoreError> {
    SledStore::open(path, &chain.genesis, &chain.initial(), OpenOptions::default())
}

/// Checks every block and signature.
pub(crate) fn verify(store: &dyn Store) -> Result<u64, ChainFault> {
    let rules = LinkRules { stamp_zero_digits: STAMP };
    verify_chain_links(store, Height::ZERO, Height::new(u64::MAX), rules, &mut |_| {})
}
