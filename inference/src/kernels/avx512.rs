//! AVX-512: one register holds the sixteen lanes of R3. Ternary products are in `ternary.rs`, the screen in `screen.rs`.
#![expect(unsafe_code, reason = "island: AVX-512 intrinsics; reachable only through tables handed out after detection")]

mod screen;
mod ternary;

use std::arch::x86_64::{
    __m512, _CMP_LT_OQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_loadu_si256,
    _mm256_storeu_si256, _mm512_abs_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_castps_si512, _mm512_castps512_ps256,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtph_ps, _mm512_cvtps_epi32, _mm512_cvtps_ph,
    _mm512_cvtsepi32_epi8, _mm512_div_ps, _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_blend_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_roundscale_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_slli_epi32, _mm512_storeu_ps,
    _mm512_sub_ps,
};

use super::attention::{self, Queries};
use super::avx2::fold8;
use super::lanes::Lanes;
use super::{KernelKind, Kernels, float};
use crate::arith::norm::RowScale;
use crate::embedding::SplitRow;
use crate::hyper::Gate;
use crate::pool::Columns;

pub(super) const VNNI: Kernels = Kernels {
    kind: KernelKind::Avx512,
    ternary: ternary::vnni,
    norm_quantise,
    norm,
    gate,
    attend,
    narrow,
    head,
    join,
    screen: screen::vnni,
    steps: super::avx2::screen::steps,
    dot,
    exp,
    sum,
};

/// The screen reads memory faster than eight bytes a lane can be multiplied either way: the 256-bit one serves.
pub(super) const PLAIN: Kernels =
    Kernels { kind: KernelKind::Avx512Plain, ternary: ternary::plain, screen: super::avx2::screen::screen, ..VNNI };

/// All sixteen lanes in one register.
#[derive(Clone, Copy)]
struct V(__m512);

// SAFETY for every block in this impl: methods are inlined only into functions of this module that enable AVX-512 F, BW, DQ and VL,
// and those are reachable only through the tables above, which `Kernels::forced` returns after it saw these features on the CPU.
// Pointers are valid by the contracts of the trait.
impl Lanes for V {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        V(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        V(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> Self {
        // SAFETY: see above.
        V(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_half(self, to: *mut u16) {
        // SAFETY: see above.
        unsafe {
            let halves = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0);
            _mm256_storeu_si256(to.cast(), halves);
        }
    }
    #[inline(always)]
    unsafe fn store_int8(self, to: *mut i8) {
        // SAFETY: see above.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(self.0))) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        V(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        V(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        V(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        V(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        V(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above. MAXPS returns its first operand where that is greater, else the second.
        V(unsafe { _mm512_max_ps(other.0, self.0) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above. MINPS returns its first operand where that is less, else the second.
        V(unsafe { _mm512_min_ps(other.0, self.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: see above.
        V(unsafe { _mm512_abs_ps(self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: see above. The immediate asks for nearest even, whatever MXCSR says, and no scaling.
        V(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: see above.
        V(unsafe {
            let biased = _mm512_add_epi32(_mm512_castps_si512(self.0), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    fn zero_below(self, probe: Self, limit: Self) -> Self {
        // SAFETY: see above.
        V(unsafe {
            let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(probe.0, limit.0);
            _mm512_mask_blend_ps(below, self.0, _mm512_setzero_ps())
        })
    }
    #[inline(always)]
    fn keep_first(self, count: usize, rest: Self) -> Self {
        let mask = if count >= 16 { 0xffff } else { (1_u16 << count) - 1 };
        // SAFETY: see above.
        V(unsafe { _mm512_mask_blend_ps(mask, rest.0, self.0) })
    }
    #[inline(always)]
    fn fold(self) -> f32 {
        // SAFETY: see above.
        unsafe { fold8(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)) }
    }

    /// The sixteen folds side by side: each step adds halves within each sum and packs two registers into one.
    #[inline(always)]
    fn fold_all(sums: &[Self; 16]) -> Self {
        // Sum 4 x + y enters at place 4 y + x: the last step leaves a 4 x 4 transposition, which this undoes.
        let place = |i: usize| sums[4 * (i % 4) + i / 4].0;
        // SAFETY: see above.
        unsafe {
            let mut eights = [_mm512_setzero_ps(); 8];
            for (i, eight) in eights.iter_mut().enumerate() {
                let (a, b) = (place(2 * i), place(2 * i + 1));
                *eight = _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
                    _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
                );
            }
            let mut fours = [_mm512_setzero_ps(); 4];
            for (i, four) in fours.iter_mut().enumerate() {
                let (a, b) = (eights[2 * i], eights[2 * i + 1]);
                *four = _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
                );
            }
            let mut twos = [_mm512_setzero_ps(); 2];
            for (i, two) in twos.iter_mut().enumerate() {
                let (a, b) = (fours[2 * i], fours[2 * i + 1]);
                *two =
                    _mm512_add_ps(_mm512_shuffle_ps::<0b01_00_01_00>(a, b), _mm512_shuffle_ps::<0b11_10_11_10>(a, b));
            }
            V(_mm512_add_ps(
                _mm512_shuffle_ps::<0b10_00_10_00>(twos[0], twos[1]),
                _mm512_shuffle_ps::<0b11_01_11_01>(twos[0], twos[1]),
            ))
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn norm_quantise_inner(x: &[f32], gain: &[f32], eps: f32, q: &mut [i8]) -> Option<RowScale> {
    float::norm_quantise::<V>(x, gain, eps, q)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn norm_inner(x: &[f32], gain: &[f32], eps: f32, y: &mut [f32]) -> bool {
    float::rms_norm::<V>(x, gain, eps, y)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn gate_inner(kind: Gate, pairs: &[f32], out: &mut [f32]) {
    float::gates::<V>(kind, pairs, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn attend_inner(queries: &Queries<'_>, scores: &mut [f32], out: &mut [f32], finite: &mut [bool]) {
    attention::attend::<V>(queries, scores, out, finite);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn narrow_inner(values: &[f32], halves: &mut [u16]) -> bool {
    float::narrow::<V>(values, halves)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn head_inner(rows: &[f32], dim: usize, x: &[f32], out: &mut Columns<'_>) {
    float::head::<V>(rows, dim, x, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn join_inner(row: &SplitRow<'_>, out: &mut [f32]) {
    crate::embedding::join(row, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn dot_inner(a: &[f32], b: &[f32]) -> f32 {
    float::dot::<V>(a, b)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn exp_inner(values: &mut [f32]) {
    float::exp_all::<V>(values);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn sum_inner(values: &[f32]) -> f32 {
    float::sum::<V>(values)
}

// SAFETY of the calls below: these functions are private to this module and named only in `VNNI` and `PLAIN`, which `Kernels::forced`
// returns only after it saw the instruction sets on this CPU.

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
