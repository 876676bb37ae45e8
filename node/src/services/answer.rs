//! One answer, from the order to the acknowledged record.
//!
//! The engine's events pass through a task of their own: a slow client holds up its own events, never the engine. The end
//! of an answer is told only after its record is signed, checked by running it again, and on disk.

use std::sync::Arc;

use aria_chain::{
    ids::ModelId,
    request::AuditMode,
    units::{NanoAria, Timestamp},
};
use aria_inference::{
    backend::{BackendKind, CancelToken, SubmitError},
    energy::EnergySource,
    generation::{Event, GenerationRequest, Outcome, TokenLogprobs},
    sampler::Sampling,
    tokenizer::Tokenizer,
    verify::{Claim, Verdict},
};
use aria_rpc::services::{
    AriaExtension, CancelGuard, Finished, GenerateCall, GenerateError, Generation, GenerationEvent, Logprob, Prompt,
    TokenChance,
};
use aria_runtime::{rules::fee::could_earn, state::Reader};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

use super::{
    Served,
    gateway::{self, Admitted, Secrets, Terms},
    payment,
};
use crate::{
    audit::payload::Payload,
    chain::Chain,
    consent::{Governor, Wanted},
    supervisor::Spawner,
};

/// Events that wait for a client before its own task waits with them.
const CLIENT_EVENTS: usize = 64;
/// When it is worth asking a busy node again.
const RETRY_AFTER_S: u64 = 1;

/// Starts an answer; the rest happens on a task of its own.
pub(super) fn start(
    (chain, governor): (&Arc<Chain>, &Arc<Governor>),
    (served, client_fee): (&Served, NanoAria),
    spawner: &Spawner,
    call: GenerateCall,
) -> Result<Generation, GenerateError> {
    if call.model != served.name {
        return Err(GenerateError::UnknownModel(call.model));
    }
    if !chain.mempool().has_room(&chain.key.node_id()) {
        return Err(GenerateError::Busy {
            reason: "too many records wait for a block".into(),
            retry_after_s: RETRY_AFTER_S,
        });
    }
    let secrets = Secrets::draw().map_err(no_randomness)?;
    let terms = Terms { audit: call.audit, task: call.task, max_fee: payment::fee(chain, client_fee, &call)? };
    let ram_mb = call.ram_mb;
    let request = generation_request((served, governor), call, &secrets)?;
    let model_id = ModelId::new(served.backend.model().digest.0);
    let permit = governor.admit(&wanted(chain, served, &request, (terms, ram_mb))?)?;
    let admitted =
        gateway::admit(&chain.key, chain.genesis.chain_id(), model_id, chain.tip_height(), (&request, terms), secrets);

    let cancel = CancelToken::new();
    // One place for every event there can be: the engine's thread never waits.
    let places = request.choices as usize * (request.max_tokens as usize + 1) + 2;
    let (sink, engine_events) = mpsc::channel(places);
    let overflow = cancel.clone();
    let sink = Box::new(move |event| {
        if sink.try_send(event).is_err() {
            overflow.cancel();
        }
    });
    served.backend.submit(request.clone(), cancel.clone(), sink).map_err(refusal)?;
    metrics::counter!("aria_requests_total").increment(1);

    let (to_client, events) = mpsc::channel(CLIENT_EVENTS);
    let generation = Generation {
        request_id: admitted.id.to_string(),
        prompt_tokens: u32::try_from(request.prompt.len()).unwrap_or(u32::MAX),
        events,
        guard: CancelGuard(cancel.clone()),
    };
    let recorder = Recorder { chain: Arc::clone(chain), backend: Arc::clone(&served.backend), admitted, request };
    spawner.spawn(async move {
        forward(recorder, engine_events, to_client, cancel).await;
        drop(permit);
    });
    Ok(generation)
}

/// What a request asks of this node's consent.
fn wanted(
    chain: &Chain,
    served: &Served,
    request: &GenerationRequest,
    (terms, ram_mb): (Terms, u32),
) -> Result<Wanted, GenerateError> {
    let info = served.backend.model();
    // What is longer than the context is for the engine to refuse.
    let positions = request.positions().min(info.context) as u64;
    let kv_bytes = u64::from(request.choices) * positions * info.kv_shape().bytes_per_position() as u64;
    let reward = earnings(chain, served, &ModelId::new(info.digest.0), terms)?;
    Ok(Wanted { at: Timestamp::new(chain.clock.now_ms()), task: terms.task, ram_mb, kv_bytes, reward })
}

/// What an answer can earn, by a model that the chain knows, run exactly, that auditors may check.
fn earnings(chain: &Chain, served: &Served, model: &ModelId, terms: Terms) -> Result<NanoAria, GenerateError> {
    let is_payable = terms.audit == AuditMode::Committee && served.backend.kind() == BackendKind::Builtin;
    let known = Reader(&chain.view()).model(model).map_err(|error| GenerateError::Engine(error.to_string()))?;
    if !is_payable || known.is_none() {
        return Ok(NanoAria::ZERO);
    }
    Ok(could_earn(terms.max_fee, chain.is_audited(), chain.genesis.params()))
}

fn no_randomness(error: getrandom::Error) -> GenerateError {
    GenerateError::Engine(format!("the system's source of randomness failed: {error}"))
}

/// Tokens and parameters of a call.
fn generation_request(
    (served, governor): (&Served, &Governor),
    call: GenerateCall,
    secrets: &Secrets,
) -> Result<GenerationRequest, GenerateError> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(no_randomness)?;
    let drawn = u64::from_le_bytes(seed);
    let prompt = tokens(served, &call.prompt)?;
    let info = served.backend.model();
    // Who does not say how long an answer may be gets as much as there is memory for.
    let room = governor.positions_max(call.choices, info.kv_shape().bytes_per_position() as u64);
    let rest = info.context.min(room).saturating_sub(prompt.len()).max(1);
    let sampling = Sampling { seed: if call.is_seeded { call.sampling.seed } else { drawn }, ..call.sampling };
    Ok(GenerationRequest {
        prompt,
        choices: call.choices,
        max_tokens: call.max_tokens.unwrap_or_else(|| u32::try_from(rest).unwrap_or(u32::MAX)),
        stop: call.stop,
        sampling: gateway::settle(sampling),
        logprobs: call.logprobs,
        salt: gateway::transcript_salt(&secrets.output),
    })
}

fn tokens(served: &Served, prompt: &Prompt) -> Result<Vec<u32>, GenerateError> {
    let tokenizer = served.backend.tokenizer();
    match prompt {
        Prompt::Chat(messages) => {
            let template = served
                .backend
                .chat()
                .ok_or_else(|| GenerateError::Messages("the model has no chat template; use /v1/completions".into()))?;
            template.encode(tokenizer, messages).map_err(|error| GenerateError::Messages(error.to_string()))
        }
        Prompt::Text(text) => {
            let begin = tokenizer.bos().filter(|_| tokenizer.adds_bos());
            let rest = tokenizer.encode(text).map_err(|error| GenerateError::Messages(error.to_string()))?;
            Ok(begin.into_iter().chain(rest).collect())
        }
        Prompt::Tokens(tokens) => Ok(tokens.clone()),
    }
}

fn refusal(error: SubmitError) -> GenerateError {
    match error {
        SubmitError::Busy { .. } => GenerateError::Busy { reason: error.to_string(), retry_after_s: RETRY_AFTER_S },
        SubmitError::Invalid(error) => GenerateError::Request(error),
        SubmitError::Stopped => GenerateError::NotReady { reason: error.to_string() },
        SubmitError::Unsupported { .. } => GenerateError::Engine(error.to_string()),
    }
}

/// Passes events on until the end. A client that is gone cancels the engine's work.
async fn forward(
    recorder: Recorder,
    mut engine: mpsc::Receiver<Event>,
    client: mpsc::Sender<GenerationEvent>,
    cancel: CancelToken,
) {
    while let Some(event) = engine.recv().await {
        let event = match event {
            Event::Started { .. } => continue,
            Event::Token { choice, token, text, logprob } => {
                let tokenizer = recorder.backend.tokenizer();
                let logprob =
                    logprob.filter(|_| !tokenizer.is_control(token)).map(|logprob| shown(tokenizer, token, &logprob));
                GenerationEvent::Token { choice, text, logprob }
            }
            Event::ChoiceDone { choice, finish, text } => GenerationEvent::ChoiceDone { choice, finish, text },
            Event::Failed(error) => GenerationEvent::Failed(GenerateError::Engine(error.to_string())),
            Event::Done(outcome) => {
                let end = recorder.finish(*outcome).await;
                // Nobody left to tell is no fault.
                let _ = client.send(end).await;
                return;
            }
        };
        let is_end = matches!(event, GenerationEvent::Failed(_));
        if client.send(event).await.is_err() {
            cancel.cancel();
            return;
        }
        if is_end {
            return;
        }
    }
}

fn shown(tokenizer: &Tokenizer, token: u32, logprob: &TokenLogprobs) -> Logprob {
    let chance = |token: u32, logprob: f32| TokenChance {
        bytes: tokenizer.token_bytes(token).unwrap_or_default().to_vec(),
        logprob,
    };
    Logprob {
        drawn: chance(token, logprob.logprob),
        top: logprob.top.iter().map(|(token, logprob)| chance(*token, *logprob)).collect(),
    }
}

/// Turns the end of an answer into an acknowledged record.
struct Recorder {
    chain: Arc<Chain>,
    backend: Arc<dyn aria_inference::backend::Backend>,
    admitted: Admitted,
    request: GenerationRequest,
}

impl Recorder {
    async fn finish(self, outcome: Outcome) -> GenerationEvent {
        if outcome.cancelled {
            return GenerationEvent::Failed(GenerateError::NotReady {
                reason: "the answer was cancelled: the node is stopping".into(),
            });
        }
        count(&outcome);
        let mut aria = self.extension(&outcome);
        match self.audit(&outcome).await {
            Ok(()) => {}
            Err(reason) => {
                tracing::error!(request = %self.admitted.id, %reason, "this node's own check refuted its answer");
                return GenerationEvent::Failed(GenerateError::Engine(format!(
                    "the answer did not pass this node's own check: {reason}"
                )));
            }
        }
        let (prompt_tokens, completion_tokens) = (outcome.prompt_tokens, outcome.generated_tokens);
        let cached_tokens = outcome.cached_tokens;
        match self.acknowledge(outcome).await {
            Ok(record_id) => aria.record_id = Some(record_id),
            Err(reason) => tracing::error!(request = aria.request_id, %reason, "the answer has no record"),
        }
        GenerationEvent::Done(Box::new(Finished { prompt_tokens, cached_tokens, completion_tokens, aria }))
    }

    /// Runs the answer again: a node never signs what it cannot reproduce. Made-up answers cannot be checked.
    async fn audit(&self, outcome: &Outcome) -> Result<(), String> {
        if self.backend.kind() != BackendKind::Builtin {
            return Ok(());
        }
        let (told, verdict) = oneshot::channel();
        let claim = Claim::new(self.request.clone(), outcome);
        let sink = Box::new(move |verdict| drop(told.send(verdict)));
        self.backend.verify(claim, CancelToken::new(), sink).map_err(|error| error.to_string())?;
        match verdict.await {
            Ok(Ok(Verdict::Valid(_))) => Ok(()),
            Ok(Ok(Verdict::Invalid(reason))) => Err(reason.to_string()),
            Ok(Ok(Verdict::Cancelled)) | Err(_) => Err("the node is stopping".into()),
            Ok(Err(error)) => Err(error.to_string()),
        }
    }

    /// Signs the record and keeps it until a block has it.
    async fn acknowledge(self, outcome: Outcome) -> Result<String, String> {
        let Recorder { chain, backend, admitted, request } = self;
        let work = move || {
            let outputs = outcome.choices.iter().map(|choice| choice.tokens.clone()).collect();
            let payload = Payload::new(&request, outputs, gateway::bias_ppm(&request.sampling), &admitted.secrets);
            let is_shown = admitted.request.audit == AuditMode::Committee;
            let layers = u16::try_from(backend.model().hyper.layers).unwrap_or(u16::MAX);
            let now = Timestamp::new(chain.clock.now_ms());
            let proof = gateway::prove(&chain.key, admitted, &outcome, backend.kind(), layers, now)
                .map_err(|error| error.to_string())?;
            let record = proof.record_id();
            chain.check_includable(&proof)?;
            if is_shown && backend.kind() == BackendKind::Builtin && chain.is_audited() {
                chain.payloads.keep(&record, &payload).map_err(|error| error.to_string())?;
            }
            chain.acknowledge(proof).map_err(|error| error.to_string())?;
            Ok(record.to_string())
        };
        spawn_blocking(work).await.map_err(|error| error.to_string())?
    }

    #[expect(clippy::cast_precision_loss, reason = "shown to people; the exact number is in the record")]
    fn extension(&self, outcome: &Outcome) -> AriaExtension {
        AriaExtension {
            record_id: None,
            request_id: self.admitted.id.to_string(),
            node_ids: vec![self.chain.key.node_id().to_string()],
            backend: self.backend.kind().name(),
            energy_mj: outcome.energy.microjoules as f64 / 1000.0,
            energy_source: match outcome.energy.source {
                EnergySource::Measured => "measured",
                EnergySource::Estimated => "estimated",
            },
            latency_ms: u64::from(outcome.total_ms),
            first_token_ms: u64::from(outcome.first_token_ms),
            transcript_root: outcome.transcript_root.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

fn count(outcome: &Outcome) {
    metrics::counter!("aria_answers_total").increment(1);
    metrics::counter!("aria_prompt_tokens_total").increment(u64::from(outcome.prompt_tokens));
    metrics::counter!("aria_generated_tokens_total").increment(u64::from(outcome.generated_tokens));
    metrics::counter!("aria_energy_microjoules_total").increment(outcome.energy.microjoules);
    metrics::histogram!("aria_first_token_seconds").record(f64::from(outcome.first_token_ms) / 1000.0);
    metrics::histogram!("aria_answer_seconds").record(f64::from(outcome.total_ms) / 1000.0);
}
