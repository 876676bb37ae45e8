//! Evidence: what convicts, and that nothing else does.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use aria_chain::block::{Body, ProposedBlock, VerifiedBody};
use aria_chain::codec::Versioned;
use aria_chain::error::{BlockError, EvidenceError};
use aria_chain::evidence::{Evidence, Said};
use aria_chain::ids::{BlockHash, ChainId};
use aria_chain::keys::Signature;
use aria_chain::limits::{BLOCK_EVIDENCE_MAX, EVIDENCE_BYTES_MAX};
use aria_chain::store::{MemoryStore, Store};
use aria_chain::units::{Height, Round};

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{Chain, STAMP, chain_id, key, node, proof, verify};

const HEIGHT: Height = Height::new(7);
const ROUND: Round = Round::new(2);

fn hash(byte: u8) -> BlockHash {
    BlockHash::new([byte; 32])
}

fn signed(said: Said) -> (Said, Signature) {
    let (key, chain) = (key(5), chain_id());
    let signature = match &said {
        Said::Proposal { block, polka } => key.sign_proposal(&chain, HEIGHT, ROUND, block, *polka),
        Said::Prevote(block) => key.sign_prevote(&chain, HEIGHT, ROUND, block.as_ref()),
        Said::Precommit(Some(block)) => key.sign_precommit(&chain, HEIGHT, ROUND, block),
        Said::Precommit(None) => key.sign_nil_precommit(&chain, HEIGHT, ROUND),
    };
    (said, signature)
}

fn evidence(one: Said, other: Said) -> Evidence {
    Evidence::new(node(5), HEIGHT, ROUND, signed(one), signed(other))
}

#[test]
fn two_statements_about_different_blocks_convict_in_either_order() {
    let polka = Some(Round::ZERO);
    let pairs = [
        (Said::Prevote(Some(hash(1))), Said::Prevote(Some(hash(2)))),
        (Said::Prevote(None), Said::Prevote(Some(hash(2)))),
        (Said::Precommit(Some(hash(1))), Said::Precommit(Some(hash(2)))),
        (Said::Precommit(None), Said::Precommit(Some(hash(2)))),
        (Said::Proposal { block: hash(1), polka: None }, Said::Proposal { block: hash(2), polka }),
    ];
    for (one, other) in pairs {
        let found = evidence(one, other);
        assert_eq!(found.check(&chain_id()), Ok(()), "{}", one.name());
        assert_eq!(found, evidence(other, one), "one contradiction has one encoding");
        let bytes = found.encode();
        assert!(bytes.len() <= EVIDENCE_BYTES_MAX);
        assert_eq!(Evidence::decode(&bytes), Ok(found.clone()));
        let other_chain = ChainId::new("other").unwrap();
        assert!(matches!(found.check(&other_chain), Err(EvidenceError::Signature { .. })));
    }
}

#[test]
fn nothing_else_convicts() {
    let vote = Said::Prevote(Some(hash(1)));
    let same = evidence(vote, vote);
    assert_eq!(same.check(&chain_id()), Err(EvidenceError::Order));
    let (again, anew) = (Said::Proposal { block: hash(1), polka: None }, Some(Round::ZERO));
    let again = evidence(again, Said::Proposal { block: hash(1), polka: anew });
    assert_eq!(again.check(&chain_id()), Err(EvidenceError::Order), "the same block again");
    let kinds = EvidenceError::Kinds { first: "prevote", second: "precommit" };
    assert_eq!(evidence(vote, Said::Precommit(Some(hash(2)))).check(&chain_id()), Err(kinds));
    let good = evidence(vote, Said::Prevote(None));
    let swapped = Evidence { first: good.second, second: good.first, ..good.clone() };
    assert_eq!(swapped.check(&chain_id()), Err(EvidenceError::Order));
    // Each field is signed, by both.
    let signature = EvidenceError::Signature { node: node(5), kind: "prevote" };
    for changed in [
        Evidence { height: Height::new(8), ..good.clone() },
        Evidence { round: Round::ZERO, ..good.clone() },
        Evidence { first: (good.first.0, good.second.1), ..good.clone() },
        Evidence { second: (Said::Prevote(Some(hash(9))), good.second.1), ..good.clone() },
    ] {
        assert_eq!(changed.check(&chain_id()), Err(signature.clone()));
    }
    let framed = Evidence { node_id: node(6), ..good };
    assert_eq!(framed.check(&chain_id()), Err(EvidenceError::Signature { node: node(6), kind: "prevote" }));
}

#[test]
fn a_block_carries_evidence_and_its_store_finds_it() {
    let mut chain = Chain::new(3);
    let store = MemoryStore::new(&chain.genesis, &chain.initial()).unwrap();
    chain.evidence = vec![chain.equivocation(101), chain.equivocation(102)];
    let pieces = chain.evidence.clone();
    let (block, changes) = chain.next(vec![proof(1)]);
    assert_eq!((block.header().evidence_count, block.block().evidence()), (2, &pieces[..]));
    let checked = ProposedBlock::check(block.header().clone(), block.block().body(), &chain_id(), STAMP).unwrap();
    assert_eq!(&checked, block.block());
    store.commit(&block, &changes).unwrap();
    chain.evidence = vec![chain.equivocation(103)];
    let (last, changes) = chain.next(Vec::new());
    assert!(!last.header().is_empty());
    store.commit(&last, &changes).unwrap();
    let (block, changes) = chain.hand_over(2);
    store.commit(&block, &changes).unwrap();
    let (block, changes) = chain.next(Vec::new());
    store.commit(&block, &changes).unwrap();
    assert_eq!(verify(&store), Ok(5), "blocks, evidence and sets hang together");

    let found = store.evidence(None, 2).unwrap();
    let accused: Vec<_> = found.iter().map(|(place, piece)| (place.height.get(), place.index, piece.node_id)).collect();
    assert_eq!(accused, [(2, 0, node(103)), (1, 1, node(102))], "the newest first");
    let rest = store.evidence(Some(found[1].0), 9).unwrap();
    assert_eq!(rest.iter().map(|(_, piece)| piece).collect::<Vec<_>>(), [&pieces[0]]);
}

#[test]
fn evidence_in_a_block_is_bounded_counted_and_checked() {
    let chain = Chain::new(1);
    let piece = chain.equivocation(101);
    let mut bad = piece.clone();
    bad.node_id = node(102);
    let seal = |evidence: Vec<Evidence>| {
        let body = VerifiedBody { evidence, ..VerifiedBody::default() };
        ProposedBlock::seal(Chain::new(1).draft, body, STAMP)
    };
    let fault = EvidenceError::Signature { node: node(102), kind: "prevote" };
    assert_eq!(seal(vec![piece.clone(), bad]), Err(BlockError::Evidence { index: 1, fault }));
    let many = vec![piece.clone(); BLOCK_EVIDENCE_MAX + 1];
    assert_eq!(seal(many.clone()), Err(BlockError::TooMuchEvidence { got: BLOCK_EVIDENCE_MAX + 1 }));
    let bytes = Body { evidence: many, ..Body::default() }.encode();
    assert!(Body::decode(&bytes).unwrap_err().to_string().contains("at most 16"), "refused before it is read");
    let block = seal(vec![piece]).unwrap();
    let without = ProposedBlock::check(block.header().clone(), Body::default(), &chain_id(), STAMP);
    assert_eq!(without, Err(BlockError::EvidenceCount { header: 1, body: 0 }));
}
