//! The loop around the driver: a thread of its own that waits for messages and for time, and lends the driver its hands.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aria_chain::block::{FinalBlock, Header};
use aria_chain::certificate::CommitCertificate;
use aria_chain::codec::Versioned;
use aria_chain::evidence::Evidence;
use aria_chain::hash::Domain;
use aria_chain::ids::{BlockHash, Digest, NodeId};
use aria_chain::store::Health;
use aria_chain::units::Height;
use malachite_types::{LinearTimeouts, Round, Timeout};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ahead::{Verified, with_verified};
use super::catch_up::CatchUp;
use super::context::WorkSet;
use super::driver::{Action, Driver, Event, Fatal, Setup};
use super::guard::{FileGuard, GuardError};
use super::hands::{self, Hands};
use super::log::{FileLog, Record};
use super::message::Message;
use super::talk::{Gossip, Sync, WireFinal};
use crate::chain::Chain;
use crate::error::NodeError;
use crate::network::{Channel, Room};

/// Longest sleep: the clock may be set while we wait.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Messages of one height that are remembered as heard.
const SEEN_MAX: usize = 65_536;
/// How long a peer that lied stays out.
const BAN: Duration = Duration::from_secs(3_600);
/// How often peers are told where this node is, where no block tells them.
const TELL_EVERY: Duration = Duration::from_secs(5);
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
#[derive(Debug)]
pub enum Told {
    /// A peer said this about the next blocks.
    Heard(NodeId, Box<Message>, Room),
    /// A peer has blocks up to here.
    Tip(NodeId, Height),
    /// A peer sends blocks of the past.
    Blocks(NodeId, Vec<WireFinal>, Room),
    /// A peer is gone.
    Gone(NodeId),
}

/// What waits for the loop. Readers of peers wait where it is full.
pub const TOLD_MAX: usize = 1_024;

/// Makes blocks until told to stop. An error means that this node must not go on. `folder` holds the log; what peers say
/// comes through `told`.
pub async fn run(
    chain: Arc<Chain>,
    folder: std::path::PathBuf,
    told: mpsc::Receiver<Told>,
    stop: CancellationToken,
) -> Result<(), NodeError> {
    let (done, ended) = tokio::sync::oneshot::channel();
    let outside = Outside { told, stop: stop.clone(), runtime: tokio::runtime::Handle::current() };
    let thread_chain = Arc::clone(&chain);
    let spawned = std::thread::Builder::new().name("aria-consensus".into()).spawn(move || {
        let outcome = Loop::open(thread_chain, &folder).and_then(|mut work| work.run(outside));
        // Nobody listens only where the node is gone.
        let _ = done.send(outcome);
    });
    spawned.map_err(|error| task_fault(&error))?;
    match ended.await.unwrap_or_else(|_| Err(task_fault(&"its thread panicked"))) {
        // A full disk or the like: what is there can still be read, so the doors stay open and say why nothing is written.
        Err(error) if is_unwritable(&chain, &error) => {
            tracing::error!(%error, "no more blocks until this node is started again");
            chain.halt(error.to_string());
            stop.cancelled().await;
            Ok(())
        }
        outcome => outcome,
    }
}

fn is_unwritable(chain: &Chain, error: &NodeError) -> bool {
    matches!(error, NodeError::NotWritten { .. }) || matches!(chain.health(), Health::ReadOnly { .. })
}

fn task_fault(reason: &dyn std::fmt::Display) -> NodeError {
    NodeError::Task { task: "consensus", reason: reason.to_string() }
}

impl From<Fatal> for NodeError {
    fn from(fatal: Fatal) -> NodeError {
        match fatal {
            Fatal::Log(_) | Fatal::Guard(GuardError::Io { .. }) => NodeError::NotWritten { reason: fatal.to_string() },
            _ => task_fault(&fatal),
        }
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
    catch_up: CatchUp,
    /// Messages of this height that were heard before.
    seen: HashSet<Digest>,
    /// Who said what is being heard.
    speaker: Option<NodeId>,
    /// When peers were last told where this node is.
    tip_told: Instant,
    /// Zero of the clock of catching up, which no one sets.
    begun: Instant,
}

impl Loop {
    /// Reads the log back.
    fn open(chain: Arc<Chain>, folder: &Path) -> Result<Loop, NodeError> {
        let tip = chain.store.tip()?;
        let height = tip.height.next().map_err(|error| task_fault(&error))?;
        let (log, records) = FileLog::open(&folder.join("height.log"), height).map_err(|error| task_fault(&error))?;
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
        let set = WorkSet::new(chain.voters()?);
        let (driver, actions) = Driver::recover(setup, (log, guard), height, set, records, blocks)?;
        let last_block_ms = tip.timestamp_ms.get();
        let mut work = Loop {
            chain,
            driver,
            hands,
            timers: HashMap::new(),
            wanted: None,
            last_block_ms,
            catch_up: CatchUp::default(),
            seen: HashSet::new(),
            speaker: None,
            tip_told: Instant::now(),
            begun: Instant::now(),
        };
        work.perform(actions)?;
        Ok(work)
    }

    fn run(&mut self, mut outside: Outside) -> Result<(), NodeError> {
        loop {
            self.pass_time()?;
            match outside.wait(&self.chain, self.next_wait()) {
                Waited::Stop => return Ok(()),
                Waited::Time => {}
                Waited::Told(told) => self.hear(told)?,
            }
        }
    }

    fn hear(&mut self, told: Told) -> Result<(), NodeError> {
        match told {
            Told::Heard(peer, message, _room) => {
                if self.seen.len() >= SEEN_MAX {
                    self.seen.clear();
                }
                if !self.seen.insert(Domain::SEEN.hash_of(&*message)) {
                    return Ok(());
                }
                self.speaker = Some(peer);
                let outcome = self.drive(Event::Heard(*message));
                self.speaker = None;
                outcome
            }
            Told::Tip(peer, height) => {
                self.catch_up.heard(peer, height);
                Ok(())
            }
            Told::Gone(peer) => {
                self.catch_up.gone(&peer);
                Ok(())
            }
            Told::Blocks(peer, blocks, _room) => self.take_blocks(peer, blocks),
        }
    }

    /// Commits blocks of the past, each checked as if it were new: proofs, certificate, parent, state. The question for those
    /// above leaves before, so that the answer is here when these are done.
    fn take_blocks(&mut self, peer: NodeId, blocks: Vec<WireFinal>) -> Result<(), NodeError> {
        if !self.catch_up.answered(&peer, blocks.first().map(|block| block.header.height), self.now_ms()) {
            return Ok(());
        }
        let next = self.driver.height();
        let missing: Vec<WireFinal> = blocks.into_iter().skip_while(|block| block.header.height < next).collect();
        if let Some(last) = missing.last() {
            self.ask_above(last.header.height);
        }
        let mut rest = Vec::with_capacity(missing.len());
        let mut bodies = Vec::with_capacity(missing.len());
        for WireFinal { header, body, certificate } in missing {
            bodies.push(body);
            rest.push(Some((header, certificate)));
        }
        let chain = Arc::clone(&self.chain);
        let mut fault = None;
        with_verified(bodies, &|body| hands::verify(&chain, body), |index, body| {
            let (header, certificate) = rest[index].take().expect("each comes once");
            fault = self.take_block(header, certificate, body)?;
            Ok::<bool, NodeError>(fault.is_none())
        })?;
        self.catch_up.wait_from(self.now_ms());
        match fault {
            Some(reason) => {
                // What was asked above the false block leads nowhere.
                self.catch_up.forget_question();
                self.blame(&peer, &reason)
            }
            None => Ok(()),
        }
    }

    /// Commits one. What is wrong with it, if anything is.
    fn take_block(
        &mut self,
        header: Header,
        certificate: CommitCertificate,
        body: Verified,
    ) -> Result<Option<String>, NodeError> {
        // Consensus may decide a block while the one below is taken from a peer.
        if header.height < self.driver.height() {
            return Ok(None);
        }
        if header.height > self.driver.height() {
            return Ok(Some("it sent blocks with a gap".into()));
        }
        let Some(block) = self.hands.check_verified(header, body)? else {
            return Ok(Some("it sent a final block that is not valid".into()));
        };
        let block = match FinalBlock::new(Arc::unwrap_or_clone(block), certificate, self.driver.set().set()) {
            Ok(block) => block,
            Err(fault) => return Ok(Some(format!("it sent a block that is not final: {fault}"))),
        };
        if let Err(error) = self.chain.check_trusted(block.header()) {
            return Ok(Some(error.to_string()));
        }
        let committed = self.commit(&block)?;
        self.drive(committed)?;
        Ok(None)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the end of a step that may fail")]
    fn blame(&self, peer: &NodeId, reason: &str) -> Result<(), NodeError> {
        if let Some(network) = self.chain.network.get() {
            network.ban(peer, reason, BAN);
        }
        Ok(())
    }

    /// The clock of catching up.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Asks a peer for blocks if this node lacks some.
    fn ask(&mut self) {
        let Some(tip) = self.driver.height().previous() else { return };
        self.chain.behind.store(self.catch_up.behind(tip), std::sync::atomic::Ordering::Relaxed);
        self.ask_above(tip);
    }

    /// Asks for what is above a block that this node has, or is about to have.
    fn ask_above(&mut self, tip: Height) {
        let Some(network) = self.chain.network.get() else { return };
        let Ok(next) = tip.next() else { return };
        if let Some(peer) = self.catch_up.next_question(tip, self.now_ms()) {
            network.send(&peer, Channel::Sync, &Sync::Ask(next).encode());
        }
    }

    /// Tells the driver which timeouts are over, and whether a block is due.
    fn pass_time(&mut self) -> Result<(), NodeError> {
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
        // Who missed the news asks for the block only when it hears them again.
        if now.saturating_duration_since(self.tip_told) >= TELL_EVERY {
            let tip = self.chain.store.tip()?;
            self.tell_tip(tip.height, tip.hash);
        }
        self.ask();
        Ok(())
    }

    /// How long until a block is due. Blocks are made when there is something to seal, at most one an interval; without
    /// that, a heartbeat.
    fn due_in(&self) -> Duration {
        let params = self.chain.genesis.params();
        // A state that cannot be read stops this node at its next block, which it then makes at once.
        let is_pending = self.chain.is_block_wanted().unwrap_or(true);
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
                Action::Publish(message) => {
                    self.say(&message, None);
                    None
                }
                Action::Relay(message) => {
                    self.say(&message, self.speaker.as_ref());
                    None
                }
                Action::Build(_, round) => self.try_build(round)?,
                Action::Check(block) => Some(Event::Checked(self.hands.check(*block)?)),
                Action::Commit(block, certificate) => {
                    let block = FinalBlock::new(Arc::unwrap_or_clone(block), certificate, self.driver.set().set());
                    Some(self.commit(&block.map_err(|fault| task_fault(&fault))?)?)
                }
                Action::Accuse(pieces) => {
                    for piece in pieces {
                        self.accuse(piece)?;
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

    fn commit(&mut self, block: &FinalBlock) -> Result<Event, NodeError> {
        self.hands.commit(block)?;
        let height = block.header().height;
        self.last_block_ms = block.header().timestamp_ms.get();
        self.wanted = None;
        self.seen.clear();
        self.tell_tip(height, block.hash());
        let (voters, set) = (self.chain.voters()?, self.driver.set());
        let set = if set.is_of(&voters) { set.clone() } else { WorkSet::new(voters) };
        Ok(Event::Committed(height, set))
    }

    /// Tells all peers where this node is.
    fn tell_tip(&mut self, height: Height, hash: BlockHash) {
        self.tip_told = Instant::now();
        if let Some(network) = self.chain.network.get() {
            network.broadcast(Channel::Gossip, &Gossip::Tip(height, hash).encode(), None);
        }
    }

    /// Keeps evidence for a block, and tells the others.
    fn accuse(&self, piece: Evidence) -> Result<(), NodeError> {
        let news = Gossip::Evidence(Box::new(piece.clone())).encode();
        if self.chain.accuse(piece)?
            && let Some(network) = self.chain.network.get()
        {
            network.broadcast(Channel::Gossip, &news, None);
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

    fn say(&self, message: &Message, except: Option<&NodeId>) {
        if let Some(network) = self.chain.network.get() {
            network.broadcast(Channel::Consensus, &message.encode(), except);
        }
    }
}

/// Where the loop hears from.
struct Outside {
    told: mpsc::Receiver<Told>,
    stop: CancellationToken,
    runtime: tokio::runtime::Handle,
}

enum Waited {
    Told(Told),
    Time,
    Stop,
}

impl Outside {
    /// Blocks this thread until something happens, or for so long.
    fn wait(&mut self, chain: &Chain, time: Duration) -> Waited {
        let Outside { told, stop, runtime } = self;
        runtime.block_on(async {
            tokio::select! { biased;
                () = stop.cancelled() => Waited::Stop,
                Some(told) = told.recv() => Waited::Told(told),
                () = chain.wake.notified() => Waited::Time,
                () = tokio::time::sleep(time) => Waited::Time,
            }
        })
    }
}
