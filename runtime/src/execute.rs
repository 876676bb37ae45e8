//! A block on a state: the rules that it keeps in the context of its parent, and the changes that it makes.
//!
//! [`ProposedBlock`] passed every rule that needs no state: chain, stamp, counts, roots, signatures. The rules here, in
//! the order in which they are checked:
//!
//! 1. it is of this chain and stamped as this chain asks
//! 2. its height follows its parent's
//! 3. its parent is the parent
//! 4. it keeps its distance from its parent
//! 5. with nothing in it, it is a heartbeat and comes no earlier, unless records wait for the numbers of this block
//! 6. it names the validator set that votes on it, and the one that votes on the block above: [`crate::voters`]
//! 7. the validator proposed it whose turn it was
//! 8. its proposer's random number is what it must be: [`crate::beacon`]; and it names the root of the state it is executed on
//! 9. it has no more records than this chain allows, and its transactions take no more places
//! 10. its body is no longer than this chain allows
//! 11. each piece of evidence concerns somebody who may still vote: [`crate::rules::evidence`]
//! 12. each transaction may be included: [`crate::rules::transaction`]
//! 13. each attestation may be included: [`crate::rules::audit`]
//! 14. each record may be included: [`crate::rules::record`]
//!
//! Time reaches this module as the timestamps of a block and its parent. Whether a block is ahead of the clock is for the
//! node to ask, before it votes: [`check_clock`].

use std::cell::OnceCell;

use aria_chain::attestation::VerifiedAttestation;
use aria_chain::block::{Header, ProposedBlock, has_stamp};
use aria_chain::certificate::ValidatorSet;
use aria_chain::evidence::Evidence;
use aria_chain::ids::{AttestationId, BlockHash, ChainId, Digest, NodeId, RecordId, TransactionId};
use aria_chain::keys::VrfProof;
use aria_chain::proof::VerifiedProof;
use aria_chain::record::RecordStatus;
use aria_chain::store::StateChanges;
use aria_chain::transaction::VerifiedTransaction;
use aria_chain::units::{Height, Millis, NanoAria, Round, Timestamp};

use crate::beacon;
use crate::election::ProposerSchedule;
use crate::genesis::Genesis;
use crate::params::Params;
use crate::rules::audit::{self, AttestError, AttestationFault, Ended, awaits_draw};
use crate::rules::evidence::{ConvictError, EvidenceFault, convict};
use crate::rules::model;
use crate::rules::record::{self, InclusionError, Place, RecordFault};
use crate::rules::settle::Settlement;
use crate::rules::sobriety;
use crate::rules::transaction::{self, OrderError, TransactionFault};
use crate::state::{Overlay, StateError, View, key};
use crate::voters::{self, Voters};

/// Why a block is invalid on its parent. One variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockFault {
    /// Rule 1.
    #[error("block is for chain {got}, this is {expected}")]
    Chain {
        /// As the header says.
        got: ChainId,
        /// This chain.
        expected: ChainId,
    },
    /// Rule 1.
    #[error("block hash {hash} has fewer than {digits} leading zero digits")]
    Stamp {
        /// The hash.
        hash: BlockHash,
        /// See [`Params::stamp_zero_digits`].
        digits: u8,
    },
    /// Rule 2.
    #[error("block has height {got}, the one on this parent has {expected}")]
    Height {
        /// As the header says.
        got: Height,
        /// The parent's and one.
        expected: Height,
    },
    /// Rule 3.
    #[error("block names parent {got}, the tip is {expected}")]
    Parent {
        /// As the header says.
        got: BlockHash,
        /// Hash of the parent.
        expected: BlockHash,
    },
    /// Rule 4.
    #[error("block is of {timestamp}, less than {interval_ms} ms after its parent's {parent}")]
    TooSoon {
        /// Of the block.
        timestamp: Timestamp,
        /// Of the parent.
        parent: Timestamp,
        /// See [`Params::block_interval_ms`].
        interval_ms: u64,
    },
    /// Rule 5.
    #[error("block without records is of {timestamp}, less than {heartbeat_ms} ms after its parent's {parent}")]
    EmptyTooSoon {
        /// Of the block.
        timestamp: Timestamp,
        /// Of the parent.
        parent: Timestamp,
        /// See [`Params::heartbeat_ms`].
        heartbeat_ms: u64,
    },
    /// Rule 6.
    #[error("block names validator set {got}, the set that votes is {expected}")]
    Validators {
        /// As the header says.
        got: Digest,
        /// By the state.
        expected: Digest,
    },
    /// Rule 6.
    #[error("block names {got} as the set that votes next, it is {expected}")]
    NextValidators {
        /// As the header says.
        got: Digest,
        /// By the state.
        expected: Digest,
    },
    /// Rule 7.
    #[error("{got} proposed the block, in round {round} it is the turn of {expected}")]
    Proposer {
        /// As the header says.
        got: NodeId,
        /// By the order of the set.
        expected: NodeId,
        /// Of the header.
        round: Round,
    },
    /// Rule 8.
    #[error("the random number of {proposer} is not proven for this block")]
    Beacon {
        /// As the header says.
        proposer: NodeId,
    },
    /// Rule 8.
    #[error("block names state root {got}, the state after its parent has {expected}")]
    StateRoot {
        /// As the header says.
        got: Digest,
        /// Of the state.
        expected: Digest,
    },
    /// Rule 9.
    #[error("block has {got} records, this chain allows {max}")]
    TooManyRecords {
        /// In the block.
        got: usize,
        /// See [`Params::records_per_block_max`].
        max: u32,
    },
    /// Rule 9.
    #[error("transactions of the block take {got} places, this chain has {max}")]
    TooManyTransactions {
        /// Places taken.
        got: usize,
        /// See [`Params::transactions_per_block_max`].
        max: u32,
    },
    /// Rule 10.
    #[error("body has {got} bytes, this chain allows {max}")]
    BodyTooLong {
        /// Of the block.
        got: usize,
        /// See [`Params::block_bytes_max`].
        max: u32,
    },
    /// Rule 11.
    #[error("evidence at index {index}: {fault}")]
    Evidence {
        /// Its place in the block.
        index: usize,
        /// Why it may not be included.
        fault: EvidenceFault,
    },
    /// Rule 12.
    #[error("transaction {transaction} at index {index}: {fault}")]
    Transaction {
        /// Its place in the block.
        index: usize,
        /// The transaction.
        transaction: TransactionId,
        /// Why it may not be included.
        fault: TransactionFault,
    },
    /// Rule 13.
    #[error("attestation {attestation} at index {index}: {fault}")]
    Attestation {
        /// Its place in the block.
        index: usize,
        /// The attestation.
        attestation: AttestationId,
        /// Why it may not be included.
        fault: AttestationFault,
    },
    /// Rule 14.
    #[error("record {record} at index {index}: {fault}")]
    Record {
        /// Its place in the block.
        index: usize,
        /// The record.
        record: RecordId,
        /// Why it may not be included.
        fault: RecordFault,
    },
    /// Asked by a node before it votes; never by re-execution.
    #[error("block is of {timestamp}, more than {skew_ms} ms ahead of the clock's {now}; check this node's clock")]
    AheadOfClock {
        /// Of the block.
        timestamp: Timestamp,
        /// By the clock.
        now: Timestamp,
        /// See [`Params::clock_skew_ms`].
        skew_ms: u64,
    },
}

/// A block that is invalid, or a state that cannot be used. The first is the proposer's fault; on the second a node stops
/// and votes for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// See [`BlockFault`].
    #[error(transparent)]
    Invalid(#[from] BlockFault),
    /// See [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
}

/// What a valid block does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutedBlock {
    /// Its changes to the state, and the records that settled.
    pub changes: StateChanges,
    /// How each record settled, in the order of the block.
    pub settlements: Vec<Settlement>,
}

/// Executes a block on the state after its parent.
pub fn execute(
    block: &ProposedBlock,
    parent: &Header,
    state: &dyn View,
    genesis: &Genesis,
) -> Result<ExecutedBlock, ExecuteError> {
    let header = block.header();
    check_link(header, parent, awaits_draw(parent.height, state)?, genesis)?;
    let mut run = Run::begin(header.height, header.timestamp_ms, state, genesis)?;
    run.check_voters(header)?;
    run.check_state_root(header)?;
    run.turn_beacon(&header.proposer, &header.vrf)?;
    check_sizes(block, genesis.params())?;
    run.attend(header.round)?;
    for (index, piece) in block.evidence().iter().enumerate() {
        run.convict(piece).map_err(|error| match error {
            ConvictError::Fault(fault) => BlockFault::Evidence { index, fault }.into(),
            ConvictError::State(error) => ExecuteError::State(error),
        })?;
    }
    for (index, transaction) in block.transactions().iter().enumerate() {
        run.order(transaction).map_err(|error| match error {
            OrderError::Fault(fault) => BlockFault::Transaction { index, transaction: transaction.id(), fault }.into(),
            OrderError::State(error) => ExecuteError::State(error),
        })?;
    }
    for (index, attestation) in block.attestations().iter().enumerate() {
        run.attest(attestation).map_err(|error| match error {
            AttestError::Fault(fault) => BlockFault::Attestation { index, attestation: attestation.id(), fault }.into(),
            AttestError::State(error) => ExecuteError::State(error),
        })?;
    }
    for (index, proof) in block.proofs().iter().enumerate() {
        run.include(proof).map_err(|error| match error {
            InclusionError::Fault(fault) => BlockFault::Record { index, record: proof.record_id(), fault }.into(),
            InclusionError::State(error) => ExecuteError::State(error),
        })?;
    }
    run.end(&header.proposer)
}

/// Whether a block is ahead of this node's clock.
pub fn check_clock(header: &Header, now: Timestamp, params: &Params) -> Result<(), BlockFault> {
    let (timestamp, skew_ms) = (header.timestamp_ms, params.clock_skew_ms);
    if timestamp.since(now) > Millis::new(skew_ms) {
        return Err(BlockFault::AheadOfClock { timestamp, now, skew_ms });
    }
    Ok(())
}

/// Rules 1 to 5: the header against its parent and the chain.
pub(crate) fn check_link(
    header: &Header,
    parent: &Header,
    is_urgent: bool,
    genesis: &Genesis,
) -> Result<(), BlockFault> {
    check_seal(header, genesis)?;
    let expected = parent.height.next().ok();
    if Some(header.height) != expected {
        return Err(BlockFault::Height { got: header.height, expected: expected.unwrap_or(parent.height) });
    }
    let expected = parent.hash();
    if header.parent != expected {
        return Err(BlockFault::Parent { got: header.parent, expected });
    }
    check_distance(header.timestamp_ms, header.is_empty() && !is_urgent, parent, genesis.params())
}

/// Rule 1. A block that came from outside passed it before; one of our own making did not.
fn check_seal(header: &Header, genesis: &Genesis) -> Result<(), BlockFault> {
    if header.chain_id != *genesis.chain_id() {
        return Err(BlockFault::Chain { got: header.chain_id.clone(), expected: genesis.chain_id().clone() });
    }
    let (hash, digits) = (header.hash(), genesis.params().stamp_zero_digits);
    if !has_stamp(&hash, digits) {
        return Err(BlockFault::Stamp { hash, digits });
    }
    Ok(())
}

/// Rules 4 and 5.
pub(crate) fn check_distance(
    timestamp: Timestamp,
    is_heartbeat: bool,
    parent: &Header,
    params: &Params,
) -> Result<(), BlockFault> {
    let parent = parent.timestamp_ms;
    let distance = timestamp.since(parent);
    let (interval_ms, heartbeat_ms) = (params.block_interval_ms, params.heartbeat_ms);
    if distance < Millis::new(interval_ms) {
        return Err(BlockFault::TooSoon { timestamp, parent, interval_ms });
    }
    if is_heartbeat && distance < Millis::new(heartbeat_ms) {
        return Err(BlockFault::EmptyTooSoon { timestamp, parent, heartbeat_ms });
    }
    Ok(())
}

/// Rules 9 and 10.
fn check_sizes(block: &ProposedBlock, params: &Params) -> Result<(), BlockFault> {
    let max = params.records_per_block_max;
    if !fits(block.proofs().len(), max) {
        return Err(BlockFault::TooManyRecords { got: block.proofs().len(), max });
    }
    let (got, max) = (block.verified_body().places(), params.transactions_per_block_max);
    if !fits(got, max) {
        return Err(BlockFault::TooManyTransactions { got, max });
    }
    let (got, max) = (block.verified_body().size_bytes(), params.block_bytes_max);
    if !fits(got, max) {
        return Err(BlockFault::BodyTooLong { got, max });
    }
    Ok(())
}

pub(crate) fn fits(size: usize, max: u32) -> bool {
    u32::try_from(size).is_ok_and(|size| size <= max)
}

/// A block's execution under way. The proposer drives it record by record, and so does [`execute`].
pub(crate) struct Run<'a> {
    place: Place<'a>,
    overlay: Overlay<'a>,
    settled: Vec<(RecordId, Settlement)>,
    voters: Voters,
    /// Computed where a block is judged. Asking whether a proof could be included needs no order.
    schedule: OnceCell<ProposerSchedule>,
    next_voters_hash: Digest,
    computed: Option<ValidatorSet>,
    /// What the proposer gets of the fees.
    fees: NanoAria,
    /// Audits that ended in this block.
    ended: Vec<Ended>,
}

impl<'a> Run<'a> {
    /// What every block does before its records.
    pub(crate) fn begin(
        height: Height,
        timestamp: Timestamp,
        state: &'a dyn View,
        genesis: &'a Genesis,
    ) -> Result<Run<'a>, StateError> {
        let mut overlay = Overlay::new(state);
        let (voters, next_voters_hash, computed) = voters::turn(height, genesis, &mut overlay)?;
        if genesis.params().is_epoch_start(height) {
            sobriety::compare(genesis.params().epoch_of(height), &mut overlay)?;
        }
        record::forget_expired(height, &mut overlay)?;
        transaction::release_bonds(height, &mut overlay)?;
        let epoch = genesis.params().epoch_of(height);
        let mut totals = overlay.read().epoch_totals(epoch)?;
        totals.blocks = totals.blocks.saturating_add(1);
        overlay.put(key::epoch(epoch), &totals);
        let is_one_alone = voters.set.members().len() == 1;
        let place = Place { genesis, height, timestamp, is_one_alone };
        let (settled, schedule) = (Vec::new(), OnceCell::new());
        let fees = NanoAria::ZERO;
        let ended = audit::expire(place, &mut overlay)?;
        model::turn(place, &mut overlay)?;
        Ok(Run { place, overlay, settled, voters, schedule, next_voters_hash, computed, fees, ended })
    }

    /// Hashes of the set that votes on the block, and of the one that votes on the block above.
    pub(crate) fn voter_hashes(&self) -> (Digest, Digest) {
        (self.voters.set.hash(), self.next_voters_hash)
    }

    /// Rules 6 and 7.
    pub(crate) fn check_voters(&self, header: &Header) -> Result<(), BlockFault> {
        let (expected, next) = self.voter_hashes();
        if header.validators_hash != expected {
            return Err(BlockFault::Validators { got: header.validators_hash, expected });
        }
        if header.next_validators_hash != next {
            return Err(BlockFault::NextValidators { got: header.next_validators_hash, expected: next });
        }
        let (got, round) = (header.proposer, header.round);
        let expected = self.schedule.get_or_init(|| self.voters.schedule()).proposer(header.height, round);
        if got != expected {
            return Err(BlockFault::Proposer { got, expected, round });
        }
        Ok(())
    }

    /// The rest of rule 8, and the draws that the new number decides.
    pub(crate) fn turn_beacon(&mut self, proposer: &NodeId, vrf: &VrfProof) -> Result<(), ExecuteError> {
        let input = beacon::input(self.place.height, &self.overlay)?;
        let number = beacon::next(proposer, &input, vrf).ok_or(BlockFault::Beacon { proposer: *proposer })?;
        self.overlay.put(key::BEACON.to_vec(), &number);
        audit::draw(&number, self.place, &mut self.overlay)?;
        Ok(())
    }

    /// Takes what an auditor says; where it fails, nothing changed.
    pub(crate) fn attest(&mut self, attestation: &VerifiedAttestation) -> Result<(), AttestError> {
        self.ended.extend(audit::attest(attestation, self.place, &mut self.overlay)?);
        Ok(())
    }

    /// Notes whose turn it was.
    pub(crate) fn attend(&mut self, round: Round) -> Result<(), StateError> {
        let schedule = self.schedule.get_or_init(|| self.voters.schedule());
        voters::attend(self.place.height, round, schedule, &mut self.overlay)
    }

    /// Includes the next piece of evidence; where it fails, nothing changed.
    pub(crate) fn convict(&mut self, evidence: &Evidence) -> Result<(), ConvictError> {
        convict(evidence, self.place, &mut self.overlay)
    }

    /// Rule 8.
    fn check_state_root(&self, header: &Header) -> Result<(), ExecuteError> {
        let expected = self.overlay.read().state_root()?;
        if header.state_root != expected {
            return Err(BlockFault::StateRoot { got: header.state_root, expected }.into());
        }
        Ok(())
    }

    /// Includes the next transaction; where it fails, nothing changed.
    pub(crate) fn order(&mut self, transaction: &VerifiedTransaction) -> Result<(), OrderError> {
        let left = transaction::apply(transaction, self.place, &mut self.overlay)?;
        self.fees = self.fees.checked_add(left)?;
        Ok(())
    }

    /// Includes the next record; where it fails, nothing changed.
    pub(crate) fn include(&mut self, proof: &VerifiedProof) -> Result<(), InclusionError> {
        let index = u32::try_from(self.settled.len()).unwrap_or(u32::MAX);
        let settlement = record::include(proof, index, self.place, &mut self.overlay)?;
        self.settled.push((proof.record_id(), settlement));
        Ok(())
    }

    /// The result.
    pub(crate) fn end(mut self, proposer: &NodeId) -> Result<ExecutedBlock, ExecuteError> {
        transaction::reward_proposer(proposer, self.fees, &mut self.overlay)?;
        let mut changes = self.overlay.seal()?;
        let (records, settlements): (Vec<_>, Vec<_>) = self.settled.into_iter().unzip();
        let statuses = records.into_iter().zip(settlements.iter().map(Settlement::status));
        changes.validators = self.computed;
        let statuses = statuses.chain(self.ended.iter().map(|(record, status, _)| (*record, *status)));
        changes.statuses = statuses.filter(|(_, status)| *status != RecordStatus::Included).collect();
        changes.audits = self.ended.iter().map(|(record, _, audit)| (*record, audit.to_bytes())).collect();
        Ok(ExecutedBlock { changes, settlements })
    }
}
