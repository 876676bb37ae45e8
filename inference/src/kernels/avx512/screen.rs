//! The screen on AVX-512 with VNNI: 64 products an instruction, sixteen sums at a time.
//!
//! Weights with 128 added are the unsigned operand, the parts of the hidden state the signed one; 128 times the sum of a part is taken off at
//! the end. One state takes tiles of 8 rows, two states tiles of 4 rows, so that sixteen sums hide the latency of one.
#![expect(
    unsafe_code,
    reason = "island: AVX-512 intrinsics; reachable only through a table handed out after detection"
)]

use std::arch::x86_64::{
    __m256, __m256i, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_storeu_ps, _mm256_sub_epi32,
    _mm512_add_epi32, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_castsi512_si256, _mm512_dpbusd_epi32,
    _mm512_extracti32x8_epi32, _mm512_load_si512, _mm512_loadu_si512, _mm512_setzero_si512, _mm512_shuffle_i32x4,
    _mm512_shuffle_ps,
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

/// Sums of R rows with C parts of states, in place `c * R + r`; R * C = 16. Fetches the rows `ahead` of these.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn tile<const R: usize, const C: usize>(
    lines: &[Line],
    per_row: usize,
    q: &[i8],
    stride: usize,
    ahead: usize,
) -> [__m512i; 16] {
    assert!(R * C == 16 && lines.len() == R * per_row && q.len() == C * stride && stride == per_row * 64, "a tile");
    let mut acc = [_mm512_setzero_si512(); 16];
    for at in 0..per_row {
        let mut weights = [_mm512_setzero_si512(); R];
        for (r, weights) in weights.iter_mut().enumerate() {
            let line = lines.as_ptr().wrapping_add(r * per_row + at);
            // SAFETY: r < R and at < per_row, and the assertion above; a line is aligned to its 64 bytes. A prefetch accesses nothing.
            *weights = unsafe {
                _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(ahead * per_row).cast());
                _mm512_load_si512(line.cast())
            };
        }
        for c in 0..C {
            // SAFETY: c < C and 64 * at + 64 <= stride, and the assertion above.
            let x = unsafe { _mm512_loadu_si512(q.as_ptr().add(c * stride + 64 * at).cast()) };
            for r in 0..R {
                acc[c * R + r] = _mm512_dpbusd_epi32(acc[c * R + r], weights[r], x);
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
    let (per_row, stride) = (rows.per_row, states.stride);
    let units = rows.lines.chunks_exact(SCREEN_ROWS * per_row).zip(rows.scales.chunks_exact(SCREEN_ROWS));
    for (unit, (lines, scales)) in units.enumerate() {
        let mut t = 0;
        while states.probes.len() - t >= 2 {
            let q = &states.q[2 * t * stride..2 * (t + 2) * stride];
            let pair = [states.probes[t], states.probes[t + 1]];
            for (quarter, (lines, scales)) in lines.chunks_exact(4 * per_row).zip(scales.chunks_exact(4)).enumerate() {
                let acc = tile::<4, 4>(lines, per_row, q, stride, SCREEN_ROWS);
                // Parts come as upper, lower, upper, lower; uppers are wanted first.
                let mut ordered = acc;
                for r in 0..4 {
                    (ordered[4 + r], ordered[8 + r]) = (acc[8 + r], acc[4 + r]);
                }
                let mut values = [0.0; 8];
                let mut bias = [[0; 8]; 2];
                for i in 0..8 {
                    values[i] = scales[i % 4] * pair[i / 4].unit;
                    bias[0][i] = 128 * pair[i / 4].sums[0];
                    bias[1][i] = 128 * pair[i / 4].sums[1];
                }
                // SAFETY: eight places each.
                unsafe {
                    let bias =
                        [_mm256_loadu_si256(bias[0].as_ptr().cast()), _mm256_loadu_si256(bias[1].as_ptr().cast())];
                    let logits = finish(totals(&ordered), bias, _mm256_loadu_ps(values.as_ptr()));
                    _mm256_storeu_ps(values.as_mut_ptr(), logits);
                }
                let first = unit * SCREEN_ROWS + 4 * quarter;
                out.row(t)[first..first + 4].copy_from_slice(&values[..4]);
                out.row(t + 1)[first..first + 4].copy_from_slice(&values[4..]);
            }
            t += 2;
        }
        if t < states.probes.len() {
            let (q, probe) = (&states.q[2 * t * stride..2 * (t + 1) * stride], states.probes[t]);
            let bias = probe.sums.map(|sum| _mm256_set1_epi32(128 * sum));
            let y = &mut out.row(t)[unit * SCREEN_ROWS..(unit + 1) * SCREEN_ROWS];
            for ((lines, scales), y) in
                lines.chunks_exact(8 * per_row).zip(scales.chunks_exact(8)).zip(y.chunks_exact_mut(8))
            {
                let sums = totals(&tile::<8, 2>(lines, per_row, q, stride, 8));
                // SAFETY: eight places each.
                unsafe {
                    let factors = _mm256_mul_ps(_mm256_loadu_ps(scales.as_ptr()), _mm256_set1_ps(probe.unit));
                    _mm256_storeu_ps(y.as_mut_ptr(), finish(sums, bias, factors));
                }
            }
        }
    }
}
