//! One honest node: the real driver on a simulated disk, with a chain of blocks in memory.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use aria_chain::block::{Draft, FinalBlock, GenesisBlock, ProposedBlock, VerifiedBody};
use aria_chain::certificate::{CommitCertificate, ValidatorSet};
use aria_chain::evidence::Evidence;
use aria_chain::ids::{BlockHash, ChainId, Digest, NodeId};
use aria_chain::keys::NodeKey;
use aria_chain::units::{Height, Round, Timestamp};
use aria_node::consensus::context::{LinearTimeouts, Timeout, WorkSet};
use aria_node::consensus::driver::{Action, Driver, Event, Fatal, Setup};
use aria_node::consensus::guard::GuardError;
use aria_node::consensus::log::Record;
use aria_node::consensus::message::WireBlock;
use aria_runtime::voters::Voters;

use crate::disk::{Disk, DiskGuard, DiskLog, SharedDisk};

/// What all nodes of a world know.
pub(crate) struct Shared {
    pub(crate) chain_id: ChainId,
    /// Those that vote in one epoch after the other, and then again from the first.
    sets: Vec<ValidatorSet>,
    pub(crate) genesis: GenesisBlock,
}

/// Blocks of an epoch, where there are several sets.
pub(crate) const EPOCH: u64 = 5;

impl Shared {
    pub(crate) fn new(sets: Vec<ValidatorSet>) -> Shared {
        let chain_id: ChainId = "aria-sim".parse().unwrap();
        let genesis = GenesisBlock::new(chain_id.clone(), Timestamp::new(1), sets[0].clone(), Digest::ZERO);
        Shared { chain_id, sets, genesis }
    }

    /// Who votes at a height.
    pub(crate) fn work_set(&self, height: Height) -> WorkSet {
        let epoch = if self.sets.len() == 1 { 0 } else { height.get() / EPOCH };
        let set = self.sets[usize::try_from(epoch).unwrap() % self.sets.len()].clone();
        WorkSet::new(Voters { set, first: Height::new(epoch * EPOCH) })
    }

    /// A block of a height; `salt` makes it another one.
    pub(crate) fn block(
        &self,
        proposer: NodeId,
        height: Height,
        round: u32,
        parent: BlockHash,
        salt: u64,
        evidence: Vec<Evidence>,
    ) -> ProposedBlock {
        let draft = Draft {
            chain_id: self.chain_id.clone(),
            height,
            round: Round::new(round),
            timestamp_ms: Timestamp::new(salt),
            parent,
            proposer,
            state_root: Digest::ZERO,
            validators_hash: self.work_set(height).set().hash(),
            next_validators_hash: self.work_set(height.next().unwrap()).set().hash(),
            vrf: aria_chain::keys::VrfProof::NONE,
        };
        ProposedBlock::seal(draft, VerifiedBody { evidence, ..VerifiedBody::default() }, 0).unwrap()
    }

    /// Blocks with this salt break a rule that only their content shows.
    pub(crate) const POISON: u64 = 666;
}

pub(crate) struct SimNode {
    pub(crate) key: Arc<NodeKey>,
    pub(crate) disk: SharedDisk,
    /// Durable: blocks with their certificates, from height 1.
    pub(crate) chain: Vec<FinalBlock>,
    pub(crate) driver: Option<Driver<DiskLog, DiskGuard>>,
    /// Timeouts that run, with the number of their arming.
    pub(crate) timers: HashMap<Timeout, u64>,
    /// Why it may not go on, if its guard or log said so.
    pub(crate) halted: Option<String>,
    /// Evidence that it found, whether a block has it or not.
    pub(crate) accused: Vec<Evidence>,
}

impl SimNode {
    pub(crate) fn new(key: Arc<NodeKey>) -> SimNode {
        SimNode {
            key,
            disk: Rc::new(std::cell::RefCell::new(Disk::default())),
            chain: Vec::new(),
            driver: None,
            timers: HashMap::new(),
            halted: None,
            accused: Vec::new(),
        }
    }

    /// The same node on a copy of its disk, not started.
    pub(crate) fn twin(&self) -> SimNode {
        let disk = Rc::new(std::cell::RefCell::new(self.disk.borrow().copy()));
        SimNode { disk, chain: self.chain.clone(), ..SimNode::new(Arc::clone(&self.key)) }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.key.node_id()
    }

    pub(crate) fn tip(&self, shared: &Shared) -> (Height, BlockHash) {
        self.chain.last().map_or((Height::ZERO, shared.genesis.hash()), |block| (block.header().height, block.hash()))
    }

    /// Evidence against those whom no block accuses yet.
    pub(crate) fn evidence(&self) -> Vec<Evidence> {
        let mut known: BTreeSet<NodeId> = self.convicted().collect();
        self.accused.iter().filter(|piece| known.insert(piece.node_id)).cloned().collect()
    }

    /// Whom its chain accuses.
    pub(crate) fn convicted(&self) -> impl Iterator<Item = NodeId> {
        self.chain.iter().flat_map(|block| block.block().evidence()).map(|piece| piece.node_id)
    }

    /// Starts it from its disk.
    pub(crate) fn start(&mut self, shared: &Shared) -> Vec<Action> {
        let height = self.tip(shared).0.next().unwrap();
        let setup = Setup {
            key: Arc::clone(&self.key),
            chain_id: shared.chain_id.clone(),
            timeouts: LinearTimeouts::default(),
        };
        let mut records = Vec::new();
        {
            let mut disk = self.disk.borrow_mut();
            if disk.height == height {
                records = disk.records();
            } else {
                disk.height = height;
                disk.lose_log();
            }
        }
        let blocks = records.iter().filter_map(|record| match record {
            Record::Block(block, _) => self.check(shared, (**block).clone()),
            Record::Input(_) => None,
        });
        let blocks = blocks.collect();
        let storage = (DiskLog(Rc::clone(&self.disk)), DiskGuard(Rc::clone(&self.disk)));
        match Driver::recover(setup, storage, height, shared.work_set(height), records, blocks) {
            Ok((driver, actions)) => {
                self.driver = Some(driver);
                actions
            }
            // The machine dies while it reads its log.
            Err(Fatal::Log(_) | Fatal::Guard(GuardError::Io { .. })) => {
                self.crash(0);
                Vec::new()
            }
            Err(fatal) => {
                self.halted = Some(fatal.to_string());
                Vec::new()
            }
        }
    }

    /// The machine dies.
    pub(crate) fn crash(&mut self, kept: usize) {
        self.driver = None;
        self.timers.clear();
        self.disk.borrow_mut().crash(kept);
    }

    pub(crate) fn on(&mut self, event: Event) -> Result<Vec<Action>, Fatal> {
        match &mut self.driver {
            Some(driver) => driver.on(event),
            None => Ok(Vec::new()),
        }
    }

    /// Verifies a block as a node would: in itself, and on the tip.
    pub(crate) fn check(&self, shared: &Shared, (header, body): WireBlock) -> Option<Arc<ProposedBlock>> {
        let (tip, hash) = self.tip(shared);
        let fits = header.parent == hash && header.height == tip.next().ok()?;
        if !fits || header.timestamp_ms.get() == Shared::POISON {
            return None;
        }
        ProposedBlock::check(header, body, &shared.chain_id, 0).ok().map(Arc::new)
    }

    /// Commits what was decided. The certificate must hold.
    pub(crate) fn commit(&mut self, shared: &Shared, block: &ProposedBlock, certificate: CommitCertificate) -> Event {
        let block = FinalBlock::new(block.clone(), certificate, shared.work_set(block.header().height).set())
            .expect("a decision has a good certificate");
        let (tip, hash) = self.tip(shared);
        assert_eq!((block.header().parent, block.header().height), (hash, tip.next().unwrap()), "on the tip");
        let height = block.header().height;
        self.chain.push(block);
        Event::Committed(height, shared.work_set(height.next().unwrap()))
    }
}
