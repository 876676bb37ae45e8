//! A small chain to try rules on: one validator or several, a registered model, requests and records on demand.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]
#![allow(dead_code, reason = "each test binary uses its own part of the scenario")]

pub(crate) mod tampered;

use aria_chain::attestation::VerifiedAttestation;
use aria_chain::block::{Draft, FinalBlock, Header, ProposedBlock, VerifiedBody};
use aria_chain::certificate::{CommitCertificate, ValidatorSet, Vote};
use aria_chain::evidence::Evidence;
use aria_chain::ids::{Digest, ModelId, NodeId};
use aria_chain::keys::{NodeKey, VrfProof};
use aria_chain::proof::{SignedProof, VerifiedProof};
use aria_chain::record::{BackendClass, EnergySource, InferenceRecord, Stage};
use aria_chain::request::{AuditMode, InferenceRequest, TaskType};
use aria_chain::transaction::{Action, SignedTransaction, Transaction, VerifiedTransaction};
use aria_chain::units::{Height, Microjoules, Millis, NanoAria, Round, Timestamp};
use aria_runtime::beacon;
use aria_runtime::execute::{BlockFault, ExecuteError, ExecutedBlock, execute};
use aria_runtime::genesis::Genesis;
use aria_runtime::propose::{Proposal, ProposeError, Slot, Waiting, check_orderable, propose};
use aria_runtime::rules::fee::least;
use aria_runtime::rules::transaction::{OrderError, TransactionFault};
use aria_runtime::state::{MemoryState, Reader};
use aria_runtime::voters::Voters;

pub(crate) const DEVNET: &str = include_str!("../../../genesis/devnet.toml");

/// Layers of the registered model.
pub(crate) const LAYERS: u16 = 6;

/// Whose key signs requests.
pub(crate) const REQUESTER: u8 = 40;

/// Key number `n` of the scenario.
pub(crate) fn key(n: u8) -> NodeKey {
    NodeKey::from_seed(&[n; 32])
}

/// A chain under test: key 1 is its first validator.
pub(crate) struct Scenario {
    pub(crate) genesis: Genesis,
    pub(crate) state: MemoryState,
    pub(crate) tip: Header,
    /// Round in which the next block is proposed.
    pub(crate) round: Round,
    /// What waits to be held against validators.
    pub(crate) evidence: Vec<Evidence>,
    /// What accounts order.
    pub(crate) transactions: Vec<VerifiedTransaction>,
    /// What auditors say.
    pub(crate) attestations: Vec<VerifiedAttestation>,
    nonce: u64,
}

/// A proof before it is signed; tests change what they are about.
#[derive(Clone)]
pub(crate) struct Unsigned {
    pub(crate) request: InferenceRequest,
    pub(crate) record: InferenceRecord,
    /// Keys of the stages, in order.
    pub(crate) stage_keys: Vec<u8>,
    /// Key of the requester.
    pub(crate) requester_key: u8,
}

impl Scenario {
    /// The devnet of key 1.
    pub(crate) fn devnet() -> Scenario {
        Scenario::new(DEVNET)
    }

    /// A devnet with other text.
    pub(crate) fn new(text: &str) -> Scenario {
        let genesis = Genesis::from_toml(text, Some(key(1).node_id())).unwrap();
        let mut state = MemoryState::new();
        state.apply(&genesis.changes().entries);
        let tip = genesis.block().header().clone();
        Scenario {
            genesis,
            state,
            tip,
            round: Round::ZERO,
            evidence: Vec::new(),
            transactions: Vec::new(),
            attestations: Vec::new(),
            nonce: 0,
        }
    }

    /// The devnet with lines added: more accounts, more validators.
    pub(crate) fn with(lines: &str) -> Scenario {
        Scenario::new(&format!("{DEVNET}\n{lines}"))
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader(&self.state)
    }

    pub(crate) fn model(&self) -> ModelId {
        self.reader().models(1).unwrap()[0].0
    }

    /// A moment one block interval after the tip.
    pub(crate) fn soon(&self) -> Timestamp {
        self.after_ms(self.genesis.params().block_interval_ms)
    }

    pub(crate) fn after_ms(&self, span: u64) -> Timestamp {
        self.tip.timestamp_ms.plus(Millis::new(span)).unwrap()
    }

    /// A fresh request and a plain record of it: 20 prompt tokens, 51 generated at 20 ms each, 28 mJ per token, all on
    /// the node of key 1.
    pub(crate) fn claim(&mut self) -> Unsigned {
        self.nonce += 1;
        let request = InferenceRequest {
            chain_id: self.genesis.chain_id().clone(),
            model_id: self.model(),
            prompt_commitment: Digest::new([3; 32]),
            temperature_ppm: 700_000,
            top_p_ppm: 1_000_000,
            top_k: 40,
            min_p_ppm: 0,
            repetition_penalty_ppm: 1_000_000,
            presence_penalty_ppm: 0,
            frequency_penalty_ppm: 0,
            logit_bias_commitment: Digest::new([4; 32]),
            seed: 42,
            choices: 1,
            max_tokens: 4_096,
            stop_commitment: Digest::new([5; 32]),
            task_type: TaskType::TextGeneration,
            audit: AuditMode::Committee,
            max_fee: NanoAria::ZERO,
            requester: key(REQUESTER).node_id(),
            nonce: self.nonce,
            expiry: self.tip.height.plus(1_000).unwrap(),
        };
        let record = InferenceRecord {
            request_id: request.id(),
            query_hash: request.prompt_commitment,
            output_hash: Digest::new([6; 32]),
            model_id: request.model_id,
            stages: vec![Stage { node_id: key(1).node_id(), layer_start: 0, layer_end: LAYERS }],
            energy_uj: Microjoules::new(28_000 * 51),
            energy_source: EnergySource::Measured,
            latency_ms: Millis::new(1_200),
            first_token_ms: Millis::new(200),
            prompt_tokens: 20,
            tokens_generated: 51,
            timestamp_ms: self.tip.timestamp_ms,
            backend: BackendClass::Canonical,
            transcript_root: Digest::new([7; 32]),
        };
        Unsigned { request, record, stage_keys: vec![1], requester_key: REQUESTER }
    }

    /// A claim with one change, signed and verified.
    pub(crate) fn proof(&mut self, change: impl FnOnce(&mut Unsigned)) -> VerifiedProof {
        let mut claim = self.claim();
        change(&mut claim);
        self.sign(claim)
    }

    /// Signs a claim as it stands; the record takes over what the request says.
    pub(crate) fn sign(&self, claim: Unsigned) -> VerifiedProof {
        let Unsigned { mut request, mut record, stage_keys, requester_key } = claim;
        let requester = key(requester_key);
        request.requester = requester.node_id();
        let chain = self.genesis.chain_id();
        record.request_id = request.id();
        record.model_id = request.model_id;
        let id = record.id();
        let signed = SignedProof {
            stage_signatures: (0..).zip(stage_keys).map(|(stage, n)| key(n).sign_stage(chain, &id, stage)).collect(),
            request_signature: requester.sign_request(chain, &request.id()),
            receipt_signature: requester.sign_receipt(chain, &id),
            request,
            record,
        };
        signed.verify(chain).unwrap()
    }

    /// An order of the account of key `n`, signed and verified; a test changes what it is about.
    pub(crate) fn order(&self, n: u8, action: Action, change: impl FnOnce(&mut Transaction)) -> VerifiedTransaction {
        let account = self.reader().account(&key(n).node_id()).unwrap().unwrap_or_default();
        let mut transaction = Transaction {
            chain_id: self.genesis.chain_id().clone(),
            sender: key(n).node_id(),
            nonce: account.nonce,
            fee: NanoAria::ZERO,
            expiry: self.tip.height.plus(100).unwrap(),
            action,
        };
        transaction.fee = least(transaction.places(), self.genesis.params());
        change(&mut transaction);
        let signature = key(n).sign_transaction(self.genesis.chain_id(), &transaction.id());
        SignedTransaction { transaction, signature }.verify(self.genesis.chain_id()).unwrap()
    }

    pub(crate) fn propose(&self, timestamp: Timestamp, proofs: Vec<VerifiedProof>) -> Result<Proposal, ProposeError> {
        let (proposer, vrf) = (self.proposer(), self.vrf());
        let slot = Slot { parent: &self.tip, round: self.round, timestamp, proposer, vrf };
        let (evidence, transactions) = (self.evidence.clone(), self.transactions.clone());
        let attestations = self.attestations.clone();
        propose(slot, Waiting { evidence, transactions, attestations, proofs }, &self.state, &self.genesis)
    }

    /// Who votes on the next block.
    pub(crate) fn voters(&self) -> Voters {
        Voters::above(self.tip.height, &self.state, self.genesis.params()).unwrap()
    }

    /// Whose turn it is to propose in `round`.
    pub(crate) fn proposer(&self) -> NodeId {
        self.voters().schedule().proposer(self.tip.height.next().unwrap(), self.round)
    }

    /// The share of the next proposer, which is one of keys 1 to 30, in the chain's random number.
    pub(crate) fn vrf(&self) -> VrfProof {
        let proposer = self.proposer();
        let own = (1..=30).map(key).find(|key| key.node_id() == proposer).unwrap();
        own.prove_vrf(&beacon::input(self.tip.height.next().unwrap(), &self.state).unwrap())
    }

    /// An order is refused with this fault, by the proposer's side and by execution; nothing else happens.
    #[track_caller]
    pub(crate) fn refuses(&mut self, order: &VerifiedTransaction, fault: &TransactionFault) {
        self.transactions = vec![order.clone()];
        let proposal = self.propose(self.soon(), Vec::new()).unwrap();
        assert_eq!(proposal.refused, [(order.id(), fault.clone())]);
        let alone = check_orderable(&self.tip, self.soon(), std::slice::from_ref(order), &self.state, &self.genesis);
        assert_eq!(alone, Err(OrderError::Fault(fault.clone())));
        let fault = BlockFault::Transaction { index: 0, transaction: order.id(), fault: fault.clone() };
        assert_eq!(self.execute(self.draft(self.soon()), Vec::new()), Err(ExecuteError::Invalid(fault)));
        self.transactions.clear();
    }

    /// A draft that is right in every field.
    pub(crate) fn draft(&self, timestamp: Timestamp) -> Draft {
        Draft {
            chain_id: self.genesis.chain_id().clone(),
            height: self.tip.height.next().unwrap(),
            round: self.round,
            timestamp_ms: timestamp,
            parent: self.tip.hash(),
            proposer: self.proposer(),
            state_root: self.state.full_root(),
            // Right as long as the set of genesis votes.
            validators_hash: self.genesis.validators().hash(),
            next_validators_hash: self.genesis.validators().hash(),
            vrf: self.vrf(),
        }
    }

    /// Executes a block that carries these proofs, whatever is wrong with them or it.
    pub(crate) fn execute(&self, draft: Draft, proofs: Vec<VerifiedProof>) -> Result<ExecutedBlock, ExecuteError> {
        let (evidence, transactions) = (self.evidence.clone(), self.transactions.clone());
        let attestations = self.attestations.clone();
        let body = VerifiedBody { evidence, transactions, attestations, proofs };
        let block = ProposedBlock::seal(draft, body, self.genesis.params().stamp_zero_digits).unwrap();
        execute(&block, &self.tip, &self.state, &self.genesis)
    }

    /// Proposes a block of these proofs, checks that execution agrees, and makes it the tip.
    #[track_caller]
    pub(crate) fn advance(
        &mut self,
        timestamp: Timestamp,
        proofs: Vec<VerifiedProof>,
    ) -> (ProposedBlock, ExecutedBlock) {
        let proposal = self.propose(timestamp, proofs).unwrap();
        assert_eq!((proposal.skipped, proposal.refused, proposal.unheard), (vec![], vec![], vec![]));
        let (block, executed) = proposal.block.expect("a block can be made here");
        let again = ProposedBlock::check(
            block.header().clone(),
            block.body(),
            self.genesis.chain_id(),
            self.genesis.params().stamp_zero_digits,
        );
        assert_eq!(execute(&again.unwrap(), &self.tip, &self.state, &self.genesis).as_ref(), Ok(&executed));
        self.state.apply(&executed.changes.entries);
        self.tip = block.header().clone();
        (block, executed)
    }

    /// One heartbeat.
    pub(crate) fn beat(&mut self) -> (ProposedBlock, ExecutedBlock) {
        self.advance(self.after_ms(self.genesis.params().heartbeat_ms), Vec::new())
    }

    /// Balances and bonds of all accounts, and what is held of them.
    pub(crate) fn held(&self) -> u64 {
        let accounts = self.reader().accounts(usize::MAX).unwrap();
        let sum: u64 = accounts.iter().map(|(_, account)| account.balance.get() + account.bond.get()).sum();
        sum + self.reader().supply().unwrap().held.get()
    }

    /// Lines of a genesis that give the requester money.
    pub(crate) fn requester() -> String {
        format!("\n[[accounts]]\nkey = \"{}\"\nbalance_nano = 1_000_000_000_000\n", key(REQUESTER).node_id())
    }
}

/// A block with the certificate of its only validator, key 1.
pub(crate) fn finalise(block: ProposedBlock, genesis: &Genesis) -> FinalBlock {
    finalise_by(block, genesis.validators(), &[1])
}

/// A block with the votes of some keys of the set.
pub(crate) fn finalise_by(block: ProposedBlock, set: &ValidatorSet, keys: &[u8]) -> FinalBlock {
    let header = block.header();
    let (height, round, hash) = (header.height, header.round, block.hash());
    let votes = keys.iter().map(|n| Vote::sign(&key(*n), &header.chain_id, height, round, hash));
    let certificate = CommitCertificate::gather(height, round, hash, &votes.collect::<Vec<Vote>>());
    FinalBlock::new(block, certificate, set).unwrap()
}

/// A height.
pub(crate) fn height(value: u64) -> Height {
    Height::new(value)
}
