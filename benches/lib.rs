//! What the benches share: proofs and blocks as a node makes them, from fixed keys, so that every run measures the same bytes.
//!
//! Run all with `cargo bench -p aria-benches`; figures and their commands are in `docs/benchmarks.md`. In reading order: `engine`
//! (prefill and decode), `execute` (signatures and the state transition), `store` (commits and reads), `network` (a devnet under load), `pipeline` (answers by
//! several nodes of one); [`devnet`] starts it.

pub mod devnet;

use aria_chain::{
    block::{FinalBlock, Header},
    certificate::{CommitCertificate, Vote},
    hash::{commit_logit_bias, commit_output, commit_prompt, commit_stop},
    ids::{Digest, ModelId},
    keys::NodeKey,
    proof::{SignedProof, VerifiedProof},
    record::{BackendClass, EnergySource, InferenceRecord, Stage},
    request::{AuditMode, InferenceRequest, PPM, TaskType},
    units::{Height, Microjoules, Millis, NanoAria, Round, Timestamp},
};
use aria_runtime::beacon;
use aria_runtime::{
    execute::ExecutedBlock,
    genesis::Genesis,
    propose::{Slot, propose},
    state::View,
};

/// The development chain of a fixed key.
pub fn chain() -> (NodeKey, Genesis) {
    let key = NodeKey::from_seed(&[7; 32]);
    let text = include_str!("../genesis/devnet.toml");
    let genesis =
        Genesis::from_toml(text, Some(key.node_id())).expect("the genesis file of this project is a good one");
    (key, genesis)
}

/// Proof number `number` for the block on `parent`, signed by `key` in every role.
pub fn proof(key: &NodeKey, genesis: &Genesis, parent: &Header, number: u64) -> SignedProof {
    let timestamp = Timestamp::new(parent.timestamp_ms.get() + genesis.params().heartbeat_ms - 1);
    proof_at(key, genesis, (parent.height, timestamp), number, AuditMode::Committee)
}

/// Proof number `number` of this moment, signed by `key` in every role.
pub fn proof_at(
    key: &NodeKey,
    genesis: &Genesis,
    (tip, timestamp_ms): (Height, Timestamp),
    number: u64,
    audit: AuditMode,
) -> SignedProof {
    let (chain_id, salt) = (genesis.chain_id(), [1; 32]);
    let request = InferenceRequest {
        chain_id: chain_id.clone(),
        model_id: model(),
        prompt_commitment: commit_prompt(&salt, &[1, 2, 3]),
        temperature_ppm: PPM,
        top_p_ppm: PPM,
        top_k: 40,
        min_p_ppm: 0,
        repetition_penalty_ppm: PPM,
        presence_penalty_ppm: 0,
        frequency_penalty_ppm: 0,
        logit_bias_commitment: commit_logit_bias(&salt, &[]),
        seed: number,
        choices: 1,
        max_tokens: 100,
        stop_commitment: commit_stop(&salt, &[]),
        task_type: TaskType::TextGeneration,
        audit,
        max_fee: NanoAria::ZERO,
        requester: key.node_id(),
        nonce: number,
        expiry: Height::new(tip.get() + 1_000),
    };
    let id = request.id();
    let record = InferenceRecord {
        request_id: id,
        query_hash: request.prompt_commitment,
        output_hash: commit_output(&salt, &[vec![4, 5]]),
        model_id: request.model_id,
        stages: vec![Stage { node_id: key.node_id(), layer_start: 0, layer_end: 6 }],
        energy_uj: Microjoules::new(30_000),
        energy_source: EnergySource::Estimated,
        latency_ms: Millis::new(900),
        first_token_ms: Millis::new(20),
        prompt_tokens: 12,
        tokens_generated: 50,
        timestamp_ms,
        backend: BackendClass::Canonical,
        transcript_root: Digest::new([9; 32]),
    };
    let record_id = record.id();
    SignedProof {
        stage_signatures: vec![key.sign_stage(chain_id, &record_id, 0)],
        request_signature: key.sign_request(chain_id, &id),
        receipt_signature: key.sign_receipt(chain_id, &record_id),
        request,
        record,
    }
}

fn model() -> ModelId {
    let line = include_str!("../genesis/devnet.toml").lines().find_map(|line| line.strip_prefix("digest = \""));
    let digest = line.and_then(|line| line.strip_suffix('"')).expect("the genesis file registers a model");
    digest.parse().expect("its digest is one")
}

/// `count` verified proofs for the block on `parent`, numbered from `first`.
pub fn proofs(key: &NodeKey, genesis: &Genesis, parent: &Header, first: u64, count: u64) -> Vec<VerifiedProof> {
    let verify = |number| proof(key, genesis, parent, number).verify(genesis.chain_id()).expect("signed a moment ago");
    (first..first + count).map(verify).collect()
}

/// The next final block on `parent` with these proofs, and what it does.
pub fn block(
    key: &NodeKey,
    genesis: &Genesis,
    parent: &Header,
    view: &dyn View,
    proofs: Vec<VerifiedProof>,
) -> (FinalBlock, ExecutedBlock) {
    let heartbeat_ms = genesis.params().heartbeat_ms;
    let timestamp = Timestamp::new(parent.timestamp_ms.get() + heartbeat_ms);
    let height = parent.height.next().expect("a height");
    let vrf = key.prove_vrf(&beacon::input(height, view).expect("a state that can be read"));
    let slot = Slot { parent, round: Round::ZERO, timestamp, proposer: key.node_id(), vrf };
    let proposal = propose(slot, proofs.into(), view, genesis).expect("a slot of the only validator");
    assert!(proposal.skipped.is_empty(), "every proof was made for this block: {:?}", proposal.skipped);
    let (block, executed) = proposal.block.expect("a heartbeat is due at the least");
    let (height, hash) = (block.header().height, block.hash());
    let vote = Vote::sign(key, genesis.chain_id(), height, Round::ZERO, hash);
    let certificate = CommitCertificate::gather(height, Round::ZERO, hash, &[vote]);
    let block = FinalBlock::new(block, certificate, genesis.validators()).expect("the only validator voted");
    (block, executed)
}

/// The program, beside the running bench in the build folder.
///
/// # Panics
/// If it was not built.
pub fn program() -> std::path::PathBuf {
    let bench = std::env::current_exe().expect("its own path");
    let program = bench.ancestors().nth(2).expect("a build folder").join("aria");
    assert!(program.is_file(), "{}: run `cargo build --release` first", program.display());
    program
}
