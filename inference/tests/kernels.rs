//! Every kernel of every path this CPU has, against its scalar twin, bit for bit, over odd shapes.

#![expect(clippy::cast_possible_truncation, reason = "random bits are cut to size on purpose")]

use aria_inference::arith::norm::RowScale;
use aria_inference::arith::screen::{coarse, probe};
use aria_inference::embedding::SCREEN_ROWS;
use aria_inference::hyper::Gate;
use aria_inference::kernels::packed::{BLOCK_COLUMNS, GROUP_ROWS, pack_row};
use aria_inference::kernels::{Activations, CoarseSlice, KernelKind, Kernels, Packed, ProbeSlice, Queries, Store};
use aria_inference::memory::{Line, as_bytes_mut};
use aria_inference::pool::Matrix;
use proptest::prelude::*;

/// A small generator: the shapes come from proptest, the bulk from here.
struct Source(u64);

impl Source {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// Ordinary numbers, with zeros of both signs and subnormals among them.
    fn float(&mut self) -> f32 {
        match self.below(40) {
            0 => 0.0,
            1 => -0.0,
            2 => f32::from_bits(self.below(0x0080_0000) as u32),
            3 => -f32::from_bits(self.below(0x0080_0000) as u32),
            _ => {
                let magnitude = f32::from_bits(((self.below(20) as u32 + 117) << 23) | self.below(1 << 23) as u32);
                if self.below(2) == 0 { magnitude } else { -magnitude }
            }
        }
    }

    fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }

    /// Finite binary16 patterns.
    fn halves(&mut self, len: usize) -> Vec<u16> {
        (0..len).map(|_| (self.below(0x7c00) as u16) | ((self.below(2) as u16) << 15)).collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The paths of this CPU other than the twin.
fn paths() -> Vec<Kernels> {
    KernelKind::ALL
        .into_iter()
        .filter(|&kind| kind != KernelKind::Scalar && kind.is_available())
        .map(|kind| Kernels::forced(kind).expect("available"))
        .collect()
}

fn twin() -> Kernels {
    Kernels::forced(KernelKind::Scalar).expect("always available")
}

#[test]
fn the_best_path_is_the_last_available_one() {
    let best = KernelKind::ALL.into_iter().rev().find(|kind| kind.is_available());
    assert_eq!(Some(Kernels::detect().kind), best);
}

#[test]
fn paths_have_names_and_refuse_unknown_ones() {
    for kind in KernelKind::ALL {
        assert_eq!(kind.name().parse::<KernelKind>(), Ok(kind));
        assert_eq!(Kernels::forced(kind).is_ok(), kind.is_available());
    }
    assert!("sse9".parse::<KernelKind>().expect_err("unknown").to_string().contains("sse9"));
}

fn packed(source: &mut Source, groups: usize, columns: usize) -> Packed {
    let scales = (0..groups).map(|_| source.float().abs() + 0.001).collect();
    let mut packed = Packed::zeros(columns, scales);
    for group in packed.groups_mut() {
        for row in 0..GROUP_ROWS {
            let values: Vec<i8> = (0..columns).map(|_| source.below(3) as i8 - 1).collect();
            pack_row(group, row, &values);
        }
    }
    packed
}

fn ternary(kernels: &Kernels, matrix: &Packed, q: &[i8], scales: &[RowScale], store: Store, seed: &[f32]) -> Vec<u32> {
    let mut out = seed.to_vec();
    let stride = matrix.groups() * GROUP_ROWS;
    let activations = Activations { q, stride: matrix.per_group() * BLOCK_COLUMNS, scales };
    let mut columns = Matrix::new(&mut out, scales.len(), stride, GROUP_ROWS).into_columns(matrix.groups());
    (kernels.ternary)(&matrix.slice(0..matrix.groups()), &activations, store, &mut columns);
    bits(&out)
}

fn check_ternary(groups: usize, columns: usize, rows: usize, seed: u64, extreme: bool) {
    let mut source = Source(seed);
    let matrix = packed(&mut source, groups, columns);
    let stride = matrix.per_group() * BLOCK_COLUMNS;
    let mut q = vec![0_i8; rows * stride];
    let mut scales = Vec::new();
    for row in q.chunks_exact_mut(stride) {
        for value in &mut row[..columns] {
            *value = match (extreme, source.below(2)) {
                (true, 0) => -128,
                (true, _) => 127,
                (false, _) => source.below(256) as u8 as i8,
            };
        }
        let sum = row.iter().map(|&v| i32::from(v)).sum();
        scales.push(RowScale { k: source.float().abs() + 0.5, sum });
    }
    let seed = source.floats(rows * groups * GROUP_ROWS);
    for store in [Store::Set, Store::Add] {
        let expected = ternary(&twin(), &matrix, &q, &scales, store, &seed);
        for kernels in paths() {
            let got = ternary(&kernels, &matrix, &q, &scales, store, &seed);
            assert!(got == expected, "{} {groups} x {columns}, {rows} rows, {store:?}", kernels.kind);
        }
    }
}

#[test]
fn ternary_sums_never_overflow() {
    // All weights equal and all activations extreme, at lengths around the 16-bit spill.
    for columns in [16, 15 * 16, 15 * 16 + 1, 16 * 16, 31 * 16, 6912] {
        for value in [-1_i8, 1] {
            let mut matrix = Packed::zeros(columns, vec![1.0]);
            for group in matrix.groups_mut() {
                for row in 0..GROUP_ROWS {
                    pack_row(group, row, &vec![value; columns]);
                }
            }
            let stride = matrix.per_group() * BLOCK_COLUMNS;
            for q_value in [-128_i8, 127] {
                let mut q = vec![0; stride];
                q[..columns].fill(q_value);
                let total = i32::from(q_value) * i32::try_from(columns).expect("small");
                let scales = [RowScale { k: 1.0, sum: total }];
                let expected = vec![((total * i32::from(value)) as f32).to_bits(); GROUP_ROWS];
                for kernels in paths().into_iter().chain([twin()]) {
                    let got = ternary(&kernels, &matrix, &q, &scales, Store::Set, &[0.0; GROUP_ROWS]);
                    assert_eq!(got, expected, "{} {columns} columns", kernels.kind);
                }
            }
        }
    }
}

#[test]
fn ternary_on_both_sides_of_every_tile_size() {
    for rows in 1..=18 {
        check_ternary(3, 80, rows, rows as u64, false);
        check_ternary(1, 33, rows, rows as u64 + 100, true);
    }
    check_ternary(2, 2560, 9, 7, true);
}

#[test]
fn a_tail_leaves_its_lane_alone_even_at_negative_zero() {
    // Every product underflows to -0. A tail that added zeros to the lanes beyond it would turn them into +0.
    for dim in [16, 17, 31] {
        let matrix = vec![-1e-30; 17 * dim];
        for kernels in paths().into_iter().chain([twin()]) {
            let mut out = vec![1.0; 17];
            let mut columns = Matrix::new(&mut out, 1, 17, 1).into_columns(17);
            (kernels.head)(&matrix, dim, &vec![1e-30; dim], &mut columns);
            assert_eq!(bits(&out), vec![(-0.0_f32).to_bits(); 17], "{} {dim} columns", kernels.kind);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ternary_equals_its_twin(
        groups in 1_usize..6, columns in 1_usize..700, rows in 1_usize..20, seed: u64, extreme: bool,
    ) {
        check_ternary(groups, columns, rows, seed, extreme);
    }

    #[test]
    fn norms_equal_their_twins(len in 1_usize..700, padding in 0_usize..20, seed: u64, spike: bool) {
        let mut source = Source(seed);
        let mut x = source.floats(len);
        if spike {
            x[source.below(len as u64) as usize] = 3000.0;
        }
        let gain = source.floats(len);
        let mut y = vec![0.0; len];
        let mut q = vec![1_i8; len + padding];
        let fine = (twin().norm)(&x, &gain, 1e-5, &mut y);
        let scale = (twin().norm_quantise)(&x, &gain, 1e-5, &mut q);
        for kernels in paths() {
            let mut y2 = vec![0.0; len];
            let mut q2 = vec![1_i8; len + padding];
            prop_assert_eq!((kernels.norm)(&x, &gain, 1e-5, &mut y2), fine);
            prop_assert_eq!(bits(&y2), bits(&y));
            let scale2 = (kernels.norm_quantise)(&x, &gain, 1e-5, &mut q2);
            prop_assert_eq!(scale2.map(|s| (s.k.to_bits(), s.sum)), scale.map(|s| (s.k.to_bits(), s.sum)));
            prop_assert_eq!(&q2, &q);
        }
    }

    #[test]
    fn what_is_not_finite_is_found_wherever_it_is(len in 1_usize..100, seed: u64, kind in 0_usize..4) {
        let mut source = Source(seed);
        let (mut x, mut gain) = (source.floats(len), vec![1.0; len]);
        let at = source.below(len as u64) as usize;
        x[at] = 1.0;
        match kind {
            0 => x[at] = f32::NAN,
            1 => x[at] = f32::NEG_INFINITY,
            2 => x[at] = 1e30,
            _ => gain[at] = f32::INFINITY,
        }
        for kernels in paths().into_iter().chain([twin()]) {
            prop_assert!(!(kernels.norm)(&x, &gain, 1e-5, &mut vec![0.0; len]));
            prop_assert!((kernels.norm_quantise)(&x, &gain, 1e-5, &mut vec![0; len]).is_none());
        }
    }

    #[test]
    fn gates_equal_their_twins(groups in 1_usize..5, seed: u64) {
        let mut source = Source(seed);
        let mut pairs = source.floats(32 * groups);
        for value in pairs.iter_mut().step_by(7) {
            *value *= 100.0;
        }
        for gate in [Gate::SquaredRelu, Gate::Silu] {
            let mut expected = vec![0.0; 16 * groups];
            (twin().gate)(gate, &pairs, &mut expected);
            for kernels in paths() {
                let mut got = vec![0.0; 16 * groups];
                (kernels.gate)(gate, &pairs, &mut got);
                prop_assert_eq!(bits(&got), bits(&expected));
            }
        }
    }

    #[test]
    fn narrowing_equals_its_twin(len in 1_usize..60, seed: u64) {
        let mut source = Source(seed);
        let values: Vec<f32> = (0..len)
            .map(|_| f32::from_bits(((source.below(50) as u32 + 98) << 23) | source.below(1 << 23) as u32))
            .collect();
        let mut expected = vec![0; len];
        let fine = (twin().narrow)(&values, &mut expected);
        for kernels in paths() {
            let mut got = vec![0; len];
            prop_assert_eq!((kernels.narrow)(&values, &mut got), fine);
            prop_assert_eq!(&got, &expected);
        }
    }

    #[test]
    fn attention_equals_its_twin(
        dim in 1_usize..140, lengths in proptest::collection::vec(1_usize..70, 1..12), seed: u64, scale in 0_u32..3,
    ) {
        let mut source = Source(seed);
        let factor = [0.01, 1.0, 1e4][scale as usize];
        let (count, positions) = (lengths.len(), *lengths.iter().max().expect("some"));
        let q: Vec<f32> = source.floats(count * dim).iter().map(|v| v * factor).collect();
        let mut keys: Vec<u16> = source.halves(positions * dim).iter().map(|b| b & 0xbfff).collect();
        if source.below(4) == 0 {
            // One score is not finite, for the queries that see it.
            keys[source.below((positions * dim) as u64) as usize] = 0x7c00;
        }
        let values = source.halves(positions * dim);
        let queries = Queries { q: &q, dim, lengths: &lengths, keys: &keys, values: &values };
        let run = |kernels: &Kernels| {
            let (mut scores, mut out, mut finite) = (vec![0.0; count * positions], vec![1.0; count * dim], vec![false; count]);
            (kernels.attend)(&queries, &mut scores, &mut out, &mut finite);
            (bits(&out), finite)
        };
        let expected = run(&twin());
        for kernels in paths() {
            prop_assert_eq!(run(&kernels), expected.clone());
        }
    }

    #[test]
    fn logits_equal_their_twins(dim in 1_usize..300, rows in 1_usize..50, tokens in 1_usize..10, seed: u64) {
        let mut source = Source(seed);
        let matrix = source.floats(rows * dim);
        let x = source.floats(tokens * dim);
        let logits = |kernels: &Kernels| {
            let mut out = vec![0.0; tokens * rows];
            let mut columns = Matrix::new(&mut out, tokens, rows, 1).into_columns(rows);
            (kernels.head)(&matrix, dim, &x, &mut columns);
            bits(&out)
        };
        let expected = logits(&twin());
        for kernels in paths() {
            prop_assert_eq!(logits(&kernels), expected.clone());
            let one = (kernels.dot)(&matrix[..dim], &x[..dim]);
            prop_assert_eq!(one.to_bits(), expected[0], "the product alone is the one of the tile");
        }
    }

    #[test]
    fn the_screen_equals_its_twin(
        columns in 1_usize..400, units in 1_usize..4, states in 0_usize..7, seed: u64, extreme: bool,
    ) {
        let mut source = Source(seed);
        let per_row = columns.div_ceil(64);
        let (rows, stride) = (units * SCREEN_ROWS, 64 * per_row);
        let mut lines = vec![Line([128; 64]); rows * per_row];
        let mut scales = vec![0.0; rows];
        for (row, scale) in scales.iter_mut().enumerate() {
            let weights = source.floats(columns);
            let weights = if extreme { vec![if row % 2 == 0 { 1.0 } else { -1.0 }; columns] } else { weights };
            *scale = coarse(&weights, as_bytes_mut(&mut lines[row * per_row..(row + 1) * per_row])).scale;
        }
        let (mut high, mut low) = (vec![0_i8; states * stride], vec![0_i8; states * stride]);
        let mut probes = Vec::new();
        for (high, low) in high.chunks_exact_mut(stride).zip(low.chunks_exact_mut(stride)) {
            let x = if extreme { vec![-1.0; columns] } else { source.floats(columns) };
            probes.push(probe(&x, high, low).unwrap_or_default());
        }
        for low in [&low[..], &[]] {
            let run = |kernels: &Kernels| {
                let mut out = vec![1.0; states * rows];
                let mut columns = Matrix::new(&mut out, states, rows, SCREEN_ROWS).into_columns(units);
                let slice = ProbeSlice { high: &high, low, stride, probes: &probes };
                (kernels.screen)(&CoarseSlice { lines: &lines, per_row, scales: &scales }, &slice, &mut columns);
                let row = &lines[(rows - 1) * per_row..];
                let steps: Vec<i32> = high.chunks_exact(stride).map(|part| (kernels.steps)(row, part)).collect();
                (bits(&out), steps)
            };
            let expected = run(&twin());
            for kernels in paths() {
                prop_assert_eq!(run(&kernels), expected.clone(), "{}", kernels.kind);
            }
        }
    }

    #[test]
    fn sums_equal_their_twin(len in 0_usize..100, seed: u64) {
        let values = Source(seed).floats(len);
        for kernels in paths() {
            prop_assert_eq!((kernels.sum)(&values).to_bits(), (twin().sum)(&values).to_bits());
        }
    }

    #[test]
    fn software_fma_equals_the_instruction(a: u32, b: u32, c: u32) {
        let [a, b, c] = [a, b, c].map(f32::from_bits);
        check_fma(a, b, c);
        // Near cancellation, where the second rounding would show.
        check_fma(a, b, -(a * b));
        check_fma(a, b, f32::from_bits((a * b).to_bits().wrapping_add(1)));
    }
}

/// Compares the software fma with the CPU's, as far as this CPU has one.
fn check_fma(a: f32, b: f32, c: f32) {
    let soft = aria_inference::arith::fma::fma(a, b, c);
    let Some(hard) = hardware_fma(a, b, c) else { return };
    assert!(
        soft.to_bits() == hard.to_bits() || (soft.is_nan() && hard.is_nan()),
        "fma({a:e}, {b:e}, {c:e}): {soft:e} in software, {hard:e} in hardware"
    );
}

/// The instruction, through an inner product of width 32: it puts `a * b` after `c * 1` into lane 0.
fn hardware_fma(a: f32, b: f32, c: f32) -> Option<f32> {
    let kernels = paths().pop()?;
    let mut row = vec![0.0; 32];
    (row[0], row[16]) = (1.0, b);
    let mut x = vec![0.0; 32];
    (x[0], x[16]) = (c, a);
    let product = (kernels.dot)(&row, &x);
    // +0 + fma(...) turns -0 into +0; compare that case by value through the caller's twin instead.
    (product != 0.0).then_some(product)
}
