//! Made-up answers, for trying out everything around the engine without its cost.
//!
//! The text is a fixed sentence that says what it is, followed by a number derived from the prompt and the seed: the same request gives the same
//! answer. There is no transcript worth auditing; nodes mark these records and pay nothing for them. Runs only where it is named.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::arith::ARITHMETIC_VERSION;
use crate::backend::{Backend, BackendKind, CancelToken, EventSink, Load, ModelInfo, SubmitError, VerdictSink};
use crate::chat::ChatTemplate;
use crate::digest;
use crate::energy::{Energy, EnergySource};
use crate::engine::LoadError;
use crate::generation::text::Continuation;
use crate::generation::{ChoiceOutcome, Event, FinishReason, GenerationRequest, Outcome};
use crate::gguf::Gguf;
use crate::hyper::Hyper;
use crate::kernels::KernelKind;
use crate::pace::Limits;
use crate::sampler::DrawDomain;
use crate::stage::StageJob;
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::verify::{Claim, LayerClaim, LayerVerdict};

/// What every simulated answer begins with.
pub const NOTICE: &str = "This is a simulated answer; no model was run. Number";

/// A backend that makes text up.
#[derive(Debug)]
pub struct Simulation {
    info: ModelInfo,
    tokenizer: Tokenizer,
    chat: Option<ChatTemplate>,
    stopped: AtomicBool,
    active: AtomicUsize,
}

impl Simulation {
    /// Borrows name, tokenizer and template of a model file; its weights are not read.
    pub fn new(gguf: &Gguf) -> Result<Simulation, LoadError> {
        let hyper = Hyper::from_gguf(gguf)?;
        let info = ModelInfo {
            name: hyper.name.clone(),
            digest: digest::model_digest(gguf)?,
            context: hyper.context,
            kernel: KernelKind::Scalar,
            threads: 1,
            arithmetic: ARITHMETIC_VERSION,
            weight_bytes: 0,
            hyper,
        };
        Ok(Simulation {
            info,
            tokenizer: Tokenizer::from_gguf(gguf)?,
            chat: ChatTemplate::from_gguf(gguf)?,
            stopped: AtomicBool::new(false),
            active: AtomicUsize::new(0),
        })
    }

    /// The tokens of one choice.
    fn answer(&self, request: &GenerationRequest, choice: u32) -> Result<Vec<u32>, TokenizerError> {
        let domain = DrawDomain::new(&self.info.digest, &request.prompt);
        let number = domain.draw(request.sampling.seed, choice, 0) * 1e6;
        let mut tokens = self.tokenizer.encode(&format!("{NOTICE} {number:06.0}."))?;
        tokens.extend(self.tokenizer.end_tokens().first());
        Ok(tokens)
    }
}

impl Backend for Simulation {
    fn kind(&self) -> BackendKind {
        BackendKind::Simulation
    }

    fn model(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn chat(&self) -> Option<&ChatTemplate> {
        self.chat.as_ref()
    }

    /// Answers before it returns: making text up takes no time.
    fn submit(&self, request: GenerationRequest, cancel: CancelToken, mut sink: EventSink) -> Result<(), SubmitError> {
        request.check(self.info.hyper.vocab, self.info.context)?;
        if self.stopped.load(Ordering::Acquire) {
            return Err(SubmitError::Stopped);
        }
        let unsupported = |_| SubmitError::Unsupported { backend: "simulation", action: "write with this tokenizer" };
        let answers: Vec<Vec<u32>> = (0..request.choices)
            .map(|choice| self.answer(&request, choice))
            .collect::<Result<_, _>>()
            .map_err(unsupported)?;
        self.active.fetch_add(1, Ordering::Relaxed);
        let outcome = self.tell(&request, &answers, &cancel, &mut sink);
        sink(Event::Done(Box::new(outcome)));
        self.active.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    fn verify(&self, _claim: Claim, _cancel: CancelToken, _sink: VerdictSink) -> Result<(), SubmitError> {
        Err(SubmitError::Unsupported { backend: "simulation", action: "verify a claim" })
    }

    fn verify_layers(
        &self,
        _asked: LayerClaim,
        _cancel: CancelToken,
        _sink: VerdictSink<LayerVerdict>,
    ) -> Result<(), SubmitError> {
        Err(SubmitError::Unsupported { backend: "simulation", action: "verify a claim" })
    }

    fn stage(&self, _job: StageJob) -> Result<(), SubmitError> {
        Err(SubmitError::Unsupported { backend: "simulation", action: "run the layers of a model" })
    }

    /// Making text up takes nothing worth a limit.
    fn limit(&self, _limits: Limits) {}

    fn load(&self) -> Load {
        Load { active: self.active.load(Ordering::Relaxed), queued: 0, limit: usize::MAX }
    }

    fn stop(&self, _drain: bool) {
        self.stopped.store(true, Ordering::Release);
    }
}

impl Simulation {
    fn tell(
        &self,
        request: &GenerationRequest,
        answers: &[Vec<u32>],
        cancel: &CancelToken,
        sink: &mut EventSink,
    ) -> Outcome {
        let started = Instant::now();
        let prompt_tokens = u32::try_from(request.prompt.len()).unwrap_or(u32::MAX);
        sink(Event::Started { prompt_tokens });
        let mut choices = Vec::with_capacity(answers.len());
        for (choice, tokens) in (0_u32..).zip(answers) {
            let mut continuation = Continuation::new(&self.tokenizer, &request.stop, request.max_tokens);
            for &token in tokens {
                if continuation.finish.is_some() || cancel.is_cancelled() {
                    break;
                }
                let accepted = continuation.accept(&self.tokenizer, token);
                sink(Event::Token { choice, token, text: accepted.text, logprob: None });
                if let Some(finish) = continuation.finish {
                    sink(Event::ChoiceDone { choice, finish, text: accepted.rest });
                }
            }
            if continuation.finish.is_none() {
                // Cancelled, or a model without end tokens.
                let finish = if cancel.is_cancelled() { FinishReason::Cancelled } else { FinishReason::Stop };
                let text = continuation.close(finish);
                sink(Event::ChoiceDone { choice, finish, text });
            }
            let finish = continuation.finish.unwrap_or(FinishReason::Cancelled);
            choices.push(ChoiceOutcome {
                tokens: continuation.tokens,
                text: continuation.text,
                finish,
                boundary_roots: Vec::new(),
            });
        }
        let generated: usize = choices.iter().map(|choice| choice.tokens.len()).sum();
        let total_ms = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
        Outcome {
            cancelled: choices.iter().any(|choice| choice.finish == FinishReason::Cancelled),
            choices,
            transcript_root: [0; 32],
            prompt_tokens,
            cached_tokens: 0,
            generated_tokens: u32::try_from(generated).unwrap_or(u32::MAX),
            first_token_ms: total_ms,
            total_ms,
            prefill_ms: 0,
            cpu_us: 0,
            energy: Energy { microjoules: 0, source: EnergySource::Estimated },
        }
    }
}
