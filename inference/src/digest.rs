//! The digest of a model: what is computed, whatever container it came in.
//!
//! ```text
//! part   = BLAKE3 keyed by PART_DOMAIN over: kind, rows, cols, scale bits, then all rows
//!          kind 1, ternary matrix: a row is ceil(cols / 4) bytes; byte i holds the codes (value + 1) of columns
//!          i, i + q, i + 2 q, i + 3 q with q = ceil(cols / 4), lowest bits first, 1 where there is no column
//!          kind 2, numbers: binary32, little endian; a matrix is hashed in parts of 4096 rows
//! digest = BLAKE3 keyed by MODEL_DOMAIN over: version of the arithmetic, hyper-parameters, rotation tables,
//!          tokenizer settings, vocabulary, chat template, number of parts, parts in the order of `parts_of`
//! ```
//!
//! Two files have one digest exactly if they give the same tokens the same meaning and the same bits: F16, TQ1_0, TQ2_0,
//! I2_S, IQ2_BN and IQ1_BN packings of one model agree. Its name and licence are not part of it; an embedding that was
//! rounded to fewer bits is another model.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::arith::ARITHMETIC_VERSION;
use crate::arith::rope::RopeTables;
use crate::chat::TEMPLATE_KEY;
use crate::gguf::{Gguf, GgufError, Metadata};
use crate::hyper::{Architecture, EMBEDDING, Gate, Hyper, MATRICES, NORMS, OUTPUT, OUTPUT_NORM};
use crate::tokenizer::settings::{Family, Pre};
use crate::tokenizer::vocabulary::Kind;
use crate::tokenizer::{Settings, TokenizerError};

const MODEL_DOMAIN: &str = "aria inference model digest v1";
const PART_DOMAIN: &str = "aria inference model part v1";
/// Rows of numbers in one part: big embeddings are hashed by all threads.
const PART_ROWS: usize = 4_096;
/// Positions of the rotation tables that are hashed. All others follow from the same pinned functions; more would make
/// opening a model with a long context slow.
const ROPE_POSITIONS: usize = 4_096;

/// Names a model by what it computes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelDigest(pub [u8; 32]);

impl fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelDigest({self})")
    }
}

/// Why a model has no digest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// A key or a tensor is wrong.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The tokenizer's keys are wrong.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// Hashes a whole model on all threads. Checks on the way that every matrix is ternary and every number finite.
///
/// # Errors
/// The first thing that is wrong with the file.
pub fn model_digest(gguf: &Gguf) -> Result<ModelDigest, DigestError> {
    let hyper = Hyper::from_gguf(gguf)?;
    let mut hasher = Hasher::new(MODEL_DOMAIN);
    hasher.number(u64::from(ARITHMETIC_VERSION));
    hasher.hyper(&hyper);
    hasher.tokenizer(gguf.metadata())?;
    let parts = parts_of(gguf, &hyper)?;
    hasher.number(parts.len() as u64);
    for part in hash_parts(gguf, &parts) {
        hasher.update(&part?);
    }
    Ok(ModelDigest(hasher.finish()))
}

/// One independent piece of work.
enum Part {
    Ternary(String),
    Numbers { tensor: String, first: usize, count: usize },
}

/// Embedding, output head if there is one, output norm; then each layer: norms, matrices.
fn parts_of(gguf: &Gguf, hyper: &Hyper) -> Result<Vec<Part>, GgufError> {
    let mut parts = Vec::new();
    let mut numbers = |name: &str, rows: usize, cols: usize| -> Result<(), GgufError> {
        let tensor = gguf.tensor(name)?.shaped(rows, cols)?;
        for first in (0..tensor.rows).step_by(PART_ROWS) {
            let count = PART_ROWS.min(tensor.rows - first);
            parts.push(Part::Numbers { tensor: name.to_owned(), first, count });
        }
        Ok(())
    };
    numbers(EMBEDDING, hyper.vocab, hyper.dim)?;
    if gguf.opt_tensor(OUTPUT).is_some() {
        numbers(OUTPUT, hyper.vocab, hyper.dim)?;
    }
    numbers(OUTPUT_NORM, 1, hyper.dim)?;
    for layer in 0..hyper.layers {
        for norm in NORMS {
            let cols = if norm == "ffn_sub_norm" { hyper.ffn } else { hyper.dim };
            numbers(&format!("blk.{layer}.{norm}.weight"), 1, cols)?;
        }
    }
    for layer in 0..hyper.layers {
        for matrix in MATRICES {
            let name = format!("blk.{layer}.{matrix}.weight");
            let (rows, cols) = hyper.matrix_shape(matrix);
            gguf.tensor(&name)?.shaped(rows, cols)?;
            parts.push(Part::Ternary(name));
        }
    }
    Ok(parts)
}

/// The hashes of all parts, in order, computed by as many threads as the machine has.
fn hash_parts(gguf: &Gguf, parts: &[Part]) -> Vec<Result<[u8; 32], GgufError>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(parts.len());
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(parts.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < parts.len())
                {
                    let hash = hash_part(gguf, &parts[index]);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, hash));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, hash)| hash).collect()
}

fn hash_part(gguf: &Gguf, part: &Part) -> Result<[u8; 32], GgufError> {
    let mut hasher = Hasher::new(PART_DOMAIN);
    match part {
        Part::Ternary(tensor) => hasher.ternary(gguf, tensor)?,
        Part::Numbers { tensor, first, count } => hasher.numbers(gguf, tensor, *first, *count)?,
    }
    Ok(hasher.finish())
}

/// BLAKE3 behind a buffer: it works on many kilobytes at once, rows are shorter.
struct Hasher {
    inner: blake3::Hasher,
    buffer: Vec<u8>,
}

/// Bytes that are given to BLAKE3 at once: enough for its widest instructions, and still in the nearest cache.
const BUFFER_BYTES: usize = 32 << 10;

impl Hasher {
    fn new(domain: &str) -> Hasher {
        Hasher { inner: blake3::Hasher::new_derive_key(domain), buffer: Vec::with_capacity(BUFFER_BYTES) }
    }

    fn finish(mut self) -> [u8; 32] {
        self.flush();
        *self.inner.finalize().as_bytes()
    }

    fn flush(&mut self) {
        self.inner.update(&self.buffer);
        self.buffer.clear();
    }

    fn update(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    fn f32s(&mut self, values: &[f32]) {
        for values in values.chunks(BUFFER_BYTES / 4) {
            let start = self.buffer.len();
            self.buffer.resize(start + 4 * values.len(), 0);
            for (bytes, value) in self.buffer[start..].as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush();
            }
        }
    }

    fn number(&mut self, number: u64) {
        self.update(&number.to_le_bytes());
    }

    /// Present or not, length, bytes.
    fn bytes(&mut self, bytes: Option<&[u8]>) {
        self.number(u64::from(bytes.is_some()));
        self.number(bytes.unwrap_or_default().len() as u64);
        self.update(bytes.unwrap_or_default());
    }

    fn hyper(&mut self, hyper: &Hyper) {
        self.number(match hyper.architecture {
            Architecture::BitnetB158 => 1,
            Architecture::Bitnet => 2,
        });
        self.number(match hyper.gate {
            Gate::SquaredRelu => 1,
            Gate::Silu => 2,
        });
        let Hyper { layers, dim, ffn, heads, kv_heads, head_dim, vocab, context, .. } = *hyper;
        for size in [layers, dim, ffn, heads, kv_heads, head_dim, vocab, context] {
            self.number(size as u64);
        }
        self.update(&hyper.rope_theta.to_le_bytes());
        self.update(&hyper.norm_eps.to_le_bytes());
        let tables = RopeTables::new(hyper.rope_theta, head_dim, context.min(ROPE_POSITIONS));
        let (cos, sin) = tables.tables();
        self.f32s(cos);
        self.f32s(sin);
    }

    /// Settings and kinds of tokens with their defaults filled in, then the lists as they lie in the file: both versions of the container
    /// write them in the same bytes.
    fn tokenizer(&mut self, keys: Metadata<'_>) -> Result<(), DigestError> {
        let (settings, vocabulary) = Settings::read(keys)?;
        self.number(match settings.family {
            Family::ByteLevel(Pre::Llama3) => 1,
            Family::ByteLevel(Pre::Gpt2) => 2,
            Family::SentencePiece { adds_space: false } => 3,
            Family::SentencePiece { adds_space: true } => 4,
        });
        for id in [settings.bos, settings.eos] {
            self.number(id.map_or(u64::MAX, u64::from));
        }
        self.number(settings.ends.len() as u64);
        settings.ends.iter().for_each(|&id| self.number(u64::from(id)));
        self.number(u64::from(settings.adds_bos));
        let kinds: Vec<u8> = vocabulary.kinds().iter().map(|kind| kind_byte(*kind)).collect();
        self.bytes(Some(&kinds));
        for key in ["tokens", "merges", "scores"] {
            self.bytes(keys.raw_array(&format!("tokenizer.ggml.{key}")));
        }
        self.bytes(keys.opt_str(TEMPLATE_KEY)?.map(str::as_bytes));
        Ok(())
    }

    fn numbers(&mut self, gguf: &Gguf, tensor: &str, first: usize, count: usize) -> Result<(), GgufError> {
        let rows = gguf.tensor(tensor)?.floats()?;
        self.head(2, count, rows.cols(), 0.0);
        let mut values = vec![0.0; rows.cols()];
        for row in first..first + count {
            rows.row(row, &mut values);
            if let Some(&found) = values.iter().find(|value| !value.is_finite()) {
                return Err(GgufError::NotFinite { tensor: tensor.to_owned(), row: row as u64, found });
            }
            self.f32s(&values);
        }
        Ok(())
    }

    fn ternary(&mut self, gguf: &Gguf, tensor: &str) -> Result<(), GgufError> {
        let rows = gguf.tensor(tensor)?.ternary()?;
        self.head(1, rows.rows(), rows.cols(), rows.scale());
        let quarter = rows.cols().div_ceil(4);
        let mut values = vec![0_i8; rows.cols()];
        let mut bytes = vec![0_u8; quarter];
        for row in 0..rows.rows() {
            rows.row(row, &mut values);
            bytes.fill(0b0101_0101);
            for (k, values) in values.chunks(quarter).enumerate() {
                for (byte, value) in bytes.iter_mut().zip(values) {
                    *byte = byte.wrapping_add(value.cast_unsigned() << (2 * k));
                }
            }
            self.update(&bytes);
        }
        Ok(())
    }

    fn head(&mut self, kind: u64, rows: usize, cols: usize, scale: f32) {
        for number in [kind, rows as u64, cols as u64] {
            self.number(number);
        }
        self.update(&scale.to_le_bytes());
    }
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Normal => 1,
        Kind::Control => 2,
        Kind::Whole => 3,
        Kind::Byte => 4,
    }
}
