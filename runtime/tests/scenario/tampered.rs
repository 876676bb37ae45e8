//! A store that hands out something else than it holds: what damage or a rewritten database would look like.

use aria_chain::block::{FinalBlock, Header};
use aria_chain::certificate::{CommitCertificate, ValidatorSet};
use aria_chain::evidence::Evidence;
use aria_chain::ids::{BlockHash, Digest, RecordId, TransactionId};
use aria_chain::proof::{SignedProof, VerifiedProof};
use aria_chain::record::RecordEntry;
use aria_chain::store::{
    Cursor, Health, MemoryStore, Page, Pending, RecordFilter, RecordPage, StateChanges, StateEntry, Store, StoreError,
    StoredBlock, StoredChain, Tip,
};
use aria_chain::transaction::{SignedTransaction, VerifiedTransaction};
use aria_chain::units::Height;

type Change<T> = Box<dyn Fn(T) -> Option<T> + Send + Sync>;

/// A store with three places to tamper with; `None` hides the thing.
pub(crate) struct Tampered {
    pub(crate) inner: MemoryStore,
    pub(crate) block: Change<StoredBlock>,
    pub(crate) record: Change<RecordEntry>,
    pub(crate) entry: Change<StateEntry>,
}

impl Tampered {
    /// An honest store.
    pub(crate) fn new(inner: MemoryStore) -> Tampered {
        Tampered { inner, block: Box::new(Some), record: Box::new(Some), entry: Box::new(Some) }
    }
}

impl Store for Tampered {
    fn base(&self) -> Height {
        self.inner.base()
    }

    fn block(&self, height: Height) -> Result<Option<StoredBlock>, StoreError> {
        Ok(self.inner.block(height)?.and_then(&self.block))
    }

    fn record(&self, id: &RecordId) -> Result<Option<RecordEntry>, StoreError> {
        Ok(self.inner.record(id)?.and_then(&self.record))
    }

    fn state_scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<StateEntry>, StoreError> {
        Ok(self.inner.state_scan(prefix, after, limit)?.into_iter().filter_map(&self.entry).collect())
    }

    fn evidence(&self, before: Option<Cursor>, limit: usize) -> Result<Vec<(Cursor, Evidence)>, StoreError> {
        self.inner.evidence(before, limit)
    }

    fn transaction(&self, id: &TransactionId) -> Result<Option<(Cursor, SignedTransaction)>, StoreError> {
        self.inner.transaction(id)
    }

    fn transactions(
        &self,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Vec<(Cursor, SignedTransaction)>, StoreError> {
        self.inner.transactions(before, limit)
    }

    fn put_pending_transaction(&self, transaction: &VerifiedTransaction) -> Result<Pending, StoreError> {
        self.inner.put_pending_transaction(transaction)
    }

    fn pending_transactions(&self) -> Result<Vec<SignedTransaction>, StoreError> {
        self.inner.pending_transactions()
    }

    fn drop_pending_transactions(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        self.inner.drop_pending_transactions(ids)
    }

    fn put_peers(&self, lines: &[StateEntry]) -> Result<(), StoreError> {
        self.inner.put_peers(lines)
    }

    fn peers(&self) -> Result<Vec<StateEntry>, StoreError> {
        self.inner.peers()
    }

    fn audit(&self, record: &RecordId) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.audit(record)
    }

    fn chain(&self) -> &StoredChain {
        self.inner.chain()
    }

    fn tip(&self) -> Result<Tip, StoreError> {
        self.inner.tip()
    }

    fn header(&self, height: Height) -> Result<Option<Header>, StoreError> {
        self.inner.header(height)
    }

    fn height_of(&self, hash: &BlockHash) -> Result<Option<Height>, StoreError> {
        self.inner.height_of(hash)
    }

    fn certificate(&self, height: Height) -> Result<Option<CommitCertificate>, StoreError> {
        self.inner.certificate(height)
    }

    fn validators(&self, hash: &Digest) -> Result<Option<ValidatorSet>, StoreError> {
        self.inner.validators(hash)
    }

    fn proof(&self, id: &RecordId) -> Result<Option<SignedProof>, StoreError> {
        self.inner.proof(id)
    }

    fn record_ids(&self, height: Height) -> Result<Vec<RecordId>, StoreError> {
        self.inner.record_ids(height)
    }

    fn records(&self, filter: &RecordFilter, page: &Page) -> Result<RecordPage, StoreError> {
        self.inner.records(filter, page)
    }

    fn state(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.state(key)
    }

    fn put_pending(&self, proof: &VerifiedProof) -> Result<Pending, StoreError> {
        self.inner.put_pending(proof)
    }

    fn pending(&self) -> Result<Vec<SignedProof>, StoreError> {
        self.inner.pending()
    }

    fn drop_pending(&self, records: &[RecordId]) -> Result<(), StoreError> {
        self.inner.drop_pending(records)
    }

    fn commit(&self, block: &FinalBlock, changes: &StateChanges) -> Result<(), StoreError> {
        self.inner.commit(block, changes)
    }

    fn health(&self) -> Health {
        self.inner.health()
    }
}
