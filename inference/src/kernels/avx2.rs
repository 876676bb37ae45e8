//! AVX2 with FMA and F16C: two registers hold the sixteen lanes, and a ternary group is two halves of eight rows.
//!
//! Codes 0..2 are the unsigned operand of `maddubs`, activations the signed one; pairs of products add up in 16 bits and are widened to 32
//! before they can overflow.
#![expect(unsafe_code, reason = "island: AVX2 intrinsics; reachable only through a table handed out after detection")]

pub(super) mod screen;

use std::arch::x86_64::{
    __m256, __m256i, _CMP_LT_OQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32,
    _mm_loadu_si128, _mm_movehl_ps, _mm_packs_epi16, _mm_packs_epi32, _mm_shuffle_ps, _mm_storeu_si128,
    _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_andnot_ps, _mm256_blendv_ps,
    _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cmp_ps,
    _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_cvtps_ph, _mm256_div_ps, _mm256_extractf128_ps,
    _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_load_si256, _mm256_loadu_ps, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_round_ps, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi32,
    _mm256_storeu_ps, _mm256_sub_epi32, _mm256_sub_ps,
};

use super::attention::{self, Queries};
use super::lanes::Lanes;
use super::packed::{BLOCK_COLUMNS, Block, GROUP_ROWS};
use super::{Activations, KernelKind, Kernels, Store, TernarySlice, check_ternary, float};
use crate::arith::norm::RowScale;
use crate::embedding::SplitRow;
use crate::hyper::Gate;
use crate::pool::Columns;

pub(super) const KERNELS: Kernels = Kernels {
    kind: KernelKind::Avx2,
    ternary,
    norm_quantise,
    norm,
    gate,
    attend,
    narrow,
    head,
    join,
    screen: screen::screen,
    steps: screen::steps,
    dot,
    exp,
    sum,
};

/// R3's fold of lanes 0..8 and 8..16.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn fold8(low: __m256, high: __m256) -> f32 {
    let eight = _mm256_add_ps(low, high);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// Lanes 0..8 and 8..16.
#[derive(Clone, Copy)]
struct V(__m256, __m256);

/// All bits set in the first entries: a window into it masks a number of lanes.
static FIRST: [u32; 32] = {
    let mut mask = [0; 32];
    let mut i = 0;
    while i < 16 {
        mask[i] = u32::MAX;
        i += 1;
    }
    mask
};

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

// SAFETY for every block in this impl: methods are inlined only into functions of this module that enable AVX2, FMA and F16C, and those
// are reachable only through `KERNELS`, which `Kernels::forced` returns after it saw these features on the CPU. Pointers are valid by
// the contracts of the trait.
impl Lanes for V {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        unsafe { V(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { V(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> Self {
        // SAFETY: see above.
        unsafe {
            V(_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn store_half(self, to: *mut u16) {
        // SAFETY: see above.
        unsafe {
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
            _mm_storeu_si128(to.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1));
        }
    }
    #[inline(always)]
    unsafe fn store_int8(self, to: *mut i8) {
        // SAFETY: see above.
        unsafe {
            let (a, b) = (_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            let low = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let high = _mm_packs_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256::<1>(b));
            _mm_storeu_si128(to.cast(), _mm_packs_epi16(low, high));
        }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { V(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { V(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { V(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { V(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
    }
    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        unsafe { V(_mm256_fmadd_ps(self.0, factor.0, addend.0), _mm256_fmadd_ps(self.1, factor.1, addend.1)) }
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above. MAXPS returns its first operand where that is greater, else the second.
        unsafe { V(_mm256_max_ps(other.0, self.0), _mm256_max_ps(other.1, self.1)) }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above. MINPS returns its first operand where that is less, else the second.
        unsafe { V(_mm256_min_ps(other.0, self.0), _mm256_min_ps(other.1, self.1)) }
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            V(_mm256_andnot_ps(sign, self.0), _mm256_andnot_ps(sign, self.1))
        }
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: see above. The immediate asks for nearest even, whatever MXCSR says.
        unsafe { V(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1)) }
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let (a, b) = (_mm256_castps_si256(self.0), _mm256_castps_si256(self.1));
            V(
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(a, bias))),
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(b, bias))),
            )
        }
    }
    #[inline(always)]
    fn zero_below(self, probe: Self, limit: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            V(
                _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(probe.0, limit.0), self.0),
                _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(probe.1, limit.1), self.1),
            )
        }
    }
    #[inline(always)]
    fn keep_first(self, count: usize, rest: Self) -> Self {
        let window = &FIRST[16 - count.min(16)..][..16];
        // SAFETY: see above; the window has 16 entries.
        unsafe {
            let (a, b) = (_mm256_loadu_ps(window.as_ptr().cast()), _mm256_loadu_ps(window.as_ptr().add(8).cast()));
            V(_mm256_blendv_ps(rest.0, self.0, a), _mm256_blendv_ps(rest.1, self.1, b))
        }
    }
    #[inline(always)]
    fn fold(self) -> f32 {
        // SAFETY: see above.
        unsafe { fold8(self.0, self.1) }
    }
}

/// Four int8 activations in every lane.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn broadcast(q: &[i8], at: usize) -> __m256i {
    debug_assert!(at + 4 <= q.len(), "a quad of the row");
    // SAFETY: every caller passes `at` below the row's stride, a multiple of 16; `check_ternary` compared the lengths.
    let quad = unsafe { q.as_ptr().add(at).cast::<i32>().read_unaligned() };
    _mm256_set1_epi32(quad)
}

/// Rows 0..8 and 8..16 of a block.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load(block: &Block) -> [__m256i; 2] {
    let from = std::ptr::from_ref(block).cast::<__m256i>();
    // SAFETY: a block is 64 bytes, aligned to 64.
    unsafe { [_mm256_load_si256(from), _mm256_load_si256(from.add(1))] }
}

/// R6 for half a group and one row of activations.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn finish(codes: __m256i, scale: f32, row: RowScale, store: Store, out: &mut [f32]) {
    let exact = _mm256_sub_epi32(codes, _mm256_set1_epi32(row.sum));
    let product = _mm256_mul_ps(_mm256_cvtepi32_ps(exact), _mm256_set1_ps(scale / row.k));
    assert_eq!(out.len(), GROUP_ROWS / 2, "the outputs of half a group");
    // SAFETY: eight places.
    unsafe {
        let y = match store {
            Store::Set => product,
            Store::Add => _mm256_add_ps(_mm256_loadu_ps(out.as_ptr()), product),
        };
        _mm256_storeu_ps(out.as_mut_ptr(), y);
    }
}

/// Blocks whose 16-bit sums cannot overflow: 4 planes x 2 products x 2 x 128 = 2048 per block, 15 blocks = 30720.
const BLOCKS_PER_SPILL: usize = 15;
const _: () = assert!(BLOCKS_PER_SPILL * 4 * 2 * 2 * 128 <= i16::MAX as usize, "16-bit sums hold this many blocks");

/// One group times T rows of activations.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn tile<const T: usize>(blocks: &[Block], q: &[i8], stride: usize) -> [[__m256i; 2]; T] {
    assert!(q.len() == T * stride && stride == blocks.len() * BLOCK_COLUMNS, "a tile");
    let (mask, ones) = (_mm256_set1_epi8(3), _mm256_set1_epi16(1));
    let mut acc = [[_mm256_setzero_si256(); 2]; T];
    let mut at = 0;
    for run in blocks.chunks(BLOCKS_PER_SPILL) {
        let mut short = [[_mm256_setzero_si256(); 2]; T];
        for block in run {
            let mut raw = load(block);
            for p in 0..4 {
                let planes = [_mm256_and_si256(raw[0], mask), _mm256_and_si256(raw[1], mask)];
                raw = [_mm256_srli_epi32::<2>(raw[0]), _mm256_srli_epi32::<2>(raw[1])];
                #[expect(clippy::needless_range_loop, reason = "the first index of a table of registers")]
                for t in 0..T {
                    let quad = broadcast(q, t * stride + at + 4 * p);
                    short[t][0] = _mm256_add_epi16(short[t][0], _mm256_maddubs_epi16(planes[0], quad));
                    short[t][1] = _mm256_add_epi16(short[t][1], _mm256_maddubs_epi16(planes[1], quad));
                }
            }
            at += BLOCK_COLUMNS;
        }
        // Indices, not iterators: every register has to be named at compile time.
        for t in 0..T {
            acc[t][0] = _mm256_add_epi32(acc[t][0], _mm256_madd_epi16(short[t][0], ones));
            acc[t][1] = _mm256_add_epi32(acc[t][1], _mm256_madd_epi16(short[t][1], ones));
        }
    }
    acc
}

/// Computes and stores T rows of one group.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn run_tile<const T: usize>(
    matrix: &TernarySlice<'_>,
    group: usize,
    activations: &Activations<'_>,
    row: usize,
    store: Store,
    out: &mut Columns<'_>,
) {
    let stride = activations.stride;
    let blocks = &matrix.blocks[group * matrix.per_group..(group + 1) * matrix.per_group];
    let acc = tile::<T>(blocks, &activations.q[row * stride..(row + T) * stride], stride);
    for (t, halves) in acc.iter().enumerate() {
        let columns = &mut out.row(row + t)[group * GROUP_ROWS..(group + 1) * GROUP_ROWS];
        for (&codes, y) in halves.iter().zip(columns.chunks_exact_mut(GROUP_ROWS / 2)) {
            finish(codes, matrix.scales[group], activations.scales[row + t], store, y);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn ternary_inner(matrix: &TernarySlice<'_>, activations: &Activations<'_>, store: Store, out: &mut Columns<'_>) {
    check_ternary(matrix, activations, out);
    let rows = activations.scales.len();
    for group in 0..matrix.scales.len() {
        let mut row = 0;
        while rows - row >= 4 {
            run_tile::<4>(matrix, group, activations, row, store, out);
            row += 4;
        }
        match rows - row {
            3 => run_tile::<3>(matrix, group, activations, row, store, out),
            2 => run_tile::<2>(matrix, group, activations, row, store, out),
            1 => run_tile::<1>(matrix, group, activations, row, store, out),
            _ => {}
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn norm_quantise_inner(x: &[f32], gain: &[f32], eps: f32, q: &mut [i8]) -> Option<RowScale> {
    float::norm_quantise::<V>(x, gain, eps, q)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn norm_inner(x: &[f32], gain: &[f32], eps: f32, y: &mut [f32]) -> bool {
    float::rms_norm::<V>(x, gain, eps, y)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn gate_inner(kind: Gate, pairs: &[f32], out: &mut [f32]) {
    float::gates::<V>(kind, pairs, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn attend_inner(queries: &Queries<'_>, scores: &mut [f32], out: &mut [f32], finite: &mut [bool]) {
    attention::attend::<V>(queries, scores, out, finite);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn narrow_inner(values: &[f32], halves: &mut [u16]) -> bool {
    float::narrow::<V>(values, halves)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn head_inner(rows: &[f32], dim: usize, x: &[f32], out: &mut Columns<'_>) {
    float::head::<V>(rows, dim, x, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn join_inner(row: &SplitRow<'_>, out: &mut [f32]) {
    crate::embedding::join(row, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_inner(a: &[f32], b: &[f32]) -> f32 {
    float::dot::<V>(a, b)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn exp_inner(values: &mut [f32]) {
    float::exp_all::<V>(values);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sum_inner(values: &[f32]) -> f32 {
    float::sum::<V>(values)
}

// SAFETY of the calls below: these functions are private to this module and named only in `KERNELS`, which `Kernels::forced` returns
// only after it saw the instruction sets on this CPU.

fn ternary(matrix: &TernarySlice<'_>, activations: &Activations<'_>, store: Store, out: &mut Columns<'_>) {
    // SAFETY: see above.
    unsafe { ternary_inner(matrix, activations, store, out) }
}

fn norm_quantise(x: &[f32], gain: &[f32], eps: f32, q: &mut [i8]) -> Option<RowScale> {
    // SAFETY: see above.
    unsafe { norm_quantise_inner(x, gain, eps, q) }
}

fn norm(x: &[f32], gain: &[f32], eps: f32, y: &mut [f32]) -> bool {
    // SAFETY: see above.
    unsafe { norm_inner(x, gain, eps, y) }
}

fn gate(kind: Gate, pairs: &[f32], out: &mut [f32]) {
    // SAFETY: see above.
    unsafe { gate_inner(kind, pairs, out) }
}

fn attend(queries: &Queries<'_>, scores: &mut [f32], out: &mut [f32], finite: &mut [bool]) {
    // SAFETY: see above.
    unsafe { attend_inner(queries, scores, out, finite) }
}

fn narrow(values: &[f32], halves: &mut [u16]) -> bool {
    // SAFETY: see above.
    unsafe { narrow_inner(values, halves) }
}

fn head(rows: &[f32], dim: usize, x: &[f32], out: &mut Columns<'_>) {
    // SAFETY: see above.
    unsafe { head_inner(rows, dim, x, out) }
}

fn join(row: &SplitRow<'_>, out: &mut [f32]) {
    // SAFETY: see above.
    unsafe { join_inner(row, out) }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // SAFETY: see above.
    unsafe { dot_inner(a, b) }
}

fn exp(values: &mut [f32]) {
    // SAFETY: see above.
    unsafe { exp_inner(values) }
}

fn sum(values: &[f32]) -> f32 {
    // SAFETY: see above.
    unsafe { sum_inner(values) }
}
