//! A block from what is waiting: the proposer's side of [`crate::execute`]. What would make the block invalid is left
//! out and named, so that the caller can drop it.

use aria_chain::attestation::VerifiedAttestation;
use aria_chain::block::{Draft, Header, ProposedBlock, VerifiedBody};
use aria_chain::error::BlockError;
use aria_chain::evidence::Evidence;
use aria_chain::ids::{AttestationId, NodeId, RecordId, TransactionId};
use aria_chain::keys::VrfProof;
use aria_chain::limits::{BLOCK_ATTESTATIONS_MAX, BLOCK_EVIDENCE_MAX};
use aria_chain::proof::VerifiedProof;
use aria_chain::transaction::VerifiedTransaction;
use aria_chain::units::{Round, Timestamp};

use crate::execute::{BlockFault, ExecuteError, ExecutedBlock, Run, check_distance, check_link, fits};
use crate::genesis::Genesis;
use crate::params::Params;
use crate::rules::audit::{AttestError, AttestationFault, awaits_draw};
use crate::rules::evidence::ConvictError;
use crate::rules::record::{InclusionError, RecordFault};
use crate::rules::transaction::{OrderError, TransactionFault};
use crate::state::{Reader, StateError, View};

/// Where and by whom a block is proposed.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    /// The tip.
    pub parent: &'a Header,
    /// Attempt at this height.
    pub round: Round,
    /// When, by the proposer's clock.
    pub timestamp: Timestamp,
    /// Who proposes.
    pub proposer: NodeId,
    /// Its share of the chain's random number, for the input of [`crate::beacon::input`].
    pub vrf: VrfProof,
}

/// A record that cannot be included, and why.
pub type Skipped = (RecordId, RecordFault);

/// What waits, in the order in which a block may hold it.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    /// Evidence that was checked.
    pub evidence: Vec<Evidence>,
    /// Transactions.
    pub transactions: Vec<VerifiedTransaction>,
    /// What auditors say.
    pub attestations: Vec<VerifiedAttestation>,
    /// Proofs.
    pub proofs: Vec<VerifiedProof>,
}

impl From<Vec<VerifiedProof>> for Waiting {
    /// Nothing waits but proofs.
    fn from(proofs: Vec<VerifiedProof>) -> Waiting {
        Waiting { proofs, ..Waiting::default() }
    }
}

/// What became of what waits.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The block and what it does. `None`: nothing can be included and no heartbeat is due.
    pub block: Option<(ProposedBlock, ExecutedBlock)>,
    /// Records that cannot be included in a block here. Those that found no room are not among them.
    pub skipped: Vec<Skipped>,
    /// Transactions that can be in no block any more, and why.
    pub refused: Vec<(TransactionId, TransactionFault)>,
    /// Attestations that this block cannot hold, and why. Some may be in a later one.
    pub unheard: Vec<(AttestationId, AttestationFault)>,
    /// Evidence that is of no use any more.
    pub stale: Vec<Evidence>,
}

/// Why nothing could be proposed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The slot is none: too early, or not a validator's.
    #[error(transparent)]
    Slot(#[from] BlockFault),
    /// See [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
    /// The chosen proofs do not form a block.
    #[error(transparent)]
    Seal(#[from] BlockError),
}

impl From<ExecuteError> for ProposeError {
    fn from(error: ExecuteError) -> ProposeError {
        match error {
            ExecuteError::Invalid(fault) => ProposeError::Slot(fault),
            ExecuteError::State(error) => ProposeError::State(error),
        }
    }
}

/// Builds, executes and stamps a block of as much of what waits, in its order, as is valid and fits.
pub fn propose(
    slot: Slot<'_>,
    waiting: Waiting,
    state: &dyn View,
    genesis: &Genesis,
) -> Result<Proposal, ProposeError> {
    let height = slot
        .parent
        .height
        .next()
        .map_err(|_| BlockFault::Height { got: slot.parent.height, expected: slot.parent.height })?;
    let params = genesis.params();
    check_distance(slot.timestamp, false, slot.parent, params)?;
    let mut run = Run::begin(height, slot.timestamp, state, genesis)?;
    run.turn_beacon(&slot.proposer, &slot.vrf)?;
    run.attend(slot.round)?;
    let (evidence, stale) = accuse(waiting.evidence, &mut run)?;
    let (transactions, refused) = order(waiting.transactions, &mut run, params)?;
    let (attestations, unheard) = hear(waiting.attestations, &mut run)?;
    let mut body = VerifiedBody { evidence, transactions, attestations, proofs: Vec::new() };
    let skipped = choose(waiting.proofs, &mut body, &mut run, params)?;
    let (is_empty, is_urgent) = (body == VerifiedBody::default(), awaits_draw(slot.parent.height, state)?);
    if check_distance(slot.timestamp, is_empty && !is_urgent, slot.parent, params).is_err() {
        return Ok(Proposal { block: None, skipped, refused, unheard, stale });
    }
    let (validators_hash, next_validators_hash) = run.voter_hashes();
    let draft = Draft {
        chain_id: genesis.chain_id().clone(),
        height,
        round: slot.round,
        timestamp_ms: slot.timestamp,
        parent: slot.parent.hash(),
        proposer: slot.proposer,
        state_root: Reader(state).state_root()?,
        validators_hash,
        next_validators_hash,
        vrf: slot.vrf,
    };
    let block = ProposedBlock::seal(draft, body, params.stamp_zero_digits)?;
    check_link(block.header(), slot.parent, is_urgent, genesis)?;
    run.check_voters(block.header())?;
    Ok(Proposal { block: Some((block, run.end(&slot.proposer)?)), skipped, refused, unheard, stale })
}

/// Whether a block on `parent` at this time could hold a proof, without building one. A block that no other record is in
/// has room for any.
pub fn check_includable(
    parent: &Header,
    timestamp: Timestamp,
    proof: &VerifiedProof,
    state: &dyn View,
    genesis: &Genesis,
) -> Result<(), InclusionError> {
    let height = parent.height.next().map_err(InclusionError::from)?;
    Run::begin(height, timestamp, state, genesis)?.include(proof)
}

/// Whether a block on `parent` at this time could hold the last of these transactions behind the others.
pub fn check_orderable(
    parent: &Header,
    timestamp: Timestamp,
    row: &[VerifiedTransaction],
    state: &dyn View,
    genesis: &Genesis,
) -> Result<(), OrderError> {
    let height = parent.height.next().map_err(OrderError::from)?;
    let mut run = Run::begin(height, timestamp, state, genesis)?;
    row.iter().try_for_each(|transaction| run.order(transaction))
}

/// Whether a block on `parent` could hold one of these attestations.
pub fn any_attestable(
    parent: &Header,
    timestamp: Timestamp,
    attestations: &[VerifiedAttestation],
    state: &dyn View,
    genesis: &Genesis,
) -> Result<bool, StateError> {
    let Ok(height) = parent.height.next() else { return Ok(false) };
    if attestations.is_empty() {
        return Ok(false);
    }
    let mut run = Run::begin(height, timestamp, state, genesis)?;
    for attestation in attestations {
        match run.attest(attestation) {
            Ok(()) => return Ok(true),
            Err(AttestError::Fault(_)) => {}
            Err(AttestError::State(error)) => return Err(error),
        }
    }
    Ok(false)
}

/// Takes evidence as long as there is room; what is of no use comes second.
fn accuse(
    evidence: impl IntoIterator<Item = Evidence>,
    run: &mut Run<'_>,
) -> Result<(Vec<Evidence>, Vec<Evidence>), StateError> {
    let (mut chosen, mut stale) = (Vec::new(), Vec::new());
    for piece in evidence {
        if chosen.len() == BLOCK_EVIDENCE_MAX {
            break;
        }
        match run.convict(&piece) {
            Ok(()) => chosen.push(piece),
            Err(ConvictError::Fault(_)) => stale.push(piece),
            Err(ConvictError::State(error)) => return Err(error),
        }
    }
    Ok((chosen, stale))
}

/// Transactions, and those that were not taken.
type Ordered = (Vec<VerifiedTransaction>, Vec<(TransactionId, TransactionFault)>);

/// Takes transactions as long as there is room; what can be in no block comes second.
fn order(waiting: Vec<VerifiedTransaction>, run: &mut Run<'_>, params: &Params) -> Result<Ordered, StateError> {
    let (mut chosen, mut refused, mut places) = (Vec::new(), Vec::new(), 0_usize);
    for transaction in waiting {
        let with_it = places.saturating_add(transaction.places());
        // The next one may come of the same account, behind this one.
        if !fits(with_it, params.transactions_per_block_max) {
            break;
        }
        match run.order(&transaction) {
            Ok(()) => {
                places = with_it;
                chosen.push(transaction);
            }
            Err(OrderError::Fault(fault)) => refused.push((transaction.id(), fault)),
            Err(OrderError::State(error)) => return Err(error),
        }
    }
    Ok((chosen, refused))
}

/// Attestations, and those that were not taken.
type Heard = (Vec<VerifiedAttestation>, Vec<(AttestationId, AttestationFault)>);

/// Takes attestations as long as there is room.
fn hear(waiting: Vec<VerifiedAttestation>, run: &mut Run<'_>) -> Result<Heard, StateError> {
    let (mut heard, mut unheard) = (Vec::new(), Vec::new());
    for attestation in waiting {
        if heard.len() == BLOCK_ATTESTATIONS_MAX {
            break;
        }
        match run.attest(&attestation) {
            Ok(()) => heard.push(attestation),
            Err(AttestError::Fault(fault)) => unheard.push((attestation.id(), fault)),
            Err(AttestError::State(error)) => return Err(error),
        }
    }
    Ok((heard, unheard))
}

/// Takes proofs into the body as long as there is room.
fn choose(
    waiting: Vec<VerifiedProof>,
    body: &mut VerifiedBody,
    run: &mut Run<'_>,
    params: &Params,
) -> Result<Vec<Skipped>, StateError> {
    let mut skipped = Vec::new();
    let mut size_bytes = body.size_bytes();
    for proof in waiting {
        let with_it = size_bytes.saturating_add(proof.size_bytes());
        let has_room = fits(body.proofs.len().saturating_add(1), params.records_per_block_max)
            && fits(with_it, params.block_bytes_max);
        if !has_room {
            break;
        }
        match run.include(&proof) {
            Ok(()) => {
                size_bytes = with_it;
                body.proofs.push(proof);
            }
            Err(InclusionError::Fault(fault)) => skipped.push((proof.record_id(), fault)),
            Err(InclusionError::State(error)) => return Err(error),
        }
    }
    Ok(skipped)
}
