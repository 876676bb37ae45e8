//! The seam of consensus: events in, actions out. No IO of its own, no clock; the same events give the same actions.
//!
//! The core decides which block is final (Tendermint, by Malachite). This driver checks what reaches the core, keeps the
//! blocks that are spoken of, and keeps the core's orders in their order: what was heard is durable before what follows
//! from it is said, and a block is durable before it is voted for. What an effect causes is queued, never fed back while
//! the core is at work.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aria_chain::block::{Header, ProposedBlock};
use aria_chain::certificate::{CommitCertificate, CommitSignature};
use aria_chain::evidence::Evidence;
use aria_chain::hash::Domain;
use aria_chain::ids::{BlockHash, ChainId, Digest};
use aria_chain::keys::{NodeKey, Signature};
use aria_chain::units::{Height, Round as ChainRound};
use malachite_core::{
    ConsensusMsg, Effect, Error as CoreError, Input, LivenessMsg, LocallyProposedValue, MisbehaviorEvidence, Params,
    ProposedValue, Resumable, Resume, SignedConsensusMsg, State, VoteExtensionError, process,
};
use malachite_signing::VerifierExt;
use malachite_types::{
    LinearTimeouts, NilOrVal, Round, SignedMessage, SignedProposal, SignedVote, Timeout, Validity, ValueOrigin,
    ValuePayload, VoteExtensionPolicy, VoteType,
};

use super::context::{Address, At, BlockId, Pouw, Proposal, Signed, Vote, WorkSet};
use super::crypto::{Checker, is_proposal_signed, is_vote_signed, now, sign_proposal, sign_vote};
use super::evidence::convictions;
use super::guard::{Guard, GuardError, Mark, Step};
use super::log::{Log, Record};
use super::message::{Message, WireBlock};

/// Messages for later heights that the core keeps: so many heights, so many of each. Only members of the set fill them.
const EARLY_HEIGHTS_MAX: usize = 2;
const EARLY_MESSAGES_MAX: usize = 4_096;
/// Blocks of one round that are checked. A proposer has one; of one who signs more, the second proves it.
const BLOCKS_PER_ROUND_MAX: usize = 2;
/// Rounds ahead of ours in which a block is looked at; the core drops proposals of later ones.
const ROUNDS_AHEAD_MAX: u32 = 10;
/// Blocks of the next height that arrive while this one is being committed.
const EARLY_BLOCKS_MAX: usize = 2;

/// What the driver is told.
#[derive(Debug)]
pub enum Event {
    /// There is a reason for the next block: something to seal, or the heartbeat is due.
    Start,
    /// A peer said this.
    Heard(Message),
    /// The time of [`Action::Arm`] is over.
    Elapsed(Timeout),
    /// The answer to [`Action::Build`]: a block that is valid in context of state. Without one there is no answer, and the
    /// round passes.
    Built(Round, Arc<ProposedBlock>),
    /// The answer to [`Action::Check`].
    Checked(Option<Arc<ProposedBlock>>),
    /// This block and its state are durable, by [`Action::Commit`] or because a peer had it; this set votes next.
    Committed(Height, WorkSet),
}

/// What the driver asks for, in this order.
#[derive(Debug)]
pub enum Action {
    /// Say this to all peers.
    Publish(Message),
    /// What was heard is signed by who it names: pass it on.
    Relay(Message),
    /// Tell [`Event::Elapsed`] after this time.
    Arm(Timeout, Duration),
    /// Forget one timeout.
    Disarm(Timeout),
    /// Forget all timeouts.
    DisarmAll,
    /// Make a block for this round.
    Build(Height, Round),
    /// Verify this block and execute it on the tip.
    Check(Box<WireBlock>),
    /// Store block, certificate and state in one durable step.
    Commit(Arc<ProposedBlock>, CommitCertificate),
    /// Members said two things in one place; here is the proof.
    Accuse(Vec<Evidence>),
}

/// Why a node must not go on.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The log cannot be written.
    #[error("the consensus log: {0}")]
    Log(#[from] io::Error),
    /// See [`GuardError`].
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The core and its log contradict each other.
    #[error("consensus cannot go on after its log was read: {0}")]
    Replay(String),
    /// A block was decided that is not here. The core decides only on what it was given.
    #[error("block {0} was decided and is not here")]
    Missing(BlockHash),
}

/// Who takes part, and how long it waits.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This node.
    pub key: Arc<NodeKey>,
    /// The chain.
    pub chain_id: ChainId,
    /// Times of rounds.
    pub timeouts: LinearTimeouts,
}

/// Drives one height after the other.
pub struct Driver<L, G> {
    core: State<Pouw>,
    env: Env<L, G>,
    height: Height,
    set: WorkSet,
    /// Whether rounds of `height` are running. Between heights a driver waits for a reason.
    is_started: bool,
    /// Blocks of the height above.
    early: Vec<(u32, WireBlock)>,
    /// Whether somebody has begun the height above.
    is_awaited: bool,
}

/// What effects work on.
struct Env<L, G> {
    setup: Setup,
    checker: Checker,
    log: L,
    guard: G,
    /// The records that are being read back. What follows from them is not written again, what is new is.
    replayed: BTreeSet<Digest>,
    blocks: BTreeMap<BlockHash, Arc<ProposedBlock>>,
    /// Blocks that are being checked, are here, or were refused, by the round that named them first.
    asked: BTreeMap<u32, Vec<BlockHash>>,
    /// Blocks of our own, by the round they were made for.
    own: BTreeMap<u32, BlockHash>,
    /// The signature that was checked before it reached the core.
    checked: Option<Signed>,
    inputs: VecDeque<Input<Pouw>>,
    actions: Vec<Action>,
    fatal: Option<Fatal>,
}

impl<L: Log, G: Guard> Driver<L, G> {
    /// A driver for `height`, brought to where its log ends. `blocks` are those of the log, executed again by the caller.
    pub fn recover(
        setup: Setup,
        (log, guard): (L, G),
        height: Height,
        set: WorkSet,
        records: Vec<Record>,
        blocks: Vec<Arc<ProposedBlock>>,
    ) -> Result<(Driver<L, G>, Vec<Action>), Fatal> {
        let params = Params {
            address: Address(setup.key.node_id()),
            threshold_params: malachite_types::ThresholdParams::default(),
            value_payload: ValuePayload::ProposalAndParts,
            enabled: true,
        };
        let below = At(Height::new(height.get().saturating_sub(1)));
        let core = State::new(Pouw, below, set.clone(), params, EARLY_HEIGHTS_MAX, EARLY_MESSAGES_MAX);
        let env = Env {
            checker: Checker(setup.chain_id.clone()),
            setup,
            log,
            guard,
            replayed: BTreeSet::new(),
            blocks: blocks.into_iter().map(|block| (block.hash(), block)).collect(),
            asked: BTreeMap::new(),
            own: BTreeMap::new(),
            checked: None,
            inputs: VecDeque::new(),
            actions: Vec::new(),
            fatal: None,
        };
        let mut driver = Driver { core, env, height, set, is_started: false, early: Vec::new(), is_awaited: false };
        if records.is_empty() {
            return Ok((driver, Vec::new()));
        }
        driver.replay(records)?;
        let actions = driver.take_actions()?;
        Ok((driver, actions))
    }

    fn replay(&mut self, records: Vec<Record>) -> Result<(), Fatal> {
        self.env.replayed = records.iter().map(|record| self.env.digest(record)).collect();
        let mut inputs = Vec::new();
        for record in records {
            match record {
                Record::Input(input) => inputs.push(*input),
                Record::Block(block, own_round) => {
                    if let Some(round) = own_round {
                        self.env.own.insert(round, block.0.hash());
                    }
                }
            }
        }
        self.core.index_wal_entries(inputs.iter());
        let replayed = self.begin().and_then(|()| inputs.into_iter().try_for_each(|input| self.feed(input)));
        replayed.map_err(|error| Fatal::Replay(error.to_string()))?;
        self.core.reset_entries_index();
        self.env.replayed.clear();
        Ok(())
    }

    /// The height being worked on or waited for.
    pub fn height(&self) -> Height {
        self.height
    }

    /// The round, while there is one.
    pub fn round(&self) -> Option<u32> {
        self.is_started.then(|| self.core.round().as_u32()).flatten()
    }

    /// Who votes at this height.
    pub fn set(&self) -> &WorkSet {
        &self.set
    }

    /// Whether the driver waits for a reason to begin its height.
    pub fn is_waiting(&self) -> bool {
        !self.is_started
    }

    /// The only entry.
    pub fn on(&mut self, event: Event) -> Result<Vec<Action>, Fatal> {
        let outcome = match event {
            Event::Start if self.is_waiting() => self.begin(),
            Event::Start => Ok(()),
            Event::Heard(message) => self.hear(message),
            Event::Elapsed(timeout) => self.feed(Input::TimeoutElapsed(timeout)),
            Event::Built(round, block) => self.propose(round, block),
            Event::Checked(block) => self.judge(block),
            Event::Committed(height, set) => self.advance(height, set),
        };
        if let Err(error) = outcome {
            // The core refuses an input without harm; what was wrong with it is in the error.
            tracing::warn!(%error, height = %self.height, "consensus refused an input");
        }
        self.take_actions()
    }

    fn take_actions(&mut self) -> Result<Vec<Action>, Fatal> {
        match self.env.fatal.take() {
            Some(fatal) => Err(fatal),
            None => Ok(std::mem::take(&mut self.env.actions)),
        }
    }

    /// Begins the rounds of this height.
    fn begin(&mut self) -> Result<(), CoreError<Pouw>> {
        self.is_started = true;
        self.is_awaited = false;
        let policy = VoteExtensionPolicy::Disabled;
        self.feed(Input::StartHeight(At(self.height), self.set.clone(), false, None, policy))?;
        for (round, block) in std::mem::take(&mut self.early) {
            self.env.ask(round, block);
        }
        Ok(())
    }

    /// Gives the core an input, and what its effects put into the queue after it.
    fn feed(&mut self, input: Input<Pouw>) -> Result<(), CoreError<Pouw>> {
        self.env.inputs.push_back(input);
        let mut outcome = Ok(());
        while let Some(input) = self.env.inputs.pop_front() {
            let env = &mut self.env;
            let result: Result<(), CoreError<Pouw>> = process!(
                input: input,
                state: &mut self.core,
                metrics: &(),
                with: effect => Ok::<_, std::convert::Infallible>(env.handle(effect))
            );
            outcome = outcome.and(result);
        }
        outcome
    }

    /// Checks what a peer says before the core sees it: a member of the set, its signature, a height that matters.
    fn hear(&mut self, message: Message) -> Result<(), CoreError<Pouw>> {
        let height = message.height();
        let is_next = height.get() == self.height.get().saturating_add(1);
        if height != self.height && !is_next {
            return Ok(());
        }
        let chain_id = &self.env.setup.chain_id;
        let signature = match &message {
            Message::Vote(vote) => {
                let is_member = self.set.set().power_of(&vote.voter.0) > 0;
                if !is_member || !is_vote_signed(chain_id, vote, &vote.signature) {
                    return Ok(());
                }
                Some(vote.signature)
            }
            Message::Proposal(proposal, block) => {
                let is_proposer = self.set.proposer(height, proposal.round) == proposal.proposer.0;
                if !is_proposer || !is_proposal_signed(chain_id, proposal, &proposal.signature) {
                    return Ok(());
                }
                if block.as_ref().is_some_and(|block| !is_named(block, proposal)) {
                    return Ok(());
                }
                Some(proposal.signature)
            }
            // The core checks every signature of a certificate.
            Message::Polka(_) | Message::Skip(_) if is_next => return Ok(()),
            Message::Polka(_) | Message::Skip(_) => None,
        };
        if signature.is_some() {
            self.env.actions.push(Action::Relay(message.clone()));
        }
        if is_next {
            self.is_awaited = true;
        } else if !self.is_started {
            self.begin()?;
        }
        self.env.checked = signature;
        let outcome = match message {
            Message::Vote(vote) => self.feed(Input::Vote(vote)),
            Message::Proposal(proposal, block) => self.hear_proposal(proposal, block, is_next),
            Message::Polka(certificate) => self.feed(Input::PolkaCertificate(certificate)),
            Message::Skip(certificate) => self.feed(Input::RoundCertificate(certificate)),
        };
        self.env.checked = None;
        outcome
    }

    fn hear_proposal(
        &mut self,
        proposal: SignedProposal<Pouw>,
        block: Option<Box<WireBlock>>,
        is_next: bool,
    ) -> Result<(), CoreError<Pouw>> {
        if let Some(block) = block
            && let Some(round) = proposal.round.as_u32()
        {
            let ahead = round.saturating_sub(self.core.round().as_u32().unwrap_or(0));
            if !is_next && ahead <= ROUNDS_AHEAD_MAX {
                self.env.ask(round, *block);
            } else if is_next && self.early.len() < EARLY_BLOCKS_MAX {
                self.early.push((round, *block));
            }
        }
        self.feed(Input::Proposal(proposal))
    }

    /// Our own block.
    fn propose(&mut self, round: Round, block: Arc<ProposedBlock>) -> Result<(), CoreError<Pouw>> {
        if block.header().height != self.height || self.is_waiting() {
            return Ok(());
        }
        let value = BlockId(block.hash());
        self.env.keep(&block, round.as_u32());
        self.feed(Input::Propose(LocallyProposedValue::new(At(self.height), round, value)))
    }

    /// The verdict on a block. One that is not valid now stays refused at this height.
    fn judge(&mut self, block: Option<Arc<ProposedBlock>>) -> Result<(), CoreError<Pouw>> {
        let Some(block) = block.filter(|block| block.header().height == self.height) else { return Ok(()) };
        self.env.keep(&block, None);
        // The core finds the proposals that name it, of whatever round.
        self.feed(Input::ProposedValue(valid(&block), ValueOrigin::Consensus))
    }

    /// The chain has a block of this height: everything about it is over.
    fn advance(&mut self, height: Height, set: WorkSet) -> Result<(), CoreError<Pouw>> {
        if height < self.height {
            return Ok(());
        }
        let is_one_up = height == self.height;
        self.height = Height::new(height.get().saturating_add(1));
        self.set = set;
        self.is_started = false;
        self.early.retain(|(_, (header, _))| is_one_up && header.height == self.height);
        let height = self.height;
        self.env.advance(height);
        if std::mem::take(&mut self.is_awaited) && is_one_up { self.begin() } else { Ok(()) }
    }
}

/// Whether a block is the one that a proposal names, made by this proposer in this round: what the header says of missed
/// turns is then what happened. A block that is proposed again was made in an earlier round, by whose turn it was.
fn is_named(block: &WireBlock, proposal: &Proposal) -> bool {
    let header = &block.0;
    let made_in = Some(header.round.get());
    let is_of_round = match proposal.pol_round.as_u32() {
        None => made_in == proposal.round.as_u32() && header.proposer == proposal.proposer.0,
        polka => made_in <= polka,
    };
    is_of_round && header.height == proposal.height.0 && header.hash() == proposal.value.0
}

/// A block of which we know that it is valid.
fn valid(block: &ProposedBlock) -> ProposedValue<Pouw> {
    let header: &Header = block.header();
    ProposedValue {
        height: At(header.height),
        round: Round::new(header.round.get()),
        valid_round: Round::Nil,
        proposer: Address(header.proposer),
        value: BlockId(block.hash()),
        validity: Validity::Valid,
    }
}

impl<L: Log, G: Guard> Env<L, G> {
    fn fail(&mut self, fatal: impl Into<Fatal>) {
        self.fatal.get_or_insert(fatal.into());
    }

    fn act(&mut self, action: Action) {
        // After a fault nothing more may leave this node.
        if self.fatal.is_none() {
            self.actions.push(action);
        }
    }

    fn digest(&self, record: &Record) -> Digest {
        Domain::SEEN.hash_of(record)
    }

    fn append(&mut self, record: &Record) {
        let is_replayed = !self.replayed.is_empty() && self.replayed.contains(&self.digest(record));
        if self.fatal.is_some() || is_replayed {
            return;
        }
        if let Err(error) = self.log.append(record) {
            self.fail(error);
        }
    }

    fn flush(&mut self) {
        if self.fatal.is_some() {
            return;
        }
        if let Err(error) = self.log.flush() {
            self.fail(error);
        }
    }

    fn advance(&mut self, height: Height) {
        self.blocks.clear();
        self.asked.clear();
        self.own.clear();
        self.act(Action::DisarmAll);
        if let Err(error) = self.log.begin(height) {
            self.fail(error);
        }
    }

    /// Asks for a verdict, once for each block.
    fn ask(&mut self, round: u32, block: WireBlock) {
        let hash = block.0.hash();
        let is_known = self.blocks.contains_key(&hash) || self.asked.values().flatten().any(|asked| *asked == hash);
        let of_round = self.asked.entry(round).or_default();
        if !is_known && of_round.len() < BLOCKS_PER_ROUND_MAX {
            of_round.push(hash);
            self.act(Action::Check(Box::new(block)));
        }
    }

    /// Keeps a valid block: durable with the next flush, which comes before any vote for it.
    fn keep(&mut self, block: &Arc<ProposedBlock>, own_round: Option<u32>) {
        let hash = block.hash();
        if let Some(round) = own_round {
            self.own.insert(round, hash);
        }
        if self.blocks.insert(hash, Arc::clone(block)).is_none() || own_round.is_some() {
            let wire = (block.header().clone(), block.body());
            self.append(&Record::Block(Box::new(wire), own_round));
        }
    }

    /// Notes durably that this is signed, and what led to it.
    fn admit(&mut self, height: At, round: Round, step: Step, block: Option<BlockHash>) {
        self.flush();
        if self.fatal.is_some() {
            return;
        }
        let mark = Mark { height: height.0, round: round.as_u32().unwrap_or(0), step, block };
        if let Err(error) = self.guard.admit(mark) {
            self.fail(error);
        }
    }

    fn sign_vote(&mut self, vote: Vote) -> SignedVote<Pouw> {
        let step = match vote.kind {
            VoteType::Prevote => Step::Prevote,
            VoteType::Precommit => Step::Precommit,
        };
        let block = match &vote.value {
            NilOrVal::Nil => None,
            NilOrVal::Val(block) => Some(block.0),
        };
        self.admit(vote.height, vote.round, step, block);
        let signature = match self.fatal {
            None => sign_vote(&self.setup.key, &self.setup.chain_id, &vote),
            Some(_) => Signed(Signature::new([0; 64])),
        };
        SignedMessage::new(vote, signature)
    }

    fn sign_proposal(&mut self, proposal: Proposal) -> SignedProposal<Pouw> {
        self.admit(proposal.height, proposal.round, Step::Propose, Some(proposal.value.0));
        let signature = match self.fatal {
            None => sign_proposal(&self.setup.key, &self.setup.chain_id, &proposal),
            Some(_) => Signed(Signature::new([0; 64])),
        };
        SignedMessage::new(proposal, signature)
    }

    fn publish(&mut self, message: SignedConsensusMsg<Pouw>) {
        self.flush();
        let message = match message {
            SignedConsensusMsg::Vote(vote) => Message::Vote(vote),
            SignedConsensusMsg::Proposal(proposal) => {
                let block = self.blocks.get(&proposal.value.0);
                let wire = block.map(|block| Box::new((block.header().clone(), block.body())));
                Message::Proposal(proposal, wire)
            }
        };
        self.act(Action::Publish(message));
    }

    fn publish_liveness(&mut self, message: LivenessMsg<Pouw>) {
        self.flush();
        self.act(Action::Publish(match message {
            LivenessMsg::Vote(vote) => Message::Vote(vote),
            LivenessMsg::PolkaCertificate(certificate) => Message::Polka(certificate),
            LivenessMsg::SkipRoundCertificate(certificate) => Message::Skip(certificate),
        }));
    }

    /// A block for a round in which this node proposes: the one made before a stop, or a new one.
    fn build(&mut self, height: At, round: Round) {
        let own = round.as_u32().and_then(|round| self.own.get(&round)).filter(|hash| self.blocks.contains_key(*hash));
        match own {
            Some(&hash) => {
                let value = LocallyProposedValue::new(height, round, BlockId(hash));
                self.inputs.push_back(Input::Propose(value));
            }
            None => self.act(Action::Build(height.0, round)),
        }
    }

    fn decide(&mut self, decided: malachite_types::CommitCertificate<Pouw>) {
        self.flush();
        let hash = decided.value_id.0;
        let Some(block) = self.blocks.get(&hash).map(Arc::clone) else {
            self.fail(Fatal::Missing(hash));
            return;
        };
        let mut signatures: Vec<CommitSignature> = decided
            .commit_signatures
            .iter()
            .map(|signed| CommitSignature { node_id: signed.address.0, signature: signed.signature.0 })
            .collect();
        signatures.sort_by_key(|signed| signed.node_id);
        let round = ChainRound::new(decided.round.as_u32().unwrap_or(0));
        let certificate = CommitCertificate { height: decided.height.0, round, block_hash: hash, signatures };
        self.act(Action::DisarmAll);
        self.act(Action::Commit(block, certificate));
    }

    fn accuse(&mut self, evidence: &MisbehaviorEvidence<Pouw>) {
        let pieces = convictions(evidence, &self.setup.chain_id);
        if !pieces.is_empty() {
            self.act(Action::Accuse(pieces));
        }
    }

    fn is_signed(&self, message: &SignedMessage<Pouw, ConsensusMsg<Pouw>>) -> bool {
        if self.checked == Some(message.signature) {
            return true;
        }
        match &message.message {
            ConsensusMsg::Vote(vote) => is_vote_signed(&self.setup.chain_id, vote, &message.signature),
            ConsensusMsg::Proposal(proposal) => is_proposal_signed(&self.setup.chain_id, proposal, &message.signature),
        }
    }

    /// Does what the core orders, or answers what it asks.
    fn handle(&mut self, effect: Effect<Pouw>) -> Resume<Pouw> {
        match effect {
            Effect::CancelAllTimeouts(_) => self.act(Action::DisarmAll),
            Effect::CancelTimeout(timeout, _) => self.act(Action::Disarm(timeout)),
            Effect::ScheduleTimeout(timeout, _) => {
                self.act(Action::Arm(timeout, self.setup.timeouts.duration_for(timeout)));
            }
            Effect::StartRound(..) => self.flush(),
            Effect::PublishConsensusMsg(message, _) => self.publish(message),
            Effect::PublishLivenessMsg(message, _) => self.publish_liveness(message),
            Effect::RepublishVote(vote, _) => self.publish_liveness(LivenessMsg::Vote(vote)),
            Effect::RepublishRoundCertificate(certificate, _) => {
                self.publish_liveness(LivenessMsg::SkipRoundCertificate(certificate));
            }
            Effect::GetValue(height, round, ..) => self.build(height, round),
            Effect::Decide(certificate, ..) => self.decide(certificate),
            Effect::Finalize(_, _, evidence, _) => self.accuse(&evidence),
            Effect::WalAppend(_, input, _) => self.append(&Record::Input(Box::new(input))),
            // Blocks travel with proposals, also when they are proposed again; those of the past come by a protocol of our own.
            Effect::RestreamProposal(..) | Effect::CertVerifiedSyncValue(..) | Effect::CertRejectedSyncValue(..) => {}
            question => return self.answer(question),
        }
        Resume::Continue
    }

    fn answer(&mut self, question: Effect<Pouw>) -> Resume<Pouw> {
        let checker = &self.checker;
        match question {
            Effect::SignVote(vote, resume) => resume.resume_with(self.sign_vote(vote)),
            Effect::SignProposal(proposal, resume) => resume.resume_with(self.sign_proposal(proposal)),
            Effect::VerifySignature(message, _, resume) => resume.resume_with(self.is_signed(&message)),
            Effect::VerifyCommitCertificate(certificate, set, thresholds, resume) => {
                resume.resume_with(now(checker.verify_commit_certificate(&Pouw, &certificate, &set, thresholds)))
            }
            Effect::VerifyExtendedCommitCertificate(certificate, set, thresholds, policy, resume) => {
                let check = checker.verify_extended_commit_certificate(&Pouw, &certificate, &set, thresholds, policy);
                resume.resume_with(now(check))
            }
            Effect::VerifyPolkaCertificate(certificate, set, thresholds, resume) => {
                resume.resume_with(now(checker.verify_polka_certificate(&Pouw, &certificate, &set, thresholds)))
            }
            Effect::VerifyRoundCertificate(certificate, set, thresholds, resume) => {
                resume.resume_with(now(checker.verify_round_certificate(&Pouw, &certificate, &set, thresholds)))
            }
            // Votes carry no extensions.
            Effect::ExtendVote(.., resume) => resume.resume_with(None),
            Effect::VerifyVoteExtension(.., resume) => {
                resume.resume_with(Err(VoteExtensionError::InvalidVoteExtension))
            }
            _ => Resume::Continue,
        }
    }
}
