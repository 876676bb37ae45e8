//! AVX-512: one register holds the sixteen lanes of R3, and the sixteen rows of a ternary group.
//!
//! Decode, one row of activations, per block of 16 x 16 weights:
//! ```text
//! w = load 64 bytes                                  16 rows x 16 columns of 2-bit codes
//! for p in 0..4: acc[p] += dpbusd(w & (3 << 2p), broadcast(q[4p..4p+4]))
//! ```
//! Planes are masked, not shifted: plane p counts 4^p times too much, and its sum is shifted right at the end, exactly. Two blocks run
//! at once, so that eight chains hide the latency. Prefill shifts each plane once and uses it for a tile of rows of activations.
//!
//! Without VNNI the same blocks go through `maddubs` into 16-bit sums, which are widened before they can overflow.
#![expect(unsafe_code, reason = "island: AVX-512 intrinsics; reachable only through tables handed out after detection")]

use std::arch::x86_64::{
    __m512, __m512i, _CMP_LT_OQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_loadu_si256,
    _mm256_storeu_si256, _mm512_abs_ps, _mm512_add_epi16, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_castps_si512, _mm512_castps512_ps256, _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_cvtps_epi32, _mm512_cvtps_ph, _mm512_cvtsepi32_epi8, _mm512_div_ps,
    _mm512_dpbusd_epi32, _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_load_si512, _mm512_loadu_ps,
    _mm512_madd_epi16, _mm512_maddubs_epi16, _mm512_mask_blend_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_roundscale_ps, _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_slli_epi32, _mm512_srai_epi32,
    _mm512_srli_epi32, _mm512_storeu_ps, _mm512_sub_epi32, _mm512_sub_ps,
};

use super::avx2::fold8;
use super::lanes::Lanes;
use super::packed::{BLOCK_COLUMNS, Block, GROUP_ROWS};
use super::{Activations, FloatSlice, KernelKind, Kernels, Store, TernarySlice, check_ternary, float};
use crate::arith::norm::RowScale;
use crate::hyper::Gate;
use crate::pool::Columns;

pub(super) const VNNI: Kernels = Kernels {
    kind: KernelKind::Avx512,
    ternary: ternary_vnni,
    norm_quantise,
    norm,
    gate,
    attend,
    narrow,
    head,
    exp,
    sum,
};

pub(super) const PLAIN: Kernels = Kernels { kind: KernelKind::Avx512Plain, ternary: ternary_plain, ..VNNI };

/// Wraps a function of `float`, or a ternary kernel, for the table.
/// The instruction sets are those `KernelKind::is_available` asks for.
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
    unsafe fn load_bfloat(from: *const u16) -> Self {
        // SAFETY: see above.
        V(unsafe {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()))))
        })
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

/// Four int8 activations in every lane.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn broadcast(q: &[i8], at: usize) -> __m512i {
    debug_assert!(at + 4 <= q.len(), "a quad of the row");
    // SAFETY: every caller passes `at` below the row's stride, a multiple of 16; `check_ternary` compared the lengths.
    let quad = unsafe { q.as_ptr().add(at).cast::<i32>().read_unaligned() };
    _mm512_set1_epi32(quad)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn load(block: &Block) -> __m512i {
    // SAFETY: a block is 64 bytes, aligned to 64.
    unsafe { _mm512_load_si512(std::ptr::from_ref(block).cast()) }
}

/// R6 for one group and one row of activations: subtracts the unsigned codes' surplus, scales, stores.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn finish(codes: __m512i, scale: f32, row: RowScale, store: Store, out: &mut [f32]) {
    let exact = _mm512_sub_epi32(codes, _mm512_set1_epi32(row.sum));
    let product = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_set1_ps(scale / row.k));
    assert_eq!(out.len(), GROUP_ROWS, "the outputs of one group");
    // SAFETY: sixteen places.
    unsafe {
        let y = match store {
            Store::Set => product,
            Store::Add => _mm512_add_ps(_mm512_loadu_ps(out.as_ptr()), product),
        };
        _mm512_storeu_ps(out.as_mut_ptr(), y);
    }
}

/// One row of activations: memory-bound, so the fewest operations per block.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn group_vnni(blocks: &[Block], q: &[i8]) -> __m512i {
    let masks = [
        _mm512_set1_epi8(0x03),
        _mm512_set1_epi8(0x0c),
        _mm512_set1_epi8(0x30),
        _mm512_set1_epi8(0xc0_u8.cast_signed()),
    ];
    let mut even = [_mm512_setzero_si512(); 4];
    let mut odd = [_mm512_setzero_si512(); 4];
    let mut at = 0;
    let mut pairs = blocks.chunks_exact(2);
    for pair in &mut pairs {
        let (a, b) = (load(&pair[0]), load(&pair[1]));
        for p in 0..4 {
            even[p] = _mm512_dpbusd_epi32(even[p], _mm512_and_si512(a, masks[p]), broadcast(q, at + 4 * p));
            odd[p] = _mm512_dpbusd_epi32(odd[p], _mm512_and_si512(b, masks[p]), broadcast(q, at + 16 + 4 * p));
        }
        at += 2 * BLOCK_COLUMNS;
    }
    if let [last] = pairs.remainder() {
        let a = load(last);
        for p in 0..4 {
            even[p] = _mm512_dpbusd_epi32(even[p], _mm512_and_si512(a, masks[p]), broadcast(q, at + 4 * p));
        }
    }
    let sum = |p: usize| _mm512_add_epi32(even[p], odd[p]);
    let low = _mm512_add_epi32(sum(0), _mm512_srai_epi32::<2>(sum(1)));
    let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(sum(2)), _mm512_srai_epi32::<6>(sum(3)));
    _mm512_add_epi32(low, high)
}

/// G groups times T rows of activations: each plane is unpacked once and used T times.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn tile_vnni<const G: usize, const T: usize>(
    blocks: &[Block],
    per_group: usize,
    q: &[i8],
    stride: usize,
) -> [[__m512i; T]; G] {
    assert!(blocks.len() == G * per_group && q.len() == T * stride && stride == per_group * BLOCK_COLUMNS, "a tile");
    let mask = _mm512_set1_epi8(3);
    let mut acc = [[_mm512_setzero_si512(); T]; G];
    for b in 0..per_group {
        let mut raw = [_mm512_setzero_si512(); G];
        for (g, raw) in raw.iter_mut().enumerate() {
            // SAFETY: g < G and b < per_group, and the assertion above.
            *raw = load(unsafe { blocks.get_unchecked(g * per_group + b) });
        }
        for p in 0..4 {
            let mut plane = [_mm512_setzero_si512(); G];
            for g in 0..G {
                plane[g] = _mm512_and_si512(raw[g], mask);
                raw[g] = _mm512_srli_epi32::<2>(raw[g]);
            }
            #[expect(clippy::needless_range_loop, reason = "the second index of a table of registers")]
            for t in 0..T {
                let quad = broadcast(q, t * stride + b * BLOCK_COLUMNS + 4 * p);
                for g in 0..G {
                    acc[g][t] = _mm512_dpbusd_epi32(acc[g][t], plane[g], quad);
                }
            }
        }
    }
    acc
}

/// Computes and stores one tile.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn run_tile_vnni<const G: usize, const T: usize>(
    matrix: &TernarySlice<'_>,
    group: usize,
    activations: &Activations<'_>,
    row: usize,
    store: Store,
    out: &mut Columns<'_>,
) {
    let stride = activations.stride;
    let acc = tile_vnni::<G, T>(
        &matrix.blocks[group * matrix.per_group..(group + G) * matrix.per_group],
        matrix.per_group,
        &activations.q[row * stride..(row + T) * stride],
        stride,
    );
    for (g, acc) in acc.iter().enumerate() {
        for (t, &codes) in acc.iter().enumerate() {
            let columns = &mut out.row(row + t)[(group + g) * GROUP_ROWS..(group + g + 1) * GROUP_ROWS];
            finish(codes, matrix.scales[group + g], activations.scales[row + t], store, columns);
        }
    }
}

/// All rows of activations for G groups, in tiles of 8, 4, 2 and 1.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn panel_vnni<const G: usize>(
    matrix: &TernarySlice<'_>,
    group: usize,
    activations: &Activations<'_>,
    store: Store,
    out: &mut Columns<'_>,
) {
    let rows = activations.scales.len();
    let mut row = 0;
    while rows - row >= 8 {
        run_tile_vnni::<G, 8>(matrix, group, activations, row, store, out);
        row += 8;
    }
    if rows - row >= 4 {
        run_tile_vnni::<G, 4>(matrix, group, activations, row, store, out);
        row += 4;
    }
    if rows - row >= 2 {
        run_tile_vnni::<G, 2>(matrix, group, activations, row, store, out);
        row += 2;
    }
    if rows - row == 1 {
        run_tile_vnni::<G, 1>(matrix, group, activations, row, store, out);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn ternary_vnni_inner(matrix: &TernarySlice<'_>, activations: &Activations<'_>, store: Store, out: &mut Columns<'_>) {
    check_ternary(matrix, activations, out);
    let groups = matrix.scales.len();
    if let &[row] = activations.scales {
        let columns = out.row(0);
        for ((blocks, &scale), y) in
            matrix.blocks.chunks_exact(matrix.per_group).zip(matrix.scales).zip(columns.chunks_exact_mut(GROUP_ROWS))
        {
            finish(group_vnni(blocks, activations.q), scale, row, store, y);
        }
        return;
    }
    let mut group = 0;
    while groups - group >= 2 {
        panel_vnni::<2>(matrix, group, activations, store, out);
        group += 2;
    }
    if groups - group == 1 {
        panel_vnni::<1>(matrix, group, activations, store, out);
    }
}

/// Blocks whose 16-bit sums cannot overflow: 4 planes x 2 products x 2 x 128 = 2048 per block, 15 blocks = 30720.
const BLOCKS_PER_SPILL: usize = 15;
const _: () = assert!(BLOCKS_PER_SPILL * 4 * 2 * 2 * 128 <= i16::MAX as usize, "16-bit sums hold this many blocks");

/// One group and T rows of activations without VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn tile_plain<const T: usize>(blocks: &[Block], q: &[i8], stride: usize) -> [__m512i; T] {
    assert!(q.len() == T * stride && stride == blocks.len() * BLOCK_COLUMNS, "a tile");
    let (mask, ones) = (_mm512_set1_epi8(3), _mm512_set1_epi16(1));
    let mut acc = [_mm512_setzero_si512(); T];
    let mut at = 0;
    for run in blocks.chunks(BLOCKS_PER_SPILL) {
        let mut short = [_mm512_setzero_si512(); T];
        for block in run {
            let mut raw = load(block);
            for p in 0..4 {
                let plane = _mm512_and_si512(raw, mask);
                raw = _mm512_srli_epi32::<2>(raw);
                for (t, short) in short.iter_mut().enumerate() {
                    let products = _mm512_maddubs_epi16(plane, broadcast(q, t * stride + at + 4 * p));
                    *short = _mm512_add_epi16(*short, products);
                }
            }
            at += BLOCK_COLUMNS;
        }
        for (acc, short) in acc.iter_mut().zip(short) {
            *acc = _mm512_add_epi32(*acc, _mm512_madd_epi16(short, ones));
        }
    }
    acc
}

/// Computes and stores T rows of one group.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn run_tile_plain<const T: usize>(
    matrix: &TernarySlice<'_>,
    group: usize,
    activations: &Activations<'_>,
    row: usize,
    store: Store,
    out: &mut Columns<'_>,
) {
    let stride = activations.stride;
    let blocks = &matrix.blocks[group * matrix.per_group..(group + 1) * matrix.per_group];
    let acc = tile_plain::<T>(blocks, &activations.q[row * stride..(row + T) * stride], stride);
    for (t, &codes) in acc.iter().enumerate() {
        let columns = &mut out.row(row + t)[group * GROUP_ROWS..(group + 1) * GROUP_ROWS];
        finish(codes, matrix.scales[group], activations.scales[row + t], store, columns);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn ternary_plain_inner(matrix: &TernarySlice<'_>, activations: &Activations<'_>, store: Store, out: &mut Columns<'_>) {
    check_ternary(matrix, activations, out);
    let rows = activations.scales.len();
    for group in 0..matrix.scales.len() {
        let mut row = 0;
        while rows - row >= 8 {
            run_tile_plain::<8>(matrix, group, activations, row, store, out);
            row += 8;
        }
        while rows - row >= 1 {
            run_tile_plain::<1>(matrix, group, activations, row, store, out);
            row += 1;
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
fn attend_inner(q: &[f32], keys: &[u16], values: &[u16], scores: &mut [f32], out: &mut [f32]) -> bool {
    float::attend::<V>(q, keys, values, scores, out)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn narrow_inner(values: &[f32], halves: &mut [u16]) -> bool {
    float::narrow::<V>(values, halves)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn head_inner(rows: FloatSlice<'_>, dim: usize, x: &[f32], out: &mut Columns<'_>) {
    float::head::<V>(rows, dim, x, out);
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

fn ternary_vnni(matrix: &TernarySlice<'_>, activations: &Activations<'_>, store: Store, out: &mut Columns<'_>) {
    // SAFETY: see above.
    unsafe { ternary_vnni_inner(matrix, activations, store, out) }
}

fn ternary_plain(matrix: &TernarySlice<'_>, activations: &Activations<'_>, store: Store, out: &mut Columns<'_>) {
    // SAFETY: see above.
    unsafe { ternary_plain_inner(matrix, activations, store, out) }
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

fn attend(q: &[f32], keys: &[u16], values: &[u16], scores: &mut [f32], out: &mut [f32]) -> bool {
    // SAFETY: see above.
    unsafe { attend_inner(q, keys, values, scores, out) }
}

fn narrow(values: &[f32], halves: &mut [u16]) -> bool {
    // SAFETY: see above.
    unsafe { narrow_inner(values, halves) }
}

fn head(rows: FloatSlice<'_>, dim: usize, x: &[f32], out: &mut Columns<'_>) {
    // SAFETY: see above.
    unsafe { head_inner(rows, dim, x, out) }
}

fn exp(values: &mut [f32]) {
    // SAFETY: see above.
    unsafe { exp_inner(values) }
}

fn sum(values: &[f32]) -> f32 {
    // SAFETY: see above.
    unsafe { sum_inner(values) }
}
