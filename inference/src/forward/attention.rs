//! R8 for all rows of a pass: who shares keys and values, and where results go.

use super::{Fault, FaultCode, Grain, Row, Runner, Worker, small};
use crate::kernels::Queries;
use crate::model::{Model, QkvColumns};
use crate::session::Session;

/// Queries that the kernels take at a time.
const TILE: usize = 4;

impl Runner {
    /// Attention of every row over its session's cache, which holds the rows' own keys and values already.
    ///
    /// Queries that share keys go together: the heads of a group, and, where groups are small, consecutive rows of a session.
    pub(super) fn mix(&mut self, model: &Model, sessions: &[Session], rows: &[Row], layer: usize) {
        let hyper = &model.hyper;
        let (dim, heads, kv_heads) = (hyper.head_dim, hyper.heads, hyper.kv_heads);
        let group = heads / kv_heads;
        // One row is shared out by heads, so that all threads have some of it.
        let block = if rows.len() > 1 { (TILE / group).max(1) } else { 1 };
        let (items, per_item) =
            if block == 1 { (rows.len() * kv_heads, group) } else { (rows.len().div_ceil(block), block * heads) };
        let padded = rows.len().next_multiple_of(block) * heads;
        if self.attention.len() < padded * dim {
            self.attention.resize(padded * dim, 0.0);
        }
        self.finite.clear();
        self.finite.resize(padded, true);
        let width = QkvColumns::new(hyper).width;
        let (qkv, kernel) = (&self.qkv, self.kernels.attend);
        let products: usize = rows.iter().map(|row| (row.position + 1) * dim * 2).sum::<usize>() / rows.len().max(1);
        self.pool.chunks(
            items,
            Grain::of(items, products * per_item),
            &mut self.workers,
            (&mut self.attention, per_item * dim),
            (&mut self.finite, per_item),
            |worker, item, out, finite| {
                let (first, kvs, skipped) = if block == 1 {
                    let kv = item % kv_heads;
                    (item / kv_heads, kv..kv + 1, kv * group)
                } else {
                    (item * block, 0..kv_heads, 0)
                };
                let mine = &rows[first..rows.len().min(first + block)];
                for kv in kvs {
                    let mut done = 0;
                    for run in mine.chunk_by(|a, b| a.session == b.session) {
                        let row = |at: usize| &qkv[(first + done + at) * width + kv * group * dim..][..group * dim];
                        let positions = worker.gather(run, group, (0..run.len()).map(row));
                        let (keys, values) = sessions[run[0].session].cache.head(layer, kv, positions);
                        let queries = Queries { q: &worker.q, dim, lengths: &worker.lengths, keys, values };
                        kernel(&queries, &mut worker.scores, &mut worker.mixed, &mut worker.finite);
                        let results = worker.mixed.chunks_exact(group * dim).zip(worker.finite.chunks_exact(group));
                        for (at, (mixed, good)) in results.enumerate() {
                            let place = (done + at) * heads + kv * group - skipped;
                            out[place * dim..(place + group) * dim].copy_from_slice(mixed);
                            finite[place..place + group].copy_from_slice(good);
                        }
                        done += run.len();
                    }
                }
            },
        );
        for (fault, finite) in self.faults.iter_mut().zip(self.finite.chunks_exact(heads)) {
            if finite.contains(&false) {
                fault.get_or_insert(Fault { code: FaultCode::Score, layer: small(layer) });
            }
        }
    }
}

impl Worker {
    /// Brings the queries of a run of rows together, `group` of each, and makes room for what comes of them. Positions that the last row
    /// sees.
    fn gather<'a>(&mut self, run: &[Row], group: usize, queries: impl Iterator<Item = &'a [f32]>) -> usize {
        self.q.clear();
        self.lengths.clear();
        for (row, q) in run.iter().zip(queries) {
            self.q.extend_from_slice(q);
            self.lengths.extend(std::iter::repeat_n(row.position + 1, group));
        }
        let positions = self.lengths.last().copied().unwrap_or_default();
        self.mixed.resize(self.q.len(), 0.0);
        self.finite.resize(self.lengths.len(), true);
        let scores = positions * self.lengths.len();
        if self.scores.len() < scores {
            self.scores.resize(scores, 0.0);
        }
        positions
    }
}
