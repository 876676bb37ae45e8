//! The state as a store keeps it: what the node executes on and what RPC reads.

use aria_chain::ids::{ModelId, NodeId};
use aria_chain::store::{StateEntry, Store, StoreError};
use borsh::BorshDeserialize;

use crate::state::{Account, Model, ReadError, StateError, View, entry, key};

/// The state after the tip of a store. It changes with the next commit, so one execution finishes before the next commit
/// begins: the store has one writer, which does both.
#[derive(Clone, Copy)]
pub struct StoreView<'a>(pub &'a dyn Store);

impl StoreView<'_> {
    /// Up to `limit` accounts in order of node, behind `after`.
    pub fn accounts_after(&self, after: Option<&NodeId>, limit: usize) -> Result<Vec<(NodeId, Account)>, StateError> {
        self.table_after(key::ACCOUNTS, after.map(key::account), limit, NodeId::new)
    }

    /// Up to `limit` registered models in order of digest, behind `after`.
    pub fn models_after(&self, after: Option<&ModelId>, limit: usize) -> Result<Vec<(ModelId, Model)>, StateError> {
        self.table_after(key::MODELS, after.map(key::model), limit, ModelId::new)
    }

    fn table_after<I, T: BorshDeserialize>(
        &self,
        table: &[u8],
        after: Option<Vec<u8>>,
        limit: usize,
        id_from: impl Fn([u8; 32]) -> I,
    ) -> Result<Vec<(I, T)>, StateError> {
        let page = self.0.state_scan(table, after.as_deref(), limit).map_err(unreadable)?;
        let parse = |(key, value): StateEntry| match (key::last_id(&key), entry::decode(&value)) {
            (Some(id), Some(value)) => Ok((id_from(id), value)),
            _ => Err(StateError::Damaged { key }),
        };
        page.into_iter().map(parse).collect()
    }
}

impl View for StoreView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.0.state(key).map_err(unreadable)
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<StateEntry>, ReadError> {
        let mut found: Vec<StateEntry> = Vec::new();
        // The store cuts each page to a limit of its own.
        while found.len() < limit {
            let after = found.last().map(|(key, _)| key.clone());
            let wanted = limit.saturating_sub(found.len());
            let page = self.0.state_scan(prefix, after.as_deref(), wanted).map_err(unreadable)?;
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        Ok(found)
    }
}

fn unreadable(error: StoreError) -> ReadError {
    ReadError(error.to_string())
}
