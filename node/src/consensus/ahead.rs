//! The bodies of blocks of the past, verified ahead: while one block is executed and written, others are verified, by the thread
//! that waits for one too.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use aria_chain::block::VerifiedBody;

/// The outcome for the body of one block.
pub type Verified = Result<VerifiedBody, String>;

/// The bodies of some blocks.
struct Ahead<'v, T> {
    verify: &'v (dyn Fn(T) -> Verified + Sync),
    /// Each until somebody begins it.
    blocks: Vec<Mutex<Option<T>>>,
    /// The next block that nobody has begun.
    next: AtomicUsize,
    outcomes: Mutex<Vec<Option<Verified>>>,
    is_one_done: Condvar,
    is_over: AtomicBool,
}

/// Calls `each` for block after block with its verified body, until it says that it is enough. `verify` runs on all cores meanwhile.
pub fn with_verified<T: Send, E>(
    blocks: Vec<T>,
    verify: &(dyn Fn(T) -> Verified + Sync),
    mut each: impl FnMut(usize, Verified) -> Result<bool, E>,
) -> Result<(), E> {
    let count = blocks.len();
    let ahead = Ahead {
        verify,
        blocks: blocks.into_iter().map(|block| Mutex::new(Some(block))).collect(),
        next: AtomicUsize::new(0),
        outcomes: Mutex::new((0..count).map(|_| None).collect()),
        is_one_done: Condvar::new(),
        is_over: AtomicBool::new(false),
    };
    let helpers = std::thread::available_parallelism().map_or(1, usize::from).min(count).saturating_sub(1);
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|| while ahead.verify_one() {});
        }
        let outcome = (0..count).try_for_each(|index| match each(index, ahead.wait_for(index)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(None),
            Err(error) => Err(Some(error)),
        });
        ahead.is_over.store(true, Ordering::Relaxed);
        outcome.or_else(|stopped| stopped.map_or(Ok(()), Err))
    })
}

/// A thread that panics holds no lock, so what is inside is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Ahead<'_, T> {
    /// Verifies the next block, if there is one.
    fn verify_one(&self) -> bool {
        if self.is_over.load(Ordering::Relaxed) {
            return false;
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(block) = self.blocks.get(index) else { return false };
        let Some(body) = lock(block).take() else { return true };
        // Whoever waits for this block must hear of it, also where a defect of ours ends this thread.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.verify)(body)));
        lock(&self.outcomes)[index] = Some(outcome.unwrap_or_else(|_| Err("its verification panicked".into())));
        self.is_one_done.notify_all();
        true
    }

    /// The outcome for a block. Who waits works.
    fn wait_for(&self, index: usize) -> Verified {
        loop {
            if let Some(outcome) = lock(&self.outcomes)[index].take() {
                return outcome;
            }
            if !self.verify_one() {
                break;
            }
        }
        let mut outcomes = lock(&self.outcomes);
        loop {
            match outcomes[index].take() {
                Some(outcome) => return outcome,
                None => outcomes = self.is_one_done.wait(outcomes).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(count: usize, fails_at: Option<usize>, stops_at: usize) -> (Vec<(usize, bool)>, Result<(), usize>) {
        let calls = AtomicUsize::new(0);
        let verify = |()| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            std::thread::yield_now();
            if Some(call) == fails_at { Err("bad".to_owned()) } else { Ok(VerifiedBody::default()) }
        };
        let mut seen = Vec::new();
        let outcome = with_verified(vec![(); count], &verify, |index, verified| {
            seen.push((index, verified.is_ok()));
            if index == stops_at { Err(index) } else { Ok(seen.len() < 50) }
        });
        (seen, outcome)
    }

    #[test]
    fn every_block_comes_once_and_in_order() {
        for count in [0, 1, 2, 40] {
            let (seen, outcome) = run(count, None, usize::MAX);
            assert_eq!(seen, (0..count).map(|index| (index, true)).collect::<Vec<_>>());
            assert_eq!(outcome, Ok(()));
        }
    }

    #[test]
    fn it_ends_where_it_is_told_to() {
        assert_eq!(run(64, None, usize::MAX).0.len(), 50, "enough");
        let (seen, outcome) = run(64, None, 7);
        assert_eq!((seen.len(), outcome), (8, Err(7)));
        assert_eq!(run(20, Some(3), usize::MAX).0.iter().filter(|(_, is_good)| !is_good).count(), 1);
    }

    #[test]
    fn a_panic_is_an_outcome() {
        let verify = |()| -> Verified { panic!("a defect") };
        let mut outcomes = Vec::new();
        let all = with_verified(vec![(); 3], &verify, |_, verified| {
            outcomes.push(verified.is_err());
            Ok::<bool, ()>(true)
        });
        assert_eq!((all, outcomes), (Ok(()), vec![true; 3]));
    }
}
