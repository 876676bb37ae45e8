//! Why the store refuses, and what to do about it.

use std::path::PathBuf;

use crate::ids::{BlockHash, ChainId, Digest, RecordId};
use crate::store::StoredChain;
use crate::units::Height;

/// Why the store refuses. Errors of opening name the folder and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// One process per folder.
    #[error("{path} is in use by another process{}; stop it, or name another --data-dir", holder(.pid))]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The other process, if it left its number.
        pid: Option<u32>,
    },
    /// The system does not let us write there.
    #[error("cannot write in {path}: {reason}; make it writable for this user, or name another --data-dir")]
    NotWritable {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// No room left.
    #[error("no room left to write {path}: {reason}; free some space and start again, nothing acknowledged is lost")]
    DiskFull {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file system refused for another reason.
    #[error("cannot {action} {path}: {reason}; check the disk")]
    Io {
        /// What was tried.
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// An older program wrote it, with other blocks.
    #[error(
        "{path} was written by an older version (format {found}, this one has {known}); keep it for that version, and name another --data-dir"
    )]
    OlderFormat {
        /// The folder.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Format known.
        known: u32,
    },
    /// A newer program wrote it.
    #[error("{path} has store format {found}, this program knows {known}; use the newer program that wrote it")]
    NewerFormat {
        /// The folder.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Format known.
        known: u32,
    },
    /// It holds another chain.
    #[error(
        "{path} holds chain {found}, the genesis file is of {expected}; use its own genesis file, or name another --data-dir"
    )]
    OtherChain {
        /// The folder.
        path: PathBuf,
        /// Chain in the store.
        found: Box<StoredChain>,
        /// Chain asked for.
        expected: Box<StoredChain>,
    },
    /// The database forgot blocks that were committed: its log is damaged, and everything behind the damage is gone.
    #[error(
        "the database ends at height {found}, but all up to height {committed} was committed: its log is damaged; restore \
         {path} from a copy, or move it away and start again from genesis"
    )]
    RolledBack {
        /// The folder.
        path: PathBuf,
        /// Where the database ends.
        found: Height,
        /// What was committed.
        committed: Height,
    },
    /// The last block in the database is not whole.
    #[error(
        "the last block is damaged (height {height}: {fault}); {}; restore {path} from a copy, or move it away and start \
         again from genesis", sound_at(.sound)
    )]
    TipDamaged {
        /// The folder.
        path: PathBuf,
        /// Height of the damage.
        height: Height,
        /// What is wrong.
        fault: String,
        /// Last block that verifies, if one was found.
        sound: Option<Height>,
    },
    /// There is a chain where none may be.
    #[error("{path} holds chain {chain} already; a snapshot begins a new folder")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// Chain in the store.
        chain: Box<StoredChain>,
    },
    /// There is no chain.
    #[error("{path} holds no chain; start the node once, or name another --data-dir")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The database cannot be opened, and nothing was moved.
    #[error(
        "the database in {path}, which had committed height {committed}, cannot be opened: {reason}; start the node to \
         let it try without its caches, or restore the folder from a copy"
    )]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// Last height known to be committed.
        committed: Height,
        /// What is wrong.
        reason: String,
    },
    /// The database cannot be opened, and was moved aside whole.
    #[error(
        "the database, which had committed height {committed}, cannot be opened: {reason}; it was moved to {moved_to}; \
         restore a copy, or start again to begin from genesis"
    )]
    MovedAside {
        /// Where it is now.
        moved_to: PathBuf,
        /// Last height known to be committed.
        committed: Height,
        /// What is wrong.
        reason: String,
    },
    /// A value is not what was written.
    #[error("stored value {place} is damaged: {reason}; run `aria ledger verify` to see what else is")]
    Damaged {
        /// Tree and key.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The database itself failed.
    #[error("the database failed to {action}: {reason}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// After a failed write nothing more is written until a restart.
    #[error("the store does not write any more since a failure ({reason}); repair the cause and start again")]
    Stopped {
        /// The failure.
        reason: String,
    },
    /// Blocks come one by one.
    #[error("block has height {got}, the next one is {expected}")]
    NotNext {
        /// As the header says.
        got: Height,
        /// As it must be.
        expected: Height,
    },
    /// A block stands on the tip.
    #[error("block names parent {got}, the tip is {expected}")]
    OtherParent {
        /// As the header says.
        got: BlockHash,
        /// As it must be.
        expected: BlockHash,
    },
    /// A block belongs to the chain of the store.
    #[error("block is for chain {got}, the store holds {expected}")]
    ForeignBlock {
        /// As the header says.
        got: ChainId,
        /// As it must be.
        expected: ChainId,
    },
    /// A block is executed on the state after the tip.
    #[error("block names state {got}, the state after the tip is {expected}")]
    OtherState {
        /// As the header says.
        got: Digest,
        /// As it must be.
        expected: Digest,
    },
    /// A record is in one block only.
    #[error("record {record} is in a block already")]
    RecordTwice {
        /// The record.
        record: RecordId,
    },
    /// Only records that are there change their status.
    #[error("record {record} changes its status, but is in no block")]
    UnknownRecord {
        /// The record.
        record: RecordId,
    },
    /// Keys and values of the state are bounded.
    #[error("state entry has a {part} of {got} bytes, at most {max} are allowed")]
    StateTooLong {
        /// Key or value.
        part: &'static str,
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
}

impl StoreError {
    /// Whether the store itself failed, rather than refused what it was given. After one nothing is written any more.
    pub fn is_failure(&self) -> bool {
        match self {
            StoreError::NotWritable { .. }
            | StoreError::DiskFull { .. }
            | StoreError::Io { .. }
            | StoreError::Damaged { .. }
            | StoreError::Database { .. } => true,
            StoreError::Locked { .. }
            | StoreError::NewerFormat { .. }
            | StoreError::OlderFormat { .. }
            | StoreError::OtherChain { .. }
            | StoreError::RolledBack { .. }
            | StoreError::TipDamaged { .. }
            | StoreError::Empty { .. }
            | StoreError::NotEmpty { .. }
            | StoreError::Unreadable { .. }
            | StoreError::MovedAside { .. }
            | StoreError::Stopped { .. }
            | StoreError::NotNext { .. }
            | StoreError::OtherParent { .. }
            | StoreError::ForeignBlock { .. }
            | StoreError::OtherState { .. }
            | StoreError::RecordTwice { .. }
            | StoreError::UnknownRecord { .. }
            | StoreError::StateTooLong { .. } => false,
        }
    }
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or(String::new(), |pid| format!(" (process {pid})"))
}

fn sound_at(sound: &Option<Height>) -> String {
    sound.map_or_else(
        || "no sound one was found below".to_owned(),
        |height| format!("height {height} is the last sound one"),
    )
}

/// Whether the store can still write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Writing,
    /// A write failed. Reads go on; nothing is written until a restart.
    ReadOnly {
        /// The failure.
        reason: String,
    },
}
