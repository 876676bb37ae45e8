//! The seam of consensus: events in, actions out. No IO, no clock, no keys.
//!
//! One height goes: `Build` a block, `Validate` it in context of state, `SignVote` for it, gather votes until they
//! hold more than two thirds of the power, `Commit` the block with the certificate that these votes make. With one
//! validator every step is this node's own; the shape is the one that many validators will use.

use std::sync::Arc;

use aria_chain::{
    block::ProposedBlock,
    certificate::{CommitCertificate, ValidatorSet, Vote},
    ids::BlockHash,
    units::{Height, Round},
};

/// What the driver is told.
#[derive(Debug)]
pub enum Event {
    /// Time has passed, or something is waiting to be sealed.
    Tick {
        /// Wall time.
        now_ms: u64,
        /// Proofs that wait.
        pending: usize,
    },
    /// The block asked for by [`Action::Build`].
    Built(Box<ProposedBlock>),
    /// Nothing that waits can be in a block, and no heartbeat is due.
    NothingToBuild,
    /// The block of [`Action::Validate`] is valid in context of state.
    Valid,
    /// A vote of a member of the set, its signature verified.
    Voted(Vote),
    /// The block of [`Action::Commit`] is durable.
    Committed {
        /// Its timestamp.
        timestamp_ms: u64,
    },
}

/// What the driver asks for. Each is answered by one event.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Make a block of this height.
    Build(Height),
    /// Execute this block on the state of its parent.
    Validate(Arc<ProposedBlock>),
    /// Vote for this block with our key.
    SignVote(Height, Round, BlockHash),
    /// Store block, state and certificate in one durable step.
    Commit(Arc<ProposedBlock>, CommitCertificate),
}

/// Times of block production, from the genesis parameters.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Least time between two blocks with records.
    pub interval_ms: u64,
    /// Most time without a block.
    pub heartbeat_ms: u64,
}

#[derive(Debug)]
enum Phase {
    /// Waiting for something to seal.
    Idle,
    Building,
    Validating(Arc<ProposedBlock>),
    /// The votes so far, one per validator.
    Voting(Arc<ProposedBlock>, Vec<Vote>),
    Committing,
}

/// Drives one height after the other.
#[derive(Debug)]
pub struct Driver {
    validators: ValidatorSet,
    pace: Pace,
    height: Height,
    last_block_ms: u64,
    phase: Phase,
}

impl Driver {
    /// A driver that works on the block after `tip`, which was made at `tip_ms`.
    pub fn new(validators: ValidatorSet, pace: Pace, tip: Height, tip_ms: u64) -> Driver {
        Driver { validators, pace, height: above(tip), last_block_ms: tip_ms, phase: Phase::Idle }
    }

    /// The height being worked on.
    pub fn height(&self) -> Height {
        self.height
    }

    /// The only entry. The same events give the same actions. An event that does not fit the phase is ignored.
    pub fn on(&mut self, event: Event) -> Option<Action> {
        match (event, std::mem::replace(&mut self.phase, Phase::Idle)) {
            (Event::Tick { now_ms, pending }, Phase::Idle) if self.is_due(now_ms, pending) => {
                self.phase = Phase::Building;
                Some(Action::Build(self.height))
            }
            (Event::Built(block), Phase::Building) => {
                let block = Arc::new(*block);
                self.phase = Phase::Validating(Arc::clone(&block));
                Some(Action::Validate(block))
            }
            (Event::Valid, Phase::Validating(block)) => {
                let hash = block.hash();
                self.phase = Phase::Voting(block, Vec::new());
                Some(Action::SignVote(self.height, Round::ZERO, hash))
            }
            (Event::Voted(vote), Phase::Voting(block, votes)) => self.count(vote, block, votes),
            (Event::NothingToBuild, Phase::Building) => None,
            (Event::Committed { timestamp_ms }, Phase::Committing) => {
                self.height = above(self.height);
                self.last_block_ms = timestamp_ms;
                None
            }
            (_, phase) => {
                self.phase = phase;
                None
            }
        }
    }

    /// How long until a block is due if nothing else happens.
    pub fn due_in_ms(&self, now_ms: u64, pending: usize) -> u64 {
        let since_ms = now_ms.saturating_sub(self.last_block_ms);
        let pause_ms = if pending > 0 { self.pace.interval_ms } else { self.pace.heartbeat_ms };
        pause_ms.saturating_sub(since_ms)
    }

    /// Blocks are made when there is something to seal, at most one an interval; without that, a heartbeat.
    fn is_due(&self, now_ms: u64, pending: usize) -> bool {
        self.due_in_ms(now_ms, pending) == 0
    }

    fn count(&mut self, vote: Vote, block: Arc<ProposedBlock>, mut votes: Vec<Vote>) -> Option<Action> {
        let fits = (vote.height, vote.round, vote.block_hash) == (self.height, Round::ZERO, block.hash());
        if fits && votes.iter().all(|seen| seen.node_id != vote.node_id) {
            votes.push(vote);
        }
        let power = votes.iter().map(|vote| self.validators.power_of(&vote.node_id)).sum();
        if !self.validators.is_quorum(power) {
            self.phase = Phase::Voting(block, votes);
            return None;
        }
        let certificate = CommitCertificate::gather(self.height, Round::ZERO, block.hash(), &votes);
        self.phase = Phase::Committing;
        Some(Action::Commit(block, certificate))
    }
}

fn above(height: Height) -> Height {
    Height::new(height.get().checked_add(1).expect("at a block a millisecond, 2^64 blocks take half a billion years"))
}

#[cfg(test)]
mod tests {
    use aria_chain::{
        block::{Draft, GenesisBlock},
        certificate::Validator,
        ids::{ChainId, Digest},
        keys::NodeKey,
        units::Timestamp,
    };

    use super::*;

    struct Table {
        keys: Vec<NodeKey>,
        set: ValidatorSet,
        chain: ChainId,
        driver: Driver,
    }

    fn table(validators: u8) -> Table {
        let keys: Vec<NodeKey> = (1..=validators).map(|seed| NodeKey::from_seed(&[seed; 32])).collect();
        let members = keys.iter().map(|key| Validator { node_id: key.node_id(), power: 1 }).collect();
        let set = ValidatorSet::new(members).expect("a good set");
        let pace = Pace { interval_ms: 100, heartbeat_ms: 1000 };
        let driver = Driver::new(set.clone(), pace, Height::ZERO, 5000);
        Table { keys, set, chain: "aria-test".parse().expect("a good name"), driver }
    }

    fn block(table: &Table, timestamp_ms: u64) -> Box<ProposedBlock> {
        let genesis = GenesisBlock::new(table.chain.clone(), Timestamp::new(1), table.set.clone(), Digest::ZERO);
        let draft = Draft {
            chain_id: table.chain.clone(),
            height: Height::new(1),
            round: Round::ZERO,
            timestamp_ms: Timestamp::new(timestamp_ms),
            parent: genesis.hash(),
            proposer: table.keys[0].node_id(),
            state_root: Digest::ZERO,
            validators_hash: table.set.hash(),
        };
        Box::new(ProposedBlock::seal(draft, Vec::new(), 0).expect("a good block"))
    }

    fn vote(table: &Table, who: usize, block: &ProposedBlock) -> Event {
        Event::Voted(Vote::sign(&table.keys[who], &table.chain, Height::new(1), Round::ZERO, block.hash()))
    }

    #[test]
    fn nothing_pending_no_block_until_the_heartbeat() {
        let mut table = table(1);
        assert_eq!(table.driver.on(Event::Tick { now_ms: 5999, pending: 0 }), None);
        assert_eq!(table.driver.on(Event::Tick { now_ms: 6000, pending: 0 }), Some(Action::Build(Height::new(1))));
        assert_eq!(table.driver.on(Event::Tick { now_ms: 9000, pending: 5 }), None, "one block at a time");
    }

    #[test]
    fn pending_proofs_wait_for_the_interval() {
        let mut table = table(1);
        assert_eq!(table.driver.on(Event::Tick { now_ms: 5099, pending: 1 }), None);
        assert_eq!(table.driver.on(Event::Tick { now_ms: 5100, pending: 1 }), Some(Action::Build(Height::new(1))));
    }

    #[test]
    fn one_validator_goes_through_every_step() {
        let mut table = table(1);
        table.driver.on(Event::Tick { now_ms: 5100, pending: 1 });
        let block = block(&table, 5100);
        assert_eq!(table.driver.on(Event::Built(block.clone())), Some(Action::Validate(Arc::new((*block).clone()))));
        assert_eq!(table.driver.on(Event::Valid), Some(Action::SignVote(Height::new(1), Round::ZERO, block.hash())));
        let Some(Action::Commit(committed, certificate)) = table.driver.on(vote(&table, 0, &block)) else {
            panic!("no commit")
        };
        assert_eq!(committed.hash(), block.hash());
        assert!(certificate.verify(&table.chain, &table.set).is_ok());
        assert_eq!(table.driver.on(Event::Committed { timestamp_ms: 5200 }), None);
        assert_eq!(table.driver.height(), Height::new(2));
        assert_eq!(table.driver.on(Event::Tick { now_ms: 5250, pending: 1 }), None, "the interval starts again");
    }

    #[test]
    fn a_height_without_anything_to_build_is_tried_again() {
        let mut table = table(1);
        table.driver.on(Event::Tick { now_ms: 5100, pending: 1 });
        assert_eq!(table.driver.on(Event::NothingToBuild), None);
        assert_eq!(table.driver.on(Event::Tick { now_ms: 5101, pending: 1 }), Some(Action::Build(Height::new(1))));
    }

    #[test]
    fn four_validators_need_three_votes_and_count_each_once() {
        let mut table = table(4);
        table.driver.on(Event::Tick { now_ms: 5100, pending: 1 });
        let (ours, other) = (block(&table, 5100), block(&table, 5101));
        table.driver.on(Event::Built(ours.clone()));
        table.driver.on(Event::Valid);
        for event in [vote(&table, 0, &ours), vote(&table, 0, &ours), vote(&table, 1, &ours), vote(&table, 2, &other)] {
            assert_eq!(table.driver.on(event), None);
        }
        assert!(matches!(table.driver.on(vote(&table, 3, &ours)), Some(Action::Commit(..))));
    }
}
