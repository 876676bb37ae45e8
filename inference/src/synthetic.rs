//! Models of published shapes with random weights, made in memory: for benches, which need the sizes and no file.
//!
//! Every ternary value is equally likely; embeddings are normally distributed. They run like the real ones and say nothing.

use crate::arith::half::narrow;
use crate::gguf::writer::Writer;
use crate::gguf::{Gguf, GgufError};
use crate::hyper::{EMBEDDING, MATRICES, OUTPUT, OUTPUT_NORM};

/// Standard deviation of the embeddings.
const EMBEDDING_DEVIATION: f64 = 0.04;
/// Type numbers of the format.
const F16: u32 = 1;
const I2_S: u32 = 36;

/// The sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What users call it.
    pub name: &'static str,
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward part.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Tokens.
    pub vocab: usize,
    /// Positions.
    pub context: usize,
    /// Whether the output head is a matrix of its own.
    pub has_output: bool,
}

/// The shapes that can be asked for by name.
pub const SHAPES: [Shape; 4] = [
    // aria-tiny.
    Shape {
        name: "tiny",
        architecture: "bitnet-b1.58",
        layers: 6,
        dim: 256,
        ffn: 768,
        heads: 4,
        kv_heads: 2,
        vocab: 4096,
        context: 2048,
        has_output: false,
    },
    // bitnet_b1_58-large.
    Shape {
        name: "0.7b",
        architecture: "bitnet",
        layers: 24,
        dim: 1536,
        ffn: 4096,
        heads: 16,
        kv_heads: 16,
        vocab: 32002,
        context: 2048,
        has_output: false,
    },
    // BitNet-b1.58-2B-4T.
    Shape {
        name: "2b",
        architecture: "bitnet-b1.58",
        layers: 30,
        dim: 2560,
        ffn: 6912,
        heads: 20,
        kv_heads: 5,
        vocab: 128_256,
        context: 4096,
        has_output: false,
    },
    // Llama3-8B-1.58.
    Shape {
        name: "8b",
        architecture: "bitnet",
        layers: 32,
        dim: 4096,
        ffn: 14336,
        heads: 32,
        kv_heads: 8,
        vocab: 128_256,
        context: 8192,
        has_output: true,
    },
];

impl Shape {
    /// The shape with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Shape> {
        SHAPES.iter().find(|shape| shape.name == name)
    }

    /// A model of this shape. The same seed gives the same weights.
    ///
    /// # Errors
    /// None for the shapes of [`SHAPES`]; a shape of the caller's own may break a rule of [`GgufError`].
    pub fn model(&self, seed: u64) -> Result<Gguf, GgufError> {
        Gguf::from_vec(self.file(seed))
    }

    /// The same as the bytes of a file.
    #[must_use]
    pub fn file(&self, seed: u64) -> Vec<u8> {
        let mut random = Random(seed);
        let mut file = self.keys();
        let normals = normals();
        let embedding = [self.vocab as u64, self.dim as u64];
        file = file.tensor(EMBEDDING, &[embedding[1], embedding[0]], F16, &self.embedding(&normals, &mut random));
        if self.has_output {
            file = file.tensor(OUTPUT, &[embedding[1], embedding[0]], F16, &self.embedding(&normals, &mut random));
        }
        file = file.floats(OUTPUT_NORM, &[self.dim as u64], &vec![1.0; self.dim]);
        for layer in 0..self.layers {
            for (norm, width) in [
                ("attn_norm", self.dim),
                ("attn_sub_norm", self.dim),
                ("ffn_norm", self.dim),
                ("ffn_sub_norm", self.ffn),
            ] {
                file = file.floats(&format!("blk.{layer}.{norm}.weight"), &[width as u64], &vec![1.0; width]);
            }
            for matrix in MATRICES {
                let (rows, columns) = self.matrix(matrix);
                let bytes = ternary(rows, columns, &mut random);
                file =
                    file.tensor(&format!("blk.{layer}.{matrix}.weight"), &[columns as u64, rows as u64], I2_S, &bytes);
            }
        }
        file.finish()
    }

    fn keys(&self) -> Writer {
        let a = self.architecture;
        let size = |value: usize| u32::try_from(value).expect("sizes of models are far below 2^32");
        let names: Vec<String> =
            alphabet().chain((256..self.vocab).map(|id| format!("<|word {id}|>"))).take(self.vocab).collect();
        Writer::new()
            .text("general.architecture", a)
            .text("general.name", &format!("synthetic {}", self.name))
            .u32(&format!("{a}.block_count"), size(self.layers))
            .u32(&format!("{a}.embedding_length"), size(self.dim))
            .u32(&format!("{a}.feed_forward_length"), size(self.ffn))
            .u32(&format!("{a}.attention.head_count"), size(self.heads))
            .u32(&format!("{a}.attention.head_count_kv"), size(self.kv_heads))
            .u32(&format!("{a}.context_length"), size(self.context))
            .u32(&format!("{a}.vocab_size"), size(self.vocab))
            .f32(&format!("{a}.rope.freq_base"), 500_000.0)
            .f32(&format!("{a}.attention.layer_norm_rms_epsilon"), 1e-5)
            .text("tokenizer.ggml.model", "gpt2")
            .texts("tokenizer.ggml.tokens", names.iter().map(String::as_str))
            .texts("tokenizer.ggml.merges", [])
    }

    fn matrix(&self, name: &str) -> (usize, usize) {
        let kv = self.dim / self.heads * self.kv_heads;
        match name {
            "attn_k" | "attn_v" => (kv, self.dim),
            "ffn_gate" | "ffn_up" => (self.ffn, self.dim),
            "ffn_down" => (self.dim, self.ffn),
            _ => (self.dim, self.dim),
        }
    }

    fn embedding(&self, normals: &[u16], random: &mut Random) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.vocab * self.dim * 2);
        while bytes.len() < self.vocab * self.dim * 2 {
            for quarter in random.next().to_le_bytes().chunks_exact(2) {
                bytes.extend(normals[usize::from(u16::from_le_bytes([quarter[0], quarter[1]]))].to_le_bytes());
            }
        }
        bytes.truncate(self.vocab * self.dim * 2);
        bytes
    }
}

/// The 256 characters that stand for bytes in byte-level vocabularies.
fn alphabet() -> impl Iterator<Item = String> {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    // Bytes that cannot be printed are written as the characters after 255, in order.
    let others = (0..256).filter(move |byte| !printable(byte)).zip(256..).map(|(_, letter)| letter);
    (0..256).filter(printable).chain(others).filter_map(char::from_u32).map(String::from)
}

/// Bytes of an `I2_S` matrix: four codes 0, 1, 2 in each, the scale behind them, padded to 32 bytes.
fn ternary(rows: usize, columns: usize, random: &mut Random) -> Vec<u8> {
    let codes: Vec<u8> = (0..81).map(|n| (n % 3) | (n / 3 % 3) << 2 | (n / 9 % 3) << 4 | (n / 27) << 6).collect();
    let len = rows * columns / 4;
    let mut bytes = Vec::with_capacity(len + 32);
    while bytes.len() < len {
        for quarter in random.next().to_le_bytes().chunks_exact(2) {
            bytes.push(codes[(usize::from(u16::from_le_bytes([quarter[0], quarter[1]])) * 81) >> 16]);
        }
    }
    bytes.truncate(len);
    #[expect(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
    let scale = 1.0 / (columns as f32).sqrt();
    bytes.extend(scale.to_le_bytes());
    bytes.resize(len + 32, 0);
    bytes
}

/// 65536 equally likely values of a normal distribution, as binary16.
fn normals() -> Vec<u16> {
    #[expect(clippy::cast_possible_truncation, reason = "a random weight needs no more")]
    let value = |n: u32| narrow((quantile((f64::from(n) + 0.5) / 65536.0) * EMBEDDING_DEVIATION) as f32);
    (0..65536).map(value).collect()
}

/// The normal distribution's quantile, by bisection of its distribution function.
fn quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if 0.5 * libm::erfc(-middle * std::f64::consts::FRAC_1_SQRT_2) < p { low = middle } else { high = middle }
    }
    low
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
