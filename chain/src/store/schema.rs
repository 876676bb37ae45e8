//! Every tree, key and value of the store: `docs/state.md` in code. Numbers in keys are big-endian, so that order of keys
//! is order of heights.
//!
//! A value is one version byte, eight bytes of checksum, and the payload. The checksum covers tree, key and payload:
//! a value that was altered, or that stands in another's place, does not pass.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};

use super::error::StoreError;
use crate::hash::Domain;
use crate::ids::{ModelId, NodeId};
use crate::limits::STORE_VALUE_BYTES_MAX;
use crate::record::RecordStatus;
use crate::units::Height;

/// Format of the whole store, written beside the data. A program refuses every other one.
pub const FORMAT: u32 = 4;

/// Version byte of every value.
const VALUE_VERSION: u8 = 1;

/// Version byte and checksum.
const VALUE_HEAD_BYTES: usize = 9;

/// A tree of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// `"tip"` -> [`Tip`](super::Tip); `"chain"` -> chain id and genesis hash; `"base"` -> lowest whole block, if not all are
    /// there.
    Meta,
    /// Height -> header.
    Headers,
    /// Height and index -> proof.
    Proofs,
    /// Height and index -> evidence.
    Evidence,
    /// Height and index -> transaction.
    Transactions,
    /// Transaction id -> height and index.
    TransactionIds,
    /// Height and index -> attestation.
    Attestations,
    /// Record id -> how its audit ended, in runtime's words.
    Audits,
    /// Height and piece -> up to 4 KiB of the certificate.
    Certificates,
    /// Block hash -> height.
    Hashes,
    /// Record id -> height, index, status.
    Records,
    /// Node, height -> indexes of records in the block, ascending.
    Nodes,
    /// Model, height -> the same.
    Models,
    /// Status, height -> the same.
    Statuses,
    /// Hash of a validator set -> the set.
    Validators,
    /// State key -> state value.
    State,
    /// Record id -> number of arrival, proof.
    Pending,
    /// Transaction id -> number of arrival, transaction.
    PendingTransactions,
    /// A line of the address book, in the node's words.
    Peers,
}

impl Tree {
    /// All trees.
    pub const ALL: [Tree; 19] = [
        Tree::Meta,
        Tree::Headers,
        Tree::Proofs,
        Tree::Evidence,
        Tree::Transactions,
        Tree::TransactionIds,
        Tree::Attestations,
        Tree::Audits,
        Tree::Certificates,
        Tree::Hashes,
        Tree::Records,
        Tree::Nodes,
        Tree::Models,
        Tree::Statuses,
        Tree::Validators,
        Tree::State,
        Tree::Pending,
        Tree::PendingTransactions,
        Tree::Peers,
    ];

    /// Its name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Tree::Meta => "meta",
            Tree::Headers => "headers",
            Tree::Proofs => "proofs",
            Tree::Evidence => "evidence",
            Tree::Transactions => "transactions",
            Tree::TransactionIds => "transaction-ids",
            Tree::Attestations => "attestations",
            Tree::Audits => "audits",
            Tree::Certificates => "certificates",
            Tree::Hashes => "hashes",
            Tree::Records => "records",
            Tree::Nodes => "nodes",
            Tree::Models => "models",
            Tree::Statuses => "statuses",
            Tree::Validators => "validators",
            Tree::State => "state",
            Tree::Pending => "pending",
            Tree::PendingTransactions => "pending-transactions",
            Tree::Peers => "peers",
        }
    }
}

/// Key of the tip in [`Tree::Meta`].
pub const TIP: &[u8] = b"tip";

/// Key of the chain's name in [`Tree::Meta`].
pub const CHAIN: &[u8] = b"chain";

/// Key of the lowest whole block in [`Tree::Meta`].
pub const BASE: &[u8] = b"base";

/// Where a record stands, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Place {
    /// Its block.
    pub height: Height,
    /// Its index there.
    pub index: u32,
    /// Its status.
    pub status: RecordStatus,
}

/// Key of a block.
pub fn block_key(height: Height) -> Vec<u8> {
    height.get().to_be_bytes().to_vec()
}

/// Key of a record's place.
pub fn place_key(height: Height, index: u32) -> Vec<u8> {
    [&height.get().to_be_bytes()[..], &index.to_be_bytes()].concat()
}

/// Key of a piece of a certificate.
pub fn piece_key(height: Height, piece: u16) -> Vec<u8> {
    [&height.get().to_be_bytes()[..], &piece.to_be_bytes()].concat()
}

/// Prefix of a node's records.
pub fn node_prefix(node: &NodeId) -> Vec<u8> {
    node.as_bytes().to_vec()
}

/// Prefix of a model's records.
pub fn model_prefix(model: &ModelId) -> Vec<u8> {
    model.as_bytes().to_vec()
}

/// Prefix of the records of a status.
pub fn status_prefix(status: RecordStatus) -> Vec<u8> {
    vec![status as u8]
}

/// Height at the end of the key of a list of indexes.
pub fn height_of(key: &[u8]) -> Option<Height> {
    key.last_chunk::<8>().map(|height| Height::new(u64::from_be_bytes(*height)))
}

/// Height and index at the end of a key.
pub fn place_of(key: &[u8]) -> Option<(Height, u32)> {
    let place = key.last_chunk::<12>()?;
    let (height, index) = place.split_first_chunk::<8>()?;
    let index = index.first_chunk::<4>()?;
    Some((Height::new(u64::from_be_bytes(*height)), u32::from_be_bytes(*index)))
}

/// The value to store for a payload.
pub fn wrap(tree: Tree, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let checksum = checksum(tree, key, payload);
    let value = [&[VALUE_VERSION][..], &checksum, payload].concat();
    assert!(value.len() <= STORE_VALUE_BYTES_MAX, "limits keep every payload below a value's size");
    value
}

/// The payload of a stored value.
pub fn unwrap<'v>(tree: Tree, key: &[u8], value: &'v [u8]) -> Result<&'v [u8], StoreError> {
    let Some((head, payload)) = value.split_at_checked(VALUE_HEAD_BYTES) else {
        return Err(damaged(tree, key, "it is too short"));
    };
    if head[0] != VALUE_VERSION {
        return Err(damaged(tree, key, &format!("its version {} is not known", head[0])));
    }
    if head[1..] != checksum(tree, key, payload) {
        return Err(damaged(tree, key, "its checksum does not match"));
    }
    Ok(payload)
}

/// A payload that is not what its tree holds.
pub fn damaged(tree: Tree, key: &[u8], reason: &str) -> StoreError {
    let place = match (tree, place_of(key), key.first_chunk::<8>()) {
        (Tree::Meta, _, _) => format!("{}/{}", tree.name(), String::from_utf8_lossy(key)),
        (Tree::Proofs | Tree::Transactions | Tree::Attestations, Some((height, index)), _) => {
            format!("{}/height {height}, index {index}", tree.name())
        }
        (Tree::Headers | Tree::Certificates, _, Some(height)) => {
            format!("{}/height {}", tree.name(), u64::from_be_bytes(*height))
        }
        _ => format!("{}/{}", tree.name(), hex::encode(key)),
    };
    StoreError::Damaged { place, reason: reason.to_owned() }
}

fn checksum(tree: Tree, key: &[u8], payload: &[u8]) -> [u8; 8] {
    let hash = Domain::STORE_VALUE.hash_of(&(tree.name(), key, payload));
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// What one durable step writes: the value for each key, or nothing where the key goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    changes: BTreeMap<(Tree, Vec<u8>), Option<Vec<u8>>>,
}

impl Writes {
    /// Stores a payload.
    pub fn put(&mut self, tree: Tree, key: Vec<u8>, payload: &[u8]) {
        let value = wrap(tree, &key, payload);
        self.changes.insert((tree, key), Some(value));
    }

    /// Stores a value of our own as borsh.
    pub fn put_borsh<T: BorshSerialize>(&mut self, tree: Tree, key: Vec<u8>, value: &T) {
        self.put(tree, key, &crate::codec::to_bytes(value));
    }

    /// Removes a key, if it is there.
    pub fn remove(&mut self, tree: Tree, key: Vec<u8>) {
        self.changes.insert((tree, key), None);
    }

    /// Trees, keys and values, in order.
    pub fn into_changes(self) -> impl Iterator<Item = (Tree, Vec<u8>, Option<Vec<u8>>)> {
        self.changes.into_iter().map(|((tree, key), value)| (tree, key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_height_then_index() {
        let keys = [(1, 0), (1, 1), (1, 256), (2, 0), (256, 0), (u64::MAX, u32::MAX)];
        let written: Vec<Vec<u8>> = keys.iter().map(|(h, i)| place_key(Height::new(*h), *i)).collect();
        assert!(written.is_sorted());
        for ((height, index), key) in keys.iter().zip(&written) {
            assert_eq!(place_of(key), Some((Height::new(*height), *index)));
            let with_prefix = [&node_prefix(&NodeId::new([7; 32])), &key[..]].concat();
            assert_eq!(place_of(&with_prefix), Some((Height::new(*height), *index)));
        }
        assert_eq!(place_of(&[0; 11]), None);
        assert_eq!(block_key(Height::new(258)), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(piece_key(Height::new(1), 2), [0, 0, 0, 0, 0, 0, 0, 1, 0, 2]);
        assert_eq!(status_prefix(RecordStatus::SelfAudited), [6]);
        assert_eq!(model_prefix(&ModelId::new([3; 32])), [3; 32]);
    }

    #[test]
    fn a_value_passes_only_unaltered_and_in_its_place() {
        let key = block_key(Height::new(5));
        let value = wrap(Tree::Headers, &key, b"payload");
        assert_eq!(unwrap(Tree::Headers, &key, &value).unwrap(), b"payload");
        for at in 0..value.len() {
            let mut altered = value.clone();
            altered[at] ^= 1;
            unwrap(Tree::Headers, &key, &altered).unwrap_err();
        }
        for length in 0..value.len() {
            unwrap(Tree::Headers, &key, &value[..length]).unwrap_err();
        }
        unwrap(Tree::Headers, &block_key(Height::new(6)), &value).unwrap_err();
        unwrap(Tree::Certificates, &key, &value).unwrap_err();
        assert!(unwrap(Tree::Headers, &key, &wrap(Tree::Headers, &key, b"")).unwrap().is_empty());
    }

    #[test]
    fn damage_is_named_by_place() {
        let name = |tree, key: &[u8]| damaged(tree, key, "x").to_string();
        assert!(name(Tree::Meta, TIP).contains("meta/tip is damaged: x"));
        assert!(name(Tree::Proofs, &place_key(Height::new(7), 2)).contains("proofs/height 7, index 2"));
        assert!(name(Tree::Headers, &block_key(Height::new(7))).contains("headers/height 7"));
        assert!(name(Tree::Certificates, &piece_key(Height::new(7), 1)).contains("certificates/height 7"));
        assert!(name(Tree::State, b"ab").contains("state/6162"));
    }

    #[test]
    fn tree_names_are_pinned_and_differ() {
        let names: std::collections::BTreeSet<&str> = Tree::ALL.iter().map(|tree| tree.name()).collect();
        assert_eq!(names.len(), Tree::ALL.len());
        assert_eq!(Tree::Statuses.name(), "statuses");
    }

    #[test]
    fn the_last_write_to_a_key_counts() {
        let mut writes = Writes::default();
        writes.put(Tree::State, vec![1], b"a");
        writes.put(Tree::State, vec![1], b"b");
        writes.put_borsh(Tree::State, vec![2], &7u8);
        writes.remove(Tree::State, vec![2]);
        let changes: Vec<_> = writes.into_changes().collect();
        assert_eq!(
            changes,
            [(Tree::State, vec![1], Some(wrap(Tree::State, &[1], b"b"))), (Tree::State, vec![2], None),]
        );
    }
}
