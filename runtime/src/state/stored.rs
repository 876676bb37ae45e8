//! The state as a store keeps it: what the node executes on and what RPC reads.

use aria_chain::ids::NodeId;
use aria_chain::store::{StateEntry, Store, StoreError};

use crate::state::{Account, ReadError, StateError, View, entry, key};

/// The state after the tip of a store. It changes with the next commit, so one execution finishes before the next commit
/// begins: the store has one writer, which does both.
#[derive(Clone, Copy)]
pub struct StoreView<'a>(pub &'a dyn Store);

impl StoreView<'_> {
    /// Up to `limit` accounts in order of node, behind `after`.
    pub fn accounts_after(&self, after: Option<&NodeId>, limit: usize) -> Result<Vec<(NodeId, Account)>, StateError> {
        let after = after.map(key::account);
        let page = self.0.state_scan(key::ACCOUNTS, after.as_deref(), limit).map_err(unreadable)?;
        let parse = |(key, value): StateEntry| match (key::last_id(&key), entry::decode(&value)) {
            (Some(id), Some(account)) => Ok((NodeId::new(id), account)),
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
