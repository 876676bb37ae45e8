//! The hot loops, one table of functions per kind of CPU, chosen once at start.
//!
//! [`Kernels::detect`] takes the best path this CPU has, [`Kernels::forced`] a named one or an error. Every function of every
//! table equals its scalar twin in [`crate::arith`] bit for bit; `tests/kernels.rs` compares them over odd shapes.
//!
//! Float kernels are written once, in `float.rs`, over the sixteen lanes of `lanes.rs`; a path supplies the lanes. Only the integer products of
//! ternary matrices are written per path, since their sums are exact in any order.

use std::fmt;
use std::str::FromStr;

use crate::arith::norm::RowScale;
use crate::arith::screen::{Probe, approximate};
use crate::embedding::{SCREEN_ROWS, SplitRow};
use crate::hyper::Gate;
use crate::memory::Line;
use crate::pool::Columns;

pub mod attention;
pub mod packed;
pub mod peak;
pub mod self_test;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod float;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

pub use attention::Queries;
pub use packed::{Block, Packed};

/// A kernel path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KernelKind {
    /// Plain Rust with software fma. Runs everywhere, slowly.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL, without VNNI.
    Avx512Plain,
    /// The same with VNNI.
    Avx512,
    /// aarch64.
    Neon,
}

impl KernelKind {
    /// Every path, slowest first.
    pub const ALL: [KernelKind; 5] =
        [KernelKind::Scalar, KernelKind::Neon, KernelKind::Avx2, KernelKind::Avx512Plain, KernelKind::Avx512];

    /// The name used in options and output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            KernelKind::Scalar => "scalar",
            KernelKind::Avx2 => "avx2",
            KernelKind::Avx512Plain => "avx512-plain",
            KernelKind::Avx512 => "avx512",
            KernelKind::Neon => "neon",
        }
    }

    /// Whether this CPU has what the path needs.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            KernelKind::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            KernelKind::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            KernelKind::Avx512Plain => {
                KernelKind::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            KernelKind::Avx512 => KernelKind::Avx512Plain.is_available() && is_x86_feature_detected!("avx512vnni"),
            #[cfg(not(target_arch = "x86_64"))]
            KernelKind::Avx2 | KernelKind::Avx512Plain | KernelKind::Avx512 => false,
            KernelKind::Neon => cfg!(target_arch = "aarch64"),
        }
    }
}

impl fmt::Display for KernelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kernel path that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// No path has this name.
    #[error("kernel: {0:?} is not one of scalar, avx2, avx512-plain, avx512, neon")]
    Unknown(String),
    /// The CPU lacks an instruction set.
    #[error("kernel: this CPU cannot run the {0} path; leave the option out to get the best it has")]
    Unavailable(KernelKind),
}

impl FromStr for KernelKind {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        KernelKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| KernelError::Unknown(name.to_owned()))
    }
}

/// Some 16-row groups of a packed ternary matrix.
#[derive(Clone, Copy, Debug)]
pub struct TernarySlice<'a> {
    /// `groups * per_group` blocks, group after group.
    pub blocks: &'a [Block],
    /// Blocks of one group: columns / 16, rounded up.
    pub per_group: usize,
    /// The tensor's scale, once per group.
    pub scales: &'a [f32],
}

/// Quantised rows.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    /// `[rows][stride]`; columns past the width are zero.
    pub q: &'a [i8],
    /// Bytes of a row: 16 per block.
    pub stride: usize,
    /// What belongs to each row.
    pub scales: &'a [RowScale],
}

/// Some rows of the coarse form of an embedding, a multiple of [`crate::embedding::SCREEN_ROWS`].
#[derive(Clone, Copy, Debug)]
pub struct CoarseSlice<'a> {
    /// `[rows][per_row]`: 64 values in a line, 128 added to each.
    pub lines: &'a [Line],
    /// Lines of one row.
    pub per_row: usize,
    /// One per row.
    pub scales: &'a [f32],
}

/// Hidden states, quantised for the screen.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSlice<'a> {
    /// Upper parts, `[states][stride]`; places past the width are zero.
    pub high: &'a [i8],
    /// Lower parts, the same; none where the upper parts alone are screened.
    pub low: &'a [i8],
    /// Values of a part: 64 per line.
    pub stride: usize,
    /// What belongs to each state.
    pub probes: &'a [Probe],
}

/// What the kernel does with a product: replaces the output, or adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// `y = product`
    Set,
    /// `y = y + product`, the residual connection.
    Add,
}

/// R6: outputs of the groups in the slice, for every row of activations. `out` has 16 columns per group.
pub type TernaryFn = fn(&TernarySlice<'_>, &Activations<'_>, Store, &mut Columns<'_>);
/// R4 and R5, see [`crate::arith::norm::norm_quantise`].
pub type NormQuantiseFn = fn(x: &[f32], gain: &[f32], eps: f32, q: &mut [i8]) -> Option<RowScale>;
/// R4, see [`crate::arith::norm::rms_norm`].
pub type NormFn = fn(x: &[f32], gain: &[f32], eps: f32, y: &mut [f32]) -> bool;
/// R10 over groups of 16 gates followed by 16 ups: `pairs` is twice as long as `out`.
pub type GateFn = fn(gate: Gate, pairs: &[f32], out: &mut [f32]);
/// R8 for several queries, see [`crate::arith::attention::attend`]. `scores` is scratch for every query and position, `out` is
/// `[queries][dim]`; `finite` tells whose scores were.
pub type AttendFn = fn(queries: &Queries<'_>, scores: &mut [f32], out: &mut [f32], finite: &mut [bool]);
/// binary16 rounding of a row; false if one is not finite afterwards.
pub type NarrowFn = fn(values: &[f32], halves: &mut [u16]) -> bool;
/// R11: `out[t][v] = dot(x_t, E_v)`; `rows` is `[v][dim]`, `x` is `[out.rows()][dim]`.
pub type HeadFn = fn(rows: &[f32], dim: usize, x: &[f32], out: &mut Columns<'_>);
/// A row of an embedding put together, see [`crate::embedding::join`].
pub type JoinFn = fn(row: &SplitRow<'_>, out: &mut [f32]);
/// Approximate logits, see [`crate::arith::screen::approximate`]: `out[t][v]` for every state and row. Without lower parts their sums count as 0.
pub type ScreenFn = fn(rows: &CoarseSlice<'_>, states: &ProbeSlice<'_>, out: &mut Columns<'_>);
/// `Σ q_i x_i` for one row, which is stored with 128 added, and one part of a state.
pub type StepsFn = fn(row: &[Line], part: &[i8]) -> i32;
/// R3, see [`crate::arith::lanes::dot`].
pub type DotFn = fn(a: &[f32], b: &[f32]) -> f32;
/// R9 over a slice, in place.
pub type ExpFn = fn(values: &mut [f32]);
/// R3, see [`crate::arith::lanes::sum`].
pub type SumFn = fn(values: &[f32]) -> f32;

/// The functions of one path.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the types of the fields carry the documentation")]
pub struct Kernels {
    pub kind: KernelKind,
    pub ternary: TernaryFn,
    pub norm_quantise: NormQuantiseFn,
    pub norm: NormFn,
    pub gate: GateFn,
    pub attend: AttendFn,
    pub narrow: NarrowFn,
    pub head: HeadFn,
    pub join: JoinFn,
    pub screen: ScreenFn,
    pub steps: StepsFn,
    pub dot: DotFn,
    pub exp: ExpFn,
    pub sum: SumFn,
}

impl Kernels {
    /// The fastest path of this CPU.
    #[must_use]
    pub fn detect() -> Kernels {
        KernelKind::ALL
            .into_iter()
            .rev()
            .find_map(|kind| Kernels::forced(kind).ok())
            .expect("the scalar path is always available")
    }

    /// A named path.
    pub fn forced(kind: KernelKind) -> Result<Kernels, KernelError> {
        if !kind.is_available() {
            return Err(KernelError::Unavailable(kind));
        }
        match kind {
            KernelKind::Scalar => Ok(scalar::KERNELS),
            #[cfg(target_arch = "x86_64")]
            KernelKind::Avx2 => Ok(avx2::KERNELS),
            #[cfg(target_arch = "x86_64")]
            KernelKind::Avx512Plain => Ok(avx512::PLAIN),
            #[cfg(target_arch = "x86_64")]
            KernelKind::Avx512 => Ok(avx512::VNNI),
            #[cfg(target_arch = "aarch64")]
            KernelKind::Neon => Ok(neon::KERNELS),
            #[cfg(not(target_arch = "x86_64"))]
            KernelKind::Avx2 | KernelKind::Avx512Plain | KernelKind::Avx512 => Err(KernelError::Unavailable(kind)),
            #[cfg(not(target_arch = "aarch64"))]
            KernelKind::Neon => Err(KernelError::Unavailable(kind)),
        }
    }
}

/// The checks every ternary kernel makes before it touches memory.
fn check_ternary(matrix: &TernarySlice<'_>, activations: &Activations<'_>, out: &mut Columns<'_>) {
    let groups = matrix.scales.len();
    assert_eq!(matrix.blocks.len(), groups * matrix.per_group, "blocks of every group");
    assert_eq!(activations.stride, matrix.per_group * packed::BLOCK_COLUMNS, "activations as wide as the matrix");
    assert_eq!(activations.q.len(), activations.stride * activations.scales.len(), "one scale per row");
    assert_eq!(out.rows(), activations.scales.len(), "one output row per activation row");
    if out.rows() > 0 {
        assert_eq!(out.row(0).len(), groups * packed::GROUP_ROWS, "one output column per matrix row");
    }
}

/// The number of embedding rows, after checking them and `x` against `dim` and `out`.
fn check_head(rows: &[f32], dim: usize, x: &[f32], out: &mut Columns<'_>) -> usize {
    assert!(dim > 0 && rows.len().is_multiple_of(dim), "whole rows of an embedding");
    assert_eq!(x.len(), dim * out.rows(), "one hidden state per output row");
    let count = rows.len() / dim;
    if out.rows() > 0 {
        assert_eq!(out.row(0).len(), count, "one logit per embedding row");
    }
    count
}

impl<'a> ProbeSlice<'a> {
    /// The upper part of a state.
    fn high(&self, state: usize) -> &'a [i8] {
        &self.high[state * self.stride..][..self.stride]
    }

    /// The lower part of a state, if there is one.
    fn low(&self, state: usize) -> Option<&'a [i8]> {
        self.low.get(state * self.stride..(state + 1) * self.stride)
    }
}

/// A screen of one row and one part at a time.
fn screen_by_steps(rows: &CoarseSlice<'_>, states: &ProbeSlice<'_>, out: &mut Columns<'_>, steps: StepsFn) {
    check_screen(rows, states, out);
    for (v, (lines, &scale)) in rows.lines.chunks_exact(rows.per_row).zip(rows.scales).enumerate() {
        for (t, probe) in states.probes.iter().enumerate() {
            let low = states.low(t).map_or(0, |part| steps(lines, part));
            out.row(t)[v] = approximate(steps(lines, states.high(t)), low, scale, probe.unit);
        }
    }
}

/// The checks every screen makes before it touches memory.
fn check_screen(rows: &CoarseSlice<'_>, states: &ProbeSlice<'_>, out: &mut Columns<'_>) {
    assert!(rows.scales.len().is_multiple_of(SCREEN_ROWS), "whole units of rows");
    assert_eq!(rows.lines.len(), rows.scales.len() * rows.per_row, "lines of every row");
    assert_eq!(states.stride, rows.per_row * size_of::<Line>(), "states as wide as the rows");
    assert_eq!(states.high.len(), states.stride * states.probes.len(), "the upper part of every state");
    assert!(states.low.is_empty() || states.low.len() == states.high.len(), "the lower part of every state or of none");
    assert_eq!(out.rows(), states.probes.len(), "one output row per state");
    if out.rows() > 0 {
        assert_eq!(out.row(0).len(), rows.scales.len(), "one output per row");
    }
}
