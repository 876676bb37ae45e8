//! What a run commits to: the hidden states of every position at every layer boundary, the tokens, and how it ended.
//!
//! Boundary 0 is the input of the first layer, boundary `i` the output of layer `i - 1`, the last one the final norm. Each position adds a leaf
//! per boundary, a BLAKE3 over the bits of the state, keyed with what follows from the request's salt; a Merkle tree per boundary grows with the
//! positions; one root covers all boundaries, and a hash of token ids and outcome. `docs/proof.md` has the bytes.
//!
//! Who holds salt and tokens can recompute all of it. Who holds the key of the leaves, as a stage of a pipeline does, can recompute the roots of
//! the states that it has, and whether a root binds them, without the tokens. Who holds only the root learns nothing about the text.

use crate::arith::ARITHMETIC_VERSION;
use crate::digest::ModelDigest;
use crate::generation::FinishReason;

/// A BLAKE3 digest.
pub type Hash = [u8; 32];

/// Boundaries of a model: one before each layer, one after the last, one after the final norm.
#[must_use]
pub fn boundaries(layers: usize) -> usize {
    layers + 2
}

/// Makes the leaves of one run.
#[derive(Clone, Copy, Debug)]
pub struct Leaves {
    key: Hash,
}

/// The key of the leaves, from the salt of a request. It does not give the salt away.
#[must_use]
pub fn leaf_key(salt: &Hash) -> Hash {
    blake3::derive_key("aria/transcript-leaf/v1", salt)
}

/// What a choice's root says of its text: a hash, keyed with what follows from the salt, over token ids and end.
#[must_use]
pub fn text_hash(salt: &Hash, prompt: &[u32], output: &[u32], finish: FinishReason) -> Hash {
    let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key("aria/transcript-text/v1", salt));
    for tokens in [prompt, output] {
        update_length(&mut hasher, tokens.len());
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
    }
    let code: u8 = match finish {
        FinishReason::Stop => 0,
        FinishReason::Length => 1,
        FinishReason::Cancelled => 2,
    };
    hasher.update(&[code]);
    *hasher.finalize().as_bytes()
}

impl Leaves {
    /// Leaves under [`leaf_key`].
    #[must_use]
    pub fn new(key: Hash) -> Leaves {
        Leaves { key }
    }

    /// The commitment to the bits of one state. `bytes` is scratch that grows to four times the state's length.
    #[must_use]
    pub fn leaf(&self, boundary: u32, position: u32, state: &[f32], bytes: &mut Vec<u8>) -> Hash {
        bytes.clear();
        bytes.extend_from_slice(&boundary.to_le_bytes());
        bytes.extend_from_slice(&position.to_le_bytes());
        bytes.resize(8 + 4 * state.len(), 0);
        for (bytes, value) in bytes[8..].chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&value.to_bits().to_le_bytes());
        }
        *blake3::keyed_hash(&self.key, bytes).as_bytes()
    }
}

/// A Merkle tree that only grows: the roots of its full subtrees, largest first. Its root is that of RFC 6962 with BLAKE3 nodes.
#[derive(Clone, Debug, Default)]
pub struct GrowingTree {
    leaves: u64,
    subtrees: Vec<Hash>,
}

impl GrowingTree {
    /// Leaves so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.leaves
    }

    /// Whether there is no leaf yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves == 0
    }

    /// Adds a leaf.
    pub fn push(&mut self, node_key: &Hash, leaf: Hash) {
        let mut root = leaf;
        // As many pairs of equal subtrees merge as the number of leaves has trailing ones.
        for _ in 0..self.leaves.trailing_ones() {
            let left = self.subtrees.pop().expect("a subtree for each set bit of the leaf count");
            root = node(node_key, &left, &root);
        }
        self.subtrees.push(root);
        self.leaves += 1;
    }

    /// The root; zeros for an empty tree.
    #[must_use]
    pub fn root(&self, node_key: &Hash) -> Hash {
        let mut subtrees = self.subtrees.iter().rev();
        let Some(&last) = subtrees.next() else { return [0; 32] };
        subtrees.fold(last, |right, left| node(node_key, left, &right))
    }
}

fn node(key: &Hash, left: &Hash, right: &Hash) -> Hash {
    let mut pair = [0; 64];
    pair[..32].copy_from_slice(left);
    pair[32..].copy_from_slice(right);
    *blake3::keyed_hash(key, &pair).as_bytes()
}

/// The growing commitment of one session.
#[derive(Clone, Debug)]
pub struct Transcript {
    leaves: Leaves,
    node_key: Hash,
    trees: Vec<GrowingTree>,
}

impl Transcript {
    /// An empty transcript of a model with so many layers, with leaves under [`leaf_key`].
    #[must_use]
    pub fn new(leaf_key: Hash, layers: usize) -> Transcript {
        Transcript {
            leaves: Leaves::new(leaf_key),
            node_key: blake3::derive_key("aria/transcript-node/v1", &[]),
            trees: vec![GrowingTree::default(); boundaries(layers)],
        }
    }

    /// What makes this run's leaves.
    #[must_use]
    pub fn leaves(&self) -> Leaves {
        self.leaves
    }

    /// Positions committed to.
    #[must_use]
    pub fn positions(&self) -> u64 {
        self.trees.first().map_or(0, GrowingTree::len)
    }

    /// Adds the next position: one leaf per boundary, in order.
    ///
    /// # Panics
    /// If their number is not that of the boundaries.
    pub fn push(&mut self, leaves: &[Hash]) {
        assert_eq!(leaves.len(), self.trees.len(), "one leaf per boundary");
        for (tree, &leaf) in self.trees.iter_mut().zip(leaves) {
            tree.push(&self.node_key, leaf);
        }
    }

    /// The root of each boundary's tree.
    #[must_use]
    pub fn boundary_roots(&self) -> Vec<Hash> {
        self.trees.iter().map(|tree| tree.root(&self.node_key)).collect()
    }
}

/// The commitment to one finished choice, by the roots of its boundaries and [`text_hash`].
#[must_use]
pub fn choice_root(model: &ModelDigest, boundary_roots: &[Hash], text: &Hash) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("aria/transcript/v2");
    hasher.update(&ARITHMETIC_VERSION.to_le_bytes()).update(&model.0);
    update_length(&mut hasher, boundary_roots.len());
    for root in boundary_roots {
        hasher.update(root);
    }
    hasher.update(text);
    *hasher.finalize().as_bytes()
}

/// The commitment to a request: over the roots of its choices, in order.
#[must_use]
pub fn request_root(choices: &[Hash]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("aria/transcript-choices/v1");
    update_length(&mut hasher, choices.len());
    for root in choices {
        hasher.update(root);
    }
    *hasher.finalize().as_bytes()
}

fn update_length(hasher: &mut blake3::Hasher, length: usize) {
    hasher.update(&(length as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::{
        GrowingTree, Hash, Leaves, Transcript, boundaries, choice_root, leaf_key, node, request_root, text_hash,
    };
    use crate::digest::ModelDigest;
    use crate::generation::FinishReason;

    const KEY: Hash = [3; 32];

    fn leaf(i: u8) -> Hash {
        [i; 32]
    }

    /// The recursive definition of RFC 6962.
    fn reference(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => [0; 32],
            [one] => *one,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node(&KEY, &reference(&leaves[..split]), &reference(&leaves[split..]))
            }
        }
    }

    #[test]
    fn the_growing_tree_has_the_recursive_root() {
        let mut tree = GrowingTree::default();
        let mut leaves = Vec::new();
        assert_eq!(tree.root(&KEY), reference(&leaves));
        for i in 0..70 {
            tree.push(&KEY, leaf(i));
            leaves.push(leaf(i));
            assert_eq!(tree.root(&KEY), reference(&leaves), "{} leaves", leaves.len());
            assert_eq!(tree.len(), leaves.len() as u64);
        }
    }

    #[test]
    fn a_leaf_binds_salt_boundary_position_and_every_bit() {
        let mut bytes = Vec::new();
        let mut of = |salt, boundary, position, state: &[f32]| {
            Leaves::new([salt; 32]).leaf(boundary, position, state, &mut bytes)
        };
        let base = of(1, 2, 3, &[1.0, 0.0]);
        assert_eq!(base, of(1, 2, 3, &[1.0, 0.0]));
        assert_ne!(base, of(2, 2, 3, &[1.0, 0.0]));
        assert_ne!(base, of(1, 3, 3, &[1.0, 0.0]));
        assert_ne!(base, of(1, 2, 4, &[1.0, 0.0]));
        assert_ne!(base, of(1, 2, 3, &[1.0, -0.0]));
    }

    #[test]
    fn a_root_binds_states_model_tokens_and_finish() {
        let transcript = |first: u8| {
            let mut transcript = Transcript::new([9; 32], 1);
            transcript.push(&[leaf(first), leaf(2), leaf(3)]);
            assert_eq!(transcript.positions(), 1);
            assert_eq!(transcript.boundary_roots().len(), boundaries(1));
            transcript.boundary_roots()
        };
        let root = |first: u8, model: u8, (salt, prompt, output): (u8, &[u32], &[u32]), finish| {
            choice_root(&ModelDigest([model; 32]), &transcript(first), &text_hash(&[salt; 32], prompt, output, finish))
        };
        let base = root(1, 1, (9, &[5], &[6]), FinishReason::Stop);
        let others = [
            root(7, 1, (9, &[5], &[6]), FinishReason::Stop),
            root(1, 2, (9, &[5], &[6]), FinishReason::Stop),
            root(1, 1, (8, &[5], &[6]), FinishReason::Stop),
            root(1, 1, (9, &[5], &[7]), FinishReason::Stop),
            root(1, 1, (9, &[5, 6], &[]), FinishReason::Stop),
            root(1, 1, (9, &[5], &[6]), FinishReason::Length),
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(&base, other, "case {index}");
        }
        assert_ne!(leaf_key(&[9; 32]), [9; 32]);
        assert_ne!(request_root(&[base]), base);
        assert_ne!(request_root(&[base, base]), request_root(&[base]));
    }
}
