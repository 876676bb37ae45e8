//! Final blocks, state and waiting proofs at rest: the trait, and what it hands out. `docs/state.md` draws every byte.
//!
//! One commit is one durable step: block, certificate, state, indexes, tip, and the waiting proofs that it includes. There
//! is one writer; readers take the tip once and then read by height.

use std::fmt;
use std::str::FromStr;

use crate::block::{Body, FinalBlock, Header};
use crate::certificate::{CommitCertificate, ValidatorSet};
use crate::evidence::Evidence;
use crate::ids::{BlockHash, ChainId, Digest, ModelId, NodeId, RecordId, TransactionId};
use crate::limits::PAGE_RECORDS_MAX;
use crate::proof::{SignedProof, VerifiedProof};
use crate::record::{RecordEntry, RecordStatus};
use crate::transaction::{SignedTransaction, VerifiedTransaction};
use crate::units::{Height, Timestamp};

mod error;
mod ledger;
pub mod memory;
pub mod schema;
pub mod sled;
mod verify;

pub use error::{Health, StoreError};
pub use ledger::{Ledger, Restoring, Start, Tables};
pub use memory::MemoryStore;
pub use sled::{OpenOptions, OpenReport, SledStore, SledTables};
pub use verify::{ChainFault, FaultKind, LinkRules, verify_chain_links};

/// What a block changes, as runtime found by executing it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateChanges {
    /// State entries to write, or to remove where the value is `None`. A key appears once.
    pub entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// New statuses of records, of this block or of earlier ones. A record of this block that is not named is
    /// `included`.
    pub statuses: Vec<(RecordId, RecordStatus)>,
    /// How audits ended, in runtime's words.
    pub audits: Vec<(RecordId, Vec<u8>)>,
    /// A validator set that headers will name from now on.
    pub validators: Option<ValidatorSet>,
    /// Root of the state after these changes; the next header must name it.
    pub state_root: Digest,
}

/// The last final block, and the state after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub struct Tip {
    /// Its height.
    pub height: Height,
    /// Its hash.
    pub hash: BlockHash,
    /// Its timestamp.
    pub timestamp_ms: Timestamp,
    /// Root of the state after it.
    pub state_root: Digest,
}

/// Which chain a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChain {
    /// Name of the chain.
    pub chain_id: ChainId,
    /// Hash of its first block.
    pub genesis_hash: BlockHash,
}

impl fmt::Display for StoredChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (genesis {})", self.chain_id, self.genesis_hash)
    }
}

/// A block as it rests. It was final when it was stored; [`verify_chain_links`] checks that again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlock {
    /// Its header.
    pub header: Header,
    /// Its hash, computed from the header just read.
    pub hash: BlockHash,
    /// Its evidence and proofs.
    pub body: Body,
    /// What made it final; nothing for genesis.
    pub certificate: Option<CommitCertificate>,
}

/// Which records to list. Every field that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Records with a stage of this node.
    pub node: Option<NodeId>,
    /// Records of this model.
    pub model: Option<ModelId>,
    /// Records in this state.
    pub status: Option<RecordStatus>,
    /// Records in blocks from this height on.
    pub from: Option<Height>,
    /// Records in blocks up to this height, itself included.
    pub to: Option<Height>,
}

/// In which order to list records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The newest first.
    #[default]
    Descending,
    /// The oldest first.
    Ascending,
}

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Most records wanted; more than [`PAGE_RECORDS_MAX`] counts as that, zero as one.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// In which order.
    pub order: Order,
}

impl Default for Page {
    fn default() -> Page {
        Page { limit: PAGE_RECORDS_MAX, after: None, order: Order::default() }
    }
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordPage {
    /// Its records. Fewer than asked for does not mean the end: only a missing cursor does.
    pub records: Vec<RecordEntry>,
    /// Where the next page begins; `None` at the end of the list.
    pub next: Option<Cursor>,
}

/// A place in a list of records. It stays the same place while new blocks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Height of the record there.
    pub height: Height,
    /// Its index in the block.
    pub index: u32,
}

/// Why a text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cursor is not one that this node handed out; start again without it")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:08x}", self.height.get(), self.index)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Cursor, CursorError> {
        let (height, index) = text.split_at_checked(16).ok_or(CursorError)?;
        let height = u64::from_str_radix(height, 16).map_err(|_| CursorError)?;
        let index = u32::from_str_radix(index, 16).map_err(|_| CursorError)?;
        let cursor = Cursor { height: Height::new(height), index };
        if cursor.to_string() == text { Ok(cursor) } else { Err(CursorError) }
    }
}

/// What happened to a proof that was to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// It waits now, and will after a restart.
    Added,
    /// It waited already.
    Known,
    /// It is in a block.
    Final,
}

/// Key and value of a state entry.
pub type StateEntry = (Vec<u8>, Vec<u8>);

/// Where blocks, state and waiting proofs rest. Two implementations: [`SledStore`] and its twin [`MemoryStore`].
///
/// Every call blocks; none may be made from an async task directly.
pub trait Store: Send + Sync {
    /// Which chain it holds.
    fn chain(&self) -> &StoredChain;

    /// The lowest block that it has whole, genesis aside. A store that began with a snapshot has none below it.
    fn base(&self) -> Height;

    /// The last final block.
    fn tip(&self) -> Result<Tip, StoreError>;

    /// Header of the block at a height. Below [`Store::base`] there are only those after which another set votes.
    fn header(&self, height: Height) -> Result<Option<Header>, StoreError>;

    /// The block at a height, whole; none below [`Store::base`].
    fn block(&self, height: Height) -> Result<Option<StoredBlock>, StoreError>;

    /// Height of the block of this hash.
    fn height_of(&self, hash: &BlockHash) -> Result<Option<Height>, StoreError>;

    /// What made the block at a height final; nothing for genesis.
    fn certificate(&self, height: Height) -> Result<Option<CommitCertificate>, StoreError>;

    /// The validator set of this hash.
    fn validators(&self, hash: &Digest) -> Result<Option<ValidatorSet>, StoreError>;

    /// A record with its status and place.
    fn record(&self, id: &RecordId) -> Result<Option<RecordEntry>, StoreError>;

    /// The whole proof of a record.
    fn proof(&self, id: &RecordId) -> Result<Option<SignedProof>, StoreError>;

    /// Ids of the records of the block at a height, in order: what a Merkle proof is built from.
    fn record_ids(&self, height: Height) -> Result<Vec<RecordId>, StoreError>;

    /// Records that match, page by page.
    fn records(&self, filter: &RecordFilter, page: &Page) -> Result<RecordPage, StoreError>;

    /// Up to `limit` pieces of evidence with their places, the newest first, older than `before`. More than
    /// [`PAGE_RECORDS_MAX`] counts as that.
    fn evidence(&self, before: Option<Cursor>, limit: usize) -> Result<Vec<(Cursor, Evidence)>, StoreError>;

    /// A transaction with its place.
    fn transaction(&self, id: &TransactionId) -> Result<Option<(Cursor, SignedTransaction)>, StoreError>;

    /// Up to `limit` transactions with their places, the newest first, older than `before`. More than
    /// [`PAGE_RECORDS_MAX`] counts as that.
    fn transactions(
        &self,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Vec<(Cursor, SignedTransaction)>, StoreError>;

    /// How the audit of a record ended, in runtime's words, once it did.
    fn audit(&self, record: &RecordId) -> Result<Option<Vec<u8>>, StoreError>;

    /// A state entry after the tip.
    fn state(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// State entries whose key has this prefix, ascending, beginning behind `after`; at most `limit`, which is cut to
    /// [`STATE_SCAN_MAX`](crate::limits::STATE_SCAN_MAX).
    fn state_scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<StateEntry>, StoreError>;

    /// Keeps a proof until a block includes it. It is on disk when this returns, so a client may be told.
    fn put_pending(&self, proof: &VerifiedProof) -> Result<Pending, StoreError>;

    /// Proofs that wait, in the order of their arrival. None of them is in a block.
    fn pending(&self) -> Result<Vec<SignedProof>, StoreError>;

    /// Forgets waiting proofs that can never be included. Unknown ids are passed over.
    fn drop_pending(&self, records: &[RecordId]) -> Result<(), StoreError>;

    /// Keeps a transaction until a block includes it. It is on disk when this returns, so a client may be told.
    fn put_pending_transaction(&self, transaction: &VerifiedTransaction) -> Result<Pending, StoreError>;

    /// Transactions that wait, in the order of their arrival. None of them is in a block.
    fn pending_transactions(&self) -> Result<Vec<SignedTransaction>, StoreError>;

    /// Forgets waiting transactions that can never be included. Unknown ids are passed over.
    fn drop_pending_transactions(&self, ids: &[TransactionId]) -> Result<(), StoreError>;

    /// Keeps the node's address book in place of the one before, durably: lines of which only the node knows the meaning.
    fn put_peers(&self, lines: &[StateEntry]) -> Result<(), StoreError>;

    /// The lines of the address book.
    fn peers(&self) -> Result<Vec<StateEntry>, StoreError>;

    /// Adds a final block and what it changes. All of it is on disk when this returns. After an error none of it is
    /// shown, and what a restart will find is either all of it or nothing.
    fn commit(&self, block: &FinalBlock, changes: &StateChanges) -> Result<(), StoreError>;

    /// Whether it can still write. After a failed write it only reads.
    fn health(&self) -> Health;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_has_one_spelling() {
        let cursor = Cursor { height: Height::new(258), index: 7 };
        let text = cursor.to_string();
        assert_eq!(text, "000000000000010200000007");
        assert_eq!(text.parse(), Ok(cursor));
        for bad in ["", "7", &text[1..], &format!("{text}0"), &text.replace('7', "x"), "+00000000000010200000007"] {
            assert_eq!(bad.parse::<Cursor>(), Err(CursorError), "{bad}");
        }
        assert!("é".repeat(12).parse::<Cursor>().is_err());
        assert!("00000000000001020000000A".parse::<Cursor>().is_err());
    }
}
