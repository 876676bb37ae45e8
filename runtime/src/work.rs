//! Work: operations that a record stands for, from the registered shape of its model, and each stage's share of them.
//!
//! Nobody claims work; every node computes it. Attention over cached positions is left out: it depends on how the
//! answer was batched, and below a few thousand positions it is small beside the matrices.

pub use aria_chain::model::{OPS_PER_TOKEN_MAX, Shape, ShapeError};
use aria_chain::units::WorkUnits;

/// Most tokens of one record that count as work. Four times the longest context of today's models.
pub const TOKENS_MAX: u64 = 1 << 20;

const _: () = assert!(OPS_PER_TOKEN_MAX.checked_mul(TOKENS_MAX).is_some(), "the work of one record fits 64 bits");

/// Tokens of a record that count: the generated ones, and prompt tokens up to `ratio` times as many.
pub fn counted_tokens(prompt: u32, generated: u32, ratio: u32) -> u64 {
    let generated = u64::from(generated);
    let prompt = u64::from(prompt).min(generated.saturating_mul(u64::from(ratio)));
    generated.saturating_add(prompt).min(TOKENS_MAX)
}

/// Operations of `tokens` tokens.
pub fn work(tokens: u64, ops_per_token: u64) -> WorkUnits {
    let ops = tokens.min(TOKENS_MAX).checked_mul(ops_per_token.min(OPS_PER_TOKEN_MAX));
    WorkUnits::new(ops.expect("both factors are bounded, and the product of the bounds fits"))
}

/// The share of a stage that ran layers `start..end` of `layers`: the difference of two rounded-down running sums, so
/// that the shares of stages that cover all layers add up to the whole, to the unit.
pub fn stage_share(whole: u64, start: u16, end: u16, layers: u16) -> u64 {
    let Some(layers) = std::num::NonZeroU64::new(u64::from(layers)) else {
        return 0;
    };
    let up_to = |layer: u16| crate::fixed::scale_floor(whole, u64::from(layer), layers);
    up_to(end).saturating_sub(up_to(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_tokens_count_up_to_twice_the_generated() {
        assert_eq!(counted_tokens(10, 50, 2), 60);
        assert_eq!(counted_tokens(100, 50, 2), 150);
        assert_eq!(counted_tokens(101, 50, 2), 150);
        assert_eq!(counted_tokens(4_000, 1, 2), 3);
        assert_eq!(counted_tokens(4_000, 0, 2), 0);
        assert_eq!(counted_tokens(100, 50, 0), 50);
        assert_eq!(counted_tokens(u32::MAX, u32::MAX, u32::MAX), TOKENS_MAX);
    }

    #[test]
    fn work_is_bounded() {
        assert_eq!(work(60, 1_000), WorkUnits::new(60_000));
        assert_eq!(work(u64::MAX, u64::MAX), WorkUnits::new(TOKENS_MAX * OPS_PER_TOKEN_MAX));
    }

    #[test]
    fn shares_follow_the_layers_and_add_up() {
        assert_eq!(stage_share(90, 0, 10, 30), 30);
        assert_eq!([stage_share(100, 0, 1, 3), stage_share(100, 1, 2, 3), stage_share(100, 2, 3, 3)], [33, 33, 34]);
        for cut in 0..=24 {
            assert_eq!(stage_share(u64::MAX, 0, cut, 24) + stage_share(u64::MAX, cut, 24, 24), u64::MAX);
        }
        assert_eq!(stage_share(100, 5, 3, 30), 0);
        assert_eq!(stage_share(100, 0, 3, 0), 0);
    }
}
