//! IEEE binary16 and bfloat16 as 16-bit patterns: widening is exact, narrowing rounds to nearest even.

/// The binary32 value of a binary16 pattern. Exact.
#[must_use]
#[inline]
pub fn widen(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits & 0x03ff);
    let magnitude = match (exponent, fraction) {
        (0, _) => {
            // Zero or subnormal: fraction * 2^-24, exact in binary32.
            let value = f32::from(bits & 0x03ff) * f32::from_bits(0x3380_0000);
            value.to_bits()
        }
        (0x1f, 0) => 0x7f80_0000,
        (0x1f, _) => 0x7fc0_0000 | (fraction << 13),
        _ => ((exponent + 112) << 23) | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}

/// The binary32 value of a bfloat16 pattern. Exact.
#[must_use]
#[inline]
pub fn widen_bfloat(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Rounds to binary16, nearest even; overflow becomes infinity, as IEEE says.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "every kept value was reduced below 2^16 just before")]
pub fn narrow(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let half = if magnitude >= 0x4780_0000 {
        // 65536 and above, infinity, NaN (made quiet, top payload bits kept).
        if magnitude > 0x7f80_0000 { 0x7e00 | (magnitude >> 13) as u16 & 0x03ff } else { 0x7c00 }
    } else if magnitude >= 0x3880_0000 {
        // Normal result: round the 13 bits that go; a carry moves into the exponent, up to infinity.
        let odd = (magnitude >> 13) & 1;
        ((magnitude - 0x3800_0000 + 0x0fff + odd) >> 13) as u16
    } else {
        // Subnormal result: adding 0.5 makes the hardware round at 2^-24, nearest even.
        let rounded = f32::from_bits(magnitude) + 0.5;
        (rounded.to_bits() - 0x3f00_0000) as u16
    };
    sign | half
}

/// Whether a binary16 pattern is an infinity or not a number.
#[must_use]
#[inline]
pub fn is_special(bits: u16) -> bool {
    bits & 0x7c00 == 0x7c00
}

#[cfg(test)]
mod tests {
    use super::{is_special, narrow, widen};

    #[test]
    fn every_half_survives_the_round_trip() {
        for bits in 0..=u16::MAX {
            let wide = widen(bits);
            if wide.is_nan() {
                assert!(is_special(narrow(wide)));
            } else {
                assert_eq!(narrow(wide), bits, "{bits:#06x}");
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_overflow_to_infinity() {
        for bits in 0..0x7bff_u16 {
            let low = widen(bits);
            let high = widen(bits + 1);
            let middle = (low + high) * 0.5;
            let even = if bits & 1 == 0 { bits } else { bits + 1 };
            assert_eq!(narrow(middle), even, "{bits:#06x}");
            assert_eq!(narrow(middle.next_down()), bits);
            assert_eq!(narrow(middle.next_up()), bits + 1);
        }
        assert_eq!(narrow(65_519.996), 0x7bff);
        assert_eq!(narrow(65_520.0), 0x7c00);
        assert_eq!(narrow(-1e9), 0xfc00);
        assert_eq!(narrow(-1e-9), 0x8000);
    }
}
