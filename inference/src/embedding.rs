//! Input and output embedding: rows of numbers in the file's precision, with an int8 form of each beside it for the screen of R11.
//!
//! The int8 form ("coarse") is also the upper half of the storage. Where the file has 16-bit numbers, the lower byte of each number's bits
//! ("fine") is kept, and the number is found again as the one with this lower byte that is nearest to `scale * q`. Near zero,
//! where that is ambiguous, four bits more are kept, and eight where `q` is zero ("small"). So a matrix that can be screened takes little
//! more memory than one that cannot, and no value is lost.

use std::num::NonZeroUsize;
use std::ops::Range;

use crate::arith::half;
use crate::arith::screen::{CoarseRow, coarse};
use crate::gguf::float::{FloatRows, Precision};
use crate::kernels::{CoarseSlice, Kernels};
use crate::memory::{Buffer, Line, as_bytes, as_bytes_mut};

/// The kernels screen this many rows at a time; the matrix is padded with rows of zeros.
pub const SCREEN_ROWS: usize = 16;
/// Bytes of a line.
const LINE: usize = 64;

/// A matrix `[rows][columns]` of which rows are read, or multiplied by a hidden state.
#[derive(Debug)]
pub struct Embedding {
    rows: usize,
    columns: usize,
    /// Lines of one coarse row.
    per_row: usize,
    /// `[padded rows][per_row]`, 128 added to each value.
    coarse: Buffer<Line>,
    /// Per padded row: [`CoarseRow::scale`] and [`CoarseRow::slack`].
    scales: Buffer<f32>,
    slacks: Buffer<f32>,
    norm_max: f32,
    exact: Exact,
}

/// What the coarse form leaves out.
#[derive(Debug)]
enum Exact {
    Split {
        precision: Precision,
        /// Lower bytes, `[rows][columns]`.
        fine: Buffer<u8>,
        /// Further bits of small values, row after row, and where each row's begin, with the end.
        small: Vec<u8>,
        starts: Vec<usize>,
    },
    /// All of it, `[rows][columns]`: for numbers of more than 16 bits.
    Whole(Buffer<f32>),
}

/// One row, cut into what [`crate::kernels::JoinFn`] puts together again.
#[derive(Clone, Copy, Debug)]
pub struct SplitRow<'a> {
    /// Values with 128 added.
    pub coarse: &'a [u8],
    /// Lower bytes.
    pub fine: &'a [u8],
    /// Further bits of small values, two fours in a byte, the lower first.
    pub small: &'a [u8],
    /// Of the coarse values.
    pub scale: f32,
    /// What the 16 bits mean.
    pub precision: Precision,
}

impl Precision {
    /// Greatest magnitude of a coarse value of which more than a byte is kept.
    ///
    /// The true value differs from `scale * q` by at most half a step of the coarse form. Counted in steps of the 16-bit format that is less than
    /// 128, half of what a byte tells apart, once `q` is greater than this: `0.5 / (q - 0.5) * 2^11 < 128` for binary16, `2^8` for bfloat16.
    /// For all other `q` but zero it is at most a binade, 1024 steps, half of what twelve bits tell apart.
    #[must_use]
    pub fn small_max(self) -> u8 {
        match self {
            Precision::Half => 8,
            Precision::Bfloat => 2,
        }
    }

    /// Bits of binary32 below the format's last.
    #[must_use]
    pub fn shift(self) -> u32 {
        match self {
            Precision::Half => 13,
            Precision::Bfloat => 16,
        }
    }

    /// The bits of a number that has this precision.
    fn narrow(self, value: f32) -> u16 {
        match self {
            Precision::Half => half::narrow(value),
            Precision::Bfloat => (value.to_bits() >> 16) as u16,
        }
    }
}

/// Rows of one thread while a matrix is built.
struct Part<'a> {
    first: usize,
    coarse: &'a mut [Line],
    scales: &'a mut [f32],
    slacks: &'a mut [f32],
    fine: &'a mut [u8],
    whole: &'a mut [f32],
    /// Further bits of small values, and how many bytes of them each row has.
    small: Vec<u8>,
    counts: Vec<usize>,
    norm_max: f32,
    is_finite: bool,
}

impl Embedding {
    /// Takes over a matrix of the file, on all threads. `None` if a number in it is not finite.
    #[must_use]
    pub fn new(source: &FloatRows<'_>, threads: NonZeroUsize) -> Option<Embedding> {
        let (rows, columns) = (source.rows(), source.cols());
        let (padded, per_row) = (rows.next_multiple_of(SCREEN_ROWS), columns.div_ceil(LINE));
        let precision = source.precision();
        let mut coarse = Buffer::<Line>::zeros(padded * per_row);
        let (mut scales, mut slacks) = (Buffer::zeros(padded), Buffer::zeros(padded));
        let mut fine = Buffer::zeros(if precision.is_some() { rows * columns } else { 0 });
        let mut whole = Buffer::zeros(if precision.is_none() { rows * columns } else { 0 });

        let share = rows.div_ceil(threads.get()).max(1);
        let mut parts = Vec::new();
        {
            let mut fine = fine.chunks_mut(share * columns);
            let mut whole = whole.chunks_mut(share * columns);
            let coarse = coarse.chunks_mut(share * per_row);
            let places = coarse.zip(scales.chunks_mut(share)).zip(slacks.chunks_mut(share));
            for (index, ((coarse, scales), slacks)) in places.enumerate() {
                parts.push(Part {
                    first: index * share,
                    coarse,
                    scales,
                    slacks,
                    fine: fine.next().unwrap_or_default(),
                    whole: whole.next().unwrap_or_default(),
                    small: Vec::new(),
                    counts: Vec::new(),
                    norm_max: 0.0,
                    is_finite: true,
                });
            }
            std::thread::scope(|scope| {
                for part in &mut parts {
                    scope.spawn(|| part.fill(source, precision));
                }
            });
        }
        if parts.iter().any(|part| !part.is_finite) {
            return None;
        }
        let norm_max = parts.iter().fold(0.0_f32, |m, part| if part.norm_max > m { part.norm_max } else { m });
        let (mut small, mut starts) = (Vec::new(), vec![0]);
        small.reserve_exact(parts.iter().map(|part| part.small.len()).sum());
        for part in &parts {
            small.extend_from_slice(&part.small);
            for count in &part.counts {
                starts.push(starts.last().copied().unwrap_or_default() + count);
            }
        }
        drop(parts);
        let exact = match precision {
            Some(precision) => Exact::Split { precision, fine, small, starts },
            None => Exact::Whole(whole),
        };
        Some(Embedding { rows, columns, per_row, coarse, scales, slacks, norm_max, exact })
    }

    /// Rows: the vocabulary.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows and the zeros after them.
    #[must_use]
    pub fn padded_rows(&self) -> usize {
        self.scales.len()
    }

    /// Columns: the model's width.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of a coarse row.
    #[must_use]
    pub fn coarse_stride(&self) -> usize {
        self.per_row * LINE
    }

    /// At least the norm of any row, exact or coarse.
    #[must_use]
    pub fn norm_max(&self) -> f32 {
        self.norm_max
    }

    /// Per padded row: what the screen's bound takes times the norm of the state.
    #[must_use]
    pub fn slacks(&self) -> &[f32] {
        &self.slacks
    }

    /// Bytes held.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let exact = match &self.exact {
            Exact::Split { fine, small, starts, .. } => fine.len() + small.len() + size_of_val(starts.as_slice()),
            Exact::Whole(values) => size_of_val::<[f32]>(values),
        };
        size_of_val::<[Line]>(&self.coarse) + 2 * size_of_val::<[f32]>(&self.scales) + exact
    }

    /// Coarse rows of some units of [`SCREEN_ROWS`].
    #[must_use]
    pub fn coarse(&self, units: Range<usize>) -> CoarseSlice<'_> {
        let rows = units.start * SCREEN_ROWS..units.end * SCREEN_ROWS;
        CoarseSlice {
            lines: &self.coarse[rows.start * self.per_row..rows.end * self.per_row],
            per_row: self.per_row,
            scales: &self.scales[rows],
        }
    }

    /// What `Σ q_i low_i` of row `index` adds to an approximate logit of the upper parts alone.
    ///
    /// # Panics
    /// If there is no such row, or `low` has not [`coarse_stride`](Self::coarse_stride) values.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a part of the bound")]
    pub fn lower_steps(&self, kernels: &Kernels, index: usize, low: &[i8], unit: f32) -> f32 {
        let sum = (kernels.steps)(&self.coarse[index * self.per_row..(index + 1) * self.per_row], low);
        sum as f32 * (self.scales[index] * unit)
    }

    /// Writes row `index` to `out`.
    ///
    /// # Panics
    /// If there is no such row, or `out` has another width.
    pub fn row(&self, kernels: &Kernels, index: usize, out: &mut [f32]) {
        assert!(index < self.rows && out.len() == self.columns, "a row of the embedding");
        let values = index * self.columns..(index + 1) * self.columns;
        match &self.exact {
            Exact::Whole(whole) => out.copy_from_slice(&whole[values]),
            Exact::Split { precision, fine, small, starts } => {
                let coarse = as_bytes(&self.coarse[index * self.per_row..(index + 1) * self.per_row]);
                let row = SplitRow {
                    coarse: &coarse[..self.columns],
                    fine: &fine[values],
                    small: &small[starts[index]..starts[index + 1]],
                    scale: self.scales[index],
                    precision: *precision,
                };
                (kernels.join)(&row, out);
            }
        }
    }
}

impl Part<'_> {
    fn fill(&mut self, source: &FloatRows<'_>, precision: Option<Precision>) {
        let columns = source.cols();
        let mut values = vec![0.0; columns];
        let per_row = columns.div_ceil(LINE);
        for index in 0..self.scales.len() {
            let bytes = as_bytes_mut(&mut self.coarse[index * per_row..(index + 1) * per_row]);
            let row = self.first + index;
            if row >= source.rows() {
                bytes.fill(128);
                continue;
            }
            source.row(row, &mut values);
            if !values.iter().all(|value| value.is_finite()) {
                self.is_finite = false;
                return;
            }
            let CoarseRow { scale, slack, norm } = coarse(&values, bytes);
            (self.scales[index], self.slacks[index]) = (scale, slack);
            self.norm_max = if norm > self.norm_max { norm } else { self.norm_max };
            let range = index * columns..(index + 1) * columns;
            match precision {
                Some(precision) => self.split(&values, index, range, precision),
                None => self.whole[range].copy_from_slice(&values),
            }
        }
    }

    fn split(&mut self, values: &[f32], index: usize, range: Range<usize>, precision: Precision) {
        let per_row = values.len().div_ceil(LINE);
        let coarse = &as_bytes(&self.coarse[index * per_row..(index + 1) * per_row])[..values.len()];
        let before = self.small.len();
        split(values, coarse, precision, &mut self.fine[range], &mut self.small);
        self.counts.push(self.small.len() - before);
    }
}

/// What the coarse form of a row leaves out: a byte of each value, and further bits of small ones, which are appended.
///
/// # Panics
/// If `coarse` or `fine` has another length than `values`.
#[expect(clippy::cast_possible_truncation, reason = "some bits are meant")]
pub fn split(values: &[f32], coarse: &[u8], precision: Precision, fine: &mut [u8], small: &mut Vec<u8>) {
    assert!(values.len() == coarse.len() && values.len() == fine.len(), "one coarse and one fine byte per value");
    let mut half = None;
    let mut push = |bits: u8| match half.take() {
        None => half = Some(bits),
        Some(lower) => small.push(lower | bits << 4),
    };
    for ((&value, &biased), fine) in values.iter().zip(coarse).zip(fine) {
        // The steps of the 16-bit format, counted in binary32.
        let steps = value.abs().to_bits() >> precision.shift();
        match biased.abs_diff(128) {
            0 => {
                let [low, high] = precision.narrow(value).to_le_bytes();
                *fine = low;
                push(high & 15);
                push(high >> 4);
            }
            q => {
                *fine = steps as u8;
                if q <= precision.small_max() {
                    push((steps >> 8) as u8 & 15);
                }
            }
        }
    }
    // One byte more than is needed, so that a pair of bytes can be read at any place.
    small.extend([half.unwrap_or_default(), 0]);
}

/// Puts a row together: the plain form of [`crate::kernels::JoinFn`].
///
/// # Panics
/// If parts of the row have other lengths than `out`, or `small` is not what [`split`] made of it.
#[inline(always)]
pub fn join(row: &SplitRow<'_>, out: &mut [f32]) {
    assert!(row.coarse.len() == out.len() && row.fine.len() == out.len(), "one coarse and one fine byte per value");
    spread(row, out);
    match row.precision {
        Precision::Half => complete::<13>(row, out),
        Precision::Bfloat => complete::<16>(row, out),
    }
}

/// Puts the next eight further bits beside every value that may need some, as the bits of `out`. No branch depends on the values: they
/// are as good as random.
#[inline(always)]
fn spread(row: &SplitRow<'_>, out: &mut [f32]) {
    let limit = row.precision.small_max();
    // How many fours of bits each value takes, all at once; then where they are, one after the other.
    for (&biased, out) in row.coarse.iter().zip(&mut *out) {
        let q = biased.abs_diff(128);
        *out = f32::from_bits(u32::from(q <= limit) + u32::from(q == 0));
    }
    let mut taken = 0;
    for out in out {
        let count = out.to_bits() as usize;
        let pair = u16::from_le_bytes([row.small[taken / 2], row.small[taken / 2 + 1]]);
        *out = f32::from_bits(u32::from(pair >> (4 * (taken % 2)) & 255));
        taken += count;
    }
}

/// The number nearest to the coarse one with the given lower 8 or 12 bits; where the coarse one is zero, the number with these 16 bits.
#[inline(always)]
fn complete<const SHIFT: u32>(row: &SplitRow<'_>, out: &mut [f32]) {
    let limit = i32::from(row.precision.small_max());
    for ((&biased, &fine), out) in row.coarse.iter().zip(row.fine).zip(out) {
        let (q, fine, further) = (i32::from(biased) - 128, u32::from(fine), out.to_bits());
        #[expect(clippy::cast_precision_loss, reason = "at most 128")]
        let near = ((q.abs() as f32) * row.scale).to_bits() >> SHIFT;
        // The difference in steps, as a number of 8 or 12 bits with a sign.
        let eight = (fine.wrapping_sub(near) << 24).cast_signed() >> 24;
        let twelve = ((further & 15) << 8 | fine).wrapping_sub(near) << 20;
        let step = if q.abs() <= limit { twelve.cast_signed() >> 20 } else { eight };
        let magnitude = near.wrapping_add_signed(step) << SHIFT;
        let nearest = f32::from_bits(magnitude & 0x7fff_ffff | q.cast_unsigned() & 0x8000_0000);
        let bits = further << 8 | fine;
        // Exponents of binary16 are 112 less; the product is exact, subnormal numbers included.
        let whole = if SHIFT == 16 {
            f32::from_bits(bits << 16)
        } else {
            let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
            f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
        };
        *out = if q == 0 { whole } else { nearest };
    }
}
