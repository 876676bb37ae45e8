//! The chain's state: a map from keys to values, read through [`View`], changed through an [`Overlay`].
//!
//! - [`key`]: every key, byte by byte
//! - [`entry`]: every value
//! - [`lattice`]: the hash of the whole, updated entry by entry
//! - [`memory`]: the state in memory
//! - [`stored`]: the state in a store

use std::collections::BTreeMap;

use aria_chain::certificate::ValidatorSet;
use aria_chain::ids::{Digest, ModelId, NodeId, RequestId};
use aria_chain::limits::STATE_SCAN_MAX;
use aria_chain::sobriety::SobrietyAttestation;
use aria_chain::store::{StateChanges, StateEntry};
use aria_chain::units::{Epoch, Height, NanoAria};
use borsh::{BorshDeserialize, BorshSerialize};

pub use self::entry::{
    Account, Audit, Candidate, Challenge, Doubt, EpochTotals, Member, Model, ModelProposal, Opened, OpenedRoot, Phase,
    Sobriety, Spent, Standing, StatedConsent, Supply, Work,
};
use self::lattice::Lattice;
pub use self::memory::MemoryState;
pub use self::stored::StoreView;

use crate::reputation::Reputation;

pub mod entry;
pub mod key;
pub mod lattice;
pub mod memory;
pub mod stored;

/// Read access to a state. A view does not change while it is used.
pub trait View {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;
    /// Up to `limit` entries whose key begins with `prefix`, in order of key.
    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<StateEntry>, ReadError>;
}

/// The state's home could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state cannot be read: {0}; the store needs attention")]
pub struct ReadError(pub String);

/// The state cannot be used. Never a fault of a block: the node that meets it stops instead of judging.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// See [`ReadError`].
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A value that this version cannot have written.
    #[error("the state holds a damaged value at key {}; restore the store or rebuild it from its blocks", hex(.key))]
    Damaged {
        /// Key of the value.
        key: Vec<u8>,
    },
    /// An entry that every state has is missing.
    #[error("the state has no entry at key {}; it was not built from a genesis", hex(.key))]
    Missing {
        /// Key of the entry.
        key: Vec<u8>,
    },
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A record by the height of its block and its index there.
pub type RecordPlace = (Height, u32);

/// A proposal to register a model: the model's digest, and the hash of all that is proposed.
pub type ProposalIds = (ModelId, Digest);

/// The audit that a changed entry of the state is about: its record's place, and what it is now, if it still goes on.
pub fn audit_change(key: &[u8], value: Option<&[u8]>) -> Option<(RecordPlace, Option<Audit>)> {
    let place = key::place_of_audit(key)?;
    match value {
        None => Some((place, None)),
        Some(bytes) => Some((place, Some(entry::decode(bytes)?))),
    }
}

/// Typed reads over any view. RPC views and rules use the same ones.
pub struct Reader<'a>(pub &'a dyn View);

impl Reader<'_> {
    /// The genesis hash this state grew from.
    pub fn genesis_hash(&self) -> Result<Digest, StateError> {
        self.required(key::GENESIS)
    }

    /// Amounts in existence.
    pub fn supply(&self) -> Result<Supply, StateError> {
        self.required(key::SUPPLY)
    }

    /// The account of a node, if it has one.
    pub fn account(&self, node: &NodeId) -> Result<Option<Account>, StateError> {
        self.optional(&key::account(node))
    }

    /// Up to `limit` accounts in order of node.
    pub fn accounts(&self, limit: usize) -> Result<Vec<(NodeId, Account)>, StateError> {
        self.table(key::ACCOUNTS, limit, NodeId::new)
    }

    /// The set that votes in the epoch of the tip.
    pub fn voters(&self) -> Result<ValidatorSet, StateError> {
        self.required(key::VOTERS)
    }

    /// The set that votes in the epoch after that of the tip.
    pub fn next_voters(&self) -> Result<ValidatorSet, StateError> {
        self.required(key::NEXT_VOTERS)
    }

    /// A node that may get power, if it is one.
    pub fn candidate(&self, node: &NodeId) -> Result<Option<Candidate>, StateError> {
        self.optional(&key::candidate(node))
    }

    /// All nodes that may get power, in order of node.
    pub fn candidates(&self) -> Result<Vec<(NodeId, Candidate)>, StateError> {
        self.table(key::CANDIDATES, usize::MAX, NodeId::new)
    }

    /// A registered model.
    pub fn model(&self, model: &ModelId) -> Result<Option<Model>, StateError> {
        self.optional(&key::model(model))
    }

    /// Up to `limit` registered models in order of digest.
    pub fn models(&self, limit: usize) -> Result<Vec<(ModelId, Model)>, StateError> {
        self.table(key::MODELS, limit, ModelId::new)
    }

    /// The model that a transaction registered under a name; those of genesis are not found by it.
    pub fn model_of_name(&self, name: &str) -> Result<Option<ModelId>, StateError> {
        self.optional(&key::model_name(name))
    }

    /// A proposal to register a model, standing or ended.
    pub fn model_proposal(&self, model: &ModelId, proposal: &Digest) -> Result<Option<ModelProposal>, StateError> {
        self.optional(&key::model_proposal(model, proposal))
    }

    /// Up to `limit` proposals to register models, in order of model, standing or ended.
    pub fn model_proposals(&self, limit: usize) -> Result<Vec<(ProposalIds, ModelProposal)>, StateError> {
        let parse = |key: &[u8], value: &[u8]| Some((key::ids_of_model_proposal(key)?, entry::decode(value)?));
        let entries = self.0.scan(key::MODEL_PROPOSALS, limit)?;
        entries.into_iter().map(|(key, value)| parse(&key, &value).ok_or(StateError::Damaged { key })).collect()
    }

    /// Work of a node in an epoch.
    pub fn work(&self, epoch: Epoch, node: &NodeId) -> Result<Work, StateError> {
        Ok(self.optional(&key::work(epoch, node))?.unwrap_or_default())
    }

    /// Work of up to `limit` nodes in an epoch, in order of node.
    pub fn work_of_epoch(&self, epoch: Epoch, limit: usize) -> Result<Vec<(NodeId, Work)>, StateError> {
        self.table(&key::work_of_epoch(epoch), limit, NodeId::new)
    }

    /// What the included answers of a node took in an epoch, its share of each by layers.
    pub fn sobriety(&self, epoch: Epoch, node: &NodeId) -> Result<Sobriety, StateError> {
        Ok(self.optional(&key::sobriety(epoch, node))?.unwrap_or_default())
    }

    /// Totals of an epoch; zero where nothing happened yet.
    pub fn epoch_totals(&self, epoch: Epoch) -> Result<EpochTotals, StateError> {
        Ok(self.optional(&key::epoch(epoch))?.unwrap_or_default())
    }

    /// What the entry at a key of the table of bonds that are being freed holds; zero where there is none.
    pub fn unbonding(&self, entry: &[u8]) -> Result<NanoAria, StateError> {
        Ok(self.optional(entry)?.unwrap_or_default())
    }

    /// The reputation of a node; that of everybody at the beginning where nothing of it was settled yet.
    pub fn reputation(&self, node: &NodeId) -> Result<Reputation, StateError> {
        Ok(self.optional(&key::reputation(node))?.unwrap_or_default())
    }

    /// What a node last stated of its machine, if it ever did.
    pub fn consent(&self, node: &NodeId) -> Result<Option<StatedConsent>, StateError> {
        self.optional(&key::consent(node))
    }

    /// The chain's random number after the tip.
    pub fn beacon(&self) -> Result<Digest, StateError> {
        self.required(key::BEACON)
    }

    /// The audit of a record by its place, while it goes on.
    pub fn audit(&self, height: Height, index: u32) -> Result<Option<Audit>, StateError> {
        self.optional(&key::audit(height, index))
    }

    /// What a node attested of an epoch.
    pub fn attested(&self, epoch: Epoch, node: &NodeId) -> Result<Option<SobrietyAttestation>, StateError> {
        self.optional(&key::attested(epoch, node))
    }

    /// Measured energy of a node's answers by a model, until it was compared.
    pub fn measured(&self, epoch: Epoch, model: &ModelId, node: &NodeId) -> Result<Spent, StateError> {
        Ok(self.optional(&key::measured(epoch, model, node))?.unwrap_or_default())
    }

    /// How a node stands with a model in this epoch. None: nobody could be compared with it.
    pub fn standing(&self, node: &NodeId, model: &ModelId) -> Result<Option<Standing>, StateError> {
        self.optional(&key::standing(node, model))
    }

    /// How a node stands with each model in this epoch.
    pub fn standings(&self, node: &NodeId) -> Result<Vec<(ModelId, Standing)>, StateError> {
        let found = self.0.scan(&key::standings_of(node), STATE_SCAN_MAX)?;
        let parse = |key: &[u8], value: &[u8]| Some((ModelId::new(key::last_id(key)?), entry::decode(value)?));
        found.into_iter().map(|(key, value)| parse(&key, &value).ok_or(StateError::Damaged { key })).collect()
    }

    /// What the auditors of a verified record opened, while it can be doubted.
    pub fn opened(&self, height: Height, index: u32) -> Result<Option<Opened>, StateError> {
        self.optional(&key::opened(height, index))
    }

    /// The doubt about one of them, while it is undecided.
    pub fn doubt(&self, height: Height, index: u32) -> Result<Option<Doubt>, StateError> {
        self.optional(&key::doubt(height, index))
    }

    /// The challenge of a record's provider, while its audit goes on.
    pub fn challenge(&self, height: Height, index: u32) -> Result<Option<Challenge>, StateError> {
        self.optional(&key::challenge(height, index))
    }

    /// Up to `limit` records whose providers are being challenged, the first to be due first.
    pub fn open_challenges(&self, limit: usize) -> Result<Vec<RecordPlace>, StateError> {
        let entries = self.0.scan(key::CHALLENGES_DUE, limit)?.into_iter();
        entries.map(|(key, _)| key::place_of_due(&key).ok_or(StateError::Damaged { key })).collect()
    }

    /// What a provider posted, all parts in a row. None: not all of them are there.
    pub fn delivered(&self, (height, index): RecordPlace, parts: u8) -> Result<Option<Vec<u8>>, StateError> {
        let mut sealed = Vec::new();
        for part in 0..parts {
            let Some(part) = self.optional::<Vec<u8>>(&key::delivered(height, index, part))? else { return Ok(None) };
            sealed.extend(part);
        }
        Ok(Some(sealed))
    }

    /// Up to `limit` audits that go on, in order of place.
    pub fn audits(&self, limit: usize) -> Result<Vec<(RecordPlace, Audit)>, StateError> {
        let parse = |key: &[u8], value: &[u8]| Some((key::place_of_audit(key)?, entry::decode(value)?));
        let entries = self.0.scan(key::AUDITS, limit)?;
        entries.into_iter().map(|(key, value)| parse(&key, &value).ok_or(StateError::Damaged { key })).collect()
    }

    /// Height of the block that counted a request.
    pub fn request_height(&self, expiry: Height, request: &RequestId) -> Result<Option<Height>, StateError> {
        self.optional(&key::request(expiry, request))
    }

    /// The state root as its last block left it.
    pub fn state_root(&self) -> Result<Digest, StateError> {
        Ok(read_lattice(self.0)?.root())
    }

    fn optional<T: BorshDeserialize>(&self, key: &[u8]) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.0.get(key)? else {
            return Ok(None);
        };
        entry::decode(&bytes).map(Some).ok_or_else(|| StateError::Damaged { key: key.to_vec() })
    }

    fn required<T: BorshDeserialize>(&self, key: &[u8]) -> Result<T, StateError> {
        self.optional(key)?.ok_or_else(|| StateError::Missing { key: key.to_vec() })
    }

    /// Entries of a table whose keys end in an id.
    fn table<I, T: BorshDeserialize>(
        &self,
        prefix: &[u8],
        limit: usize,
        id_from: impl Fn([u8; 32]) -> I,
    ) -> Result<Vec<(I, T)>, StateError> {
        let parse = |key: &[u8], value: &[u8]| Some((id_from(key::last_id(key)?), entry::decode(value)?));
        let entries = self.0.scan(prefix, limit)?;
        let parsed = entries.into_iter().map(|(key, value)| parse(&key, &value).ok_or(StateError::Damaged { key }));
        parsed.collect()
    }
}

/// Changes of one block over a state that stays as it is. Reads see the changes.
pub struct Overlay<'a> {
    base: &'a dyn View,
    changes: Changes,
}

/// Keys and their new values, `None` where the entry goes.
type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl<'a> Overlay<'a> {
    /// An overlay without changes.
    pub fn new(base: &'a dyn View) -> Overlay<'a> {
        Overlay { base, changes: BTreeMap::new() }
    }

    /// Typed reads that see the changes.
    pub fn read(&self) -> Reader<'_> {
        Reader(self)
    }

    /// Sets a value.
    pub(crate) fn put(&mut self, key: Vec<u8>, value: &impl BorshSerialize) {
        self.changes.insert(key, Some(entry::encode(value)));
    }

    /// Deletes an entry.
    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }

    /// The changes alone.
    pub(crate) fn into_changes(self) -> Changes {
        self.changes
    }

    /// Takes over the changes of an overlay that lay upon this one.
    pub(crate) fn absorb(&mut self, changes: Changes) {
        self.changes.extend(changes);
    }

    /// Ends the block: drops changes that change nothing, and brings the lattice sum up to date. Entries come in order of
    /// key, the sum first.
    pub fn seal(self) -> Result<StateChanges, StateError> {
        let Overlay { base, changes } = self;
        let mut sum = read_lattice(base)?;
        let mut entries = Vec::new();
        for (key, new) in changes {
            let old = base.get(&key)?;
            if old == new {
                continue;
            }
            if let Some(old) = &old {
                sum.remove(&key, old);
            }
            if let Some(new) = &new {
                sum.add(&key, new);
            }
            entries.push((key, new));
        }
        if !entries.is_empty() {
            entries.insert(0, (key::LATTICE.to_vec(), Some(sum.to_bytes())));
        }
        Ok(StateChanges { entries, state_root: sum.root(), ..StateChanges::default() })
    }
}

impl View for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        match self.changes.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<StateEntry>, ReadError> {
        let own = || self.changes.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        // Each change hides at most one entry of the base.
        let wanted = limit.saturating_add(own().count());
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = self.base.scan(prefix, wanted)?.into_iter().collect();
        for (key, changed) in own() {
            match changed {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }
}

fn read_lattice(view: &dyn View) -> Result<Lattice, StateError> {
    match view.get(key::LATTICE)? {
        None => Ok(Lattice::empty()),
        Some(bytes) => Lattice::from_bytes(&bytes).ok_or_else(|| StateError::Damaged { key: key::LATTICE.to_vec() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(entries: &[(&[u8], u64)]) -> MemoryState {
        let mut state = MemoryState::new();
        let empty = state.clone();
        let mut overlay = Overlay::new(&empty);
        for (key, value) in entries {
            overlay.put(key.to_vec(), value);
        }
        let sealed = overlay.seal().unwrap();
        state.apply(&sealed.entries);
        state
    }

    #[test]
    fn the_overlay_hides_what_it_changes() {
        let base = with(&[(b"a1", 1), (b"a2", 2), (b"b", 3)]);
        let mut overlay = Overlay::new(&base);
        overlay.delete(b"a1".to_vec());
        overlay.put(b"a0".to_vec(), &9_u64);
        overlay.put(b"a3".to_vec(), &4_u64);
        let keys =
            |limit| -> Vec<Vec<u8>> { overlay.scan(b"a", limit).unwrap().into_iter().map(|(key, _)| key).collect() };
        assert_eq!(keys(9), [b"a0", b"a2", b"a3"]);
        assert_eq!(keys(2), [b"a0", b"a2"]);
        assert_eq!(overlay.get(b"a1"), Ok(None));
        assert_eq!(overlay.get(b"b"), Ok(Some(entry::encode(&3_u64))));
    }

    #[test]
    fn the_incremental_root_is_the_full_root() {
        let mut state = with(&[(b"a", 1), (b"b", 2)]);
        let base = state.clone();
        let mut overlay = Overlay::new(&base);
        overlay.put(b"a".to_vec(), &5_u64);
        overlay.delete(b"b".to_vec());
        overlay.put(b"c".to_vec(), &6_u64);
        overlay.delete(b"never".to_vec());
        let sealed = overlay.seal().unwrap();
        state.apply(&sealed.entries);
        assert_eq!(sealed.state_root, state.full_root());
        assert_eq!(sealed.state_root, with(&[(b"c", 6), (b"a", 5)]).full_root());
        assert_eq!(sealed.entries.len(), 4, "three changes and the sum");
    }

    #[test]
    fn changes_that_change_nothing_are_dropped() {
        let base = with(&[(b"a", 1)]);
        let mut overlay = Overlay::new(&base);
        overlay.put(b"a".to_vec(), &1_u64);
        let sealed = overlay.seal().unwrap();
        assert_eq!(sealed.entries, []);
        assert_eq!(sealed.state_root, base.full_root());
    }

    #[test]
    fn damage_is_named() {
        let mut state = with(&[(key::SUPPLY, 1)]);
        let error = Reader(&state).supply().unwrap_err();
        assert_eq!(error, StateError::Damaged { key: key::SUPPLY.to_vec() });
        assert!(error.to_string().contains("key 02"), "{error}");
        assert_eq!(Reader(&state).genesis_hash(), Err(StateError::Missing { key: key::GENESIS.to_vec() }));
        state.apply(&[(key::LATTICE.to_vec(), Some(vec![0; 3]))]);
        assert_eq!(Overlay::new(&state).seal(), Err(StateError::Damaged { key: key::LATTICE.to_vec() }));
        state.apply(&[(b"\x03short".to_vec(), Some(vec![1]))]);
        assert_eq!(Reader(&state).accounts(9), Err(StateError::Damaged { key: b"\x03short".to_vec() }));
    }

    #[test]
    fn a_failed_read_is_not_an_empty_state() {
        struct Broken;
        impl View for Broken {
            fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
                Err(ReadError("disk".to_owned()))
            }
            fn scan(&self, _: &[u8], _: usize) -> Result<Vec<StateEntry>, ReadError> {
                Err(ReadError("disk".to_owned()))
            }
        }
        let failed = StateError::Read(ReadError("disk".to_owned()));
        assert_eq!(Reader(&Broken).supply(), Err(failed.clone()));
        assert_eq!(Reader(&Broken).accounts(1), Err(failed.clone()));
        assert_eq!(Overlay::new(&Broken).seal(), Err(failed));
    }
}
