//! Work: operations that a record stands for, from the registered shape of its model, and each stage's share of them.
//!
//! Nobody claims work; every node computes it. Attention over cached positions is left out: it depends on how the
//! answer was batched, and below a few thousand positions it is small beside the matrices.

use aria_chain::units::WorkUnits;
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// Most operations per token of a registered model: about 500 times the largest open ternary model. With it the work of
/// any record fits 64 bits (see [`TOKENS_MAX`]).
pub const OPS_PER_TOKEN_MAX: u64 = 1 << 42;

/// Most tokens of one record that count as work. Four times the longest context of today's models.
pub const TOKENS_MAX: u64 = 1 << 20;

const _: () = assert!(OPS_PER_TOKEN_MAX.checked_mul(TOKENS_MAX).is_some(), "the work of one record fits 64 bits");

/// The sizes of a model that its work follows from. Registered, never taken from a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Transformer layers.
    pub layers: u16,
    /// Width of the residual state.
    pub dim: u32,
    /// Width of the feed-forward block.
    pub ffn: u32,
    /// Attention heads.
    pub heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Width of one head.
    pub head_dim: u32,
    /// Tokens of the vocabulary.
    pub vocab: u32,
}

/// Why a shape is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A model has at least one of everything.
    #[error("shape field {field} is zero; take the sizes from the model file's header")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// Keys and values are shared by whole groups of heads.
    #[error("{heads} heads do not divide into {kv_heads} key-value heads; take the sizes from the model file's header")]
    HeadGroups {
        /// As given.
        heads: u32,
        /// As given.
        kv_heads: u32,
    },
    /// See [`OPS_PER_TOKEN_MAX`].
    #[error("a token of this shape takes more than {OPS_PER_TOKEN_MAX} operations")]
    TooLarge,
}

impl Shape {
    /// Checks the shape; what passes has between 1 and [`OPS_PER_TOKEN_MAX`] operations per token.
    pub fn check(&self) -> Result<(), ShapeError> {
        let fields = [
            ("layers", u32::from(self.layers)),
            ("dim", self.dim),
            ("ffn", self.ffn),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("vocab", self.vocab),
        ];
        if let Some((field, _)) = fields.into_iter().find(|(_, value)| *value == 0) {
            return Err(ShapeError::Zero { field });
        }
        if self.heads.checked_rem(self.kv_heads) != Some(0) {
            return Err(ShapeError::HeadGroups { heads: self.heads, kv_heads: self.kv_heads });
        }
        self.ops_per_token().map(|_| ())
    }

    /// Operations of one token: twice the multiply-accumulates of all matrices and the output head.
    pub fn ops_per_token(&self) -> Result<u64, ShapeError> {
        let ops = self.exact_ops_per_token().filter(|ops| *ops <= OPS_PER_TOKEN_MAX);
        ops.ok_or(ShapeError::TooLarge)
    }

    fn exact_ops_per_token(&self) -> Option<u64> {
        let wide = |value: u32| u64::from(value);
        let queries = wide(self.heads).checked_mul(wide(self.head_dim))?;
        let keys = wide(self.kv_heads).checked_mul(wide(self.head_dim))?;
        // q and o are [dim, queries], k and v [dim, keys]; gate, up and down [dim, ffn].
        let columns = queries.checked_add(keys)?.checked_mul(2)?.checked_add(wide(self.ffn).checked_mul(3)?)?;
        let layer = columns.checked_mul(wide(self.dim))?;
        let head = wide(self.dim).checked_mul(wide(self.vocab))?;
        layer.checked_mul(u64::from(self.layers))?.checked_add(head)?.checked_mul(2)
    }
}

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

    fn tiny() -> Shape {
        Shape { layers: 3, dim: 256, ffn: 768, heads: 4, kv_heads: 2, head_dim: 64, vocab: 512 }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Shape), expected: ShapeError) {
        let mut shape = tiny();
        change(&mut shape);
        assert_eq!(shape.check(), Err(expected));
    }

    #[test]
    fn operations_are_counted_from_the_shape() {
        // q 256x256, k and v 256x128, o 256x256, three of 256x768; head 256x512.
        let layer = 2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 768;
        assert_eq!(tiny().ops_per_token(), Ok(2 * (3 * layer + 256 * 512)));
        assert_eq!(tiny().check(), Ok(()));
    }

    #[test]
    fn a_large_model_fits() {
        let two_billion =
            Shape { layers: 30, dim: 2_560, ffn: 6_912, heads: 20, kv_heads: 5, head_dim: 128, vocab: 128_256 };
        assert_eq!(two_billion.ops_per_token(), Ok(4_824_760_320));
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let zero = |field| ShapeError::Zero { field };
        refused(|s| s.layers = 0, zero("layers"));
        refused(|s| s.dim = 0, zero("dim"));
        refused(|s| s.ffn = 0, zero("ffn"));
        refused(|s| s.heads = 0, zero("heads"));
        refused(|s| s.kv_heads = 0, zero("kv_heads"));
        refused(|s| s.head_dim = 0, zero("head_dim"));
        refused(|s| s.vocab = 0, zero("vocab"));
        refused(|s| s.kv_heads = 3, ShapeError::HeadGroups { heads: 4, kv_heads: 3 });
        refused(|s| s.dim = u32::MAX, ShapeError::TooLarge);
        refused(
            |s| {
                *s = Shape {
                    layers: u16::MAX,
                    dim: u32::MAX,
                    ffn: u32::MAX,
                    heads: u32::MAX,
                    kv_heads: u32::MAX,
                    head_dim: u32::MAX,
                    vocab: 1,
                }
            },
            ShapeError::TooLarge,
        );
    }

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
