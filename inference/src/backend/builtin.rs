//! The exact engine on a thread of its own, answering many requests at once.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::backend::{Backend, BackendKind, CancelToken, EventSink, Load, ModelInfo, SubmitError, VerdictSink};
use crate::batch::{EventReply, Job, Scheduler, VerdictReply};
use crate::chat::ChatTemplate;
use crate::energy::{self, Meter};
use crate::engine::{Engine, EngineOptions};
use crate::generation::{GenerationRequest, RequestError};
use crate::pace::{Limits, Pacer};
use crate::stage::StageJob;
use crate::tokenizer::Tokenizer;
use crate::verify::{Claim, LayerClaim, LayerVerdict};

/// The exact engine. Dropping it cancels everything and ends its thread.
#[derive(Debug)]
pub struct Builtin {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    info: ModelInfo,
    tokenizer: Tokenizer,
    chat: Option<ChatTemplate>,
    options: EngineOptions,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Rung when a job arrives or the end is asked for.
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inbox: VecDeque<Job>,
    /// As of the last step.
    active: usize,
    waiting: usize,
    ending: Option<Ending>,
    /// In force, and whether the thread has yet to take them over.
    limits: Option<Limits>,
    is_limit_new: bool,
    /// The thread has ended: nothing will be answered any more.
    is_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Drain,
    Cancel,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Builtin {
    /// Starts the engine's thread. `meter` tells what its work costs; a process has one.
    pub fn start(engine: Engine, meter: Arc<Meter>) -> std::io::Result<Builtin> {
        let shared = Arc::new(Shared::default());
        let (info, options) = (engine.info().clone(), engine.options().clone());
        let (tokenizer, chat) = (engine.tokenizer().clone(), engine.chat().cloned());
        let inner = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("aria-engine".to_owned())
            .spawn(move || run(&inner, Scheduler::new(engine, meter)))?;
        Ok(Builtin { shared, thread: Mutex::new(Some(thread)), info, tokenizer, chat, options })
    }

    fn kv_bytes_max(&self) -> u64 {
        self.shared.lock().limits.map_or(self.options.kv_bytes_max, |limits| limits.kv_bytes_max)
    }

    fn push(&self, job: Job) -> Result<(), SubmitError> {
        let mut state = self.shared.lock();
        if state.ending.is_some() || state.is_over {
            // The job is dropped outside of the lock: its reply is not owed, the caller gets the error.
            drop(state);
            job.forget();
            return Err(SubmitError::Stopped);
        }
        let (queued, limit) = (state.inbox.len() + state.waiting, self.options.queue_max);
        if queued >= limit {
            drop(state);
            job.forget();
            return Err(SubmitError::Busy { queued, limit });
        }
        state.inbox.push_back(job);
        self.shared.bell.notify_one();
        Ok(())
    }
}

impl Backend for Builtin {
    fn kind(&self) -> BackendKind {
        BackendKind::Builtin
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

    fn submit(&self, request: GenerationRequest, cancel: CancelToken, sink: EventSink) -> Result<(), SubmitError> {
        request.check(self.info.hyper.vocab, self.info.context)?;
        check_room(&request, &self.info, self.options.sessions_max, self.kv_bytes_max())?;
        self.push(Job::Generate { request, cancel, reply: EventReply::new(sink) })
    }

    fn verify(&self, claim: Claim, cancel: CancelToken, sink: VerdictSink) -> Result<(), SubmitError> {
        self.push(Job::Verify { claim, cancel, reply: VerdictReply::new(sink) })
    }

    fn verify_layers(
        &self,
        asked: LayerClaim,
        cancel: CancelToken,
        sink: VerdictSink<LayerVerdict>,
    ) -> Result<(), SubmitError> {
        self.push(Job::Layers { asked: Box::new(asked), cancel, reply: VerdictReply::new(sink) })
    }

    fn stage(&self, job: StageJob) -> Result<(), SubmitError> {
        self.push(Job::Stage(job))
    }

    fn limit(&self, limits: Limits) {
        let mut state = self.shared.lock();
        (state.limits, state.is_limit_new) = (Some(limits), true);
        self.shared.bell.notify_one();
    }

    fn load(&self) -> Load {
        let state = self.shared.lock();
        Load { active: state.active, queued: state.inbox.len() + state.waiting, limit: self.options.queue_max }
    }

    fn stop(&self, drain: bool) {
        {
            let mut state = self.shared.lock();
            // Cancelling after draining was asked for is allowed; the other way round it is too late.
            if !drain || state.ending.is_none() {
                state.ending = Some(if drain { Ending::Drain } else { Ending::Cancel });
            }
            self.shared.bell.notify_one();
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread catches its own panics.
            let _ended = thread.join();
        }
    }
}

impl Drop for Builtin {
    fn drop(&mut self) {
        self.stop(false);
    }
}

/// Refuses what could not run even alone.
fn check_room(
    request: &GenerationRequest,
    info: &ModelInfo,
    sessions_max: usize,
    limit_bytes: u64,
) -> Result<(), RequestError> {
    let (shape, choices) = (info.kv_shape(), request.choices);
    let needed_bytes = u64::from(choices) * request.positions() as u64 * shape.bytes_per_position() as u64;
    if needed_bytes > limit_bytes {
        return Err(RequestError::Memory { choices, needed_bytes, limit_bytes });
    }
    if choices as usize > sessions_max {
        return Err(RequestError::Sessions { choices, limit: sessions_max });
    }
    Ok(())
}

/// The life of the engine's thread.
fn run(shared: &Shared, scheduler: Scheduler) {
    // A panic is a bug of ours: the jobs' replies say that the engine stopped when the scheduler is dropped.
    let outcome = catch_unwind(AssertUnwindSafe(move || serve(shared, scheduler)));
    let mut state = shared.lock();
    state.is_over = true;
    (state.active, state.waiting) = (0, 0);
    let left = std::mem::take(&mut state.inbox);
    drop(state);
    drop(left);
    drop(outcome);
}

fn serve(shared: &Shared, mut scheduler: Scheduler) {
    let mut rests = Rests::new();
    loop {
        let mut state = shared.lock();
        while state.inbox.is_empty() && scheduler.is_idle() && state.ending.is_none() && !state.is_limit_new {
            state = shared.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        for job in state.inbox.drain(..) {
            scheduler.push(job);
        }
        state.waiting = scheduler.waiting();
        let ending = state.ending;
        let limits = std::mem::take(&mut state.is_limit_new).then_some(state.limits).flatten();
        drop(state);
        if let Some(limits) = limits {
            scheduler.limit(&limits);
            rests.limit(limits.cpu_percent);
        }
        if ending == Some(Ending::Cancel) {
            scheduler.cancel_all();
            return;
        }
        scheduler.admit();
        note(shared, &scheduler);
        if ending == Some(Ending::Drain) && scheduler.is_idle() {
            return;
        }
        // What ends or begins meanwhile is looked at before the next rest.
        if !scheduler.is_idle() && rests.rest(shared) {
            continue;
        }
        let began = Instant::now();
        scheduler.step();
        rests.took(began.elapsed(), scheduler.engine().info().threads);
        note(shared, &scheduler);
    }
}

/// The rests between steps that keep this process to its share of the machine.
struct Rests {
    pacer: Pacer,
    began: Instant,
    /// Processor time of all steps, for systems that do not tell that of the process.
    own: Duration,
}

/// Longest sleep in one go.
const NAP_MAX: Duration = Duration::from_millis(100);

impl Rests {
    fn new() -> Rests {
        Rests { pacer: Pacer::new(100, 1), began: Instant::now(), own: Duration::ZERO }
    }

    fn limit(&mut self, cpu_percent: u8) {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.pacer = Pacer::new(cpu_percent, processors);
    }

    /// Sleeps for a part of what is owed, or until something is new. Whether anything was owed.
    fn rest(&mut self, shared: &Shared) -> bool {
        if !self.pacer.is_limited() {
            return false;
        }
        let owed = self.pacer.rest(self.began.elapsed(), energy::process_time().unwrap_or(self.own));
        if owed.is_zero() {
            return false;
        }
        let state = shared.lock();
        if state.inbox.is_empty() && state.ending.is_none() && !state.is_limit_new {
            // Woken early or late: what is owed is reckoned anew.
            drop(shared.bell.wait_timeout(state, owed.min(NAP_MAX)));
        }
        true
    }

    fn took(&mut self, step: Duration, threads: usize) {
        self.own += step.saturating_mul(u32::try_from(threads).unwrap_or(u32::MAX));
    }
}

/// Publishes how busy the scheduler is.
fn note(shared: &Shared, scheduler: &Scheduler) {
    let mut state = shared.lock();
    (state.active, state.waiting) = (scheduler.active(), scheduler.waiting());
}
