//! The screen on AVX2: 32 products an instruction, in pairs of 16 bits that cannot overflow.
//!
//! Weights with 128 added are at most 255 and parts of a state at least -64: a pair is within 2 * 255 * 64 = 32640.
#![expect(unsafe_code, reason = "island: AVX2 intrinsics; reachable only through a table handed out after detection")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi32, _mm_add_ps, _mm_cvtepi32_ps, _mm_loadu_ps, _mm_mul_ps, _mm_set1_epi32,
    _mm_set1_ps, _mm_storeu_ps, _mm_sub_epi32, _mm256_add_epi32, _mm256_castsi256_si128, _mm256_extracti128_si256,
    _mm256_hadd_epi32, _mm256_load_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_set1_epi16, _mm256_setzero_si256,
};

use crate::kernels::{CoarseSlice, ProbeSlice, check_screen};
use crate::memory::Line;
use crate::pool::Columns;

/// Rows of a tile.
const ROWS: usize = 4;

/// See [`crate::kernels::ScreenFn`].
pub(in crate::kernels) fn screen(rows: &CoarseSlice<'_>, states: &ProbeSlice<'_>, out: &mut Columns<'_>) {
    // SAFETY: named only in tables that `Kernels::forced` returns only after it saw AVX2.
    unsafe { screen_inner(rows, states, out) }
}

/// Sums of four rows with the upper and with the lower part of one state.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn tile(lines: &[Line], per_row: usize, q: &[i8]) -> [__m128i; 2] {
    assert!(lines.len() == ROWS * per_row && q.len() == 2 * 64 * per_row, "a tile");
    let ones = _mm256_set1_epi16(1);
    let mut acc = [[_mm256_setzero_si256(); ROWS]; 2];
    for at in 0..2 * per_row {
        let mut weights = [_mm256_setzero_si256(); ROWS];
        for (r, weights) in weights.iter_mut().enumerate() {
            // SAFETY: r < ROWS and 32 * at + 32 <= 64 * per_row, and the assertion above; halves of a line are aligned.
            *weights = unsafe { _mm256_load_si256(lines.as_ptr().cast::<__m256i>().add(2 * r * per_row + at)) };
        }
        for (part, acc) in acc.iter_mut().enumerate() {
            // SAFETY: part < 2 and the same bounds.
            let x = unsafe { _mm256_loadu_si256(q.as_ptr().add(part * 64 * per_row + 32 * at).cast()) };
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
        for (t, (q, probe)) in states.q.chunks_exact(2 * states.stride).zip(states.probes).enumerate() {
            let sums = tile(lines, rows.per_row, q);
            let [high, low] =
                [0, 1].map(|part| _mm_cvtepi32_ps(_mm_sub_epi32(sums[part], _mm_set1_epi32(128 * probe.sums[part]))));
            let both = _mm_add_ps(_mm_mul_ps(high, _mm_set1_ps(128.0)), low);
            let y = &mut out.row(t)[ROWS * index..ROWS * (index + 1)];
            // SAFETY: four places each.
            unsafe {
                let factors = _mm_mul_ps(_mm_loadu_ps(scales.as_ptr()), _mm_set1_ps(probe.unit));
                _mm_storeu_ps(y.as_mut_ptr(), _mm_mul_ps(both, factors));
            }
        }
    }
}
