//! Opening a store: the steps of `docs/state.md`, in their order.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::folder::{self, FolderLock};
use super::witness::Witness;
use super::{Opened, SledStore, SledTables, guard, io_error};
use crate::block::GenesisBlock;
use crate::ids::BlockHash;
use crate::store::ledger::{Found, Ledger, Restoring};
use crate::store::schema::Tree;
use crate::store::verify::{LinkRules, verify_block};
use crate::store::{StateChanges, Store, StoreError, StoredChain};
use crate::units::Height;

/// Memory for cached pages. The database's own default, a gigabyte, is under-counted several times.
const CACHE_BYTES: u64 = 32 * 1_024 * 1_024;

/// How often the database flushes by itself. Every step of ours flushes anyway.
const FLUSH_EVERY_MS: u64 = 500;

/// Tries to open a database that an ended process or a dropped handle has not let go of yet: two seconds of them.
const LOCK_TRIES: u32 = 40;
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// Blocks looked at below a damaged tip to find a sound one. Damage is local; beyond this it has no use to go on.
const WALK_BACK_MAX: u64 = 1_000;

/// How to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Whether damaged parts may be moved aside. A command that only looks leaves all where it is.
    pub repair: bool,
    /// Memory for cached pages.
    pub cache_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions { repair: true, cache_bytes: CACHE_BYTES }
    }
}

/// What was done to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// What a killed process left half written and was removed: snapshots, settings of a database that was not begun.
    pub half_written_removed: Vec<PathBuf>,
    /// Damaged caches, by their new place. All data came back without them.
    pub caches_moved: Vec<PathBuf>,
    /// Whether the chain was begun.
    pub is_new: bool,
}

type Genesis<'g> = (&'g GenesisBlock, &'g StateChanges);

pub(super) fn open(
    path: &Path,
    genesis: Option<Genesis<'_>>,
    options: OpenOptions,
) -> Result<(SledStore, OpenReport), StoreError> {
    match genesis {
        Some(_) => folder::create(path)?,
        None if !folder::database(path).exists() => {
            return Err(StoreError::Empty { path: path.to_owned() });
        }
        None => {}
    }
    let mut report = OpenReport::default();
    let (tables, witnessed) = tables(path, options, &mut report)?;
    let ledger = match (Ledger::existing(tables)?, genesis) {
        (Found::Chain(ledger), genesis) => {
            check_chain(path, &ledger, genesis)?;
            check_witness(path, &ledger, witnessed)?;
            check_tip(path, &ledger)?;
            *ledger
        }
        (Found::Nothing(_), _) if witnessed.is_some() => {
            let committed = witnessed.map_or(Height::ZERO, |(height, _)| height);
            return Err(StoreError::RolledBack { path: path.to_owned(), found: Height::ZERO, committed });
        }
        (Found::Nothing(tables), Some((genesis, initial))) => {
            report.is_new = true;
            Ledger::create(tables, genesis, initial)?
        }
        (Found::Nothing(_), None) => {
            return Err(StoreError::Empty { path: path.to_owned() });
        }
    };
    Ok((ledger, report))
}

/// Tables in a folder that holds no chain, to be filled with a state.
pub(super) fn restore(path: &Path, options: OpenOptions) -> Result<Restoring<SledTables>, StoreError> {
    folder::create(path)?;
    let (tables, _) = tables(path, options, &mut OpenReport::default())?;
    match Ledger::existing(tables)? {
        Found::Nothing(tables) => Ok(Restoring::new(tables)),
        Found::Chain(ledger) => {
            Err(StoreError::NotEmpty { path: path.to_owned(), chain: Box::new(ledger.chain().clone()) })
        }
    }
}

/// Takes the folder, opens its database, and says what had been committed.
fn tables(
    path: &Path,
    options: OpenOptions,
    report: &mut OpenReport,
) -> Result<(SledTables, Option<(Height, BlockHash)>), StoreError> {
    let lock = FolderLock::take(path)?;
    folder::check_format(path)?;
    report.half_written_removed = folder::remove_half_written(path)?;
    let database = open_database(path, options, report)?;
    let (witness, witnessed) = Witness::open(path)?;
    let tables = SledTables {
        opened: Mutex::new(Some(Arc::new(opened(path, database)?))),
        path: path.to_owned(),
        options,
        witness: Mutex::new(witness),
        _lock: lock,
    };
    Ok((tables, witnessed))
}

/// Opens the database; where it is damaged, once more without its caches; and if that fails too, moves it aside.
fn open_database(path: &Path, options: OpenOptions, report: &mut OpenReport) -> Result<::sled::Db, StoreError> {
    let reason = match try_database(path, options) {
        Err(StoreError::Database { reason, .. }) => reason,
        other => return other,
    };
    let committed = Witness::peek(path)?.map_or(Height::ZERO, |(height, _)| height);
    if !options.repair {
        return Err(StoreError::Unreadable { path: path.to_owned(), committed, reason });
    }
    report.caches_moved = folder::move_caches_aside(path)?;
    match try_database(path, options) {
        Err(StoreError::Database { reason, .. }) => {
            let moved_to = folder::move_database_aside(path)?;
            Err(StoreError::MovedAside { moved_to, committed, reason })
        }
        other => other,
    }
}

fn try_database(path: &Path, options: OpenOptions) -> Result<::sled::Db, StoreError> {
    let inside = folder::database(path);
    let config =
        ::sled::Config::new().path(&inside).cache_capacity(options.cache_bytes).flush_every_ms(Some(FLUSH_EVERY_MS));
    for _ in 0..LOCK_TRIES {
        match guard("open", &inside, || config.open()) {
            Err(StoreError::Database { reason, .. }) if reason.contains("could not acquire lock") => {
                std::thread::sleep(LOCK_WAIT);
            }
            other => return other,
        }
    }
    Err(StoreError::Locked { path: inside, pid: None })
}

fn opened(path: &Path, database: ::sled::Db) -> Result<Opened, StoreError> {
    let inside = folder::database(path);
    let trees = guard("open", &inside, || Tree::ALL.iter().map(|tree| database.open_tree(tree.name())).collect())?;
    let name = inside.join("db");
    let file = File::open(&name).map_err(|fault| io_error("open", &name, &fault))?;
    folder::sync(&inside).and_then(|()| folder::sync(path)).map_err(|fault| io_error("sync", path, &fault))?;
    Ok(Opened { trees, database, file })
}

/// Opens the database of a store that is open, after a failed write. Nothing is repaired.
pub(super) fn reopen(path: &Path, options: OpenOptions) -> Result<Opened, StoreError> {
    opened(path, try_database(path, options)?)
}

fn check_chain(path: &Path, store: &SledStore, genesis: Option<Genesis<'_>>) -> Result<(), StoreError> {
    let found = store.chain();
    match genesis {
        Some((genesis, _)) if genesis.hash() != found.genesis_hash => {
            let chain_id = genesis.header().chain_id.clone();
            let expected = StoredChain { chain_id, genesis_hash: genesis.hash() };
            Err(StoreError::OtherChain {
                path: path.to_owned(),
                found: Box::new(found.clone()),
                expected: Box::new(expected),
            })
        }
        _ => Ok(()),
    }
}

/// Whether all that was committed is there.
fn check_witness(path: &Path, store: &SledStore, witnessed: Option<(Height, BlockHash)>) -> Result<(), StoreError> {
    let tip = store.tip()?;
    match witnessed {
        Some((committed, _)) if committed > tip.height => {
            Err(StoreError::RolledBack { path: path.to_owned(), found: tip.height, committed })
        }
        _ => Ok(()),
    }
}

/// Whether the last block is whole; if not, which is the last that is.
fn check_tip(path: &Path, store: &SledStore) -> Result<(), StoreError> {
    let tip = store.tip()?;
    let is_sound = |height| verify_block(store, height, LinkRules::default());
    let fault = match is_sound(tip.height) {
        Ok(header) if header.hash() == tip.hash => return Ok(()),
        Ok(header) => format!("its hash is {}, the tip says {}", header.hash(), tip.hash),
        Err(fault) => fault.to_string(),
    };
    let lowest = tip.height.get().saturating_sub(WALK_BACK_MAX);
    let below = (lowest..tip.height.get()).rev().map(Height::new);
    let sound = below.into_iter().find(|height| is_sound(*height).is_ok());
    Err(StoreError::TipDamaged { path: path.to_owned(), height: tip.height, fault, sound })
}
