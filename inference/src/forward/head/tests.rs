//! The screen against the full computation: its rows, its bound, and what it returns, on data made to break it.

use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::{Head, Row};
use crate::arith::half;
use crate::arith::screen::probe;
use crate::embedding::{Embedding, SCREEN_ROWS};
use crate::forward::Wants;
use crate::gguf::Gguf;
use crate::gguf::writer::Writer;
use crate::kernels::{KernelKind, Kernels, ProbeSlice};
use crate::pool::{Matrix, Pool};
use crate::sampler::greatest;

/// How a matrix is stored in a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stored {
    F16,
    Bf16,
    F32,
}

impl Stored {
    /// The nearest value of this kind.
    fn round(self, value: f32) -> f32 {
        match self {
            Stored::F16 => half::widen(half::narrow(value.clamp(-60_000.0, 60_000.0))),
            Stored::Bf16 => f32::from_bits(value.to_bits() & 0xffff_0000),
            Stored::F32 => value,
        }
    }

    fn file(self, values: &[f32], columns: usize) -> Gguf {
        let (kind, bytes): (u32, Vec<u8>) = match self {
            Stored::F16 => (1, values.iter().flat_map(|&v| half::narrow(v).to_le_bytes()).collect()),
            Stored::Bf16 => (30, values.iter().flat_map(|&v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect()),
            Stored::F32 => (0, values.iter().flat_map(|&v| v.to_le_bytes()).collect()),
        };
        let dims = [columns as u64, (values.len() / columns) as u64];
        Writer::new().tensor("matrix", &dims, kind, &bytes).open().expect("a sound file")
    }

    fn embedding(self, values: &[f32], columns: usize, threads: usize) -> Embedding {
        let file = self.file(values, columns);
        let rows = file.tensor("matrix").and_then(|tensor| tensor.floats()).expect("numbers");
        Embedding::new(&rows, NonZeroUsize::new(threads).expect("some")).expect("finite")
    }
}

fn paths() -> impl Iterator<Item = Kernels> {
    KernelKind::ALL.into_iter().filter_map(|kind| Kernels::forced(kind).ok())
}

fn check_rows(stored: Stored, values: &[f32], columns: usize) {
    for threads in [1, 3] {
        let embedding = stored.embedding(values, columns, threads);
        let mut out = vec![0.0; columns];
        for kernels in paths() {
            for (index, row) in values.chunks_exact(columns).enumerate() {
                embedding.row(&kernels, index, &mut out);
                for (column, (got, expected)) in out.iter().zip(row).enumerate() {
                    let (got, expected) = (got.to_bits(), expected.to_bits());
                    assert_eq!(got, expected, "{stored:?} row {index}, column {column} on {}", kernels.kind);
                }
            }
        }
    }
}

#[test]
fn every_finite_pattern_of_16_bits_survives() {
    // Each pattern meets others of its own magnitude, and far greater ones that make it small.
    for greatest in [0.0, 1.0, 60_000.0] {
        let halves: Vec<f32> = (0..=u16::MAX).map(half::widen).filter(|v| v.is_finite()).collect();
        let mut rows: Vec<f32> = halves.chunks(31).flat_map(|c| c.iter().copied().chain([greatest])).collect();
        rows.resize(rows.len().next_multiple_of(32), 0.0);
        check_rows(Stored::F16, &rows, 32);
    }
    for greatest in [0.0, 1.0, 3e38] {
        let brains = (0..=u16::MAX).map(half::widen_bfloat).filter(|v| v.is_finite());
        let brains: Vec<f32> = brains.collect();
        let greatest = Stored::Bf16.round(greatest);
        let mut rows: Vec<f32> = brains.chunks(31).flat_map(|c| c.iter().copied().chain([greatest])).collect();
        rows.resize(rows.len().next_multiple_of(32), 0.0);
        check_rows(Stored::Bf16, &rows, 32);
    }
}

/// A small generator: shapes come from proptest, the bulk from here.
struct Source(u64);

impl Source {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.word() % bound as u64).expect("below a size")
    }

    /// Between -1 and 1.
    fn uniform(&mut self) -> f32 {
        f32::from(i16::try_from(self.below(65_536)).unwrap_or(i16::MIN)) / 32_768.0
    }

    /// Roughly normal, now and then an outlier.
    fn weight(&mut self) -> f32 {
        let sum: f32 = (0..6).map(|_| self.uniform()).sum();
        if self.word().is_multiple_of(200) { sum * 30.0 } else { sum }
    }
}

/// Rows made to be hard for a screen.
fn matrix(source: &mut Source, kind: usize, rows: usize, columns: usize, stored: Stored) -> Vec<f32> {
    let mut values: Vec<f32> = (0..rows * columns).map(|_| stored.round(source.weight() * 0.05)).collect();
    for row in 1..rows {
        let (before, after) = values.split_at_mut(row * columns);
        let previous = &before[(row - 1) * columns..];
        let this = &mut after[..columns];
        match kind {
            // The same row again: ties, which the lower id wins.
            0 if row % 3 != 0 => this.copy_from_slice(previous),
            // Another in one last bit only.
            1 if row % 2 != 0 => {
                this.copy_from_slice(previous);
                let at = source.below(columns);
                this[at] = stored.round(f32::from_bits(this[at].to_bits() ^ 0x0001_0000));
            }
            // Norms from tiny to huge.
            2 => this
                .iter_mut()
                .for_each(|v| *v = stored.round(*v * [1.0 / 4096.0, 1.0 / 64.0, 1.0, 64.0, 4096.0][row % 5])),
            // Nothing at all.
            3 if row % 2 == 0 => this.fill(0.0),
            // One large value that makes all others small.
            4 => this[row % columns] = stored.round(50.0),
            _ => {}
        }
    }
    values
}

fn state(source: &mut Source, kind: usize, embedding: &[f32], columns: usize) -> Vec<f32> {
    let mut x: Vec<f32> = (0..columns).map(|_| source.weight()).collect();
    match kind {
        0 => {
            x.fill(0.0);
            x[source.below(columns)] = -3.0;
        }
        // What the coarse form of a row leaves out: the state for which it errs most.
        1 => {
            let row = source.below(embedding.len() / columns);
            let row = &embedding[row * columns..][..columns];
            let m = row.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / 127.0;
            for (x, e) in x.iter_mut().zip(row) {
                *x = (e - (e / m).round_ties_even() * m) * 1000.0;
                if !x.is_finite() {
                    *x = 1.0;
                }
            }
        }
        2 => x.iter_mut().for_each(|v| *v *= 1e-18),
        3 => x.iter_mut().for_each(|v| *v *= 1e25),
        4 => x.iter_mut().for_each(|v| *v = v.signum()),
        5 => x.fill(0.0),
        _ => {}
    }
    x
}

/// Exact logits in the plainest way.
fn dense(values: &[f32], columns: usize, x: &[f32]) -> Vec<f32> {
    values.chunks_exact(columns).map(|row| crate::arith::lanes::dot(x, row)).collect()
}

fn check_bound(embedding: &Embedding, logits: &[f32], x: &[f32]) {
    let stride = embedding.coarse_stride();
    let (mut high, mut low) = (vec![0; stride], vec![0; stride]);
    let Some(found) = probe(x, &mut high, &mut low) else { return };
    let (norm, norm_max) = (f64::from(found.norm), f64::from(embedding.norm_max()));
    let units = embedding.padded_rows() / SCREEN_ROWS;
    for kernels in paths() {
        for (low, rest_norm) in [(&low[..], found.rest_norm), (&[], found.upper_rest_norm)] {
            let mut out = vec![0.0; embedding.padded_rows()];
            let states = ProbeSlice { high: &high, low, stride, probes: &[found] };
            let mut columns = Matrix::new(&mut out, 1, units * SCREEN_ROWS, SCREEN_ROWS).into_columns(units);
            (kernels.screen)(&embedding.coarse(0..units), &states, &mut columns);
            for (row, (&approximate, &exact)) in out.iter().zip(logits).enumerate() {
                let bound = norm * f64::from(embedding.slacks()[row]) + f64::from(rest_norm) * norm_max;
                let error = (f64::from(exact) - f64::from(approximate)).abs();
                assert!(error <= bound, "row {row}: {exact} is {error:e} from {approximate}, {bound:e} was promised");
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one per random input")]
fn check(
    stored: Stored,
    kind: usize,
    states: &[usize],
    rows: usize,
    columns: usize,
    count: usize,
    seed: u64,
    threads: usize,
) {
    let mut source = Source(seed);
    let values = matrix(&mut source, kind, rows, columns, stored);
    let embedding = stored.embedding(&values, columns, threads);
    let hidden: Vec<Vec<f32>> = states.iter().map(|&kind| state(&mut source, kind, &values, columns)).collect();
    let expected: Vec<Vec<f32>> = hidden.iter().map(|x| dense(&values, columns, x)).collect();
    for (x, logits) in hidden.iter().zip(&expected) {
        check_bound(&embedding, logits, x);
    }
    let normed: Vec<f32> = hidden.concat();
    for kernels in paths() {
        let mut pool = Pool::new(threads).expect("threads");
        let mut head = Head::default();
        // Every third row wants all; the one before it wants nothing.
        let wants = |index: usize| match index % 4 {
            3 => Wants { greatest: count, all: true },
            2 => Wants::NOTHING,
            _ => Wants::greatest(count),
        };
        let passes: Vec<Row> =
            (0..hidden.len()).map(|index| Row { session: 0, token: 0, position: index, wants: wants(index) }).collect();
        head.run(&mut pool, &kernels, &embedding, &passes, &normed);
        let faults: Vec<usize> = head.not_finite(rows).collect();
        let mut at = 0;
        for (index, logits) in expected.iter().enumerate() {
            if !wants(index).any() {
                continue;
            }
            assert_eq!(faults.contains(&index), logits.iter().any(|l| !l.is_finite()));
            let mut top = Vec::new();
            greatest(logits, count, &mut top);
            let bits = |list: &[(u32, f32)]| list.iter().map(|&(id, l)| (id, l.to_bits())).collect::<Vec<_>>();
            if !faults.contains(&index) {
                assert_eq!(bits(head.greatest(at)), bits(&top), "state {index} on {}", kernels.kind);
            }
            if wants(index).all {
                let same = head.all(at, rows).iter().zip(logits).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "all logits of state {index}");
            }
            let id = source.below(rows);
            let one = head.one(&kernels, &embedding, at, u32::try_from(id).expect("small"));
            assert_eq!(one.to_bits(), logits[id].to_bits());
            at += 1;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_the_screen_leaves_are_the_greatest(
        stored in prop_oneof![Just(Stored::F16), Just(Stored::Bf16), Just(Stored::F32)],
        kind in 0_usize..6,
        states in proptest::collection::vec(0_usize..7, 1..7),
        rows in 1_usize..90,
        columns in 1_usize..300,
        count in 1_usize..50,
        seed: u64,
        threads in 1_usize..3,
    ) {
        check(stored, kind, &states, rows, columns, count, seed, threads);
    }
}

#[test]
fn logits_beyond_binary32_are_found_though_nobody_asked_for_all() {
    // Weights as large as bfloat16 goes: the product of the norms overflows, so all are computed, and one is infinite.
    let values: Vec<f32> = (0..40 * 32).map(|i| Stored::Bf16.round(if i == 33 { 3e38 } else { 0.5 })).collect();
    let embedding = Stored::Bf16.embedding(&values, 32, 1);
    let normed = [3.0; 32];
    for kernels in paths() {
        let row = Row { session: 0, token: 0, position: 0, wants: Wants::greatest(1) };
        let mut pool = Pool::new(1).expect("one thread");
        let mut head = Head::default();
        head.run(&mut pool, &kernels, &embedding, &[row], &normed);
        assert_eq!(head.not_finite(40).collect::<Vec<_>>(), [0], "{}", kernels.kind);
    }
}
