//! R2: fused multiply-add in software, equal to the hardware instruction on every input.
//!
//! `f32::mul_add` calls the platform's `fmaf` where the target has no such instruction, and some of those are
//! wrong. This one is short enough to be proven: the product of two 24-bit significands fits binary64 exactly, the
//! sum is rounded to odd, and rounding an odd-rounded binary64 to binary32 is the same as rounding once.

/// `a * b + c` with a single rounding.
#[must_use]
#[inline]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let addend = f64::from(c);
    let sum = product + addend;
    // What the addition lost (Knuth's two-sum; exact, since nothing here can overflow binary64).
    let back = sum - product;
    let lost = (product - (sum - back)) + (addend - back);
    narrow(round_to_odd(sum, lost))
}

/// Moves an inexact `sum` to its neighbour with an odd last bit, towards what was lost.
#[inline]
fn round_to_odd(sum: f64, lost: f64) -> f64 {
    let bits = sum.to_bits();
    if lost == 0.0 || lost.is_nan() || bits & 1 == 1 {
        return sum;
    }
    // `lost` is not zero, so `sum` is finite and not zero: one bit up is away from zero, one bit down towards it.
    if (lost > 0.0) == (sum > 0.0) { f64::from_bits(bits + 1) } else { f64::from_bits(bits - 1) }
}

#[expect(clippy::cast_possible_truncation, reason = "this is the one rounding of the operation: nearest, ties to even")]
#[inline]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::fma;

    #[track_caller]
    fn check(a: u32, b: u32, c: u32, expected: u32) {
        let got = fma(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c)).to_bits();
        assert_eq!(got, expected, "fma({a:#x}, {b:#x}, {c:#x}) = {got:#x}, expected {expected:#x}");
    }

    #[test]
    fn a_subnormal_result_is_rounded_once() {
        check(0x9700_0800, 0x1cff_f001, 0x0001_0002, 0x0001_0001);
    }

    #[test]
    fn signed_zeros_and_exact_cancellation() {
        check(0x3f80_0000, 0x3f80_0000, 0xbf80_0000, 0x0000_0000); // 1*1-1 = +0
        check(0x0000_0000, 0x8000_0000, 0x8000_0000, 0x8000_0000); // -0 + -0 = -0
        check(0x0000_0000, 0x8000_0000, 0x0000_0000, 0x0000_0000); // -0 + +0 = +0
        check(0x0000_0001, 0x8000_0001, 0x0000_0000, 0x8000_0000); // underflow keeps the sign
    }

    #[test]
    fn overflow_and_infinity() {
        check(0x7f7f_ffff, 0x4000_0000, 0x0000_0000, 0x7f80_0000);
        check(0x7f80_0000, 0x3f80_0000, 0xbf80_0000, 0x7f80_0000);
        assert!(fma(f32::INFINITY, 0.0, 1.0).is_nan());
        assert!(fma(f32::INFINITY, 1.0, f32::NEG_INFINITY).is_nan());
    }

    #[test]
    fn one_rounding_differs_from_two() {
        // (1 + 2^-23)^2 - (1 + 2^-22) = 2^-46: two roundings would give 0.
        check(0x3f80_0001, 0x3f80_0001, 0xbf80_0002, 0x2880_0000);
    }
}
