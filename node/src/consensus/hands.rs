//! What the driver asks for, done: blocks made, checked and committed on this node's chain. Blocks the thread it runs on.

use std::collections::HashMap;
use std::sync::Arc;

use aria_chain::attestation::{SignedAttestation, VerifiedAttestation};
use aria_chain::block::{Body, FinalBlock, Header, ProposedBlock, VerifiedBody};
use aria_chain::ids::BlockHash;
use aria_chain::mempool::SelectLimits;
use aria_chain::proof::{SignedProof, VerifiedProof};
use aria_chain::record::RecordStatus;
use aria_chain::store::StateChanges;
use aria_chain::transaction::{SignedTransaction, VerifiedTransaction};
use aria_chain::units::{Round as ChainRound, Timestamp};
use aria_runtime::beacon;
use aria_runtime::execute::{ExecutedBlock, check_clock, execute};
use aria_runtime::propose::{Slot, Waiting, propose};
use aria_runtime::rules::audit::{AttestationFault, DRAW_AFTER};
use aria_runtime::rules::record::RecordFault;
use aria_runtime::rules::settle::Settlement;
use aria_runtime::state::Audit;
use malachite_types::Round;

use super::ahead::{Verified, with_verified};
use super::message::WireBlock;
use crate::chain::Chain;
use crate::error::NodeError;

/// Proofs for which another thread is worth its start: a signature takes some 45 microseconds, a proof has three or more.
const PROOFS_PER_THREAD: usize = 8;

/// The chain, and what the blocks of this height would do to it.
pub struct Hands {
    chain: Arc<Chain>,
    executed: HashMap<BlockHash, ExecutedBlock>,
}

impl Hands {
    /// Hands for a chain.
    pub fn new(chain: Arc<Chain>) -> Hands {
        Hands { chain, executed: HashMap::new() }
    }

    /// A block from what waits, for a round of the next height. None: nothing can be in it and no heartbeat is due.
    pub fn build(&mut self, round: Round) -> Result<Option<Arc<ProposedBlock>>, NodeError> {
        let chain = &self.chain;
        let parent = chain.tip_header()?;
        let timestamp = chain.earliest(&parent);
        let waiting = Waiting {
            evidence: chain.accused().pieces(),
            transactions: chain.transactions().select(),
            attestations: chain.attestations().all(),
            proofs: chain.mempool().select(SelectLimits::default()),
        };
        let round = ChainRound::new(round.as_u32().unwrap_or(0));
        let height = parent.height.next().map_err(|error| NodeError::Execution(error.to_string()))?;
        let input = beacon::input(height, &chain.view()).map_err(|error| NodeError::Execution(error.to_string()))?;
        let (proposer, vrf) = (chain.key.node_id(), chain.key.prove_vrf(&input));
        let slot = Slot { parent: &parent, round, timestamp, proposer, vrf };
        let proposal = propose(slot, waiting, &chain.view(), &chain.genesis)
            .map_err(|error| NodeError::Execution(error.to_string()))?;
        chain.accused().remove(&proposal.stale);
        for (transaction, fault) in proposal.refused {
            tracing::warn!(%transaction, %fault, "can never be in a block and is dropped, with what waits behind it");
            let gone = chain.transactions().refuse(&transaction);
            chain.store.drop_pending_transactions(&gone)?;
        }
        for (attestation, fault) in proposal.unheard {
            // Before its draw, or before the others are bound, an attestation is early. Every other fault is for ever.
            let of = chain.attestations().get(&attestation).map(|one| one.attestation().height);
            let is_early = match fault {
                AttestationFault::TooEarly { .. } => true,
                AttestationFault::NotAudited { .. } => of.is_some_and(|of| of.get() + DRAW_AFTER >= height.get()),
                _ => false,
            };
            if !is_early {
                tracing::debug!(%attestation, %fault, "can be in no block and is dropped");
                chain.attestations().remove(&attestation);
            }
        }
        let mut lost = Vec::new();
        for (record, fault) in proposal.skipped {
            // A record that is early waits for its time; every other fault is for ever.
            if matches!(fault, RecordFault::FromTheFuture { .. }) {
                continue;
            }
            tracing::warn!(%record, %fault, "can never be in a block and is dropped");
            chain.mempool().take(&record);
            lost.push(record);
        }
        chain.store.drop_pending(&lost)?;
        let Some((block, executed)) = proposal.block else { return Ok(None) };
        self.executed.insert(block.hash(), executed);
        Ok(Some(Arc::new(block)))
    }

    /// Verifies a block that somebody else made and executes it. None: it is not valid, or not now.
    pub fn check(&mut self, (header, body): WireBlock) -> Result<Option<Arc<ProposedBlock>>, NodeError> {
        let verified = self.verify_shared(body);
        self.check_verified(header, verified)
    }

    /// The same, the body being verified.
    pub fn check_verified(&mut self, header: Header, body: Verified) -> Result<Option<Arc<ProposedBlock>>, NodeError> {
        let chain = &self.chain;
        let (height, proposer, params) = (header.height, header.proposer, chain.genesis.params());
        let now = Timestamp::new(chain.clock.now_ms());
        let refused = |reason: String| {
            tracing::warn!(%height, %proposer, reason, "a proposed block is refused");
            Ok(None)
        };
        if let Err(fault) = check_clock(&header, now, params) {
            return refused(fault.to_string());
        }
        let checked = body.and_then(|body| {
            ProposedBlock::of_verified(header, body, chain.genesis.chain_id(), params.stamp_zero_digits)
                .map_err(|fault| fault.to_string())
        });
        let block = match checked {
            Ok(block) => block,
            Err(reason) => return refused(reason),
        };
        match execute(&block, &chain.tip_header()?, &chain.view(), &chain.genesis) {
            Ok(executed) => self.executed.insert(block.hash(), executed),
            Err(fault) => return refused(fault.to_string()),
        };
        Ok(Some(Arc::new(block)))
    }

    /// The body of a block, its proofs verified by several threads where there are many that do not wait here.
    fn verify_shared(&self, body: Body) -> Verified {
        let Body { evidence, transactions, attestations, proofs } = body;
        let transactions = verify_transactions(&self.chain, transactions)?;
        let attestations = verify_attestations(&self.chain, attestations)?;
        let mut work = with_known(&self.chain, proofs);
        let missing = work.iter().filter(|(_, known)| known.is_none()).count();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let part = work.len().div_ceil(cores.min(missing.div_ceil(PROOFS_PER_THREAD)).max(1)).max(1);
        let mut parts = Vec::new();
        while !work.is_empty() {
            let rest = work.split_off(part.min(work.len()));
            parts.push(std::mem::replace(&mut work, rest));
        }
        let mut verified = Vec::new();
        let verify = |part| verify_rest(&self.chain, part).map(VerifiedBody::from);
        let outcome = with_verified(parts, &verify, |_, part| {
            verified.extend(part?.proofs);
            Ok(true)
        });
        outcome.map(|()| VerifiedBody { evidence, transactions, attestations, proofs: verified })
    }

    /// Makes a decided block, its certificate and its state durable, and tells the rest of the node.
    pub fn commit(&mut self, block: &FinalBlock) -> Result<(), NodeError> {
        let chain = &self.chain;
        let executed = match self.executed.remove(&block.hash()) {
            Some(executed) => executed,
            None => execute(block.block(), &chain.tip_header()?, &chain.view(), &chain.genesis)
                .map_err(|error| NodeError::Execution(error.to_string()))?,
        };
        chain.check_trusted(block.header())?;
        chain.snapshots.commit(&chain.store, block, &executed.changes)?;
        chain.note_audits(&executed.changes);
        let ExecutedBlock { changes: StateChanges { audits, .. }, settlements } = executed;
        self.executed.clear();
        let height = block.header().height;
        chain.accused().remove(block.block().evidence());
        let expired = {
            let mut mempool = chain.mempool();
            mempool.remove(block.block().proofs());
            mempool.expire(height)
        };
        let expired: Vec<_> = expired.iter().map(|proof| proof.record_id()).collect();
        chain.store.drop_pending(&expired)?;
        let gone = {
            let mut transactions = chain.transactions();
            let mut gone = transactions.settle(block.block().transactions());
            gone.extend(transactions.expire(height));
            gone
        };
        chain.store.drop_pending_transactions(&gone)?;
        chain.advance(block.block());
        let mut attestations = chain.attestations();
        block.block().attestations().iter().for_each(|attestation| attestations.remove(&attestation.id()));
        attestations.expire(chain.audits_from());
        drop(attestations);
        audits.iter().for_each(|(record, _)| chain.layers.forget(record));
        let is_over = |audit: &Audit| audit.outcome.is_none_or(|(status, _)| status != RecordStatus::Verified);
        let over = audits.iter().filter(|(_, audit)| Audit::from_bytes(audit).as_ref().is_none_or(is_over));
        over.for_each(|(record, _)| chain.payloads.forget(record));
        // Behind verified records somebody may look as long as their auditors can be doubted.
        if height.get().is_multiple_of(chain.genesis.params().audit_blocks) {
            chain.sweep_payloads()?;
        }
        // Nobody asks for what lies behind records that are not audited.
        let unasked = settlements.iter().zip(block.block().proofs());
        let unasked = unasked.filter(|(settlement, _)| !matches!(settlement, Settlement::Awaiting(_)));
        unasked.map(|(_, proof)| proof.record_id()).chain(expired).for_each(|record| chain.payloads.forget(&record));
        let (header, round) = (block.header(), block.certificate().round);
        let (records, transactions, attestations) =
            (header.record_count, header.transaction_count, header.attestation_count);
        tracing::info!(%height, hash = %block.hash(), records, transactions, attestations, %round, "final block");
        Ok(())
    }
}

/// A proof, and the same verified if it waits here.
type Known = (SignedProof, Option<VerifiedProof>);

/// A body, verified. What waits here was verified when it came.
pub fn verify(chain: &Chain, body: Body) -> Verified {
    let Body { evidence, transactions, attestations, proofs } = body;
    let transactions = verify_transactions(chain, transactions)?;
    let attestations = verify_attestations(chain, attestations)?;
    let proofs = verify_rest(chain, with_known(chain, proofs))?;
    Ok(VerifiedBody { evidence, transactions, attestations, proofs })
}

fn verify_attestations(
    chain: &Chain,
    attestations: Vec<SignedAttestation>,
) -> Result<Vec<VerifiedAttestation>, String> {
    let known = |signed: &SignedAttestation| {
        let id = signed.attestation.id();
        chain.attestations().get(&id).filter(|own| own.signed() == signed).cloned()
    };
    all_verified(attestations, known, |signed| signed.verify(chain.genesis.chain_id()))
}

fn verify_transactions(
    chain: &Chain,
    transactions: Vec<SignedTransaction>,
) -> Result<Vec<VerifiedTransaction>, String> {
    let known = |signed: &SignedTransaction| {
        let id = signed.transaction.id();
        chain.transactions().get(&id).filter(|own| own.signed() == signed).cloned()
    };
    all_verified(transactions, known, |signed| signed.verify(chain.genesis.chain_id()))
}

/// Those that are known need no second look.
fn all_verified<S, V, E: ToString>(
    all: Vec<S>,
    known: impl Fn(&S) -> Option<V>,
    verify: impl Fn(S) -> Result<V, E>,
) -> Result<Vec<V>, String> {
    let one = |signed: S| known(&signed).map_or_else(|| verify(signed).map_err(|fault| fault.to_string()), Ok);
    all.into_iter().map(one).collect()
}

fn with_known(chain: &Chain, proofs: Vec<SignedProof>) -> Vec<Known> {
    let mempool = chain.mempool();
    let known = |proof: &SignedProof| mempool.get(&proof.record.id()).filter(|own| own.proof() == proof).cloned();
    proofs
        .into_iter()
        .map(|proof| {
            let known = known(&proof);
            (proof, known)
        })
        .collect()
}

fn verify_rest(chain: &Chain, work: Vec<Known>) -> Result<Vec<VerifiedProof>, String> {
    let chain_id = chain.genesis.chain_id();
    let one = |(proof, known): Known| match known {
        Some(known) => Ok(known),
        None => proof.verify(chain_id).map_err(|fault| fault.to_string()),
    };
    work.into_iter().map(one).collect()
}
