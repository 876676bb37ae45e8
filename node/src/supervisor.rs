//! Tasks with a name, an owner and an end. Stopping goes stage by stage, doors first, the store last.

use std::{future::Future, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::error::NodeError;

/// What stops together. The order here is the order of stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Listeners: nothing new comes in, open answers end.
    Doors,
    /// Generation and the recording of answers.
    Engine,
    /// Block production.
    Consensus,
}

const STAGES: [Stage; 3] = [Stage::Doors, Stage::Engine, Stage::Consensus];

/// How long one stage may take to stop. Streams get ten seconds (docs/rpc.md); the rest ends in milliseconds.
const STAGE_STOP_MAX: Duration = Duration::from_secs(12);

/// Owner of all tasks of a node.
#[derive(Debug)]
pub struct Supervisor {
    stages: [(CancellationToken, TaskTracker); 3],
    ended: mpsc::Sender<Ended>,
    ends: mpsc::Receiver<Ended>,
}

/// A critical task that ended.
#[derive(Debug)]
pub struct Ended {
    /// Its name.
    pub task: &'static str,
    /// Why.
    pub result: Result<(), NodeError>,
}

/// A way to start tasks of one stage that end on their own, such as one answer each.
#[derive(Debug, Clone)]
pub struct Spawner {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Spawner {
    /// Runs `task`; stopping the stage waits for it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Told when the stage stops.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        // One place per critical task would do; there are fewer than sixteen.
        let (ended, ends) = mpsc::channel(16);
        Supervisor { stages: std::array::from_fn(|_| (CancellationToken::new(), TaskTracker::new())), ended, ends }
    }
}

impl Supervisor {
    /// A handle for short-lived tasks of `stage`.
    pub fn spawner(&self, stage: Stage) -> Spawner {
        let (stop, tracker) = &self.stages[stage as usize];
        Spawner { stop: stop.clone(), tracker: tracker.clone() }
    }

    /// Starts a task without which the node cannot go on. It must end when its stop token is cancelled.
    pub fn critical<F>(&self, stage: Stage, task: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), NodeError>> + Send + 'static,
    {
        let (stop, tracker) = &self.stages[stage as usize];
        let (future, ended) = (run(stop.clone()), self.ended.clone());
        tracker.spawn(async move {
            let result = future.await;
            tracing::debug!(task, ok = result.is_ok(), "ended");
            // The channel holds one place for every task, so this fails only when the supervisor is gone.
            let _ = ended.try_send(Ended { task, result });
        });
    }

    /// Waits for the first critical task that ends.
    pub async fn first_end(&mut self) -> Ended {
        self.ends.recv().await.expect("the supervisor itself holds a sender")
    }

    /// Stops all stages in order, waiting for each.
    pub async fn shut_down(self) {
        for (stage, (stop, tracker)) in STAGES.iter().zip(&self.stages) {
            stop.cancel();
            tracker.close();
            if timeout(STAGE_STOP_MAX, tracker.wait()).await.is_err() {
                tracing::warn!(?stage, tasks = tracker.len(), "did not stop in time");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn stages_stop_in_order_and_are_awaited() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let supervisor = Supervisor::default();
        for (stage, name) in [(Stage::Consensus, "consensus"), (Stage::Engine, "engine"), (Stage::Doors, "doors")] {
            let order = Arc::clone(&order);
            supervisor.critical(stage, name, |stop| async move {
                stop.cancelled().await;
                order.lock().expect("not poisoned").push(name);
                Ok(())
            });
        }
        supervisor.shut_down().await;
        assert_eq!(*order.lock().expect("not poisoned"), ["doors", "engine", "consensus"]);
    }

    #[tokio::test]
    async fn the_first_end_is_reported_by_name() {
        let mut supervisor = Supervisor::default();
        supervisor.critical(Stage::Doors, "api", |_| async { Err(NodeError::NoHome) });
        let ended = supervisor.first_end().await;
        assert_eq!(ended.task, "api");
        assert!(matches!(ended.result, Err(NodeError::NoHome)));
    }
}
