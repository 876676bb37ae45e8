//! An inference record in the context of a block: may it be included, and what does it settle as.
//!
//! That its signatures hold, that it is of this chain, that record and request belong together and that its stages are in
//! order was verified before ([`VerifiedProof`]). Here it meets the state: was this request counted already, has it expired,
//! is the time right, are the nodes known, do the stages cover the registered model.

use aria_chain::ids::{ModelId, NodeId, RequestId};
use aria_chain::limits::STATE_SCAN_MAX;
use aria_chain::proof::VerifiedProof;
use aria_chain::record::InferenceRecord;
use aria_chain::request::InferenceRequest;
use aria_chain::units::{Epoch, Height, Microjoules, Millis, NanoAria, Overflow, Timestamp};

use crate::genesis::Genesis;
use crate::params::Params;
use crate::rules::settle::{self, Settlement, Unsettled};
use crate::rules::{audit, fee};
use crate::state::{Model, Overlay, StateError, View, key};

/// Why a block may not include a record. One variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// A request counts once, whoever answers it.
    #[error("request {request} was counted in block {height}; sign a new request with another nonce")]
    RequestCounted {
        /// The request.
        request: RequestId,
        /// Block that holds its record.
        height: Height,
    },
    /// A request counts up to its expiry, that height included.
    #[error("the request expired at height {expiry}, the block has {height}; sign a new request")]
    Expired {
        /// Of the request.
        expiry: Height,
        /// Of the block.
        height: Height,
    },
    /// Request ids are remembered until they expire, so they may not be remembered for ever.
    #[error("the request expires at height {expiry}, more than {max} blocks after {height}; choose an earlier expiry")]
    ExpiryTooFar {
        /// Of the request.
        expiry: Height,
        /// Of the block.
        height: Height,
        /// See [`Params::request_expiry_blocks_max`].
        max: u64,
    },
    /// Whoever answers falsely must lose more than it can gain, so there is a largest fee: [`Params::request_fee_max_nano`].
    #[error("max_fee {max_fee} is above {most} nano-ARIA, the most that a request may pay on this chain; lower it")]
    FeeTooHigh {
        /// Of the request.
        max_fee: NanoAria,
        /// The largest.
        most: NanoAria,
    },
    /// A record is included soon or never.
    #[error("the record is of {timestamp}, more than {max_ms} ms before the block's {block}")]
    TooOld {
        /// Of the record.
        timestamp: Timestamp,
        /// Of the block.
        block: Timestamp,
        /// See [`Params::record_age_ms_max`].
        max_ms: u64,
    },
    /// A record cannot be later than its block, but for clocks that differ.
    #[error("the record is of {timestamp}, more than {skew_ms} ms after the block's {block}; check the node's clock")]
    FromTheFuture {
        /// Of the record.
        timestamp: Timestamp,
        /// Of the block.
        block: Timestamp,
        /// See [`Params::clock_skew_ms`].
        skew_ms: u64,
    },
    /// See [`Params::energy_uj_max`].
    #[error("energy_uj {energy_uj} is above {max}")]
    TooMuchEnergy {
        /// Of the record.
        energy_uj: Microjoules,
        /// The limit.
        max: u64,
    },
    /// See [`Params::latency_ms_max`].
    #[error("latency_ms {latency_ms} is above {max}")]
    TooSlow {
        /// Of the record.
        latency_ms: Millis,
        /// The limit.
        max: u64,
    },
    /// Work is credited to accounts, and accounts are not made by naming a key.
    #[error("stage node {node} has no account on this chain; credit it or bond it first")]
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// The stages of a registered model run each of its layers once, in order.
    #[error("the stages run {got} layers, model {model} has {layers}")]
    LayersNotCovered {
        /// The model.
        model: ModelId,
        /// Layers of all stages.
        got: u16,
        /// Layers of the model.
        layers: u16,
    },
    /// Amounts and work fit their types.
    #[error("crediting the record overflows {quantity}")]
    Overflow {
        /// What overflowed.
        quantity: &'static str,
    },
}

impl From<Overflow> for RecordFault {
    fn from(overflow: Overflow) -> RecordFault {
        RecordFault::Overflow { quantity: overflow.quantity }
    }
}

/// A record that cannot be included, or a state that cannot be used. The first is the proof's fault, the second ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InclusionError {
    /// See [`RecordFault`].
    #[error(transparent)]
    Fault(#[from] RecordFault),
    /// See [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<Overflow> for InclusionError {
    fn from(overflow: Overflow) -> InclusionError {
        InclusionError::Fault(overflow.into())
    }
}

/// Where a record is to be included.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) genesis: &'a Genesis,
    pub(crate) height: Height,
    pub(crate) timestamp: Timestamp,
    /// Whether one node has all the power: it then vouches for itself.
    pub(crate) is_one_alone: bool,
}

impl Place<'_> {
    pub(crate) fn params(&self) -> &Params {
        self.genesis.params()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.params().epoch_of(self.height)
    }
}

/// Includes a record in a block: validates it, remembers its request, settles what can be settled. Where it fails, the
/// overlay is as before.
pub(crate) fn include(
    proof: &VerifiedProof,
    index: u32,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<Settlement, InclusionError> {
    let (record, request) = (proof.record(), proof.request());
    check_request(proof.request_id(), request, place, overlay)?;
    check_time(record, place)?;
    check_claims(record, place.params())?;
    check_nodes(record, overlay)?;
    let model = overlay.read().model(&record.model_id)?;
    if let Some(model) = &model {
        check_layers(record, model)?;
    }
    let mut settlement = settle::decide(proof, model.as_ref(), place, overlay)?;
    if matches!(settlement, Settlement::Awaiting(_)) && !settle::is_bonded(record, place, overlay)? {
        settlement = Settlement::Included(Unsettled::NotBonded);
    }
    let mut effects = Overlay::new(overlay);
    if !fee::hold(&request.requester, settlement.fee(), &mut effects)? {
        settlement = Settlement::Included(Unsettled::Unpaid);
    }
    settle::write(proof, settlement, model.as_ref(), place, &mut effects)?;
    if let Settlement::Awaiting(earned) = settlement {
        audit::wait(proof, earned, place, index, &mut effects);
    }
    let changes = effects.into_changes();
    overlay.absorb(changes);
    Ok(settlement)
}

fn check_request(
    id: RequestId,
    request: &InferenceRequest,
    place: Place<'_>,
    overlay: &Overlay<'_>,
) -> Result<(), InclusionError> {
    let (expiry, height, max) = (request.expiry, place.height, place.params().request_expiry_blocks_max);
    if expiry < height {
        return Err(RecordFault::Expired { expiry, height }.into());
    }
    if expiry.blocks_since(height) > max {
        return Err(RecordFault::ExpiryTooFar { expiry, height, max }.into());
    }
    let (max_fee, most) = (request.max_fee, place.params().request_fee_max());
    if max_fee > most {
        return Err(RecordFault::FeeTooHigh { max_fee, most }.into());
    }
    match overlay.read().request_height(expiry, &id)? {
        Some(height) => Err(RecordFault::RequestCounted { request: id, height }.into()),
        None => Ok(()),
    }
}

fn check_time(record: &InferenceRecord, place: Place<'_>) -> Result<(), RecordFault> {
    let (timestamp, block) = (record.timestamp_ms, place.timestamp);
    let (max_ms, skew_ms) = (place.params().record_age_ms_max, place.params().clock_skew_ms);
    if block.since(timestamp) > Millis::new(max_ms) {
        return Err(RecordFault::TooOld { timestamp, block, max_ms });
    }
    if timestamp.since(block) > Millis::new(skew_ms) {
        return Err(RecordFault::FromTheFuture { timestamp, block, skew_ms });
    }
    Ok(())
}

fn check_claims(record: &InferenceRecord, params: &Params) -> Result<(), RecordFault> {
    let InferenceRecord { energy_uj, latency_ms, .. } = *record;
    if energy_uj > Microjoules::new(params.energy_uj_max) {
        return Err(RecordFault::TooMuchEnergy { energy_uj, max: params.energy_uj_max });
    }
    if latency_ms > Millis::new(params.latency_ms_max) {
        return Err(RecordFault::TooSlow { latency_ms, max: params.latency_ms_max });
    }
    Ok(())
}

fn check_nodes(record: &InferenceRecord, overlay: &Overlay<'_>) -> Result<(), InclusionError> {
    for stage in &record.stages {
        if overlay.read().account(&stage.node_id)?.is_none() {
            return Err(RecordFault::UnknownNode { node: stage.node_id }.into());
        }
    }
    Ok(())
}

/// That stages follow each other from layer 0 was checked with the record; here they must end where the model does.
fn check_layers(record: &InferenceRecord, model: &Model) -> Result<(), RecordFault> {
    let layers = model.shape.layers;
    if record.layers() == layers {
        return Ok(());
    }
    Err(RecordFault::LayersNotCovered { model: record.model_id, got: record.layers(), layers })
}

/// Requests forgotten per block: one scan. About what the fullest block adds, so that clearing keeps up.
const FORGET_PER_BLOCK_MAX: usize = STATE_SCAN_MAX;

/// Forgets counted requests that have expired: no block can include them any more. A bounded number per block, so that
/// a crowd of equal expiries is cleared over several blocks; what waits longer is only memory.
pub(crate) fn forget_expired(height: Height, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    let is_expired = |key: &[u8]| match key::expiry_of_request(key) {
        Some(expiry) => Ok(expiry < height),
        None => Err(StateError::Damaged { key: key.to_vec() }),
    };
    // Most blocks find nothing to forget: look at the first entry before reading a page.
    let first = overlay.scan(key::REQUESTS, 1)?;
    let any = first.first().map_or(Ok(false), |(key, _)| is_expired(key))?;
    let entries = if any { overlay.scan(key::REQUESTS, FORGET_PER_BLOCK_MAX)? } else { Vec::new() };
    for (key, _) in entries {
        if !is_expired(&key)? {
            break;
        }
        overlay.delete(key);
    }
    Ok(())
}
