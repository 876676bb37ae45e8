//! A stage as the gateway has it: in this node's own engine, or at another node.

use std::ops::Range;
use std::sync::Arc;

use aria_chain::ids::NodeId;
use aria_inference::backend::Backend;
use aria_inference::energy::{Energy, EnergySource};
use aria_inference::stage::{StageError, StageId, StageInput, StageJob, StageOutput, StagePlan, StageSink};
use tokio::sync::oneshot;

use super::Pipeline;
use super::talk::{Answer, Ask, Closed, Roots, States, ToRun};

/// Why a stage does not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum HopError {
    /// The engine says so.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// Another node, or the way there.
    #[error("{0}")]
    Other(String),
}

/// Hands a job to an engine and waits for what comes of it.
pub(super) async fn run(
    backend: &dyn Backend,
    job: impl FnOnce(StageSink) -> StageJob,
) -> Result<StageOutput, HopError> {
    let (told, output) = oneshot::channel();
    // Who gave up meanwhile does not need it.
    let sink = Box::new(move |output| drop(told.send(output)));
    backend.stage(job(sink)).map_err(|error| HopError::Other(error.to_string()))?;
    let output = output.await.map_err(|_| HopError::Other("the engine stopped".into()))?;
    output.map_err(HopError::from)
}

/// A stage of this node's own engine. It ends with this.
pub(super) struct Local {
    backend: Arc<dyn Backend>,
    id: StageId,
    is_open: bool,
}

impl Local {
    pub(super) async fn open(backend: Arc<dyn Backend>, plan: StagePlan) -> Result<Local, HopError> {
        let id = StageId::next();
        run(&*backend, |reply| StageJob::Open { id, plan, reply }).await?;
        Ok(Local { backend, id, is_open: true })
    }

    pub(super) async fn run(&self, input: StageInput) -> Result<StageOutput, HopError> {
        run(&*self.backend, |reply| StageJob::Run { id: self.id, input, reply }).await
    }

    pub(super) async fn close(&mut self) -> Result<Closed, HopError> {
        self.is_open = false;
        match run(&*self.backend, |reply| StageJob::Close { id: self.id, reply }).await? {
            StageOutput::Closed(end) => Ok(Closed {
                roots: Roots(end.roots),
                energy_uj: end.energy.microjoules,
                is_measured: end.energy.source == EnergySource::Measured,
            }),
            _ => Err(HopError::Other("a stage ended without an end".into())),
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.is_open {
            // An engine that has stopped has nothing left to end.
            let _ = self.backend.stage(StageJob::Close { id: self.id, reply: Box::new(drop) });
        }
    }
}

/// A stage at another node, and what entered it so far, for who replaces it.
pub(super) struct Remote {
    pipeline: Arc<Pipeline>,
    pub(super) node: NodeId,
    number: u64,
    is_open: bool,
}

impl Remote {
    pub(super) async fn open(pipeline: Arc<Pipeline>, node: NodeId, asked: ToRun) -> Result<Remote, HopError> {
        let number = pipeline.number();
        let remote = Remote { pipeline, node, number, is_open: true };
        match remote.ask(Ask::Open(number, Box::new(asked))).await? {
            Answer::Open => Ok(remote),
            _ => Err(remote.nonsense()),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, HopError> {
        self.pipeline.ask(&self.node, ask).await.map_err(HopError::Other)
    }

    fn nonsense(&self) -> HopError {
        HopError::Other(format!("{} answers something else than it was asked", self.node))
    }

    /// `[positions][dim]`, as many as entered.
    pub(super) async fn run(&self, states: &[f32]) -> Result<Vec<f32>, HopError> {
        match self.ask(Ask::Run(self.number, States(states.to_vec()))).await? {
            Answer::States(States(given)) if given.len() == states.len() => Ok(given),
            _ => Err(self.nonsense()),
        }
    }

    /// Ends the computation; the stage waits for a record to sign.
    pub(super) async fn close(&mut self, layers: &Range<usize>) -> Result<Closed, HopError> {
        self.is_open = false;
        match self.ask(Ask::Close(self.number)).await? {
            Answer::Closed(closed) if closed.roots.0.len() == layers.len() + 1 => Ok(closed),
            _ => Err(self.nonsense()),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if self.is_open {
            let (pipeline, node, number) = (Arc::clone(&self.pipeline), self.node, self.number);
            // What it says is of no use any more, nor that it says nothing: it ends by itself after a while.
            tokio::spawn(async move { drop(pipeline.ask(&node, Ask::Close(number)).await) });
        }
    }
}

/// What stages say of energy, as the engine says it.
pub(super) fn energy(closed: &Closed) -> Energy {
    let source = if closed.is_measured { EnergySource::Measured } else { EnergySource::Estimated };
    Energy { microjoules: closed.energy_uj, source }
}
