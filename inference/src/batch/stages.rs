//! Stages of pipelines: what waits for them is computed in passes of its own, as many answers together as are in the same layers.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Instant;

use super::plan::Cost;
use super::slab::Slab;
use crate::energy::{Energy, EnergySource, Meter};
use crate::engine::Engine;
use crate::forward::{LOGIT_ROWS_MAX, ROWS_MAX, Row, Wants};
use crate::generation::GenerationRequest;
use crate::generation::logprobs::Logprobs;
use crate::generation::text::Continuation;
use crate::sampler::{DrawDomain, Sampler};
use crate::session::Session;
use crate::stage::{Drawn, StageEnd, StageError, StageId, StageInput, StageJob, StageOutput, StagePlan, StageSink};

/// All stages that are open, and what waits for them.
#[derive(Default)]
pub(super) struct Stages {
    open: BTreeMap<StageId, Stage>,
    waiting: VecDeque<(StageId, StageInput, StageSink)>,
}

impl std::fmt::Debug for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stages").field("open", &self.open).field("waiting", &self.waiting.len()).finish()
    }
}

/// One of them.
#[derive(Debug)]
struct Stage {
    layers: Range<usize>,
    session: usize,
    head: Option<Head>,
    energy: Option<Energy>,
}

/// Draws of a choice.
#[derive(Debug)]
struct Head {
    prompt: usize,
    sampler: Sampler,
    continuation: Continuation,
    logprobs: Option<Logprobs>,
}

impl Head {
    fn new(engine: &Engine, request: &GenerationRequest, choice: u32) -> Head {
        let domain = DrawDomain::new(&engine.info().digest, &request.prompt);
        Head {
            prompt: request.prompt.len(),
            sampler: Sampler::new(&request.sampling, domain, choice, &request.prompt),
            continuation: Continuation::new(engine.tokenizer(), &request.stop, request.max_tokens),
            logprobs: request.logprobs.map(|top| Logprobs::new(usize::from(top))),
        }
    }

    /// Draws what follows the positions up to `next`, from the logits of this row.
    fn draw(&mut self, engine: &mut Engine, row: usize, next: usize) -> Drawn {
        let before = self.logprobs.as_mut().map(|logprobs| logprobs.measure(*engine.kernels(), engine.logits(row)));
        let token = self.sampler.next(&mut engine.scores(row), u32::try_from(next).unwrap_or(u32::MAX));
        let logprob = before.map(|before| before.of(token));
        let accepted = self.continuation.accept(engine.tokenizer(), token);
        let finish = self.continuation.finish.map(|finish| (finish, accepted.rest));
        Drawn { token, text: accepted.text, logprob, finish }
    }
}

impl Stages {
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Positions of whole models that they take.
    pub(super) fn positions(&self, engine: &Engine, sessions: &Slab) -> usize {
        let layers = engine.info().hyper.layers.max(1);
        let positions = |stage: &Stage| (sessions.get(stage.session).capacity() * stage.layers.len()).div_ceil(layers);
        self.open.values().map(positions).sum()
    }

    /// Takes a job. Only runs wait.
    pub(super) fn push(&mut self, engine: &Engine, sessions: &mut Slab, job: StageJob, has_room: bool) {
        match job {
            StageJob::Open { id, plan, reply } => reply(self.begin(engine, sessions, id, &plan, has_room)),
            StageJob::Run { id, input, reply } => match self.check(engine, sessions, id, &input) {
                Ok(()) => self.waiting.push_back((id, input, reply)),
                Err(error) => reply(Err(error)),
            },
            StageJob::Close { id, reply } => reply(self.close(sessions, id)),
        }
    }

    fn begin(
        &mut self,
        engine: &Engine,
        sessions: &mut Slab,
        id: StageId,
        plan: &StagePlan,
        has_room: bool,
    ) -> Result<StageOutput, StageError> {
        let (info, layers) = (engine.info(), plan.layers.clone());
        let count = info.hyper.layers;
        let is_head = layers.start == count && plan.draws.is_some();
        let is_sound = layers.end <= count && (layers.start < layers.end || is_head);
        if !is_sound || plan.positions == 0 || plan.positions > info.context {
            return Err(StageError::Plan { start: layers.start, end: layers.end, layers: count });
        }
        if !has_room {
            return Err(StageError::Busy { open: self.open.len() });
        }
        let head = plan.draws.as_ref().filter(|_| is_head);
        let head = head.map(|(request, choice)| Head::new(engine, request, *choice));
        let session = Session::under(info.kv_shape(), plan.positions, Some(plan.leaf_key));
        let stage = Stage { layers, session: sessions.insert(session), head, energy: None };
        if let Some(old) = self.open.insert(id, stage) {
            sessions.remove(old.session);
        }
        Ok(StageOutput::Open)
    }

    fn check(&self, engine: &Engine, sessions: &Slab, id: StageId, input: &StageInput) -> Result<(), StageError> {
        let stage = self.open.get(&id).ok_or(StageError::Unknown)?;
        if self.waiting.iter().any(|(other, ..)| *other == id) {
            return Err(StageError::Input("one step of a stage waits already; the next follows its result"));
        }
        let (dim, session) = (engine.info().hyper.dim, sessions.get(stage.session));
        let rows = match input {
            StageInput::Tokens(tokens) if stage.layers.start == 0 => {
                if tokens.iter().any(|token| *token as usize >= engine.info().hyper.vocab) {
                    return Err(StageError::Input("a token id is not below the size of the vocabulary"));
                }
                tokens.len()
            }
            StageInput::States(states) if stage.layers.start > 0 && states.len() % dim == 0 => states.len() / dim,
            _ => return Err(StageError::Input("the first stage takes tokens, the others whole states of the model")),
        };
        if rows == 0 || rows > ROWS_MAX || session.position() + rows > session.capacity() {
            return Err(StageError::Input("more positions than one step may have, or than there is room for, or none"));
        }
        Ok(())
    }

    fn close(&mut self, sessions: &mut Slab, id: StageId) -> Result<StageOutput, StageError> {
        let stage = self.open.remove(&id).ok_or(StageError::Unknown)?;
        self.waiting.retain(|(other, ..)| *other != id);
        let session = sessions.remove(stage.session);
        let last = if stage.head.is_some() { stage.layers.end + 1 } else { stage.layers.end };
        let roots = session.transcript().map(crate::transcript::Transcript::boundary_roots).unwrap_or_default();
        Ok(StageOutput::Closed(StageEnd {
            roots: roots.get(stage.layers.start..=last).unwrap_or_default().to_vec(),
            positions: session.position(),
            energy: stage.energy.unwrap_or(Energy { microjoules: 0, source: EnergySource::Estimated }),
        }))
    }

    /// One pass for those that wait for the same layers as the first.
    pub(super) fn step(&mut self, engine: &mut Engine, sessions: &mut Slab, meter: &Meter) {
        let (mut rows, mut states, mut parts, mut later) = (Vec::new(), Vec::new(), Vec::new(), VecDeque::new());
        let mut layers = None;
        while let Some((id, input, reply)) = self.waiting.pop_front() {
            let Some(stage) = self.open.get(&id) else { continue };
            let count = match &input {
                StageInput::Tokens(tokens) => tokens.len(),
                StageInput::States(states) => states.len() / engine.info().hyper.dim,
            };
            let is_same = layers.get_or_insert_with(|| stage.layers.clone()) == &stage.layers;
            if !is_same || rows.len() + count > ROWS_MAX || parts.len() == LOGIT_ROWS_MAX {
                later.push_back((id, input, reply));
                continue;
            }
            let (first, position) = (rows.len(), sessions.get(stage.session).position());
            for offset in 0..count {
                let wants = if offset + 1 == count { wants(stage, position + count) } else { Wants::NOTHING };
                let token = if let StageInput::Tokens(tokens) = &input { tokens[offset] } else { 0 };
                rows.push(Row { session: stage.session, token, position: position + offset, wants });
            }
            if let StageInput::States(more) = input {
                states.extend(more);
            }
            parts.push((id, first..rows.len(), reply));
        }
        self.waiting = later;
        let Some(layers) = layers else { return };
        let began = Instant::now();
        let states = (layers.start > 0).then_some(states.as_slice());
        let computed = engine.forward_stage(sessions.as_mut_slice(), &rows, layers, states).to_vec();
        let cost = Cost::new(began.elapsed(), rows.len(), engine.info().threads);
        let (dim, mut logits) = (engine.info().hyper.dim, 0);
        for (id, range, reply) in parts {
            let Some(stage) = self.open.get_mut(&id) else { continue };
            let energy = meter.of_cpu(cost.share(range.len()));
            stage.energy = Some(stage.energy.as_ref().map_or(energy.clone(), |sum| sum.plus(&energy)));
            let drawn = rows[range.end - 1].wants.any().then_some(logits);
            logits += usize::from(drawn.is_some());
            let next = rows[range.end - 1].position + 1;
            let fault = engine.first_fault(&rows, range.clone());
            reply(match (fault, &mut stage.head) {
                (Some(fault), _) => Err(fault.into()),
                (None, None) => Ok(StageOutput::States(computed[range.start * dim..range.end * dim].to_vec())),
                (None, Some(head)) => Ok(StageOutput::Drawn(drawn.map(|row| head.draw(engine, row, next)))),
            });
        }
    }
}

/// What a stage needs of the last row of a step, after which `next` positions are computed.
fn wants(stage: &Stage, next: usize) -> Wants {
    match &stage.head {
        Some(head) if next >= head.prompt && head.continuation.finish.is_none() => {
            Wants { greatest: head.sampler.needs(), all: head.logprobs.is_some() }
        }
        _ => Wants::NOTHING,
    }
}
