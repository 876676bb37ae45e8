//! What an auditor asked for on the chain is posted there: sealed to all who were drawn, in as many parts as it takes. Sealing gives the
//! same bytes each time, so a node that was started again goes on with the parts that are missing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aria_chain::codec::Versioned as _;
use aria_chain::ids::{NodeId, RecordId};
use aria_chain::keys::SealError;
use aria_chain::limits::DELIVERY_PART_BYTES_MAX;
use aria_chain::store::Health;
use aria_chain::transaction::Action;
use aria_runtime::rules::challenge::room;
use aria_runtime::state::{Challenge, Reader, RecordPlace, StateError};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::payload::Payload;
use crate::chain::Chain;
use crate::error::NodeError;

/// How often to look where no block comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Parts that wait so long are told once more: a peer that had not seen the challenge did not take them.
const SAY_AGAIN: Duration = Duration::from_secs(1);

/// Answers challenges of this node's records until told to stop.
pub async fn run(chain: Arc<Chain>, stop: CancellationToken) -> Result<(), NodeError> {
    let mut tips = chain.tip_changes();
    let mut provider = Provider { chain, said: None, warned: BTreeSet::new() };
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = tips.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        // State and payloads are read from disk.
        let looked = spawn_blocking(move || provider.look().map(|()| provider));
        provider =
            looked.await.map_err(|error| NodeError::Task { task: "deliveries", reason: error.to_string() })??;
    }
}

struct Provider {
    chain: Arc<Chain>,
    /// When parts were last told.
    said: Option<Instant>,
    /// Challenges that this node cannot answer, as the log says already.
    warned: BTreeSet<RecordPlace>,
}

impl Provider {
    /// Looks at all open challenges, and answers those of its own records.
    fn look(&mut self) -> Result<(), NodeError> {
        let own = self.own().map_err(|error| NodeError::Execution(error.to_string()))?;
        self.warned.retain(|place| own.iter().any(|(other, ..)| other == place));
        if own.is_empty() || self.chain.health() != Health::Writing {
            return Ok(());
        }
        let is_due = self.said.is_none_or(|since| since.elapsed() >= SAY_AGAIN);
        for (place, record, challenge) in own {
            if let Err(reason) = self.answer(place, &record, &challenge)
                && self.warned.insert(place)
            {
                tracing::warn!(%record, reason, "what an auditor asked for on the chain is not posted for now");
            }
        }
        if is_due {
            self.said = Some(Instant::now());
            self.chain.repeat_orders();
        }
        Ok(())
    }

    /// Open challenges of records that this node is the first of.
    fn own(&self) -> Result<Vec<(RecordPlace, RecordId, Challenge)>, StateError> {
        let (view, me) = (self.chain.view(), self.chain.key.node_id());
        let mut own = Vec::new();
        for place in Reader(&view).open_challenges(room(self.chain.genesis.params()))? {
            let (audit, challenge) =
                (Reader(&view).audit(place.0, place.1)?, Reader(&view).challenge(place.0, place.1)?);
            // One that ended meanwhile needs no answer.
            let Some((audit, challenge)) = audit.zip(challenge) else { continue };
            if audit.stages.first().is_some_and(|stage| stage.node_id == me) {
                own.push((place, audit.record, challenge));
            }
        }
        Ok(own)
    }

    /// Orders the parts that are neither on the chain nor waiting.
    fn answer(&self, (height, index): RecordPlace, record: &RecordId, challenge: &Challenge) -> Result<(), String> {
        let chain = &self.chain;
        let kept = chain.payloads.read(record).ok_or("what is behind the record is not here any more")?;
        // What only spares judges a part of their work is not worth the room in blocks.
        let payload = Payload::decode(&kept).map_err(|error| error.to_string())?.without_ends();
        let sealed =
            seal(chain, record, challenge.readers.clone(), &payload.encode()).map_err(|error| error.to_string())?;
        let parts = u8::try_from(sealed.len().div_ceil(DELIVERY_PART_BYTES_MAX)).unwrap_or(u8::MAX);
        if parts > challenge.parts_max {
            return Err(format!("it takes {parts} parts, the record's tokens fit {}", challenge.parts_max));
        }
        let is_part_of_it = |action: &Action| match action {
            Action::Deliver { height: of, index: at, part, .. } if (*of, *at) == (height, index) => Some(*part),
            _ => None,
        };
        let waiting = chain.own_orders();
        let waiting: BTreeSet<u8> =
            waiting.iter().filter_map(|order| is_part_of_it(&order.transaction().action)).collect();
        let mut is_new = false;
        for (part, sealed) in (0..).zip(sealed.chunks(DELIVERY_PART_BYTES_MAX)) {
            if !challenge.has(part) && !waiting.contains(&part) {
                let action = Action::Deliver { height, index, part, parts, sealed: sealed.to_vec() };
                chain.order(action, challenge.until)?;
                is_new = true;
            }
        }
        if is_new {
            tracing::info!(%record, auditor = %challenge.by, parts, "an auditor asked on the chain for what is behind a record; it is posted");
        }
        Ok(())
    }
}

/// Seals a payload to those of its readers that can read.
fn seal(chain: &Chain, record: &RecordId, mut readers: Vec<NodeId>, payload: &[u8]) -> Result<Vec<u8>, SealError> {
    loop {
        match chain.key.seal((chain.genesis.chain_id(), record), &readers, payload) {
            Err(SealError::NoKey { reader }) => readers.retain(|other| *other != reader),
            sealed => return sealed,
        }
    }
}
