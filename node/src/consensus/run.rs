//! The loop around the driver: a thread of its own that waits for messages and for time, and lends the driver its hands.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use aria_chain::store::Health;
use malachite_types::{LinearTimeouts, Round, Timeout};
use tokio_util::sync::CancellationToken;

use super::context::WorkSet;
use super::driver::{Action, Driver, Event, Fatal, Setup};
use super::guard::FileGuard;
use super::hands::Hands;
use super::log::{FileLog, Record};
use super::message::Message;
use crate::chain::Chain;
use crate::error::NodeError;

/// Longest sleep: the clock may be set while we wait.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How long a proposer that found nothing to seal waits before it looks again.
const BUILD_AGAIN: Duration = Duration::from_millis(50);

/// Times of rounds. A proposal carries a whole block; votes are small.
fn timeouts() -> LinearTimeouts {
    LinearTimeouts {
        propose: Duration::from_millis(1_500),
        propose_delta: Duration::from_millis(500),
        prevote: Duration::from_millis(500),
        prevote_delta: Duration::from_millis(250),
        precommit: Duration::from_millis(500),
        precommit_delta: Duration::from_millis(250),
        rebroadcast: Duration::from_millis(2_500),
        max_timeout: Duration::from_secs(30),
    }
}

/// What the loop is told from outside.
enum Told {
    /// A proof began to wait.
    Wake,
    /// The node stops.
    Stop,
}

/// Makes blocks until told to stop. An error means that this node must not go on. `folder` holds the log.
pub async fn run(chain: Arc<Chain>, folder: std::path::PathBuf, stop: CancellationToken) -> Result<(), NodeError> {
    let (tell, told) = channel();
    let (done, ended) = tokio::sync::oneshot::channel();
    let thread_chain = Arc::clone(&chain);
    let spawned = std::thread::Builder::new().name("aria-consensus".into()).spawn(move || {
        let outcome = Loop::open(Arc::clone(&thread_chain), &folder).and_then(|mut work| work.run(&told));
        // Nobody listens only where the node is gone.
        let _ = done.send(outcome);
    });
    spawned.map_err(|error| task_fault(&error))?;
    let outcome = forward(&chain, &tell, &stop, ended).await;
    match outcome {
        // A full disk or the like: what is there can still be read, so the doors stay open and say why nothing is written.
        Err(error) if matches!(chain.store.health(), Health::ReadOnly { .. }) => {
            tracing::error!(%error, "no more blocks until this node is started again");
            stop.cancelled().await;
            Ok(())
        }
        outcome => outcome,
    }
}

/// Passes on what happens outside of the loop until it ends.
async fn forward(
    chain: &Chain,
    tell: &Sender<Told>,
    stop: &CancellationToken,
    mut ended: tokio::sync::oneshot::Receiver<Result<(), NodeError>>,
) -> Result<(), NodeError> {
    let mut is_stopping = false;
    loop {
        // A loop that is gone has said why in `ended`.
        tokio::select! { biased;
            outcome = &mut ended => {
                return outcome.unwrap_or_else(|_| Err(task_fault(&"its thread panicked")));
            }
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                let _ = tell.send(Told::Stop);
            }
            () = chain.wake.notified() => {
                let _ = tell.send(Told::Wake);
            }
        }
    }
}

fn task_fault(reason: &dyn std::fmt::Display) -> NodeError {
    NodeError::Task { task: "consensus", reason: reason.to_string() }
}

impl From<Fatal> for NodeError {
    fn from(fatal: Fatal) -> NodeError {
        task_fault(&fatal)
    }
}

/// Everything the thread owns.
struct Loop {
    chain: Arc<Chain>,
    driver: Driver<FileLog, FileGuard>,
    hands: Hands,
    timers: HashMap<Timeout, Instant>,
    /// The round for which this node should propose and had nothing yet, and when it looks again.
    wanted: Option<(Round, Instant)>,
    last_block_ms: u64,
}

impl Loop {
    /// Reads the log back.
    fn open(chain: Arc<Chain>, folder: &Path) -> Result<Loop, NodeError> {
        let tip = chain.store.tip()?;
        let height = tip.height.next().map_err(|error| task_fault(&error))?;
        let (log, records) =
            FileLog::open(&folder.join("height.log"), height).map_err(|error| task_fault(&error))?;
        let guard = FileGuard::open(&folder.join("signed")).map_err(|error| task_fault(&error))?;
        let mut hands = Hands::new(Arc::clone(&chain));
        let mut blocks = Vec::new();
        for record in &records {
            if let Record::Block(block, _) = record {
                blocks.extend(hands.check((**block).clone())?);
            }
        }
        let setup =
            Setup { key: Arc::clone(&chain.key), chain_id: chain.genesis.chain_id().clone(), timeouts: timeouts() };
        let set = WorkSet::new(chain.genesis.validators().clone());
        let (driver, actions) = Driver::recover(setup, (log, guard), height, set, records, blocks)?;
        let last_block_ms = tip.timestamp_ms.get();
        let mut work = Loop { chain, driver, hands, timers: HashMap::new(), wanted: None, last_block_ms };
        work.perform(actions)?;
        Ok(work)
    }

    fn run(&mut self, told: &Receiver<Told>) -> Result<(), NodeError> {
        loop {
            self.catch_up_with_time()?;
            match told.recv_timeout(self.next_wait()) {
                Ok(Told::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Told::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Tells the driver which timeouts are over, and whether a block is due.
    fn catch_up_with_time(&mut self) -> Result<(), NodeError> {
        let now = Instant::now();
        while let Some(timeout) = self.timers.iter().find(|(_, due)| **due <= now).map(|(timeout, _)| *timeout) {
            self.timers.remove(&timeout);
            self.drive(Event::Elapsed(timeout))?;
        }
        if self.driver.is_waiting() && self.due_in() == Duration::ZERO {
            self.drive(Event::Start)?;
        }
        if let Some((round, again)) = self.wanted
            && again <= now
        {
            self.build(round)?;
        }
        Ok(())
    }

    /// How long until a block is due. Blocks are made when there is something to seal, at most one an interval; without
    /// that, a heartbeat.
    fn due_in(&self) -> Duration {
        let params = self.chain.genesis.params();
        let is_pending = self.chain.mempool().status().proofs > 0;
        let pause_ms = if is_pending { params.block_interval_ms } else { params.heartbeat_ms };
        let since_ms = self.chain.clock.now_ms().saturating_sub(self.last_block_ms);
        Duration::from_millis(pause_ms.saturating_sub(since_ms))
    }

    fn next_wait(&self) -> Duration {
        let now = Instant::now();
        let timer = self.timers.values().chain(self.wanted.iter().map(|(_, again)| again)).min();
        let timer = timer.map_or(SLEEP_MAX, |due| due.saturating_duration_since(now));
        let block = if self.driver.is_waiting() { self.due_in() } else { SLEEP_MAX };
        timer.min(block).clamp(Duration::from_millis(1), SLEEP_MAX)
    }

    fn drive(&mut self, event: Event) -> Result<(), NodeError> {
        let actions = self.driver.on(event)?;
        self.perform(actions)
    }

    /// Carries out actions in their order; what they cause comes after them.
    fn perform(&mut self, actions: Vec<Action>) -> Result<(), NodeError> {
        let mut actions: VecDeque<Action> = actions.into();
        while let Some(action) = actions.pop_front() {
            let event = match action {
                Action::Arm(timeout, time) => {
                    self.timers.insert(timeout, Instant::now() + time);
                    None
                }
                Action::Disarm(timeout) => {
                    self.timers.remove(&timeout);
                    None
                }
                Action::DisarmAll => {
                    self.timers.clear();
                    None
                }
                Action::Publish(message) | Action::Relay(message) => {
                    self.say(&message);
                    None
                }
                Action::Build(_, round) => self.try_build(round)?,
                Action::Check(block) => Some(Event::Checked(self.hands.check(*block)?)),
                Action::Commit(block, certificate) => {
                    let height = self.hands.commit(&block, certificate)?;
                    self.last_block_ms = block.header().timestamp_ms.get();
                    self.wanted = None;
                    Some(Event::Committed(height, self.driver.set().clone()))
                }
                Action::Accuse(nodes) => {
                    for node in nodes {
                        tracing::warn!(%node, "signed two different messages in one round");
                    }
                    None
                }
            };
            if let Some(event) = event {
                actions.extend(self.driver.on(event)?);
            }
        }
        Ok(())
    }

    fn try_build(&mut self, round: Round) -> Result<Option<Event>, NodeError> {
        let block = self.hands.build(round)?;
        self.wanted = block.is_none().then(|| (round, Instant::now() + BUILD_AGAIN));
        Ok(block.map(|block| Event::Built(round, block)))
    }

    fn build(&mut self, round: Round) -> Result<(), NodeError> {
        if self.driver.round() != round.as_u32() {
            self.wanted = None;
            return Ok(());
        }
        match self.try_build(round)? {
            Some(event) => self.drive(event),
            None => Ok(()),
        }
    }

    #[expect(clippy::unused_self, reason = "there are no peers yet")]
    fn say(&self, _: &Message) {}
}
