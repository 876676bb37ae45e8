//! The rules of blocks, validator sets, votes and certificates: one case per error variant.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use aria_chain::block::{Body, FinalBlock, Header, ProposedBlock, VerifiedBody, has_stamp};
use aria_chain::certificate::{CommitCertificate, CommitSignature, Validator, ValidatorSet, Vote};
use aria_chain::codec::Versioned;
use aria_chain::error::{BlockError, CertificateError, ProofError};
use aria_chain::ids::{BlockHash, ChainId, Digest, NodeId};
use aria_chain::keys::Signature;
use aria_chain::limits::{BLOCK_RECORDS_MAX, BODY_BYTES_MAX, PROOF_BYTES_MAX, VALIDATORS_MAX};
use aria_chain::merkle;
use aria_chain::units::{Height, Round};

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{Chain, STAMP, chain_id, key, node, proof, validators};

fn parts() -> (Header, Body) {
    let block = Chain::new(1).propose(vec![proof(1), proof(2)]);
    (block.header().clone(), block.body())
}

/// A block that someone altered and stamped anew, or the rule that refuses it.
#[track_caller]
fn refused(change: impl FnOnce(&mut Header, &mut Body), expected: BlockError) {
    let (mut header, mut body) = parts();
    change(&mut header, &mut body);
    while !has_stamp(&header.hash(), STAMP) {
        header.nonce += 1;
    }
    assert_eq!(ProposedBlock::check(header, body, &chain_id(), STAMP), Err(expected));
}

#[test]
fn a_sealed_block_passes_its_check() {
    let (header, body) = parts();
    let checked = ProposedBlock::check(header.clone(), body.clone(), &chain_id(), STAMP).unwrap();
    assert_eq!((checked.header(), checked.hash()), (&header, header.hash()));
    assert_eq!(checked.body(), body);
    assert_eq!(checked, Chain::new(1).propose(vec![proof(1), proof(2)]));
    assert!(header.hash().to_string().starts_with('0'));
    assert_eq!(header.record_count, 2);
    let empty = Chain::new(1).propose(Vec::new());
    assert_eq!(empty.header().records_root, merkle::empty_root());
    ProposedBlock::check(empty.header().clone(), empty.body(), &chain_id(), STAMP).unwrap();
}

#[test]
fn a_block_commits_to_every_byte_it_carries() {
    let root = Digest::new([1; 32]);
    let (header, body) = parts();
    let other = ChainId::new("other").unwrap();
    refused(|h, _| h.chain_id = other.clone(), BlockError::Chain { got: other.clone(), expected: chain_id() });
    refused(|h, _| h.height = Height::ZERO, BlockError::GenesisHeight);
    refused(|h, _| h.record_count = 3, BlockError::RecordCount { header: 3, body: 2 });
    refused(|_, b| drop(b.proofs.pop()), BlockError::RecordCount { header: 2, body: 1 });
    let expected = BlockError::RecordsRoot { header: root, body: header.records_root };
    refused(|h, _| h.records_root = root, expected);
    let expected = BlockError::BodyRoot { header: root, body: header.body_root };
    refused(|h, _| h.body_root = root, expected);
    let swapped: Vec<_> = body.proofs.iter().rev().map(|proof| proof.record.id()).collect();
    let swapped = merkle::records_root(Height::new(1), &swapped);
    let expected = BlockError::RecordsRoot { header: header.records_root, body: swapped };
    refused(|_, b| b.proofs.reverse(), expected);
    // Height stands in every leaf.
    let moved: Vec<_> = body.proofs.iter().map(|proof| proof.record.id()).collect();
    let moved = merkle::records_root(Height::new(2), &moved);
    let expected = BlockError::RecordsRoot { header: header.records_root, body: moved };
    refused(|h, _| h.height = Height::new(2), expected);
}

#[test]
fn every_proof_of_a_block_is_verified() {
    let (_, body) = parts();
    let fault = ProofError::ReceiptUnsigned { record: body.proofs[1].record.id() };
    let forged = Signature::new([0; 64]);
    refused(|_, b| b.proofs[1].receipt_signature = forged, BlockError::Proof { index: 1, fault });
}

#[test]
fn a_record_stands_in_a_block_once() {
    let twice = BlockError::DuplicateRecord { record: proof(1).record_id() };
    refused(|_, b| b.proofs[1] = b.proofs[0].clone(), twice.clone());
    let draft = Chain::new(1).draft;
    assert_eq!(ProposedBlock::seal(draft, vec![proof(1), proof(1)].into(), STAMP), Err(twice));
}

#[test]
fn records_of_a_block_are_bounded() {
    let many = vec![proof(1); BLOCK_RECORDS_MAX + 1];
    let too_many = BlockError::TooManyRecords { got: BLOCK_RECORDS_MAX + 1 };
    assert_eq!(ProposedBlock::seal(Chain::new(1).draft, many.into(), STAMP), Err(too_many.clone()));
    let proofs = vec![proof(1).into_signed(); BLOCK_RECORDS_MAX + 1];
    refused(|_, b| b.proofs = proofs.clone(), too_many);
    let bytes = Body { proofs, ..Body::default() }.encode();
    assert!(Body::decode(&bytes).unwrap_err().to_string().contains("at most 1024"), "refused before it is read");
    // The byte limit cannot be reached by records within theirs; it guards the sum should either limit move.
    const { assert!(BLOCK_RECORDS_MAX * PROOF_BYTES_MAX <= BODY_BYTES_MAX) };
}

#[test]
fn the_stamp_is_checked_and_bounded() {
    let (mut header, body) = parts();
    header.nonce = (0..).find(|nonce| !has_stamp(&Header { nonce: *nonce, ..header.clone() }.hash(), STAMP)).unwrap();
    let expected = BlockError::Stamp { hash: header.hash(), digits: STAMP };
    assert_eq!(ProposedBlock::check(header, body, &chain_id(), STAMP), Err(expected));
    let too_hard = ProposedBlock::seal(Chain::new(1).draft, VerifiedBody::default(), 7);
    assert_eq!(too_hard, Err(BlockError::StampTooHard { digits: 7 }));
    let hash: BlockHash = format!("00f{}", "0".repeat(61)).parse().unwrap();
    assert!(has_stamp(&hash, 0) && has_stamp(&hash, 2) && !has_stamp(&hash, 3));
    assert!(has_stamp(&BlockHash::ZERO, 64));
}

fn member(seed: u8, power: u64) -> Validator {
    Validator { node_id: node(seed), power }
}

#[test]
fn a_validator_set_is_sorted_bounded_and_powerful() {
    let set = ValidatorSet::new(vec![member(3, 5), member(1, 7), member(2, 9)]).unwrap();
    assert!(set.members().is_sorted_by_key(|member| member.node_id));
    assert_eq!((set.total_power(), set.power_of(&node(1)), set.power_of(&node(9))), (21, 7, 0));
    assert_eq!(ValidatorSet::decode(&set.encode()), Ok(set.clone()));
    let same = ValidatorSet::new(vec![member(2, 9), member(1, 7), member(3, 5)]).unwrap();
    assert_eq!(set.hash(), same.hash());
    assert_ne!(set.hash(), validators(3).hash());

    let new = |members| ValidatorSet::new(members).unwrap_err();
    assert_eq!(new(vec![]), CertificateError::SetSize { got: 0 });
    let many = (0..=100u8).map(|seed| member(seed, 1)).collect();
    assert_eq!(new(many), CertificateError::SetSize { got: VALIDATORS_MAX + 1 });
    assert_eq!(new(vec![member(1, 1), member(1, 2)]), CertificateError::SetOrder { node: node(1) });
    assert_eq!(new(vec![member(1, 0)]), CertificateError::NoPower { node: node(1) });
    assert_eq!(new(vec![member(1, (1 << 60) + 1)]), CertificateError::PowerTotal);
    assert_eq!(new(vec![member(1, u64::MAX), member(2, u64::MAX)]), CertificateError::PowerTotal);
    // Bytes are held to the same rules, and the order is part of them.
    let mut bytes = set.encode();
    bytes[5..85].rotate_left(40);
    assert!(ValidatorSet::decode(&bytes).unwrap_err().to_string().contains("out of order"));
}

#[test]
fn more_than_two_thirds_decide() {
    let set = ValidatorSet::new(vec![member(1, 1), member(2, 1), member(3, 1)]).unwrap();
    assert!(!set.is_quorum(2) && set.is_quorum(3));
    let set = validators(4);
    assert!(!set.is_quorum(26) && set.is_quorum(27));
    let strong = ValidatorSet::new(vec![member(1, 1 << 60)]).unwrap();
    assert!(!strong.is_quorum(0) && strong.is_quorum(1 << 60));
    assert!(!strong.is_quorum((1 << 60) / 3 * 2) && strong.is_quorum((1 << 60) / 3 * 2 + 2));
}

/// The certificate of a block by four validators, altered, or the rule that refuses it.
#[track_caller]
fn certificate_refused(change: impl FnOnce(&mut CommitCertificate), expected: CertificateError) {
    let chain = Chain::new(4);
    let block = chain.propose(vec![proof(1)]);
    let mut certificate = chain.finalise(block.clone()).certificate().clone();
    change(&mut certificate);
    assert_eq!(FinalBlock::new(block, certificate, &validators(4)), Err(expected));
}

#[test]
fn a_certificate_is_for_one_block_by_its_own_set() {
    let chain = Chain::new(4);
    let block = chain.propose(vec![proof(1)]);
    let hash = block.hash();
    let certificate = chain.finalise(block.clone()).certificate().clone();
    let refused = FinalBlock::new(block, certificate, &validators(3));
    let wrong = CertificateError::WrongSet { got: validators(3).hash(), expected: validators(4).hash() };
    assert_eq!(refused, Err(wrong));
    let wrong = CertificateError::WrongHeight { got: Height::new(2), expected: Height::new(1) };
    certificate_refused(|c| c.height = Height::new(2), wrong);
    let wrong = CertificateError::WrongBlock { got: BlockHash::ZERO, expected: hash };
    certificate_refused(|c| c.block_hash = BlockHash::ZERO, wrong);
}

#[test]
fn a_certificate_needs_distinct_members_and_a_quorum() {
    let set = validators(4);
    let (first, second) = (set.members()[0].node_id, set.members()[1].node_id);
    let stranger = |c: &mut CommitCertificate| {
        c.signatures.push(CommitSignature { node_id: NodeId::new([0xff; 32]), signature: Signature::new([0; 64]) });
    };
    certificate_refused(stranger, CertificateError::Stranger { node: NodeId::new([0xff; 32]) });
    certificate_refused(|c| c.signatures[1] = c.signatures[0], CertificateError::SignatureOrder { node: first });
    certificate_refused(|c| c.signatures.swap(0, 1), CertificateError::SignatureOrder { node: first });
    let forged = |c: &mut CommitCertificate| c.signatures[1].signature = c.signatures[0].signature;
    certificate_refused(forged, CertificateError::Signature { node: second });
    // A signature of another round does not count.
    certificate_refused(|c| c.round = Round::new(1), CertificateError::Signature { node: first });
    let few = |power| CertificateError::NoQuorum { power, total: 40 };
    certificate_refused(|c| c.signatures.truncate(2), few(20));
    certificate_refused(|c| c.signatures.clear(), few(0));
}

#[test]
fn three_of_four_make_a_block_final() {
    let chain = Chain::new(4);
    let block = chain.propose(vec![proof(1)]);
    let mut certificate = chain.finalise(block.clone()).certificate().clone();
    certificate.signatures.remove(2);
    assert_eq!(certificate.verify(&chain_id(), &validators(4)), Ok(30));
    let last = FinalBlock::new(block.clone(), certificate.clone(), &validators(4)).unwrap();
    assert_eq!((last.block(), last.header(), last.hash()), (&block, block.header(), block.hash()));
    assert_eq!(last.certificate(), &certificate);
}

#[test]
fn votes_are_gathered_for_one_block_and_round() {
    let chain = Chain::new(3);
    let block = chain.propose(Vec::new());
    let (height, round, hash) = (Height::new(1), Round::ZERO, block.hash());
    let mut votes = chain.votes(&block);
    votes.push(votes[0]);
    votes.push(Vote::sign(&key(104), &chain_id(), height, round, BlockHash::ZERO));
    votes.push(Vote::sign(&key(105), &chain_id(), height, Round::new(1), hash));
    votes.push(Vote::sign(&key(106), &chain_id(), Height::new(2), round, hash));
    votes.reverse();
    let certificate = CommitCertificate::gather(height, round, hash, &votes);
    assert_eq!(certificate.signatures.len(), 3);
    assert_eq!(certificate.verify(&chain_id(), &validators(3)), Ok(30));
    let vote = chain.votes(&block)[0];
    assert_eq!(vote.verify(&chain_id(), &validators(3)), Ok(()));
    let stranger = Vote { node_id: node(1), ..vote };
    assert_eq!(stranger.verify(&chain_id(), &validators(3)), Err(CertificateError::Stranger { node: node(1) }));
    let moved = Vote { height: Height::new(2), ..vote };
    assert_eq!(moved.verify(&chain_id(), &validators(3)), Err(CertificateError::Signature { node: vote.node_id }));
}

#[test]
fn everyone_computes_the_same_genesis() {
    let (one, two) = (Chain::new(2).genesis, Chain::new(2).genesis);
    assert_eq!(one.hash(), two.hash());
    assert_eq!(one.header().hash(), one.hash());
    assert_eq!((one.header().height, one.header().parent), (Height::ZERO, BlockHash::ZERO));
    assert_ne!(one.hash(), Chain::new(3).genesis.hash());
    assert_eq!(one.validators(), &validators(2));
}
