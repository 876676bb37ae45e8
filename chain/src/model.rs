//! What is said of a model on chain: its name for people, and its shape, from which every node computes its work.

use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::hash::Domain;
use crate::ids::{Digest, ModelId};
use crate::limits::MODEL_NAME_BYTES_MAX;

/// Most operations per token of a registered model: about 500 times the largest open ternary model. Times the most tokens
/// that count, the work of any record fits 64 bits.
pub const OPS_PER_TOKEN_MAX: u64 = 1 << 42;

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

/// A model's name for people: 1 to 64 letters, digits and `. _ - /`, so that no name can hide in a list what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize)]
pub struct ModelName(String);

/// A text that is no name of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a model name has 1 to {MODEL_NAME_BYTES_MAX} letters a-z and A-Z, digits, or any of . _ - /; choose another")]
pub struct ModelNameError;

impl ModelName {
    /// The name, if it is one.
    pub fn new(name: impl Into<String>) -> Result<ModelName, ModelNameError> {
        let name = name.into();
        let fits = (1..=MODEL_NAME_BYTES_MAX).contains(&name.len());
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
        if fits && name.bytes().all(is_plain) { Ok(ModelName(name)) } else { Err(ModelNameError) }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl BorshDeserialize for ModelName {
    fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<ModelName> {
        let name = crate::codec::read_text(reader, MODEL_NAME_BYTES_MAX, "model name")?;
        ModelName::new(name)
            .map_err(|fault| borsh::io::Error::new(borsh::io::ErrorKind::InvalidData, fault.to_string()))
    }
}

impl FromStr for ModelName {
    type Err = ModelNameError;

    fn from_str(text: &str) -> Result<ModelName, ModelNameError> {
        ModelName::new(text)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a proposal by all that it says: who confirms it can mean no other, and a false one stands in nobody's way.
pub fn proposal_id(model: &ModelId, name: &ModelName, shape: &Shape) -> Digest {
    Domain::MODEL_PROPOSAL.hash_of(&(model, name, shape))
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
    fn a_name_is_short_and_plain() {
        for good in ["a", "aria-tiny", "BitNet-b1.58_2B/4T", &"x".repeat(64)] {
            let name = ModelName::new(good).unwrap();
            assert_eq!(borsh::from_slice::<ModelName>(&borsh::to_vec(&name).unwrap()).unwrap(), name);
        }
        for bad in ["", "two words", "tab\t", "\u{1b}[31mred", "é", &"x".repeat(65)] {
            assert_eq!(bad.parse::<ModelName>(), Err(ModelNameError), "{bad:?}");
            assert!(borsh::from_slice::<ModelName>(&borsh::to_vec(&bad.to_owned()).unwrap()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_proposal_is_named_by_all_that_it_says() {
        let name = |text: &str| ModelName::new(text).unwrap();
        let id = proposal_id(&ModelId::new([1; 32]), &name("a"), &tiny());
        assert_ne!(id, proposal_id(&ModelId::new([2; 32]), &name("a"), &tiny()));
        assert_ne!(id, proposal_id(&ModelId::new([1; 32]), &name("b"), &tiny()));
        assert_ne!(id, proposal_id(&ModelId::new([1; 32]), &name("a"), &Shape { layers: 4, ..tiny() }));
        assert_eq!(id, proposal_id(&ModelId::new([1; 32]), &name("a"), &tiny()));
    }
}
