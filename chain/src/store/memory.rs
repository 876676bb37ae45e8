//! The store in memory: twin of the one on disk for tests and short-lived chains. It forgets all when dropped.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::error::StoreError;
use super::ledger::{Ledger, Restoring, Tables, Visit};
use super::schema::{Tree, Writes};
use super::{Order, StateChanges, Tip};
use crate::block::GenesisBlock;

/// A store that keeps all in memory.
pub type MemoryStore = Ledger<MemoryTables>;

type Entries = BTreeMap<(Tree, Vec<u8>), Vec<u8>>;

/// Ordered maps.
#[derive(Default)]
pub struct MemoryTables {
    entries: RwLock<Entries>,
}

impl MemoryStore {
    /// A store that holds the first block of a chain.
    pub fn new(genesis: &GenesisBlock, initial: &StateChanges) -> Result<MemoryStore, StoreError> {
        Ledger::create(MemoryTables::default(), genesis, initial)
    }

    /// A store that will begin with a snapshot.
    pub fn restore() -> Restoring<MemoryTables> {
        Restoring::new(MemoryTables::default())
    }
}

impl MemoryTables {
    fn entries(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables for MemoryTables {
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.entries().get(&(tree, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        tree: Tree,
        low: Bound<&[u8]>,
        high: Bound<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        // Copied, because a visitor may read other keys, and a lock is not taken twice by one thread.
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = {
            let entries = self.entries();
            let in_tree = entries.range((tree, Vec::new())..).take_while(|((other, _), _)| *other == tree);
            let above = in_tree.skip_while(|((_, key), _)| is_below(key, low));
            let between = above.take_while(|((_, key), _)| !is_above(key, high));
            between.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        };
        if order == Order::Descending {
            found.reverse();
        }
        for (key, value) in &found {
            if !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, writes: Writes, _tip: Option<&Tip>) -> Result<(), StoreError> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for (tree, key, value) in writes.into_changes() {
            match value {
                Some(value) => entries.insert((tree, key), value),
                None => entries.remove(&(tree, key)),
            };
        }
        Ok(())
    }
}

fn is_below(key: &[u8], low: Bound<&[u8]>) -> bool {
    match low {
        Bound::Included(low) => key < low,
        Bound::Excluded(low) => key <= low,
        Bound::Unbounded => false,
    }
}

fn is_above(key: &[u8], high: Bound<&[u8]>) -> bool {
    match high {
        Bound::Included(high) => key > high,
        Bound::Excluded(high) => key >= high,
        Bound::Unbounded => false,
    }
}
