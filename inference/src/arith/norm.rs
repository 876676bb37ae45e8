//! R4 and R5: RMS norm, and the norm followed by quantisation to int8.

use super::lanes::dot;

/// What the quantiser knows about a row of int8 activations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowScale {
    /// k = 127 / m: activations were multiplied by it.
    pub k: f32,
    /// Sum of the int8 values: what the unsigned weight codes 0..2 count too much.
    pub sum: i32,
}

/// Smallest largest magnitude: a row of zeros quantises to zeros. R5.
pub const MAGNITUDE_MIN: f32 = 1e-5;
/// Longest input of a ternary matrix: every i32 stays within 2^24, so its binary32 value is exact. R6.
pub const COLUMNS_MAX: usize = 131_072;
const _: () = assert!(COLUMNS_MAX * 128 <= 1 << 24, "sums of int8 are exact in binary32");

/// 1 / rms(x), or `None` if the sum of squares is not finite (R1).
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "lengths are at most COLUMNS_MAX, exact in binary32")]
pub fn inverse_rms(x: &[f32], eps: f32) -> Option<f32> {
    let s = dot(x, x);
    s.is_finite().then(|| 1.0 / (s / x.len() as f32 + eps).sqrt())
}

/// y_i = (x_i * r) * g_i. False if the sum of squares or any result is not finite.
///
/// # Panics
/// If the three lengths differ.
#[must_use]
pub fn rms_norm(x: &[f32], gain: &[f32], eps: f32, y: &mut [f32]) -> bool {
    assert!(x.len() == gain.len() && x.len() == y.len(), "a norm keeps its length");
    let Some(r) = inverse_rms(x, eps) else {
        y.fill(0.0);
        return false;
    };
    let mut finite = true;
    for ((y, &x), &g) in y.iter_mut().zip(x).zip(gain) {
        *y = (x * r) * g;
        finite &= y.is_finite();
    }
    finite
}

/// RMS norm, then q_i = clamp(round half even (y_i * k), -128, 127) with k = 127 / max(max |y|, 1e-5).
/// `None` if anything is not finite. `q` may be longer than `x`: the rest is set to zero.
///
/// # Panics
/// If `q` is shorter than `x`, or `gain` has another length.
#[must_use]
pub fn norm_quantise(x: &[f32], gain: &[f32], eps: f32, q: &mut [i8]) -> Option<RowScale> {
    assert!(x.len() == gain.len() && x.len() <= q.len(), "one int8 per activation");
    let (q, padding) = q.split_at_mut(x.len());
    padding.fill(0);
    let Some(r) = inverse_rms(x, eps) else {
        q.fill(0);
        return None;
    };
    let mut m = MAGNITUDE_MIN;
    let mut finite = true;
    for (&x, &g) in x.iter().zip(gain) {
        let magnitude = ((x * r) * g).abs();
        finite &= magnitude.is_finite();
        m = if magnitude > m { magnitude } else { m };
    }
    if !finite {
        q.fill(0);
        return None;
    }
    let k = 127.0 / m;
    let mut sum = 0;
    for ((q, &x), &g) in q.iter_mut().zip(x).zip(gain) {
        *q = quantise(((x * r) * g) * k);
        sum += i32::from(*q);
    }
    Some(RowScale { k, sum })
}

/// Nearest int8, ties to even.
#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of i8 just before")]
fn quantise(value: f32) -> i8 {
    let rounded = value.round_ties_even();
    let low = if rounded < -128.0 { -128.0 } else { rounded };
    let both = if low > 127.0 { 127.0 } else { low };
    both as i8
}

#[cfg(test)]
mod tests {
    use super::{norm_quantise, quantise, rms_norm};

    #[test]
    fn halves_go_to_even() {
        assert_eq!([0.5, 1.5, 2.5, -0.5, -1.5].map(quantise), [0, 2, 2, 0, -2]);
        assert_eq!([200.0, -200.0].map(quantise), [127, -128]);
    }

    #[test]
    fn a_row_of_zeros_stays_zero() {
        let mut q = [9_i8; 4];
        let scale = norm_quantise(&[0.0; 3], &[1.0; 3], 1e-5, &mut q).expect("zeros are finite");
        assert_eq!(q, [0; 4]);
        assert_eq!((scale.sum, scale.k.to_bits()), (0, (127.0_f32 / 1e-5).to_bits()));
    }

    #[test]
    fn the_largest_becomes_127() {
        let mut q = [0_i8; 3];
        let scale = norm_quantise(&[1.0, -2.0, 0.5], &[1.0; 3], 0.0, &mut q).expect("finite");
        assert_eq!(q, [64, -127, 32]);
        assert_eq!(scale.sum, -31);
    }

    #[test]
    fn what_is_not_finite_is_told() {
        let mut y = [0.0; 2];
        assert!(!rms_norm(&[f32::INFINITY, 0.0], &[1.0; 2], 1e-5, &mut y));
        assert!(!rms_norm(&[1e30, 0.0], &[1.0; 2], 1e-5, &mut y), "the sum of squares overflows");
        assert!(!rms_norm(&[1.0, 1.0], &[f32::NAN, 1.0], 1e-5, &mut y));
        assert!(norm_quantise(&[1.0, f32::NAN], &[1.0; 2], 1e-5, &mut [0; 2]).is_none());
    }
}
