//! The scalar path: the functions of [`crate::arith`] behind the table's signatures.

use super::attention::Queries;
use super::packed::{GROUP_ROWS, unpack};
use super::{
    Activations, CoarseSlice, KernelKind, Kernels, ProbeSlice, Store, TernarySlice, check_head, check_ternary,
    screen_by_steps,
};
use crate::arith::exp::exp32;
use crate::arith::half::{is_special, narrow};
use crate::arith::lanes::{dot, sum};
use crate::arith::{attention, gate, linear, norm};
use crate::embedding::SplitRow;
use crate::hyper::Gate;
use crate::memory::{Line, as_bytes};
use crate::pool::Columns;

pub(super) const KERNELS: Kernels = Kernels {
    kind: KernelKind::Scalar,
    ternary,
    norm_quantise: norm::norm_quantise,
    norm: norm::rms_norm,
    gate: gates,
    attend,
    narrow: narrow_all,
    head,
    join,
    screen,
    steps,
    dot,
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

fn attend(queries: &Queries<'_>, scores: &mut [f32], out: &mut [f32], finite: &mut [bool]) {
    queries.check(scores, out, finite);
    let dim = queries.dim;
    let each = queries.q.chunks_exact(dim).zip(queries.lengths).zip(out.chunks_exact_mut(dim)).zip(finite);
    for (((q, &length), out), finite) in each {
        let seen = ..length * dim;
        *finite = attention::attend(q, &queries.keys[seen], &queries.values[seen], &mut scores[..length], out);
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

fn head(rows: &[f32], dim: usize, x: &[f32], out: &mut Columns<'_>) {
    check_head(rows, dim, x, out);
    for (v, row) in rows.chunks_exact(dim).enumerate() {
        for (t, x) in x.chunks_exact(dim).enumerate() {
            out.row(t)[v] = dot(x, row);
        }
    }
}

fn join(row: &SplitRow<'_>, out: &mut [f32]) {
    crate::embedding::join(row, out);
}

fn screen(rows: &CoarseSlice<'_>, states: &ProbeSlice<'_>, out: &mut Columns<'_>) {
    screen_by_steps(rows, states, out, steps);
}

fn steps(row: &[Line], part: &[i8]) -> i32 {
    assert_eq!(size_of_val(row), part.len(), "a row and a part of one width");
    as_bytes(row).iter().zip(part).map(|(&biased, &x)| (i32::from(biased) - 128) * i32::from(x)).sum()
}

fn exp(values: &mut [f32]) {
    for value in values {
        *value = exp32(*value);
    }
}
