//! One answer, from the order to the acknowledged record.
//!
//! The engine's events pass through a task of their own: a slow client holds up its own events, never the engine. The end
//! of an answer is told only after its record is signed, checked by running it again, and on disk.

use std::sync::Arc;

use aria_chain::{
    ids::{ModelId, RecordId},
    proof::VerifiedProof,
    record::Stage,
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
    AriaExtension, CancelGuard, Finished, GenerateCall, GenerateError, Generation, GenerationEvent, Logprob, Owed,
    Payer, Prompt, TokenChance,
};
use aria_runtime::{rules::fee::could_earn, state::Reader};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

use super::{
    Served,
    gateway::{self, Admitted, Secrets, Terms},
    orders::{Order, Orders},
    payment,
};
use crate::{
    audit::payload::Payload,
    chain::Chain,
    consent::{Governor, Permit, Wanted},
    pipeline::{Pipeline, answer::Asked, cut::Cut},
    supervisor::Spawner,
};

/// Events that wait for a client before its own task waits with them.
const CLIENT_EVENTS: usize = 64;
/// When it is worth asking a busy node again.
const RETRY_AFTER_S: u64 = 1;

/// Where answers are made.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) chain: &'a Arc<Chain>,
    pub(super) governor: &'a Arc<Governor>,
    pub(super) served: &'a Served,
    pub(super) orders: &'a Arc<Orders>,
    pub(super) pipeline: &'a Arc<Pipeline>,
}

impl Place<'_> {
    /// Starts an answer, or offers its request to the client that pays for it; the rest happens on a task of its own.
    pub(super) fn start(
        self,
        spawner: &Spawner,
        client_fee: NanoAria,
        call: GenerateCall,
    ) -> Result<Generation, GenerateError> {
        let now = Timestamp::new(self.chain.clock.now_ms());
        let (order, admitted, receipts) = match call.payer {
            Payer::Signed(id, signature) => {
                let (order, admitted) = self.orders.redeem(&id, signature, now)?;
                (order, admitted, Some(Arc::clone(self.orders)))
            }
            Payer::Client(..) => {
                let provider = self.chain.key.node_id();
                return Err(self.orders.offer(self.order(client_fee, call)?, provider, now));
            }
            Payer::Node(_) => {
                let order = self.order(client_fee, call)?;
                let admitted = gateway::admit(&self.chain.key, order.request.clone(), order.secrets);
                (order, admitted, None)
            }
        };
        let permit = self.governor.admit(&self.wanted(&order)?)?;
        self.run(spawner, order.generation, (admitted, receipts), permit)
    }

    /// What a call comes to: tokens, parameters, fee, and the request that is to be signed.
    fn order(self, client_fee: NanoAria, call: GenerateCall) -> Result<Order, GenerateError> {
        if call.model != self.served.name {
            return Err(GenerateError::UnknownModel(call.model));
        }
        let (requester, max_fee) = payment::payer((self.chain, self.orders), client_fee, &call)?;
        if !self.chain.mempool().has_room(&requester) {
            let reason = "too many records wait for a block".into();
            return Err(GenerateError::Busy { reason, retry_after_s: RETRY_AFTER_S });
        }
        let secrets = Secrets::draw().map_err(no_randomness)?;
        let (terms, ram_mb) = (Terms { audit: call.audit, task: call.task, max_fee }, call.ram_mb);
        let generation = generation_request((self.served, self.governor), call, &secrets)?;
        let info = self.served.backend.model();
        // What cannot be run is not offered.
        generation.check(info.hyper.vocab, info.context)?;
        let here = (self.chain.genesis.chain_id(), ModelId::new(info.digest.0));
        let request = gateway::request(requester, here, self.chain.tip_height(), (&generation, terms), &secrets);
        Ok(Order { request, generation, terms, ram_mb, secrets })
    }

    /// What a request asks of this node's consent.
    fn wanted(self, order: &Order) -> Result<Wanted, GenerateError> {
        let (request, info) = (&order.generation, self.served.backend.model());
        // What is longer than the context is for the engine to refuse.
        let positions = request.positions().min(info.context) as u64;
        let kv_bytes = u64::from(request.choices) * positions * info.kv_shape().bytes_per_position() as u64;
        let Terms { audit, max_fee, .. } = order.terms;
        let reward = earnings(self.chain, self.served, &order.request.model_id, (audit, max_fee))?;
        let at = Timestamp::new(self.chain.clock.now_ms());
        Ok(Wanted { at, task: order.terms.task, ram_mb: order.ram_mb, kv_bytes, reward })
    }

    /// Runs what was admitted. `receipts`: where the record waits for its requester to sign for it.
    fn run(
        self,
        spawner: &Spawner,
        request: GenerationRequest,
        (admitted, receipts): (Admitted, Option<Arc<Orders>>),
        permit: Permit,
    ) -> Result<Generation, GenerateError> {
        let cancel = CancelToken::new();
        // One place for every event there can be: the engine's thread never waits.
        let places = request.choices as usize * (request.max_tokens as usize + 1) + 2;
        let (events_in, engine_events) = mpsc::channel(places);
        let mut cut = None;
        if let Some(leave) = self.pipeline.cuts(&request, &*self.served.backend) {
            let (told, ran) = oneshot::channel();
            let (generation, request) = (request.clone(), admitted.request.clone());
            let asked = Asked { generation, request, signature: admitted.signature() };
            let (pipeline, backend) = (Arc::clone(self.pipeline), Arc::clone(&self.served.backend));
            spawner.spawn(pipeline.answer((backend, leave), asked, cancel.clone(), events_in, told));
            cut = Some(ran);
        } else {
            let overflow = cancel.clone();
            let sink = Box::new(move |event| {
                if events_in.try_send(event).is_err() {
                    overflow.cancel();
                }
            });
            self.served.backend.submit(request.clone(), cancel.clone(), sink).map_err(refusal)?;
        }
        metrics::counter!("aria_requests_total").increment(1);

        let (to_client, events) = mpsc::channel(CLIENT_EVENTS);
        let generation = Generation {
            request_id: admitted.id.to_string(),
            prompt_tokens: u32::try_from(request.prompt.len()).unwrap_or(u32::MAX),
            choices: request.choices,
            events,
            guard: CancelGuard(cancel.clone()),
        };
        let (chain, backend) = (Arc::clone(self.chain), Arc::clone(&self.served.backend));
        let recorder = Recorder { chain, backend, admitted, request, receipts, cut };
        spawner.spawn(async move {
            forward(recorder, engine_events, to_client, cancel).await;
            drop(permit);
        });
        Ok(generation)
    }
}

/// What an answer can earn, by a model that the chain knows, run exactly, that auditors may check.
pub(crate) fn earnings(
    chain: &Chain,
    served: &Served,
    model: &ModelId,
    (audit, max_fee): (AuditMode, NanoAria),
) -> Result<NanoAria, GenerateError> {
    let is_payable = audit == AuditMode::Committee && served.backend.kind() == BackendKind::Builtin;
    let known = Reader(&chain.view()).model(model).map_err(|error| GenerateError::Engine(error.to_string()))?;
    if !is_payable || known.is_none() {
        return Ok(NanoAria::ZERO);
    }
    Ok(could_earn(max_fee, chain.is_audited(), chain.genesis.params()))
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
    /// Where the record waits for its requester to sign for it; none where that is this node.
    receipts: Option<Arc<Orders>>,
    /// Where several nodes answer: who ran what, once they have.
    cut: Option<oneshot::Receiver<Cut>>,
}

/// What became of a record.
enum Recorded {
    /// It waits for a block.
    Waiting(RecordId),
    /// It waits for its requester.
    Owed(Owed),
}

/// Makes a whole proof wait for a block, on disk, and keeps what its auditors may ask for. Blocks for a disk sync.
pub(super) fn acknowledge(chain: &Chain, proof: VerifiedProof, payload: Option<&Payload>) -> Result<(), String> {
    chain.check_includable(&proof)?;
    if let Some(payload) = payload.filter(|_| chain.is_audited()) {
        chain.payloads.keep(&proof.record_id(), payload).map_err(|error| error.to_string())?;
    }
    chain.acknowledge(proof).map_err(|error| error.to_string())
}

impl Recorder {
    async fn finish(mut self, outcome: Outcome) -> GenerationEvent {
        if outcome.cancelled {
            return GenerationEvent::Failed(GenerateError::NotReady {
                reason: "the answer was cancelled: the node is stopping".into(),
            });
        }
        count(&outcome);
        let cut = match self.cut.take() {
            Some(ran) => ran.await.ok(),
            None => None,
        };
        let mut aria = self.extension(&outcome, cut.as_ref());
        match self.audit(&outcome).await {
            Ok(()) => {}
            Err(reason) => {
                if let Some(cut) = &cut {
                    cut.blame(&*self.backend, Claim::new(self.request.clone(), &outcome)).await;
                }
                tracing::error!(request = %self.admitted.id, %reason, "this node's own check refuted its answer");
                return GenerationEvent::Failed(GenerateError::Engine(format!(
                    "the answer did not pass this node's own check: {reason}"
                )));
            }
        }
        let (prompt_tokens, completion_tokens) = (outcome.prompt_tokens, outcome.generated_tokens);
        let cached_tokens = outcome.cached_tokens;
        match self.record(outcome, cut).await {
            Ok(Recorded::Waiting(record_id)) => aria.record_id = Some(record_id.to_string()),
            Ok(Recorded::Owed(owed)) => {
                aria.record_id = Some(owed.record_id.to_string());
                aria.receipt_for = Some(hex::encode(owed.record));
            }
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

    /// Signs the record and keeps it until a block has it, or until its requester has signed for it.
    async fn record(self, outcome: Outcome, cut: Option<Cut>) -> Result<Recorded, String> {
        let Recorder { chain, backend, admitted, request, receipts, .. } = self;
        let layers = u16::try_from(backend.model().hyper.layers).unwrap_or(u16::MAX);
        let now = Timestamp::new(chain.clock.now_ms());
        let alone = vec![Stage { node_id: chain.key.node_id(), layer_start: 0, layer_end: layers }];
        let stages = cut.as_ref().map_or(alone, |cut| cut.stages.clone());
        let mut record = gateway::record(&admitted, &outcome, (backend.kind(), stages), now);
        let signatures = match cut {
            Some(cut) => cut.sign(&mut record).await,
            None => vec![chain.key.sign_stage(chain.genesis.chain_id(), &record.id(), 0)],
        };
        let work = move || {
            let bias = gateway::bias_ppm(&request.sampling);
            let payload = Payload::new(&request, &outcome.choices, bias, &admitted.secrets);
            let is_shown = admitted.request.audit == AuditMode::Committee && backend.kind() == BackendKind::Builtin;
            let payload = is_shown.then_some(payload);
            let unreceipted = admitted.answered(record, signatures);
            if let Some(orders) = receipts {
                return Ok(Recorded::Owed(orders.owe(unreceipted, payload, now)));
            }
            let proof = unreceipted.received(&chain.key).map_err(|error| error.to_string())?;
            let record = proof.record_id();
            acknowledge(&chain, proof, payload.as_ref())?;
            Ok(Recorded::Waiting(record))
        };
        spawn_blocking(work).await.map_err(|error| error.to_string())?
    }

    #[expect(clippy::cast_precision_loss, reason = "shown to people; the exact number is in the record")]
    fn extension(&self, outcome: &Outcome, cut: Option<&Cut>) -> AriaExtension {
        AriaExtension {
            record_id: None,
            receipt_for: None,
            request_id: self.admitted.id.to_string(),
            node_ids: match cut {
                Some(cut) => cut.stages.iter().map(|stage| stage.node_id.to_string()).collect(),
                None => vec![self.chain.key.node_id().to_string()],
            },
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
