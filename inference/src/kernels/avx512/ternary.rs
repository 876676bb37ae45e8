//! Ternary matrices on AVX-512: one register holds the sixteen rows of a group.
//!
//! Decode, one row of activations, per block of 16 x 16 weights:
//! ```text
//! w = load 64 bytes                                  16 rows x 16 columns of 2-bit codes
//! for p in 0..4: acc[p] += dpbusd(w & (3 << 2p), broadcast(q[4p..4p+4]))
//! ```
//! Planes are masked, not shifted: plane p counts 4^p times too much, and its sum is shifted right at the end, exactly.
//! Two blocks run at once, so that eight chains hide the latency. Prefill shifts each plane once and uses it for a tile of
//! rows of activations. Without VNNI the same blocks go through `maddubs` into 16-bit sums, which are widened before they
//! can overflow.
#![expect(unsafe_code, reason = "island: AVX-512 intrinsics; reachable only through tables handed out after detection")]

use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi16, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_loadu_ps, _mm512_madd_epi16,
    _mm512_maddubs_epi16, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_si512, _mm512_srai_epi32, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_sub_epi32,
};

use crate::arith::norm::RowScale;
use crate::kernels::packed::{BLOCK_COLUMNS, Block, GROUP_ROWS};
use crate::kernels::{Activations, Store, TernarySlice, check_ternary};
use crate::pool::Columns;

/// With VNNI.
pub(super) fn vnni(matrix: &TernarySlice<'_>, activations: &Activations<'_>, store: Store, out: &mut Columns<'_>) {
    // SAFETY: named only in the tables of the parent module, which `Kernels::forced` returns only after it saw the instruction sets.
    unsafe { vnni_inner(matrix, activations, store, out) }
}

/// Without VNNI.
pub(super) fn plain(matrix: &TernarySlice<'_>, activations: &Activations<'_>, store: Store, out: &mut Columns<'_>) {
    // SAFETY: named only in the tables of the parent module, which `Kernels::forced` returns only after it saw the instruction sets.
    unsafe { plain_inner(matrix, activations, store, out) }
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

/// Blocks that a stream is fetched ahead of its use.
const AHEAD: usize = 64;

/// Fetches the block so many places after the first of `blocks`, which may lie beyond the matrix: then nothing happens.
#[inline]
fn prefetch(blocks: &[Block], places: usize) {
    // SAFETY: a prefetch accesses nothing; every x86-64 CPU has it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(blocks.as_ptr().wrapping_add(places).cast()) }
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
        prefetch(pair, AHEAD);
        prefetch(pair, AHEAD + 1);
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

/// G groups times T rows of activations: each plane is unpacked once and used T times. Fetches the groups `ahead` of the next G.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn tile_vnni<const G: usize, const T: usize>(
    blocks: &[Block],
    per_group: usize,
    q: &[i8],
    stride: usize,
    ahead: std::ops::Range<usize>,
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
        // While this tile computes, its share of the next groups arrives.
        for group in ahead.clone() {
            prefetch(blocks, (G + group) * per_group + b);
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
    // The first tiles of a panel fetch the next panel among them.
    let tiles = activations.scales.len().div_ceil(4).min(G);
    let share = G.div_ceil(tiles);
    let ahead = (row / 4 * share).min(G)..((row / 4 + 1) * share).min(G);
    let acc = tile_vnni::<G, T>(
        &matrix.blocks[group * matrix.per_group..(group + G) * matrix.per_group],
        matrix.per_group,
        &activations.q[row * stride..(row + T) * stride],
        stride,
        ahead,
    );
    for (g, acc) in acc.iter().enumerate() {
        for (t, &codes) in acc.iter().enumerate() {
            let columns = &mut out.row(row + t)[(group + g) * GROUP_ROWS..(group + g + 1) * GROUP_ROWS];
            finish(codes, matrix.scales[group + g], activations.scales[row + t], store, columns);
        }
    }
}

/// All rows of activations for G groups, in tiles of 4 and what is left. Four by four is the smallest tile that keeps both multipliers busy, and
/// larger ones are no faster (`docs/engine.md`).
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
    while rows - row >= 4 {
        run_tile_vnni::<G, 4>(matrix, group, activations, row, store, out);
        row += 4;
    }
    match rows - row {
        3 => run_tile_vnni::<G, 3>(matrix, group, activations, row, store, out),
        2 => run_tile_vnni::<G, 2>(matrix, group, activations, row, store, out),
        1 => run_tile_vnni::<G, 1>(matrix, group, activations, row, store, out),
        _ => {}
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn vnni_inner(matrix: &TernarySlice<'_>, activations: &Activations<'_>, store: Store, out: &mut Columns<'_>) {
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
    while groups - group >= 4 {
        panel_vnni::<4>(matrix, group, activations, store, out);
        group += 4;
    }
    while groups - group >= 1 {
        panel_vnni::<1>(matrix, group, activations, store, out);
        group += 1;
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
        for t in 0..T {
            acc[t] = _mm512_add_epi32(acc[t], _mm512_madd_epi16(short[t], ones));
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
fn plain_inner(matrix: &TernarySlice<'_>, activations: &Activations<'_>, store: Store, out: &mut Columns<'_>) {
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
