//! R3: every sum runs in sixteen lanes and folds by halves.
//!
//! Lane `j` takes the elements `j, j + 16, j + 32, …` in order; a missing tail element leaves its lane as it is. One
//! AVX-512 register, two AVX2, four NEON: the order is the same for all, so the bits are.

use super::fma::fma;

/// Lanes of a sum.
pub const LANES: usize = 16;

/// Folds the lanes by halves: 8, 4, 2, 1.
#[must_use]
pub fn fold(mut lanes: [f32; LANES]) -> f32 {
    for width in [8, 4, 2, 1] {
        let (low, high) = lanes.split_at_mut(width);
        for (sum, term) in low.iter_mut().zip(high.iter()) {
            *sum += term;
        }
    }
    lanes[0]
}

/// Inner product of two vectors of equal length.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "dot takes two vectors of one length");
    let mut lanes = [0.0; LANES];
    for (x, y) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
            *lane = fma(x, y, *lane);
        }
    }
    fold(lanes)
}

/// Sum of a vector.
#[must_use]
pub fn sum(terms: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    for chunk in terms.chunks(LANES) {
        for (lane, &term) in lanes.iter_mut().zip(chunk) {
            *lane += term;
        }
    }
    fold(lanes)
}

#[cfg(test)]
mod tests {
    use super::{dot, fold, sum};

    #[test]
    fn the_fold_adds_halves() {
        let mut lanes = [0.0_f32; 16];
        // Lane 0 meets lane 8 first: the small term survives only in this order.
        lanes[0] = 16_777_216.0;
        lanes[8] = 1.0;
        lanes[4] = 1.0;
        lanes[12] = 1.0;
        // (2^24 + 1) -> 2^24; (1 + 1) = 2; 2^24 + 2 is exact.
        assert_eq!(fold(lanes).to_bits(), 16_777_218.0_f32.to_bits());
    }

    #[test]
    fn tails_leave_lanes_alone() {
        let ones = [1.0; 17];
        assert_eq!(sum(&ones).to_bits(), 17.0_f32.to_bits());
        assert_eq!(dot(&ones, &ones).to_bits(), 17.0_f32.to_bits());
        assert_eq!(sum(&[]).to_bits(), 0);
        // A lone negative zero: lane 0 starts at +0, and +0 + -0 = +0.
        assert_eq!(sum(&[-0.0]).to_bits(), 0);
    }
}
