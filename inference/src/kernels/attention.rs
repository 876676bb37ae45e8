//! R8 over sixteen lanes: several queries share each key and value that is read and widened.
//!
//! Queries of one key-value head differ in nothing else, so a tile of four costs little more than one. Each query's own sums keep the order
//! of R3; which queries share a tile cannot be seen in the result.
#![expect(unsafe_code, reason = "island: the loops over keys and values read by pointer")]

use super::float::{dot_half, exp};
use super::lanes::Lanes;
use crate::arith::attention::score_scale;
use crate::arith::lanes::LANES;

/// Queries that look at the keys and values of one head.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// `[queries][dim]`.
    pub q: &'a [f32],
    /// Width of a head.
    pub dim: usize,
    /// Positions that each query sees, at least one.
    pub lengths: &'a [usize],
    /// `[positions][dim]`, as many positions as the longest query sees.
    pub keys: &'a [u16],
    /// `[positions][dim]`.
    pub values: &'a [u16],
}

impl Queries<'_> {
    /// Positions of the longest query, after checking all lengths.
    pub(super) fn check(&self, scores: &[f32], out: &[f32], finite: &[bool]) -> usize {
        let positions = self.keys.len() / self.dim;
        assert!(self.dim > 0 && self.keys.len() == positions * self.dim, "whole keys");
        assert_eq!(self.values.len(), self.keys.len(), "a value for each key");
        assert_eq!(self.q.len(), self.lengths.len() * self.dim, "a length for each query");
        assert!(
            self.lengths.iter().all(|&length| (1..=positions).contains(&length)),
            "queries see keys that there are"
        );
        assert!(scores.len() >= self.lengths.len() * positions, "room for every score");
        assert!(out.len() == self.q.len() && finite.len() == self.lengths.len(), "a result for each query");
        positions
    }
}

/// R8 for every query, in tiles of four, two and one.
#[inline(always)]
pub(super) fn attend<L: Lanes>(queries: &Queries<'_>, scores: &mut [f32], out: &mut [f32], finite: &mut [bool]) {
    let positions = queries.check(scores, out, finite);
    let (dim, count) = (queries.dim, queries.lengths.len());
    let mut first = 0;
    while first < count {
        let width = if count - first >= 4 { 4 } else { (count - first).min(2) };
        let part = first..first + width;
        let tile = Queries {
            q: &queries.q[part.start * dim..part.end * dim],
            lengths: &queries.lengths[part.clone()],
            ..*queries
        };
        let scores = &mut scores[part.start * positions..part.end * positions];
        let out = &mut out[part.start * dim..part.end * dim];
        let finite = &mut finite[part];
        match width {
            4 => attend_tile::<L, 4, 4, 4>(&tile, scores, out, finite),
            2 => attend_tile::<L, 2, 8, 8>(&tile, scores, out, finite),
            _ => attend_tile::<L, 1, 16, 8>(&tile, scores, out, finite),
        }
        first += width;
    }
}

/// Q queries, K keys at a time (Q * K = 16), C registers of a value at a time.
#[inline(always)]
fn attend_tile<L: Lanes, const Q: usize, const K: usize, const C: usize>(
    queries: &Queries<'_>,
    scores: &mut [f32],
    out: &mut [f32],
    finite: &mut [bool],
) {
    let dim = queries.dim;
    let positions = queries.keys.len() / dim;
    score::<L, Q, K>(queries, positions, scores);
    let mut totals = [L::splat(1.0); Q];
    let mut q = 0;
    while q < Q {
        let total = soften::<L>(&mut scores[q * positions..][..queries.lengths[q]]);
        finite[q] = total.is_some();
        if let Some(total) = total {
            totals[q] = L::splat(total);
        } else {
            // The row is lost; zeros keep what follows quiet.
            scores[q * positions..(q + 1) * positions].fill(0.0);
        }
        q += 1;
    }
    let mut start = 0;
    while dim - start >= C * LANES {
        mix::<L, Q, C>(queries, positions, scores, start, &totals, out);
        start += C * LANES;
    }
    // What is left of a head in as few passes as there are powers of two in it.
    if dim - start >= 4 * LANES {
        mix::<L, Q, 4>(queries, positions, scores, start, &totals, out);
        start += 4 * LANES;
    }
    if dim - start >= 2 * LANES {
        mix::<L, Q, 2>(queries, positions, scores, start, &totals, out);
        start += 2 * LANES;
    }
    if dim - start >= LANES {
        mix::<L, Q, 1>(queries, positions, scores, start, &totals, out);
        start += LANES;
    }
    if start < dim {
        let mut q = 0;
        while q < Q {
            let mut acc = L::splat(0.0);
            let weights = &scores[q * positions..][..queries.lengths[q]];
            for (&e, value) in weights.iter().zip(queries.values.chunks_exact(dim)) {
                acc = L::splat(e).fma(L::load_some_half(&value[start..]), acc);
            }
            acc.div(totals[q]).store_some(&mut out[q * dim + start..(q + 1) * dim]);
            q += 1;
        }
    }
}

/// Scaled scores of all positions. Those that a query does not see are computed with the others and never used.
#[inline(always)]
fn score<L: Lanes, const Q: usize, const K: usize>(queries: &Queries<'_>, positions: usize, scores: &mut [f32]) {
    let dim = queries.dim;
    let scale = L::splat(score_scale(dim));
    let whole = positions - positions % K;
    let mut first = 0;
    while first < whole {
        let sums = score_tile::<L, Q, K>(queries.q, &queries.keys[first * dim..(first + K) * dim], dim);
        let mut lanes = [0.0; LANES];
        sums.mul(scale).store_some(&mut lanes);
        let mut q = 0;
        while q < Q {
            // A loop, because a copy of so few values would be a call.
            let places = &mut scores[q * positions + first..][..K];
            let mut k = 0;
            while k < K {
                places[k] = lanes[q * K + k];
                k += 1;
            }
            q += 1;
        }
        first += K;
    }
    let factor = score_scale(dim);
    while first < positions {
        let key = &queries.keys[first * dim..(first + 1) * dim];
        let mut q = 0;
        while q < Q {
            scores[q * positions + first] = dot_half::<L>(&queries.q[q * dim..(q + 1) * dim], key) * factor;
            q += 1;
        }
        first += 1;
    }
}

/// Inner products of Q queries with K keys, in lane `q * K + k`.
#[inline(always)]
fn score_tile<L: Lanes, const Q: usize, const K: usize>(queries: &[f32], keys: &[u16], dim: usize) -> L {
    assert!(Q * K == LANES && queries.len() == Q * dim && keys.len() == K * dim, "a tile of queries and keys");
    let mut acc = [L::splat(0.0); LANES];
    let whole = dim - dim % LANES;
    let mut start = 0;
    while start < whole {
        let mut wide = [L::splat(0.0); K];
        let mut k = 0;
        while k < K {
            // SAFETY: start + 16 <= dim: inside of key k.
            wide[k] = unsafe { L::load_half(keys.as_ptr().add(k * dim + start)) };
            k += 1;
        }
        let mut q = 0;
        while q < Q {
            // SAFETY: start + 16 <= dim: inside of query q.
            let x = unsafe { L::load(queries.as_ptr().add(q * dim + start)) };
            let mut k = 0;
            while k < K {
                acc[q * K + k] = x.fma(wide[k], acc[q * K + k]);
                k += 1;
            }
            q += 1;
        }
        start += LANES;
    }
    if whole < dim {
        let mut k = 0;
        while k < K {
            let key = L::load_some_half(&keys[k * dim + whole..(k + 1) * dim]);
            let mut q = 0;
            while q < Q {
                let sum = L::load_some(&queries[q * dim + whole..(q + 1) * dim]).fma(key, acc[q * K + k]);
                acc[q * K + k] = sum.keep_first(dim - whole, acc[q * K + k]);
                q += 1;
            }
            k += 1;
        }
    }
    L::fold_all(&acc)
}

/// Turns scores into `exp32(score - greatest)` and returns their sum; `None` if a score is not finite.
#[inline(always)]
fn soften<L: Lanes>(scores: &mut [f32]) -> Option<f32> {
    let zero = L::splat(0.0);
    let (mut greatest, mut poison) = (L::splat(f32::NEG_INFINITY), zero);
    for block in scores.chunks(LANES) {
        let score = L::load_some(block);
        poison = score.fma(zero, poison).keep_first(block.len(), poison);
        greatest = greatest.max(score).keep_first(block.len(), greatest);
    }
    if poison.fold() != 0.0 {
        return None;
    }
    let mut lanes = [0.0; LANES];
    greatest.store_some(&mut lanes);
    let mut m = f32::NEG_INFINITY;
    for lane in lanes {
        m = if lane > m { lane } else { m };
    }
    let m = L::splat(m);
    let mut z = zero;
    for block in scores.chunks_mut(LANES) {
        let e = exp(L::load_some(block).sub(m));
        z = z.add(e).keep_first(block.len(), z);
        e.store_some(block);
    }
    Some(z.fold())
}

/// `out_q[start..start + 16 C] = Σ_p e_qp v_p / total_q`, in order of p: first the positions that all see, then each query's own.
#[inline(always)]
fn mix<L: Lanes, const Q: usize, const C: usize>(
    queries: &Queries<'_>,
    positions: usize,
    weights: &[f32],
    start: usize,
    totals: &[L; Q],
    out: &mut [f32],
) {
    let (dim, values) = (queries.dim, queries.values);
    assert!(
        values.len() == positions * dim && start + C * LANES <= dim && weights.len() >= Q * positions,
        "columns of a head"
    );
    let mut common = positions;
    for &length in queries.lengths {
        common = if length < common { length } else { common };
    }
    let mut acc = [[L::splat(0.0); C]; Q];
    let mut p = 0;
    while p < common {
        let mut value = [L::splat(0.0); C];
        let mut c = 0;
        while c < C {
            // SAFETY: p < positions and start + 16 (c + 1) <= dim: inside of `values`.
            value[c] = unsafe { L::load_half(values.as_ptr().add(p * dim + start + c * LANES)) };
            c += 1;
        }
        let mut q = 0;
        while q < Q {
            // SAFETY: q < Q and p < positions, and the assertion above.
            let e = L::splat(unsafe { *weights.get_unchecked(q * positions + p) });
            let mut c = 0;
            while c < C {
                acc[q][c] = e.fma(value[c], acc[q][c]);
                c += 1;
            }
            q += 1;
        }
        p += 1;
    }
    let mut q = 0;
    while q < Q {
        let mut p = common;
        while p < queries.lengths[q] {
            let e = L::splat(weights[q * positions + p]);
            let mut c = 0;
            while c < C {
                // SAFETY: lengths are at most `positions`: as above.
                let value = unsafe { L::load_half(values.as_ptr().add(p * dim + start + c * LANES)) };
                acc[q][c] = e.fma(value, acc[q][c]);
                c += 1;
            }
            p += 1;
        }
        let mut c = 0;
        while c < C {
            let at = q * dim + start + c * LANES;
            acc[q][c].div(totals[q]).store_some(&mut out[at..at + LANES]);
            c += 1;
        }
        q += 1;
    }
}
