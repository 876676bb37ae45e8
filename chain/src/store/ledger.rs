//! All that both stores do alike: what a commit writes, how records are found. Below it are plain tables.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use borsh::BorshDeserialize;

use super::error::{Health, StoreError};
use super::schema::{self, Place, Tree, Writes, damaged};
use super::{
    Cursor, Order, Page, Pending, RecordFilter, RecordPage, StateChanges, StateEntry, Store, StoredBlock, StoredChain,
    Tip,
};
use crate::block::{Body, FinalBlock, GenesisBlock, Header};
use crate::certificate::{CommitCertificate, ValidatorSet};
use crate::codec::Versioned;
use crate::evidence::Evidence;
use crate::ids::{BlockHash, ChainId, Digest, RecordId, TransactionId};
use crate::limits::{PAGE_RECORDS_MAX, STATE_SCAN_MAX};
use crate::proof::{SignedProof, VerifiedProof};
use crate::record::{RecordEntry, RecordStatus};
use crate::transaction::{SignedTransaction, VerifiedTransaction};
use crate::units::Height;

mod listing;
mod restore;
mod writing;

pub use restore::{Restoring, Start};

use writing::{
    Lists, tip_of, write_attestations, write_audits, write_certificate, write_evidence, write_header, write_set,
    write_state, write_transactions,
};

/// Receives keys and values of a scan in order; returns whether to go on.
pub(super) type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'v;

/// Ordered tables with one durable step: what a store is made of. Values are as [`schema::wrap`] made them.
pub trait Tables: Send + Sync {
    /// The value of a key.
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits all keys between two bounds.
    fn scan(
        &self,
        tree: Tree,
        low: Bound<&[u8]>,
        high: Bound<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;

    /// Writes all or nothing, and has it on disk when it returns. `tip` is the new last block, where there is one.
    fn apply(&self, writes: Writes, tip: Option<&Tip>) -> Result<(), StoreError>;
}

/// A store over tables.
pub struct Ledger<T> {
    tables: T,
    chain: StoredChain,
    base: Height,
    /// The last block that is known to be on disk. Readers see nothing above it.
    tip: RwLock<Tip>,
    health: Mutex<Health>,
    /// Held while writing: there is one writer. Number of the next proof to arrive.
    next_arrival: Mutex<u64>,
}

/// What tables hold.
pub(super) enum Found<T> {
    /// A chain.
    Chain(Box<Ledger<T>>),
    /// No chain yet.
    Nothing(T),
}

impl<T: Tables> Ledger<T> {
    /// Opens tables that hold a chain, or gives them back if they hold none.
    pub(super) fn existing(tables: T) -> Result<Found<T>, StoreError> {
        let Some(tip) = read::<Tip, T>(&tables, Tree::Meta, schema::TIP)? else {
            return Ok(Found::Nothing(tables));
        };
        let chain = read::<(ChainId, BlockHash), T>(&tables, Tree::Meta, schema::CHAIN)?;
        let Some((chain_id, genesis_hash)) = chain else {
            return Err(damaged(Tree::Meta, schema::CHAIN, "it is missing"));
        };
        Ledger::over(tables, StoredChain { chain_id, genesis_hash }, tip).map(|ledger| Found::Chain(Box::new(ledger)))
    }

    /// Writes the first block into empty tables.
    pub(super) fn create(tables: T, genesis: &GenesisBlock, initial: &StateChanges) -> Result<Ledger<T>, StoreError> {
        let header = genesis.header();
        let chain = StoredChain { chain_id: header.chain_id.clone(), genesis_hash: genesis.hash() };
        let tip = tip_of(header, genesis.hash(), initial);
        if initial.state_root != header.state_root {
            return Err(StoreError::OtherState { got: header.state_root, expected: initial.state_root });
        }
        let mut writes = Writes::default();
        write_header(&mut writes, header, &genesis.hash());
        write_state(&mut writes, &initial.entries)?;
        write_set(&mut writes, genesis.validators());
        writes.put_borsh(Tree::Meta, schema::CHAIN.to_vec(), &(&chain.chain_id, &chain.genesis_hash));
        writes.put_borsh(Tree::Meta, schema::TIP.to_vec(), &tip);
        tables.apply(writes, Some(&tip))?;
        Ledger::over(tables, chain, tip)
    }

    fn over(tables: T, chain: StoredChain, tip: Tip) -> Result<Ledger<T>, StoreError> {
        let base = read::<Height, T>(&tables, Tree::Meta, schema::BASE)?.unwrap_or(Height::ZERO);
        let ledger = Ledger {
            tables,
            chain,
            base,
            tip: RwLock::new(tip),
            health: Mutex::new(Health::Writing),
            next_arrival: Mutex::new(0),
        };
        let last = ledger.last_arrival(Tree::Pending)?.max(ledger.last_arrival(Tree::PendingTransactions)?);
        *lock(&ledger.next_arrival) = last.map_or(0, |arrival| arrival + 1);
        Ok(ledger)
    }

    fn tip_now(&self) -> Tip {
        *self.tip.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_final(&self, height: Height) -> bool {
        height <= self.tip_now().height
    }

    /// Whether the block at a height was never here, because this store began above it.
    fn is_below_base(&self, height: Height) -> bool {
        height < self.base && height != Height::ZERO
    }

    fn read<V: BorshDeserialize>(&self, tree: Tree, key: &[u8]) -> Result<Option<V>, StoreError> {
        read(&self.tables, tree, key)
    }

    fn decode<V: Versioned>(&self, tree: Tree, key: &[u8]) -> Result<Option<V>, StoreError> {
        let Some(value) = self.tables.get(tree, key)? else {
            return Ok(None);
        };
        let payload = schema::unwrap(tree, key, &value)?;
        V::decode(payload).map(Some).map_err(|fault| damaged(tree, key, &fault.to_string()))
    }

    /// Where a record stands, if its block is final.
    fn place(&self, id: &RecordId) -> Result<Option<Place>, StoreError> {
        let place = self.read::<Place>(Tree::Records, id.as_bytes())?;
        Ok(place.filter(|place| self.is_final(place.height)))
    }

    fn proof_at(&self, height: Height, index: u32) -> Result<SignedProof, StoreError> {
        self.at(Tree::Proofs, height, index)
    }

    /// What stands at a place of a tree by height and index.
    fn at<V: Versioned>(&self, tree: Tree, height: Height, index: u32) -> Result<V, StoreError> {
        let key = schema::place_key(height, index);
        self.decode(tree, &key)?.ok_or_else(|| damaged(tree, &key, "it is missing"))
    }

    /// All of a tree by height and index that stand in the block at a height, which has `count` of them.
    fn all_at<V: Versioned>(&self, tree: Tree, height: Height, count: u32) -> Result<Vec<V>, StoreError> {
        (0..count).map(|index| self.at(tree, height, index)).collect()
    }

    /// Up to `limit` values of such a tree with their places, the newest first, older than `before`.
    fn newest<V: Versioned>(
        &self,
        tree: Tree,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Vec<(Cursor, V)>, StoreError> {
        let high = before.map(|place| schema::place_key(place.height, place.index));
        let high = high.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()));
        let mut found = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            let bad = |reason: &str| damaged(tree, key, reason);
            let (height, index) = schema::place_of(key).ok_or_else(|| bad("its key is no place"))?;
            if self.is_final(height) {
                let payload = schema::unwrap(tree, key, value)?;
                found.push((Cursor { height, index }, V::decode(payload).map_err(|fault| bad(&fault.to_string()))?));
            }
            Ok(found.len() < limit.min(PAGE_RECORDS_MAX))
        };
        self.tables.scan(tree, Bound::Unbounded, high, Order::Descending, &mut visit)?;
        Ok(found)
    }

    /// Number of the last arrival in a tree of what waits.
    fn last_arrival(&self, tree: Tree) -> Result<Option<u64>, StoreError> {
        let mut last = None;
        self.scan_all(tree, |key, payload| {
            let arrival = payload.first_chunk().ok_or_else(|| damaged(tree, key, "it is too short"))?;
            last = last.max(Some(u64::from_be_bytes(*arrival)));
            Ok(())
        })?;
        Ok(last)
    }

    /// What waits in a tree, in the order of arrival.
    fn waiting<V: Versioned>(&self, tree: Tree) -> Result<Vec<V>, StoreError> {
        let mut waiting = BTreeMap::new();
        self.scan_all(tree, |key, payload| {
            let bad = |reason: &str| damaged(tree, key, reason);
            let (arrival, value) = payload.split_first_chunk().ok_or_else(|| bad("it is too short"))?;
            let value = V::decode(value).map_err(|fault| bad(&fault.to_string()))?;
            waiting.insert(u64::from_be_bytes(*arrival), value);
            Ok(())
        })?;
        Ok(waiting.into_values().collect())
    }

    /// Makes a value wait, unless it waits already or `is_final` says that a block has it.
    fn wait<V: Versioned>(
        &self,
        tree: Tree,
        id: &[u8; 32],
        value: &V,
        is_final: impl FnOnce() -> Result<bool, StoreError>,
    ) -> Result<Pending, StoreError> {
        self.step(|next_arrival| {
            if is_final()? {
                return Ok(Pending::Final);
            }
            if self.tables.get(tree, id)?.is_some() {
                return Ok(Pending::Known);
            }
            let payload = [&next_arrival.to_be_bytes()[..], &value.encode()].concat();
            let mut writes = Writes::default();
            writes.put(tree, id.to_vec(), &payload);
            self.tables.apply(writes, None)?;
            *next_arrival += 1;
            Ok(Pending::Added)
        })
    }

    fn wait_no_more<'i>(&self, tree: Tree, ids: impl Iterator<Item = &'i [u8; 32]>) -> Result<(), StoreError> {
        self.step(|_| {
            let mut writes = Writes::default();
            ids.for_each(|id| writes.remove(tree, id.to_vec()));
            self.tables.apply(writes, None)
        })
    }

    fn scan_all(
        &self,
        tree: Tree,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut visit = |key: &[u8], value: &[u8]| {
            each(key, schema::unwrap(tree, key, value)?)?;
            Ok(true)
        };
        self.tables.scan(tree, Bound::Unbounded, Bound::Unbounded, Order::Ascending, &mut visit)
    }

    /// Takes the writer's turn. If the step fails below, nothing is written any more.
    fn step<R>(&self, call: impl FnOnce(&mut u64) -> Result<R, StoreError>) -> Result<R, StoreError> {
        let mut next_arrival = lock(&self.next_arrival);
        if let Health::ReadOnly { reason } = &*lock(&self.health) {
            return Err(StoreError::Stopped { reason: reason.clone() });
        }
        let result = call(&mut next_arrival);
        if let Err(fault) = &result
            && fault.is_failure()
        {
            *lock(&self.health) = Health::ReadOnly { reason: fault.to_string() };
        }
        result
    }
}

impl<T: Tables> Store for Ledger<T> {
    fn chain(&self) -> &StoredChain {
        &self.chain
    }

    fn base(&self) -> Height {
        self.base
    }

    fn tip(&self) -> Result<Tip, StoreError> {
        Ok(self.tip_now())
    }

    fn header(&self, height: Height) -> Result<Option<Header>, StoreError> {
        if !self.is_final(height) {
            return Ok(None);
        }
        let key = schema::block_key(height);
        let header = self.decode::<Header>(Tree::Headers, &key)?;
        match header {
            Some(header) if header.height == height => Ok(Some(header)),
            Some(header) => Err(damaged(Tree::Headers, &key, &format!("it has height {}", header.height))),
            None if self.is_below_base(height) => Ok(None),
            None => Err(damaged(Tree::Headers, &key, "it is missing")),
        }
    }

    fn block(&self, height: Height) -> Result<Option<StoredBlock>, StoreError> {
        if self.is_below_base(height) {
            return Ok(None);
        }
        let Some(header) = self.header(height)? else {
            return Ok(None);
        };
        let body = Body {
            evidence: self.all_at(Tree::Evidence, height, header.evidence_count)?,
            transactions: self.all_at(Tree::Transactions, height, header.transaction_count)?,
            attestations: self.all_at(Tree::Attestations, height, header.attestation_count)?,
            proofs: self.all_at(Tree::Proofs, height, header.record_count)?,
        };
        let certificate = self.certificate(height)?;
        Ok(Some(StoredBlock { hash: header.hash(), header, body, certificate }))
    }

    fn height_of(&self, hash: &BlockHash) -> Result<Option<Height>, StoreError> {
        let height = self.read::<Height>(Tree::Hashes, hash.as_bytes())?;
        Ok(height.filter(|height| self.is_final(*height)))
    }

    fn certificate(&self, height: Height) -> Result<Option<CommitCertificate>, StoreError> {
        if height == Height::ZERO || !self.is_final(height) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        for piece in 0.. {
            let key = schema::piece_key(height, piece);
            let Some(value) = self.tables.get(Tree::Certificates, &key)? else {
                break;
            };
            bytes.extend_from_slice(schema::unwrap(Tree::Certificates, &key, &value)?);
            if bytes.len() > CommitCertificate::BYTES_MAX {
                break;
            }
        }
        let key = schema::block_key(height);
        if bytes.is_empty() {
            if self.is_below_base(height) {
                return Ok(None);
            }
            return Err(damaged(Tree::Certificates, &key, "it is missing"));
        }
        CommitCertificate::decode(&bytes)
            .map(Some)
            .map_err(|fault| damaged(Tree::Certificates, &key, &fault.to_string()))
    }

    fn validators(&self, hash: &Digest) -> Result<Option<ValidatorSet>, StoreError> {
        self.decode(Tree::Validators, hash.as_bytes())
    }

    fn record(&self, id: &RecordId) -> Result<Option<RecordEntry>, StoreError> {
        let Some(place) = self.place(id)? else {
            return Ok(None);
        };
        let record = self.proof_at(place.height, place.index)?.record;
        if record.id() != *id {
            return Err(damaged(Tree::Records, id.as_bytes(), "another record stands in its place"));
        }
        let Place { height, index, status } = place;
        Ok(Some(RecordEntry { id: *id, record, status, height, index }))
    }

    fn proof(&self, id: &RecordId) -> Result<Option<SignedProof>, StoreError> {
        self.place(id)?.map(|place| self.proof_at(place.height, place.index)).transpose()
    }

    fn record_ids(&self, height: Height) -> Result<Vec<RecordId>, StoreError> {
        if self.is_below_base(height) {
            return Ok(Vec::new());
        }
        let count = self.header(height)?.map_or(0, |header| header.record_count);
        (0..count).map(|index| Ok(self.proof_at(height, index)?.record.id())).collect()
    }

    fn records(&self, filter: &RecordFilter, page: &Page) -> Result<RecordPage, StoreError> {
        listing::records(self, filter, page)
    }

    fn evidence(&self, before: Option<Cursor>, limit: usize) -> Result<Vec<(Cursor, Evidence)>, StoreError> {
        self.newest(Tree::Evidence, before, limit)
    }

    fn transaction(&self, id: &TransactionId) -> Result<Option<(Cursor, SignedTransaction)>, StoreError> {
        let place = self.read::<(Height, u32)>(Tree::TransactionIds, id.as_bytes())?;
        let Some((height, index)) = place.filter(|(height, _)| self.is_final(*height)) else {
            return Ok(None);
        };
        let found: SignedTransaction = self.at(Tree::Transactions, height, index)?;
        if found.transaction.id() != *id {
            return Err(damaged(Tree::TransactionIds, id.as_bytes(), "another transaction stands in its place"));
        }
        Ok(Some((Cursor { height, index }, found)))
    }

    fn audit(&self, record: &RecordId) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(value) = self.tables.get(Tree::Audits, record.as_bytes())? else {
            return Ok(None);
        };
        schema::unwrap(Tree::Audits, record.as_bytes(), &value).map(|payload| Some(payload.to_vec()))
    }

    fn transactions(
        &self,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Vec<(Cursor, SignedTransaction)>, StoreError> {
        self.newest(Tree::Transactions, before, limit)
    }

    fn state(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.tables.get(Tree::State, key)?;
        value.map(|value| Ok(schema::unwrap(Tree::State, key, &value)?.to_vec())).transpose()
    }

    fn state_scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<StateEntry>, StoreError> {
        let limit = limit.min(STATE_SCAN_MAX);
        let low = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut entries = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            if entries.len() >= limit || !key.starts_with(prefix) {
                return Ok(false);
            }
            entries.push((key.to_vec(), schema::unwrap(Tree::State, key, value)?.to_vec()));
            Ok(true)
        };
        self.tables.scan(Tree::State, low, Bound::Unbounded, Order::Ascending, &mut visit)?;
        Ok(entries)
    }

    fn put_pending(&self, proof: &VerifiedProof) -> Result<Pending, StoreError> {
        let id = proof.record_id();
        self.wait(Tree::Pending, id.as_bytes(), proof.proof(), || Ok(self.place(&id)?.is_some()))
    }

    fn pending(&self) -> Result<Vec<SignedProof>, StoreError> {
        self.waiting(Tree::Pending)
    }

    fn drop_pending(&self, records: &[RecordId]) -> Result<(), StoreError> {
        self.wait_no_more(Tree::Pending, records.iter().map(RecordId::as_bytes))
    }

    fn put_pending_transaction(&self, transaction: &VerifiedTransaction) -> Result<Pending, StoreError> {
        let id = transaction.id();
        let is_final = || Ok(self.transaction(&id)?.is_some());
        self.wait(Tree::PendingTransactions, id.as_bytes(), transaction.signed(), is_final)
    }

    fn pending_transactions(&self) -> Result<Vec<SignedTransaction>, StoreError> {
        self.waiting(Tree::PendingTransactions)
    }

    fn drop_pending_transactions(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        self.wait_no_more(Tree::PendingTransactions, ids.iter().map(TransactionId::as_bytes))
    }

    fn put_peers(&self, lines: &[StateEntry]) -> Result<(), StoreError> {
        self.step(|_| {
            let mut writes = Writes::default();
            let mut gone = |key: &[u8], _: &[u8]| {
                writes.remove(Tree::Peers, key.to_vec());
                Ok(true)
            };
            self.tables.scan(Tree::Peers, Bound::Unbounded, Bound::Unbounded, Order::Ascending, &mut gone)?;
            for (key, value) in lines {
                writes.put(Tree::Peers, key.clone(), value);
            }
            self.tables.apply(writes, None)
        })
    }

    fn peers(&self) -> Result<Vec<StateEntry>, StoreError> {
        let mut lines = Vec::new();
        self.scan_all(Tree::Peers, |key, value| {
            lines.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(lines)
    }

    fn commit(&self, block: &FinalBlock, changes: &StateChanges) -> Result<(), StoreError> {
        self.step(|_| {
            let header = block.header();
            self.check_next(header)?;
            let tip = tip_of(header, block.hash(), changes);
            let mut statuses: BTreeMap<RecordId, RecordStatus> = changes.statuses.iter().copied().collect();
            let mut writes = Writes::default();
            write_header(&mut writes, header, &block.hash());
            write_certificate(&mut writes, block.certificate());
            write_evidence(&mut writes, block);
            write_transactions(&mut writes, block);
            write_attestations(&mut writes, block);
            write_audits(&mut writes, &changes.audits)?;
            changes.validators.iter().for_each(|set| write_set(&mut writes, set));
            let mut lists = Lists::default();
            self.write_records(&mut writes, &mut lists, block, &mut statuses)?;
            self.write_statuses(&mut writes, &mut lists, statuses)?;
            lists.write(&mut writes);
            write_state(&mut writes, &changes.entries)?;
            writes.put_borsh(Tree::Meta, schema::TIP.to_vec(), &tip);
            self.tables.apply(writes, Some(&tip))?;
            *self.tip.write().unwrap_or_else(PoisonError::into_inner) = tip;
            Ok(())
        })
    }

    fn health(&self) -> Health {
        lock(&self.health).clone()
    }
}

/// A lock whose holder panicked guards nothing that could be half done: writes are all or nothing.
fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<V: BorshDeserialize, T: Tables>(tables: &T, tree: Tree, key: &[u8]) -> Result<Option<V>, StoreError> {
    let Some(value) = tables.get(tree, key)? else {
        return Ok(None);
    };
    let payload = schema::unwrap(tree, key, &value)?;
    borsh::from_slice(payload).map(Some).map_err(|fault| damaged(tree, key, &fault.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::memory::MemoryTables;
    use super::*;
    use crate::block::{Draft, ProposedBlock, VerifiedBody};
    use crate::certificate::{Validator, Vote};
    use crate::keys::NodeKey;
    use crate::units::{Round, Timestamp};

    /// Tables whose writes or reads can be made to fail.
    #[derive(Default)]
    struct Failing {
        inner: MemoryTables,
        writes_fail: AtomicBool,
        reads_fail: AtomicBool,
    }

    fn failure(action: &'static str) -> StoreError {
        StoreError::Database { action, reason: "a test says so".into() }
    }

    impl Tables for Failing {
        fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            if self.reads_fail.load(Ordering::Relaxed) { Err(failure("read")) } else { self.inner.get(tree, key) }
        }

        fn scan(
            &self,
            tree: Tree,
            low: Bound<&[u8]>,
            high: Bound<&[u8]>,
            order: Order,
            visit: &mut Visit<'_>,
        ) -> Result<(), StoreError> {
            self.inner.scan(tree, low, high, order, visit)
        }

        fn apply(&self, writes: Writes, tip: Option<&Tip>) -> Result<(), StoreError> {
            // As a disk may: all of it is written, and the call fails.
            self.inner.apply(writes, tip)?;
            if self.writes_fail.load(Ordering::Relaxed) { Err(failure("write")) } else { Ok(()) }
        }
    }

    fn ledger() -> (Ledger<Failing>, FinalBlock, StateChanges) {
        let key = NodeKey::from_seed(&[1; 32]);
        let set = ValidatorSet::new(vec![Validator { node_id: key.node_id(), power: 1 }]).unwrap();
        let chain_id = ChainId::new("test").unwrap();
        let genesis = GenesisBlock::new(chain_id.clone(), Timestamp::ZERO, set.clone(), Digest::ZERO);
        let ledger = Ledger::create(Failing::default(), &genesis, &StateChanges::default()).unwrap();
        let draft = Draft {
            chain_id: chain_id.clone(),
            height: Height::new(1),
            round: Round::ZERO,
            timestamp_ms: Timestamp::new(1),
            parent: genesis.hash(),
            proposer: key.node_id(),
            state_root: Digest::ZERO,
            validators_hash: set.hash(),
            next_validators_hash: set.hash(),
            vrf: crate::keys::VrfProof::NONE,
        };
        let block = ProposedBlock::seal(draft, VerifiedBody::default(), 0).unwrap();
        let vote = Vote::sign(&key, &chain_id, Height::new(1), Round::ZERO, block.hash());
        let certificate = CommitCertificate::gather(vote.height, vote.round, block.hash(), &[vote]);
        (ledger, FinalBlock::new(block, certificate, &set).unwrap(), StateChanges::default())
    }

    #[test]
    fn a_failed_write_stops_all_further_writes_and_shows_nothing() {
        let (ledger, block, changes) = ledger();
        ledger.tables.writes_fail.store(true, Ordering::Relaxed);
        assert_eq!(ledger.commit(&block, &changes), Err(failure("write")));
        assert_eq!(ledger.tip().unwrap().height, Height::ZERO);
        assert_eq!(ledger.header(Height::new(1)), Ok(None));
        assert_eq!(ledger.height_of(&block.hash()), Ok(None));
        ledger.tables.writes_fail.store(false, Ordering::Relaxed);
        let reason = failure("write").to_string();
        assert_eq!(ledger.health(), Health::ReadOnly { reason: reason.clone() });
        assert_eq!(ledger.commit(&block, &changes), Err(StoreError::Stopped { reason: reason.clone() }));
        assert_eq!(ledger.drop_pending(&[]), Err(StoreError::Stopped { reason }));
        assert_eq!(ledger.header(Height::ZERO).map(|header| header.is_some()), Ok(true));
    }

    #[test]
    fn a_failed_read_harms_nobody_but_its_reader() {
        let (ledger, block, changes) = ledger();
        ledger.tables.reads_fail.store(true, Ordering::Relaxed);
        assert_eq!(ledger.header(Height::ZERO), Err(failure("read")));
        assert_eq!(ledger.health(), Health::Writing, "a reader harms nobody");
        ledger.tables.reads_fail.store(false, Ordering::Relaxed);
        assert_eq!(ledger.commit(&block, &changes), Ok(()));
        assert_eq!(ledger.tip().unwrap().height, Height::new(1));
    }
}
