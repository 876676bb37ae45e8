//! The world: nodes, the network between them, the clock, and an observer who sees every signature.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use aria_chain::block::FinalBlock;
use aria_chain::certificate::{Validator, ValidatorSet};
use aria_chain::codec::Versioned;
use aria_chain::hash::Domain;
use aria_chain::ids::{BlockHash, Digest, NodeId};
use aria_chain::keys::NodeKey;
use aria_chain::units::Height;
use aria_node::consensus::context::{NilOrVal, Timeout, VoteType};
use aria_node::consensus::driver::{Action, Event, Fatal};
use aria_node::consensus::message::Message;

use crate::disk::Flaws;
use crate::liar::Liar;
use crate::node::{Shared, SimNode};

/// How long a node waits after a block before it begins the next.
const PAUSE_MS: u64 = 50;
/// How often a node looks whether a peer has more blocks.
const SYNC_EVERY_MS: u64 = 700;

/// A small generator; one seed is one run.
pub(crate) struct Source(u64);

impl Source {
    pub(crate) fn new(seed: u64) -> Source {
        Source(seed ^ 0x5eed_a51a)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What the network does to messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) delay_ms: (u64, u64),
    pub(crate) loss_percent: u64,
    pub(crate) double_percent: u64,
}

impl Weather {
    pub(crate) const CALM: Weather = Weather { delay_ms: (1, 30), loss_percent: 0, double_percent: 0 };
    pub(crate) const STORM: Weather = Weather { delay_ms: (1, 900), loss_percent: 25, double_percent: 10 };
}

enum Due {
    Message(usize, usize, Message),
    Timer(usize, Timeout, u64),
    Begin(usize),
    Sync(usize),
    Blocks(usize, Vec<FinalBlock>),
}

/// One honest thing said in one place.
type Said = (NodeId, u64, i64, u8);

/// Says of a message from one node to another whether it is lost.
pub(crate) type Rule = Box<dyn FnMut(usize, usize, &Message) -> bool>;

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) source: Source,
    pub(crate) now_ms: u64,
    pub(crate) weather: Weather,
    pub(crate) shared: Shared,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) liars: BTreeMap<usize, Liar>,
    /// Ordered pairs that cannot speak.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    queue: BTreeMap<(u64, u64), Due>,
    sequence: u64,
    seen: Vec<BTreeSet<Digest>>,
    said: HashMap<Said, Option<BlockHash>>,
    decided: BTreeMap<Height, BlockHash>,
    /// Who said something at which height.
    pub(crate) spoke: BTreeSet<(NodeId, Height)>,
    /// Contradictions of honest nodes; a sound protocol has none.
    pub(crate) double_signed: Vec<Said>,
    /// Digest of everything that happened.
    pub(crate) trace: Digest,
    /// Percent of actions at which a node may die between two of them.
    pub(crate) dies_between_percent: u64,
    /// Whether the network loses a message between two nodes.
    pub(crate) loses: Rule,
    /// Everything that somebody published, byte for byte.
    published: BTreeSet<Digest>,
}

impl World {
    pub(crate) fn new(seed: u64, powers: &[u64]) -> World {
        World::of_epochs(seed, &[powers])
    }

    /// A world in which the powers of all nodes change with each epoch; zero is no member.
    pub(crate) fn of_epochs(seed: u64, epochs: &[&[u64]]) -> World {
        let keys: Vec<Arc<NodeKey>> = (0..epochs[0].len())
            .map(|index| Arc::new(NodeKey::from_seed(&[u8::try_from(index).unwrap() + 1; 32])))
            .collect();
        let set = |powers: &&[u64]| {
            let members = keys.iter().zip(*powers).map(|(key, &power)| Validator { node_id: key.node_id(), power });
            ValidatorSet::new(members.filter(|member| member.power > 0).collect()).unwrap()
        };
        let shared = Shared::new(epochs.iter().map(set).collect());
        let nodes: Vec<SimNode> = keys.into_iter().map(SimNode::new).collect();
        World {
            seed,
            source: Source::new(seed),
            now_ms: 1_000,
            weather: Weather::CALM,
            shared,
            seen: vec![BTreeSet::new(); nodes.len()],
            nodes,
            liars: BTreeMap::new(),
            cut: BTreeSet::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            said: HashMap::new(),
            decided: BTreeMap::new(),
            spoke: BTreeSet::new(),
            double_signed: Vec::new(),
            trace: Digest::ZERO,
            dies_between_percent: 0,
            loses: Box::new(|_, _, _| false),
            published: BTreeSet::new(),
        }
    }

    pub(crate) fn with_flaws(mut self, flaws: Flaws) -> World {
        for node in &self.nodes {
            node.disk.borrow_mut().flaws = flaws;
        }
        self.note(&[u8::from(flaws.no_flush), u8::from(flaws.no_guard)]);
        self
    }

    pub(crate) fn make_liar(&mut self, index: usize) {
        self.liars.insert(index, Liar::new(Arc::clone(&self.nodes[index].key)));
    }

    pub(crate) fn start_all(&mut self) {
        for index in 0..self.nodes.len() {
            if !self.liars.contains_key(&index) {
                self.start(index);
            }
        }
    }

    pub(crate) fn start(&mut self, index: usize) {
        if self.nodes[index].driver.is_some() || self.nodes[index].halted.is_some() {
            return;
        }
        let actions = self.nodes[index].start(&self.shared);
        self.perform(index, actions);
        self.later(PAUSE_MS, Due::Begin(index));
        let wait_ms = self.source.below(SYNC_EVERY_MS);
        self.later(wait_ms, Due::Sync(index));
    }

    pub(crate) fn crash(&mut self, index: usize) {
        let kept = usize::try_from(self.source.below(4)).unwrap();
        self.nodes[index].crash(kept);
        self.note(&[0xdd, u8::try_from(index).unwrap()]);
    }

    fn note(&mut self, bytes: &[u8]) {
        self.trace = Domain::BLOCK.hash(&[self.trace.as_bytes().as_slice(), bytes].concat());
    }

    fn later(&mut self, wait_ms: u64, due: Due) {
        self.sequence += 1;
        self.queue.insert((self.now_ms + wait_ms, self.sequence), due);
    }

    pub(crate) fn honest(&self) -> impl Iterator<Item = &SimNode> {
        self.nodes.iter().enumerate().filter(|(index, _)| !self.liars.contains_key(index)).map(|(_, node)| node)
    }

    /// Where each honest node stands, for the message of a failure.
    pub(crate) fn describe(&self) -> String {
        let one = |node: &SimNode| {
            let tip = node.tip(&self.shared).0;
            let (is_waiting, round) = node.driver.as_ref().map_or((true, None), |d| (d.is_waiting(), d.round()));
            let timers: Vec<String> = node.timers.keys().map(ToString::to_string).collect();
            format!(
                "halted {:?}, tip {tip}, alive {}, waiting {is_waiting}, round {round:?}, {timers:?}",
                node.halted,
                node.driver.is_some()
            )
        };
        self.honest().map(one).collect::<Vec<_>>().join("; ")
    }

    /// The least and the greatest height of honest nodes.
    pub(crate) fn heights(&self) -> (u64, u64) {
        let heights: Vec<u64> = self.honest().map(|node| node.tip(&self.shared).0.get()).collect();
        (*heights.iter().min().unwrap(), *heights.iter().max().unwrap())
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some((&(at, sequence), _)) = self.queue.first_key_value() {
            if at > end {
                break;
            }
            let due = self.queue.remove(&(at, sequence)).unwrap();
            self.now_ms = at;
            self.happen(due);
        }
        self.now_ms = end;
    }

    /// Lets time pass until every honest node is at a height, and says in how many milliseconds.
    pub(crate) fn run_to(&mut self, height: u64, limit_ms: u64) -> Option<u64> {
        let begin = self.now_ms;
        while self.heights().0 < height {
            if self.now_ms - begin >= limit_ms {
                return None;
            }
            self.run_for(100);
        }
        Some(self.now_ms - begin)
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Message(from, to, message) => self.deliver(from, to, message),
            Due::Timer(index, timeout, number) => {
                if self.nodes[index].timers.get(&timeout) == Some(&number) {
                    self.nodes[index].timers.remove(&timeout);
                    self.drive(index, Event::Elapsed(timeout));
                }
            }
            Due::Begin(index) => self.drive(index, Event::Start),
            Due::Sync(index) => self.sync(index),
            Due::Blocks(index, blocks) => self.take_blocks(index, &blocks),
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        if self.cut.contains(&(from, to)) || (self.loses)(from, to, &message) {
            return;
        }
        if let Some(mut liar) = self.liars.remove(&to) {
            let tip = message.height().previous().and_then(|below| self.decided.get(&below).copied());
            let tip = tip.unwrap_or(self.shared.genesis.hash());
            let salt = self.source.below(1_000) + 10;
            let said = liar.hear(&self.shared, &message, tip, salt);
            self.liars.insert(to, liar);
            for (half, messages) in said.into_iter().enumerate() {
                for message in messages {
                    for peer in (0..self.nodes.len()).filter(|peer| *peer != to && peer % 2 == half) {
                        self.send(to, peer, message.clone());
                    }
                }
            }
            return;
        }
        if self.nodes[to].driver.is_none() {
            return;
        }
        // A node passes each message on once.
        if self.seen[to].insert(Domain::BLOCK.hash(&message.encode())) {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message), "what is said is what is heard");
            self.note(&bytes[..bytes.len().min(64)]);
        }
        self.drive(to, Event::Heard(message));
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let copies = 1 + u64::from(self.source.chance(self.weather.double_percent));
        for _ in 0..copies {
            if !self.source.chance(self.weather.loss_percent) {
                let (least, most) = self.weather.delay_ms;
                let wait_ms = least + self.source.below(most - least + 1);
                self.later(wait_ms, Due::Message(from, to, message.clone()));
            }
        }
    }

    fn drive(&mut self, index: usize, event: Event) {
        let outcome = self.nodes[index].on(event);
        self.settle(index, outcome);
    }

    fn settle(&mut self, index: usize, outcome: Result<Vec<Action>, Fatal>) {
        match outcome {
            Ok(actions) => self.perform(index, actions),
            Err(Fatal::Guard(error @ aria_node::consensus::guard::GuardError::Signed { .. })) => {
                self.nodes[index].halted = Some(error.to_string());
                self.crash(index);
            }
            Err(_) => self.crash(index),
        }
    }

    fn perform(&mut self, index: usize, actions: Vec<Action>) {
        let mut actions: VecDeque<Action> = actions.into();
        while let Some(action) = actions.pop_front() {
            if self.nodes[index].driver.is_none() {
                return;
            }
            if self.dies_between_percent > 0 && self.source.chance(self.dies_between_percent) {
                self.crash(index);
                return;
            }
            let event = self.act(index, action);
            if let Some(event) = event {
                match self.nodes[index].on(event) {
                    Ok(more) => actions.extend(more),
                    failed => self.settle(index, failed),
                }
            }
        }
    }

    fn act(&mut self, index: usize, action: Action) -> Option<Event> {
        match action {
            Action::Publish(message) => {
                self.watch(index, &message);
                self.published.insert(Domain::BLOCK.hash(&message.encode()));
                for peer in (0..self.nodes.len()).filter(|peer| *peer != index) {
                    self.send(index, peer, message.clone());
                }
                None
            }
            Action::Relay(message) => {
                let digest = Domain::BLOCK.hash(&[b"relayed".as_slice(), &message.encode()].concat());
                if self.seen[index].insert(digest) {
                    for peer in (0..self.nodes.len()).filter(|peer| *peer != index) {
                        self.send(index, peer, message.clone());
                    }
                }
                None
            }
            Action::Arm(timeout, time) => {
                self.sequence += 1;
                let number = self.sequence;
                self.nodes[index].timers.insert(timeout, number);
                let wait_ms = u64::try_from(time.as_millis()).unwrap();
                self.later(wait_ms, Due::Timer(index, timeout, number));
                None
            }
            Action::Disarm(timeout) => {
                self.nodes[index].timers.remove(&timeout);
                None
            }
            Action::DisarmAll => {
                self.nodes[index].timers.clear();
                None
            }
            Action::Build(height, round) => {
                let parent = self.nodes[index].tip(&self.shared).1;
                let at = round.as_u32().unwrap();
                let salt = self.now_ms * 1_000 + self.source.below(1_000);
                let evidence = self.nodes[index].evidence();
                let block = self.shared.block(self.nodes[index].id(), height, at, parent, salt, evidence);
                Some(Event::Built(round, Arc::new(block)))
            }
            Action::Check(block) => Some(Event::Checked(self.nodes[index].check(&self.shared, *block))),
            Action::Commit(block, certificate) => {
                self.decide(block.header().height, block.hash());
                let event = self.nodes[index].commit(&self.shared, &block, certificate);
                self.later(PAUSE_MS, Due::Begin(index));
                Some(event)
            }
            Action::Accuse(pieces) => {
                self.nodes[index].accused.extend(pieces);
                None
            }
        }
    }

    fn decide(&mut self, height: Height, hash: BlockHash) {
        self.note(hash.as_bytes());
        let first = *self.decided.entry(height).or_insert(hash);
        assert_eq!(first, hash, "seed {}: two decisions at height {height}", self.seed);
    }

    /// The observer compares what an honest node says with what it said before.
    fn watch(&mut self, index: usize, message: &Message) {
        let me = self.nodes[index].id();
        self.spoke.insert((me, message.height()));
        let (place, value) = match message {
            Message::Vote(vote) if vote.voter.0 == me => {
                let step = if vote.kind == VoteType::Prevote { 1 } else { 2 };
                let value = match &vote.value {
                    NilOrVal::Val(block) => Some(block.0),
                    NilOrVal::Nil => None,
                };
                ((me, vote.height.0.get(), vote.round.as_i64(), step), value)
            }
            Message::Proposal(proposal, _) => {
                ((me, proposal.height.0.get(), proposal.round.as_i64(), 0), Some(proposal.value.0))
            }
            _ => return,
        };
        if *self.said.entry(place).or_insert(value) != value {
            self.double_signed.push(place);
        }
    }

    /// Reads the log of a living node with another driver: it must come to the same round, and say nothing that was not said.
    /// Whether there was anything to read.
    pub(crate) fn check_replay(&self, index: usize) -> bool {
        let Some(driver) = self.nodes[index].driver.as_ref().filter(|driver| !driver.is_waiting()) else {
            return false;
        };
        let mut twin = self.nodes[index].twin();
        if twin.disk.borrow().records().is_empty() {
            return false;
        }
        let actions = twin.start(&self.shared);
        let again = twin.driver.as_ref();
        let seed = self.seed;
        let again =
            again.unwrap_or_else(|| panic!("seed {seed}: the log of node {index} is refused: {:?}", twin.halted));
        assert_eq!((again.height(), again.round()), (driver.height(), driver.round()), "seed {seed}, node {index}");
        for action in actions {
            if let Action::Publish(message) = action {
                let is_old = self.published.contains(&Domain::BLOCK.hash(&message.encode()));
                assert!(is_old, "seed {seed}: node {index} would now say {message:?}");
            }
        }
        true
    }

    /// A node asks a peer for the blocks above its tip.
    fn sync(&mut self, index: usize) {
        self.later(SYNC_EVERY_MS, Due::Sync(index));
        if self.nodes[index].driver.is_none() {
            return;
        }
        let peer = usize::try_from(self.source.below(self.nodes.len() as u64)).unwrap();
        let speak = !self.cut.contains(&(index, peer)) && !self.cut.contains(&(peer, index));
        if !speak || self.nodes[peer].driver.is_none() {
            return;
        }
        let have = self.nodes[index].chain.len();
        let blocks: Vec<FinalBlock> = self.nodes[peer].chain.iter().skip(have).take(20).cloned().collect();
        if !blocks.is_empty() {
            let wait_ms = 1 + self.source.below(100);
            self.later(wait_ms, Due::Blocks(index, blocks));
        }
    }

    fn take_blocks(&mut self, index: usize, blocks: &[FinalBlock]) {
        for block in blocks {
            let (tip, _) = self.nodes[index].tip(&self.shared);
            if self.nodes[index].driver.is_none() || Ok(block.header().height) != tip.next() {
                continue;
            }
            let event = self.nodes[index].commit(&self.shared, block.block(), block.certificate().clone());
            self.later(PAUSE_MS, Due::Begin(index));
            self.drive(index, event);
        }
    }
}
