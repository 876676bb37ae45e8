//! Ternary weights in the order the kernels read: rows interleaved by sixteen.
//!
//! A [`Block`] is one 64-byte line: 16 rows x 16 columns of 2-bit codes `t + 1`. Byte `4 * row + b` holds, in bits `2p` and `2p + 1`,
//! column `4 * p + b` of the block. So a 512-bit register is sixteen 32-bit lanes, one per row; a shift by `2p` and a mask
//! leave four consecutive columns in each lane, to be multiplied by the same four activations broadcast to all lanes. No
//! shuffle, no horizontal sum, one layout for decode and prefill and for every path.

use super::TernarySlice;
use crate::memory::Buffer;
/// 16 rows x 16 columns of ternary codes.
pub use crate::memory::Line as Block;

/// Rows of one group.
pub const GROUP_ROWS: usize = 16;
/// Columns of one block.
pub const BLOCK_COLUMNS: usize = 16;

/// Every weight zero: code 1 in each place.
const ZEROS: Block = Block([0b0101_0101; 64]);

/// A ternary matrix, or several of the same width stacked.
#[derive(Debug)]
pub struct Packed {
    blocks: Buffer<Block>,
    scales: Vec<f32>,
    columns: usize,
}

impl Packed {
    /// A matrix of zeros with one scale per group of sixteen rows.
    #[must_use]
    pub fn zeros(columns: usize, scales: Vec<f32>) -> Packed {
        let mut blocks = Buffer::zeros(scales.len() * columns.div_ceil(BLOCK_COLUMNS));
        blocks.fill(ZEROS);
        Packed { blocks, scales, columns }
    }

    /// Input width.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Groups of sixteen rows.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.scales.len()
    }

    /// Blocks of one group.
    #[must_use]
    pub fn per_group(&self) -> usize {
        self.columns.div_ceil(BLOCK_COLUMNS)
    }

    /// Bytes of the codes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of_val::<[Block]>(&self.blocks)
    }

    /// A run of groups.
    #[must_use]
    pub fn slice(&self, groups: std::ops::Range<usize>) -> TernarySlice<'_> {
        let per_group = self.per_group();
        TernarySlice {
            blocks: &self.blocks[groups.start * per_group..groups.end * per_group],
            per_group,
            scales: &self.scales[groups],
        }
    }

    /// The blocks of each group in turn, to be filled by [`pack_row`].
    pub fn groups_mut(&mut self) -> std::slice::ChunksExactMut<'_, Block> {
        let per_group = self.per_group();
        self.blocks.chunks_exact_mut(per_group)
    }
}

/// Writes one row, -1, 0 or +1 each, as row `row` of a group.
///
/// # Panics
/// If `row` is not below 16 or the group is narrower than `values`.
#[expect(clippy::cast_sign_loss, reason = "t + 1 is 0, 1 or 2")]
pub fn pack_row(group: &mut [Block], row: usize, values: &[i8]) {
    assert!(row < GROUP_ROWS && values.len().div_ceil(BLOCK_COLUMNS) <= group.len(), "a row of this group");
    for (block, columns) in group.iter_mut().zip(values.chunks(BLOCK_COLUMNS)) {
        let mut codes = [1_u8; BLOCK_COLUMNS];
        for (code, &t) in codes.iter_mut().zip(columns) {
            debug_assert!((-1..=1).contains(&t), "a ternary value");
            *code = (t + 1) as u8;
        }
        for b in 0..4 {
            block.0[4 * row + b] = codes[b] | codes[4 + b] << 2 | codes[8 + b] << 4 | codes[12 + b] << 6;
        }
    }
}

/// The ternary value at `row` and `column` of a group.
#[must_use]
#[expect(clippy::cast_possible_wrap, reason = "codes are 0, 1 or 2")]
pub fn unpack(group: &[Block], row: usize, column: usize) -> i8 {
    let (block, inside) = (column / BLOCK_COLUMNS, column % BLOCK_COLUMNS);
    let byte = group[block].0[4 * row + inside % 4];
    (byte >> (2 * (inside / 4)) & 3) as i8 - 1
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_COLUMNS, GROUP_ROWS, Packed, pack_row, unpack};

    #[test]
    fn packing_keeps_every_value() {
        let columns = 37;
        let value = |row: usize, column: usize| i8::try_from((row * 7 + column * 5) % 3).expect("small") - 1;
        let mut packed = Packed::zeros(columns, vec![1.0]);
        assert_eq!(packed.per_group(), 3);
        for group in packed.groups_mut() {
            for row in 0..GROUP_ROWS {
                let values: Vec<i8> = (0..columns).map(|column| value(row, column)).collect();
                pack_row(group, row, &values);
            }
        }
        let slice = packed.slice(0..1);
        for row in 0..GROUP_ROWS {
            for column in 0..columns {
                assert_eq!(unpack(slice.blocks, row, column), value(row, column));
            }
            for column in columns..3 * BLOCK_COLUMNS {
                assert_eq!(unpack(slice.blocks, row, column), 0);
            }
        }
    }
}
