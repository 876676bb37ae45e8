//! The screen on AVX-512 with VNNI: 64 products an instruction, sixteen sums at a time.
//!
//! Weights with 128 added are the unsigned operand, the parts of the hidden state the signed one; 128 times the sum of a part is taken off at
//! the end. One state is screened row after row, two states, or the upper parts of four, in tiles of 4 rows.
#![expect(
    unsafe_code,
    reason = "island: AVX-512 intrinsics; reachable only through a table handed out after detection"
)]

use std::arch::x86_64::{
    __m256, __m256i, __m512i, _MM_HINT_T0, _mm_loadu_ps, _mm_prefetch, _mm_set1_epi32, _mm_set1_ps, _mm_storeu_ps,
    _mm256_add_ps, _mm256_castps256_ps128, _mm256_cvtepi32_ps, _mm256_extractf128_ps, _mm256_loadu_ps, _mm256_mul_ps,
    _mm256_set_m128, _mm256_set_m128i, _mm256_set1_epi32, _mm256_set1_ps, _mm256_storeu_ps, _mm256_sub_epi32,
    _mm512_add_epi32, _mm512_broadcast_f32x4, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_castsi512_si256,
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_extracti32x8_epi32, _mm512_load_si512, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_shuffle_ps,
    _mm512_storeu_ps, _mm512_sub_epi32,
};

use crate::embedding::SCREEN_ROWS;
use crate::kernels::{CoarseSlice, ProbeSlice, check_screen};
use crate::memory::Line;
use crate::pool::Columns;

/// With VNNI.
pub(super) fn vnni(rows: &CoarseSlice<'_>, states: &ProbeSlice<'_>, out: &mut Columns<'_>) {
    // SAFETY: named only in the tables of the parent module, which `Kernels::forced` returns only after it saw the instruction sets.
    unsafe { vnni_inner(rows, states, out) }
}

/// Rows that all states pass before the next ones come: they and two states fit the nearest cache.
const UNIT: usize = 8;
const _: () = assert!(SCREEN_ROWS.is_multiple_of(UNIT), "whole units");
/// Lines that a stream is fetched ahead of its use.
const AHEAD: usize = 64;

/// Fetches the line so many places after the first of `lines`, which may lie beyond the matrix: then nothing happens.
#[inline]
fn prefetch(lines: &[Line], places: usize) {
    // SAFETY: a prefetch accesses nothing; every x86-64 CPU has it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(lines.as_ptr().wrapping_add(places).cast()) }
}

/// Sums of one row with both parts of one state. Memory is the limit, and likes one stream better than several; four columns at a time hide
/// the latency of the multiplier.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn row(lines: &[Line], parts: [&[i8]; 2]) -> [__m512i; 2] {
    assert!(parts.iter().all(|part| part.len() == 64 * lines.len()), "a row and parts of one width");
    let mut acc = [[_mm512_setzero_si512(); 4]; 2];
    let step = |acc: &mut [[__m512i; 4]; 2], at: usize, chain: usize| {
        prefetch(lines, at + AHEAD);
        // SAFETY: callers pass `at` below the number of lines, and the assertion above; a line is aligned to its 64 bytes.
        unsafe {
            let weights = _mm512_load_si512(lines.as_ptr().add(at).cast());
            for (part, acc) in parts.iter().zip(acc) {
                let x = _mm512_loadu_si512(part.as_ptr().add(64 * at).cast());
                acc[chain] = _mm512_dpbusd_epi32(acc[chain], weights, x);
            }
        }
    };
    let whole = lines.len() - lines.len() % 4;
    let mut at = 0;
    while at < whole {
        step(&mut acc, at, 0);
        step(&mut acc, at + 1, 1);
        step(&mut acc, at + 2, 2);
        step(&mut acc, at + 3, 3);
        at += 4;
    }
    while at < lines.len() {
        step(&mut acc, at, 0);
        at += 1;
    }
    acc.map(|acc| _mm512_add_epi32(_mm512_add_epi32(acc[0], acc[1]), _mm512_add_epi32(acc[2], acc[3])))
}

/// Sums of four rows with four parts of states: of each part the four rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn tile(lines: &[Line], per_row: usize, parts: [&[i8]; 4]) -> [__m512i; 16] {
    assert!(lines.len() == 4 * per_row && parts.iter().all(|part| part.len() == 64 * per_row), "a tile");
    let mut acc = [_mm512_setzero_si512(); 16];
    for at in 0..per_row {
        let mut weights = [_mm512_setzero_si512(); 4];
        for (r, weights) in weights.iter_mut().enumerate() {
            prefetch(lines, UNIT * per_row + 4 * at + r);
            // SAFETY: r < 4 and at < per_row, and the assertion above; a line is aligned to its 64 bytes.
            *weights = unsafe { _mm512_load_si512(lines.as_ptr().add(r * per_row + at).cast()) };
        }
        for (part, q) in parts.iter().enumerate() {
            // SAFETY: at < per_row, and the assertion above.
            let x = unsafe { _mm512_loadu_si512(q.as_ptr().add(64 * at).cast()) };
            for r in 0..4 {
                acc[4 * part + r] = _mm512_dpbusd_epi32(acc[4 * part + r], weights[r], x);
            }
        }
    }
    acc
}

/// The totals of sixteen registers, in order: each step adds halves within each and packs two into one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn totals(sums: &[__m512i; 16]) -> __m512i {
    // Register 4 x + y enters at place 4 y + x: the last step leaves a 4 x 4 transposition, which this undoes.
    let mut level = [_mm512_setzero_si512(); 16];
    for (i, place) in level.iter_mut().enumerate() {
        *place = sums[4 * (i % 4) + i / 4];
    }
    for i in 0..8 {
        let (a, b) = (level[2 * i], level[2 * i + 1]);
        level[i] =
            _mm512_add_epi32(_mm512_shuffle_i32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b));
    }
    for i in 0..4 {
        let (a, b) = (level[2 * i], level[2 * i + 1]);
        level[i] =
            _mm512_add_epi32(_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b));
    }
    for i in 0..2 {
        level[i] = add_shuffled::<0b01_00_01_00, 0b11_10_11_10>(level[2 * i], level[2 * i + 1]);
    }
    add_shuffled::<0b10_00_10_00, 0b11_01_11_01>(level[0], level[1])
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn add_shuffled<const A: i32, const B: i32>(a: __m512i, b: __m512i) -> __m512i {
    let (a, b) = (_mm512_castsi512_ps(a), _mm512_castsi512_ps(b));
    _mm512_add_epi32(
        _mm512_castps_si512(_mm512_shuffle_ps::<A>(a, b)),
        _mm512_castps_si512(_mm512_shuffle_ps::<B>(a, b)),
    )
}

/// Eight approximate logits from sums in the order: upper parts, lower parts. See [`crate::arith::screen::approximate`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn finish(totals: __m512i, bias: [__m256i; 2], factors: __m256) -> __m256 {
    let exact = |sums, bias| _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, bias));
    let high = exact(_mm512_castsi512_si256(totals), bias[0]);
    let low = exact(_mm512_extracti32x8_epi32::<1>(totals), bias[1]);
    _mm256_mul_ps(_mm256_add_ps(_mm256_mul_ps(high, _mm256_set1_ps(128.0)), low), factors)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn vnni_inner(rows: &CoarseSlice<'_>, states: &ProbeSlice<'_>, out: &mut Columns<'_>) {
    check_screen(rows, states, out);
    let units = rows.lines.chunks_exact(UNIT * rows.per_row).zip(rows.scales.chunks_exact(UNIT));
    for (unit, (lines, scales)) in units.enumerate() {
        let unit = CoarseUnit { lines, scales, per_row: rows.per_row, first: unit * UNIT };
        if states.low.is_empty() {
            for first in (0..states.probes.len()).step_by(4) {
                upper_parts(&unit, states, first, out);
            }
            continue;
        }
        let pairs = states.probes.len() / 2;
        for pair in 0..pairs {
            both_parts(&unit, states, 2 * pair, out);
        }
        if states.probes.len() > 2 * pairs {
            one_state(&unit, states, 2 * pairs, out);
        }
    }
}

/// Rows that all states pass together.
struct CoarseUnit<'a> {
    lines: &'a [Line],
    scales: &'a [f32],
    per_row: usize,
    /// Where the logits of the first row go.
    first: usize,
}

impl CoarseUnit<'_> {
    /// Tiles of four rows: lines, scales, and the place of the first logit.
    fn tiles(&self) -> impl Iterator<Item = (&[Line], &[f32], usize)> {
        let tiles = self.lines.chunks_exact(4 * self.per_row).zip(self.scales.chunks_exact(4));
        tiles.zip((self.first..).step_by(4)).map(|((lines, scales), place)| (lines, scales, place))
    }
}

/// The upper parts of four states. Where fewer are left, the last one is multiplied again.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn upper_parts(unit: &CoarseUnit<'_>, states: &ProbeSlice<'_>, first: usize, out: &mut Columns<'_>) {
    let four: [usize; 4] = std::array::from_fn(|i| (first + i).min(states.probes.len() - 1));
    let parts = four.map(|t| states.high(t));
    let biases: [i32; 16] = std::array::from_fn(|i| 128 * states.probes[four[i / 4]].sums[0]);
    let units: [f32; 16] = std::array::from_fn(|i| states.probes[four[i / 4]].unit);
    for (lines, scales, place) in unit.tiles() {
        let sums = totals(&tile(lines, unit.per_row, parts));
        let mut logits = [0.0; 16];
        // SAFETY: sixteen places each, and four scales.
        unsafe {
            let exact = _mm512_sub_epi32(sums, _mm512_loadu_si512(biases.as_ptr().cast()));
            let steps = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_set1_ps(128.0));
            let scales = _mm512_broadcast_f32x4(_mm_loadu_ps(scales.as_ptr()));
            let factors = _mm512_mul_ps(scales, _mm512_loadu_ps(units.as_ptr()));
            _mm512_storeu_ps(logits.as_mut_ptr(), _mm512_mul_ps(steps, factors));
        }
        for (t, logits) in four.into_iter().zip(logits.chunks_exact(4)) {
            out.row(t)[place..place + 4].copy_from_slice(logits);
        }
    }
}

/// Both parts of two states.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn both_parts(unit: &CoarseUnit<'_>, states: &ProbeSlice<'_>, t: usize, out: &mut Columns<'_>) {
    let [low_a, low_b] = [t, t + 1].map(|t| states.low(t).unwrap_or_default());
    let parts = [states.high(t), states.high(t + 1), low_a, low_b];
    let [a, b] = [states.probes[t], states.probes[t + 1]];
    let bias =
        [0, 1].map(|part| _mm256_set_m128i(_mm_set1_epi32(128 * b.sums[part]), _mm_set1_epi32(128 * a.sums[part])));
    let units = _mm256_set_m128(_mm_set1_ps(b.unit), _mm_set1_ps(a.unit));
    for (lines, scales, place) in unit.tiles() {
        let sums = totals(&tile(lines, unit.per_row, parts));
        // SAFETY: four places each.
        unsafe {
            let scales = _mm_loadu_ps(scales.as_ptr());
            let factors = _mm256_mul_ps(_mm256_set_m128(scales, scales), units);
            let logits = finish(sums, bias, factors);
            _mm_storeu_ps(out.row(t)[place..place + 4].as_mut_ptr(), _mm256_castps256_ps128(logits));
            _mm_storeu_ps(out.row(t + 1)[place..place + 4].as_mut_ptr(), _mm256_extractf128_ps::<1>(logits));
        }
    }
}

/// Both parts of one state.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn one_state(unit: &CoarseUnit<'_>, states: &ProbeSlice<'_>, t: usize, out: &mut Columns<'_>) {
    let parts = [states.high(t), states.low(t).unwrap_or_default()];
    let probe = states.probes[t];
    let bias = probe.sums.map(|sum| _mm256_set1_epi32(128 * sum));
    let mut acc = [_mm512_setzero_si512(); 16];
    for (r, lines) in unit.lines.chunks_exact(unit.per_row).enumerate() {
        [acc[r], acc[8 + r]] = row(lines, parts);
    }
    let y = &mut out.row(t)[unit.first..unit.first + UNIT];
    // SAFETY: eight places each.
    unsafe {
        let factors = _mm256_mul_ps(_mm256_loadu_ps(unit.scales.as_ptr()), _mm256_set1_ps(probe.unit));
        _mm256_storeu_ps(y.as_mut_ptr(), finish(totals(&acc), bias, factors));
    }
}
