//! The exact engine on a thread of its own, answering many requests at once.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::backend::{Backend, BackendKind, CancelToken, EventSink, Load, ModelInfo, SubmitError, VerdictSink};
use crate::batch::{EventReply, Job, Scheduler, VerdictReply};
use crate::chat::ChatTemplate;
use crate::energy::Meter;
use crate::engine::{Engine, EngineOptions};
use crate::generation::{GenerationRequest, RequestError};
use crate::tokenizer::Tokenizer;
use crate::verify::Claim;

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
        check_room(&request, &self.info, &self.options)?;
        self.push(Job::Generate { request, cancel, reply: EventReply::new(sink) })
    }

    fn verify(&self, claim: Claim, cancel: CancelToken, sink: VerdictSink) -> Result<(), SubmitError> {
        self.push(Job::Verify { claim, cancel, reply: VerdictReply::new(sink) })
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
fn check_room(request: &GenerationRequest, info: &ModelInfo, options: &EngineOptions) -> Result<(), RequestError> {
    let shape = info.kv_shape();
    let (choices, limit_bytes) = (request.choices, options.kv_bytes_max);
    let needed_bytes = u64::from(choices) * request.positions() as u64 * shape.bytes_per_position() as u64;
    if needed_bytes > limit_bytes {
        return Err(RequestError::Memory { choices, needed_bytes, limit_bytes });
    }
    if choices as usize > options.sessions_max {
        return Err(RequestError::Sessions { choices, limit: options.sessions_max });
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
    loop {
        let mut state = shared.lock();
        while state.inbox.is_empty() && scheduler.is_idle() && state.ending.is_none() {
            state = shared.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        for job in state.inbox.drain(..) {
            scheduler.push(job);
        }
        state.waiting = scheduler.waiting();
        let ending = state.ending;
        drop(state);
        if ending == Some(Ending::Cancel) {
            scheduler.cancel_all();
            return;
        }
        scheduler.admit();
        note(shared, &scheduler);
        if ending == Some(Ending::Drain) && scheduler.is_idle() {
            return;
        }
        scheduler.step();
        note(shared, &scheduler);
    }
}

/// Publishes how busy the scheduler is.
fn note(shared: &Shared, scheduler: &Scheduler) {
    let mut state = shared.lock();
    (state.active, state.waiting) = (scheduler.active(), scheduler.waiting());
}
