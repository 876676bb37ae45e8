//! How the threads of a pool meet, checked by loom: the interleavings of a few threads and phases, and every value that a weak
//! memory model lets a load return. A phase that nobody wakes up for is a deadlock here, a job that reads too early a panic.

#![allow(unsafe_code, reason = "the file under test is an island; the cell shows who may read")]

use std::panic::{AssertUnwindSafe, catch_unwind};

#[allow(dead_code, unreachable_pub, reason = "compiled here as a part of this test")]
#[path = "../src/pool/phases.rs"]
mod phases;

/// Loom's kind of what `src/pool/sync.rs` names.
mod sync {
    use std::io;

    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
    pub(crate) use loom::sync::{Arc, Mutex};
    pub(crate) use loom::thread::{Thread, current, park};

    pub(crate) struct Builder(loom::thread::Builder);

    impl Builder {
        pub(crate) fn new() -> Builder {
            Builder(loom::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Builder {
            Builder(self.0.name(name))
        }

        pub(crate) fn spawn(self, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle> {
            let has_ended = Arc::new(AtomicBool::new(false));
            let ended = Arc::clone(&has_ended);
            let end = move || {
                run();
                ended.store(true, Ordering::Release);
            };
            Ok(JoinHandle { inner: self.0.spawn(end)?, has_ended })
        }
    }

    /// Loom's own `join` takes a late `unpark` of the joining thread for the end of the other one.
    pub(crate) struct JoinHandle {
        inner: loom::thread::JoinHandle<()>,
        has_ended: Arc<AtomicBool>,
    }

    impl JoinHandle {
        pub(crate) fn thread(&self) -> &Thread {
            self.inner.thread()
        }

        pub(crate) fn join(self) -> std::thread::Result<()> {
            while !self.has_ended.load(Ordering::Acquire) {
                loom::thread::yield_now();
            }
            Ok(())
        }
    }

    /// Spinning shows a model nothing new; it parks at once.
    pub(crate) const SPINS: u32 = 1;

    pub(crate) fn relax(_: u32) {
        loom::thread::yield_now();
    }
}

use phases::Phases;
use sync::UnsafeCell;

/// One place per thread, written by jobs and read between phases. Loom fails a run in which two accesses are not ordered.
struct Places(Vec<UnsafeCell<usize>>);

// SAFETY: loom checks each access.
unsafe impl Sync for Places {}

impl Places {
    fn new(threads: usize) -> Places {
        Places((0..threads).map(|_| UnsafeCell::new(0)).collect())
    }

    fn add(&self, thread: usize) {
        // SAFETY: loom checks each access.
        self.0[thread].with_mut(|place| unsafe { *place += 1 });
    }

    fn all(&self) -> Vec<usize> {
        // SAFETY: loom checks each access.
        self.0.iter().map(|place| place.with(|place| unsafe { *place })).collect()
    }
}

/// All interleavings in which threads are interrupted so many times besides where they wait: nearly every fault needs two.
fn model(preemptions: usize) -> loom::model::Builder {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model
}

fn check(threads: usize, phases: usize, preemptions: usize) {
    model(preemptions).check(move || {
        let places = Places::new(threads);
        let mut pool = Phases::start(threads).expect("loom starts threads");
        for phase in 1..=phases {
            pool.run(&|thread| places.add(thread));
            assert_eq!(places.all(), vec![phase; threads], "each thread ran once, and all is seen");
        }
    });
}

#[test]
fn two_threads_meet_in_every_phase() {
    check(2, 2, 3);
}

#[test]
fn three_threads_meet() {
    check(3, 1, 2);
}

#[test]
fn a_panic_of_a_job_reaches_the_caller_after_all_are_done() {
    model(2).check(|| {
        let places = Places::new(2);
        let mut pool = Phases::start(2).expect("loom starts threads");
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(&|thread| {
                places.add(thread);
                // Quietly, and without a message.
                if thread == 0 {
                    std::panic::resume_unwind(Box::new(()));
                }
            });
        }));
        assert!(outcome.is_err());
        assert_eq!(places.all(), [1, 1]);
    });
}
