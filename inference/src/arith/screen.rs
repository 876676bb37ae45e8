//! The screen of R11: approximate logits from int8, and how far they can be from the exact ones. `docs/arithmetic.md` has the proof.
//!
//! A row `e` of the output embedding is `scale * q + residual` with `q` in -127..=127; a hidden state `x` is `unit * (128 * high + low) + rest`
//! with both parts in -64..=63, so that two int8 products give fourteen bits of it. Then
//! ```text
//! approximate = unit * scale * (128 * Σ high_i q_i + Σ low_i q_i)
//! |exact - approximate| <= |x| * slack + |rest| * |scale * q|
//! ```
//! Where many states are screened, arithmetic and not memory is the limit: then `high` alone is multiplied with every row, `low` counts as a
//! part of the rest, and only the rows that this bound leaves are multiplied with `low` as well.

/// Greatest magnitude of a coarse weight.
pub const COARSE_MAX: f32 = 127.0;
/// Greatest magnitude of `128 * high + low`: both stay in -64..=63.
pub const PROBE_MAX: f32 = 8127.0;
/// Smallest greatest magnitude of a hidden state that is screened: below, units would lose precision.
const MAGNITUDE_MIN: f32 = 1e-20;
/// Rounding of the approximation itself and of its bound, relative to the product of the norms.
const ROUNDING: f64 = 1.0 / 65_536.0;
/// 1.5 * 2^23: added, it leaves the nearest even integer in the low bits.
const ROUNDER: f32 = 12_582_912.0;

/// A hidden state, quantised for the screen. Its bits matter to no result: a screen only decides what is computed exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Probe {
    /// What one step of `128 * high + low` stands for.
    pub unit: f32,
    /// At least the Euclidean norm of the state.
    pub norm: f32,
    /// At least the Euclidean norm of what quantisation left out.
    pub rest_norm: f32,
    /// The same where `low` is left out too.
    pub upper_rest_norm: f32,
    /// Sums of `high` and of `low`.
    pub sums: [i32; 2],
}

/// The nearest integer, ties to even, of a magnitude below 2^22.
#[inline]
fn nearest(value: f32) -> i32 {
    (value + ROUNDER).to_bits().cast_signed() - ROUNDER.to_bits().cast_signed()
}

/// Not less than `value`, in binary32.
#[expect(clippy::cast_possible_truncation, reason = "rounded up just before")]
fn up(value: f64) -> f32 {
    (value * (1.0 + 1e-6)) as f32 + f32::MIN_POSITIVE
}

/// Quantises a hidden state. `high` and `low` may be longer: the rest is set to zero. `None` if the state is too small or
/// not finite; then there is no screen.
///
/// # Panics
/// If `high` or `low` is shorter than `x`.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "both parts are within -64..=63")]
#[expect(clippy::cast_precision_loss, reason = "widths are at most 131072")]
pub fn probe(x: &[f32], high: &mut [i8], low: &mut [i8]) -> Option<Probe> {
    assert!(x.len() <= high.len() && x.len() <= low.len(), "two int8 per value");
    high[x.len()..].fill(0);
    low[x.len()..].fill(0);
    let (mut m, mut squares) = (0.0_f32, 0.0_f64);
    for &x in x {
        m = if x.abs() > m { x.abs() } else { m };
        squares += f64::from(x) * f64::from(x);
    }
    let norm = up(squares.sqrt());
    if !(m > MAGNITUDE_MIN && norm.is_finite()) {
        return None;
    }
    let unit = m / PROBE_MAX;
    let factor = 1.0 / unit;
    let (mut sums, mut lows) = ([0; 2], 0);
    for ((&x, high), low) in x.iter().zip(high).zip(low) {
        let both = nearest(x * factor).clamp(-8127, 8127);
        let upper = (both + 64) >> 7;
        *high = upper as i8;
        let lower = both - (upper << 7);
        *low = lower as i8;
        sums[0] += upper;
        sums[1] += lower;
        lows += lower * lower;
    }
    // Half a step each, and three roundings of a number up to 8127.
    let rest_norm = 0.503 * f64::from(unit) * (x.len() as f64).sqrt();
    let upper_rest_norm = rest_norm + f64::from(unit) * (lows as f64).sqrt();
    Some(Probe { unit, norm, rest_norm: up(rest_norm), upper_rest_norm: up(upper_rest_norm), sums })
}

/// One row of the embedding, quantised for the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CoarseRow {
    /// What one step of `q` stands for.
    pub scale: f32,
    /// What the bound takes times the norm of the state.
    pub slack: f32,
    /// At least the norm of the row, and of `scale * q`.
    pub norm: f32,
}

/// Quantises a row of finite weights: `q` is stored with 128 added; places beyond the row hold 128.
///
/// # Panics
/// If `biased` is shorter than `row`.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1..=255 after clamping")]
#[expect(clippy::cast_precision_loss, reason = "widths are at most 131072")]
pub fn coarse(row: &[f32], biased: &mut [u8]) -> CoarseRow {
    assert!(row.len() <= biased.len(), "a byte per weight");
    biased[row.len()..].fill(128);
    let m = row.iter().fold(0.0_f32, |m, e| if e.abs() > m { e.abs() } else { m });
    let scale = m / COARSE_MAX;
    if scale < f32::MIN_POSITIVE {
        // All weights are zero or nearly: their norm is the whole error.
        biased.fill(128);
        let norm = up(f64::from(m) * (row.len() as f64).sqrt() * 1.01);
        return CoarseRow { scale: 0.0, slack: norm, norm };
    }
    let factor = 1.0 / scale;
    let (mut residuals, mut steps) = (0.0_f64, 0.0_f64);
    for (&e, biased) in row.iter().zip(biased) {
        let q = nearest(e * factor).clamp(-127, 127);
        *biased = (q + 128) as u8;
        let residual = f64::from(e) - f64::from(scale) * f64::from(q);
        residuals += residual * residual;
        steps += f64::from(q * q);
    }
    let (residual, coarse_norm) = (residuals.sqrt(), f64::from(scale) * steps.sqrt());
    // R11 rounds once per multiplication of a lane and four times in the fold.
    let roundings = (row.len().div_ceil(16) + 4) as f64 * f64::from(f32::EPSILON);
    let norm = coarse_norm + residual;
    CoarseRow { scale, slack: up(residual + (roundings + ROUNDING) * norm), norm: up(norm) }
}

/// The approximate logit, from the two sums of products. The same bits on every path.
#[must_use]
#[inline]
#[expect(clippy::cast_precision_loss, reason = "part of the bound")]
pub fn approximate(high: i32, low: i32, scale: f32, unit: f32) -> f32 {
    (high as f32 * 128.0 + low as f32) * (scale * unit)
}
