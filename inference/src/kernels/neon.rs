//! NEON: four registers hold the sixteen lanes, and four hold the rows of a ternary group, four each.
//!
//! Every aarch64 CPU has these instructions. A group of weights times a quad of activations is `vmull` into 16 bits and a pairwise add into
//! 32, two registers of pair sums per four rows; pairs are joined at the end. Integer sums are exact, so this order is free.
#![expect(unsafe_code, reason = "island: NEON intrinsics; part of every aarch64 CPU")]

use std::arch::aarch64::{
    float16x4_t, float32x4_t, int8x8_t, int8x16_t, int32x4_t, uint32x4_t, vabsq_f32, vaddq_f32, vaddq_u32, vaddvq_s32,
    vandq_u8, vbslq_f32, vcgtq_f32, vcltq_f32, vcltq_u32, vcombine_s8, vcombine_s16, vcvt_f32_f16, vcvtnq_s32_f32,
    vcvtq_f32_s32, vdivq_f32, vdup_n_s32, vdupq_n_f32, vdupq_n_s32, vdupq_n_u8, vdupq_n_u32, veorq_u8, vfmaq_f32,
    vget_high_s8, vget_low_s8, vld1_u16, vld1q_f32, vld1q_s8, vld1q_u8, vld1q_u32, vmull_s8, vmulq_f32, vpadalq_s16,
    vpaddq_s32, vqmovn_s16, vqmovn_s32, vreinterpret_f16_u16, vreinterpret_s8_s32, vreinterpretq_f32_u32,
    vreinterpretq_s8_u8, vreinterpretq_u32_f32, vrndnq_f32, vshlq_n_u32, vshrq_n_u8, vst1q_f32, vst1q_s8, vsubq_f32,
    vsubq_s32,
};

use super::lanes::Lanes;
use super::packed::{BLOCK_COLUMNS, Block, GROUP_ROWS};
use super::{
    Activations, CoarseSlice, KernelKind, Kernels, ProbeSlice, Store, TernarySlice, check_ternary, float,
    screen_by_steps,
};
use crate::arith::half;
use crate::arith::norm::RowScale;
use crate::embedding::SplitRow;
use crate::hyper::Gate;
use crate::memory::{Line, as_bytes};
use crate::pool::Columns;

pub(super) const KERNELS: Kernels = Kernels {
    kind: KernelKind::Neon,
    ternary,
    norm_quantise: float::norm_quantise::<V>,
    norm: float::rms_norm::<V>,
    gate,
    attend: super::attention::attend::<V>,
    narrow: float::narrow::<V>,
    head,
    join,
    screen,
    steps,
    dot: float::dot::<V>,
    exp: float::exp_all::<V>,
    sum: float::sum::<V>,
};

/// Lanes 0..4, 4..8, 8..12 and 12..16.
#[derive(Clone, Copy)]
struct V([float32x4_t; 4]);

/// One operation on each of the four registers.
#[inline(always)]
fn map2(a: V, b: V, operation: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> V {
    V([operation(a.0[0], b.0[0]), operation(a.0[1], b.0[1]), operation(a.0[2], b.0[2]), operation(a.0[3], b.0[3])])
}

/// Lane numbers, to make masks.
static INDEX: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

// SAFETY for every block in this impl: NEON is part of the aarch64 baseline. Pointers are valid by the contracts of the trait.
impl Lanes for V {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        V([unsafe { vdupq_n_f32(value) }; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { V([vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))]) }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> Self {
        // SAFETY: see above.
        unsafe {
            let quad = |at: usize| -> float32x4_t {
                let halves: float16x4_t = vreinterpret_f16_u16(vld1_u16(from.add(at)));
                vcvt_f32_f16(halves)
            };
            V([quad(0), quad(4), quad(8), quad(12)])
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe {
            for (i, part) in self.0.into_iter().enumerate() {
                vst1q_f32(to.add(4 * i), part);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_half(self, to: *mut u16) {
        // The narrowing instruction has no stable name yet; the cache is written once per token, so the twin is fast enough.
        let mut wide = [0.0_f32; 16];
        // SAFETY: the array has 16 places, `to` by contract.
        unsafe {
            self.store(wide.as_mut_ptr());
            for (i, value) in wide.into_iter().enumerate() {
                to.add(i).write(half::narrow(value));
            }
        }
    }
    #[inline(always)]
    unsafe fn store_int8(self, to: *mut i8) {
        // SAFETY: see above. FCVTNS rounds to nearest even; the values are integral and in range.
        unsafe {
            let pair = |a: usize| {
                vqmovn_s16(vcombine_s16(
                    vqmovn_s32(vcvtnq_s32_f32(self.0[a])),
                    vqmovn_s32(vcvtnq_s32_f32(self.0[a + 1])),
                ))
            };
            vst1q_s8(to, vcombine_s8(pair(0), pair(2)));
        }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        map2(self, other, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        map2(self, other, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        map2(self, other, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        map2(self, other, |a, b| unsafe { vdivq_f32(a, b) })
    }
    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        let part = |i: usize| {
            // SAFETY: see above. `vfmaq(a, b, c)` is a + b * c, rounded once.
            unsafe { vfmaq_f32(addend.0[i], self.0[i], factor.0[i]) }
        };
        V([part(0), part(1), part(2), part(3)])
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above. Compare and select: FMAX treats signed zeros and NaN in its own way.
        map2(self, other, |a, b| unsafe { vbslq_f32(vcgtq_f32(b, a), b, a) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        map2(self, other, |a, b| unsafe { vbslq_f32(vcltq_f32(b, a), b, a) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: see above.
        map2(self, self, |a, _| unsafe { vabsq_f32(a) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: see above. FRINTN rounds to nearest even, whatever FPCR says.
        map2(self, self, |a, _| unsafe { vrndnq_f32(a) })
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: see above.
        map2(self, self, |a, _| unsafe {
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(vaddq_u32(vreinterpretq_u32_f32(a), vdupq_n_u32(127))))
        })
    }
    #[inline(always)]
    fn zero_below(self, probe: Self, limit: Self) -> Self {
        let part = |i: usize| {
            // SAFETY: see above.
            unsafe { vbslq_f32(vcltq_f32(probe.0[i], limit.0[i]), vdupq_n_f32(0.0), self.0[i]) }
        };
        V([part(0), part(1), part(2), part(3)])
    }
    #[inline(always)]
    fn keep_first(self, count: usize, rest: Self) -> Self {
        let limit = u32::try_from(count).unwrap_or(u32::MAX);
        let part = |i: usize| {
            // SAFETY: see above; `INDEX` has 16 entries.
            unsafe {
                let index: uint32x4_t = vld1q_u32(INDEX.as_ptr().add(4 * i));
                vbslq_f32(vcltq_u32(index, vdupq_n_u32(limit)), self.0[i], rest.0[i])
            }
        };
        V([part(0), part(1), part(2), part(3)])
    }
    #[inline(always)]
    fn fold(self) -> f32 {
        // SAFETY: see above. Lanes j and j + 8, then j and j + 4, then the four that are left.
        let four = unsafe { vaddq_f32(vaddq_f32(self.0[0], self.0[2]), vaddq_f32(self.0[1], self.0[3])) };
        let mut lanes = [0.0_f32; 4];
        // SAFETY: four places.
        unsafe { vst1q_f32(lanes.as_mut_ptr(), four) };
        (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
    }
}

/// Four int8 activations, twice.
#[inline(always)]
fn broadcast(q: &[i8], at: usize) -> int8x8_t {
    debug_assert!(at + 4 <= q.len(), "a quad of the row");
    // SAFETY: every caller passes `at` below the row's stride, a multiple of 16; `check_ternary` compared the lengths.
    unsafe { vreinterpret_s8_s32(vdup_n_s32(q.as_ptr().add(at).cast::<i32>().read_unaligned())) }
}

/// One group times T rows of activations: sums of codes for rows 0..4, 4..8, 8..12 and 12..16.
#[inline(always)]
fn tile<const T: usize>(blocks: &[Block], q: &[i8], stride: usize) -> [[int32x4_t; 4]; T] {
    assert!(q.len() == T * stride && stride == blocks.len() * BLOCK_COLUMNS, "a tile");
    // SAFETY: NEON is part of the baseline; a block has 64 bytes.
    unsafe {
        let mask = vdupq_n_u8(3);
        let mut low = [[vdupq_n_s32(0); 4]; T];
        let mut high = [[vdupq_n_s32(0); 4]; T];
        for (b, block) in blocks.iter().enumerate() {
            for part in 0..4 {
                let mut raw = vld1q_u8(block.0.as_ptr().add(16 * part));
                for p in 0..4 {
                    let plane: int8x16_t = vreinterpretq_s8_u8(vandq_u8(raw, mask));
                    raw = vshrq_n_u8::<2>(raw);
                    for t in 0..T {
                        let quad = broadcast(q, t * stride + b * BLOCK_COLUMNS + 4 * p);
                        low[t][part] = vpadalq_s16(low[t][part], vmull_s8(vget_low_s8(plane), quad));
                        high[t][part] = vpadalq_s16(high[t][part], vmull_s8(vget_high_s8(plane), quad));
                    }
                }
            }
        }
        let mut acc = [[vdupq_n_s32(0); 4]; T];
        for t in 0..T {
            for part in 0..4 {
                acc[t][part] = vpaddq_s32(low[t][part], high[t][part]);
            }
        }
        acc
    }
}

/// R6 for four rows of a group and one row of activations.
#[inline(always)]
fn finish(codes: int32x4_t, scale: f32, row: RowScale, store: Store, out: &mut [f32]) {
    assert_eq!(out.len(), 4, "the outputs of four rows");
    // SAFETY: NEON is part of the baseline; four places.
    unsafe {
        let exact = vsubq_s32(codes, vdupq_n_s32(row.sum));
        let product = vmulq_f32(vcvtq_f32_s32(exact), vdupq_n_f32(scale / row.k));
        let y = match store {
            Store::Set => product,
            Store::Add => vaddq_f32(vld1q_f32(out.as_ptr()), product),
        };
        vst1q_f32(out.as_mut_ptr(), y);
    }
}

/// Computes and stores T rows of one group.
#[inline(always)]
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
    for (t, parts) in acc.iter().enumerate() {
        let columns = &mut out.row(row + t)[group * GROUP_ROWS..(group + 1) * GROUP_ROWS];
        for (&codes, y) in parts.iter().zip(columns.chunks_exact_mut(4)) {
            finish(codes, matrix.scales[group], activations.scales[row + t], store, y);
        }
    }
}

fn ternary(matrix: &TernarySlice<'_>, activations: &Activations<'_>, store: Store, out: &mut Columns<'_>) {
    check_ternary(matrix, activations, out);
    let rows = activations.scales.len();
    for group in 0..matrix.scales.len() {
        let mut row = 0;
        while rows - row >= 2 {
            run_tile::<2>(matrix, group, activations, row, store, out);
            row += 2;
        }
        if rows - row == 1 {
            run_tile::<1>(matrix, group, activations, row, store, out);
        }
    }
}

fn gate(kind: Gate, pairs: &[f32], out: &mut [f32]) {
    float::gates::<V>(kind, pairs, out);
}

fn head(rows: &[f32], dim: usize, x: &[f32], out: &mut Columns<'_>) {
    float::head::<V>(rows, dim, x, out);
}

fn join(row: &SplitRow<'_>, out: &mut [f32]) {
    crate::embedding::join(row, out);
}

fn screen(rows: &CoarseSlice<'_>, states: &ProbeSlice<'_>, out: &mut Columns<'_>) {
    screen_by_steps(rows, states, out, steps);
}

/// Weights become signed again, and a product of 64 * 128 fits 16 bits.
fn steps(row: &[Line], part: &[i8]) -> i32 {
    assert_eq!(size_of_val(row), part.len(), "a row and a part of one width");
    // SAFETY: NEON is part of the baseline; chunks of weights and parts have 16 bytes each.
    unsafe {
        let mut acc = vdupq_n_s32(0);
        for (weights, x) in as_bytes(row).chunks_exact(16).zip(part.chunks_exact(16)) {
            let w = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(weights.as_ptr()), vdupq_n_u8(128)));
            let x = vld1q_s8(x.as_ptr());
            acc = vpadalq_s16(acc, vmull_s8(vget_low_s8(w), vget_low_s8(x)));
            acc = vpadalq_s16(acc, vmull_s8(vget_high_s8(w), vget_high_s8(x)));
        }
        vaddvq_s32(acc)
    }
}
