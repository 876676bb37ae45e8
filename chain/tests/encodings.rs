//! Encodings are pinned: one digest per type. A change here is a change of consensus or of the disk format, and is made
//! in a commit of its own that says why.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use aria_chain::attestation::{Opening, SignedAttestation, Verdict};
use aria_chain::block::{Body, Header};
use aria_chain::certificate::{CommitCertificate, ValidatorSet};
use aria_chain::codec::{Versioned, to_bytes};
use aria_chain::consent::Consent;
use aria_chain::error::CodecError;
use aria_chain::evidence::Evidence;
use aria_chain::ids::{Digest, ModelId};
use aria_chain::model::{ModelName, proposal_id};
use aria_chain::proof::SignedProof;
use aria_chain::record::{BackendClass, EnergySource, InferenceRecord, RecordStatus};
use aria_chain::request::{InferenceRequest, TaskType};
use aria_chain::sobriety::{Hardware, SobrietyAttestation};
use aria_chain::store::Tip;
use aria_chain::store::schema::Place;
use aria_chain::transaction::{Action, SignedTransaction, Transaction, VerifiedTransaction};
use aria_chain::units::{Epoch, Height, Microjoules, Timestamp};
use proptest::prelude::*;

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{
    Chain, Maker, SHAPE, attestation, consent, order, proof, register, sign_transaction, state_root, transfer,
    validators,
};

fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let mut chain = Chain::new(4);
    let evidence = chain.equivocation(102);
    chain.evidence.push(evidence.clone());
    chain.transactions.push(transfer(1, 2, 0));
    chain.attestations.push(attestation(1));
    let block = chain.finalise(chain.propose(vec![proof(1), proof(2)]));
    let tip =
        Tip { height: Height::new(7), hash: block.hash(), timestamp_ms: Timestamp::new(8), state_root: state_root(7) };
    let place = Place { height: Height::new(7), index: 3, status: RecordStatus::Verified };
    vec![
        ("request", Maker::default().request().encode()),
        ("record", Maker::default().record().encode()),
        ("proof", Maker::default().signed().encode()),
        ("header", block.header().encode()),
        ("body", block.block().body().encode()),
        ("vote", to_bytes(&chain.votes(block.block())[0])),
        ("certificate", block.certificate().encode()),
        ("validator set", validators(4).encode()),
        ("evidence", evidence.encode()),
        ("transaction", transfer(1, 2, 0).signed().encode()),
        ("attestation", attestation(1).signed().encode()),
        ("doubt", doubt().signed().encode()),
        ("sobriety", sobriety().signed().encode()),
        ("leak", leak().signed().encode()),
        ("challenge", challenge().signed().encode()),
        ("delivery", delivery().signed().encode()),
        ("tip", to_bytes(&tip)),
        ("place", to_bytes(&place)),
        ("consent", consent(1, 0, Some(Consent::default())).encode()),
        ("revocation", consent(1, 0, None).encode()),
        ("model registration", register(1, "aria-tiny", SHAPE).encode()),
        ("model confirmation", confirmation().encode()),
    ]
}

fn confirmation() -> SignedTransaction {
    let (model, name) = (ModelId::new([7; 32]), ModelName::new("aria-tiny").unwrap());
    let action = Action::ConfirmModel { model, proposal: proposal_id(&model, &name, &SHAPE) };
    sign_transaction(1, Transaction { action, ..transfer(1, 2, 0).transaction().clone() })
}

fn doubt() -> VerifiedTransaction {
    order(1, 0, Action::Doubt { height: Height::new(9), index: 3, auditor: support::node(2) })
}

fn leak() -> VerifiedTransaction {
    let opening = Opening { secret: [4; 32], verdict: Verdict::Valid, root: Digest::new([5; 32]) };
    order(1, 0, Action::Leak { height: Height::new(9), index: 3, auditor: support::node(2), opening })
}

fn challenge() -> VerifiedTransaction {
    order(1, 0, Action::Challenge { height: Height::new(9), index: 3 })
}

fn delivery() -> VerifiedTransaction {
    order(1, 0, Action::Deliver { height: Height::new(9), index: 3, part: 1, parts: 2, sealed: vec![6, 7, 8] })
}

fn sobriety() -> VerifiedTransaction {
    let attestation = SobrietyAttestation {
        epoch: Epoch::new(3),
        hardware: Hardware::new("Example CPU 9000").unwrap(),
        energy_uj: Microjoules::new(1_234_567),
        tokens: 89,
        inferences: 10,
        is_measured: true,
    };
    order(1, 0, Action::Sobriety(attestation))
}

#[test]
fn encodings_do_not_change() {
    let found: Vec<String> = samples()
        .iter()
        .map(|(name, bytes)| format!("{name} {} {}", bytes.len(), &blake3::hash(bytes).to_hex()[..32]))
        .collect();
    let expected = include_str!("data/encodings.txt");
    assert_eq!(found, expected.lines().collect::<Vec<_>>());
}

#[test]
fn ids_do_not_change() {
    let maker = Maker::default();
    let chain = Chain::new(4);
    let found = [
        maker.request().id().to_string(),
        maker.record().id().to_string(),
        proof(0).digest().to_string(),
        chain.genesis.hash().to_string(),
        chain.propose(vec![proof(1)]).hash().to_string(),
        validators(4).hash().to_string(),
        aria_chain::merkle::empty_root().to_string(),
        register(1, "aria-tiny", SHAPE).transaction.id().to_string(),
        confirmation().transaction.id().to_string(),
        proposal_id(&ModelId::new([7; 32]), &ModelName::new("aria-tiny").unwrap(), &SHAPE).to_string(),
    ];
    let expected = include_str!("data/ids.txt");
    assert_eq!(found.to_vec(), expected.lines().collect::<Vec<_>>());
}

#[test]
fn numbers_of_variants_are_pinned() {
    let bytes = |status: RecordStatus| to_bytes(&status);
    let statuses: Vec<Vec<u8>> = RecordStatus::ALL.into_iter().map(bytes).collect();
    assert_eq!(statuses, [[1], [2], [3], [4], [5], [6]]);
    let names: Vec<&str> = RecordStatus::ALL.into_iter().map(RecordStatus::name).collect();
    assert_eq!(names, ["included", "verified", "refuted", "unavailable", "accepted", "self_audited"]);
    for status in RecordStatus::ALL {
        assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{}\"", status.name()));
    }
    assert_eq!((to_bytes(&EnergySource::Measured), to_bytes(&EnergySource::Estimated)), (vec![1], vec![2]));
    let classes = [BackendClass::Canonical, BackendClass::External, BackendClass::Simulation];
    assert_eq!(classes.map(|class| to_bytes(&class)), [[1], [2], [3]]);
    assert_eq!((to_bytes(&TaskType::Any), to_bytes(&TaskType::Embedding)), (vec![0], vec![5]));
    for unknown in [0, 7, 255] {
        assert!(borsh::from_slice::<RecordStatus>(&[unknown]).is_err());
    }
}

#[test]
fn the_longest_registration_fits_a_transaction() {
    let chain_id = aria_chain::ids::ChainId::new("x".repeat(48)).unwrap();
    let mut signed = register(1, &"x".repeat(64), SHAPE);
    signed.transaction.chain_id = chain_id;
    let bytes = signed.encode();
    assert_eq!((bytes.len(), SignedTransaction::decode(&bytes)), (300, Ok(signed)));
}

/// Decodes, and checks that what is accepted has no second spelling.
fn decode<T: Versioned>(bytes: &[u8]) -> Result<(), CodecError> {
    let value = T::decode(bytes)?;
    assert_eq!(value.encode(), bytes, "an accepted encoding is the only one");
    Ok(())
}

fn decode_as(name: &str, bytes: &[u8]) -> Result<(), CodecError> {
    match name {
        "request" => decode::<InferenceRequest>(bytes),
        "record" => decode::<InferenceRecord>(bytes),
        "proof" => decode::<SignedProof>(bytes),
        "header" => decode::<Header>(bytes),
        "body" => decode::<Body>(bytes),
        "certificate" => decode::<CommitCertificate>(bytes),
        "validator set" => decode::<ValidatorSet>(bytes),
        "evidence" => decode::<Evidence>(bytes),
        "transaction" | "doubt" | "sobriety" | "leak" | "challenge" | "delivery" | "consent" | "revocation"
        | "model registration" | "model confirmation" => decode::<SignedTransaction>(bytes),
        "attestation" => decode::<SignedAttestation>(bytes),
        other => panic!("no versioned type is called {other}"),
    }
}

const VERSIONED: [&str; 19] = [
    "request",
    "record",
    "proof",
    "header",
    "body",
    "certificate",
    "validator set",
    "evidence",
    "transaction",
    "attestation",
    "doubt",
    "sobriety",
    "leak",
    "challenge",
    "delivery",
    "consent",
    "revocation",
    "model registration",
    "model confirmation",
];

fn sample(name: &str) -> Vec<u8> {
    samples().into_iter().find(|(other, _)| *other == name).unwrap().1
}

#[test]
fn every_cut_and_every_addition_is_refused() {
    for name in VERSIONED {
        let bytes = sample(name);
        decode_as(name, &bytes).unwrap();
        for length in 0..bytes.len() {
            decode_as(name, &bytes[..length]).unwrap_err();
        }
        let longer = [&bytes[..], &[0]].concat();
        decode_as(name, &longer).unwrap_err();
        let mut newer = bytes;
        newer[0] += 1;
        let refused = decode_as(name, &newer).unwrap_err();
        assert!(matches!(refused, CodecError::Version { got, known, .. } if got == known + 1), "{refused}");
    }
}

#[test]
fn a_length_that_promises_gigabytes_is_refused_unread() {
    // The body's number of pieces of evidence follows its version byte, and after none those of transactions, attestations and proofs.
    let refused = Body::decode(&[3, 0xff, 0xff, 0xff, 0xff]).unwrap_err().to_string();
    assert!(refused.contains("4294967295 items, at most 16"), "{refused}");
    for nothing in [4, 12] {
        let bytes = [&[3][..], &vec![0; nothing], &[0xff; 4]].concat();
        let refused = Body::decode(&bytes).unwrap_err().to_string();
        assert!(refused.contains("4294967295 items, at most 1024"), "{refused}");
    }
    let refused = Body::decode(&[&[3][..], &[0; 8], &[0xff; 4]].concat()).unwrap_err().to_string();
    assert!(refused.contains("4294967295 items, at most 256"), "{refused}");
    let refused = Header::decode(&[3, 0xff, 0xff, 0xff, 0x7f]).unwrap_err().to_string();
    assert!(refused.contains("chain_id has 2147483647 items, at most 48"), "{refused}");
    assert!(matches!(Header::decode(&[3; 1_000]), Err(CodecError::TooLong { got: 1_000, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn altered_bytes_are_refused_or_are_another_value(
        which in 0..VERSIONED.len(), at in any::<prop::sample::Index>(), flip in 1u8..=255,
    ) {
        let name = VERSIONED[which];
        let mut bytes = sample(name);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _: Result<(), CodecError> = decode_as(name, &bytes);
    }

    #[test]
    fn any_bytes_are_read_without_harm(which in 0..VERSIONED.len(), bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _: Result<(), CodecError> = decode_as(VERSIONED[which], &bytes);
    }
}
