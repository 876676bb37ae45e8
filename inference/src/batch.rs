//! Continuous batching: many requests, one pass over the weights per step.
//!
//! [`Scheduler`] is a machine without threads: [`Scheduler::admit`] starts what fits, [`Scheduler::step`] plans the rows of one pass, computes them, and lets every task look at its logits.
//! Decoding choices add one row each and are never left out; what remains of the pass is shared evenly among the tasks that are
//! still reading their prompt, or a claim. Results do not depend on any of this, only waiting times do.

mod audit;
mod completion;
mod layers;
mod plan;
mod prefixes;
mod reply;
mod slab;
mod stages;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backend::CancelToken;
use crate::energy::Meter;
use crate::engine::{Engine, EngineError};
use crate::forward::Row;
use crate::generation::GenerationRequest;
use crate::pace::Limits;
use crate::stage::StageJob;
use crate::verify::{Claim, LayerClaim, LayerVerdict, Verdict};

use audit::Audit;
use completion::Completion;
use layers::Layers;
use plan::{Cost, Planned};
pub use reply::{EventReply, VerdictReply};
use slab::Slab;
use stages::Stages;

/// Something to do, with whoever waits for it.
#[derive(Debug)]
pub enum Job {
    /// A request that [`GenerationRequest::check`] has passed.
    Generate {
        /// What is asked.
        request: GenerationRequest,
        /// Ends it from outside.
        cancel: CancelToken,
        /// Receives its events.
        reply: EventReply,
    },
    /// A claim.
    Verify {
        /// What is claimed.
        claim: Claim,
        /// Ends it from outside.
        cancel: CancelToken,
        /// Receives the verdict.
        reply: VerdictReply<Verdict>,
    },
    /// Layers of one.
    Layers {
        /// What is asked.
        asked: Box<LayerClaim>,
        /// Ends it from outside.
        cancel: CancelToken,
        /// Receives the verdict.
        reply: VerdictReply<LayerVerdict>,
    },
    /// Something for a stage. It never waits behind others.
    Stage(StageJob),
}

impl Job {
    fn is_cancelled(&self) -> bool {
        match self {
            Job::Generate { cancel, .. } | Job::Verify { cancel, .. } | Job::Layers { cancel, .. } => {
                cancel.is_cancelled()
            }
            Job::Stage(_) => false,
        }
    }

    /// Sessions it needs at once, and the positions of all of them together.
    fn needs(&self) -> (usize, usize) {
        match self {
            Job::Generate { request, .. } => completion::needs(request),
            Job::Verify { claim, .. } => (1, claim.request.positions()),
            Job::Layers { asked, .. } => (1, asked.claim.request.positions()),
            Job::Stage(_) => (0, 0),
        }
    }

    /// Drops it without an answer: it was refused, and its caller knows.
    pub(crate) fn forget(self) {
        match self {
            Job::Generate { reply, .. } => reply.forget(),
            Job::Verify { reply, .. } => reply.forget(),
            Job::Layers { reply, .. } => reply.forget(),
            Job::Stage(_) => {}
        }
    }

    /// Ends it before it began.
    fn end_cancelled(self) {
        match self {
            Job::Generate { request, reply, .. } => completion::end_never_started(&request, reply),
            Job::Verify { reply, .. } => reply.end(Ok(Verdict::Cancelled)),
            Job::Layers { reply, .. } => reply.end(Ok(LayerVerdict::Cancelled)),
            Job::Stage(_) => {}
        }
    }
}

/// Stages that may be open for each session there may be: an answer has a head and one stage or more at a node.
const STAGES_PER_SESSION: usize = 4;

/// A running job.
#[derive(Debug)]
enum Task {
    Completion(Box<Completion>),
    Audit(Box<Audit>),
    Layers(Box<Layers>),
}

impl Task {
    fn is_cancelled(&self) -> bool {
        match self {
            Task::Completion(completion) => completion.is_cancelled(),
            Task::Audit(audit) => audit.is_cancelled(),
            Task::Layers(layers) => layers.is_cancelled(),
        }
    }

    fn needs(&self) -> (usize, usize) {
        match self {
            Task::Completion(completion) => completion.needs(),
            Task::Audit(audit) => audit.needs(),
            Task::Layers(layers) => layers.needs(),
        }
    }

    fn cancel(self, sessions: &mut Slab) {
        match self {
            Task::Completion(completion) => completion.cancel(sessions),
            Task::Audit(audit) => audit.end(sessions, Ok(Verdict::Cancelled)),
            Task::Layers(mut layers) => drop(layers.end(sessions, Ok(LayerVerdict::Cancelled))),
        }
    }

    /// Rows it must add to the next pass: one per decoding choice.
    fn decoding(&self) -> usize {
        match self {
            Task::Completion(completion) => completion.decoding(),
            Task::Audit(_) | Task::Layers(_) => 0,
        }
    }

    /// Adds rows to the next pass, and notes which.
    fn plan(&mut self, quota: plan::Quota, rows: &mut Vec<Row>) -> Planned {
        match self {
            Task::Completion(completion) => completion.plan(quota, rows),
            Task::Audit(audit) => audit.plan(quota, rows),
            // It has passes of its own.
            Task::Layers(_) => Planned { rows: rows.len()..rows.len(), logits: 0..0 },
        }
    }
}

/// All running jobs of one engine.
#[derive(Debug)]
pub struct Scheduler {
    engine: Engine,
    meter: Arc<Meter>,
    waiting: VecDeque<Job>,
    tasks: Vec<Task>,
    /// What each task has in the pass, in the order of `tasks`.
    planned: Vec<Planned>,
    stages: Stages,
    sessions: Slab,
    rows: Vec<Row>,
}

impl Scheduler {
    /// An idle scheduler.
    #[must_use]
    pub fn new(engine: Engine, meter: Arc<Meter>) -> Scheduler {
        let sessions = Slab::new(engine.options().prefix_bytes_max);
        Scheduler {
            engine,
            meter,
            waiting: VecDeque::new(),
            tasks: Vec::new(),
            planned: Vec::new(),
            stages: Stages::default(),
            sessions,
            rows: Vec::new(),
        }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Ends everything and gives the engine back.
    #[must_use]
    pub fn into_engine(mut self) -> Engine {
        self.cancel_all();
        self.engine
    }

    /// Takes no more than this from the next step on. Where the system gives no new threads the old ones go on.
    pub fn limit(&mut self, limits: &Limits) {
        if limits.threads != self.engine.info().threads {
            let _ = self.engine.set_threads(limits.threads);
        }
        self.engine.set_kv_bytes_max(limits.kv_bytes_max);
        self.sessions.prefixes.limit(limits.prefix_bytes_max);
    }

    /// Jobs being computed.
    #[must_use]
    pub fn active(&self) -> usize {
        self.tasks.len()
    }

    /// Jobs waiting for sessions or memory.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.waiting.is_empty() && self.stages.is_idle()
    }

    /// Takes a job; it starts when there is room.
    pub fn push(&mut self, job: Job) {
        match job {
            Job::Stage(StageJob::Open { id, plan, reply }) => {
                let needed = (plan.positions * plan.layers.len()).div_ceil(self.engine.info().hyper.layers.max(1));
                let has_place = self.stages.open() < STAGES_PER_SESSION * self.engine.options().sessions_max;
                let has_room = has_place && self.has_room((0, needed));
                let job = StageJob::Open { id, plan, reply };
                self.stages.push(&self.engine, &mut self.sessions, job, has_room);
            }
            Job::Stage(job) => self.stages.push(&self.engine, &mut self.sessions, job, true),
            job => self.waiting.push_back(job),
        }
    }

    /// Whether so many sessions, and positions of all of them together, fit beside what is running.
    fn has_room(&self, (sessions, positions): (usize, usize)) -> bool {
        let per_position = self.engine.model().kv_shape().bytes_per_position() as u64;
        let staged = self.stages.positions(&self.engine, &self.sessions);
        let begun = self.tasks.iter().map(Task::needs).fold((0, staged), |sum, task| (sum.0 + task.0, sum.1 + task.1));
        let options = self.engine.options();
        sessions + begun.0 <= options.sessions_max
            && (positions + begun.1) as u64 * per_position <= options.kv_bytes_max
    }

    /// Ends what was cancelled and starts what fits. To be called before each [`Scheduler::step`].
    pub fn admit(&mut self) {
        self.drop_cancelled();
        self.start();
    }

    /// One pass: computes, and lets every task go on.
    pub fn step(&mut self) {
        for task in &mut self.tasks {
            if let Task::Completion(completion) = task {
                completion.announce();
            }
        }
        plan::plan(&mut self.tasks, &mut self.rows, &mut self.planned);
        if !self.rows.is_empty() {
            let began = std::time::Instant::now();
            self.engine.forward(self.sessions.as_mut_slice(), &self.rows);
            self.go_on(Cost::new(began.elapsed(), self.rows.len(), self.engine.info().threads));
        }
        let Scheduler { engine, meter, sessions, stages, tasks, .. } = self;
        stages.step(engine, sessions, meter);
        tasks.retain_mut(|task| match task {
            Task::Layers(layers) => layers.step(engine, sessions),
            Task::Completion(_) | Task::Audit(_) => true,
        });
    }

    /// Ends everything, running and waiting.
    pub fn cancel_all(&mut self) {
        for job in self.waiting.drain(..) {
            job.end_cancelled();
        }
        for task in self.tasks.drain(..) {
            task.cancel(&mut self.sessions);
        }
    }

    fn drop_cancelled(&mut self) {
        for _ in 0..self.waiting.len() {
            let Some(job) = self.waiting.pop_front() else { break };
            if job.is_cancelled() {
                job.end_cancelled();
            } else {
                self.waiting.push_back(job);
            }
        }
        let mut index = 0;
        while index < self.tasks.len() {
            if self.tasks[index].is_cancelled() {
                self.tasks.remove(index).cancel(&mut self.sessions);
            } else {
                index += 1;
            }
        }
    }

    /// Starts waiting jobs, first come first served, as far as sessions and cache memory allow.
    fn start(&mut self) {
        while let Some(job) = self.waiting.front() {
            // `submit` refuses what could never fit, so an idle engine always starts the first job.
            if !self.has_room(job.needs()) && !self.tasks.is_empty() {
                return;
            }
            match self.waiting.pop_front() {
                Some(Job::Generate { request, cancel, reply }) => {
                    let completion = Completion::start(&self.engine, &mut self.sessions, request, cancel, reply);
                    self.tasks.push(Task::Completion(Box::new(completion)));
                }
                Some(Job::Verify { claim, cancel, reply }) => {
                    if let Some(audit) = Audit::start(&self.engine, &mut self.sessions, claim, cancel, reply) {
                        self.tasks.push(Task::Audit(Box::new(audit)));
                    }
                }
                Some(Job::Layers { asked, cancel, reply }) => {
                    let layers = Layers::start(&self.engine, &mut self.sessions, *asked, cancel, reply);
                    self.tasks.extend(layers.map(|layers| Task::Layers(Box::new(layers))));
                }
                Some(job @ Job::Stage(_)) => self.push(job),
                None => return,
            }
        }
    }

    /// Hands every task its part of the pass just computed; drops those that have ended.
    fn go_on(&mut self, cost: Cost) {
        let Scheduler { engine, meter, sessions, rows, planned, tasks, .. } = self;
        let mut parts = planned.iter();
        tasks.retain_mut(|task| {
            let Some(part) = parts.next() else { return true };
            match task {
                Task::Completion(completion) => completion.go_on(engine, sessions, rows, part, (&cost, meter)),
                Task::Audit(audit) => audit.go_on(engine, sessions, rows, part),
                Task::Layers(_) => true,
            }
        });
    }
}

/// The canonical fault of a task in the pass, if any.
fn fault(engine: &Engine, rows: &[Row], part: &Planned) -> Option<EngineError> {
    engine.first_fault(rows, part.rows.clone())
}
