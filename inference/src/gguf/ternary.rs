//! Ternary matrices: every container decodes to the same -1, 0 and +1 and the same one scale.
//!
//! | type | values in bytes | order inside of a block | scale |
//! |---|---|---|---|
//! | F16 BF16 F32 | 1 | as they come | the one magnitude that is not zero |
//! | TQ2_0 | 256 in 64 + 2 | two groups of 32 bytes; bit pair `k` of byte `i` is value `32 k + i` of its group | binary16 behind each block |
//! | TQ1_0 | 256 in 52 + 2 | groups of 32, 16 and 4 bytes; digit `k` of byte `i` is value `bytes * k + i` of its group | binary16 behind each block |
//! | I2_S | 128 in 32 | bit pair `3 - k` of byte `i` is value `32 k + i` | binary32 behind the tensor |
//! | IQ2_BN | 64 in 16 | bit pair `k` of byte `i` is value `16 k + i` | binary32 at the head of each row |
//! | IQ1_BN | 64 in 13 | digit `k` of byte `i` is value `16 (i / 3) + 5 (i % 3) + k`; digit `k` of byte 12 is value `16 k + 15` | binary16 at the head of each row |
//!
//! Bit pairs and digits hold the value plus one. Digit `k` of a byte `b` is the whole part of `3 * (b * 3^k mod 256) / 256`;
//! IQ1_BN counts its digits from the other end. A block or row without any non-zero value may carry any scale (quantisers
//! write zero there); all others must carry the same one. If the file keeps a factor beside the matrix, it is multiplied in.

use super::{GgufError, Tensor, TensorType};
use crate::arith::half;

const TQ1_BYTES: usize = 54;
const TQ2_BYTES: usize = 66;
const TQ_VALUES: usize = 256;
const I2S_BYTES: usize = 32;
const I2S_VALUES: usize = 128;
const IQ1_BYTES: usize = 13;
const IQ2_BYTES: usize = 16;
const IQ_VALUES: usize = 64;
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// The rows of a checked ternary matrix. Borrowed from the file, decoded row by row.
#[derive(Clone, Copy, Debug)]
pub struct TernaryRows<'a> {
    rows: usize,
    cols: usize,
    kind: TensorType,
    row_bytes: usize,
    scale: f32,
    bytes: &'a [u8],
}

impl<'a> TernaryRows<'a> {
    pub(crate) fn check(tensor: &Tensor<'a>) -> Result<TernaryRows<'a>, GgufError> {
        let bytes = match tensor.kind {
            TensorType::I2S => &tensor.bytes[..tensor.rows * tensor.cols / 4],
            TensorType::F16 | TensorType::Bf16 | TensorType::F32 => tensor.bytes,
            TensorType::Tq1_0 | TensorType::Tq2_0 | TensorType::Iq1Bn | TensorType::Iq2Bn => tensor.bytes,
            TensorType::Q8_0 | TensorType::Q6K | TensorType::Other(_) => {
                return Err(GgufError::TensorType {
                    tensor: tensor.name.to_owned(),
                    kind: tensor.kind.to_string(),
                    wanted: "a ternary matrix",
                    remedy: "convert the model with `llama-quantize` to TQ2_0, TQ1_0, I2_S, IQ2_BN or IQ1_BN, or keep it as F16",
                });
            }
        };
        let row_bytes = bytes.len() / tensor.rows;
        let mut rows =
            TernaryRows { rows: tensor.rows, cols: tensor.cols, kind: tensor.kind, row_bytes, scale: 0.0, bytes };
        let mut scales = Scales { tensor, common: None };
        for row in 0..rows.rows {
            rows.check_row(row, &mut scales)?;
        }
        if let Some(scale) = scales.common {
            rows.scale = scale * tensor.factor()?.unwrap_or(1.0);
            scales.valid(rows.scale)?;
        }
        Ok(rows)
    }

    /// Number of rows: outputs of the matrix.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row: inputs of the matrix.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The multiplier of rule R6: a weight is this times its ternary value. Zero if the whole matrix is.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Writes the values of row `r`, each -1, 0 or +1, to `out`.
    ///
    /// # Panics
    /// If `r` is no row, or `out` is not `cols` long.
    pub fn row(&self, r: usize, out: &mut [i8]) {
        assert_eq!(out.len(), self.cols, "a row of {} values", self.cols);
        let bytes = self.row_bytes_of(r);
        match self.kind {
            TensorType::F16 | TensorType::Bf16 => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    let bits = u16::from_le_bytes(*bytes);
                    *value = sign_of(bits & 0x7fff != 0, bits & 0x8000 != 0);
                }
            }
            TensorType::F32 => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    let bits = u32::from_le_bytes(*bytes);
                    *value = sign_of(bits & 0x7fff_ffff != 0, bits & 0x8000_0000 != 0);
                }
            }
            TensorType::Tq1_0 => each_block(bytes, out, tq1_block),
            TensorType::Tq2_0 => each_block(bytes, out, tq2_block),
            TensorType::I2S => each_block(bytes, out, i2s_block),
            TensorType::Iq1Bn => each_block(&bytes[2..], out, iq1_block),
            TensorType::Iq2Bn => each_block(&bytes[4..], out, iq2_block),
            TensorType::Q8_0 | TensorType::Q6K | TensorType::Other(_) => unreachable!("`check` lets no other type in"),
        }
    }

    fn row_bytes_of(&self, r: usize) -> &'a [u8] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        &self.bytes[r * self.row_bytes..(r + 1) * self.row_bytes]
    }

    /// Checks the codes of one row, and every scale that belongs to it.
    fn check_row(&self, row: usize, scales: &mut Scales<'_, 'a>) -> Result<(), GgufError> {
        let bytes = self.row_bytes_of(row);
        let is_zero_code = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0x55);
        match self.kind {
            TensorType::F16 | TensorType::Bf16 => {
                let magnitude = |bytes: &[u8; 2]| u32::from(u16::from_le_bytes(*bytes) & 0x7fff);
                let is_bfloat = self.kind == TensorType::Bf16;
                let widen = |bits| if is_bfloat { half::widen_bfloat(bits) } else { half::widen(bits) };
                let widen = |bits| widen(u16::try_from(bits).expect("made from 16 bits"));
                check_magnitudes(bytes.as_chunks().0, magnitude, widen, row, scales)
            }
            TensorType::F32 => {
                let magnitude = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) & 0x7fff_ffff;
                check_magnitudes(bytes.as_chunks().0, magnitude, f32::from_bits, row, scales)
            }
            TensorType::Tq2_0 => bytes.as_chunks::<TQ2_BYTES>().0.iter().try_for_each(|block| {
                scales.codes(row, &block[..64])?;
                scales.meet(row, half_at(&block[64..]), || is_zero_code(&block[..64]))
            }),
            TensorType::Tq1_0 => bytes.as_chunks::<TQ1_BYTES>().0.iter().try_for_each(|block| {
                scales.meet(row, half_at(&block[52..]), || {
                    let mut values = [1; TQ_VALUES];
                    tq1_block(block, &mut values);
                    values == [0; TQ_VALUES]
                })
            }),
            TensorType::I2S => {
                scales.codes(row, bytes)?;
                let tail = &scales.tensor.bytes[self.bytes.len()..];
                scales.meet(row, single_at(tail), || is_zero_code(bytes))
            }
            TensorType::Iq2Bn => {
                scales.codes(row, &bytes[4..])?;
                scales.meet(row, single_at(bytes), || is_zero_code(&bytes[4..]))
            }
            TensorType::Iq1Bn => scales.meet(row, half_at(bytes), || {
                let mut values = [1; IQ_VALUES];
                bytes[2..].as_chunks().0.iter().all(|block| {
                    iq1_block(block, &mut values);
                    values == [0; IQ_VALUES]
                })
            }),
            TensorType::Q8_0 | TensorType::Q6K | TensorType::Other(_) => unreachable!("`check` lets no other type in"),
        }
    }
}

/// The one scale of a matrix, as its blocks and rows are met.
struct Scales<'t, 'a> {
    tensor: &'t Tensor<'a>,
    common: Option<f32>,
}

impl Scales<'_, '_> {
    /// One more scale. It counts unless every value under it is zero.
    fn meet(&mut self, row: usize, scale: f32, is_zero: impl FnOnce() -> bool) -> Result<(), GgufError> {
        if self.common == Some(scale) || is_zero() {
            return Ok(());
        }
        self.valid(scale)?;
        match self.common {
            None => self.common = Some(scale),
            Some(common) => return Err(self.not_ternary(row, format!("the scale {scale:e} beside {common:e}"))),
        }
        Ok(())
    }

    /// Two-bit codes are 0, 1 and 2.
    fn codes(&self, row: usize, codes: &[u8]) -> Result<(), GgufError> {
        const LOW_BITS: u64 = 0x5555_5555_5555_5555;
        let (words, rest) = codes.as_chunks();
        debug_assert!(rest.is_empty(), "code blocks are whole words");
        let threes =
            words.iter().map(|word| u64::from_le_bytes(*word)).fold(0, |threes, word| threes | (word & word >> 1));
        if threes & LOW_BITS == 0 { Ok(()) } else { Err(self.not_ternary(row, "the code 3".to_owned())) }
    }

    fn valid(&self, scale: f32) -> Result<(), GgufError> {
        if scale.is_finite() && scale > 0.0 {
            return Ok(());
        }
        Err(GgufError::Scale { tensor: self.tensor.name.to_owned(), scale })
    }

    fn not_ternary(&self, row: usize, found: String) -> GgufError {
        GgufError::NotTernary { tensor: self.tensor.name.to_owned(), row: row as u64, found }
    }
}

/// Numbers of one row: zeros and one magnitude.
fn check_magnitudes<const N: usize>(
    values: &[[u8; N]],
    magnitude: impl Fn(&[u8; N]) -> u32,
    widen: impl Fn(u32) -> f32,
    row: usize,
    scales: &mut Scales<'_, '_>,
) -> Result<(), GgufError> {
    let Some(first) = values.iter().map(&magnitude).find(|&bits| bits != 0) else { return Ok(()) };
    scales.meet(row, widen(first), || false)?;
    let strange = values.iter().map(&magnitude).fold(false, |strange, bits| strange | (bits != 0 && bits != first));
    if strange { Err(scales.not_ternary(row, format!("another magnitude beside {:e}", widen(first)))) } else { Ok(()) }
}

fn sign_of(is_some: bool, is_negative: bool) -> i8 {
    i8::from(is_some) - 2 * i8::from(is_some && is_negative)
}

fn half_at(bytes: &[u8]) -> f32 {
    half::widen(u16::from_le_bytes([bytes[0], bytes[1]]))
}

fn single_at(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn each_block<const B: usize, const V: usize>(bytes: &[u8], out: &mut [i8], decode: impl Fn(&[u8; B], &mut [i8; V])) {
    for (block, values) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(block, values);
    }
}

/// A two-bit code as a ternary value. The code 3, refused by `check`, would be 2.
fn value_of(code: u8) -> i8 {
    (code & 3).cast_signed() - 1
}

/// Digit `k` of a packed byte as a ternary value.
fn digit(byte: u8, k: usize) -> i8 {
    let shifted = u16::from(byte.wrapping_mul(POWERS[k]));
    value_of(((shifted * 3) >> 8).to_le_bytes()[0])
}

fn tq2_block(block: &[u8; TQ2_BYTES], out: &mut [i8; TQ_VALUES]) {
    for (bytes, values) in block[..64].chunks_exact(32).zip(out.chunks_exact_mut(128)) {
        for (k, values) in values.chunks_exact_mut(32).enumerate() {
            for (value, byte) in values.iter_mut().zip(bytes) {
                *value = value_of(byte >> (2 * k));
            }
        }
    }
}

fn tq1_block(block: &[u8; TQ1_BYTES], out: &mut [i8; TQ_VALUES]) {
    // Bytes 0..32 hold five digits each, 32..48 as well, 48..52 only four.
    for (bytes, values) in [(0..32, 0..160), (32..48, 160..240), (48..52, 240..256)] {
        let bytes = &block[bytes];
        for (k, values) in out[values].chunks_exact_mut(bytes.len()).enumerate() {
            for (value, byte) in values.iter_mut().zip(bytes) {
                *value = digit(*byte, k);
            }
        }
    }
}

fn i2s_block(block: &[u8; I2S_BYTES], out: &mut [i8; I2S_VALUES]) {
    for (k, values) in out.chunks_exact_mut(32).enumerate() {
        for (value, byte) in values.iter_mut().zip(block) {
            *value = value_of(byte >> (6 - 2 * k));
        }
    }
}

fn iq2_block(block: &[u8; IQ2_BYTES], out: &mut [i8; IQ_VALUES]) {
    for (k, values) in out.chunks_exact_mut(16).enumerate() {
        for (value, byte) in values.iter_mut().zip(block) {
            *value = value_of(byte >> (2 * k));
        }
    }
}

fn iq1_block(block: &[u8; IQ1_BYTES], out: &mut [i8; IQ_VALUES]) {
    for (k, (values, bytes)) in out.chunks_exact_mut(16).zip(block.chunks_exact(3)).enumerate() {
        for (values, byte) in values.chunks_exact_mut(5).zip(bytes) {
            for (j, value) in values.iter_mut().enumerate() {
                *value = digit(*byte, 4 - j);
            }
        }
        values[15] = digit(block[12], 4 - k);
    }
}
