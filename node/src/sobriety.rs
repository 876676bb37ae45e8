//! Tells the chain, once in each epoch, what this node's answers of the epoch before took and on which hardware.

use std::sync::Arc;

use aria_chain::ids::NodeId;
use aria_chain::limits::PAGE_RECORDS_MAX;
use aria_chain::sobriety::{Hardware, SobrietyAttestation};
use aria_chain::store::{Page, RecordFilter, StoreError};
use aria_chain::transaction::Action;
use aria_chain::units::{Epoch, Height};
use aria_runtime::state::Reader;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::error::NodeError;

/// Attests each epoch until told to stop.
pub async fn run(chain: Arc<Chain>, stop: CancellationToken) -> Result<(), NodeError> {
    let (mut tips, mut done) = (chain.tip_changes(), None);
    loop {
        let now = chain.genesis.params().epoch_of(chain.tip_height());
        if done != Some(now) {
            let own = Arc::clone(&chain);
            let told = spawn_blocking(move || attest(&own, now)).await;
            match told.map_err(|error| NodeError::Task { task: "sobriety", reason: error.to_string() })? {
                Ok(true) => tracing::info!(epoch = %now, "attested what the answers of the epoch before took"),
                Ok(false) => {}
                Err(reason) => tracing::warn!(epoch = %now, reason, "the epoch before is not attested"),
            }
            done = Some(now);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = tips.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// Orders the attestation, if there is something to attest. Blocks.
fn attest(chain: &Chain, now: Epoch) -> Result<bool, String> {
    let Some(epoch) = now.get().checked_sub(1).map(Epoch::new) else { return Ok(false) };
    let (view, me) = (chain.view(), chain.key.node_id());
    let state = Reader(&view);
    let known = state.sobriety(epoch, &me).map_err(|error| error.to_string())?;
    let tokens = known.measured.tokens.saturating_add(known.estimated.tokens);
    if tokens == 0 || state.attested(epoch, &me).map_err(|error| error.to_string())?.is_some() {
        return Ok(false);
    }
    let energy = known.measured.energy_uj.checked_add(known.estimated.energy_uj).map_err(|error| error.to_string())?;
    let attestation = SobrietyAttestation {
        epoch,
        hardware: hardware(),
        energy_uj: energy,
        tokens,
        inferences: inferences(chain, epoch, &me).map_err(|error| error.to_string())?,
        is_measured: known.estimated.tokens == 0,
    };
    let span = chain.genesis.params().epoch_blocks;
    let first = now.get().saturating_mul(span);
    chain.order(Action::Sobriety(attestation), Height::new(first.saturating_add(span.saturating_sub(1))))?;
    Ok(true)
}

/// How many records of an epoch this node ran a part of.
fn inferences(chain: &Chain, epoch: Epoch, me: &NodeId) -> Result<u64, StoreError> {
    let filter = RecordFilter { node: Some(*me), ..RecordFilter::default() };
    let (mut page, mut count) = (Page { limit: PAGE_RECORDS_MAX, ..Page::default() }, 0);
    loop {
        let found = chain.store.records(&filter, &page)?;
        for record in &found.records {
            match chain.genesis.params().epoch_of(record.height).cmp(&epoch) {
                std::cmp::Ordering::Greater => {}
                std::cmp::Ordering::Equal => count += 1,
                std::cmp::Ordering::Less => return Ok(count),
            }
        }
        let Some(next) = found.next else { return Ok(count) };
        page.after = Some(next);
    }
}

/// What this machine calls its processor.
fn hardware() -> Hardware {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = told.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':')).and_then(|(_, name)| Hardware::lossy(name));
    name.unwrap_or_else(|| Hardware::new(std::env::consts::ARCH).expect("a short word"))
}
