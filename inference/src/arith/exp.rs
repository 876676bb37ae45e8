//! R9: one exponential for every platform.
//!
//! `x = n ln 2 + r` with `n` the nearest integer to `x log2 e` and `|r| <= ln 2 / 2`; then `e^x = 2^n e^r`, with `e^r` by a
//! polynomial of degree six whose coefficients minimise the greatest relative error. The factor `2^n` is exact.

use super::fma::fma;

/// log2(e), rounded.
pub const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b);
/// The leading 15 bits of ln 2: a multiple of it by |n| <= 128 is exact.
pub const LN2_HI: f32 = f32::from_bits(0x3f31_7200);
/// ln 2 - `LN2_HI`, rounded.
pub const LN2_LO: f32 = f32::from_bits(0x35bf_be8e);
/// Coefficients of r^6, r^5, … r^0.
pub const POLYNOMIAL: [f32; 7] = [
    f32::from_bits(0x3ab5_11a7),
    f32::from_bits(0x3c09_1d36),
    f32::from_bits(0x3d2a_ac7a),
    f32::from_bits(0x3e2a_aa48),
    f32::from_bits(0x3eff_fffe),
    1.0,
    1.0,
];
/// Below this the result is +0.
pub const LOWEST: f32 = -87.0;
/// Above this the argument counts as this: only the SiLU gate can ask, and there the quotient is nothing either way.
pub const HIGHEST: f32 = 88.0;
/// 1.5 * 2^23: adding it rounds to an integer, nearest even, and leaves the integer in the low bits.
pub const ROUNDER: f32 = 12_582_912.0;

/// e^x, at most one unit in the last place off over `[-87, 88]`.
#[must_use]
pub fn exp32(x: f32) -> f32 {
    let capped = if x > HIGHEST { HIGHEST } else { x };
    let shifted = capped * LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = fma(n, -LN2_HI, capped);
    let r = fma(n, -LN2_LO, r);
    let mut p = POLYNOMIAL[0];
    for &c in &POLYNOMIAL[1..] {
        p = fma(p, r, c);
    }
    // The low bits of `shifted` are n; moved to the exponent field they are 2^n, a normal number for |n| <= 126.
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let value = p * scale;
    if x < LOWEST { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::exp32;

    #[test]
    fn fixed_points() {
        assert_eq!(exp32(0.0).to_bits(), 1.0_f32.to_bits());
        assert_eq!(exp32(-0.0).to_bits(), 1.0_f32.to_bits());
        assert_eq!(exp32(-87.0_f32.next_up()).to_bits(), exp32(-87.0_f32.next_up()).to_bits());
        assert!(exp32(-87.0) >= f32::MIN_POSITIVE, "no subnormal on the whole range");
        assert_eq!(exp32(-87.000_01).to_bits(), 0);
        assert_eq!(exp32(f32::NEG_INFINITY).to_bits(), 0);
        assert!(exp32(f32::NAN).is_nan());
        assert!(exp32(f32::INFINITY).is_finite(), "large arguments saturate");
    }
}
