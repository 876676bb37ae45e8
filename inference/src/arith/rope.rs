//! R7: rotary position embedding from tables computed in binary64 by the pinned `libm` crate.

/// Cosines and sines of every position, `[context][head_dim / 2]`, part of the model's digest.
#[derive(Clone, Debug)]
pub struct RopeTables {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTables {
    /// Tables for `context` positions: angle = pos * theta^(-2i / head_dim), in binary64, rounded once at the end.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "positions and dimensions are far below 2^53")]
    #[expect(clippy::cast_possible_truncation, reason = "R7 rounds the tables to binary32 here")]
    pub fn new(theta: f64, head_dim: usize, context: usize) -> RopeTables {
        let half = head_dim / 2;
        let inverse: Vec<f64> = (0..half).map(|i| libm::pow(theta, -2.0 * i as f64 / head_dim as f64)).collect();
        let mut cos = Vec::with_capacity(context * half);
        let mut sin = Vec::with_capacity(context * half);
        for pos in 0..context {
            for inv in &inverse {
                let angle = pos as f64 * inv;
                cos.push(libm::cos(angle) as f32);
                sin.push(libm::sin(angle) as f32);
            }
        }
        RopeTables { half, cos, sin }
    }

    /// Positions the tables reach.
    #[must_use]
    pub fn context(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }

    /// Every cosine, then every sine, in order of position: what the model digest hashes.
    #[must_use]
    pub fn tables(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }

    /// Rotates one head at `pos` in place, pairs half a head apart: (x1 c - x2 s, x2 c + x1 s), no fma.
    ///
    /// # Panics
    /// If the head has another size than the tables, or `pos` is outside of them.
    pub fn rotate(&self, head: &mut [f32], pos: usize) {
        assert_eq!(head.len(), 2 * self.half, "a head is two halves");
        let range = pos * self.half..(pos + 1) * self.half;
        let (cos, sin) = (&self.cos[range.clone()], &self.sin[range]);
        let (low, high) = head.split_at_mut(self.half);
        for (((x1, x2), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let first = *x1 * c - *x2 * s;
            let second = *x2 * c + *x1 * s;
            *x1 = first;
            *x2 = second;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RopeTables;

    #[test]
    fn position_zero_turns_nothing() {
        let tables = RopeTables::new(10_000.0, 8, 4);
        assert_eq!(tables.context(), 4);
        let mut head = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        tables.rotate(&mut head, 0);
        assert_eq!(head, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    }

    #[test]
    fn pairs_are_half_a_head_apart() {
        let tables = RopeTables::new(10_000.0, 4, 2);
        let mut head = [1.0, 0.0, 0.0, 0.0];
        tables.rotate(&mut head, 1);
        let (cos, sin) = tables.tables();
        assert_eq!(head, [cos[2], 0.0, sin[2], 0.0]);
        assert!((cos[2] - 0.540_302_3).abs() < 1e-6);
    }
}
