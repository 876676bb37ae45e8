//! The layers, in the order of the paper, over a ragged batch of rows.
//!
//! A row is one token of one session. Prefill is many rows of a session, decode one row of each, continuous batching any mixture, and an audit a
//! prefill that wants logits: there is one function, and no result depends on which rows are computed together.
//!
//! ```text
//! x = embedding[token]
//! for each layer:
//!     q, k, v = QKV * quantise(norm(x))            rotate q and k; store k and v
//!     x      += O * quantise(norm(attention))
//!     g, u    = GATE_UP * quantise(norm(x))
//!     x      += DOWN * quantise(norm(gate(g, u)))
//! logits = E * norm(x)                             only for rows that want them
//! ```

mod attention;
mod fault;
mod head;
mod row;

pub use fault::{Fault, FaultCode};
use head::Head;
use row::check_rows;
pub use row::{Observe, Row, Wants};

use std::ops::Range;

use crate::arith::norm::RowScale;
use crate::kernels::packed::{BLOCK_COLUMNS, GROUP_ROWS};
use crate::kernels::{Activations, Kernels, Store};
use crate::model::{Linear, Model, QkvColumns};
use crate::pool::{Matrix, Pool};
use crate::sampler::Logits;
use crate::session::Session;
use crate::transcript::{Hash, Leaves, boundaries};

/// Rows of one pass. More would not make a pass faster per row, and buffers grow with it.
pub const ROWS_MAX: usize = 512;
/// Rows of one pass that want logits: bounds the buffer of logits to 32 MiB at a vocabulary of 128 thousand.
pub const LOGIT_ROWS_MAX: usize = 64;
/// Block-rows (about 2 cycles each) below which another thread costs more than it saves.
const BLOCKS_PER_THREAD: usize = 4096;
/// Multiply-adds of attention or the head below which another thread costs more than it saves.
const PRODUCTS_PER_THREAD: usize = 262_144;

/// Buffers and threads of forward passes. Nothing is allocated once the largest batch has been seen.
#[derive(Debug)]
pub struct Runner {
    kernels: Kernels,
    pool: Pool,
    /// Residual stream, `[rows][dim]`.
    x: Vec<f32>,
    /// Quantised activations, `[rows][stride]` for the stride of the matrix at hand.
    quantised: Vec<i8>,
    scales: Vec<RowScale>,
    /// Queries, keys and values, `[rows][QkvColumns::width]`.
    qkv: Vec<f32>,
    /// Keys and values as binary16, `[rows][2 * kv_heads * head_dim]`.
    halves: Vec<u16>,
    /// Attention's result, `[rows][heads * head_dim]`.
    attention: Vec<f32>,
    /// Gates and ups, `[rows][2 * ffn padded]`, and the gated values, `[rows][ffn padded]`.
    gate_up: Vec<f32>,
    gated: Vec<f32>,
    /// Final norms, `[rows][dim]`.
    normed: Vec<f32>,
    head: Head,
    faults: Vec<Option<Fault>>,
    /// One per row and head: whether attention was finite.
    finite: Vec<bool>,
    /// Leaves of every row, `[rows][boundaries]`, where the session keeps a transcript.
    leaves: Vec<Hash>,
    /// The same of second transcripts; empty where no session of the pass has one.
    witnesses: Vec<Hash>,
    workers: Vec<Worker>,
}

/// Scratch of one thread.
#[derive(Debug, Default)]
struct Worker {
    /// Queries that are computed together, what each sees, and what comes of it.
    q: Vec<f32>,
    lengths: Vec<usize>,
    scores: Vec<f32>,
    mixed: Vec<f32>,
    finite: Vec<bool>,
    /// A state as the transcript hashes it.
    bytes: Vec<u8>,
}

impl Runner {
    /// Buffers for passes with these kernels on this pool.
    #[must_use]
    pub fn new(kernels: Kernels, pool: Pool) -> Runner {
        let workers = (0..pool.threads()).map(|_| Worker::default()).collect();
        Runner {
            kernels,
            pool,
            x: Vec::new(),
            quantised: Vec::new(),
            scales: Vec::new(),
            qkv: Vec::new(),
            halves: Vec::new(),
            attention: Vec::new(),
            gate_up: Vec::new(),
            gated: Vec::new(),
            normed: Vec::new(),
            head: Head::default(),
            faults: Vec::new(),
            finite: Vec::new(),
            leaves: Vec::new(),
            witnesses: Vec::new(),
            workers,
        }
    }

    /// The path in use.
    #[must_use]
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// The threads.
    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// The first fault of each row of the last pass.
    #[must_use]
    pub fn faults(&self) -> &[Option<Fault>] {
        &self.faults
    }

    /// All logits of the `index`-th row of the last pass that wanted some.
    ///
    /// # Panics
    /// If fewer rows wanted logits, or this one did not want all.
    #[must_use]
    pub fn logits(&self, model: &Model, index: usize) -> &[f32] {
        self.head.all(index, model.hyper.vocab)
    }

    /// What is known of the logits of the `index`-th row of the last pass that wanted some.
    ///
    /// # Panics
    /// If fewer rows wanted logits.
    pub fn scores<'a>(&'a mut self, model: &'a Model, index: usize) -> Scores<'a> {
        assert!(index < self.head.len(), "logits of a row that wanted some");
        Scores { runner: self, model, index }
    }

    /// Computes `rows` and advances their sessions.
    ///
    /// # Panics
    /// If there are more than [`ROWS_MAX`] rows or [`LOGIT_ROWS_MAX`] that want logits, a row is not its session's next position, a session is
    /// full, or a token is not in the vocabulary. The scheduler guarantees all of it.
    pub fn forward(
        &mut self,
        model: &Model,
        sessions: &mut [Session],
        rows: &[Row],
        observe: Option<&mut dyn Observe>,
    ) {
        let mut observe = observe;
        self.begin(model, sessions, rows);
        for (row, x) in rows.iter().zip(self.x.chunks_exact_mut(model.hyper.dim)) {
            model.embedding.row(&self.kernels, row.token as usize, x);
        }
        self.layers(model, sessions, rows, 0..model.layers.len(), &mut observe);
        self.end(model, sessions, rows, &mut observe);
    }

    /// Computes some layers only: one stage of a pipeline. The first takes tokens, the others the states `[rows][dim]` that the stage before them
    /// left in [`Runner::states`]; the last gives logits. Results do not depend on where a model is cut. A session belongs to one stage.
    ///
    /// # Panics
    /// As for `forward`, and if `states` has another length, or `layers` are not layers of the model.
    pub fn forward_stage(
        &mut self,
        model: &Model,
        sessions: &mut [Session],
        rows: &[Row],
        layers: Range<usize>,
        states: Option<&[f32]>,
    ) {
        self.begin(model, sessions, rows);
        let dim = model.hyper.dim;
        match states {
            Some(states) => self.x.copy_from_slice(states),
            None => {
                for (row, x) in rows.iter().zip(self.x.chunks_exact_mut(dim)) {
                    model.embedding.row(&self.kernels, row.token as usize, x);
                }
            }
        }
        let is_last = layers.end == model.layers.len();
        self.layers(model, sessions, rows, layers.clone(), &mut None);
        if is_last {
            self.end(model, sessions, rows, &mut None);
        } else {
            self.commit(model, sessions, rows, layers.end);
            self.advance(model, sessions, rows);
        }
    }

    /// The residual stream after the last layer computed, `[rows][dim]`.
    #[must_use]
    pub fn states(&self) -> &[f32] {
        &self.x
    }

    fn begin(&mut self, model: &Model, sessions: &[Session], rows: &[Row]) {
        check_rows(model, sessions, rows);
        self.prepare(model, rows);
    }

    fn layers(
        &mut self,
        model: &Model,
        sessions: &mut [Session],
        rows: &[Row],
        layers: Range<usize>,
        observe: &mut Option<&mut dyn Observe>,
    ) {
        let eps = model.hyper.norm_eps;
        let heads_width = model.hyper.heads * model.hyper.head_dim;
        for index in layers {
            let layer = &model.layers[index];
            self.commit(model, sessions, rows, index);
            look(observe, index, &self.x);
            self.attend(model, sessions, rows, index);
            self.quantise(Source::Attention, heads_width, &layer.attn_sub_norm, eps, &layer.attn_output);
            self.mark(FaultCode::AttentionSubNorm, index);
            self.add_product(&layer.attn_output, rows.len(), model.hyper.dim);
            self.feed_forward(model, index, rows.len());
        }
    }

    /// What follows the last layer: final norm, logits, and the sessions' next positions.
    fn end(&mut self, model: &Model, sessions: &mut [Session], rows: &[Row], observe: &mut Option<&mut dyn Observe>) {
        let layers = model.layers.len();
        self.commit(model, sessions, rows, layers);
        look(observe, layers, &self.x);
        self.finish(model, sessions, rows);
        look(observe, layers + 1, &self.normed);
        let (pool, kernels) = (&mut self.pool, &self.kernels);
        self.head.run(pool, kernels, model.head(), rows, &self.normed);
        for row in self.head.not_finite(model.hyper.vocab) {
            self.faults[row].get_or_insert(Fault { code: FaultCode::Logits, layer: small(layers) });
        }
        self.advance(model, sessions, rows);
    }

    /// Sizes every buffer for these rows.
    fn prepare(&mut self, model: &Model, rows: &[Row]) {
        let (hyper, n) = (&model.hyper, rows.len());
        let width = hyper.dim.max(hyper.ffn).max(hyper.heads * hyper.head_dim);
        self.x.resize(n * hyper.dim, 0.0);
        self.normed.resize(n * hyper.dim, 0.0);
        self.quantised.resize(n * width.next_multiple_of(BLOCK_COLUMNS), 0);
        self.scales.resize(n, RowScale::default());
        self.qkv.resize(n * QkvColumns::new(hyper).width, 0.0);
        self.halves.resize(n * 2 * hyper.kv_heads * hyper.head_dim, 0);
        let ffn = hyper.ffn.next_multiple_of(GROUP_ROWS);
        self.gate_up.resize(n * 2 * ffn, 0.0);
        self.gated.resize(n * ffn, 0.0);
        // A stage leaves the boundaries of others at zero.
        self.leaves.clear();
        self.leaves.resize(n * boundaries(hyper.layers), [0; 32]);
        self.faults.clear();
        self.faults.resize(n, None);
    }

    /// Keeps the states of one boundary, and makes its leaves, for the rows whose sessions want that.
    fn commit(&mut self, model: &Model, sessions: &mut [Session], rows: &[Row], boundary: usize) {
        let states = if boundary > model.layers.len() { &self.normed } else { &self.x };
        for (row, state) in rows.iter().zip(states.chunks_exact(model.hyper.dim)) {
            sessions[row.session].states.note(row.position, boundary, boundaries(model.hyper.layers), state);
        }
        let sessions = &*sessions;
        let salts = |row: &Row| sessions[row.session].transcript.as_ref().map(crate::transcript::Transcript::leaves);
        if !rows.iter().any(|row| salts(row).is_some()) {
            return;
        }
        let secrets = |row: &Row| sessions[row.session].witness.as_ref().map(crate::transcript::Transcript::leaves);
        let (dim, stride) = (model.hyper.dim, boundaries(model.hyper.layers));
        let has_witness = rows.iter().any(|row| secrets(row).is_some());
        if has_witness {
            self.witnesses.resize(rows.len() * stride, [0; 32]);
        } else {
            self.witnesses.clear();
        }
        self.pool.chunks(
            rows.len(),
            Grain::of(rows.len(), dim * 16),
            &mut self.workers,
            (&mut self.leaves, stride),
            (&mut self.witnesses, if has_witness { stride } else { 0 }),
            |worker, index, leaves, witnesses| {
                let row = &rows[index];
                let Some(maker): Option<Leaves> = salts(row) else { return };
                let state = &states[index * dim..(index + 1) * dim];
                leaves[boundary] = maker.leaf(small(boundary), small(row.position), state, &mut worker.bytes);
                if let Some(maker) = secrets(row) {
                    witnesses[boundary] = maker.leaf(small(boundary), small(row.position), state, &mut worker.bytes);
                }
            },
        );
    }

    /// Norm and quantisation of every row, checked against the matrix that comes next.
    fn quantise(&mut self, source: Source, width: usize, gain: &[f32], eps: f32, linear: &Linear) {
        let stride = linear.packed.per_group() * BLOCK_COLUMNS;
        let (states, row_width) = match source {
            Source::Residual => (&self.x, width),
            Source::Attention => (&self.attention, width),
            Source::Gated => (&self.gated, width.next_multiple_of(GROUP_ROWS)),
        };
        let kernel = self.kernels.norm_quantise;
        let count = self.scales.len();
        self.pool.chunks(
            count,
            Grain::of(count, width),
            &mut self.workers,
            (&mut self.quantised, stride),
            (&mut self.scales, 1),
            |_, index, q, scale| {
                let x = &states[index * row_width..][..width];
                scale[0] = match kernel(x, gain, eps, q) {
                    Some(scale) if linear.is_finite_with(scale.k) => scale,
                    _ => {
                        q.fill(0);
                        FAULTY
                    }
                };
            },
        );
    }

    /// Notes a fault for each row that `quantise` refused, and lets the row go on as zeros.
    fn mark(&mut self, code: FaultCode, layer: usize) {
        for (fault, scale) in self.faults.iter_mut().zip(&mut self.scales) {
            if *scale == FAULTY {
                fault.get_or_insert(Fault { code, layer: small(layer) });
                scale.k = 1.0;
            }
        }
    }

    /// `x += linear * quantised`.
    fn add_product(&mut self, linear: &Linear, rows: usize, dim: usize) {
        // The last group may reach beyond the width; then the residual stream cannot be added to in place.
        let padded = linear.packed.groups() * GROUP_ROWS;
        let activations = activations(&self.quantised, &self.scales, linear);
        let grain = grain(linear, rows);
        let kernel = self.kernels.ternary;
        if padded == dim {
            let x = Matrix::new(&mut self.x, rows, dim, GROUP_ROWS);
            self.pool.columns(linear.packed.groups(), grain, [x], |groups, [x]| {
                kernel(&linear.packed.slice(groups), &activations, Store::Add, x);
            });
            return;
        }
        self.gate_up.resize((rows * padded).max(self.gate_up.len()), 0.0);
        let y = Matrix::new(&mut self.gate_up, rows, padded, GROUP_ROWS);
        self.pool.columns(linear.packed.groups(), grain, [y], |groups, [y]| {
            kernel(&linear.packed.slice(groups), &activations, Store::Set, y);
        });
        for (x, y) in self.x.chunks_exact_mut(dim).zip(self.gate_up.chunks_exact(padded)) {
            for (x, y) in x.iter_mut().zip(y) {
                *x += y;
            }
        }
    }

    /// Norm, projections, rotation, cache and attention of one layer.
    fn attend(&mut self, model: &Model, sessions: &mut [Session], rows: &[Row], index: usize) {
        let (hyper, layer) = (&model.hyper, &model.layers[index]);
        let (dim, kv_width) = (hyper.head_dim, hyper.kv_heads * hyper.head_dim);
        let columns = QkvColumns::new(hyper);
        self.quantise(Source::Residual, hyper.dim, &layer.attn_norm, hyper.norm_eps, &layer.qkv);
        self.mark(FaultCode::AttentionNorm, index);

        let activations = activations(&self.quantised, &self.scales, &layer.qkv);
        let kernel = self.kernels.ternary;
        let qkv = Matrix::new(&mut self.qkv, rows.len(), columns.width, GROUP_ROWS);
        self.pool.columns(layer.qkv.packed.groups(), grain(&layer.qkv, rows.len()), [qkv], |groups, [qkv]| {
            kernel(&layer.qkv.packed.slice(groups), &activations, Store::Set, qkv);
        });

        let narrow = self.kernels.narrow;
        self.pool.chunks(
            rows.len(),
            Grain::of(rows.len(), columns.width * 4),
            &mut self.workers,
            (&mut self.qkv, columns.width),
            (&mut self.halves, 2 * kv_width),
            |_, index, qkv, halves| {
                let (q, kv) = qkv.split_at_mut(columns.keys);
                let (k, v) = kv.split_at_mut(columns.values - columns.keys);
                let heads = q[..hyper.heads * dim].chunks_exact_mut(dim).chain(k[..kv_width].chunks_exact_mut(dim));
                for head in heads {
                    model.rope.rotate(head, rows[index].position);
                }
                // What does not fit becomes infinity here and is looked for below.
                let (keys, values) = halves.split_at_mut(kv_width);
                let _fits = narrow(&k[..kv_width], keys) & narrow(&v[..kv_width], values);
            },
        );
        for ((row, halves), fault) in rows.iter().zip(self.halves.chunks_exact(2 * kv_width)).zip(&mut self.faults) {
            // To the end, without a branch, so that the compiler takes wide registers.
            if halves.iter().fold(false, |any, &half| any | crate::arith::half::is_special(half)) {
                fault.get_or_insert(Fault { code: FaultCode::Cache, layer: small(index) });
            }
            let (keys, values) = halves.split_at(kv_width);
            sessions[row.session].cache.write(index, row.position, keys, values);
        }

        self.mix(model, sessions, rows, index);
    }

    /// The feed-forward part of one layer.
    fn feed_forward(&mut self, model: &Model, index: usize, rows: usize) {
        let (hyper, layer) = (&model.hyper, &model.layers[index]);
        self.quantise(Source::Residual, hyper.dim, &layer.ffn_norm, hyper.norm_eps, &layer.gate_up);
        self.mark(FaultCode::FeedForwardNorm, index);
        let activations = activations(&self.quantised, &self.scales, &layer.gate_up);
        let (ternary, gate) = (self.kernels.ternary, self.kernels.gate);
        let ffn = hyper.ffn.next_multiple_of(GROUP_ROWS);
        let pairs = Matrix::new(&mut self.gate_up, rows, 2 * ffn, 2 * GROUP_ROWS);
        let gated = Matrix::new(&mut self.gated, rows, ffn, GROUP_ROWS);
        // One unit is a group of gates and a group of ups, so that each thread gates what it has just computed.
        let units = ffn / GROUP_ROWS;
        let grain = grain(&layer.gate_up, rows).div_ceil(2);
        self.pool.columns(units, grain, [pairs, gated], |units, [pairs, gated]| {
            ternary(&layer.gate_up.packed.slice(2 * units.start..2 * units.end), &activations, Store::Set, pairs);
            for row in 0..pairs.rows() {
                gate(hyper.gate, pairs.row(row), gated.row(row));
            }
        });
        self.quantise(Source::Gated, hyper.ffn, &layer.ffn_sub_norm, hyper.norm_eps, &layer.down);
        self.mark(FaultCode::FeedForwardSubNorm, index);
        self.add_product(&layer.down, rows, hyper.dim);
    }

    /// The final norm of every row, and its boundary.
    fn finish(&mut self, model: &Model, sessions: &mut [Session], rows: &[Row]) {
        let hyper = &model.hyper;
        let last = small(hyper.layers);
        let (x, kernel) = (&self.x, self.kernels.norm);
        self.pool.chunks(
            rows.len(),
            Grain::of(rows.len(), hyper.dim),
            &mut self.workers,
            (&mut self.normed, hyper.dim),
            (&mut self.faults, 1),
            |_, index, normed, fault| {
                let x = &x[index * hyper.dim..(index + 1) * hyper.dim];
                if !kernel(x, &model.output_norm, hyper.norm_eps, normed) {
                    fault[0].get_or_insert(Fault { code: FaultCode::OutputNorm, layer: last });
                }
            },
        );
        self.commit(model, sessions, rows, model.layers.len() + 1);
    }

    /// Moves every session behind its rows.
    fn advance(&mut self, model: &Model, sessions: &mut [Session], rows: &[Row]) {
        let stride = boundaries(model.hyper.layers);
        for (index, (row, leaves)) in rows.iter().zip(self.leaves.chunks_exact(stride)).enumerate() {
            let session = &mut sessions[row.session];
            if let Some(witness) = &mut session.witness {
                witness.push(&self.witnesses[index * stride..(index + 1) * stride]);
            }
            session.position = row.position + 1;
            if let Some(transcript) = &mut session.transcript {
                transcript.push(leaves);
            }
        }
    }
}

/// The logits of one row: the greatest, and any other on demand.
#[derive(Debug)]
pub struct Scores<'a> {
    runner: &'a mut Runner,
    model: &'a Model,
    index: usize,
}

impl Logits for Scores<'_> {
    fn greatest(&self) -> &[(u32, f32)] {
        self.runner.head.greatest(self.index)
    }

    fn one(&mut self, id: u32) -> f32 {
        self.runner.head.one(&self.runner.kernels, self.model.head(), self.index, id)
    }
}

fn look(observe: &mut Option<&mut dyn Observe>, boundary: usize, states: &[f32]) {
    if let Some(observer) = observe {
        observer.boundary(boundary, states);
    }
}

/// Which buffer is quantised.
#[derive(Clone, Copy)]
enum Source {
    Residual,
    Attention,
    Gated,
}

/// What stands for a row that cannot go on. A real `k` is positive.
const FAULTY: RowScale = RowScale { k: -1.0, sum: 0 };

/// How many chunks a thread takes at a time.
struct Grain;

impl Grain {
    /// For `count` chunks of `products` multiply-adds each.
    fn of(count: usize, products: usize) -> usize {
        let least = PRODUCTS_PER_THREAD.div_ceil(products.max(1));
        // Small enough to balance, large enough to be worth a visit to the counter.
        least.min(count).max(1)
    }
}

/// Groups of a matrix below which another thread costs more than it saves.
fn grain(linear: &Linear, rows: usize) -> usize {
    BLOCKS_PER_THREAD.div_ceil(linear.packed.per_group() * rows.max(1))
}

fn activations<'a>(quantised: &'a [i8], scales: &'a [RowScale], linear: &Linear) -> Activations<'a> {
    let stride = linear.packed.per_group() * BLOCK_COLUMNS;
    Activations { q: &quantised[..stride * scales.len()], stride, scales }
}

fn all_finite(values: &[f32]) -> bool {
    values.iter().fold(0, |special, v| special | u32::from(v.to_bits() & 0x7f80_0000 == 0x7f80_0000)) == 0
}

/// A layer, boundary or position as the transcript writes it.
fn small(value: usize) -> u32 {
    u32::try_from(value).expect("layers and positions are far below 2^32")
}
