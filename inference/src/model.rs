//! The weights of a model, in the order the kernels read them, with every shape written out.
//!
//! Repacking happens once, at load, on all threads; afterwards nothing refers to the file.

use std::num::NonZeroUsize;

use crate::arith::norm::COLUMNS_MAX;
use crate::arith::rope::RopeTables;
use crate::embedding::Embedding;
use crate::gguf::{Gguf, GgufError};
use crate::hyper::Hyper;
use crate::kernels::packed::{GROUP_ROWS, Packed, pack_row};
use crate::kv_cache::KvShape;

/// Values wider than this are refused before anything is multiplied: sums of `COLUMNS_MAX` int8 reach 2^24.
const SUM_MAX: f32 = 16_777_216.0;

/// A model ready to run. `dim` is the width, `heads` and `kv_heads` have `head_dim` columns each.
#[derive(Debug)]
pub struct Model {
    /// Shapes and constants.
    pub hyper: Hyper,
    /// Input embedding, `[vocab][dim]`.
    pub embedding: Embedding,
    /// Output embedding, `[vocab][dim]`, where it is not the input's.
    pub output: Option<Embedding>,
    /// Gain of the final norm, `[dim]`.
    pub output_norm: Vec<f32>,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// Rotation tables for `context` positions.
    pub rope: RopeTables,
    /// Positions a session may have.
    pub context: usize,
}

/// One transformer layer.
#[derive(Debug)]
pub struct Layer {
    /// Gain before attention, `[dim]`.
    pub attn_norm: Vec<f32>,
    /// Queries, keys and values stacked: `[heads * head_dim + 2 * kv_heads * head_dim][dim]`, each part padded to 16 rows.
    pub qkv: Linear,
    /// Gain after attention, `[heads * head_dim]`.
    pub attn_sub_norm: Vec<f32>,
    /// Attention's output, `[dim][heads * head_dim]`.
    pub attn_output: Linear,
    /// Gain before the feed-forward part, `[dim]`.
    pub ffn_norm: Vec<f32>,
    /// Gate and up, `[2 * ffn][dim]`: groups of 16 gate rows and 16 up rows alternate.
    pub gate_up: Linear,
    /// Gain after the gate, `[ffn]`.
    pub ffn_sub_norm: Vec<f32>,
    /// Back to the width, `[dim][ffn]`.
    pub down: Linear,
}

/// A packed matrix and the largest scale in it.
#[derive(Debug)]
pub struct Linear {
    /// The codes.
    pub packed: Packed,
    /// Greatest magnitude of a scale: decides whether a product could overflow.
    pub scale_max: f32,
}

impl Linear {
    /// Whether every product of a row quantised with `k` is finite, whatever its sum (R1).
    #[must_use]
    pub fn is_finite_with(&self, k: f32) -> bool {
        ((self.scale_max / k) * SUM_MAX).is_finite()
    }
}

/// A model file that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file itself.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A tensor of another shape than the header says.
    #[error("tensor {tensor}: is {rows} x {columns}, the header's sizes ask for {rows_expected} x {columns_expected}")]
    Shape {
        /// Its name.
        tensor: String,
        /// Rows in the file.
        rows: usize,
        /// Columns in the file.
        columns: usize,
        /// Rows expected.
        rows_expected: usize,
        /// Columns expected.
        columns_expected: usize,
    },
    /// A scale, gain or constant that is not an ordinary number.
    #[error("tensor {tensor}: holds a value that is not finite; the file is damaged")]
    NotFinite {
        /// Its name.
        tensor: String,
    },
    /// A width the arithmetic does not cover.
    #[error("{what} is {value}; this engine needs {rule}")]
    Unsupported {
        /// Which size.
        what: &'static str,
        /// The file's.
        value: usize,
        /// What would be accepted.
        rule: &'static str,
    },
}

impl Model {
    /// Reads and repacks a model for at most `context` positions, on `threads` threads.
    pub fn load(gguf: &Gguf, hyper: Hyper, context: usize, threads: NonZeroUsize) -> Result<Model, ModelError> {
        check_sizes(&hyper)?;
        let embedding = embedding(gguf, "token_embd.weight", &hyper, threads)?;
        let output = gguf
            .tensor_names()
            .any(|name| name == "output.weight")
            .then(|| self::embedding(gguf, "output.weight", &hyper, threads))
            .transpose()?;
        let output_norm = gains(gguf, "output_norm.weight", hyper.dim)?;
        let layers = layers(gguf, &hyper, threads)?;
        let rope = RopeTables::new(hyper.rope_theta, hyper.head_dim, context);
        Ok(Model { hyper, embedding, output, output_norm, layers, rope, context })
    }

    /// What decides the size of caches.
    #[must_use]
    pub fn kv_shape(&self) -> KvShape {
        KvShape { layers: self.hyper.layers, kv_heads: self.hyper.kv_heads, head_dim: self.hyper.head_dim }
    }

    /// The embedding that gives logits.
    #[must_use]
    pub fn head(&self) -> &Embedding {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// Bytes of weights held.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let linears = |layer: &Layer| {
            [&layer.qkv, &layer.attn_output, &layer.gate_up, &layer.down]
                .iter()
                .map(|linear| linear.packed.size_bytes())
                .sum::<usize>()
        };
        let layers: usize = self.layers.iter().map(linears).sum();
        let floats = self.embedding.size_bytes() + self.output.as_ref().map_or(0, Embedding::size_bytes);
        (layers + floats) as u64
    }
}

/// Where each part of the stacked queries, keys and values begins, in columns of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QkvColumns {
    /// First column of the keys.
    pub keys: usize,
    /// First column of the values.
    pub values: usize,
    /// All columns.
    pub width: usize,
}

impl QkvColumns {
    /// For these shapes.
    #[must_use]
    pub fn new(hyper: &Hyper) -> QkvColumns {
        let padded = |rows: usize| rows.div_ceil(GROUP_ROWS) * GROUP_ROWS;
        let keys = padded(hyper.heads * hyper.head_dim);
        let values = keys + padded(hyper.kv_heads * hyper.head_dim);
        QkvColumns { keys, values, width: values + padded(hyper.kv_heads * hyper.head_dim) }
    }
}

fn check_sizes(hyper: &Hyper) -> Result<(), ModelError> {
    let widest = hyper.dim.max(hyper.ffn).max(hyper.heads * hyper.head_dim);
    let unsupported = |what, value, rule| Err(ModelError::Unsupported { what, value, rule });
    if widest > COLUMNS_MAX {
        return unsupported("a matrix's width", widest, "at most 131072 columns, so that integer sums stay exact");
    }
    if [hyper.layers, hyper.dim, hyper.ffn, hyper.vocab, hyper.kv_heads].contains(&0) {
        return unsupported("a size", 0, "every size to be at least 1");
    }
    if !hyper.head_dim.is_multiple_of(2) || hyper.head_dim == 0 {
        return unsupported("head_dim", hyper.head_dim, "an even number: rotation turns pairs");
    }
    if !hyper.heads.is_multiple_of(hyper.kv_heads) {
        return unsupported("heads", hyper.heads, "a multiple of the key-value heads");
    }
    Ok(())
}

fn check_shape(tensor: &str, rows: usize, columns: usize, expected: (usize, usize)) -> Result<(), ModelError> {
    if (rows, columns) == expected {
        return Ok(());
    }
    let (rows_expected, columns_expected) = expected;
    Err(ModelError::Shape { tensor: tensor.to_owned(), rows, columns, rows_expected, columns_expected })
}

/// A vector of gains.
fn gains(gguf: &Gguf, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
    let tensor = gguf.tensor(name)?;
    let rows = tensor.floats()?;
    check_shape(name, rows.rows(), rows.cols(), (1, len))?;
    let mut gains = vec![0.0; len];
    rows.row(0, &mut gains);
    if gains.iter().all(|gain| gain.is_finite()) { Ok(gains) } else { Err(not_finite(name)) }
}

fn not_finite(name: &str) -> ModelError {
    ModelError::NotFinite { tensor: name.to_owned() }
}

/// An embedding, in the precision of the file.
fn embedding(gguf: &Gguf, name: &str, hyper: &Hyper, threads: NonZeroUsize) -> Result<Embedding, ModelError> {
    let source = gguf.tensor(name)?.floats()?;
    check_shape(name, source.rows(), source.cols(), (hyper.vocab, hyper.dim))?;
    Embedding::new(&source, threads).ok_or_else(|| not_finite(name))
}

/// All layers, shared out over the threads.
fn layers(gguf: &Gguf, hyper: &Hyper, threads: NonZeroUsize) -> Result<Vec<Layer>, ModelError> {
    let mut slots: Vec<Option<Result<Layer, ModelError>>> = (0..hyper.layers).map(|_| None).collect();
    let share = hyper.layers.div_ceil(threads.get());
    std::thread::scope(|scope| {
        for (worker, slots) in slots.chunks_mut(share).enumerate() {
            scope.spawn(move || {
                for (offset, slot) in slots.iter_mut().enumerate() {
                    *slot = Some(layer(gguf, hyper, worker * share + offset));
                }
            });
        }
    });
    slots.into_iter().map(|slot| slot.expect("every share covers its slots")).collect()
}

fn layer(gguf: &Gguf, hyper: &Hyper, index: usize) -> Result<Layer, ModelError> {
    let name = |part: &str| format!("blk.{index}.{part}.weight");
    let (dim, ffn) = (hyper.dim, hyper.ffn);
    let (q_rows, kv_rows) = (hyper.heads * hyper.head_dim, hyper.kv_heads * hyper.head_dim);
    let gain = |part: &str, len| gains(gguf, &name(part), len);
    Ok(Layer {
        attn_norm: gain("attn_norm", dim)?,
        qkv: linear(
            gguf,
            &[(name("attn_q"), q_rows), (name("attn_k"), kv_rows), (name("attn_v"), kv_rows)],
            dim,
            Order::Stacked,
        )?,
        attn_sub_norm: gain("attn_sub_norm", q_rows)?,
        attn_output: linear(gguf, &[(name("attn_output"), dim)], q_rows, Order::Stacked)?,
        ffn_norm: gain("ffn_norm", dim)?,
        gate_up: linear(gguf, &[(name("ffn_gate"), ffn), (name("ffn_up"), ffn)], dim, Order::Alternating)?,
        ffn_sub_norm: gain("ffn_sub_norm", ffn)?,
        down: linear(gguf, &[(name("ffn_down"), dim)], ffn, Order::Stacked)?,
    })
}

/// How the groups of several tensors follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// All groups of the first, then all of the next.
    Stacked,
    /// One group of each in turn.
    Alternating,
}

/// Packs tensors of one width into one matrix, each padded with zero rows to whole groups.
fn linear(gguf: &Gguf, parts: &[(String, usize)], columns: usize, order: Order) -> Result<Linear, ModelError> {
    let mut sources = Vec::with_capacity(parts.len());
    for (name, rows) in parts {
        let source = gguf.tensor(name)?.ternary()?;
        check_shape(name, source.rows(), source.cols(), (*rows, columns))?;
        if !source.scale().is_finite() {
            return Err(not_finite(name));
        }
        sources.push(source);
    }
    let counts: Vec<usize> = parts.iter().map(|(_, rows)| rows.div_ceil(GROUP_ROWS)).collect();
    let places: Vec<(usize, usize)> = match order {
        Order::Stacked => {
            counts.iter().enumerate().flat_map(|(part, &groups)| (0..groups).map(move |group| (part, group))).collect()
        }
        Order::Alternating => {
            (0..counts[0]).flat_map(|group| (0..counts.len()).map(move |part| (part, group))).collect()
        }
    };
    let scales: Vec<f32> = places.iter().map(|&(part, _)| sources[part].scale()).collect();
    let scale_max = scales.iter().fold(0.0_f32, |m, s| if s.abs() > m { s.abs() } else { m });
    let mut packed = Packed::zeros(columns, scales);
    let mut values = vec![0_i8; columns];
    for (blocks, &(part, group)) in packed.groups_mut().zip(&places) {
        for row in 0..GROUP_ROWS {
            let source_row = group * GROUP_ROWS + row;
            if source_row < sources[part].rows() {
                sources[part].row(source_row, &mut values);
                pack_row(blocks, row, &values);
            }
        }
    }
    Ok(Linear { packed, scale_max })
}
