//! The gateway's way through an answer: each step goes from stage to stage, and back to where the text is known.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use aria_chain::ids::NodeId;
use aria_chain::keys::Signature;
use aria_chain::record::Stage;
use aria_chain::request::InferenceRequest;
use aria_inference::backend::{Backend, BackendKind, CancelToken};
use aria_inference::energy::Energy;
use aria_inference::engine::EngineError;
use aria_inference::generation::{ChoiceOutcome, Event, FinishReason, GenerationRequest, Outcome};
use aria_inference::stage::{Drawn, StageError, StageInput, StageOutput, StagePlan};
use aria_inference::transcript::{Hash, choice_root, leaf_key, request_root, text_hash};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::Pipeline;
use super::cut::Cut;
use super::hop::{HopError, Local, Remote, energy};
use super::talk::{Closed, Roots, ToRun, rows_of};

/// A signed request that is to be answered by several nodes.
pub struct Asked {
    /// What is computed. One choice.
    pub generation: GenerationRequest,
    /// What its requester signed.
    pub request: InferenceRequest,
    /// Its requester's.
    pub signature: Signature,
}

/// A part of the model, and who runs it.
struct Part {
    layers: Range<usize>,
    hop: Hop,
    /// What entered it, for who replaces it.
    seen: Vec<f32>,
}

enum Hop {
    Local(Local),
    Remote(Remote),
}

impl Pipeline {
    /// Leave to give an answer by several nodes: where there are any, for one choice, with arithmetic that all of them share. Beyond as many
    /// answers as the engine computes at once the others wait for it.
    pub fn cuts(&self, request: &GenerationRequest, backend: &dyn Backend) -> Option<OwnedSemaphorePermit> {
        let is_possible = request.choices == 1
            && !self.config.stages.is_empty()
            && backend.kind() == BackendKind::Builtin
            && !self.candidates().is_empty();
        is_possible.then(|| Arc::clone(&self.answers).try_acquire_owned().ok()).flatten()
    }

    /// Answers a request with other nodes. Events come as the engine gives them; before the last of a whole answer, who ran what.
    pub async fn answer(
        self: Arc<Self>,
        (backend, leave): (Arc<dyn Backend>, OwnedSemaphorePermit),
        asked: Asked,
        cancel: CancelToken,
        events: mpsc::Sender<Event>,
        told: oneshot::Sender<Cut>,
    ) {
        let generation = asked.generation.clone();
        let end = match Run::begin(self, Arc::clone(&backend), asked, cancel.clone(), events.clone()).await {
            Ok(run) => run.finish(told).await,
            Err(HopError::Stage(StageError::Busy { .. })) => {
                // It waits for room like any other.
                let sink = events.clone();
                let overflow = cancel.clone();
                let sink = Box::new(move |event| {
                    if sink.try_send(event).is_err() {
                        overflow.cancel();
                    }
                });
                match backend.submit(generation, cancel, sink) {
                    Ok(()) => return,
                    Err(error) => Err(HopError::Other(error.to_string())),
                }
            }
            Err(error) => Err(error),
        };
        let last = end.unwrap_or_else(|error| {
            Event::Failed(match error {
                HopError::Stage(StageError::Engine(error)) => error,
                error => {
                    tracing::warn!(%error, "an answer by several nodes came to no end");
                    EngineError::Stages(error.to_string())
                }
            })
        });
        // A client that is gone does not need it.
        let _ = events.send(last).await;
        drop(leave);
    }
}

/// Layers `0..layers` in so many parts, as even as they can be; what is left over is the first part's and those after it.
fn parts(layers: usize, count: usize) -> Vec<Range<usize>> {
    let count = count.clamp(1, layers.max(1));
    let bound = |index: usize| layers * index / count;
    (0..count).map(|index| layers - bound(count - index)..layers - bound(count - index - 1)).collect()
}

struct Run {
    pipeline: Arc<Pipeline>,
    backend: Arc<dyn Backend>,
    asked: Asked,
    cancel: CancelToken,
    events: mpsc::Sender<Event>,
    parts: Vec<Part>,
    /// Final norm and draws.
    head: Local,
    spares: VecDeque<NodeId>,
    started: Instant,
}

impl Run {
    async fn begin(
        pipeline: Arc<Pipeline>,
        backend: Arc<dyn Backend>,
        asked: Asked,
        cancel: CancelToken,
        events: mpsc::Sender<Event>,
    ) -> Result<Run, HopError> {
        let started = Instant::now();
        let spares = VecDeque::from(pipeline.candidates());
        let layers = backend.model().hyper.layers;
        let cuts = parts(layers, pipeline.config.depth.min(spares.len()) + 1);
        let draws = Some((Box::new(asked.generation.clone()), 0));
        let head = StagePlan { draws, ..plan(&asked, layers..layers) };
        let head = Local::open(Arc::clone(&backend), head).await?;
        let mut run = Run { pipeline, backend, asked, cancel, events, parts: Vec::new(), head, spares, started };
        for layers in cuts {
            // The first takes tokens, which stay here.
            let hop = if layers.start == 0 {
                Hop::Local(run.open_here(&layers, &[]).await?)
            } else {
                run.open(&layers, &[]).await?
            };
            run.parts.push(Part { layers, hop, seen: Vec::new() });
        }
        Ok(run)
    }

    /// A stage for these layers that has run what entered so far: another node's, or else this node's own.
    async fn open(&mut self, layers: &Range<usize>, seen: &[f32]) -> Result<Hop, HopError> {
        while let Some(node) = self.spares.pop_front() {
            match self.open_at(node, layers, seen).await {
                Ok(remote) => return Ok(Hop::Remote(remote)),
                Err(error) => tracing::info!(%node, %error, "runs no layers of this answer"),
            }
        }
        self.open_here(layers, seen).await.map(Hop::Local)
    }

    async fn open_here(&self, layers: &Range<usize>, seen: &[f32]) -> Result<Local, HopError> {
        let local = Local::open(Arc::clone(&self.backend), plan(&self.asked, layers.clone())).await?;
        for step in seen.chunks(self.step_values()) {
            local.run(StageInput::States(step.to_vec())).await?;
        }
        Ok(local)
    }

    async fn open_at(&self, node: NodeId, layers: &Range<usize>, seen: &[f32]) -> Result<Remote, HopError> {
        let small = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
        let asked = ToRun {
            request: self.asked.request.clone(),
            signature: self.asked.signature,
            layer_start: small(layers.start),
            layer_end: small(layers.end),
            positions: u32::try_from(self.asked.generation.positions()).unwrap_or(u32::MAX),
            leaf_key: leaf_key(&self.asked.generation.salt),
        };
        let remote = Remote::open(Arc::clone(&self.pipeline), node, asked).await?;
        for step in seen.chunks(self.step_values()) {
            remote.run(step).await?;
        }
        Ok(remote)
    }

    /// Numbers of one step's states.
    fn step_values(&self) -> usize {
        let dim = self.backend.model().hyper.dim.max(1);
        rows_of(dim) * dim
    }

    /// Takes the next positions through all stages. What is drawn behind them, if the prompt is over.
    async fn step(&mut self, tokens: &[u32]) -> Result<Option<Drawn>, HopError> {
        let mut input = StageInput::Tokens(tokens.to_vec());
        for index in 0..self.parts.len() {
            input = StageInput::States(self.pass(index, input).await?);
        }
        match self.head.run(input).await? {
            StageOutput::Drawn(drawn) => Ok(drawn),
            _ => Err(HopError::Other("the end of the model draws nothing".into())),
        }
    }

    /// Takes positions through one stage, whoever runs it by then.
    async fn pass(&mut self, index: usize, input: StageInput) -> Result<Vec<f32>, HopError> {
        loop {
            let (failed, reason) = match (&self.parts[index].hop, &input) {
                (Hop::Local(local), _) => {
                    return match local.run(input).await? {
                        StageOutput::States(states) => Ok(states),
                        _ => Err(HopError::Other("a stage gives no states".into())),
                    };
                }
                (Hop::Remote(remote), StageInput::States(states)) => match remote.run(states).await {
                    Ok(given) => {
                        self.parts[index].seen.extend_from_slice(states);
                        return Ok(given);
                    }
                    Err(error) => (remote.node, error),
                },
                (Hop::Remote(_), StageInput::Tokens(_)) => {
                    return Err(HopError::Other("tokens stay with the gateway".into()));
                }
            };
            tracing::warn!(node = %failed, %reason, "a stage failed; another one runs its layers");
            metrics::counter!("aria_stages_replaced_total").increment(1);
            let (layers, seen) = (self.parts[index].layers.clone(), std::mem::take(&mut self.parts[index].seen));
            self.parts[index].hop = self.open(&layers, &seen).await?;
            self.parts[index].seen = seen;
        }
    }

    /// Draws until the end, and closes all stages.
    async fn finish(mut self, told: oneshot::Sender<Cut>) -> Result<Event, HopError> {
        let prompt = self.asked.generation.prompt.clone();
        let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        self.tell(Event::Started { prompt_tokens }).await?;
        let (mut drawn, rows) = (None, rows_of(self.backend.model().hyper.dim));
        for tokens in prompt.chunks(rows) {
            drawn = self.step(tokens).await?;
        }
        let prefill_ms = self.elapsed_ms();
        let (mut tokens, mut text) = (Vec::new(), String::new());
        let finish = loop {
            let Some(Drawn { token, text: released, logprob, finish }) = drawn else {
                return Err(HopError::Other("nothing is drawn behind the prompt".into()));
            };
            tokens.push(token);
            text.push_str(&released);
            self.tell(Event::Token { choice: 0, token, text: released, logprob }).await?;
            if let Some((finish, rest)) = finish {
                text.push_str(&rest);
                self.tell(Event::ChoiceDone { choice: 0, finish, text: rest }).await?;
                break finish;
            }
            drawn = self.step(&[token]).await?;
        };
        let total_ms = self.elapsed_ms();
        self.close((tokens, text, finish), (prefill_ms, total_ms), told).await
    }

    /// Ends all stages; their roots make the transcript's.
    async fn close(
        mut self,
        (tokens, text, finish): (Vec<u32>, String, FinishReason),
        (prefill_ms, total_ms): (u32, u32),
        told: oneshot::Sender<Cut>,
    ) -> Result<Event, HopError> {
        let (mut stages, mut numbers, mut roots) = (Vec::<Stage>::new(), Vec::new(), Vec::new());
        let (me, mut spent) = (self.pipeline.chain.key.node_id(), None::<Energy>);
        for index in 0..=self.parts.len() {
            let closed = self.close_part(index).await?;
            let took = energy(&closed);
            spent = Some(spent.map_or(took.clone(), |sum| sum.plus(&took)));
            if let Err(error) = join(&mut roots, closed.roots) {
                // One of the two said something else than it computed. Nobody is asked again before it is known which.
                for at in [index.checked_sub(1), Some(index)].into_iter().flatten() {
                    if let Some(Part { hop: Hop::Remote(remote), .. }) = self.parts.get(at) {
                        self.pipeline.distrust(remote.node, "differs from its neighbour about what was handed over");
                    }
                }
                return Err(error);
            }
            let Some(Part { layers, hop, .. }) = self.parts.get(index) else { break };
            let (node_id, number) = match hop {
                Hop::Local(_) => (me, None),
                Hop::Remote(remote) => (remote.node, Some(remote.number())),
            };
            let small = |layer: usize| u16::try_from(layer).unwrap_or(u16::MAX);
            // What this node runs of neighbouring layers is one stage.
            match stages.last_mut().filter(|last| last.node_id == me && node_id == me) {
                Some(last) => last.layer_end = small(layers.end),
                None => {
                    stages.push(Stage { node_id, layer_start: small(layers.start), layer_end: small(layers.end) });
                    numbers.push(number);
                }
            }
        }
        let generation = &self.asked.generation;
        let hash = text_hash(&generation.salt, &generation.prompt, &tokens, finish);
        let root = request_root(&[choice_root(&self.backend.model().digest, &roots, &hash)]);
        let prompt_tokens = u32::try_from(generation.prompt.len()).unwrap_or(u32::MAX);
        let generated_tokens = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let cut = Cut { pipeline: Arc::clone(&self.pipeline), stages, numbers, roots: roots.clone(), text: hash };
        // Where nobody waits for it, nobody waits for the answer.
        let _ = told.send(cut);
        metrics::counter!("aria_pipeline_answers_total").increment(1);
        Ok(Event::Done(Box::new(Outcome {
            choices: vec![ChoiceOutcome { tokens, text, finish, boundary_roots: roots }],
            transcript_root: root,
            prompt_tokens,
            cached_tokens: 0,
            generated_tokens,
            first_token_ms: prefill_ms,
            total_ms,
            prefill_ms,
            // Of other nodes nobody here knows it.
            cpu_us: 0,
            energy: spent.unwrap_or_else(nothing),
            cancelled: false,
        })))
    }

    /// Ends a part, or the head behind the last. For a stage that fails here, this node runs its layers.
    async fn close_part(&mut self, index: usize) -> Result<Closed, HopError> {
        let Some(part) = self.parts.get_mut(index) else { return self.head.close().await };
        let failed = match &mut part.hop {
            Hop::Local(local) => return local.close().await,
            Hop::Remote(remote) => match remote.close(&part.layers).await {
                Ok(closed) => return Ok(closed),
                Err(error) => error,
            },
        };
        tracing::warn!(%failed, "a stage failed at the end; its layers are run again here");
        metrics::counter!("aria_stages_replaced_total").increment(1);
        let (layers, seen) = (part.layers.clone(), std::mem::take(&mut part.seen));
        let mut local = self.open_here(&layers, &seen).await?;
        let closed = local.close().await?;
        self.parts[index].hop = Hop::Local(local);
        Ok(closed)
    }

    /// Passes an event on. A client that is gone, or a cancelled request, ends the answer.
    async fn tell(&self, event: Event) -> Result<(), HopError> {
        let is_over = self.cancel.is_cancelled() || self.events.send(event).await.is_err();
        if is_over { Err(HopError::Other("nobody waits for the answer any more".into())) } else { Ok(()) }
    }

    fn elapsed_ms(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_millis()).unwrap_or(u32::MAX)
    }
}

/// What of a request a stage computes.
fn plan(asked: &Asked, layers: Range<usize>) -> StagePlan {
    let generation = &asked.generation;
    StagePlan { layers, positions: generation.positions(), leaf_key: leaf_key(&generation.salt), draws: None }
}

fn nothing() -> Energy {
    Energy { microjoules: 0, source: aria_inference::energy::EnergySource::Estimated }
}

/// Puts a stage's roots behind those of the stages before it: both have that of the boundary between them.
fn join(roots: &mut Vec<Hash>, Roots(next): Roots) -> Result<(), HopError> {
    match (roots.last(), next.first()) {
        (None, Some(_)) => roots.extend(next),
        (Some(passed), Some(taken)) if passed == taken => roots.extend(&next[1..]),
        _ => return Err(HopError::Other("two stages differ about what one passed on and the other took over".into())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_cut_evenly_and_all_of_them() {
        assert_eq!(parts(6, 1), vec![0..6; 1]);
        assert_eq!(parts(6, 2), [0..3, 3..6]);
        assert_eq!(parts(6, 4), [0..2, 2..3, 3..5, 5..6]);
        assert_eq!(parts(2, 5), [0..1, 1..2]);
        for layers in 1..40 {
            for count in 1..12 {
                let cut = parts(layers, count);
                assert!(cut.iter().all(|part| !part.is_empty()));
                assert!(
                    cut.windows(2)
                        .all(|pair| pair[0].end == pair[1].start && pair[0].len().abs_diff(pair[1].len()) <= 1)
                );
                assert_eq!((cut[0].start, cut[cut.len() - 1].end, cut.len()), (0, layers, count.min(layers)));
            }
        }
    }

    #[test]
    fn neighbours_must_agree_about_what_was_handed_over() {
        let mut roots = Vec::new();
        join(&mut roots, Roots(vec![[0; 32], [1; 32]])).expect("the first");
        join(&mut roots, Roots(vec![[1; 32], [2; 32]])).expect("they agree");
        assert_eq!(roots, [[0; 32], [1; 32], [2; 32]]);
        assert!(join(&mut roots, Roots(vec![[1; 32], [3; 32]])).is_err());
        assert!(join(&mut roots, Roots(Vec::new())).is_err());
    }
}
