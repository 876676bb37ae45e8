//! R8: attention of one query over the cached positions, keys and values in binary16.

use super::exp::exp32;
use super::fma::fma;
use super::half::widen;
use super::lanes::{LANES, dot, sum};

/// 1 / sqrt(head_dim), the factor of every score.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "head sizes are far below 2^24")]
pub fn score_scale(head_dim: usize) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}

/// One head, one query. `keys` and `values` are `[positions][head_dim]`, `scores` is `[positions]` scratch and `out` is
/// `[head_dim]`. False if a score is not finite (R1).
///
/// # Panics
/// If a length does not fit the others.
#[must_use]
pub fn attend(q: &[f32], keys: &[u16], values: &[u16], scores: &mut [f32], out: &mut [f32]) -> bool {
    let dim = q.len();
    assert!(keys.len() == scores.len() * dim && values.len() == keys.len() && out.len() == dim, "shapes of one head");
    let scale = score_scale(dim);
    let mut wide = vec![0.0; dim];
    let mut m = f32::NEG_INFINITY;
    let mut finite = true;
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(dim)) {
        for (w, &k) in wide.iter_mut().zip(key) {
            *w = widen(k);
        }
        *score = dot(q, &wide) * scale;
        finite &= score.is_finite();
        m = if *score > m { *score } else { m };
    }
    if !finite {
        out.fill(0.0);
        return false;
    }
    for score in scores.iter_mut() {
        *score = exp32(*score - m);
    }
    let z = sum(scores);
    out.fill(0.0);
    for (&e, value) in scores.iter().zip(values.chunks_exact(dim)) {
        for (o, &v) in out.iter_mut().zip(value) {
            *o = fma(e, widen(v), *o);
        }
    }
    for o in out.iter_mut() {
        *o /= z;
    }
    true
}

const _: () = assert!(LANES == 16, "attention sums in the lanes of R3");

#[cfg(test)]
mod tests {
    use super::{attend, score_scale};
    use crate::arith::half::narrow;

    #[test]
    fn one_position_returns_its_value() {
        let values: Vec<u16> = [1.5, -2.0, 0.25].map(narrow).to_vec();
        let mut out = [0.0; 3];
        assert!(attend(&[1.0, 2.0, 3.0], &[0; 3], &values, &mut [0.0], &mut out));
        assert_eq!(out, [1.5, -2.0, 0.25]);
    }

    #[test]
    fn equal_scores_average() {
        let values: Vec<u16> = [1.0, 3.0].map(narrow).to_vec();
        let mut out = [0.0; 1];
        assert!(attend(&[0.0], &[0, 0], &values, &mut [0.0; 2], &mut out));
        assert_eq!(out, [2.0]);
        assert_eq!(score_scale(64).to_bits(), 0.125_f32.to_bits());
    }

    #[test]
    fn an_infinite_score_is_told() {
        let keys = [narrow(60_000.0)];
        assert!(!attend(&[f32::MAX], &keys, &keys, &mut [0.0], &mut [0.0]));
    }
}
