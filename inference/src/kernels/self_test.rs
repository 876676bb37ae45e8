//! Golden vectors for the selected path, run at every start: a CPU or compiler that computes something else must never sign.

use super::packed::{BLOCK_COLUMNS, GROUP_ROWS, pack_row};
use super::{Activations, CoarseSlice, KernelKind, Kernels, Packed, ProbeSlice, Queries, Store};
use crate::arith::half::widen;
use crate::arith::mode::{self, FloatModeError};
use crate::arith::norm::RowScale;
use crate::arith::screen::{Probe, coarse, probe};
use crate::embedding::{SCREEN_ROWS, SplitRow, split};
use crate::gguf::float::Precision;
use crate::hyper::Gate;
use crate::memory::{Line, as_bytes, as_bytes_mut};
use crate::pool::Matrix;

/// BLAKE3 over every result below.
const GOLDEN: &str = "3850be213df26595301d6ec4578ac33151a53f36e7b6763e7aad33b9b92fad82";

/// The kernels do not compute the canonical arithmetic on this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelfTestError {
    /// A result differs.
    #[error(
        "the {kernel} kernels give digest {got} on the golden vectors, {GOLDEN} is right; choose another kernel and report this CPU"
    )]
    Digest {
        /// The path.
        kernel: KernelKind,
        /// What came out.
        got: String,
    },
    /// The thread's float environment.
    #[error(transparent)]
    FloatMode(#[from] FloatModeError),
}

/// Runs every kernel of a path on fixed inputs and compares one digest.
pub fn self_test(kernels: &Kernels) -> Result<(), SelfTestError> {
    mode::check()?;
    let got = digest(kernels);
    if got == GOLDEN { Ok(()) } else { Err(SelfTestError::Digest { kernel: kernels.kind, got }) }
}

/// Numbers of both signs over several magnitudes; a plain congruence, the same everywhere.
fn numbers(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from_bits((state & 0x8000_0000) | (0x3c00_0000 + ((state >> 4) & 0x03ff_ffff)))
        })
        .collect()
}

fn digest(kernels: &Kernels) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut note = |values: &[f32]| {
        for value in values {
            hasher.update(&value.to_bits().to_le_bytes());
        }
    };
    // Widths around the lanes, rows around the tiles.
    for (width, rows) in [(1, 1), (15, 2), (16, 3), (100, 9), (320, 17)] {
        let x = numbers(1, width * rows);
        let gain = numbers(2, width);
        let mut normed = vec![0.0; width];
        let mut packed = Packed::zeros(width, vec![0.75, 1.25, 0.5]);
        for (index, group) in packed.groups_mut().enumerate() {
            for row in 0..GROUP_ROWS {
                let values: Vec<i8> = (0..width).map(|c| [-1, 0, 1, 1, 0][(c * 7 + row * 3 + index) % 5]).collect();
                pack_row(group, row, &values);
            }
        }
        let stride = width.next_multiple_of(BLOCK_COLUMNS);
        let mut q = vec![0; stride * rows];
        let mut scales = vec![RowScale::default(); rows];
        for ((x, q), scale) in x.chunks_exact(width).zip(q.chunks_exact_mut(stride)).zip(&mut scales) {
            *scale = (kernels.norm_quantise)(x, &gain, 1e-5, q).unwrap_or_default();
            let finite = (kernels.norm)(x, &gain, 1e-5, &mut normed);
            note(&normed);
            note(&[scale.k, f32::from(u8::from(finite))]);
        }
        let mut product = vec![0.0; rows * 3 * GROUP_ROWS];
        let activations = Activations { q: &q, stride, scales: &scales };
        let mut columns = Matrix::new(&mut product, rows, 3 * GROUP_ROWS, GROUP_ROWS).into_columns(3);
        (kernels.ternary)(&packed.slice(0..3), &activations, Store::Set, &mut columns);
        (kernels.ternary)(&packed.slice(0..3), &activations, Store::Add, &mut columns);
        note(&product);

        let mut halves = vec![0; width * rows];
        let fits = (kernels.narrow)(&x, &mut halves);
        let lengths: Vec<usize> = (0..7).map(|query| 1 + (rows - 1) * query / 6).collect();
        let q = gain.repeat(lengths.len());
        let queries = Queries { q: &q, dim: width, lengths: &lengths, keys: &halves, values: &halves };
        let (mut scores, mut mixed) = (vec![0.0; 7 * rows], vec![0.0; q.len()]);
        let mut finite = [false; 7];
        (kernels.attend)(&queries, &mut scores, &mut mixed, &mut finite);
        note(&mixed);
        note(&[f32::from(u8::from(fits)), f32::from(u8::from(finite == [true; 7]))]);

        let mut logits = vec![0.0; rows * rows];
        let mut columns = Matrix::new(&mut logits, rows, rows, 1).into_columns(rows);
        let wide: Vec<f32> = halves.iter().map(|&half| widen(half)).collect();
        (kernels.head)(&wide, width, &x, &mut columns);
        note(&logits);
        note(&[(kernels.dot)(&wide, &x)]);
        note(&screened(kernels, &wide, &x, width));
    }
    for gate in [Gate::SquaredRelu, Gate::Silu] {
        let mut gated = vec![0.0; 64];
        (kernels.gate)(gate, &numbers(3, 128), &mut gated);
        note(&gated);
    }
    let mut powers: Vec<f32> = (0..512_u16).map(|i| -f32::from(i) * 0.171).collect();
    (kernels.exp)(&mut powers);
    note(&powers);
    note(&[(kernels.sum)(&powers)]);
    hasher.finalize().to_hex().to_string()
}

/// Approximate logits of some rows for two states, and a row put together again.
#[expect(clippy::cast_precision_loss, reason = "below 2^24")]
fn screened(kernels: &Kernels, wide: &[f32], x: &[f32], width: usize) -> Vec<f32> {
    let per_row = width.div_ceil(64);
    let stride = 64 * per_row;
    let mut lines = vec![Line::default(); SCREEN_ROWS * per_row];
    let mut scales = [0.0; SCREEN_ROWS];
    for (row, scale) in scales.iter_mut().enumerate() {
        let values = &wide[row % (wide.len() / width) * width..][..width];
        *scale = coarse(values, as_bytes_mut(&mut lines[row * per_row..(row + 1) * per_row])).scale;
    }
    let (mut high, mut low) = (vec![0; 2 * stride], vec![0; 2 * stride]);
    let mut probes = [Probe::default(); 2];
    let parts = high.chunks_exact_mut(stride).zip(low.chunks_exact_mut(stride));
    for (index, ((high, low), found)) in parts.zip(&mut probes).enumerate() {
        *found = probe(&x[index % (x.len() / width) * width..][..width], high, low).unwrap_or_default();
    }
    let mut out = Vec::new();
    for (states, low) in [(1, &low[..stride]), (2, &low), (2, &[])] {
        let slice = ProbeSlice { high: &high[..states * stride], low, stride, probes: &probes[..states] };
        let mut logits = vec![0.0; states * SCREEN_ROWS];
        let mut columns = Matrix::new(&mut logits, states, SCREEN_ROWS, SCREEN_ROWS).into_columns(1);
        (kernels.screen)(&CoarseSlice { lines: &lines, per_row, scales: &scales }, &slice, &mut columns);
        out.extend(logits);
    }
    out.push((kernels.steps)(&lines[..per_row], &low[..stride]) as f32);
    let coarse = &as_bytes(&lines)[..width];
    let (mut fine, mut small) = (vec![0; width], Vec::new());
    split(&wide[..width], coarse, Precision::Half, &mut fine, &mut small);
    let row = SplitRow { coarse, fine: &fine, small: &small, scale: scales[0], precision: Precision::Half };
    let mut joined = vec![0.0; width];
    (kernels.join)(&row, &mut joined);
    out.extend(joined);
    out
}

#[cfg(test)]
mod tests {
    use super::{GOLDEN, SelfTestError, digest, self_test};
    use crate::kernels::{KernelKind, Kernels, Store};

    #[test]
    fn every_path_of_this_cpu_passes() {
        for kind in KernelKind::ALL.into_iter().filter(|kind| kind.is_available()) {
            let kernels = Kernels::forced(kind).expect("available");
            assert_eq!(digest(&kernels), GOLDEN, "{kind}");
        }
    }

    #[test]
    fn a_kernel_that_is_wrong_in_one_place_fails() {
        let mut kernels = Kernels::detect();
        kernels.ternary = |matrix, activations, _, out| {
            (Kernels::detect().ternary)(matrix, activations, Store::Set, out);
        };
        assert!(matches!(self_test(&kernels), Err(SelfTestError::Digest { .. })));
    }
}
