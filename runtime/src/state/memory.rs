//! The state in memory: genesis is built on it, and a chain is re-executed on it.

use std::collections::BTreeMap;

use aria_chain::ids::Digest;
use aria_chain::store::StateEntry;

use crate::state::lattice::Lattice;
use crate::state::{ReadError, View, key};

/// A whole state in a sorted map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryState {
    /// The state before genesis.
    pub fn new() -> MemoryState {
        MemoryState::default()
    }

    /// Applies the changes of one block; `None` deletes.
    pub fn apply(&mut self, entries: &[(Vec<u8>, Option<Vec<u8>>)]) {
        for (key, value) in entries {
            match value {
                Some(value) => self.entries.insert(key.clone(), value.clone()),
                None => self.entries.remove(key),
            };
        }
    }

    /// All entries in order of key.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// The state root, summed anew over every entry. The incremental one of [`Overlay`](crate::state::Overlay) must
    /// equal it.
    pub fn full_root(&self) -> Digest {
        let mut sum = Lattice::empty();
        for (key, value) in self.entries().filter(|(key, _)| *key != key::LATTICE) {
            sum.add(key, value);
        }
        sum.root()
    }
}

impl View for MemoryState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.entries.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<StateEntry>, ReadError> {
        let from = self.entries.range(prefix.to_vec()..);
        let found = from.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
