//! The local gateway: most clients of the OpenAI door have no key, so this node signs their requests for them. Those that have one
//! sign the same request and the same record by themselves.
//!
//! Sampling parameters are rounded to parts per million first, because that is what the signed request binds; the engine
//! runs with exactly those numbers.

use aria_chain::{
    error::ProofError,
    hash::{Domain, Salt, commit_logit_bias, commit_output, commit_prompt, commit_stop},
    ids::{ChainId, Digest, ModelId, NodeId, RequestId},
    keys::{NodeKey, Signature},
    proof::{SignedProof, VerifiedProof},
    record::{BackendClass, EnergySource, InferenceRecord, Stage},
    request::{AuditMode, InferenceRequest, PPM, TaskType},
    units::{Height, Microjoules, Millis, NanoAria, Timestamp},
};
use aria_inference::{
    backend::BackendKind,
    energy,
    generation::{GenerationRequest, Outcome},
    sampler::Sampling,
};

/// Blocks after which a request of ours can no longer be included. At a heartbeat a minute this is a week.
const EXPIRY_BLOCKS: u64 = 10_000;

/// Numbers that a request needs and that nobody can guess.
#[derive(Debug, Clone, Copy)]
pub struct Secrets {
    /// Salt of the prompt's commitment.
    pub prompt: Salt,
    /// Salt of the output's commitment.
    pub output: Salt,
    /// Salt of the commitments to options.
    pub options: Salt,
    nonce: u64,
}

impl Secrets {
    /// From the system's source of randomness.
    pub fn draw() -> Result<Secrets, getrandom::Error> {
        let mut bytes = [0; 104];
        getrandom::fill(&mut bytes)?;
        let part = |at: usize| -> Salt { bytes[at..at + 32].try_into().expect("a slice of 32 bytes") };
        let nonce = u64::from_le_bytes(bytes[96..].try_into().expect("a slice of 8 bytes"));
        Ok(Secrets { prompt: part(0), output: part(32), options: part(64), nonce })
    }
}

/// The salt of a transcript. It follows from that of the output's commitment, which binds it: whoever is given the one has the
/// other, and nobody can be given a wrong one.
pub fn transcript_salt(output: &Salt) -> Salt {
    *Domain::TRANSCRIPT_SALT.hash(output).as_bytes()
}

/// The bias of tokens as a request binds it: by token, in parts per million.
pub fn bias_ppm(sampling: &Sampling) -> Vec<(u32, i64)> {
    let mut bias: Vec<(u32, i64)> = sampling.logit_bias.iter().map(|(token, bias)| (*token, ppm(*bias))).collect();
    bias.sort_unstable();
    bias
}

/// What a client says of its request besides what is to be computed.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Who may see its tokens afterwards.
    pub audit: AuditMode,
    /// What kind of task it is.
    pub task: TaskType,
    /// What its requester pays.
    pub max_fee: NanoAria,
}

/// A signed request, with what only its parties know.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The request.
    pub request: InferenceRequest,
    /// Its id.
    pub id: RequestId,
    signature: Signature,
    /// What only its parties know.
    pub secrets: Secrets,
}

impl Admitted {
    /// A request that its requester signed.
    pub fn new(request: InferenceRequest, signature: Signature, secrets: Secrets) -> Admitted {
        Admitted { id: request.id(), request, signature, secrets }
    }

    /// Its requester's.
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// With its answer's record, and the signatures of all of its stages, in order.
    pub fn answered(self, record: InferenceRecord, stages: Vec<Signature>) -> Unreceipted {
        Unreceipted { request: self.request, record, stages, requester: self.signature }
    }
}

/// What a requester is to sign for `generation`, for a block above `tip`.
pub fn request(
    requester: NodeId,
    (chain_id, model_id): (&ChainId, ModelId),
    tip: Height,
    (generation, Terms { audit, task, max_fee }): (&GenerationRequest, Terms),
    secrets: &Secrets,
) -> InferenceRequest {
    let GenerationRequest { sampling, .. } = generation;
    let bias = bias_ppm(sampling);
    InferenceRequest {
        chain_id: chain_id.clone(),
        model_id,
        prompt_commitment: commit_prompt(&secrets.prompt, &generation.prompt),
        temperature_ppm: unsigned(ppm(sampling.temperature)),
        top_p_ppm: unsigned(ppm(sampling.top_p)),
        top_k: sampling.top_k,
        min_p_ppm: unsigned(ppm(sampling.min_p)),
        repetition_penalty_ppm: unsigned(ppm(sampling.repetition_penalty)),
        presence_penalty_ppm: signed(ppm(sampling.presence_penalty)),
        frequency_penalty_ppm: signed(ppm(sampling.frequency_penalty)),
        logit_bias_commitment: commit_logit_bias(&secrets.options, &bias),
        seed: sampling.seed,
        choices: u8::try_from(generation.choices).unwrap_or(u8::MAX),
        max_tokens: generation.max_tokens,
        stop_commitment: commit_stop(&secrets.options, &generation.stop),
        task_type: task,
        audit,
        max_fee,
        requester,
        nonce: secrets.nonce,
        expiry: Height::new(tip.get().saturating_add(EXPIRY_BLOCKS)),
    }
}

/// Signs a request as its requester.
pub fn admit(key: &NodeKey, request: InferenceRequest, secrets: Secrets) -> Admitted {
    let signature = key.sign_request(&request.chain_id, &request.id());
    Admitted::new(request, signature, secrets)
}

/// A record that its stages signed, and its requester not yet.
#[derive(Debug, Clone)]
pub struct Unreceipted {
    /// What was asked.
    pub request: InferenceRequest,
    /// What is claimed.
    pub record: InferenceRecord,
    stages: Vec<Signature>,
    requester: Signature,
}

impl Unreceipted {
    /// With the requester's signature over the record.
    ///
    /// # Errors
    /// If it is not the requester's, or the proof breaks another rule of `docs/proof.md`.
    pub fn receipted(self, receipt: Signature) -> Result<VerifiedProof, ProofError> {
        let chain_id = self.request.chain_id.clone();
        let Unreceipted { request, record, stages, requester } = self;
        let proof = SignedProof {
            request,
            record,
            stage_signatures: stages,
            request_signature: requester,
            receipt_signature: receipt,
        };
        proof.verify(&chain_id)
    }

    /// With this node's own signature as the requester that received it.
    ///
    /// # Errors
    /// As above.
    pub fn received(self, key: &NodeKey) -> Result<VerifiedProof, ProofError> {
        let receipt = key.sign_receipt(&self.request.chain_id, &self.record.id());
        self.receipted(receipt)
    }
}

/// The record of a finished answer by these stages.
pub fn record(
    admitted: &Admitted,
    outcome: &Outcome,
    (backend, stages): (BackendKind, Vec<Stage>),
    now: Timestamp,
) -> InferenceRecord {
    let Admitted { request, id, secrets, .. } = admitted;
    let outputs: Vec<Vec<u32>> = outcome.choices.iter().map(|choice| choice.tokens.clone()).collect();
    let (class, root) = match backend {
        BackendKind::Builtin => (BackendClass::Canonical, Digest::new(outcome.transcript_root)),
        BackendKind::Simulation => (BackendClass::Simulation, Digest::ZERO),
    };
    InferenceRecord {
        request_id: *id,
        query_hash: request.prompt_commitment,
        output_hash: commit_output(&secrets.output, &outputs),
        model_id: request.model_id,
        stages,
        energy_uj: Microjoules::new(outcome.energy.microjoules),
        energy_source: match outcome.energy.source {
            energy::EnergySource::Measured => EnergySource::Measured,
            energy::EnergySource::Estimated => EnergySource::Estimated,
        },
        latency_ms: Millis::new(u64::from(outcome.total_ms)),
        first_token_ms: Millis::new(u64::from(outcome.first_token_ms)),
        prompt_tokens: outcome.prompt_tokens,
        tokens_generated: outcome.generated_tokens,
        timestamp_ms: now,
        backend: class,
        transcript_root: root,
    }
}

/// The same parameters as the signed request can say them.
pub fn settle(sampling: Sampling) -> Sampling {
    let whole = |value: f32| from_ppm(ppm(value));
    Sampling {
        temperature: whole(sampling.temperature),
        // Nothing is left of a nucleus of zero; the smallest that can be said stands for it.
        top_p: from_ppm(ppm(sampling.top_p).max(1)),
        min_p: whole(sampling.min_p),
        repetition_penalty: whole(sampling.repetition_penalty),
        presence_penalty: whole(sampling.presence_penalty),
        frequency_penalty: whole(sampling.frequency_penalty),
        logit_bias: sampling.logit_bias.into_iter().map(|(token, bias)| (token, whole(bias))).collect(),
        ..sampling
    }
}

/// A parameter as a request says it, in parts per million.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast from float saturates, and ranges are checked by the engine"
)]
pub fn ppm(value: f32) -> i64 {
    (f64::from(value) * f64::from(PPM)).round_ties_even() as i64
}

/// A number that a request gives in parts per million.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "below 2^53; the nearest f32 is meant"
)]
pub fn from_ppm(value: i64) -> f32 {
    (value as f64 / f64::from(PPM)) as f32
}

fn unsigned(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

fn signed(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX })
}

/// Whether this node asked and ran everything in the record itself.
pub fn is_ours(proof: &VerifiedProof, me: &NodeId) -> bool {
    proof.request().requester == *me && proof.record().stages.iter().all(|stage| stage.node_id == *me)
}

#[cfg(test)]
mod tests {
    use aria_inference::{
        energy::Energy,
        generation::{ChoiceOutcome, FinishReason},
    };

    use super::*;

    fn generation() -> GenerationRequest {
        let sampling =
            Sampling { temperature: 0.7, logit_bias: vec![(9, -1.5), (3, 2.0)], seed: 11, ..Sampling::default() };
        GenerationRequest {
            prompt: vec![1, 2, 3],
            choices: 1,
            max_tokens: 8,
            stop: vec!["x".into()],
            sampling,
            logprobs: None,
            salt: [0; 32],
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            choices: vec![ChoiceOutcome {
                tokens: vec![5, 6],
                text: "ab".into(),
                finish: FinishReason::Stop,
                boundary_roots: Vec::new(),
            }],
            transcript_root: [7; 32],
            prompt_tokens: 3,
            cached_tokens: 0,
            generated_tokens: 2,
            first_token_ms: 4,
            total_ms: 9,
            prefill_ms: 3,
            cpu_us: 8000,
            energy: Energy { microjoules: 20, source: energy::EnergySource::Estimated },
            cancelled: false,
        }
    }

    /// By one node alone, which is its own client.
    fn prove(key: &NodeKey, admitted: Admitted, backend: BackendKind) -> Result<VerifiedProof, ProofError> {
        let stages = vec![Stage { node_id: key.node_id(), layer_start: 0, layer_end: 6 }];
        let record = record(&admitted, &outcome(), (backend, stages), Timestamp::new(77));
        let signature = key.sign_stage(&admitted.request.chain_id, &record.id(), 0);
        admitted.answered(record, vec![signature]).received(key)
    }

    fn admitted(key: &NodeKey, chain: &ChainId) -> Admitted {
        let secrets = Secrets::draw().expect("randomness");
        let terms = Terms { audit: AuditMode::Committee, task: TaskType::CodeGeneration, max_fee: NanoAria::new(5) };
        let asked = (&generation(), terms);
        admit(key, request(key.node_id(), (chain, ModelId::new([2; 32])), Height::new(5), asked, &secrets), secrets)
    }

    #[test]
    fn a_finished_answer_becomes_a_proof_that_verifies() {
        let (key, chain) = (NodeKey::from_seed(&[1; 32]), "aria-test".parse::<ChainId>().expect("a name"));
        let proof = prove(&key, admitted(&key, &chain), BackendKind::Builtin).expect("verifies");
        assert!(is_ours(&proof, &key.node_id()));
        assert_eq!(proof.record().tokens_generated, 2);
        assert_eq!(proof.request().temperature_ppm, 700_000);
        assert_eq!(proof.request().task_type, TaskType::CodeGeneration, "as the client said");
        assert_eq!(proof.request().max_fee, NanoAria::new(5));
        assert!(
            proof.clone().into_signed().verify(&"aria-other".parse().expect("a name")).is_err(),
            "bound to its chain"
        );
    }

    #[test]
    fn a_simulated_answer_is_marked_and_has_no_transcript() {
        let (key, chain) = (NodeKey::from_seed(&[1; 32]), "aria-test".parse::<ChainId>().expect("a name"));
        let proof = prove(&key, admitted(&key, &chain), BackendKind::Simulation).expect("verifies");
        assert_eq!((proof.record().backend, proof.record().transcript_root), (BackendClass::Simulation, Digest::ZERO));
    }

    #[test]
    fn two_equal_requests_share_no_commitment_and_no_id() {
        let (key, chain) = (NodeKey::from_seed(&[1; 32]), "aria-test".parse::<ChainId>().expect("a name"));
        let (one, two) = (admitted(&key, &chain), admitted(&key, &chain));
        assert_ne!(one.id, two.id);
        assert_ne!(one.request.prompt_commitment, two.request.prompt_commitment);
    }

    #[test]
    fn the_engine_runs_with_the_numbers_that_are_signed() {
        let sampling = settle(Sampling { temperature: 0.123_456_79, top_p: 1e-9, ..Sampling::default() });
        assert_eq!(ppm(sampling.temperature), 123_457);
        assert_eq!(ppm(sampling.top_p), 1);
        assert_eq!(settle(sampling.clone()), sampling, "settling twice changes nothing");
    }
}
