//! Which records a block holds: a Merkle tree that standard tools can check. Sole user of merkle-tree-rs.
//!
//! The tree is OpenZeppelin's StandardMerkleTree over rows `["uint256", "uint256", "string"]` = height, index, record id
//! in hex. Leaves are double keccak hashes of the ABI encoding and sorted, pairs are sorted. Height and index stand in the
//! leaf, because the tree itself proves membership, not position. A block without records has a fixed root.
//!
//! merkle-tree-rs panics on an empty tree, a row of other types, an unknown leaf, and a node that has not 32 bytes.
//! Everything that reaches it passes a check here first.

use merkle_tree_rs::core::process_proof;
use merkle_tree_rs::standard::{LeafType, StandardMerkleTree, standard_leaf_hash};
use serde::{Deserialize, Serialize};

use crate::hash::Domain;
use crate::ids::{Digest, IdError, RecordId};
use crate::limits::{BLOCK_RECORDS_MAX, MERKLE_PROOF_NODES_MAX};
use crate::units::Height;

/// The only format that is made and read.
pub const FORMAT: &str = "openzeppelin-standard-v1";

/// Types of a row.
const TYPES: [&str; 3] = ["uint256", "uint256", "string"];

/// Why a proof cannot be built or is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MerkleError {
    /// A block has bounded records.
    #[error("{got} records, at most {BLOCK_RECORDS_MAX} are allowed")]
    TooManyRecords {
        /// Records given.
        got: usize,
    },
    /// Only records of the block can be proven.
    #[error("the block has {count} records, there is none at index {index}")]
    NoSuchRecord {
        /// Place asked for.
        index: u32,
        /// Records there are.
        count: usize,
    },
    /// One format.
    #[error("proof format is {got:?}, it must be {FORMAT}")]
    Format {
        /// As given.
        got: String,
    },
    /// A row is two decimal numbers and an id.
    #[error("proof leaf field {field} is not a decimal number without leading zeros")]
    Number {
        /// The field.
        field: &'static str,
    },
    /// The third part of a row is a record id.
    #[error("proof leaf field id: {0}")]
    Id(IdError),
    /// No tree is that deep.
    #[error("proof has {got} nodes, at most {MERKLE_PROOF_NODES_MAX} are allowed")]
    TooLong {
        /// Nodes given.
        got: usize,
    },
    /// The row and the nodes do not lead to the root.
    #[error("proof leads to root {got}, not to {expected}")]
    Root {
        /// Where it leads.
        got: Digest,
        /// Where it should.
        expected: Digest,
    },
}

/// Shows that a record stands at its place in a block. Its JSON is what doors hand out; hex is without prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordProof {
    /// Root in the block's header.
    pub root: Digest,
    /// The row: height, index, record id.
    pub leaf: [String; 3],
    /// Siblings from the leaf up.
    pub proof: Vec<Digest>,
    /// Always [`FORMAT`].
    pub format: String,
}

/// The tree of one block. Building it takes milliseconds for a full block: keep those of recent blocks.
pub struct RecordTree {
    /// Nothing for a block without records.
    tree: Option<StandardMerkleTree>,
    rows: Vec<[String; 3]>,
    root: Digest,
}

impl RecordTree {
    /// The tree over the ids of a block's records, in order.
    pub fn new(height: Height, records: &[RecordId]) -> Result<RecordTree, MerkleError> {
        if records.len() > BLOCK_RECORDS_MAX {
            return Err(MerkleError::TooManyRecords { got: records.len() });
        }
        let rows: Vec<[String; 3]> = (0u32..).zip(records).map(|(index, id)| row(height, index, id)).collect();
        if rows.is_empty() {
            return Ok(RecordTree { tree: None, rows, root: empty_root() });
        }
        let types = TYPES.map(str::to_owned);
        let tree = StandardMerkleTree::of(rows.iter().map(|row| row.to_vec()).collect(), &types);
        let root = read_node(&tree.root());
        Ok(RecordTree { tree: Some(tree), rows, root })
    }

    /// The root.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The proof of the record at this place.
    pub fn proof(&self, index: u32) -> Result<RecordProof, MerkleError> {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let (Some(tree), Some(leaf)) = (&self.tree, self.rows.get(place)) else {
            return Err(MerkleError::NoSuchRecord { index, count: self.rows.len() });
        };
        let nodes = tree.get_proof(LeafType::Number(place));
        Ok(RecordProof {
            root: self.root,
            leaf: leaf.clone(),
            proof: nodes.iter().map(|node| read_node(node)).collect(),
            format: FORMAT.to_owned(),
        })
    }
}

/// Root over the ids of a block's records, in order.
///
/// # Panics
///
/// With more than [`BLOCK_RECORDS_MAX`] records: callers check their number first, against an error of their own.
pub fn records_root(height: Height, records: &[RecordId]) -> Digest {
    RecordTree::new(height, records).expect("callers check the number of records").root()
}

/// Root of a block without records.
pub fn empty_root() -> Digest {
    Domain::NO_RECORDS.hash(&[])
}

impl RecordProof {
    /// Checks the proof against its own root. The caller compares that root with a header it trusts.
    pub fn verify(&self) -> Result<(), MerkleError> {
        if self.format != FORMAT {
            return Err(MerkleError::Format { got: self.format.clone() });
        }
        let [height, index, id] = &self.leaf;
        check_number("height", height)?;
        check_number("index", index)?;
        id.parse::<RecordId>().map_err(MerkleError::Id)?;
        if self.proof.len() > MERKLE_PROOF_NODES_MAX {
            return Err(MerkleError::TooLong { got: self.proof.len() });
        }
        let types = TYPES.map(str::to_owned);
        let leaf = standard_leaf_hash(self.leaf.to_vec(), &types);
        let nodes: Vec<_> = self.proof.iter().map(|node| (*node.as_bytes()).into()).collect();
        let got = process_proof(leaf, &nodes);
        let got = Digest::new(got.as_ref().try_into().expect("a keccak hash has 32 bytes"));
        if got != self.root {
            return Err(MerkleError::Root { got, expected: self.root });
        }
        Ok(())
    }

    /// The place and id that the row names.
    pub fn claim(&self) -> Result<(Height, u32, RecordId), MerkleError> {
        let [height, index, id] = &self.leaf;
        check_number("height", height)?;
        check_number("index", index)?;
        let number = |field| MerkleError::Number { field };
        let height = height.parse().map_err(|_| number("height"))?;
        let index = index.parse().map_err(|_| number("index"))?;
        Ok((Height::new(height), index, id.parse().map_err(MerkleError::Id)?))
    }
}

fn row(height: Height, index: u32, id: &RecordId) -> [String; 3] {
    [height.to_string(), index.to_string(), id.to_string()]
}

/// One number has one spelling, and fits 64 bits.
fn check_number(field: &'static str, text: &str) -> Result<(), MerkleError> {
    match text.parse::<u64>() {
        Ok(number) if number.to_string() == text => Ok(()),
        _ => Err(MerkleError::Number { field }),
    }
}

/// A node as merkle-tree-rs prints it.
fn read_node(text: &str) -> Digest {
    let digits = text.strip_prefix("0x").expect("merkle-tree-rs prints nodes with a prefix");
    digits.parse().expect("merkle-tree-rs prints nodes as 64 lower-case hex digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u8) -> Vec<RecordId> {
        (0..count).map(|place| RecordId::new([place; 32])).collect()
    }

    fn proof() -> RecordProof {
        RecordTree::new(Height::new(5), &ids(7)).unwrap().proof(3).unwrap()
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut RecordProof), expected: &str) {
        let mut changed = proof();
        change(&mut changed);
        let fault = changed.verify().unwrap_err().to_string();
        assert!(fault.contains(expected), "{fault}");
    }

    #[test]
    fn every_record_can_be_proven_at_its_place() {
        for count in [1, 2, 3, 7, 64] {
            let tree = RecordTree::new(Height::new(9), &ids(count)).unwrap();
            for index in 0..u32::from(count) {
                let proof = tree.proof(index).unwrap();
                assert_eq!(proof.root, tree.root());
                assert_eq!(proof.verify(), Ok(()));
                let id = RecordId::new([u8::try_from(index).unwrap(); 32]);
                assert_eq!(proof.claim(), Ok((Height::new(9), index, id)));
            }
            let count = u32::from(count);
            let beyond = MerkleError::NoSuchRecord { index: count, count: count as usize };
            assert_eq!(tree.proof(count), Err(beyond));
        }
    }

    #[test]
    fn a_block_without_records_has_a_fixed_root_and_no_proof() {
        let tree = RecordTree::new(Height::new(9), &[]).unwrap();
        assert_eq!(tree.root(), empty_root());
        assert_eq!(records_root(Height::new(10), &[]), empty_root());
        assert_eq!(tree.proof(0), Err(MerkleError::NoSuchRecord { index: 0, count: 0 }));
        assert_ne!(empty_root(), Digest::ZERO);
    }

    #[test]
    fn height_order_and_ids_change_the_root() {
        let root = records_root(Height::new(1), &ids(2));
        assert_ne!(root, records_root(Height::new(2), &ids(2)));
        let swapped: Vec<RecordId> = ids(2).into_iter().rev().collect();
        assert_ne!(root, records_root(Height::new(1), &swapped));
        assert_ne!(root, records_root(Height::new(1), &ids(3)));
    }

    #[test]
    fn too_many_records_are_refused() {
        let many = vec![RecordId::ZERO; BLOCK_RECORDS_MAX + 1];
        let fault = RecordTree::new(Height::ZERO, &many).err();
        assert_eq!(fault, Some(MerkleError::TooManyRecords { got: BLOCK_RECORDS_MAX + 1 }));
    }

    #[test]
    fn a_changed_proof_is_refused() {
        refused(|proof| proof.root = Digest::ZERO, "leads to root");
        refused(|proof| proof.leaf[0] = "6".into(), "leads to root");
        refused(|proof| proof.leaf[1] = "2".into(), "leads to root");
        refused(|proof| proof.leaf[2] = RecordId::ZERO.to_string(), "leads to root");
        refused(|proof| proof.proof[0] = Digest::ZERO, "leads to root");
        refused(|proof| proof.proof.push(Digest::ZERO), "leads to root");
        refused(|proof| proof.proof.truncate(2), "leads to root");
    }

    #[test]
    fn what_would_panic_below_is_refused_above() {
        refused(|proof| proof.format = "standard-v1".into(), "format");
        refused(|proof| proof.leaf[0] = "x".into(), "field height");
        refused(|proof| proof.leaf[0] = "-1".into(), "field height");
        refused(|proof| proof.leaf[0] = String::new(), "field height");
        refused(|proof| proof.leaf[0] = "05".into(), "field height");
        refused(|proof| proof.leaf[0] = "+5".into(), "field height");
        refused(|proof| proof.leaf[0] = "9".repeat(100), "field height");
        refused(|proof| proof.leaf[1] = "0x3".into(), "field index");
        refused(|proof| proof.leaf[2] = "ab".into(), "field id");
        refused(|proof| proof.proof = vec![Digest::ZERO; MERKLE_PROOF_NODES_MAX + 1], "41 nodes");
        let mut far = proof();
        far.leaf[1] = u64::MAX.to_string();
        assert_eq!(far.claim(), Err(MerkleError::Number { field: "index" }));
    }

    #[test]
    fn json_is_as_the_doors_promise() {
        let json = serde_json::to_value(proof()).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["root", "leaf", "proof", "format"]);
        assert_eq!(json["leaf"][0], "5");
        assert_eq!(json["format"], "openzeppelin-standard-v1");
        assert_eq!(serde_json::from_value::<RecordProof>(json.clone()).unwrap(), proof());
        let mut odd = json;
        odd["proof"][0] = "00".into();
        assert!(serde_json::from_value::<RecordProof>(odd).is_err());
    }
}
