//! The scalar path: the functions of [`crate::arith`] behind the table's signatures.

use super::packed::{GROUP_ROWS, unpack};
use super::{Activations, FloatSlice, KernelKind, Kernels, Store, TernarySlice, check_head, check_ternary};
use crate::arith::exp::exp32;
use crate::arith::half::{is_special, narrow, widen, widen_bfloat};
use crate::arith::lanes::{dot, sum};
use crate::arith::{attention, gate, linear, norm};
use crate::hyper::Gate;
use crate::pool::Columns;

pub(super) const KERNELS: Kernels = Kernels {
    kind: KernelKind::Scalar,
    ternary,
    norm_quantise: norm::norm_quantise,
    norm: norm::rms_norm,
    gate: gates,
    attend: attention::attend,
    narrow: narrow_all,
    head,
    exp,
    sum,
};

fn ternary(matrix: &TernarySlice<'_>, activations: &Activations<'_>, store: Store, out: &mut Columns<'_>) {
    check_ternary(matrix, activations, out);
    let mut weights = vec![0_i8; activations.stride];
    for (index, (group, &scale)) in matrix.blocks.chunks_exact(matrix.per_group).zip(matrix.scales).enumerate() {
        for row in 0..GROUP_ROWS {
            for (column, weight) in weights.iter_mut().enumerate() {
                *weight = unpack(group, row, column);
            }
            for (t, &row_scale) in activations.scales.iter().enumerate() {
                let q = &activations.q[t * activations.stride..][..activations.stride];
                let y = linear::scaled(linear::ternary_dot(q, &weights), scale, row_scale);
                let cell = &mut out.row(t)[index * GROUP_ROWS + row];
                *cell = match store {
                    Store::Set => y,
                    Store::Add => *cell + y,
                };
            }
        }
    }
}

fn gates(kind: Gate, pairs: &[f32], out: &mut [f32]) {
    assert_eq!(pairs.len(), 2 * out.len(), "a gate and an up value per output");
    for (pair, out) in pairs.chunks_exact(2 * GROUP_ROWS).zip(out.chunks_exact_mut(GROUP_ROWS)) {
        let (g, u) = pair.split_at(GROUP_ROWS);
        for ((y, &g), &u) in out.iter_mut().zip(g).zip(u) {
            *y = match kind {
                Gate::SquaredRelu => gate::squared_relu(g, u),
                Gate::Silu => gate::silu(g, u),
            };
        }
    }
}

fn narrow_all(values: &[f32], halves: &mut [u16]) -> bool {
    assert_eq!(values.len(), halves.len(), "one half per value");
    let mut finite = true;
    for (half, &value) in halves.iter_mut().zip(values) {
        *half = narrow(value);
        finite &= !is_special(*half);
    }
    finite
}

fn head(rows: FloatSlice<'_>, dim: usize, x: &[f32], out: &mut Columns<'_>) {
    let count = check_head(rows, dim, x, out);
    let mut wide = vec![0.0; dim];
    for v in 0..count {
        let range = v * dim..(v + 1) * dim;
        match rows {
            FloatSlice::F16(bits) => wide.iter_mut().zip(&bits[range]).for_each(|(w, &b)| *w = widen(b)),
            FloatSlice::Bf16(bits) => wide.iter_mut().zip(&bits[range]).for_each(|(w, &b)| *w = widen_bfloat(b)),
            FloatSlice::F32(values) => wide.copy_from_slice(&values[range]),
        }
        for (t, x) in x.chunks_exact(dim).enumerate() {
            out.row(t)[v] = dot(x, &wide);
        }
    }
}

fn exp(values: &mut [f32]) {
    for value in values {
        *value = exp32(*value);
    }
}
