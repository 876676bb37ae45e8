//! The float kernels, once, over sixteen [`Lanes`].
//!
//! Each is the SIMD form of a function of [`crate::arith`] with the same name and the same order of operations; the paths
//! wrap them in functions that enable their instruction set. The helpers take no closures: a closure would not inherit it.
#![expect(unsafe_code, reason = "island: the loops over whole registers read and write by pointer")]

use super::check_head;
use super::lanes::Lanes;
use crate::arith::exp::{HIGHEST, LN2_HI, LN2_LO, LOG2_E, LOWEST, POLYNOMIAL, ROUNDER};
use crate::arith::lanes::LANES;
use crate::arith::norm::{MAGNITUDE_MIN, RowScale};
use crate::hyper::Gate;
use crate::pool::Columns;

/// R3.
#[inline(always)]
pub(super) fn dot<L: Lanes>(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "dot takes two vectors of one length");
    let mut acc = L::splat(0.0);
    let whole = a.len() - a.len() % LANES;
    let mut at = 0;
    while at < whole {
        // SAFETY: at + 16 <= whole, within both.
        acc = unsafe { L::load(a.as_ptr().add(at)).fma(L::load(b.as_ptr().add(at)), acc) };
        at += LANES;
    }
    if whole < a.len() {
        let sum = L::load_some(&a[whole..]).fma(L::load_some(&b[whole..]), acc);
        acc = sum.keep_first(a.len() - whole, acc);
    }
    acc.fold()
}

/// R3.
#[inline(always)]
pub(super) fn sum<L: Lanes>(values: &[f32]) -> f32 {
    let mut acc = L::splat(0.0);
    for chunk in values.chunks(LANES) {
        acc = acc.add(L::load_some(chunk)).keep_first(chunk.len(), acc);
    }
    acc.fold()
}

/// R4: 1 / rms(x), or `None` if the sum of squares is not finite.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "lengths are at most COLUMNS_MAX, exact in binary32")]
fn inverse_rms<L: Lanes>(x: &[f32], eps: f32) -> Option<f32> {
    let s = dot::<L>(x, x);
    if s.is_finite() { Some(1.0 / (s / x.len() as f32 + eps).sqrt()) } else { None }
}

/// R4.
#[inline(always)]
pub(super) fn rms_norm<L: Lanes>(x: &[f32], gain: &[f32], eps: f32, y: &mut [f32]) -> bool {
    assert!(x.len() == gain.len() && x.len() == y.len(), "a norm keeps its length");
    let Some(r) = inverse_rms::<L>(x, eps) else {
        y.fill(0.0);
        return false;
    };
    let (r, zero) = (L::splat(r), L::splat(0.0));
    // Adding zero times each result leaves zero, unless one is not finite.
    let mut poison = zero;
    for ((x, g), y) in x.chunks(LANES).zip(gain.chunks(LANES)).zip(y.chunks_mut(LANES)) {
        let value = L::load_some(x).mul(r).mul(L::load_some(g));
        poison = value.fma(zero, poison);
        value.store_some(y);
    }
    poison.fold() == 0.0
}

/// R4 and R5.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the sum of int8 values is an integer within 2^24")]
pub(super) fn norm_quantise<L: Lanes>(x: &[f32], gain: &[f32], eps: f32, q: &mut [i8]) -> Option<RowScale> {
    assert!(x.len() == gain.len() && x.len() <= q.len(), "one int8 per activation");
    let (q, padding) = q.split_at_mut(x.len());
    padding.fill(0);
    let Some(r) = inverse_rms::<L>(x, eps) else {
        q.fill(0);
        return None;
    };
    let (r, zero) = (L::splat(r), L::splat(0.0));
    let (mut greatest, mut poison) = (zero, zero);
    let whole = x.len() - x.len() % LANES;
    let mut at = 0;
    while at < whole {
        // SAFETY: at + 16 <= whole, within both.
        let value = unsafe { L::load(x.as_ptr().add(at)).mul(r).mul(L::load(gain.as_ptr().add(at))) };
        greatest = greatest.max(value.abs());
        poison = value.fma(zero, poison);
        at += LANES;
    }
    if whole < x.len() {
        let value = L::load_some(&x[whole..]).mul(r).mul(L::load_some(&gain[whole..]));
        greatest = greatest.max(value.abs());
        poison = value.fma(zero, poison);
    }
    if poison.fold() != 0.0 {
        q.fill(0);
        return None;
    }
    let mut lanes = [0.0; LANES];
    greatest.store_some(&mut lanes);
    let mut m = MAGNITUDE_MIN;
    for lane in lanes {
        m = if lane > m { lane } else { m };
    }
    let k = 127.0 / m;
    let (factor, low, high) = (L::splat(k), L::splat(-128.0), L::splat(127.0));
    let mut total = zero;
    let mut at = 0;
    while at < whole {
        // SAFETY: at + 16 <= whole, within all three.
        unsafe {
            let value = L::load(x.as_ptr().add(at)).mul(r).mul(L::load(gain.as_ptr().add(at)));
            let rounded = value.mul(factor).round().max(low).min(high);
            total = total.add(rounded);
            rounded.store_int8(q.as_mut_ptr().add(at));
        }
        at += LANES;
    }
    if whole < x.len() {
        let value = L::load_some(&x[whole..]).mul(r).mul(L::load_some(&gain[whole..]));
        let rounded = value.mul(factor).round().max(low).min(high);
        total = total.add(rounded);
        rounded.store_some_int8(&mut q[whole..]);
    }
    Some(RowScale { k, sum: total.fold() as i32 })
}

/// R9.
#[inline(always)]
pub(super) fn exp<L: Lanes>(x: L) -> L {
    let capped = x.min(L::splat(HIGHEST));
    let shifted = capped.mul(L::splat(LOG2_E)).add(L::splat(ROUNDER));
    let n = shifted.sub(L::splat(ROUNDER));
    let r = n.fma(L::splat(-LN2_HI), capped);
    let r = n.fma(L::splat(-LN2_LO), r);
    let mut p = L::splat(POLYNOMIAL[0]);
    let mut i = 1;
    while i < POLYNOMIAL.len() {
        p = p.fma(r, L::splat(POLYNOMIAL[i]));
        i += 1;
    }
    p.mul(shifted.power_of_two()).zero_below(x, L::splat(LOWEST))
}

/// R9 over a slice.
#[inline(always)]
pub(super) fn exp_all<L: Lanes>(values: &mut [f32]) {
    for chunk in values.chunks_mut(LANES) {
        exp(L::load_some(chunk)).store_some(chunk);
    }
}

/// R10 over groups of 16 gates followed by 16 ups.
#[inline(always)]
pub(super) fn gates<L: Lanes>(kind: Gate, pairs: &[f32], out: &mut [f32]) {
    assert_eq!(pairs.len(), 2 * out.len(), "a gate and an up value per output");
    let (zero, one) = (L::splat(0.0), L::splat(1.0));
    for (pair, out) in pairs.chunks_exact(2 * LANES).zip(out.chunks_exact_mut(LANES)) {
        let (g, u) = pair.split_at(LANES);
        let (g, u) = (L::load_some(g), L::load_some(u));
        let y = match kind {
            Gate::SquaredRelu => {
                let h = zero.max(g);
                h.mul(h).mul(u)
            }
            Gate::Silu => {
                let negated = L::splat(-0.0).sub(g);
                g.div(one.add(exp(negated))).mul(u)
            }
        };
        y.store_some(out);
    }
}

/// binary16 rounding; false if a result is an infinity or not a number.
#[inline(always)]
pub(super) fn narrow<L: Lanes>(values: &[f32], halves: &mut [u16]) -> bool {
    assert_eq!(values.len(), halves.len(), "one half per value");
    let zero = L::splat(0.0);
    let mut poison = zero;
    for (value, half) in values.chunks(LANES).zip(halves.chunks_mut(LANES)) {
        let value = L::load_some(value);
        if half.len() == LANES {
            // SAFETY: 16 places, of which 16 were just written.
            unsafe {
                value.store_half(half.as_mut_ptr());
                poison = L::load_half(half.as_ptr()).fma(zero, poison);
            }
        } else {
            value.store_some_half(half);
            poison = L::load_some_half(half).fma(zero, poison);
        }
    }
    poison.fold() == 0.0
}

/// Inner product with a key.
#[inline(always)]
pub(super) fn dot_half<L: Lanes>(q: &[f32], key: &[u16]) -> f32 {
    let mut acc = L::splat(0.0);
    let (mut xs, mut ks) = (q.chunks_exact(LANES), key.chunks_exact(LANES));
    while let (Some(x), Some(k)) = (xs.next(), ks.next()) {
        // SAFETY: both chunks have 16 elements.
        acc = unsafe { L::load(x.as_ptr()).fma(L::load_half(k.as_ptr()), acc) };
    }
    let tail = xs.remainder();
    if !tail.is_empty() {
        let sum = L::load_some(tail).fma(L::load_some_half(ks.remainder()), acc);
        acc = sum.keep_first(tail.len(), acc);
    }
    acc.fold()
}

/// R11, in tiles of 4 rows x 4 tokens, of 16 rows x 1 token, and single rows at the end.
#[inline(always)]
pub(super) fn head<L: Lanes>(rows: &[f32], dim: usize, x: &[f32], out: &mut Columns<'_>) {
    let count = check_head(rows, dim, x, out);
    let tokens = out.rows();
    let quads = tokens - tokens % 4;
    let mut v = 0;
    while v + LANES <= count {
        let panel = &rows[v * dim..(v + LANES) * dim];
        let mut t = 0;
        while t < quads {
            let mut r = 0;
            while r < LANES {
                let sums = head_tile::<L, 4, 4>(&panel[r * dim..(r + 4) * dim], dim, &x[t * dim..(t + 4) * dim]);
                let mut lanes = [0.0; LANES];
                sums.store_some(&mut lanes);
                for (i, tile) in lanes.chunks_exact(4).enumerate() {
                    for (j, &logit) in tile.iter().enumerate() {
                        out.row(t + j)[v + r + i] = logit;
                    }
                }
                r += 4;
            }
            t += 4;
        }
        while t < tokens {
            let sums = head_tile::<L, 16, 1>(panel, dim, &x[t * dim..(t + 1) * dim]);
            sums.store_some(&mut out.row(t)[v..v + LANES]);
            t += 1;
        }
        v += LANES;
    }
    while v < count {
        let mut t = 0;
        while t < tokens {
            let sums = head_tile::<L, 1, 1>(&rows[v * dim..(v + 1) * dim], dim, &x[t * dim..(t + 1) * dim]);
            let mut lanes = [0.0; LANES];
            sums.store_some(&mut lanes);
            out.row(t)[v] = lanes[0];
            t += 1;
        }
        v += 1;
    }
}

/// Inner products of R rows with T tokens, R * T <= 16, in lane `r * T + t`.
#[inline(always)]
fn head_tile<L: Lanes, const R: usize, const T: usize>(rows: &[f32], dim: usize, x: &[f32]) -> L {
    assert!(rows.len() == R * dim && x.len() == T * dim, "a tile of rows and tokens");
    let zero = L::splat(0.0);
    let mut acc = [zero; LANES];
    let whole = dim - dim % LANES;
    let mut start = 0;
    while start < whole {
        let mut hidden = [zero; T];
        let mut t = 0;
        while t < T {
            // SAFETY: start + 16 <= dim: inside of token t.
            hidden[t] = unsafe { L::load(x.as_ptr().add(t * dim + start)) };
            t += 1;
        }
        let mut r = 0;
        while r < R {
            // SAFETY: start + 16 <= dim: inside of row r.
            let row = unsafe { L::load(rows.as_ptr().add(r * dim + start)) };
            let mut t = 0;
            while t < T {
                acc[r * T + t] = hidden[t].fma(row, acc[r * T + t]);
                t += 1;
            }
            r += 1;
        }
        start += LANES;
    }
    if whole < dim {
        let mut r = 0;
        while r < R {
            let row = L::load_some(&rows[r * dim + whole..(r + 1) * dim]);
            let mut t = 0;
            while t < T {
                let sum = L::load_some(&x[t * dim + whole..(t + 1) * dim]).fma(row, acc[r * T + t]);
                acc[r * T + t] = sum.keep_first(dim - whole, acc[r * T + t]);
                t += 1;
            }
            r += 1;
        }
    }
    if R * T == 1 {
        return L::splat(acc[0].fold());
    }
    L::fold_all(&acc)
}
