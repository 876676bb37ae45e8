//! R6: a ternary matrix times int8 activations. The integer sum is exact, so its order is free; the float part is one
//! multiplication per output.

use super::norm::RowScale;

/// `Σ q_i t_i` for one row of ternary values.
#[must_use]
pub fn ternary_dot(q: &[i8], row: &[i8]) -> i32 {
    q.iter().zip(row).map(|(&q, &t)| i32::from(q) * i32::from(t)).sum()
}

/// One output: the exact sum as binary32, times the quotient of the tensor's scale and the token's k.
#[must_use]
#[inline]
#[expect(clippy::cast_precision_loss, reason = "at most 2^24 by `norm::COLUMNS_MAX`: exact")]
pub fn scaled(sum: i32, weight_scale: f32, row: RowScale) -> f32 {
    sum as f32 * (weight_scale / row.k)
}

#[cfg(test)]
mod tests {
    use super::{RowScale, scaled, ternary_dot};

    #[test]
    fn signs_select() {
        assert_eq!(ternary_dot(&[3, -5, 7], &[1, -1, 0]), 8);
        let row = RowScale { k: 2.0, sum: 5 };
        assert_eq!(scaled(8, 0.5, row).to_bits(), 2.0_f32.to_bits());
    }
}
