//! A request being answered: first its prompt, then one token per pass and choice.

use std::time::{Duration, Instant};

use super::plan::{Cost, Planned, Quota};
use super::reply::EventReply;
use super::slab::Slab;
use crate::backend::CancelToken;
use crate::energy::{Energy, EnergySource, Meter};
use crate::engine::Engine;
use crate::forward::{Row, Wants};
use crate::generation::logprobs::Logprobs;
use crate::generation::text::Continuation;
use crate::generation::{ChoiceOutcome, Event, FinishReason, GenerationRequest, Outcome};
use crate::sampler::{DrawDomain, Sampler};
use crate::session::Session;
use crate::transcript::{Hash, boundaries, choice_root, request_root, text_hash};

/// A request being answered.
#[derive(Debug)]
pub(super) struct Completion {
    request: GenerationRequest,
    cancel: CancelToken,
    /// Taken at the end.
    reply: Option<EventReply>,
    /// Whether `Started` was sent.
    is_announced: bool,
    /// Tokens of the prompt computed so far, those included that an earlier request had computed.
    fed: usize,
    cached: usize,
    /// Bytes promised for keeping the session of the first choice.
    reserved: usize,
    /// Holds the prompt until the choices part.
    prompt_session: Option<usize>,
    choices: Vec<Choice>,
    logprobs: Option<Logprobs>,
    started: Instant,
    prefill_ms: u32,
    first_token_ms: u32,
    cpu: Duration,
    energy: Option<Energy>,
}

#[derive(Debug)]
struct Choice {
    sampler: Sampler,
    continuation: Continuation,
    /// While it decodes.
    session: Option<usize>,
    /// Of the boundaries of the finished transcript, and of all of it.
    roots: Option<(Vec<Hash>, Hash)>,
}

/// Sessions, and positions of all sessions together, that a request occupies at most.
pub(super) fn needs(request: &GenerationRequest) -> (usize, usize) {
    let choices = request.choices as usize;
    (choices, choices * request.positions())
}

/// Ends a request that was cancelled while it waited.
pub(super) fn end_never_started(request: &GenerationRequest, reply: EventReply) {
    let choice = ChoiceOutcome {
        tokens: Vec::new(),
        text: String::new(),
        finish: FinishReason::Cancelled,
        boundary_roots: Vec::new(),
    };
    reply.end(Event::Done(Box::new(Outcome {
        choices: vec![choice; request.choices as usize],
        transcript_root: [0; 32],
        prompt_tokens: prompt_tokens(request),
        cached_tokens: 0,
        generated_tokens: 0,
        first_token_ms: 0,
        total_ms: 0,
        prefill_ms: 0,
        cpu_us: 0,
        energy: nothing(),
        cancelled: true,
    })));
}

fn nothing() -> Energy {
    Energy { microjoules: 0, source: EnergySource::Estimated }
}

fn prompt_tokens(request: &GenerationRequest) -> u32 {
    u32::try_from(request.prompt.len()).unwrap_or(u32::MAX)
}

/// The session of a new request, from where an earlier one shares its beginning, and the bytes promised for keeping it afterwards.
fn begin(engine: &Engine, sessions: &mut Slab, request: &GenerationRequest) -> (Session, usize) {
    let capacity = request.positions();
    let found = sessions.prefixes.find(&request.prompt);
    let resumed = found.map(|(kept, positions)| kept.resume(positions, capacity, request.salt));
    let session = resumed.unwrap_or_else(|| engine.session(capacity, Some(request.salt)));
    let hyper = &engine.info().hyper;
    let states = boundaries(hyper.layers) * hyper.dim * size_of::<f32>();
    let per_position = engine.info().kv_shape().bytes_per_position() + states;
    let positions = sessions.prefixes.reserve(capacity, per_position);
    (session.keeping_states(positions), positions * per_position)
}

impl Completion {
    pub(super) fn start(
        engine: &Engine,
        sessions: &mut Slab,
        request: GenerationRequest,
        cancel: CancelToken,
        reply: EventReply,
    ) -> Completion {
        let domain = DrawDomain::new(&engine.info().digest, &request.prompt);
        let choices = (0..request.choices)
            .map(|choice| Choice {
                sampler: Sampler::new(&request.sampling, domain, choice, &request.prompt),
                continuation: Continuation::new(engine.tokenizer(), &request.stop, request.max_tokens),
                session: None,
                roots: None,
            })
            .collect();
        let (session, reserved) = begin(engine, sessions, &request);
        let cached = session.position();
        Completion {
            prompt_session: Some(sessions.insert(session)),
            logprobs: request.logprobs.map(|top| Logprobs::new(usize::from(top))),
            request,
            cancel,
            reply: Some(reply),
            is_announced: false,
            fed: cached,
            cached,
            reserved,
            choices,
            started: Instant::now(),
            prefill_ms: 0,
            first_token_ms: 0,
            cpu: Duration::ZERO,
            energy: None,
        }
    }

    /// Says, once, that the request has left the queue.
    pub(super) fn announce(&mut self) {
        if !self.is_announced {
            self.is_announced = true;
            let prompt_tokens = prompt_tokens(&self.request);
            if let Some(reply) = &mut self.reply {
                reply.send(Event::Started { prompt_tokens });
            }
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub(super) fn needs(&self) -> (usize, usize) {
        needs(&self.request)
    }

    /// Choices that have a token to feed.
    pub(super) fn decoding(&self) -> usize {
        self.choices.iter().filter(|choice| choice.session.is_some()).count()
    }

    /// Adds the next chunk of the prompt, or the last token of each choice that goes on.
    pub(super) fn plan(&self, quota: Quota, rows: &mut Vec<Row>) -> Planned {
        let first = rows.len();
        if let Some(session) = self.prompt_session {
            let end = self.request.prompt.len().min(self.fed + quota.prefill);
            for position in self.fed..end {
                let is_last = position + 1 == self.request.prompt.len();
                let wants = if is_last { self.wants(&self.choices[0]) } else { Wants::NOTHING };
                rows.push(Row { session, token: self.request.prompt[position], position, wants });
            }
        }
        for choice in &self.choices {
            if let (Some(session), Some(&token)) = (choice.session, choice.continuation.tokens.last()) {
                let position = self.request.prompt.len() + choice.continuation.tokens.len() - 1;
                rows.push(Row { session, token, position, wants: self.wants(choice) });
            }
        }
        Planned { rows: first..rows.len(), logits: 0..rows[first..].iter().filter(|row| row.wants.any()).count() }
    }

    /// Logits for the next draw of a choice. Before the first all choices need the same.
    fn wants(&self, choice: &Choice) -> Wants {
        Wants { greatest: choice.sampler.needs(), all: self.logprobs.is_some() }
    }

    /// Looks at the pass just computed. False when the request has ended.
    pub(super) fn go_on(
        &mut self,
        engine: &mut Engine,
        sessions: &mut Slab,
        rows: &[Row],
        part: &Planned,
        cost: (&Cost, &Meter),
    ) -> bool {
        let cpu = cost.0.share(part.rows.len());
        let energy = cost.1.of_cpu(cpu);
        self.cpu += cpu;
        self.energy = Some(self.energy.as_ref().map_or(energy.clone(), |sum| sum.plus(&energy)));
        if let Some(error) = super::fault(engine, rows, part) {
            return self.end(sessions, Event::Failed(error));
        }
        if let Some(session) = self.prompt_session {
            self.fed += part.rows.len();
            if self.fed < self.request.prompt.len() {
                return true;
            }
            self.prefill_ms = self.elapsed_ms();
            self.part(engine, sessions, session, part.logits.start);
            self.first_token_ms = self.elapsed_ms();
        } else {
            let mut logits = part.logits.clone();
            for index in 0..self.choices.len() {
                if let Some(session) = self.choices[index].session
                    && let Some(row) = logits.next()
                {
                    self.draw(engine, index, row);
                    self.settle(engine, sessions, index, session);
                }
            }
        }
        if self.choices.iter().any(|choice| choice.continuation.finish.is_none()) {
            return true;
        }
        let last = match engine.check_float_mode() {
            Ok(()) => Event::Done(Box::new(self.outcome(false))),
            Err(error) => Event::Failed(error.into()),
        };
        self.end(sessions, last)
    }

    /// The first token of every choice, from the same logits; then each goes its own way.
    fn part(&mut self, engine: &mut Engine, sessions: &mut Slab, prompt: usize, row: usize) {
        for index in 0..self.choices.len() {
            self.draw(engine, index, row);
        }
        self.prompt_session = None;
        for index in (0..self.choices.len()).rev() {
            let session = if index == 0 { prompt } else { sessions.insert(sessions.get(prompt).fork()) };
            self.choices[index].session = Some(session);
            self.settle(engine, sessions, index, session);
        }
    }

    /// Draws the next token of a choice and tells it.
    fn draw(&mut self, engine: &mut Engine, index: usize, row: usize) {
        let choice = &mut self.choices[index];
        let position = self.request.prompt.len() + choice.continuation.tokens.len();
        let before = self.logprobs.as_mut().map(|logprobs| logprobs.measure(*engine.kernels(), engine.logits(row)));
        let token = choice.sampler.next(&mut engine.scores(row), u32::try_from(position).unwrap_or(u32::MAX));
        let logprob = before.map(|before| before.of(token));
        let accepted = choice.continuation.accept(engine.tokenizer(), token);
        let finish = choice.continuation.finish;
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        if let Some(reply) = &mut self.reply {
            reply.send(Event::Token { choice: index, token, text: accepted.text, logprob });
            if let Some(finish) = finish {
                reply.send(Event::ChoiceDone { choice: index, finish, text: accepted.rest });
            }
        }
    }

    /// Closes the transcript of a choice that has ended and frees its session.
    fn settle(&mut self, engine: &Engine, sessions: &mut Slab, index: usize, session: usize) {
        let choice = &mut self.choices[index];
        let Some(finish) = choice.continuation.finish else { return };
        choice.roots = sessions.get(session).transcript().map(|transcript| {
            let text = text_hash(&self.request.salt, &self.request.prompt, &choice.continuation.tokens, finish);
            let roots = transcript.boundary_roots();
            let root = choice_root(&engine.info().digest, &roots, &text);
            (roots, root)
        });
        choice.session = None;
        if index > 0 {
            sessions.remove(session);
            return;
        }
        // The last token drawn was never fed.
        let drawn = choice.continuation.tokens.iter().copied().take(choice.continuation.tokens.len() - 1);
        let tokens = self.request.prompt.iter().copied().chain(drawn).collect();
        sessions.prefixes.release(std::mem::take(&mut self.reserved));
        let ended = sessions.remove(session);
        sessions.prefixes.keep(tokens, ended);
    }

    /// Ends a request that its caller gave up.
    pub(super) fn cancel(mut self, sessions: &mut Slab) {
        for (index, choice) in (0_u32..).zip(&mut self.choices) {
            if choice.continuation.finish.is_none() {
                let text = choice.continuation.close(FinishReason::Cancelled);
                if let Some(reply) = &mut self.reply {
                    reply.send(Event::ChoiceDone { choice: index, finish: FinishReason::Cancelled, text });
                }
            }
        }
        let outcome = self.outcome(true);
        self.end(sessions, Event::Done(Box::new(outcome)));
    }

    /// Frees every session and sends the last event. Always false: the task is over.
    fn end(&mut self, sessions: &mut Slab, last: Event) -> bool {
        let open = self.choices.iter_mut().filter_map(|choice| choice.session.take());
        for session in self.prompt_session.take().into_iter().chain(open) {
            sessions.remove(session);
        }
        sessions.prefixes.release(std::mem::take(&mut self.reserved));
        if let Some(reply) = self.reply.take() {
            reply.end(last);
        }
        false
    }

    fn outcome(&mut self, cancelled: bool) -> Outcome {
        let roots: Vec<Hash> = self.choices.iter().filter_map(|choice| Some(choice.roots.as_ref()?.1)).collect();
        let generated: usize = self.choices.iter().map(|choice| choice.continuation.tokens.len()).sum();
        let choices = self.choices.iter_mut().map(|choice| ChoiceOutcome {
            tokens: std::mem::take(&mut choice.continuation.tokens),
            text: std::mem::take(&mut choice.continuation.text),
            finish: choice.continuation.finish.unwrap_or(FinishReason::Cancelled),
            boundary_roots: choice.roots.take().unwrap_or_default().0,
        });
        Outcome {
            choices: choices.collect(),
            transcript_root: if cancelled { [0; 32] } else { request_root(&roots) },
            prompt_tokens: prompt_tokens(&self.request),
            cached_tokens: u32::try_from(self.cached).unwrap_or(u32::MAX),
            generated_tokens: u32::try_from(generated).unwrap_or(u32::MAX),
            first_token_ms: self.first_token_ms,
            total_ms: self.elapsed_ms(),
            prefill_ms: self.prefill_ms,
            cpu_us: u64::try_from(self.cpu.as_micros()).unwrap_or(u64::MAX),
            energy: self.energy.take().unwrap_or_else(nothing),
            cancelled,
        }
    }

    fn elapsed_ms(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_millis()).unwrap_or(u32::MAX)
    }
}
