//! The thin loop around the driver: reads the clock, carries out actions on blocking threads, feeds the results back.

use std::{sync::Arc, time::Duration};

use aria_chain::{
    block::{FinalBlock, ProposedBlock},
    certificate::{CommitCertificate, Vote},
    mempool::SelectLimits,
    store::Health,
    units::{Round, Timestamp},
};
use aria_runtime::{
    execute::{ExecutedBlock, check_clock, execute},
    propose::{Slot, propose},
    rules::record::RecordFault,
};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::driver::{Action, Driver, Event, Pace};
use crate::{chain::Chain, error::NodeError};

/// Longest sleep: the clock may be set while we wait.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Makes blocks until told to stop. An error means that this node must not go on.
pub async fn run(chain: Arc<Chain>, stop: CancellationToken) -> Result<(), NodeError> {
    let tip = chain.store.tip()?;
    let params = chain.genesis.params();
    let pace = Pace { interval_ms: params.block_interval_ms, heartbeat_ms: params.heartbeat_ms };
    let mut driver = Driver::new(chain.genesis.validators().clone(), pace, tip.height, tip.timestamp_ms.get());
    let mut hands = Some(Hands { chain: Arc::clone(&chain), executed: None });
    loop {
        let tick = Event::Tick { now_ms: chain.clock.now_ms(), pending: chain.mempool().status().proofs };
        let mut next = driver.on(tick);
        while let Some(action) = next {
            let mut working = hands.take().expect("every action gives the hands back");
            let done = spawn_blocking(move || {
                let event = working.perform(action);
                (working, event)
            });
            let (working, event) =
                done.await.map_err(|error| NodeError::Task { task: "consensus", reason: error.to_string() })?;
            hands = Some(working);
            next = match event {
                Ok(event) => driver.on(event),
                Err(error) => {
                    // A full disk or the like: what is there can still be read, so the doors stay open and say why nothing is written.
                    let Health::ReadOnly { .. } = chain.store.health() else { return Err(error) };
                    tracing::error!(%error, "no more blocks until this node is started again");
                    stop.cancelled().await;
                    return Ok(());
                }
            };
        }
        let due = Duration::from_millis(driver.due_in_ms(chain.clock.now_ms(), chain.mempool().status().proofs));
        tokio::select! { biased;
            () = stop.cancelled() => return Ok(()),
            () = chain.wake.notified() => {}
            () = tokio::time::sleep(due.clamp(Duration::from_millis(1), SLEEP_MAX)) => {}
        }
    }
}

/// Carries out actions. Runs on a blocking thread.
struct Hands {
    chain: Arc<Chain>,
    /// What the block that is being voted on does.
    executed: Option<ExecutedBlock>,
}

impl Hands {
    fn perform(&mut self, action: Action) -> Result<Event, NodeError> {
        match action {
            Action::Build(_) => self.build(),
            Action::Validate(block) => self.validate(&block),
            Action::SignVote(height, round, block_hash) => {
                let vote = Vote::sign(&self.chain.key, self.chain.genesis.chain_id(), height, round, block_hash);
                Ok(Event::Voted(vote))
            }
            Action::Commit(block, certificate) => self.commit(&block, certificate),
        }
    }

    fn build(&self) -> Result<Event, NodeError> {
        let chain = &self.chain;
        let parent = chain.tip_header()?;
        let params = chain.genesis.params();
        // Never closer to the parent than the rules allow, even where the clock went back a little.
        let earliest_ms = parent.timestamp_ms.get().saturating_add(params.block_interval_ms);
        let timestamp = Timestamp::new(chain.clock.now_ms().max(earliest_ms));
        let waiting = chain.mempool().select(SelectLimits::default());
        let slot = Slot { parent: &parent, round: Round::ZERO, timestamp, proposer: chain.key.node_id() };
        let proposal = propose(slot, waiting, &chain.view(), &chain.genesis)
            .map_err(|error| NodeError::Execution(error.to_string()))?;
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
        Ok(proposal.block.map_or(Event::NothingToBuild, |(block, _)| Event::Built(Box::new(block))))
    }

    fn validate(&mut self, block: &ProposedBlock) -> Result<Event, NodeError> {
        let chain = &self.chain;
        let fault = |error: String| NodeError::Execution(error);
        check_clock(block.header(), Timestamp::new(chain.clock.now_ms()), chain.genesis.params())
            .map_err(|error| fault(error.to_string()))?;
        let executed = execute(block, &chain.tip_header()?, &chain.view(), &chain.genesis);
        self.executed = Some(executed.map_err(|error| fault(error.to_string()))?);
        Ok(Event::Valid)
    }

    fn commit(&mut self, block: &ProposedBlock, certificate: CommitCertificate) -> Result<Event, NodeError> {
        let chain = &self.chain;
        let executed = self.executed.take().expect("a block is validated before it is voted on");
        let validators = chain.genesis.validators();
        let block = FinalBlock::new(block.clone(), certificate, validators)
            .map_err(|error| NodeError::Execution(error.to_string()))?;
        chain.store.commit(&block, &executed.changes)?;
        let height = block.header().height;
        let expired = {
            let mut mempool = chain.mempool();
            mempool.remove(block.block().proofs());
            mempool.expire(height)
        };
        let expired: Vec<_> = expired.iter().map(|proof| proof.record_id()).collect();
        chain.store.drop_pending(&expired)?;
        chain.advance(block.block());
        tracing::info!(%height, hash = %block.hash(), records = block.header().record_count, "final block");
        Ok(Event::Committed { timestamp_ms: block.header().timestamp_ms.get() })
    }
}
