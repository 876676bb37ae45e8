//! What the phases of a pool are made of. The model check in `tests/phases.rs` takes loom's kind of the same.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Arc, Mutex};
pub(crate) use std::thread::{Builder, Thread, current, park};

pub(crate) type JoinHandle = std::thread::JoinHandle<()>;

/// Turns of the spin loop before a thread parks: about 50 microseconds.
pub(crate) const SPINS: u32 = 10_000;
/// Turns after which a spinning thread lets others run, for machines with fewer cores than threads.
const SPINS_PER_YIELD: u32 = 500;

/// One turn of waiting.
pub(crate) fn relax(turn: u32) {
    if turn.is_multiple_of(SPINS_PER_YIELD) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

/// A cell whose accesses a model check can see.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    /// Lends the value to be read.
    pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    /// Lends the value to be written.
    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}
