//! Threads for one forward pass, and the buffers that they fill together.
//!
//! Everything shared mutably is handed out by this module as disjoint pieces: callers stay safe code. This file is an island of
//! `unsafe`; each use says what keeps the pieces apart. How the threads meet is in `phases.rs`.
#![expect(unsafe_code, reason = "island: hands disjoint parts of one buffer to several threads")]

mod phases;
mod sync;

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::arith::mode::{self, FloatModeError};
use phases::Phases;

/// Most threads of a pool. More than any CPU that runs one model well; bounds arrays.
pub const THREADS_MAX: usize = 256;

/// A fixed set of threads; the caller of a phase is one of them.
pub struct Pool {
    phases: Phases,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

/// A pool could not start.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The number of threads is out of range.
    #[error("threads: must be between 1 and {THREADS_MAX}, not {0}")]
    Threads(usize),
    /// The system refused a thread.
    #[error("cannot start a compute thread: {0}; lower the number of threads")]
    Spawn(std::io::Error),
    /// A thread does not compute floats as IEEE 754 says.
    #[error(transparent)]
    FloatMode(#[from] FloatModeError),
}

impl Pool {
    /// Starts `threads - 1` workers. Each checks its float environment (R1).
    pub fn new(threads: usize) -> Result<Pool, PoolError> {
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(PoolError::Threads(threads));
        }
        let mut pool = Pool { phases: Phases::start(threads).map_err(PoolError::Spawn)? };
        pool.check_float_mode()?;
        Ok(pool)
    }

    /// Threads, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.phases.threads()
    }

    /// Checks the float environment of every thread (R1): at the start, and before a result is signed.
    pub fn check_float_mode(&mut self) -> Result<(), FloatModeError> {
        let verdict = Mutex::new(Ok(()));
        self.run(&|_| {
            if let Err(error) = mode::check() {
                *verdict.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
            }
        });
        verdict.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `job(thread)` once on every thread and returns when all are done.
    ///
    /// # Panics
    /// If a job panicked.
    pub fn run(&mut self, job: &(dyn Fn(usize) + Sync)) {
        self.phases.run(job);
    }

    /// Splits `units` column groups in contiguous runs over as many threads as get `grain` of them, and hands each its columns of every matrix.
    ///
    /// # Panics
    /// If the units do not fit a matrix's row, or its rows its buffer.
    pub fn columns<const N: usize>(
        &mut self,
        units: usize,
        grain: usize,
        matrices: [Matrix<'_>; N],
        job: impl Fn(Range<usize>, &mut [Columns<'_>; N]) + Sync,
    ) {
        let threads = (units / grain.max(1)).clamp(1, self.threads());
        for matrix in &matrices {
            assert!(units * matrix.unit <= matrix.stride, "columns lie inside of a row");
            assert!(matrix.rows * matrix.stride <= matrix.data_len, "rows lie inside of the buffer");
        }
        let matrices = &matrices;
        let part = move |thread: usize| {
            let range = if thread < threads { share(units, thread, threads) } else { 0..0 };
            if range.is_empty() {
                return;
            }
            let mut parts = std::array::from_fn(|i| {
                let m = &matrices[i];
                Columns {
                    data: m.data,
                    rows: m.rows,
                    stride: m.stride,
                    start: range.start * m.unit,
                    width: range.len() * m.unit,
                    owner: PhantomData,
                }
            });
            job(range, &mut parts);
        };
        if threads == 1 { part(0) } else { self.run(&part) }
    }

    /// Runs `job(state, index, chunk of a, chunk of b)` for each pair of chunks. Threads take the next `grain` indices when they are done with
    /// theirs; `states` has one entry per thread.
    ///
    /// # Panics
    /// If the buffers are shorter than `count` chunks, or there are fewer states than threads.
    pub fn chunks<S: Send, A: Send, B: Send>(
        &mut self,
        count: usize,
        grain: usize,
        states: &mut [S],
        a: (&mut [A], usize),
        b: (&mut [B], usize),
        job: impl Fn(&mut S, usize, &mut [A], &mut [B]) + Sync,
    ) {
        let ((a, a_len), (b, b_len)) = (a, b);
        assert!(a.len() >= count * a_len && b.len() >= count * b_len, "buffers hold every chunk");
        assert!(states.len() >= self.threads(), "one state per thread");
        let grain = grain.max(1);
        if count <= grain || self.threads() == 1 {
            for index in 0..count {
                job(
                    &mut states[0],
                    index,
                    &mut a[index * a_len..(index + 1) * a_len],
                    &mut b[index * b_len..(index + 1) * b_len],
                );
            }
            return;
        }
        let next = AtomicUsize::new(0);
        let (states, a, b) = (Parts::new(states), Parts::new(a), Parts::new(b));
        self.run(&|thread| {
            // SAFETY: each thread index runs once per phase, so its state is borrowed once.
            let state = unsafe { &mut states.part(thread, 1)[0] };
            loop {
                let first = next.fetch_add(grain, Ordering::Relaxed);
                if first >= count {
                    return;
                }
                for index in first..count.min(first + grain) {
                    // SAFETY: the counter gives every index to one thread only, and chunks of different indices are disjoint; the lengths
                    // were checked above.
                    let (a, b) = unsafe { (a.part(index, a_len), b.part(index, b_len)) };
                    job(state, index, a, b);
                }
            }
        });
    }
}

/// The contiguous share of `units` that belongs to one thread.
fn share(units: usize, thread: usize, threads: usize) -> Range<usize> {
    units * thread / threads..units * (thread + 1) / threads
}

/// A row-major buffer whose columns are to be split: `rows` rows of `stride`, in column groups of `unit`.
#[derive(Debug)]
pub struct Matrix<'a> {
    data: *mut f32,
    data_len: usize,
    rows: usize,
    stride: usize,
    unit: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: stands for an exclusive borrow of floats, which may move between threads.
unsafe impl Send for Matrix<'_> {}
// SAFETY: a shared `Matrix` gives no access; only `Pool::columns` does, to disjoint columns.
unsafe impl Sync for Matrix<'_> {}

impl<'a> Matrix<'a> {
    /// Borrows `data` for one phase.
    #[must_use]
    pub fn new(data: &'a mut [f32], rows: usize, stride: usize, unit: usize) -> Matrix<'a> {
        Matrix { data: data.as_mut_ptr(), data_len: data.len(), rows, stride, unit, owner: PhantomData }
    }

    /// All columns as one part, for callers with one thread.
    ///
    /// # Panics
    /// If the buffer is shorter than its rows.
    #[must_use]
    pub fn into_columns(self, units: usize) -> Columns<'a> {
        assert!(self.rows * self.stride <= self.data_len && units * self.unit <= self.stride, "columns lie inside");
        Columns {
            data: self.data,
            rows: self.rows,
            stride: self.stride,
            start: 0,
            width: units * self.unit,
            owner: PhantomData,
        }
    }
}

/// Some columns of a matrix, exclusively.
#[derive(Debug)]
pub struct Columns<'a> {
    data: *mut f32,
    rows: usize,
    stride: usize,
    start: usize,
    width: usize,
    owner: PhantomData<&'a mut [f32]>,
}

impl Columns<'_> {
    /// Rows of the matrix.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Some of these columns.
    ///
    /// # Panics
    /// If they are not among these.
    pub fn part(&mut self, start: usize, width: usize) -> Columns<'_> {
        assert!(start + width <= self.width, "columns of this part");
        Columns { start: self.start + start, width, owner: PhantomData, ..*self }
    }

    /// These columns of one row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "a row of the matrix");
        // SAFETY: `Pool::columns` and `Matrix::into_columns` checked that rows * stride lies in the buffer and that start + width <= stride; parts
        // of other threads hold other columns; `&mut self` keeps this part's rows from being borrowed twice.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride + self.start), self.width) }
    }
}

/// A buffer that several threads take disjoint parts of.
struct Parts<'a, T> {
    data: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: hands out exclusive parts of a slice of `Send` values; `part`'s contract keeps them disjoint.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    fn new(data: &'a mut [T]) -> Parts<'a, T> {
        Parts { data: data.as_mut_ptr(), len: data.len(), owner: PhantomData }
    }

    /// The `index`-th part of `len` elements.
    ///
    /// # Safety
    /// No two live parts may have the same index, and all calls use one `len`.
    #[expect(clippy::mut_from_ref, reason = "the contract keeps parts disjoint")]
    unsafe fn part(&self, index: usize, len: usize) -> &mut [T] {
        assert!((index + 1) * len <= self.len, "a part lies inside of its buffer");
        // SAFETY: inside of the buffer by the assertion, disjoint from other parts by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(index * len), len) }
    }
}

#[cfg(test)]
mod tests;
