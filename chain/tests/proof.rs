//! The rules of requests, records and proofs: one case per error variant, and forged signatures of every kind.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use aria_chain::codec::Versioned;
use aria_chain::error::{ProofError, RecordError, RequestError};
use aria_chain::ids::{ChainId, Digest, ModelId, NodeId, RequestId};
use aria_chain::keys::{self, NodeKey, Signature};
use aria_chain::limits::PROOF_BYTES_MAX;
use aria_chain::proof::SignedProof;
use aria_chain::record::{BackendClass, InferenceRecord, Stage};
use aria_chain::request::{InferenceRequest, TaskType};
use aria_chain::units::{Height, Millis, Round};

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{Maker, chain_id, key, node};

/// A request with a change, or the rule that refuses it.
#[track_caller]
fn request_refused(change: impl FnOnce(&mut InferenceRequest), expected: RequestError) {
    let mut request = Maker::default().request();
    change(&mut request);
    assert_eq!(request.check(), Err(expected.clone()));
    let mut record = Maker::default().record();
    record.request_id = request.id();
    let proof = Maker::default().sign(request, record);
    assert_eq!(proof.verify(&chain_id()), Err(ProofError::Request(expected)));
}

#[track_caller]
fn record_refused(change: impl FnOnce(&mut InferenceRecord), expected: RecordError) {
    let mut record = Maker::default().record();
    change(&mut record);
    assert_eq!(record.check(), Err(expected.clone()));
    let proof = Maker::default().sign(Maker::default().request(), record);
    assert_eq!(proof.verify(&chain_id()), Err(ProofError::Record(expected)));
}

/// A record with a change that everyone signed, or the rule that refuses it.
#[track_caller]
fn claim_refused(change: impl FnOnce(&mut InferenceRecord), expected: ProofError) {
    let mut record = Maker::default().record();
    change(&mut record);
    let proof = Maker::default().sign(Maker::default().request(), record);
    assert_eq!(proof.verify(&chain_id()), Err(expected));
}

#[track_caller]
fn signature_refused(change: impl FnOnce(&mut SignedProof), expected: ProofError) {
    let mut proof = Maker::default().signed();
    change(&mut proof);
    assert_eq!(proof.verify(&chain_id()), Err(expected));
}

#[test]
fn an_honest_proof_is_verified() {
    let signed = Maker::default().signed();
    let verified = signed.clone().verify(&chain_id()).unwrap();
    assert_eq!(verified.proof(), &signed);
    assert_eq!(verified.request_id(), signed.request.id());
    assert_eq!(verified.record_id(), signed.record.id());
    assert_eq!(verified.size_bytes(), signed.encode().len());
    assert_eq!((verified.request(), verified.record()), (&signed.request, &signed.record));
    assert_ne!(verified.digest(), Digest::ZERO);
    assert_eq!(signed.record.layers(), 24);
    assert_eq!(verified.into_signed(), signed);
}

#[test]
fn the_longest_proof_fits_its_limit() {
    let stages = (0..32u16).map(|place| (2, place, place + 1)).collect();
    let maker = Maker { stages, ..Maker::default() };
    let mut request = maker.request();
    request.chain_id = ChainId::new("a".repeat(48)).unwrap();
    let mut record = maker.record();
    record.request_id = request.id();
    let size = maker.sign(request, record).encode().len();
    assert!(size <= PROOF_BYTES_MAX, "{size} bytes");
    assert!(PROOF_BYTES_MAX - size < 300, "the limit follows from the sizes: {size} bytes");
}

#[test]
fn every_number_of_a_request_has_its_range() {
    let range = |field, got, min, max| RequestError::Range { field, got, min, max };
    let (one, two, ten) = (1_000_000, 2_000_000, 10_000_000);
    request_refused(|r| r.temperature_ppm = 2_000_001, range("temperature_ppm", two + 1, 0, two));
    request_refused(|r| r.top_p_ppm = 1_000_001, range("top_p_ppm", one + 1, 0, one));
    request_refused(|r| r.top_k = 1_025, range("top_k", 1_025, 0, 1_024));
    request_refused(|r| r.min_p_ppm = 1_000_001, range("min_p_ppm", one + 1, 0, one));
    request_refused(|r| r.repetition_penalty_ppm = 0, range("repetition_penalty_ppm", 0, 1, ten));
    request_refused(|r| r.presence_penalty_ppm = -2_000_001, range("presence_penalty_ppm", -two - 1, -two, two));
    request_refused(|r| r.frequency_penalty_ppm = 2_000_001, range("frequency_penalty_ppm", two + 1, -two, two));
    request_refused(|r| r.choices = 0, RequestError::Choices { got: 0 });
    request_refused(|r| r.choices = 129, RequestError::Choices { got: 129 });
    request_refused(|r| r.max_tokens = 0, RequestError::NoTokens);
}

#[test]
fn bounds_themselves_are_allowed() {
    for edge in [0, 2_000_000] {
        assert_eq!(InferenceRequest { temperature_ppm: edge, ..Maker::default().request() }.check(), Ok(()));
    }
    let request = InferenceRequest { choices: 128, max_tokens: u32::MAX, ..Maker::default().request() };
    assert_eq!(request.check(), Ok(()));
    assert_eq!(request.tokens_max(), 128 * u64::from(u32::MAX));
}

#[test]
fn stages_cover_the_layers_without_gap() {
    let stage = |start, end| Stage { node_id: node(2), layer_start: start, layer_end: end };
    record_refused(|r| r.stages.clear(), RecordError::StageCount { got: 0 });
    record_refused(|r| r.stages = vec![stage(0, 1); 33], RecordError::StageCount { got: 33 });
    record_refused(|r| r.stages = vec![stage(0, 0)], RecordError::StageEmpty { stage: 0 });
    record_refused(|r| r.stages = vec![stage(0, 5), stage(5, 4)], RecordError::StageEmpty { stage: 1 });
    let gap = |stage, got, expected| RecordError::StageGap { stage, got, expected };
    record_refused(|r| r.stages = vec![stage(1, 5)], gap(0, 1, 0));
    record_refused(|r| r.stages = vec![stage(0, 5), stage(6, 9)], gap(1, 6, 5));
    record_refused(|r| r.stages = vec![stage(0, 5), stage(4, 9)], gap(1, 4, 5));
}

#[test]
fn a_record_does_not_contradict_itself() {
    let late = RecordError::FirstTokenLate { first_token: Millis::new(1_201), latency: Millis::new(1_200) };
    record_refused(|r| r.first_token_ms = Millis::new(1_201), late);
    record_refused(|r| r.prompt_tokens = 0, RecordError::NoPrompt);
    record_refused(|r| r.transcript_root = Digest::ZERO, RecordError::Transcript);
    record_refused(|r| r.backend = BackendClass::External, RecordError::Transcript);
    record_refused(|r| r.backend = BackendClass::Simulation, RecordError::Transcript);
    for backend in [BackendClass::External, BackendClass::Simulation] {
        Maker { backend, ..Maker::default() }.verified();
    }
}

#[test]
fn a_record_answers_its_request() {
    let request = Maker::default().request();
    let other = RequestId::new([1; 32]);
    claim_refused(|r| r.request_id = other, ProofError::RequestId { got: other, expected: request.id() });
    let other = ModelId::new([1; 32]);
    claim_refused(|r| r.model_id = other, ProofError::Model { got: other, expected: request.model_id });
    let other = Digest::new([1; 32]);
    claim_refused(|r| r.query_hash = other, ProofError::Prompt { got: other, expected: request.prompt_commitment });
    claim_refused(|r| r.tokens_generated = 201, ProofError::TooManyTokens { got: 201, max: 200 });
}

#[test]
fn a_proof_counts_on_one_chain_only() {
    let other = ChainId::new("aria-other").unwrap();
    let refused = ProofError::Chain { got: chain_id(), expected: other.clone() };
    assert_eq!(Maker::default().signed().verify(&other), Err(refused));
    // Renaming the chain inside does not help: the signatures are over the old name.
    let mut proof = Maker::default().signed();
    proof.request.chain_id = other.clone();
    proof.record.request_id = proof.request.id();
    let request = proof.request.id();
    assert_eq!(proof.verify(&other), Err(ProofError::RequestUnsigned { request }));
}

#[test]
fn everyone_involved_signs() {
    let honest = Maker::default().signed();
    let (request, record) = (honest.request.id(), honest.record.id());
    let forged = Signature::new([3; 64]);
    let count = |signatures| ProofError::StageSignatureCount { stages: 2, signatures };
    signature_refused(|p| p.stage_signatures.truncate(1), count(1));
    signature_refused(|p| p.stage_signatures.push(forged), count(3));
    signature_refused(|p| p.request_signature = forged, ProofError::RequestUnsigned { request });
    signature_refused(|p| p.receipt_signature = forged, ProofError::ReceiptUnsigned { record });
    signature_refused(|p| p.stage_signatures[0] = forged, ProofError::StageUnsigned { record, stage: 0 });
    signature_refused(|p| p.stage_signatures[1] = forged, ProofError::StageUnsigned { record, stage: 1 });
    signature_refused(|p| p.stage_signatures.swap(0, 1), ProofError::StageUnsigned { record, stage: 0 });
}

#[test]
fn a_signature_does_not_serve_in_another_role() {
    let honest = Maker::default().signed();
    let (request, record) = (honest.request.id(), honest.record.id());
    signature_refused(|p| p.request_signature = p.receipt_signature, ProofError::RequestUnsigned { request });
    signature_refused(|p| p.receipt_signature = p.request_signature, ProofError::ReceiptUnsigned { record });
    // One node runs both stages: its signature for the first does not serve for the second.
    let twice = Maker { stages: vec![(2, 0, 12), (2, 12, 24)], ..Maker::default() };
    let mut proof = twice.signed();
    let record = proof.record.id();
    proof.stage_signatures[1] = proof.stage_signatures[0];
    assert_eq!(proof.verify(&chain_id()), Err(ProofError::StageUnsigned { record, stage: 1 }));
}

#[test]
fn an_altered_record_loses_its_signatures() {
    let record_of = |proof: &SignedProof| proof.record.id();
    let mut proof = Maker::default().signed();
    proof.record.tokens_generated += 1;
    let record = record_of(&proof);
    assert_eq!(proof.verify(&chain_id()), Err(ProofError::StageUnsigned { record, stage: 0 }));
    let mut proof = Maker::default().signed();
    proof.record.stages[1].node_id = node(7);
    let record = record_of(&proof);
    assert_eq!(proof.verify(&chain_id()), Err(ProofError::StageUnsigned { record, stage: 0 }));
}

#[test]
fn keys_sign_per_purpose_and_show_nothing() {
    let (chain, request, record) = (chain_id(), RequestId::new([1; 32]), Maker::default().record().id());
    let block = aria_chain::ids::BlockHash::new([2; 32]);
    let (height, round) = (Height::new(3), Round::new(0));
    let (signer, signer_id, other) = (key(1), node(1), node(2));
    let signature = signer.sign_request(&chain, &request);
    assert!(keys::verify_request(&signer_id, &chain, &request, &signature));
    assert!(!keys::verify_request(&other, &chain, &request, &signature));
    let signature = signer.sign_stage(&chain, &record, 1);
    assert!(keys::verify_stage(&signer_id, &chain, &record, 1, &signature));
    assert!(!keys::verify_stage(&signer_id, &chain, &record, 2, &signature));
    assert!(!keys::verify_receipt(&signer_id, &chain, &record, &signature));
    let signature = signer.sign_receipt(&chain, &record);
    assert!(keys::verify_receipt(&signer_id, &chain, &record, &signature));
    let signature = signer.sign_precommit(&chain, height, round, &block);
    assert!(keys::verify_precommit(&signer_id, &chain, height, round, &block, &signature));
    assert!(!keys::verify_precommit(&signer_id, &chain, height, Round::new(1), &block, &signature));
    assert!(!keys::verify_precommit(&signer_id, &ChainId::new("x").unwrap(), height, round, &block, &signature));
    assert_eq!(format!("{signer:?}"), format!("NodeKey(secret of {signer_id})"));
    assert_eq!(format!("{signature:?}").len(), "Signature()".len() + 128);
    assert_eq!(Signature::new(*signature.as_bytes()), signature);
    assert_ne!(NodeKey::generate().unwrap().node_id(), NodeKey::generate().unwrap().node_id());
}

#[test]
fn a_key_has_one_spelling_and_weak_ones_sign_nothing() {
    let (chain, request) = (chain_id(), RequestId::new([1; 32]));
    let signature = key(1).sign_request(&chain, &request);
    let no_point = NodeId::new([2; 32]);
    assert!(!keys::verify_request(&no_point, &chain, &request, &signature));
    // The neutral element, canonical (y = 1) and not (y = p + 1), with a signature that non-strict rules accept.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut neutral_again = [0xff; 32];
    neutral_again[0] = 0xee;
    neutral_again[31] = 0x7f;
    let mut trivial = [0; 64];
    trivial[0] = 1;
    for weak in [neutral, neutral_again] {
        assert!(!keys::verify_request(&NodeId::new(weak), &chain, &request, &Signature::new(trivial)));
    }
    // s + order of the group is the same number for lax verifiers.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut malleable = *signature.as_bytes();
    let mut carry = 0u16;
    for (byte, add) in malleable[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    assert!(!keys::verify_request(&node(1), &chain, &request, &Signature::new(malleable)));
}

#[test]
fn task_types_have_the_names_of_the_field() {
    let read = |text: &str| serde_json::from_str::<TaskType>(&format!("\"{text}\"")).unwrap();
    assert_eq!(read("text_gen"), TaskType::TextGeneration);
    assert_eq!(read("text_generation"), TaskType::TextGeneration);
    assert_eq!(read("code_gen"), TaskType::CodeGeneration);
    assert_eq!(read("code_generation"), TaskType::CodeGeneration);
    for name in ["any", "text_gen", "code_gen", "summarization", "translation", "embedding"] {
        assert_eq!(serde_json::to_string(&read(name)).unwrap(), format!("\"{name}\""));
    }
}

#[test]
fn of_raw_bytes_only_a_handshake_of_tls_is_signed() {
    let key = key(7);
    let message = [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[9; 32]].concat();
    let signature = key.sign_tls(&message).unwrap();
    assert!(keys::verify_tls(&key.node_id(), &message, &signature));
    assert!(!keys::verify_tls(&node(8), &message, &signature));
    for other in [&message[1..], &message[..70], &[7; 32][..], &[][..]] {
        assert!(key.sign_tls(other).is_none());
        assert!(!keys::verify_tls(&key.node_id(), other, &signature));
    }
}
