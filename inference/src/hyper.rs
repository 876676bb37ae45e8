//! Hyper-parameters of a model: what its keys say, checked against each other and against the tensors.

use crate::gguf::metadata::bad_value;
use crate::gguf::{Gguf, GgufError, Metadata};

/// Columns of a matrix. Rule R6: up to here every integer sum of a row fits binary32 exactly.
pub const COLUMNS_MAX: usize = 131_072;
/// Layers. The deepest dense models have 126.
pub const LAYERS_MAX: usize = 1_024;
/// Attention heads. The widest dense models have 128.
pub const HEADS_MAX: usize = 1_024;
/// Values of one head. 64 to 256 are usual.
pub const HEAD_DIM_MAX: usize = 1_024;
/// Tokens of the vocabulary. The largest in use have 262,144.
pub const VOCAB_MAX: usize = 1 << 20;
/// Positions of the context. Position tables are kept in memory.
pub const CONTEXT_MAX: usize = 1 << 20;
/// Bytes of a model's name. It goes into records and into every answer.
pub const NAME_BYTES_MAX: usize = 128;

/// Which published model family a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// `bitnet-b1.58`, and its first name `bitnet-25`: BitNet b1.58 2B-4T and its kin.
    BitnetB158,
    /// `bitnet`: bitnet_b1_58-large, -3B and their kin.
    Bitnet,
}

impl Architecture {
    /// The name that files carry.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Architecture::BitnetB158 => "bitnet-b1.58",
            Architecture::Bitnet => "bitnet",
        }
    }
}

/// The gate of the feed-forward part, rule R10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// max(g, 0) squared.
    SquaredRelu,
    /// g / (1 + exp(-g)).
    Silu,
}

/// The shape of a model. Invariant: none is zero, and all relations that the forward pass relies on hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyper {
    /// `general.name`, without control characters.
    pub name: String,
    /// Model family.
    pub architecture: Architecture,
    /// Gate of the feed-forward part, given by the family.
    pub gate: Gate,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream: `heads * head_dim`.
    pub dim: usize,
    /// Width of the feed-forward part.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values of one head, even.
    pub head_dim: usize,
    /// Rows of the embedding. The tokenizer may know fewer tokens.
    pub vocab: usize,
    /// Positions the model was trained for.
    pub context: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// The epsilon of every norm.
    pub norm_eps: f32,
}

impl Hyper {
    /// Reads and checks the keys of the file's architecture and the names of its tensors. Looks at no weight.
    ///
    /// # Errors
    /// An unknown architecture, a missing or impossible key, a tensor whose effect would be lost.
    pub fn from_gguf(gguf: &Gguf) -> Result<Hyper, GgufError> {
        let keys = gguf.metadata();
        let prefix = keys.str(ARCHITECTURE)?;
        let (architecture, gate) = match prefix {
            "bitnet-b1.58" | "bitnet-25" => (Architecture::BitnetB158, Gate::SquaredRelu),
            "bitnet" => (Architecture::Bitnet, Gate::Silu),
            other => {
                return Err(bad_value(
                    ARCHITECTURE,
                    other,
                    "only bitnet-b1.58, bitnet-25 and bitnet can be run: choose a BitNet b1.58 model",
                ));
            }
        };
        let section = Section { keys, prefix };
        let heads = section.size("attention.head_count", HEADS_MAX)?;
        let dim = section.size("embedding_length", COLUMNS_MAX)?;
        let kv_heads = section.opt_size("attention.head_count_kv", HEADS_MAX)?.unwrap_or(heads);
        section.divides("attention.head_count", heads, "embedding_length", dim)?;
        section.divides("attention.head_count_kv", kv_heads, "attention.head_count", heads)?;
        let hyper = Hyper {
            name: name_of(keys)?,
            architecture,
            gate,
            layers: section.size("block_count", LAYERS_MAX)?,
            dim,
            ffn: section.size("feed_forward_length", COLUMNS_MAX)?,
            heads,
            kv_heads,
            head_dim: dim / heads,
            vocab: vocab_of(gguf, &section)?,
            context: section.size("context_length", CONTEXT_MAX)?,
            rope_theta: section.rope_theta(dim / heads)?,
            norm_eps: section.norm_eps()?,
        };
        hyper.check_tensors(gguf, prefix)?;
        Ok(hyper)
    }

    /// Width of all key heads, and of all value heads.
    #[must_use]
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Rows and columns of one of [`MATRICES`].
    ///
    /// # Panics
    /// If `matrix` is not one of them.
    #[must_use]
    pub fn matrix_shape(&self, matrix: &str) -> (usize, usize) {
        match matrix {
            "attn_q" | "attn_output" => (self.dim, self.dim),
            "attn_k" | "attn_v" => (self.kv_dim(), self.dim),
            "ffn_gate" | "ffn_up" => (self.ffn, self.dim),
            "ffn_down" => (self.dim, self.ffn),
            other => panic!("{other:?} is no matrix of a layer"),
        }
    }

    /// Weights that are multiplied for each token: the seven matrices of every layer, and the output head.
    #[must_use]
    pub fn multiplied_weights(&self) -> u64 {
        let size = |(rows, cols): (usize, usize)| rows as u64 * cols as u64;
        let layer: u64 = MATRICES.iter().map(|matrix| size(self.matrix_shape(matrix))).sum();
        self.layers as u64 * layer + size((self.vocab, self.dim))
    }

    /// Arithmetic work of one token: a multiplication and an addition for each of [`Hyper::multiplied_weights`].
    #[must_use]
    pub fn ops_per_token(&self) -> u64 {
        2 * self.multiplied_weights()
    }

    /// Every tensor has a place in the forward pass; one that had none would silently change what the model means.
    fn check_tensors(&self, gguf: &Gguf, prefix: &str) -> Result<(), GgufError> {
        for tensor in gguf.tensor_names() {
            if !self.has_place_for(tensor) {
                return Err(GgufError::TensorUnexpected { tensor: tensor.to_owned(), architecture: prefix.to_owned() });
            }
        }
        Ok(())
    }

    fn has_place_for(&self, tensor: &str) -> bool {
        if GLOBAL_TENSORS.contains(&tensor) {
            return true;
        }
        let Some((layer, part)) = tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
            return false;
        };
        let is_layer = layer.parse::<usize>().is_ok_and(|index| index < self.layers && index.to_string() == layer);
        let is_norm = part.strip_suffix(".weight").is_some_and(|stem| NORMS.contains(&stem));
        let stem = part.strip_suffix(".weight").or_else(|| part.strip_suffix(".scale"));
        is_layer && (is_norm || stem.is_some_and(|stem| MATRICES.contains(&stem)))
    }
}

/// The token embedding, `[vocab][dim]`.
pub const EMBEDDING: &str = "token_embd.weight";
/// The output head, `[vocab][dim]`. If it is missing, the embedding serves as head.
pub const OUTPUT: &str = "output.weight";
/// The norm before the output head, `[dim]`.
pub const OUTPUT_NORM: &str = "output_norm.weight";
/// The ternary matrices of a layer; tensor names are `blk.<layer>.<name>.weight`.
pub const MATRICES: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
/// The norms of a layer; tensor names are `blk.<layer>.<name>.weight`.
pub const NORMS: [&str; 4] = ["attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm"];

const ARCHITECTURE: &str = "general.architecture";
const GLOBAL_TENSORS: [&str; 3] = [EMBEDDING, OUTPUT, OUTPUT_NORM];

/// The keys of one architecture.
struct Section<'a> {
    keys: Metadata<'a>,
    prefix: &'a str,
}

impl Section<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn size(&self, name: &str, max: usize) -> Result<usize, GgufError> {
        match self.opt_size(name, max)? {
            Some(size) => Ok(size),
            None => Err(GgufError::KeyMissing { key: self.key(name) }),
        }
    }

    fn opt_size(&self, name: &str, max: usize) -> Result<Option<usize>, GgufError> {
        let key = self.key(name);
        let Some(value) = self.keys.opt_u64(&key)? else { return Ok(None) };
        match usize::try_from(value) {
            Ok(size) if (1..=max).contains(&size) => Ok(Some(size)),
            _ => Err(bad_value(&key, value, format!("it must be from 1 to {max}"))),
        }
    }

    fn divides(&self, part: &str, small: usize, whole: &str, large: usize) -> Result<(), GgufError> {
        if large.is_multiple_of(small) {
            return Ok(());
        }
        Err(bad_value(&self.key(part), small, format!("it must divide {} = {large}", self.key(whole))))
    }

    fn rope_theta(&self, head_dim: usize) -> Result<f64, GgufError> {
        if !head_dim.is_multiple_of(2) || head_dim > HEAD_DIM_MAX {
            let rule = format!("a head of {head_dim} values must be even and at most {HEAD_DIM_MAX}");
            return Err(bad_value(&self.key("attention.head_count"), head_dim, rule));
        }
        for name in ["rope.dimension_count", "attention.key_length", "attention.value_length"] {
            if let Some(found) = self.opt_size(name, HEAD_DIM_MAX)?.filter(|&found| found != head_dim) {
                return Err(bad_value(
                    &self.key(name),
                    found,
                    format!("only the whole head of {head_dim} can be rotated"),
                ));
            }
        }
        let kind = self.key("rope.scaling.type");
        let factor = self.key("rope.scaling.factor");
        let is_plain = match self.keys.opt_str(&kind)? {
            None | Some("none") => true,
            Some("linear") => self.keys.opt_f64(&factor)?.unwrap_or(1.0) == 1.0,
            Some(_) => false,
        };
        if !is_plain {
            return Err(bad_value(
                &kind,
                self.keys.str(&kind)?,
                "stretched positions are not supported: choose a model without them",
            ));
        }
        let key = self.key("rope.freq_base");
        let theta = self.keys.opt_f64(&key)?.unwrap_or(10_000.0);
        if theta.is_finite() && theta > 1.0 {
            Ok(theta)
        } else {
            Err(bad_value(&key, theta, "it must be finite and above 1"))
        }
    }

    fn norm_eps(&self) -> Result<f32, GgufError> {
        let key = self.key("attention.layer_norm_rms_epsilon");
        let eps = self.keys.f32(&key)?;
        if eps > 0.0 && eps < 1.0 { Ok(eps) } else { Err(bad_value(&key, eps, "it must be between 0 and 1")) }
    }
}

/// The rows of the embedding; the tokens and the key, where given, may be fewer but not more.
fn vocab_of(gguf: &Gguf, section: &Section<'_>) -> Result<usize, GgufError> {
    let rows = gguf.tensor(EMBEDDING)?.rows;
    if rows > VOCAB_MAX {
        return Err(GgufError::TooMany {
            what: format!("rows of {EMBEDDING:?}"),
            count: rows as u64,
            max: VOCAB_MAX as u64,
        });
    }
    let tokens = "tokenizer.ggml.tokens";
    let claims = [
        (section.key("vocab_size"), section.opt_size("vocab_size", VOCAB_MAX)?),
        (tokens.to_owned(), section.keys.opt_count(tokens)?),
    ];
    for (key, claim) in claims {
        if let Some(claim) = claim.filter(|&claim| claim > rows) {
            return Err(bad_value(&key, format!("for {claim} tokens"), format!("the embedding has only {rows} rows")));
        }
    }
    Ok(rows)
}

fn name_of(keys: Metadata<'_>) -> Result<String, GgufError> {
    let key = "general.name";
    let name: String = keys.opt_str(key)?.unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    let name = name.trim();
    if name.len() > NAME_BYTES_MAX {
        return Err(bad_value(
            key,
            format!("{} bytes long", name.len()),
            format!("at most {NAME_BYTES_MAX} are kept in records"),
        ));
    }
    Ok(if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() })
}
