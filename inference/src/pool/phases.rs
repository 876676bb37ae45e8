//! Threads that meet once a phase: spin briefly for the next one, park when none comes.
//!
//! A forward pass of a large model has about 150 phases of 20 to 100 microseconds. Waking a parked thread costs as much as such a phase,
//! so workers spin between phases; an idle node must not burn a core, so they park after about 50 microseconds.
//!
//! Nobody sleeps through a phase: who parks first says so and then looks once more, who starts or ends a phase first says so and then looks
//! who is parked, with a sequentially consistent fence between each pair. `tests/phases.rs` has loom try every interleaving of this file.
#![expect(unsafe_code, reason = "island: lends a closure to other threads for as long as it lives")]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;

use super::sync::{
    Arc, AtomicBool, AtomicU32, AtomicUsize, Builder, JoinHandle, Mutex, Ordering, SPINS, Thread, UnsafeCell, current,
    fence, park, relax,
};

/// The job of one phase, with its lifetime erased. Valid while `pending` is not zero.
type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Counts phases. A worker runs when it sees a new one.
    epoch: AtomicU32,
    /// Workers that have not finished the current phase.
    pending: AtomicUsize,
    /// Written by the caller before `epoch` rises, read by workers after.
    job: UnsafeCell<Option<Job>>,
    /// Which workers have parked or are about to.
    parked: Vec<AtomicBool>,
    /// The caller, while it is parked.
    caller: Mutex<Option<Thread>>,
    caller_parked: AtomicBool,
    panicked: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: `job` is the only field that is not Sync by itself. It is written only by the owner of the phases (`run` takes `&mut self`) while
// `pending` is zero, i.e. while no worker reads it, and published by the store to `epoch`.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` points to a `Sync` closure that outlives the phase; see `run`.
unsafe impl Send for Shared {}

/// A fixed set of threads; the caller of a phase is one of them.
pub(crate) struct Phases {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle>,
}

impl Phases {
    /// Starts `threads - 1` workers.
    pub(crate) fn start(threads: usize) -> io::Result<Phases> {
        let shared = Arc::new(Shared {
            epoch: AtomicU32::new(0),
            pending: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            parked: (0..threads).map(|_| AtomicBool::new(false)).collect(),
            caller: Mutex::new(None),
            caller_parked: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut phases = Phases { shared, workers: Vec::new() };
        for index in 1..threads {
            let shared = Arc::clone(&phases.shared);
            let builder = Builder::new().name(format!("aria-compute-{index}"));
            phases.workers.push(builder.spawn(move || work(&shared, index))?);
        }
        Ok(phases)
    }

    /// Threads, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(thread)` once on every thread and returns when all are done.
    ///
    /// # Panics
    /// If a job panicked.
    pub(crate) fn run(&mut self, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            job(0);
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The pointer is used by workers in this phase only, and this function does not return (nor unwind:
        // the caller's own part is caught) before `pending` is zero, i.e. before the last use.
        let erased: Job = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(job) };
        shared.pending.store(self.workers.len(), Ordering::Relaxed);
        // SAFETY: no worker reads `job` now: all finished the phase before (`pending` was zero) and wait for `epoch`.
        shared.job.with_mut(|place| unsafe { *place = Some(erased) });
        self.begin();
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        self.wait();
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!self.shared.panicked.load(Ordering::Relaxed), "a compute thread panicked");
    }

    /// Lets the workers go on, and wakes those that are parked.
    fn begin(&self) {
        let shared = &*self.shared;
        shared.epoch.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        for (parked, worker) in shared.parked[1..].iter().zip(&self.workers) {
            if parked.load(Ordering::Relaxed) {
                worker.thread().unpark();
            }
        }
    }

    /// Waits until every worker has finished the phase.
    fn wait(&self) {
        let shared = &*self.shared;
        let mut turns = 0;
        while shared.pending.load(Ordering::Acquire) != 0 {
            turns += 1;
            if turns < SPINS {
                relax(turns);
                continue;
            }
            *shared.caller.lock().unwrap_or_else(PoisonError::into_inner) = Some(current());
            shared.caller_parked.store(true, Ordering::Release);
            fence(Ordering::SeqCst);
            if shared.pending.load(Ordering::Relaxed) != 0 {
                park();
            }
            shared.caller_parked.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Phases {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.begin();
        for worker in self.workers.drain(..) {
            // A worker catches panics of its jobs, so joining fails only if the runtime itself is broken.
            let _ended = worker.join();
        }
    }
}

/// The life of a worker.
fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        seen = next_epoch(shared, index, seen);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: `epoch` rose after the job was written, and the caller neither writes it again nor lets the closure die before this worker
        // lowers `pending` below.
        let run = || shared.job.with(|job| unsafe { (*job).map(|job| (*job)(index)) });
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        if shared.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            fence(Ordering::SeqCst);
            if shared.caller_parked.load(Ordering::Acquire) {
                let caller = shared.caller.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(caller) = caller {
                    caller.unpark();
                }
            }
        }
    }
}

/// Waits for a phase other than `seen`: spinning first, then parked.
fn next_epoch(shared: &Shared, index: usize, seen: u32) -> u32 {
    let mut turns = 0;
    loop {
        let epoch = shared.epoch.load(Ordering::Acquire);
        if epoch != seen {
            return epoch;
        }
        turns += 1;
        if turns < SPINS {
            relax(turns);
            continue;
        }
        shared.parked[index].store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if shared.epoch.load(Ordering::Relaxed) == seen {
            park();
        }
        shared.parked[index].store(false, Ordering::Relaxed);
    }
}
