//! Roots and proofs are those of the standard: vectors made by `@openzeppelin/merkle-tree` 1.0.8, and a verifier written
//! from OpenZeppelin's description alone, which shares no code with the crate.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use aria_chain::ids::{Digest, RecordId};
use aria_chain::merkle::{FORMAT, RecordProof, RecordTree};
use aria_chain::units::Height;
use serde_json::Value;
use tiny_keccak::{Hasher, Keccak};

fn vectors() -> Value {
    serde_json::from_str(include_str!("data/merkle_vectors.json")).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn keccak(parts: &[&[u8]]) -> [u8; 32] {
    let mut keccak = Keccak::v256();
    parts.iter().for_each(|part| keccak.update(part));
    let mut digest = [0; 32];
    keccak.finalize(&mut digest);
    digest
}

fn word(number: u64) -> [u8; 32] {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&number.to_be_bytes());
    word
}

/// keccak(keccak(abi.encode(height, index, id))): two numbers, the offset of the text, its length, its 64 bytes.
fn leaf_hash(row: &[String; 3]) -> [u8; 32] {
    let [height, index, id] = row;
    let (height, index) = (word(height.parse().unwrap()), word(index.parse().unwrap()));
    assert_eq!(id.len(), 64, "two whole words, so that no padding is needed");
    let inner = keccak(&[&height, &index, &word(96), &word(64), id.as_bytes()]);
    keccak(&[&inner])
}

/// Climbs from the leaf; each pair is hashed the smaller first.
fn leads_to_root(proof: &RecordProof) -> bool {
    let top = proof.proof.iter().fold(leaf_hash(&proof.leaf), |below, sibling| {
        let sibling = sibling.as_bytes();
        if below <= *sibling { keccak(&[&below, sibling]) } else { keccak(&[sibling, &below]) }
    });
    top == *proof.root.as_bytes()
}

fn tree_of(vector: &Value) -> (Height, Vec<RecordId>, RecordTree) {
    let height = Height::new(vector["height"].as_u64().unwrap());
    let ids: Vec<RecordId> = texts(&vector["ids"]).iter().map(|id| id.parse().unwrap()).collect();
    let tree = RecordTree::new(height, &ids).unwrap();
    (height, ids, tree)
}

#[test]
fn the_vectors_are_those_that_were_agreed() {
    let vectors = vectors();
    assert_eq!(texts(&vectors["types"]), ["uint256", "uint256", "string"]);
    let counts: Vec<usize> = vectors["trees"].as_array().unwrap().iter().map(|t| texts(&t["ids"]).len()).collect();
    assert_eq!(counts, [1, 2, 3, 7, 10]);
}

#[test]
fn roots_and_proofs_are_the_standards() {
    for vector in vectors()["trees"].as_array().unwrap() {
        let (height, ids, tree) = tree_of(vector);
        assert_eq!(tree.root().to_string(), vector["root"].as_str().unwrap());
        for (index, id) in (0u32..).zip(&ids) {
            let place = usize::try_from(index).unwrap();
            let proof = tree.proof(index).unwrap();
            assert_eq!(proof.leaf, [height.to_string(), index.to_string(), id.to_string()]);
            assert_eq!(proof.format, FORMAT);
            let nodes: Vec<String> = proof.proof.iter().map(Digest::to_string).collect();
            assert_eq!(nodes, texts(&vector["proofs"][place]));
            let leaf = Digest::new(leaf_hash(&proof.leaf));
            assert_eq!(leaf.to_string(), vector["leaf_hashes"][place].as_str().unwrap());
        }
    }
}

#[test]
fn two_verifiers_agree_on_good_and_bad_proofs() {
    for vector in vectors()["trees"].as_array().unwrap() {
        let (_, ids, tree) = tree_of(vector);
        for index in 0..u32::try_from(ids.len()).unwrap() {
            let good = tree.proof(index).unwrap();
            assert!(leads_to_root(&good) && good.verify().is_ok());
            let mut bad = vec![good.clone(); 4];
            bad[0].leaf[0] = "77".into();
            bad[1].leaf[1] = "77".into();
            bad[2].leaf[2] = RecordId::ZERO.to_string();
            bad[3].root = Digest::ZERO;
            for node in 0..good.proof.len() {
                let mut other = good.clone();
                other.proof[node] = Digest::ZERO;
                bad.push(other);
                let mut shorter = good.clone();
                shorter.proof.remove(node);
                bad.push(shorter);
            }
            for proof in bad {
                assert!(!leads_to_root(&proof) && proof.verify().is_err(), "{proof:?}");
            }
        }
    }
}
