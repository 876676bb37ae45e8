//! The screen on AVX2: 32 products an instruction, in pairs of 16 bits that cannot overflow.
//!
//! Weights with 128 added are at most 255 and parts of a state at least -64: a pair is within 2 * 255 * 64 = 32640.
#![expect(unsafe_code, reason = "island: AVX2 intrinsics; reachable only through a table handed out after detection")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi32, _mm_add_ps, _mm_cvtepi32_ps, _mm_cvtsi128_si32, _mm_hadd_epi32, _mm_loadu_ps,
    _mm_loadu_si128, _mm_mul_ps, _mm_set1_epi32, _mm_set1_ps, _mm_storeu_ps, _mm_sub_epi32, _mm_xor_si128,
    _mm256_add_epi32, _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_extracti128_si256, _mm256_hadd_epi32,
    _mm256_load_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_setzero_si256,
};

use crate::kernels::{CoarseSlice, ProbeSlice, check_screen};
use crate::memory::{Line, as_bytes};
use crate::pool::Columns;

/// Rows of a tile.
const ROWS: usize = 4;

/// See [`crate::kernels::ScreenFn`].
pub(in crate::kernels) fn screen(rows: &CoarseSlice<'_>, states: &ProbeSlice<'_>, out: &mut Columns<'_>) {
    // SAFETY: named only in tables that `Kernels::forced` returns only after it saw AVX2.
    unsafe { screen_inner(rows, states, out) }
}

/// See [`crate::kernels::StepsFn`].
pub(in crate::kernels) fn steps(row: &[Line], part: &[i8]) -> i32 {
    // SAFETY: named only in tables that `Kernels::forced` returns only after it saw AVX2.
    unsafe { steps_inner(row, part) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn steps_inner(row: &[Line], part: &[i8]) -> i32 {
    assert_eq!(size_of_val(row), part.len(), "a row and a part of one width");
    let bias = _mm256_set1_epi8(-128);
    let mut acc = _mm256_setzero_si256();
    for (weights, x) in as_bytes(row).chunks_exact(16).zip(part.chunks_exact(16)) {
        // SAFETY: 16 bytes each.
        let [weights, x] = unsafe { [_mm_loadu_si128(weights.as_ptr().cast()), _mm_loadu_si128(x.as_ptr().cast())] };
        let weights = _mm_xor_si128(weights, _mm256_castsi256_si128(bias));
        acc = _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_cvtepi8_epi16(weights), _mm256_cvtepi8_epi16(x)));
    }
    let half = _mm_add_epi32(_mm256_castsi256_si128(acc), _mm256_extracti128_si256::<1>(acc));
    let pairs = _mm_hadd_epi32(half, half);
    _mm_cvtsi128_si32(_mm_hadd_epi32(pairs, pairs))
}

/// Sums of four rows with two parts of a state or of two.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn tile(lines: &[Line], per_row: usize, parts: [&[i8]; 2]) -> [__m128i; 2] {
    assert!(lines.len() == ROWS * per_row && parts.iter().all(|part| part.len() == 64 * per_row), "a tile");
    let ones = _mm256_set1_epi16(1);
    let mut acc = [[_mm256_setzero_si256(); ROWS]; 2];
    for at in 0..2 * per_row {
        let mut weights = [_mm256_setzero_si256(); ROWS];
        for (r, weights) in weights.iter_mut().enumerate() {
            // SAFETY: r < ROWS and 32 * at + 32 <= 64 * per_row, and the assertion above; halves of a line are aligned.
            *weights = unsafe { _mm256_load_si256(lines.as_ptr().cast::<__m256i>().add(2 * r * per_row + at)) };
        }
        for (part, acc) in parts.iter().zip(&mut acc) {
            // SAFETY: the same bounds.
            let x = unsafe { _mm256_loadu_si256(part.as_ptr().add(32 * at).cast()) };
            for (acc, weights) in acc.iter_mut().zip(weights) {
                *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(_mm256_maddubs_epi16(weights, x), ones));
            }
        }
    }
    acc.map(|acc| {
        let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(acc[0], acc[1]), _mm256_hadd_epi32(acc[2], acc[3]));
        _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs))
    })
}

#[target_feature(enable = "avx2,fma,f16c")]
fn screen_inner(rows: &CoarseSlice<'_>, states: &ProbeSlice<'_>, out: &mut Columns<'_>) {
    check_screen(rows, states, out);
    let tiles = rows.lines.chunks_exact(ROWS * rows.per_row).zip(rows.scales.chunks_exact(ROWS));
    for (index, (lines, scales)) in tiles.enumerate() {
        let exact = |sums, of: i32| _mm_cvtepi32_ps(_mm_sub_epi32(sums, _mm_set1_epi32(128 * of)));
        let upper = |sums, of| _mm_mul_ps(exact(sums, of), _mm_set1_ps(128.0));
        let mut store = |t: usize, steps| {
            let y = &mut out.row(t)[ROWS * index..ROWS * (index + 1)];
            // SAFETY: four places each.
            unsafe {
                let factors = _mm_mul_ps(_mm_loadu_ps(scales.as_ptr()), _mm_set1_ps(states.probes[t].unit));
                _mm_storeu_ps(y.as_mut_ptr(), _mm_mul_ps(steps, factors));
            }
        };
        if states.low.is_empty() {
            for first in (0..states.probes.len()).step_by(2) {
                // An odd last one is multiplied twice.
                let pair = [first, (first + 1).min(states.probes.len() - 1)];
                let sums = tile(lines, rows.per_row, pair.map(|t| states.high(t)));
                for (t, sums) in pair.into_iter().zip(sums) {
                    store(t, upper(sums, states.probes[t].sums[0]));
                }
            }
            continue;
        }
        for (t, probe) in states.probes.iter().enumerate() {
            let Some(low) = states.low(t) else { continue };
            let sums = tile(lines, rows.per_row, [states.high(t), low]);
            store(t, _mm_add_ps(upper(sums[0], probe.sums[0]), exact(sums[1], probe.sums[1])));
        }
    }
}
