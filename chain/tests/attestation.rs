//! Attestations: what is refused by itself, and how blocks and stores keep them.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

use aria_chain::attestation::{Opening, Statement, Verdict};
use aria_chain::block::{Body, ProposedBlock, VerifiedBody};
use aria_chain::error::{AttestationError, BlockError};
use aria_chain::ids::{ChainId, Digest, RecordId};
use aria_chain::limits::{ATTESTATION_BYTES_MAX, ATTESTATION_ITEMS_MAX, BLOCK_ATTESTATIONS_MAX};
use aria_chain::store::{MemoryStore, StateChanges, Store};
use aria_chain::units::Height;

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{Chain, STAMP, attest, attestation, chain_id, key, node, proof, verify};

fn opening(verdict: Verdict) -> Opening {
    Opening { secret: [7; 32], verdict, root: Digest::new([8; 32]) }
}

#[test]
fn an_attestation_counts_only_on_its_chain_by_its_auditor_and_in_order() {
    let good = attestation(1).signed().clone();
    let other = ChainId::new("other").unwrap();
    let foreign = AttestationError::Chain { got: chain_id(), expected: other.clone() };
    assert_eq!(good.clone().verify(&other), Err(foreign));
    for (items, fault) in [
        (vec![], AttestationError::Items { got: 0 }),
        (vec![3; 2], AttestationError::Order),
        (vec![3, 2], AttestationError::Order),
        ((0..49).collect(), AttestationError::Items { got: ATTESTATION_ITEMS_MAX + 1 }),
    ] {
        let items = items.into_iter().map(|index: u32| (index, Digest::ZERO)).collect();
        assert_eq!(attest(1, Statement::Commit(items)).verify(&chain_id()), Err(fault));
    }
    let changes: [fn(&mut aria_chain::attestation::Attestation); 3] = [
        |said| said.auditor = node(2),
        |said| said.height = Height::new(2),
        |said| said.statement = Statement::Open(vec![(0, opening(Verdict::Valid))]),
    ];
    for change in changes {
        let mut altered = good.clone();
        change(&mut altered.attestation);
        let unsigned = AttestationError::Unsigned { auditor: altered.attestation.auditor };
        assert_eq!(altered.verify(&chain_id()), Err(unsigned));
    }
}

#[test]
fn the_longest_attestation_fits() {
    let items = (0..48).map(|index| (index, opening(Verdict::Invalid))).collect();
    let longest = attest(1, Statement::Open(items)).verify(&chain_id()).unwrap();
    assert!(longest.size_bytes() + 48 <= ATTESTATION_BYTES_MAX, "{} bytes", longest.size_bytes());
}

#[test]
fn a_commitment_binds_everything_that_is_opened() {
    let (record, auditor) = (RecordId::new([3; 32]), node(1));
    let of = |opening: Opening| opening.commitment(&chain_id(), &auditor, &record);
    let plain = of(opening(Verdict::Valid));
    let others = [
        of(opening(Verdict::Invalid)),
        of(Opening { secret: [9; 32], ..opening(Verdict::Valid) }),
        of(Opening { root: Digest::ZERO, ..opening(Verdict::Valid) }),
        opening(Verdict::Valid).commitment(&chain_id(), &node(2), &record),
        opening(Verdict::Valid).commitment(&chain_id(), &auditor, &RecordId::ZERO),
        opening(Verdict::Valid).commitment(&ChainId::new("other").unwrap(), &auditor, &record),
    ];
    assert!(others.iter().all(|other| *other != plain));
    // The secret is the auditor's own for each record, and the same after a restart.
    let secret = |seed: u8, record| key(seed).audit_secret(&chain_id(), &record);
    assert_eq!(secret(1, record), secret(1, record));
    assert!(secret(1, record) != secret(2, record) && secret(1, record) != secret(1, RecordId::ZERO));
}

#[test]
fn a_block_carries_attestations_and_a_store_keeps_how_audits_end() {
    let mut chain = Chain::new(1);
    let store = MemoryStore::new(&chain.genesis, &chain.initial()).unwrap();
    chain.attestations = vec![attestation(1), attestation(2)];
    let (block, changes) = chain.next(vec![proof(1)]);
    assert_eq!(block.header().attestation_count, 2);
    let checked = ProposedBlock::check(block.header().clone(), block.block().body(), &chain_id(), STAMP).unwrap();
    assert_eq!(&checked, block.block());
    let record = block.block().proofs()[0].record_id();
    let changes = StateChanges { audits: vec![(record, b"how it ended".to_vec())], ..changes };
    store.commit(&block, &changes).unwrap();
    assert_eq!(store.audit(&record).unwrap().as_deref(), Some(&b"how it ended"[..]));
    assert_eq!(store.audit(&RecordId::ZERO), Ok(None));
    assert_eq!(store.block(Height::new(1)).unwrap().unwrap().body, block.block().body());
    chain.attestations = vec![attestation(3)];
    let (last, changes) = chain.next(Vec::new());
    assert!(!last.header().is_empty(), "a block with attestations alone is no heartbeat");
    store.commit(&last, &changes).unwrap();
    assert_eq!(verify(&store), Ok(3));
}

#[test]
fn attestations_in_a_block_are_bounded_counted_and_checked() {
    let seal = |attestations| {
        let body = VerifiedBody { attestations, ..VerifiedBody::default() };
        ProposedBlock::seal(Chain::new(1).draft, body, STAMP)
    };
    let many = vec![attestation(1); BLOCK_ATTESTATIONS_MAX + 1];
    assert_eq!(seal(many), Err(BlockError::TooManyAttestations { got: BLOCK_ATTESTATIONS_MAX + 1 }));
    let block = seal(vec![attestation(1)]).unwrap();
    let check = |body: Body| ProposedBlock::check(block.header().clone(), body, &chain_id(), STAMP);
    assert_eq!(check(Body::default()), Err(BlockError::AttestationCount { header: 1, body: 0 }));
    let mut body = block.body();
    body.attestations[0] = attestation(2).signed().clone();
    assert!(matches!(check(body.clone()), Err(BlockError::BodyRoot { .. })));
    body.attestations[0].attestation.height = Height::new(9);
    assert!(matches!(check(body), Err(BlockError::Attestation { index: 0, .. })));
}
