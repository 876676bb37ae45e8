//! What the consensus core calls its context: our heights, blocks, votes and validators in its words.
//!
//! The core names types by its own traits, so ours are wrapped. What it agrees on is the hash of a block; the block itself
//! travels beside the proposal.

use std::fmt;
use std::sync::Arc;

use aria_chain::certificate::ValidatorSet;
use aria_chain::ids::{BlockHash, NodeId};
use aria_chain::keys::Signature;
use aria_chain::units::Height;
use aria_runtime::election::ProposerSchedule;
use aria_runtime::voters::Voters;
use borsh::{BorshDeserialize, BorshSerialize};
use malachite_types::{self as core, SignedExtension, VotingPower};
pub use malachite_types::{LinearTimeouts, NilOrVal, Round, SignedMessage, Timeout, VoteType};

use super::crypto::Ed25519;

/// Proof of useful work, as the core's context. It has no state.
#[derive(Clone, Copy, Debug)]
pub struct Pouw;

/// A height.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct At(pub Height);

/// A validator's address: its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Address(pub NodeId);

/// What is agreed on: a block, by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct BlockId(pub BlockHash);

/// A signature, in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Signed(pub Signature);

impl PartialOrd for Signed {
    fn partial_cmp(&self, other: &Signed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Signed {
    fn cmp(&self, other: &Signed) -> std::cmp::Ordering {
        self.0.as_bytes().cmp(other.0.as_bytes())
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl core::Height for At {
    const ZERO: At = At(Height::ZERO);
    const INITIAL: At = At(Height::new(1));

    fn increment_by(&self, n: u64) -> At {
        At(Height::new(self.0.get().saturating_add(n)))
    }

    fn decrement_by(&self, n: u64) -> Option<At> {
        self.0.get().checked_sub(n).map(|height| At(Height::new(height)))
    }

    fn as_u64(&self) -> u64 {
        self.0.get()
    }
}

impl core::Address for Address {}

impl core::Value for BlockId {
    type Id = BlockId;

    fn id(&self) -> BlockId {
        *self
    }
}

/// A member of the set that votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    address: Address,
    power: u64,
}

impl core::Validator<Pouw> for Member {
    fn address(&self) -> &Address {
        &self.address
    }

    fn public_key(&self) -> &Address {
        &self.address
    }

    fn voting_power(&self) -> VotingPower {
        self.power
    }
}

/// The set that votes at some heights, with the order in which its members propose.
#[derive(Clone, Debug)]
pub struct WorkSet(Arc<(ValidatorSet, Vec<Member>, ProposerSchedule)>);

impl PartialEq for WorkSet {
    fn eq(&self, other: &WorkSet) -> bool {
        self.0.0 == other.0.0 && self.0.2 == other.0.2
    }
}

impl Eq for WorkSet {}

impl WorkSet {
    /// Computes the order of proposers.
    pub fn new(Voters { set, first }: Voters) -> WorkSet {
        let member = |member: &aria_chain::certificate::Validator| Member {
            address: Address(member.node_id),
            power: member.power,
        };
        let members = set.members().iter().map(member).collect();
        let schedule = ProposerSchedule::new(&set, first);
        WorkSet(Arc::new((set, members, schedule)))
    }

    /// Whether these voters are the ones it was made of.
    pub fn is_of(&self, voters: &Voters) -> bool {
        self.set() == &voters.set && self.0.2.first() == voters.first
    }

    /// The set.
    pub fn set(&self) -> &ValidatorSet {
        &self.0.0
    }

    /// Who proposes in a round of a height.
    pub fn proposer(&self, height: Height, round: Round) -> NodeId {
        let round = aria_chain::units::Round::new(round.as_u32().unwrap_or(0));
        self.0.2.proposer(height, round)
    }
}

impl core::ValidatorSet<Pouw> for WorkSet {
    fn count(&self) -> usize {
        self.0.1.len()
    }

    fn total_voting_power(&self) -> VotingPower {
        self.set().total_power()
    }

    fn get_by_address(&self, address: &Address) -> Option<&Member> {
        let place = self.0.1.binary_search_by_key(address, |member| member.address).ok()?;
        self.get_by_index(place)
    }

    fn get_by_index(&self, index: usize) -> Option<&Member> {
        self.0.1.get(index)
    }
}

/// A block, proposed for a round.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    /// Height.
    pub height: At,
    /// Round.
    pub round: Round,
    /// The block.
    pub value: BlockId,
    /// The earlier round in which it had two thirds of the prevotes.
    pub pol_round: Round,
    /// Who proposes.
    pub proposer: Address,
}

impl core::Proposal<Pouw> for Proposal {
    fn height(&self) -> At {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &BlockId {
        &self.value
    }

    fn take_value(self) -> BlockId {
        self.value
    }

    fn pol_round(&self) -> Round {
        self.pol_round
    }

    fn validator_address(&self) -> &Address {
        &self.proposer
    }
}

/// A vote for a block or for none.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// Prevote or precommit.
    pub kind: VoteType,
    /// Height.
    pub height: At,
    /// Round.
    pub round: Round,
    /// The block.
    pub value: NilOrVal<BlockId>,
    /// Who votes.
    pub voter: Address,
}

impl core::Vote<Pouw> for Vote {
    fn height(&self) -> At {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<BlockId> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<BlockId> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Address {
        &self.voter
    }

    fn extension(&self) -> Option<&SignedExtension<Pouw>> {
        None
    }

    fn take_extension(&mut self) -> Option<SignedExtension<Pouw>> {
        None
    }

    fn extend(self, _: SignedExtension<Pouw>) -> Vote {
        self
    }
}

/// Blocks travel whole, in our own message: there are no parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPart {}

impl core::ProposalPart<Pouw> for NoPart {
    fn is_first(&self) -> bool {
        match *self {}
    }

    fn is_last(&self) -> bool {
        match *self {}
    }
}

impl core::Context for Pouw {
    type Address = Address;
    type Height = At;
    type ProposalPart = NoPart;
    type Proposal = Proposal;
    type Validator = Member;
    type ValidatorSet = WorkSet;
    type Timeouts = LinearTimeouts;
    type Value = BlockId;
    type Vote = Vote;
    type Extension = ();
    type SigningScheme = Ed25519;

    fn select_proposer<'a>(&self, set: &'a WorkSet, height: At, round: Round) -> &'a Member {
        let proposer = Address(set.proposer(height.0, round));
        core::ValidatorSet::get_by_address(set, &proposer).expect("the order names members only")
    }

    fn new_proposal(&self, height: At, round: Round, value: BlockId, pol_round: Round, proposer: Address) -> Proposal {
        Proposal { height, round, value, pol_round, proposer }
    }

    fn new_prevote(&self, height: At, round: Round, value: NilOrVal<BlockId>, voter: Address) -> Vote {
        Vote { kind: VoteType::Prevote, height, round, value, voter }
    }

    fn new_precommit(&self, height: At, round: Round, value: NilOrVal<BlockId>, voter: Address) -> Vote {
        Vote { kind: VoteType::Precommit, height, round, value, voter }
    }
}
