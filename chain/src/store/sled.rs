//! The store on disk. Sole user of sled, which is old, so it is kept on a short lead: see `docs/state.md`.
//!
//! One step is a transaction over all trees, then a flush, then a sync of the database file through a handle of our own:
//! sled's flush alone survives a kill, but not a power cut. Panics of sled are caught and become errors.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};

use super::error::StoreError;
use super::ledger::{Ledger, Restoring, Tables, Visit};
use super::schema::{Tree, Writes};
use super::{Order, StateChanges, Tip};
use crate::block::GenesisBlock;

mod folder;
mod open;
mod witness;

pub use open::{OpenOptions, OpenReport};

/// A store that keeps all on disk.
pub type SledStore = Ledger<SledTables>;

/// Trees of a sled database, in a folder that is ours alone while this lives.
pub struct SledTables {
    /// Nothing after a failure of the system, until the next read opens it again.
    opened: Mutex<Option<Arc<Opened>>>,
    path: PathBuf,
    options: OpenOptions,
    witness: Mutex<witness::Witness>,
    /// Last, so that it is given back after the database is closed.
    _lock: folder::FolderLock,
}

/// An open database.
struct Opened {
    /// In the order of [`Tree::ALL`].
    trees: Vec<::sled::Tree>,
    database: ::sled::Db,
    /// Our own handle of the database's only file.
    file: File,
}

impl SledStore {
    /// Opens the store in a folder, or begins one with the first block of the chain.
    pub fn open(
        path: &Path,
        genesis: &GenesisBlock,
        initial: &StateChanges,
        options: OpenOptions,
    ) -> Result<(SledStore, OpenReport), StoreError> {
        open::open(path, Some((genesis, initial)), options)
    }

    /// Opens the store in a folder that holds a chain, whichever it is.
    pub fn open_existing(path: &Path, options: OpenOptions) -> Result<(SledStore, OpenReport), StoreError> {
        open::open(path, None, options)
    }

    /// A store that will begin with a snapshot, in a folder that holds none.
    pub fn restore(path: &Path, options: OpenOptions) -> Result<Restoring<SledTables>, StoreError> {
        open::restore(path, options)
    }
}

impl SledTables {
    /// The open database. After a failed write it is opened again: sled has then in memory what is not on disk, and
    /// refuses even to read it.
    fn opened(&self) -> Result<Arc<Opened>, StoreError> {
        let mut slot = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*slot {
            return Ok(Arc::clone(opened));
        }
        let opened = Arc::new(open::reopen(&self.path, self.options)?);
        *slot = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Uses the open database, and closes it where the system refused it something.
    fn using<R>(&self, call: impl FnOnce(&Opened) -> Result<R, StoreError>) -> Result<R, StoreError> {
        let opened = self.opened()?;
        let result = call(&opened);
        if matches!(result, Err(StoreError::DiskFull { .. } | StoreError::NotWritable { .. } | StoreError::Io { .. })) {
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
    }
}

impl Opened {
    fn tree(&self, tree: Tree) -> &::sled::Tree {
        &self.trees[place_of(tree)]
    }

    fn write(&self, path: &Path, writes: Writes) -> Result<(), StoreError> {
        let mut batches = vec![::sled::Batch::default(); Tree::ALL.len()];
        for (tree, key, value) in writes.into_changes() {
            match value {
                Some(value) => batches[place_of(tree)].insert(key, value),
                None => batches[place_of(tree)].remove(key),
            }
        }
        guard("write", path, || {
            let applied = self.trees[..].transaction(|views| {
                views.iter().zip(&batches).try_for_each(|(view, batch)| view.apply_batch(batch))?;
                Ok::<(), ConflictableTransactionError<Infallible>>(())
            });
            match applied {
                Ok(()) => Ok(()),
                Err(TransactionError::Storage(fault)) => Err(fault),
                Err(TransactionError::Abort(never)) => match never {},
            }
        })?;
        guard("flush", path, || self.database.flush())?;
        self.file.sync_data().map_err(|fault| io_error("sync", path, &fault))
    }
}

fn place_of(tree: Tree) -> usize {
    Tree::ALL.iter().position(|other| *other == tree).expect("`Tree::ALL` has every tree")
}

impl Tables for SledTables {
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.using(|opened| {
            let value = guard("read", &self.path, || opened.tree(tree).get(key))?;
            Ok(value.map(|value| value.to_vec()))
        })
    }

    fn scan(
        &self,
        tree: Tree,
        low: Bound<&[u8]>,
        high: Bound<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        if is_empty_range(low, high) {
            return Ok(());
        }
        self.using(|opened| {
            let mut entries = opened.tree(tree).range::<&[u8], _>((low, high));
            loop {
                let next = guard("scan", &self.path, || {
                    let next = match order {
                        Order::Ascending => entries.next(),
                        Order::Descending => entries.next_back(),
                    };
                    next.transpose()
                })?;
                let Some((key, value)) = next else { return Ok(()) };
                if !visit(&key, &value)? {
                    return Ok(());
                }
            }
        })
    }

    fn apply(&self, writes: Writes, tip: Option<&Tip>) -> Result<(), StoreError> {
        self.using(|opened| opened.write(&self.path, writes))?;
        match tip {
            Some(tip) => self.witness.lock().unwrap_or_else(PoisonError::into_inner).note(tip),
            None => Ok(()),
        }
    }
}

fn is_empty_range(low: Bound<&[u8]>, high: Bound<&[u8]>) -> bool {
    match (low, high) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
    }
}

/// Calls sled, and turns its errors and panics into ours.
fn guard<R>(
    action: &'static str,
    path: &Path,
    call: impl FnOnce() -> Result<R, ::sled::Error>,
) -> Result<R, StoreError> {
    let fault = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        // An error that the system did not raise is sled's opinion of its own files.
        Ok(Err(::sled::Error::Io(fault))) if fault.raw_os_error().is_some() || is_about_room(&fault) => {
            return Err(io_error(action, path, &fault));
        }
        Ok(Err(fault)) => fault.to_string(),
        Err(panic) => panic_text(panic.as_ref()),
    };
    Err(StoreError::Database { action, reason: fault })
}

/// Errors that sled passes on as copies lose the system's number, but keep their kind.
fn is_about_room(fault: &Error) -> bool {
    matches!(
        fault.kind(),
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge
    )
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it panicked: {}", text.unwrap_or("without a word"))
}

/// The error of ours for one of the system's.
fn io_error(action: &'static str, path: &Path, fault: &Error) -> StoreError {
    let (path, reason) = (path.to_owned(), fault.to_string());
    match fault.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::NotWritable { path, reason },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            StoreError::DiskFull { path, reason }
        }
        _ => StoreError::Io { action, path, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_get_their_remedy() {
        let text = |kind| io_error("open", Path::new("/x"), &Error::from(kind)).to_string();
        assert!(text(ErrorKind::PermissionDenied).contains("make it writable"));
        assert!(text(ErrorKind::ReadOnlyFilesystem).contains("--data-dir"));
        assert!(text(ErrorKind::StorageFull).contains("free some space"));
        assert!(text(ErrorKind::FileTooLarge).contains("no room left"));
        assert!(text(ErrorKind::NotFound).contains("cannot open /x"));
    }

    #[test]
    fn a_panic_below_becomes_an_error() {
        let fault = guard::<()>("read", Path::new("/x"), || panic!("page {} is gone", 7)).unwrap_err();
        assert_eq!(fault.to_string(), "the database failed to read: it panicked: page 7 is gone");
        let fault = guard::<()>("read", Path::new("/x"), || panic!("gone")).unwrap_err();
        assert!(fault.to_string().ends_with("it panicked: gone"));
        let fault = guard::<()>("read", Path::new("/x"), || std::panic::panic_any(7)).unwrap_err();
        assert!(fault.to_string().ends_with("without a word"));
        let bug = || Err::<(), _>(::sled::Error::ReportableBug("x".into()));
        assert!(matches!(guard("read", Path::new("/x"), bug), Err(StoreError::Database { .. })));
    }

    #[test]
    fn inverted_ranges_are_empty() {
        let (a, b): (&[u8], &[u8]) = (b"a", b"b");
        assert!(is_empty_range(Bound::Included(b), Bound::Included(a)));
        assert!(is_empty_range(Bound::Excluded(a), Bound::Included(a)));
        assert!(is_empty_range(Bound::Included(a), Bound::Excluded(a)));
        assert!(!is_empty_range(Bound::Included(a), Bound::Included(a)));
        assert!(!is_empty_range(Bound::Excluded(a), Bound::Excluded(b)));
        assert!(!is_empty_range(Bound::Unbounded, Bound::Included(a)));
        assert!(!is_empty_range(Bound::Included(a), Bound::Unbounded));
    }
}
