//! R1: the float environment of the calling thread, checked by what it does.
//!
//! A foreign library may have switched on flush-to-zero or another rounding. No register is read: four small sums
//! whose results differ under every other mode tell the same on each architecture, without `unsafe`.

use std::hint::black_box;

/// The calling thread does not compute as IEEE 754 says by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FloatModeError {
    /// Sums do not round to nearest, ties to even.
    #[error("this thread rounds floats in another way than to nearest even; some library changed the control register")]
    Rounding,
    /// Subnormal results become zero (FTZ).
    #[error("this thread flushes subnormal results to zero; some library set FTZ")]
    FlushToZero,
    /// Subnormal operands count as zero (DAZ).
    #[error("this thread treats subnormal operands as zero; some library set DAZ")]
    DenormalsAreZero,
}

/// Refuses a thread whose float environment is not the default one.
pub fn check() -> Result<(), FloatModeError> {
    let ulp = f32::EPSILON;
    let up = black_box(1.0_f32) + black_box(ulp * 0.5);
    let even = black_box(1.0 + ulp) + black_box(ulp * 0.5);
    let down = black_box(-1.0_f32) - black_box(ulp * 0.5);
    if up.to_bits() != 1.0_f32.to_bits() || even.to_bits() != 0x3f80_0002 || down.to_bits() != (-1.0_f32).to_bits() {
        return Err(FloatModeError::Rounding);
    }
    let tiny = black_box(f32::MIN_POSITIVE) * black_box(0.5);
    if black_box(tiny).to_bits() != 0x0040_0000 {
        return Err(FloatModeError::FlushToZero);
    }
    let grown = black_box(f32::from_bits(1)) * black_box(16_777_216.0);
    if black_box(grown).to_bits() != 0x0100_0000 {
        return Err(FloatModeError::DenormalsAreZero);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_fresh_thread_is_fine() {
        assert_eq!(super::check(), Ok(()));
    }
}
