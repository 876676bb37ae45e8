//! R11: the logits of the rows that want some.
//!
//! Most callers want the few greatest. For them every row of the output embedding is screened in int8, at half the bytes or fewer; a proven
//! bound (`docs/arithmetic.md`) leaves a handful that may be among them, and those are computed exactly. Who wants all logits gets each row
//! of the embedding put together and multiplied. Both ways give the same bits for every logit that is returned.

use super::{Grain, PRODUCTS_PER_THREAD, Row, all_finite, small};
use crate::arith::screen::{Probe, probe};
use crate::embedding::{Embedding, SCREEN_ROWS};
use crate::kernels::{Kernels, ProbeSlice};
use crate::memory::{Line, as_int8, as_int8_mut};
use crate::pool::{Matrix, Pool};
use crate::sampler::{before, greatest};

/// Rows of the embedding that are put together at a time: they and a tile of states fit the second-level cache.
const PANEL_ROWS: usize = 16;
/// The wider bound of the upper parts alone leaves some hundred rows where few are wanted; where more are, it leaves too many.
const UPPER_ONLY_COUNT_MAX: usize = 8;
/// Rounding where the bounds of two rows are compared, relative to the product of the norms.
const COMPARISON: f32 = 1.0 / 1_048_576.0;

/// Buffers of the head, and what it found for the last pass.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Per row that wants logits, in order of the rows.
    wanting: Vec<Wanting>,
    /// Their hidden states, `[places][dim]`.
    hidden: Vec<f32>,
    /// Approximate logits of the screened places, exact ones of the others, `[places][padded vocabulary]`.
    logits: Vec<f32>,
    /// Upper and lower parts of quantised states, `[screened places][stride]` bytes, on whole lines because kernels read whole lines.
    high: Vec<Line>,
    low: Vec<Line>,
    probes: Vec<Probe>,
    /// The greatest logits, `[places]`.
    greatest: Vec<Vec<(u32, f32)>>,
    workers: Vec<Scratch>,
    padded: usize,
    /// Whether the screen multiplies with upper parts alone.
    is_upper_only: bool,
}

/// A row that wants logits.
#[derive(Clone, Copy, Debug)]
struct Wanting {
    /// Index in the pass.
    row: usize,
    /// Where its state and logits lie: screened rows come first.
    place: usize,
    count: usize,
    is_screened: bool,
}

/// Scratch of one thread.
#[derive(Debug, Default)]
struct Scratch {
    panel: Vec<f32>,
    ids: Vec<u32>,
}

impl Head {
    pub(super) fn len(&self) -> usize {
        self.wanting.len()
    }

    /// Computes what the rows want from their normed states.
    pub(super) fn run(&mut self, pool: &mut Pool, kernels: &Kernels, matrix: &Embedding, rows: &[Row], normed: &[f32]) {
        self.workers.resize_with(pool.threads(), Scratch::default);
        self.place(matrix, rows, normed);
        let screened = self.probes.len();
        if self.wanting.is_empty() {
            return;
        }
        self.padded = matrix.padded_rows();
        self.logits.resize(self.wanting.len() * self.padded, 0.0);
        if screened > 0 {
            self.screen(pool, kernels, matrix);
        }
        if screened < self.wanting.len() {
            self.full(pool, kernels, matrix);
        }
        self.select(pool, kernels, matrix);
    }

    /// Rows of the pass with a logit that is not finite. Those that were screened have none.
    pub(super) fn not_finite(&self, vocab: usize) -> impl Iterator<Item = usize> {
        let full = self.wanting.iter().filter(|wanting| !wanting.is_screened);
        full.filter(move |wanting| !all_finite(&self.logits[wanting.place * self.padded..][..vocab]))
            .map(|wanting| wanting.row)
    }

    /// The `index`-th row that wanted logits: its greatest ones.
    pub(super) fn greatest(&self, index: usize) -> &[(u32, f32)] {
        &self.greatest[self.wanting[index].place]
    }

    /// The `index`-th row that wanted logits: all of them.
    ///
    /// # Panics
    /// If it did not want all.
    pub(super) fn all(&self, index: usize, vocab: usize) -> &[f32] {
        let wanting = self.wanting[index];
        assert!(!wanting.is_screened, "all logits of a row that wanted all");
        &self.logits[wanting.place * self.padded..][..vocab]
    }

    /// One logit of the `index`-th row that wanted some.
    pub(super) fn one(&mut self, kernels: &Kernels, matrix: &Embedding, index: usize, id: u32) -> f32 {
        let wanting = self.wanting[index];
        if !wanting.is_screened {
            return self.logits[wanting.place * self.padded + id as usize];
        }
        let dim = matrix.columns();
        let hidden = &self.hidden[wanting.place * dim..][..dim];
        exact(kernels, matrix, hidden, id, &mut self.workers[0].panel)
    }

    /// Decides who is screened, and brings the states together.
    fn place(&mut self, matrix: &Embedding, rows: &[Row], normed: &[f32]) {
        let (dim, per_part) = (matrix.columns(), matrix.coarse_stride() / size_of::<Line>());
        self.wanting.clear();
        self.probes.clear();
        let count = rows.iter().filter(|row| row.wants.any()).count();
        self.hidden.resize(count * dim, 0.0);
        self.high.resize(count * per_part, Line::default());
        self.low.resize(count * per_part, Line::default());
        let mut full = count;
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.wants.any()) {
            let state = &normed[index * dim..(index + 1) * dim];
            let at = self.probes.len();
            let lines = at * per_part..(at + 1) * per_part;
            let (high, low) = (as_int8_mut(&mut self.high[lines.clone()]), as_int8_mut(&mut self.low[lines]));
            // No logit can overflow where the product of the norms does not; otherwise all are computed and looked at (R1).
            let probe = (!row.wants.all)
                .then(|| probe(state, high, low))
                .flatten()
                .filter(|probe| (probe.norm * matrix.norm_max() * 4.0).is_finite());
            let place = match probe {
                Some(probe) => {
                    self.probes.push(probe);
                    at
                }
                None => {
                    full -= 1;
                    full
                }
            };
            self.hidden[place * dim..(place + 1) * dim].copy_from_slice(state);
            self.wanting.push(Wanting { row: index, place, count: row.wants.greatest, is_screened: probe.is_some() });
        }
        self.is_upper_only =
            self.probes.len() > 1 && self.wanting.iter().all(|wanting| wanting.count <= UPPER_ONLY_COUNT_MAX);
    }

    /// Approximate logits of the screened places.
    fn screen(&mut self, pool: &mut Pool, kernels: &Kernels, matrix: &Embedding) {
        let (stride, kernel) = (matrix.coarse_stride(), kernels.screen);
        let used = self.probes.len() * stride;
        let low = if self.is_upper_only { &[] } else { &as_int8(&self.low)[..used] };
        let states = ProbeSlice { high: &as_int8(&self.high)[..used], low, stride, probes: &self.probes };
        let out = Matrix::new(&mut self.logits, self.probes.len(), self.padded, SCREEN_ROWS);
        let grain = PRODUCTS_PER_THREAD.div_ceil(SCREEN_ROWS * stride * self.probes.len());
        pool.columns(self.padded / SCREEN_ROWS, grain, [out], |units, [out]| {
            kernel(&matrix.coarse(units), &states, out);
        });
    }

    /// Exact logits of the other places.
    fn full(&mut self, pool: &mut Pool, kernels: &Kernels, matrix: &Embedding) {
        let (dim, vocab, first) = (matrix.columns(), matrix.rows(), self.probes.len());
        let count = self.wanting.len() - first;
        let states = &self.hidden[first * dim..(first + count) * dim];
        let out = Matrix::new(&mut self.logits[first * self.padded..], count, self.padded, PANEL_ROWS);
        let grain = PRODUCTS_PER_THREAD.div_ceil(PANEL_ROWS * dim * count);
        let kernel = kernels.head;
        pool.columns(self.padded / PANEL_ROWS, grain, [out], |panels, [out]| {
            let mut panel = vec![0.0; PANEL_ROWS * dim];
            for (at, index) in panels.enumerate() {
                let rows = index * PANEL_ROWS..vocab.min((index + 1) * PANEL_ROWS);
                for (row, values) in rows.clone().zip(panel.chunks_exact_mut(dim)) {
                    matrix.row(kernels, row, values);
                }
                kernel(&panel[..rows.len() * dim], dim, states, &mut out.part(at * PANEL_ROWS, rows.len()));
            }
        });
    }

    /// The greatest logits of every place.
    fn select(&mut self, pool: &mut Pool, kernels: &Kernels, matrix: &Embedding) {
        if self.greatest.len() < self.wanting.len() {
            self.greatest.resize_with(self.wanting.len(), Vec::new);
        }
        self.wanting.sort_unstable_by_key(|wanting| wanting.place);
        let (dim, vocab) = (matrix.columns(), matrix.rows());
        let (wanting, logits, hidden, padded) = (&self.wanting, &self.logits, &self.hidden, self.padded);
        let stride = matrix.coarse_stride();
        let (probes, low, is_upper_only) = (&self.probes, as_int8(&self.low), self.is_upper_only);
        pool.chunks(
            wanting.len(),
            Grain::of(wanting.len(), vocab),
            &mut self.workers,
            (&mut self.greatest, 1),
            (&mut [(); 0][..], 0),
            |scratch, place, top, _| {
                let logits = &logits[place * padded..][..vocab];
                greatest(logits, wanting[place].count, &mut top[0]);
                if wanting[place].is_screened {
                    let screened = Screened {
                        probe: &probes[place],
                        state: &hidden[place * dim..(place + 1) * dim],
                        approximate: logits,
                        missing: is_upper_only.then(|| &low[place * stride..(place + 1) * stride]),
                    };
                    refine(kernels, matrix, &screened, &mut top[0], scratch);
                }
            },
        );
        self.wanting.sort_unstable_by_key(|wanting| wanting.row);
    }
}

/// What the screen knows about one state.
struct Screened<'a> {
    probe: &'a Probe,
    state: &'a [f32],
    approximate: &'a [f32],
    /// The lower part, where the approximation lacks it.
    missing: Option<&'a [i8]>,
}

/// Turns the rows with the greatest approximate logits into those with the greatest exact ones.
fn refine(
    kernels: &Kernels,
    matrix: &Embedding,
    screened: &Screened<'_>,
    top: &mut Vec<(u32, f32)>,
    scratch: &mut Scratch,
) {
    let Screened { probe, state, approximate, missing } = *screened;
    let wanted = top.len();
    for (id, logit) in top.iter_mut() {
        *logit = exact(kernels, matrix, state, *id, &mut scratch.panel);
    }
    // As many rows as are wanted reach this, so a row that cannot is not among them.
    let least = top.iter().fold(f32::INFINITY, |m, &(_, logit)| if logit < m { logit } else { m });
    let limit = |rest: f32| least - (rest * matrix.norm_max() + COMPARISON * (probe.norm * matrix.norm_max()));
    let reached = limit(if missing.is_some() { probe.upper_rest_norm } else { probe.rest_norm });
    scratch.ids.clear();
    reaching(approximate, matrix.slacks(), probe.norm, reached, &mut scratch.ids);
    if let Some(low) = missing {
        let reached = limit(probe.rest_norm);
        scratch.ids.retain(|&id| {
            let index = id as usize;
            let both = approximate[index] + matrix.lower_steps(kernels, index, low, probe.unit);
            both + probe.norm * matrix.slacks()[index] >= reached
        });
    }
    top.sort_unstable_by_key(|entry| entry.0);
    let known = top.len();
    for &id in &scratch.ids {
        if top[..known].binary_search_by_key(&id, |entry| entry.0).is_err() {
            top.push((id, exact(kernels, matrix, state, id, &mut scratch.panel)));
        }
    }
    top.sort_unstable_by(|&a, &b| if before(a, b) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater });
    top.truncate(wanted);
}

/// Indices whose upper bound reaches the limit.
fn reaching(approximate: &[f32], slacks: &[f32], norm: f32, limit: f32, ids: &mut Vec<u32>) {
    const WIDTH: usize = 16;
    for (index, (values, slacks)) in approximate.chunks(WIDTH).zip(slacks.chunks(WIDTH)).enumerate() {
        let reaches = |(value, slack): (&f32, &f32)| value + norm * slack >= limit;
        // Without a branch, so that the compiler takes wide registers; almost all are passed by.
        if values.iter().zip(slacks).fold(false, |any, pair| any | reaches(pair)) {
            for (offset, pair) in values.iter().zip(slacks).enumerate() {
                if reaches(pair) {
                    ids.push(small(index * WIDTH + offset));
                }
            }
        }
    }
}

/// One logit, by R11.
fn exact(kernels: &Kernels, matrix: &Embedding, state: &[f32], id: u32, row: &mut Vec<f32>) -> f32 {
    row.resize(matrix.columns(), 0.0);
    matrix.row(kernels, id as usize, row);
    (kernels.dot)(state, row)
}

#[cfg(test)]
mod tests;
