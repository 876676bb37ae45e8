//! Continuous batching: many requests, one pass over the weights per step.
//!
//! [`Scheduler`] is a machine without threads: [`Scheduler::admit`] starts what fits, [`Scheduler::step`] plans the rows of one pass, computes them, and lets every task look at its logits.
//! Decoding choices add one row each and are never left out; what remains of the pass is shared evenly among the tasks that are
//! still reading their prompt, or a claim. Results do not depend on any of this, only waiting times do.

mod audit;
mod completion;
mod plan;
mod prefixes;
mod reply;
mod slab;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backend::CancelToken;
use crate::energy::Meter;
use crate::engine::{Engine, EngineError};
use crate::forward::Row;
use crate::generation::GenerationRequest;
use crate::pace::Limits;
use crate::verify::{Claim, Verdict};

use audit::Audit;
use completion::Completion;
use plan::{Cost, Planned};
pub use reply::{EventReply, VerdictReply};
use slab::Slab;

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
        reply: VerdictReply,
    },
}

impl Job {
    fn is_cancelled(&self) -> bool {
        match self {
            Job::Generate { cancel, .. } | Job::Verify { cancel, .. } => cancel.is_cancelled(),
        }
    }

    /// Sessions it needs at once, and the positions of all of them together.
    fn needs(&self) -> (usize, usize) {
        match self {
            Job::Generate { request, .. } => completion::needs(request),
            Job::Verify { claim, .. } => (1, claim.request.positions()),
        }
    }

    /// Drops it without an answer: it was refused, and its caller knows.
    pub(crate) fn forget(self) {
        match self {
            Job::Generate { reply, .. } => reply.forget(),
            Job::Verify { reply, .. } => reply.forget(),
        }
    }

    /// Ends it before it began.
    fn end_cancelled(self) {
        match self {
            Job::Generate { request, reply, .. } => completion::end_never_started(&request, reply),
            Job::Verify { reply, .. } => reply.end(Ok(Verdict::Cancelled)),
        }
    }
}

/// A running job.
#[derive(Debug)]
enum Task {
    Completion(Box<Completion>),
    Audit(Box<Audit>),
}

impl Task {
    fn is_cancelled(&self) -> bool {
        match self {
            Task::Completion(completion) => completion.is_cancelled(),
            Task::Audit(audit) => audit.is_cancelled(),
        }
    }

    fn needs(&self) -> (usize, usize) {
        match self {
            Task::Completion(completion) => completion.needs(),
            Task::Audit(audit) => audit.needs(),
        }
    }

    fn cancel(self, sessions: &mut Slab) {
        match self {
            Task::Completion(completion) => completion.cancel(sessions),
            Task::Audit(audit) => audit.end(sessions, Ok(Verdict::Cancelled)),
        }
    }

    /// Rows it must add to the next pass: one per decoding choice.
    fn decoding(&self) -> usize {
        match self {
            Task::Completion(completion) => completion.decoding(),
            Task::Audit(_) => 0,
        }
    }

    /// Adds rows to the next pass, and notes which.
    fn plan(&mut self, quota: plan::Quota, rows: &mut Vec<Row>) -> Planned {
        match self {
            Task::Completion(completion) => completion.plan(quota, rows),
            Task::Audit(audit) => audit.plan(quota, rows),
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
        self.tasks.is_empty() && self.waiting.is_empty()
    }

    /// Takes a job; it starts when there is room.
    pub fn push(&mut self, job: Job) {
        self.waiting.push_back(job);
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
        if self.rows.is_empty() {
            return;
        }
        let began = std::time::Instant::now();
        self.engine.forward(self.sessions.as_mut_slice(), &self.rows);
        self.go_on(Cost::new(began.elapsed(), self.rows.len(), self.engine.info().threads));
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
        let options = self.engine.options();
        let (sessions_max, bytes_max) = (options.sessions_max, options.kv_bytes_max);
        let per_position = self.engine.model().kv_shape().bytes_per_position() as u64;
        while let Some(job) = self.waiting.front() {
            let (sessions, positions) =
                self.tasks.iter().map(Task::needs).fold(job.needs(), |sum, task| (sum.0 + task.0, sum.1 + task.1));
            let fits = sessions <= sessions_max && positions as u64 * per_position <= bytes_max;
            // `submit` refuses what could never fit, so an idle engine always starts the first job.
            if !fits && !self.tasks.is_empty() {
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
            }
        });
    }
}

/// The canonical fault of a task in the pass, if any.
fn fault(engine: &Engine, rows: &[Row], part: &Planned) -> Option<EngineError> {
    engine.first_fault(rows, part.rows.clone())
}
