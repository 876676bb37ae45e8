//! What the state holds, and its bytes: a format version, then borsh.

use aria_chain::attestation::Verdict;
use aria_chain::consent::Consent;
use aria_chain::ids::{Digest, NodeId, RecordId};
use aria_chain::limits::{MODEL_NAME_BYTES_MAX, STAGES_MAX, STATE_VALUE_BYTES_MAX, VALIDATORS_MAX};
use aria_chain::model::Shape;
use aria_chain::record::{RecordStatus, Stage};
use aria_chain::units::{Epoch, Height, Microjoules, NanoAria, Overflow, WorkUnits};
use borsh::{BorshDeserialize, BorshSerialize};

use crate::params::{COMMITTEE_MAX, Params};
use crate::rules::audit::JUDGES_MAX;
use crate::rules::settle::Earned;

/// Version of every value's bytes. A later version reads this one.
const VERSION: u8 = 1;

/// A node's money. An account exists from its first credit on, or from genesis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Account {
    /// Free to spend.
    pub balance: NanoAria,
    /// Held as security.
    pub bond: NanoAria,
    /// The part of it that is being freed: it backs nothing any more, and can still be slashed.
    pub unbonding: NanoAria,
    /// Next nonce of a transaction of this account.
    pub nonce: u64,
    /// All that answers and audits ever earned it, fees included.
    pub rewards_total: NanoAria,
}

impl Account {
    /// The part of its bond that backs work.
    pub fn backing(&self) -> NanoAria {
        self.bond.minus_or_zero(self.unbonding)
    }
}

/// What a node did in an epoch that counts for its power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Work {
    /// By answers.
    pub served: WorkUnits,
    /// By audits, for which others drew it.
    pub audited: WorkUnits,
    /// What requesters paid for those answers and nobody got.
    pub burned: NanoAria,
}

impl Work {
    /// Both kinds together.
    pub fn total(&self) -> u128 {
        u128::from(self.served.get()).saturating_add(u128::from(self.audited.get()))
    }

    pub(crate) fn plus(&self, more: &Work) -> Result<Work, Overflow> {
        Ok(Work {
            served: self.served.checked_add(more.served)?,
            audited: self.audited.checked_add(more.audited)?,
            burned: self.burned.checked_add(more.burned)?,
        })
    }
}

/// What a node last stated of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StatedConsent {
    /// The contract; none where it was taken back.
    pub contract: Option<Consent>,
    /// How many statements there were, this one included.
    pub revision: u64,
    /// Height of the block that holds it: from there on it counts.
    pub height: Height,
}

/// A registered model: what its work is reckoned from.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Model {
    /// Name for people. The digest is the name for the chain.
    pub name: String,
    /// Its sizes.
    pub shape: Shape,
}

/// A model that somebody wants to be registered. Its key has the model's digest, and a hash of name and shape.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ModelProposal {
    /// Name for people.
    pub name: String,
    /// Its sizes, as proposed.
    pub shape: Shape,
    /// Who proposed it.
    pub proposer: NodeId,
    /// Block that holds the proposal.
    pub height: Height,
    /// Who confirmed it, in order: only nodes that voted when the last one did.
    pub confirmed_by: Vec<NodeId>,
}

const _: () = assert!(
    128 + MODEL_NAME_BYTES_MAX + 32 * VALIDATORS_MAX <= STATE_VALUE_BYTES_MAX,
    "a proposal that all validators confirmed fits one value"
);

impl ModelProposal {
    /// The last height at which it can be confirmed.
    pub fn ends(&self, params: &Params) -> Height {
        Height::new(self.height.get().saturating_add(params.unbond_blocks))
    }

    /// Whether it can be confirmed at a height.
    pub fn stands(&self, height: Height, params: &Params) -> bool {
        height <= self.ends(params)
    }
}

/// Amounts in existence. Invariant: balances and bonds of all accounts, and what is held, add up to `genesis + issued - burned`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Supply {
    /// Given out at genesis.
    pub genesis: NanoAria,
    /// Minted as rewards since.
    pub issued: NanoAria,
    /// Taken from bonds and fees and destroyed since.
    pub burned: NanoAria,
    /// Taken from balances until it is open no more what becomes of it: fees of records that are audited, and what doubts and challenges are backed with.
    pub held: NanoAria,
}

/// A node that may get power: a validator of genesis, or one with a bond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Candidate {
    /// Power that genesis gave it.
    pub base: u64,
    /// Turns to propose that it took in this epoch.
    pub taken: u32,
    /// Turns that it let pass in this epoch, and in those just before in which it took none.
    pub missed: u32,
    /// How often in a row it was absent.
    pub strikes: u8,
    /// First epoch in which it may vote again.
    pub returns: Epoch,
    /// Height of the block whose evidence excluded it, for ever.
    pub excluded: Option<Height>,
    /// First epoch in which it may vote again after what an audit found.
    pub barred: Epoch,
    /// How often an audit found against it.
    pub refuted: u8,
}

/// Longest time for which an audit bars a node, in epochs.
const BARRED_EPOCHS_MAX: u64 = 1_024;

impl Candidate {
    /// Keeps it from voting for 2, 4, 8 ... epochs behind those whose sets stand already.
    pub(crate) fn bar(&mut self, now: Epoch) {
        self.refuted = self.refuted.saturating_add(1);
        let away = 1_u64.checked_shl(u32::from(self.refuted)).unwrap_or(u64::MAX).min(BARRED_EPOCHS_MAX);
        let until = Epoch::new(now.get().saturating_add(1).saturating_add(away));
        self.barred = self.barred.max(until);
    }
}

/// How far an audit has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Phase {
    /// Its committee is not drawn yet.
    Waiting = 1,
    /// A committee audits it.
    Drawn = 2,
    /// It was not drawn, and is accepted when the time is over.
    Passed = 3,
    /// Its auditors contradicted each other; the strongest voters decide.
    Disputed = 4,
    /// It is verified, and whether one of its auditors ran it is in doubt; the strongest voters decide.
    Doubted = 5,
}

/// The audit of a record.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Audit {
    /// The record.
    pub record: RecordId,
    /// Whose fee is held for it.
    pub requester: NodeId,
    /// Who ran it.
    pub stages: Vec<Stage>,
    /// What it would earn.
    pub earned: Earned,
    /// Tokens of its prompt and its answer: what is behind it is so long.
    pub tokens: u64,
    /// What drew the committee; zero before.
    pub seed: Digest,
    /// How far it has come.
    pub phase: Phase,
    /// Who audits, or judges in a dispute.
    pub members: Vec<Member>,
    /// What the committee said, where there is a dispute.
    pub first: Vec<(NodeId, Verdict)>,
    /// How and when it ended. Only outside of the state: there it is gone by then.
    pub outcome: Option<(RecordStatus, Height)>,
}

impl Audit {
    /// From what a store keeps of one that ended.
    pub fn from_bytes(bytes: &[u8]) -> Option<Audit> {
        decode(bytes)
    }

    /// What a store keeps of one that ended.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }
}

const _: () = assert!(
    256 + 36 * STAGES_MAX + 107 * JUDGES_MAX as usize + 33 * COMMITTEE_MAX as usize <= STATE_VALUE_BYTES_MAX,
    "the largest dispute about the longest pipeline fits one value"
);

/// An auditor of a record.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its power when it was drawn.
    pub power: u64,
    /// What it committed to.
    pub commitment: Option<Digest>,
    /// What it found, once it opened.
    pub verdict: Option<Verdict>,
    /// Root of its own transcript, once it opened.
    pub root: Digest,
}

impl Member {
    /// One who has said nothing.
    pub(crate) fn new(node: NodeId, power: u64) -> Member {
        Member { node, power, commitment: None, verdict: None, root: Digest::ZERO }
    }
}

/// What the auditors of a verified record opened.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Opened {
    /// The record.
    pub record: RecordId,
    /// One for each auditor that nobody doubted yet.
    pub roots: Vec<OpenedRoot>,
}

/// What shows that an auditor ran a record.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OpenedRoot {
    /// The auditor.
    pub node: NodeId,
    /// Its secret.
    pub secret: [u8; 32],
    /// Root of the transcript under it.
    pub root: Digest,
}

/// Somebody says that a root is not what the run gives.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Doubt {
    /// Who says so.
    pub by: NodeId,
    /// What it put on it.
    pub deposit: NanoAria,
    /// Whose root it is.
    pub accused: OpenedRoot,
}

/// Somebody who was drawn for a record says that what an audit needs did not come.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Challenge {
    /// Who says so.
    pub by: NodeId,
    /// What it put down.
    pub deposit: NanoAria,
    /// What of it went for parts.
    pub spent: NanoAria,
    /// The last block that takes parts.
    pub until: Height,
    /// To whom they are sealed: who was drawn.
    pub readers: Vec<NodeId>,
    /// Most parts that there may be.
    pub parts_max: u8,
    /// How many there are; zero before the first has come.
    pub parts: u8,
    /// Which have come, a bit each.
    pub delivered: u64,
}

const _: () = assert!(
    64 + 32 * COMMITTEE_MAX as usize + 32 <= STATE_VALUE_BYTES_MAX,
    "a challenge of the largest committee fits one value"
);

impl Challenge {
    /// Whether all parts are there.
    pub fn is_answered(&self) -> bool {
        self.parts > 0 && self.delivered.count_ones() == u32::from(self.parts)
    }

    /// Whether a block at this height takes parts.
    pub fn stands(&self, height: Height) -> bool {
        !self.is_answered() && height <= self.until
    }

    /// Whether a part has come.
    pub fn has(&self, part: u8) -> bool {
        self.delivered & bit(part) != 0
    }

    pub(crate) fn take(&mut self, part: u8) {
        self.delivered |= bit(part);
    }

    /// What of the deposit did not go for parts.
    pub fn left(&self) -> NanoAria {
        self.deposit.minus_or_zero(self.spent)
    }
}

/// The bit of a part.
fn bit(part: u8) -> u64 {
    1_u64.checked_shl(part.into()).unwrap_or(0)
}

impl Supply {
    /// All that exists.
    pub fn total(&self) -> Result<NanoAria, Overflow> {
        self.genesis.checked_add(self.issued)?.checked_sub(self.burned)
    }
}

/// Tokens generated, and the energy that they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Spent {
    /// Tokens generated.
    pub tokens: u64,
    /// Their energy; no less than the physical floor of the work.
    pub energy_uj: Microjoules,
}

/// What came of comparing a node's measured energy with that of others on the same hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Standing {
    /// It claims less than half of their median. Else they vouch for it.
    pub is_outlier: bool,
    /// That median, in microjoules for a thousand tokens.
    pub median_uj: u64,
}

/// What answers took, by how it is known: what is measured and what is estimated are never one number. An answer of
/// unknown energy counts nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Sobriety {
    /// By a counter of the machine.
    pub measured: Spent,
    /// By a formula.
    pub estimated: Spent,
}

/// What happened in one epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EpochTotals {
    /// Blocks.
    pub blocks: u64,
    /// Records included.
    pub records: u64,
    /// Records that settled with work.
    pub settled: u64,
    /// Prompt tokens of the included records.
    pub prompt_tokens: u64,
    /// Generated tokens of the included records.
    pub generated_tokens: u64,
    /// Energy of the included records.
    pub energy_uj: Microjoules,
    /// What of it is known, and how.
    pub sobriety: Sobriety,
    /// Work credited.
    pub work: WorkUnits,
    /// Minted for answers and audits.
    pub rewards: NanoAria,
    /// What requesters paid for answers, burned parts included.
    pub paid: NanoAria,
    /// Transactions included.
    pub transactions: u64,
    /// Their fees, burned parts included.
    pub fees: NanoAria,
}

/// A value as the state stores it.
pub(crate) fn encode(value: &impl BorshSerialize) -> Vec<u8> {
    borsh::to_vec(&(VERSION, value)).expect("writing to memory does not fail")
}

/// A value from its bytes. `None`: another version, too few or too many bytes.
pub(crate) fn decode<T: BorshDeserialize>(bytes: &[u8]) -> Option<T> {
    let (version, rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    borsh::from_slice(rest).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip() {
        let account = Account { balance: NanoAria::new(7), nonce: 3, ..Account::default() };
        assert_eq!(decode(&encode(&account)), Some(account));
        let shape = Shape { layers: 1, dim: 2, ffn: 3, heads: 4, kv_heads: 5, head_dim: 6, vocab: 7 };
        let model = Model { name: "m".to_owned(), shape };
        assert_eq!(decode(&encode(&model)), Some(model));
    }

    #[test]
    fn damaged_values_are_refused() {
        let good = encode(&7_u64);
        assert_eq!(decode::<u64>(&good), Some(7));
        assert_eq!(good, [1, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode::<u64>(&[]), None);
        assert_eq!(decode::<u64>(&good[..8]), None);
        assert_eq!(decode::<u64>(&[&good[..], &[0]].concat()), None);
        assert_eq!(decode::<u64>(&[&[2], &good[1..]].concat()), None);
    }
}
