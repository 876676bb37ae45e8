//! Embeddings and norms: rows of numbers, widened to binary32.
//!
//! binary16 and bfloat16 widen exactly. A Q8_0 value is `d * q`, a Q6_K value is `d * s * q`, with the binary16 scale `d`
//! widened first and the products taken in binary32 from left to right. That is the arithmetic of ggml, the library
//! that defines both types. `d * q` (11 + 8 bits) and `d * s` (11 + 8 bits) are exact; only the last product of Q6_K
//! (up to 25 bits) may round, once, to nearest even. So every platform gets the same bits.

use crate::arith::half;

use super::{GgufError, Tensor, TensorType};

/// Values of a Q8_0 block, and its bytes: scale, then one byte per value.
const Q8_VALUES: usize = 32;
const Q8_BYTES: usize = 34;
/// Values of a Q6_K block, and its bytes: 128 low nibbles pairs, 64 of high bit pairs, 16 sub-scales, scale.
const Q6_VALUES: usize = 256;
const Q6_BYTES: usize = 210;

/// The two formats of 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// binary16.
    Half,
    /// bfloat16: the upper half of binary32.
    Bfloat,
}

/// The rows of a matrix of numbers. Borrowed from the file.
#[derive(Clone, Copy, Debug)]
pub struct FloatRows<'a> {
    rows: usize,
    cols: usize,
    kind: TensorType,
    row_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> FloatRows<'a> {
    pub(crate) fn check(tensor: &Tensor<'a>) -> Result<FloatRows<'a>, GgufError> {
        match tensor.kind {
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::Q8_0 | TensorType::Q6K => {
                Ok(FloatRows {
                    rows: tensor.rows,
                    cols: tensor.cols,
                    kind: tensor.kind,
                    row_bytes: tensor.bytes.len() / tensor.rows,
                    bytes: tensor.bytes,
                })
            }
            kind => Err(GgufError::TensorType {
                tensor: tensor.name.to_owned(),
                kind: kind.to_string(),
                wanted: "numbers",
                remedy: "convert the model with `--token-embedding-type` f16, q8_0 or q6_k (F32, F16, BF16, Q8_0 and Q6_K are read)",
            }),
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Writes row `r` to `out`.
    ///
    /// # Panics
    /// If `r` is no row, or `out` is not `cols` long.
    pub fn row(&self, r: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "a row of {} values", self.cols);
        let bytes = self.row_bytes_of(r);
        match self.kind {
            TensorType::F32 => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            TensorType::F16 => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *value = half::widen(u16::from_le_bytes(*bytes));
                }
            }
            TensorType::Bf16 => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *value = half::widen_bfloat(u16::from_le_bytes(*bytes));
                }
            }
            TensorType::Q8_0 => {
                for (out, block) in out.as_chunks_mut::<Q8_VALUES>().0.iter_mut().zip(bytes.as_chunks().0) {
                    q8_block(block, out);
                }
            }
            TensorType::Q6K => {
                for (out, block) in out.as_chunks_mut::<Q6_VALUES>().0.iter_mut().zip(bytes.as_chunks().0) {
                    q6_block(block, out);
                }
            }
            TensorType::Tq1_0
            | TensorType::Tq2_0
            | TensorType::I2S
            | TensorType::Iq1Bn
            | TensorType::Iq2Bn
            | TensorType::Other(_) => unreachable!("`check` lets no other type in"),
        }
    }

    /// How 16-bit values are stored, if they are.
    #[must_use]
    pub fn precision(&self) -> Option<Precision> {
        match self.kind {
            TensorType::F16 => Some(Precision::Half),
            TensorType::Bf16 => Some(Precision::Bfloat),
            _ => None,
        }
    }

    fn row_bytes_of(&self, r: usize) -> &'a [u8] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        &self.bytes[r * self.row_bytes..(r + 1) * self.row_bytes]
    }
}

/// `y[i] = d * q[i]`.
fn q8_block(block: &[u8; Q8_BYTES], y: &mut [f32; Q8_VALUES]) {
    let d = half::widen(u16::from_le_bytes([block[0], block[1]]));
    for (y, &q) in y.iter_mut().zip(&block[2..]) {
        *y = d * f32::from(q.cast_signed());
    }
}

/// `y[i] = d * s[i / 16] * (q[i] - 32)`. The 256 values come in two halves; in each, value `32 k + i` (k in 0..4) has its
/// low four bits in nibble `k / 2` of byte `i + 32 (k % 2)`, and its high two bits in bit pair `k` of byte `i`.
fn q6_block(block: &[u8; Q6_BYTES], y: &mut [f32; Q6_VALUES]) {
    let d = half::widen(u16::from_le_bytes([block[208], block[209]]));
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    for part in 0..2 {
        for k in 0..4 {
            for i in 0..32 {
                let nibble = low[64 * part + 32 * (k % 2) + i] >> (4 * (k / 2)) & 15;
                let pair = high[32 * part + i] >> (2 * k) & 3;
                let q = f32::from((nibble | pair << 4).cast_signed() - 32);
                let s = f32::from(scales[8 * part + 2 * k + i / 16].cast_signed());
                y[128 * part + 32 * k + i] = d * s * q;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Q6_BYTES, Q6_VALUES, Q8_BYTES, Q8_VALUES, q6_block, q8_block};

    #[test]
    fn a_q8_value_is_the_scale_times_the_byte() {
        let mut block = [0_u8; Q8_BYTES];
        block[..2].copy_from_slice(&0x3800_u16.to_le_bytes()); // 0.5
        block[2] = 127;
        block[33] = 0x80;
        let mut y = [9.0; Q8_VALUES];
        q8_block(&block, &mut y);
        assert_eq!((y[0], y[1], y[31]), (63.5, 0.0, -64.0));
    }

    #[test]
    fn a_q6_value_is_found_in_its_nibble_and_bit_pair() {
        for at in [0, 31, 32, 63, 64, 95, 96, 127, 128, 160, 192, 255] {
            // All codes 32 (value 0), sub-scales 1..16, and one code 63 (value 31) at `at`.
            let mut block = [0_u8; Q6_BYTES];
            block[128..192].fill(0b1010_1010);
            for (scale, number) in block[192..208].iter_mut().zip(1..) {
                *scale = number;
            }
            block[208..].copy_from_slice(&0x3c00_u16.to_le_bytes()); // 1.0
            let (part, k, i) = (at / 128, at % 128 / 32, at % 32);
            block[64 * part + 32 * (k % 2) + i] |= 15 << (4 * (k / 2));
            block[128 + 32 * part + i] |= 3 << (2 * k);
            let mut y = [9.0; Q6_VALUES];
            q6_block(&block, &mut y);
            for (index, y) in y.iter().enumerate() {
                let expected = if index == at { 31.0 * f32::from(u8::try_from(at / 16 + 1).unwrap()) } else { 0.0 };
                assert_eq!(*y, expected, "value {index}, marked {at}");
            }
        }
    }
}
