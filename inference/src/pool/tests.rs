//! Every thread once, every part once, whatever the number of threads.

use super::{Matrix, Pool, share};
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn every_thread_runs_every_phase_once() {
    for threads in [1, 2, 3, 8] {
        let mut pool = Pool::new(threads).expect("threads start");
        let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
        for phase in 1..=300 {
            pool.run(&|thread| {
                counts[thread].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == phase));
        }
    }
}

#[test]
fn parked_threads_wake() {
    let mut pool = Pool::new(3).expect("threads start");
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(5));
        let ran = AtomicUsize::new(0);
        pool.run(&|thread| {
            if thread == 2 {
                // The caller has to park for this one.
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.load(Ordering::Relaxed), 3);
    }
}

#[test]
fn shares_cover_without_overlap() {
    for units in 0..20 {
        for threads in 1..9 {
            let mut next = 0;
            for thread in 0..threads {
                let range = share(units, thread, threads);
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, units);
        }
    }
}

#[test]
fn columns_are_disjoint_and_complete() {
    let mut pool = Pool::new(3).expect("threads start");
    let mut data = vec![0.0; 4 * 22];
    pool.columns(5, 1, [Matrix::new(&mut data, 4, 22, 4)], |range, [part]| {
        for row in 0..part.rows() {
            assert_eq!(part.row(row).len(), range.len() * 4);
            for value in part.row(row) {
                *value += 1.0;
            }
        }
    });
    for row in data.chunks(22) {
        assert!(row[..20].iter().all(|&v| v == 1.0) && row[20..].iter().all(|&v| v == 0.0));
    }
}

#[test]
fn chunks_are_visited_once() {
    let mut pool = Pool::new(4).expect("threads start");
    let (mut a, mut b) = (vec![0_u32; 300], vec![0_u8; 100]);
    let mut visits = [0_usize; 4];
    pool.chunks(100, 3, &mut visits, (&mut a, 3), (&mut b, 1), |visits, index, a, b| {
        *visits += 1;
        for value in a {
            *value += u32::try_from(index).expect("small") + 1;
        }
        b[0] += 1;
    });
    assert_eq!(visits.iter().sum::<usize>(), 100);
    assert!(a.chunks(3).enumerate().all(|(i, c)| c.iter().all(|&v| v as usize == i + 1)));
    assert!(b.iter().all(|&v| v == 1));
}

#[test]
fn a_panic_reaches_the_caller() {
    let mut pool = Pool::new(2).expect("threads start");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pool.run(&|thread| assert_ne!(thread, 1, "expected in this test"));
    }));
    assert!(caught.is_err());
}
