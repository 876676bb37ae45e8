//! Fixed-point numbers for rewards: exact integers with named rounding, the same on every machine.

use std::num::NonZeroU64;

/// A number from zero up, in steps of 10^-9. Large results stop at [`Fixed::MAX`] instead of wrapping; every place
/// that uses one clamps it to a few units anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fixed(u64);

/// Steps in one whole.
const SCALE: u64 = 1_000_000_000;

/// Steps in one part per million.
const PPM: u64 = SCALE / 1_000_000;

impl Fixed {
    /// In parts per million, rounded down.
    pub fn ppm(self) -> u64 {
        self.0.div_euclid(PPM)
    }

    /// Nothing.
    pub const ZERO: Fixed = Fixed(0);
    /// One whole.
    pub const ONE: Fixed = Fixed(SCALE);
    /// The largest number.
    pub const MAX: Fixed = Fixed(u64::MAX);

    /// Parts per million; exact.
    pub fn from_ppm(ppm: u32) -> Fixed {
        Fixed(u64::from(ppm).saturating_mul(PPM))
    }

    /// `numerator / denominator`, rounded down.
    pub fn ratio_floor(numerator: u64, denominator: NonZeroU64) -> Fixed {
        Fixed(narrow(wide_product(numerator, SCALE).div_euclid(u128::from(denominator.get()))))
    }

    /// `numerator / denominator`, rounded up.
    pub fn ratio_ceil(numerator: u64, denominator: NonZeroU64) -> Fixed {
        Fixed(narrow(wide_product(numerator, SCALE).div_ceil(u128::from(denominator.get()))))
    }

    /// `self - other`, or zero where that is below zero.
    pub fn minus_or_zero(self, other: Fixed) -> Fixed {
        Fixed(self.0.saturating_sub(other.0))
    }

    /// `amount x self x other`, rounded down once, at the end. `None`: more than 64 bits.
    pub fn of_floor(self, other: Fixed, amount: u64) -> Option<u64> {
        let whole = wide_product(SCALE, SCALE);
        let product = wide_product(self.0, other.0).checked_mul(u128::from(amount))?;
        u64::try_from(product.div_euclid(whole)).ok()
    }

    /// The number in steps of 10^-9.
    pub fn steps(self) -> u64 {
        self.0
    }
}

/// `value x numerator / denominator`, rounded up; stops at the largest value.
pub fn scale_ceil(value: u64, numerator: u64, denominator: NonZeroU64) -> u64 {
    narrow(wide_product(value, numerator).div_ceil(u128::from(denominator.get())))
}

/// `value x numerator / denominator`, rounded down; stops at the largest value.
pub fn scale_floor(value: u64, numerator: u64, denominator: NonZeroU64) -> u64 {
    narrow(wide_product(value, numerator).div_euclid(u128::from(denominator.get())))
}

/// Two numbers of 64 bits never overflow 128.
fn wide_product(a: u64, b: u64) -> u128 {
    u128::from(a).saturating_mul(u128::from(b))
}

fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// The part of an amount that a rate of at most one whole takes, rounded down.
pub fn part(amount: u64, ppm: u32) -> u64 {
    const WHOLE: NonZeroU64 = NonZeroU64::new(1_000_000).expect("a constant above zero");
    scale_floor(amount, u64::from(ppm), WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: u64) -> NonZeroU64 {
        NonZeroU64::new(value).unwrap()
    }

    #[test]
    fn ratios_round_as_they_say() {
        assert_eq!(Fixed::ratio_floor(1, of(3)).steps(), 333_333_333);
        assert_eq!(Fixed::ratio_ceil(1, of(3)).steps(), 333_333_334);
        assert_eq!(Fixed::ratio_floor(2, of(2)), Fixed::ONE);
        assert_eq!(Fixed::ratio_ceil(2, of(2)), Fixed::ONE);
        assert_eq!(Fixed::ratio_floor(0, of(7)), Fixed::ZERO);
        assert_eq!(Fixed::ratio_floor(u64::MAX, of(1)), Fixed::MAX);
    }

    #[test]
    fn subtraction_stops_at_zero() {
        assert_eq!(Fixed::ONE.minus_or_zero(Fixed::from_ppm(400_000)), Fixed::from_ppm(600_000));
        assert_eq!(Fixed::ONE.minus_or_zero(Fixed::MAX), Fixed::ZERO);
    }

    #[test]
    fn amounts_are_rounded_down_once() {
        let third = Fixed::ratio_floor(1, of(3));
        assert_eq!(third.of_floor(Fixed::from_ppm(3_000_000), 1_000_000_000), Some(999_999_999));
        assert_eq!(Fixed::ONE.of_floor(Fixed::ONE, 7), Some(7));
        assert_eq!(Fixed::from_ppm(500_000).of_floor(Fixed::ONE, 3), Some(1));
        assert_eq!(Fixed::from_ppm(2_000_000).of_floor(Fixed::ONE, u64::MAX), None);
        assert_eq!(Fixed::MAX.of_floor(Fixed::MAX, u64::MAX), None);
    }

    #[test]
    fn scaling_rounds_as_it_says() {
        assert_eq!(scale_floor(10, 2, of(3)), 6);
        assert_eq!(scale_ceil(10, 2, of(3)), 7);
        assert_eq!(scale_ceil(9, 2, of(3)), 6);
        assert_eq!(scale_floor(u64::MAX, u64::MAX, of(1)), u64::MAX);
        assert_eq!([part(3, 500_000), part(u64::MAX, 1_000_000), part(9, 0)], [1, u64::MAX, 0]);
    }
}
