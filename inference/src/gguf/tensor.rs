//! The tensor table: types, sizes, where each tensor lies, and the checks that none leaves the file or meets another.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use super::{FloatRows, Gguf, GgufError, TernaryRows};

/// How the values of a tensor are stored. The number in the file is in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    /// binary32 (0).
    F32,
    /// binary16 (1).
    F16,
    /// bfloat16 (30).
    Bf16,
    /// 32 signed bytes behind one binary16 scale (8).
    Q8_0,
    /// 256 values of 6 bits, 16 sub-scales, one binary16 scale (14).
    Q6K,
    /// Ternary, five to a byte, 256 to a block, binary16 scale at its end (34).
    Tq1_0,
    /// Ternary, four to a byte, 256 to a block, binary16 scale at its end (35).
    Tq2_0,
    /// Ternary, 128 in 32 bytes, one binary32 scale behind the tensor (36, in BitNet files only).
    I2S,
    /// Ternary, five to a byte, 64 in 13 bytes, binary16 scale at the head of each row (134).
    Iq1Bn,
    /// Ternary, four to a byte, 64 in 16 bytes, binary32 scale at the head of each row (135).
    Iq2Bn,
    /// Any other number: a raw span, refused where its values are needed.
    Other(u32),
}

impl TensorType {
    /// The meaning of a type number. Above 30 it depends on who wrote the file: 36 is I2_S only for BitNet.
    pub(crate) fn of(number: u32, is_bitnet: bool) -> TensorType {
        match number {
            0 => TensorType::F32,
            1 => TensorType::F16,
            8 => TensorType::Q8_0,
            14 => TensorType::Q6K,
            30 => TensorType::Bf16,
            34 => TensorType::Tq1_0,
            35 => TensorType::Tq2_0,
            36 if is_bitnet => TensorType::I2S,
            134 => TensorType::Iq1Bn,
            135 => TensorType::Iq2Bn,
            other => TensorType::Other(other),
        }
    }

    /// Values in one block, bytes of a block, bytes at the head of a row, bytes behind the tensor.
    fn layout(self) -> Option<Layout> {
        let (block, block_bytes, row_head, tail) = match self {
            TensorType::F32 => (1, 4, 0, 0),
            TensorType::F16 | TensorType::Bf16 => (1, 2, 0, 0),
            TensorType::Q8_0 => (32, 34, 0, 0),
            TensorType::Q6K => (256, 210, 0, 0),
            TensorType::Tq1_0 => (256, 54, 0, 0),
            TensorType::Tq2_0 => (256, 66, 0, 0),
            TensorType::I2S => (128, 32, 0, 32),
            TensorType::Iq1Bn => (64, 13, 2, 0),
            TensorType::Iq2Bn => (64, 16, 4, 0),
            TensorType::Other(_) => return None,
        };
        Some(Layout { block, block_bytes, row_head, tail })
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            TensorType::F32 => "F32",
            TensorType::F16 => "F16",
            TensorType::Bf16 => "BF16",
            TensorType::Q8_0 => "Q8_0",
            TensorType::Q6K => "Q6_K",
            TensorType::Tq1_0 => "TQ1_0",
            TensorType::Tq2_0 => "TQ2_0",
            TensorType::I2S => "I2_S",
            TensorType::Iq1Bn => "IQ1_BN",
            TensorType::Iq2Bn => "IQ2_BN",
            TensorType::Other(2) => "Q4_0",
            TensorType::Other(12) => "Q4_K",
            TensorType::Other(13) => "Q5_K",
            TensorType::Other(38) => "TL1 or number 38",
            TensorType::Other(39) => "TL2, MXFP4 or number 39",
            TensorType::Other(number) => return write!(f, "number {number}"),
        };
        f.pad(name)
    }
}

struct Layout {
    block: u64,
    block_bytes: u64,
    row_head: u64,
    tail: u64,
}

/// One row of the tensor table. Invariant after [`check_layout`]: `span` lies inside the file.
#[derive(Clone, Debug)]
pub(crate) struct TensorInfo {
    pub(crate) kind: TensorType,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) span: Range<usize>,
    offset: u64,
    /// None if the type is not known: then the span runs to the next tensor.
    size: Option<u64>,
}

impl TensorInfo {
    pub(crate) fn new(tensor: &str, dims: &[u64], kind: TensorType, offset: u64) -> Result<TensorInfo, GgufError> {
        let impossible = || GgufError::Dimensions { tensor: tensor.to_owned(), dims: dims.to_vec() };
        let (&cols, outer) = dims.split_first().ok_or_else(impossible)?;
        let rows = outer.iter().try_fold(1_u64, |rows, dim| rows.checked_mul(*dim)).ok_or_else(impossible)?;
        let values = rows.checked_mul(cols).filter(|&values| values > 0 && values < 1 << 48).ok_or_else(impossible)?;
        let size = match kind.layout() {
            None => None,
            Some(layout) => {
                let Layout { block, block_bytes, row_head, tail } = layout;
                if cols % block != 0 {
                    return Err(GgufError::Block { tensor: tensor.to_owned(), cols, block, kind: kind.to_string() });
                }
                // Below 2^48 values and at most 8 bytes for each, so nothing here can overflow.
                Some(values / block * block_bytes + rows * row_head + tail)
            }
        };
        let rows = usize::try_from(rows).map_err(|_| impossible())?;
        let cols = usize::try_from(cols).map_err(|_| impossible())?;
        Ok(TensorInfo { kind, rows, cols, span: 0..0, offset, size })
    }
}

/// Gives every tensor its span, or says which one is misaligned, outside of the file, scattered, or shares bytes.
pub(crate) fn check_layout(
    tensors: &mut BTreeMap<String, TensorInfo>,
    data: u64,
    file: u64,
    alignment: u64,
) -> Result<(), GgufError> {
    let section = file - data;
    if let Some((tensor, info)) = tensors.iter().find(|(_, info)| info.offset % alignment != 0) {
        return Err(GgufError::Misaligned { tensor: tensor.clone(), offset: info.offset, alignment });
    }
    let mut order: Vec<(&String, &mut TensorInfo)> = tensors.iter_mut().collect();
    order.sort_by_key(|(_, info)| info.offset);
    let starts: Vec<u64> = order.iter().skip(1).map(|(_, info)| info.offset).chain([section]).collect();
    let names: Vec<String> = order.iter().map(|(name, _)| (*name).clone()).collect();
    for (index, (name, info)) in order.into_iter().enumerate() {
        let tensor = || name.clone();
        let next = starts[index];
        let room = section.saturating_sub(info.offset);
        let size = info.size.unwrap_or_else(|| next.saturating_sub(info.offset).max(1));
        if size > room {
            return Err(GgufError::OutOfFile { tensor: tensor(), offset: info.offset, needed: size, left: section });
        }
        if info.offset + size > next {
            return Err(GgufError::Overlap {
                first: tensor(),
                second: names[(index + 1).min(names.len() - 1)].clone(),
            });
        }
        let found = next - info.offset;
        if info.kind == TensorType::I2S && found >= size + alignment {
            return Err(GgufError::Scattered { tensor: tensor(), found, wanted: size });
        }
        let place = |position: u64| usize::try_from(position).expect("not past the end of bytes in memory");
        info.span = place(data + info.offset)..place(data + info.offset + size);
    }
    Ok(())
}

/// One tensor of an open file.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Number of rows: the product of all dimensions but the first.
    pub rows: usize,
    /// Values in a row: the first dimension.
    pub cols: usize,
    /// How values are stored.
    pub kind: TensorType,
    /// The bytes of all rows.
    pub bytes: &'a [u8],
    gguf: &'a Gguf,
}

impl<'a> Tensor<'a> {
    pub(crate) fn new(gguf: &'a Gguf, name: &'a str, info: &TensorInfo) -> Tensor<'a> {
        let bytes = &gguf.bytes()[info.span.clone()];
        Tensor { name, rows: info.rows, cols: info.cols, kind: info.kind, bytes, gguf }
    }

    /// The tensor itself if it has this shape.
    ///
    /// # Errors
    /// [`GgufError::Shape`].
    pub fn shaped(self, rows: usize, cols: usize) -> Result<Tensor<'a>, GgufError> {
        if self.rows == rows && self.cols == cols {
            return Ok(self);
        }
        Err(GgufError::Shape {
            tensor: self.name.to_owned(),
            cols: self.cols as u64,
            rows: self.rows as u64,
            wanted_cols: cols as u64,
            wanted_rows: rows as u64,
        })
    }

    /// The rows of a ternary matrix. Checks that every value is -1, 0 or +1 times one scale, in one pass over the bytes.
    ///
    /// # Errors
    /// Another type, a value between, several scales, or a scale that is not finite and above zero.
    pub fn ternary(&self) -> Result<TernaryRows<'a>, GgufError> {
        TernaryRows::check(self)
    }

    /// The rows of an embedding or a norm, widened exactly to binary32.
    ///
    /// # Errors
    /// Another type.
    pub fn floats(&self) -> Result<FloatRows<'a>, GgufError> {
        FloatRows::check(self)
    }

    /// A factor kept beside the matrix: `x.scale` for `x.weight`, as early BitNet conversions have it.
    pub(crate) fn factor(&self) -> Result<Option<f32>, GgufError> {
        let Some(stem) = self.name.strip_suffix(".weight") else { return Ok(None) };
        let Some(tensor) = self.gguf.opt_tensor(&format!("{stem}.scale")) else { return Ok(None) };
        let rows = tensor.shaped(1, 1)?.floats()?;
        let mut factor = [0.0];
        rows.row(0, &mut factor);
        Ok(Some(factor[0]))
    }
}
