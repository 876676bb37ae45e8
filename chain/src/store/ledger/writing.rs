//! What a commit writes, and which blocks it takes.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use super::super::error::StoreError;
use super::super::schema::{self, Place, Tree, Writes};
use super::super::{StateChanges, Tip};
use super::{Ledger, Tables};
use crate::block::{FinalBlock, Header};
use crate::certificate::{CommitCertificate, ValidatorSet};
use crate::codec::Versioned;
use crate::ids::{BlockHash, RecordId};
use crate::limits::{STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX, STORE_CHUNK_BYTES};
use crate::record::RecordStatus;
use crate::units::Height;

impl<T: Tables> Ledger<T> {
    /// Whether a block stands on the tip of this chain.
    pub(super) fn check_next(&self, header: &Header) -> Result<(), StoreError> {
        let tip = self.tip_now();
        if header.chain_id != self.chain.chain_id {
            return Err(StoreError::ForeignBlock {
                got: header.chain_id.clone(),
                expected: self.chain.chain_id.clone(),
            });
        }
        let expected = Height::new(tip.height.get().saturating_add(1));
        if header.height != expected {
            return Err(StoreError::NotNext { got: header.height, expected });
        }
        if header.parent != tip.hash {
            return Err(StoreError::OtherParent { got: header.parent, expected: tip.hash });
        }
        if header.state_root != tip.state_root {
            return Err(StoreError::OtherState { got: header.state_root, expected: tip.state_root });
        }
        Ok(())
    }

    /// Proofs of a block with their indexes; takes their statuses out of `statuses`.
    pub(super) fn write_records(
        &self,
        writes: &mut Writes,
        lists: &mut Lists,
        block: &FinalBlock,
        statuses: &mut BTreeMap<RecordId, RecordStatus>,
    ) -> Result<(), StoreError> {
        let height = block.header().height;
        for (index, proof) in (0u32..).zip(block.block().proofs()) {
            let id = proof.record_id();
            if self.place(&id)?.is_some() {
                return Err(StoreError::RecordTwice { record: id });
            }
            let status = statuses.remove(&id).unwrap_or(RecordStatus::Included);
            let record = proof.record();
            for stage in &record.stages {
                self.list(lists, Tree::Nodes, schema::node_prefix(&stage.node_id), height)?.insert(index);
            }
            self.list(lists, Tree::Models, schema::model_prefix(&record.model_id), height)?.insert(index);
            self.list(lists, Tree::Statuses, schema::status_prefix(status), height)?.insert(index);
            writes.put(Tree::Proofs, schema::place_key(height, index), &proof.proof().encode());
            writes.put_borsh(Tree::Records, id.as_bytes().to_vec(), &Place { height, index, status });
            writes.remove(Tree::Pending, id.as_bytes().to_vec());
        }
        Ok(())
    }

    /// Statuses of records of earlier blocks.
    pub(super) fn write_statuses(
        &self,
        writes: &mut Writes,
        lists: &mut Lists,
        statuses: BTreeMap<RecordId, RecordStatus>,
    ) -> Result<(), StoreError> {
        for (id, status) in statuses {
            let Some(old) = self.place(&id)? else {
                // A record of before this store began is nobody's to look up here.
                if self.base > Height::ZERO {
                    continue;
                }
                return Err(StoreError::UnknownRecord { record: id });
            };
            self.list(lists, Tree::Statuses, schema::status_prefix(old.status), old.height)?.remove(&old.index);
            self.list(lists, Tree::Statuses, schema::status_prefix(status), old.height)?.insert(old.index);
            writes.put_borsh(Tree::Records, id.as_bytes().to_vec(), &Place { status, ..old });
        }
        Ok(())
    }

    /// The records of a block below a prefix, as this commit has them so far.
    fn list<'l>(
        &self,
        lists: &'l mut Lists,
        tree: Tree,
        prefix: Vec<u8>,
        height: Height,
    ) -> Result<&'l mut BTreeSet<u32>, StoreError> {
        let key = [prefix, schema::block_key(height)].concat();
        Ok(match lists.0.entry((tree, key)) {
            Entry::Occupied(list) => list.into_mut(),
            Entry::Vacant(free) => {
                // What stands above the tip was never committed.
                let known = if self.is_final(height) { self.read::<BTreeSet<u32>>(tree, &free.key().1)? } else { None };
                free.insert(known.unwrap_or_default())
            }
        })
    }
}

/// Lists of indexes that a commit changes. One list of many is a write where each record by itself would be one.
#[derive(Default)]
pub(super) struct Lists(BTreeMap<(Tree, Vec<u8>), BTreeSet<u32>>);

impl Lists {
    pub(super) fn write(self, writes: &mut Writes) {
        for ((tree, key), list) in self.0 {
            if list.is_empty() {
                writes.remove(tree, key);
            } else {
                writes.put_borsh(tree, key, &list);
            }
        }
    }
}

pub(super) fn tip_of(header: &Header, hash: BlockHash, changes: &StateChanges) -> Tip {
    Tip { height: header.height, hash, timestamp_ms: header.timestamp_ms, state_root: changes.state_root }
}

pub(super) fn write_header(writes: &mut Writes, header: &Header, hash: &BlockHash) {
    writes.put(Tree::Headers, schema::block_key(header.height), &header.encode());
    writes.put_borsh(Tree::Hashes, hash.as_bytes().to_vec(), &header.height);
}

pub(super) fn write_evidence(writes: &mut Writes, block: &FinalBlock) {
    for (index, piece) in (0u32..).zip(block.block().evidence()) {
        writes.put(Tree::Evidence, schema::place_key(block.header().height, index), &piece.encode());
    }
}

/// Transactions with their places; they wait no more.
pub(super) fn write_transactions(writes: &mut Writes, block: &FinalBlock) {
    let height = block.header().height;
    for (index, transaction) in (0u32..).zip(block.block().transactions()) {
        let id = transaction.id().as_bytes().to_vec();
        writes.put(Tree::Transactions, schema::place_key(height, index), &transaction.signed().encode());
        writes.put_borsh(Tree::TransactionIds, id.clone(), &(height, index));
        writes.remove(Tree::PendingTransactions, id);
    }
}

/// Attestations with their places.
pub(super) fn write_attestations(writes: &mut Writes, block: &FinalBlock) {
    for (index, attestation) in (0u32..).zip(block.block().attestations()) {
        let key = schema::place_key(block.header().height, index);
        writes.put(Tree::Attestations, key, &attestation.signed().encode());
    }
}

/// How audits ended.
pub(super) fn write_audits(writes: &mut Writes, audits: &[(RecordId, Vec<u8>)]) -> Result<(), StoreError> {
    for (id, audit) in audits {
        if audit.len() > STATE_VALUE_BYTES_MAX {
            return Err(StoreError::StateTooLong { part: "audit", got: audit.len(), max: STATE_VALUE_BYTES_MAX });
        }
        writes.put(Tree::Audits, id.as_bytes().to_vec(), audit);
    }
    Ok(())
}

pub(super) fn write_set(writes: &mut Writes, set: &ValidatorSet) {
    writes.put(Tree::Validators, set.hash().as_bytes().to_vec(), &set.encode());
}

pub(super) fn write_certificate(writes: &mut Writes, certificate: &CommitCertificate) {
    let bytes = certificate.encode();
    for (piece, chunk) in (0u16..).zip(bytes.chunks(STORE_CHUNK_BYTES)) {
        writes.put(Tree::Certificates, schema::piece_key(certificate.height, piece), chunk);
    }
}

pub(super) fn write_state(writes: &mut Writes, entries: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StoreError> {
    for (key, value) in entries {
        if key.len() > STATE_KEY_BYTES_MAX {
            return Err(StoreError::StateTooLong { part: "key", got: key.len(), max: STATE_KEY_BYTES_MAX });
        }
        match value {
            Some(value) if value.len() > STATE_VALUE_BYTES_MAX => {
                return Err(StoreError::StateTooLong { part: "value", got: value.len(), max: STATE_VALUE_BYTES_MAX });
            }
            Some(value) => writes.put(Tree::State, key.clone(), value),
            None => writes.remove(Tree::State, key.clone()),
        }
    }
    Ok(())
}
