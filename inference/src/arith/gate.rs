//! R10: the two gates of the feed-forward layer.

use super::exp::exp32;

/// Squared ReLU: (h * h) * u with h = max(g, 0).
#[must_use]
#[inline]
pub fn squared_relu(g: f32, u: f32) -> f32 {
    let h = if g > 0.0 { g } else { 0.0 };
    (h * h) * u
}

/// SiLU: (g / (1 + e^-g)) * u.
#[must_use]
#[inline]
pub fn silu(g: f32, u: f32) -> f32 {
    (g / (1.0 + exp32(-g))) * u
}

#[cfg(test)]
mod tests {
    use super::{silu, squared_relu};

    #[test]
    fn values() {
        assert_eq!(squared_relu(3.0, 2.0).to_bits(), 18.0_f32.to_bits());
        assert_eq!(squared_relu(-3.0, 2.0).to_bits(), 0);
        assert_eq!(silu(0.0, 5.0).to_bits(), 0);
        assert!(silu(-500.0, 1.0).is_finite());
        assert_eq!(silu(100.0, 1.0).to_bits(), 100.0_f32.to_bits());
    }
}
