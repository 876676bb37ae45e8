//! Layers of a claimed choice being run again, one after the other, each over all positions.
//!
//! It costs what a prefill of those layers costs, and holds the states of two boundaries. Its chunks are passes of their own.

use super::audit::{Redraw, next_rows, positions};
use super::plan::Quota;
use super::reply::VerdictReply;
use super::slab::Slab;
use crate::backend::CancelToken;
use crate::engine::{Engine, EngineError};
use crate::forward::{LOGIT_ROWS_MAX, Row};
use crate::verify::{LayerClaim, LayerVerdict};

/// Rows of one chunk: others wait for it.
const ROWS: Quota = Quota { prefill: 256, logits: LOGIT_ROWS_MAX };

/// Layers being run again.
#[derive(Debug)]
pub(super) struct Layers {
    asked: LayerClaim,
    cancel: CancelToken,
    /// Taken at the end.
    reply: Option<VerdictReply<LayerVerdict>>,
    /// The layer at hand.
    layer: usize,
    session: usize,
    /// Positions that it was run over.
    fed: usize,
    /// What came of it.
    next: Vec<f32>,
    redraw: Redraw,
    /// A number is not finite, or another token is drawn. Said only once what entered the layer is known to be what is claimed.
    is_wrong: bool,
    rows: Vec<Row>,
}

impl Layers {
    /// Begins, or says at once that what is asked does not fit this model.
    pub(super) fn start(
        engine: &Engine,
        sessions: &mut Slab,
        asked: LayerClaim,
        cancel: CancelToken,
        reply: VerdictReply<LayerVerdict>,
    ) -> Option<Layers> {
        if !fits(engine, &asked) {
            reply.end(Ok(LayerVerdict::Foreign));
            return None;
        }
        Some(Layers {
            session: sessions.insert(session(engine, &asked)),
            layer: asked.layers.start,
            fed: 0,
            next: Vec::new(),
            redraw: Redraw::new(engine, &asked.claim, asked.choice as usize),
            is_wrong: false,
            rows: Vec::new(),
            reply: Some(reply),
            asked,
            cancel,
        })
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub(super) fn needs(&self) -> (usize, usize) {
        (1, self.asked.claim.request.positions())
    }

    /// Computes the next chunk. False when there is a verdict.
    pub(super) fn step(&mut self, engine: &mut Engine, sessions: &mut Slab) -> bool {
        let (claim, choice) = (&self.asked.claim, self.asked.choice as usize);
        let is_last = self.layer + 1 == engine.info().hyper.layers;
        self.rows.clear();
        let quota = if is_last { ROWS } else { Quota { logits: usize::MAX, ..ROWS } };
        let mut part = next_rows((claim, choice), (self.session, self.fed), &self.redraw, quota, &mut self.rows);
        if !is_last {
            self.rows.iter_mut().for_each(|row| row.wants = crate::forward::Wants::NOTHING);
            part.logits = 0..0;
        }
        let dim = engine.info().hyper.dim;
        let range = self.fed * dim..(self.fed + self.rows.len()) * dim;
        let states = (self.layer > 0).then(|| &self.asked.states[range]);
        let layers = self.layer..self.layer + 1;
        let computed = engine.forward_stage(sessions.as_mut_slice(), &self.rows, layers, states);
        self.next.extend_from_slice(computed);
        self.is_wrong = self.is_wrong || self.redraw.compare(engine, claim, &self.rows, &part).is_err();
        self.fed += self.rows.len();
        if self.fed < positions(claim, choice) {
            return true;
        }
        self.end_layer(engine, sessions, is_last)
    }

    /// Compares the boundaries of a layer that was run over all positions.
    fn end_layer(&mut self, engine: &mut Engine, sessions: &mut Slab, is_last: bool) -> bool {
        let transcript = sessions.get(self.session).transcript();
        let Some(roots) = transcript.map(crate::transcript::Transcript::boundary_roots) else {
            return self.end(sessions, Ok(LayerVerdict::Foreign));
        };
        let is_same = |boundary: usize| roots[boundary] == self.asked.boundary_roots[boundary];
        if !is_same(self.layer) && self.layer > 0 {
            return self.end(sessions, Ok(LayerVerdict::Foreign));
        }
        let ends_right = !is_last || (is_same(self.layer + 2) && self.redraw.end(&self.asked.claim).is_ok());
        if self.is_wrong || !is_same(self.layer) || !is_same(self.layer + 1) || !ends_right {
            let states = std::mem::take(&mut self.asked.states);
            return self.end(sessions, Ok(LayerVerdict::Wrong { layer: self.layer, states }));
        }
        self.layer += 1;
        if self.layer == self.asked.layers.end {
            let verdict = engine.check_float_mode().map(|()| LayerVerdict::Right).map_err(EngineError::from);
            return self.end(sessions, verdict);
        }
        self.asked.states = std::mem::take(&mut self.next);
        self.fed = 0;
        sessions.remove(self.session);
        self.session = sessions.insert(session(engine, &self.asked));
        true
    }

    /// Frees the session and gives the verdict. Always false: the task is over.
    pub(super) fn end(&mut self, sessions: &mut Slab, verdict: Result<LayerVerdict, EngineError>) -> bool {
        sessions.remove(self.session);
        if let Some(reply) = self.reply.take() {
            reply.end(verdict);
        }
        false
    }
}

fn session(engine: &Engine, asked: &LayerClaim) -> crate::session::Session {
    engine.session(positions(&asked.claim, asked.choice as usize), Some(asked.claim.request.salt))
}

/// Whether everything that is asked has the sizes of this model.
fn fits(engine: &Engine, asked: &LayerClaim) -> bool {
    let (hyper, layers, choice) = (&engine.info().hyper, &asked.layers, asked.choice as usize);
    if asked.claim.check(hyper.vocab, engine.info().context).is_err() || choice >= asked.claim.choices.len() {
        return false;
    }
    let entering = if layers.start == 0 { 0 } else { positions(&asked.claim, choice) * hyper.dim };
    layers.start < layers.end
        && layers.end <= hyper.layers
        && asked.boundary_roots.len() == crate::transcript::boundaries(hyper.layers)
        && asked.states.len() == entering
}
