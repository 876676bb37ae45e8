//! What runs records, and layers of them, again: the backend that serves, or a second engine with another model that this node has.
//!
//! One model is in memory beside the served one, from when a claim needs it until none has for a while. Claims of one model are run
//! together. Strangers choose whose records come when, so who is loaded has its turn, and loading takes a quarter of the time at most.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aria_chain::attestation::Verdict;
use aria_chain::ids::{Digest, ModelId};
use aria_inference::backend::{Backend, BackendKind};
use aria_inference::engine::EngineOptions;
use aria_inference::kernels::KernelKind;
use aria_inference::verify::{Claim, LayerClaim, LayerVerdict};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::judge::run_again;
use super::layer::run_layers;
use crate::consent::Governor;
use crate::error::NodeError;
use crate::registrar::files::{Files, Found};
use crate::services::Served;

/// Claims on their way to the second engine. Who judges, or looks for what is false, runs fewer at once.
const CLAIMS_MAX: usize = 16;
/// How long a model stays that no claim needs.
const KEPT: Duration = Duration::from_secs(120);
/// How long a model has its turn at least while claims of others wait, and how many times as long as it took to load.
const TURN: Duration = Duration::from_secs(5);
const TURN_LOADS: u32 = 3;
/// A model that could not be loaded is tried again after this long.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// The models that this node can run.
pub struct Models {
    served: Arc<OnceLock<Served>>,
    files: Arc<Mutex<Files>>,
    stop: CancellationToken,
    claims: mpsc::Sender<Waiting>,
}

/// A claim of a model that this node does not serve.
struct Waiting {
    model: ModelId,
    work: Work,
}

/// What is to be run again, and whoever waits for what comes of it.
enum Work {
    Record(Box<Claim>, oneshot::Sender<(Verdict, Digest)>),
    Layers(Box<LayerClaim>, oneshot::Sender<LayerVerdict>),
}

impl Work {
    /// Runs it. Who no longer waits needs no answer.
    async fn run(self, backend: &dyn Backend) {
        match self {
            Work::Record(claim, reply) => {
                if let Some(found) = run_again(backend, *claim).await {
                    let _ = reply.send(found);
                }
            }
            Work::Layers(asked, reply) => {
                if let Some(found) = run_layers(backend, *asked).await {
                    let _ = reply.send(found);
                }
            }
        }
    }
}

impl Models {
    /// What is served, once that is loaded, and what is in the program and the models folder.
    pub fn new(
        (served, files): (Arc<OnceLock<Served>>, Arc<Mutex<Files>>),
        governor: Arc<Governor>,
        kernel: Option<KernelKind>,
        stop: CancellationToken,
    ) -> (Models, Second) {
        let (claims, waiting) = mpsc::channel(CLAIMS_MAX);
        let second = Second {
            governor,
            kernel,
            files: Arc::clone(&files),
            stop: stop.clone(),
            claims: waiting,
            waiting: Vec::new(),
            loaded: None,
            failed: BTreeMap::new(),
        };
        (Models { served, files, stop, claims }, second)
    }

    fn serving(&self, model: &ModelId) -> Option<&Arc<dyn Backend>> {
        let backend = &self.served.get()?.backend;
        let serves = backend.kind() == BackendKind::Builtin && backend.model().digest.0 == *model.as_bytes();
        serves.then_some(backend)
    }

    /// Whether this node serves a model, which costs nothing to begin with.
    pub(super) fn serves(&self, model: &ModelId) -> bool {
        self.serving(model).is_some()
    }

    /// Whether this node has a model. Takes as long as reading all files that are new.
    pub(super) async fn has(&self, model: &ModelId) -> bool {
        if self.served.get().is_none() || self.serves(model) {
            // Before it is known what is served, nothing is loaded beside it.
            return self.serves(model);
        }
        let (files, stop, model) = (Arc::clone(&self.files), self.stop.clone(), *model);
        spawn_blocking(move || find(&files, &model, &stop).is_some()).await.unwrap_or(false)
    }

    /// Runs a claim again: whether it is true, and the root of the transcript under its secret. None: this node cannot tell.
    pub(super) async fn run_again(&self, model: &ModelId, claim: Claim) -> Option<(Verdict, Digest)> {
        if let Some(backend) = self.serving(model) {
            return run_again(&**backend, claim).await;
        }
        let (reply, told) = oneshot::channel();
        let work = Work::Record(Box::new(claim), reply);
        self.claims.send(Waiting { model: *model, work }).await.ok()?;
        told.await.ok()
    }

    /// Runs layers of a claim again. None: this node cannot tell.
    pub(super) async fn run_layers(&self, model: &ModelId, asked: LayerClaim) -> Option<LayerVerdict> {
        if let Some(backend) = self.serving(model) {
            return run_layers(&**backend, asked).await;
        }
        let (reply, told) = oneshot::channel();
        let work = Work::Layers(Box::new(asked), reply);
        self.claims.send(Waiting { model: *model, work }).await.ok()?;
        told.await.ok()
    }
}

fn find(files: &Mutex<Files>, model: &ModelId, stop: &CancellationToken) -> Option<Found> {
    let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
    files.find(model, &|| stop.is_cancelled())
}

/// The second engine.
pub struct Second {
    files: Arc<Mutex<Files>>,
    governor: Arc<Governor>,
    kernel: Option<KernelKind>,
    stop: CancellationToken,
    claims: mpsc::Receiver<Waiting>,
    /// Oldest first.
    waiting: Vec<Waiting>,
    loaded: Option<(Turn, Arc<dyn Backend>)>,
    /// When a model could not be loaded; the log says why.
    failed: BTreeMap<ModelId, Instant>,
}

/// The turn of the model that is loaded.
#[derive(Clone, Copy, Debug)]
struct Turn {
    model: ModelId,
    /// From then on it makes room for others.
    until: Instant,
    /// When a claim last needed it.
    used: Instant,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// All claims of a model, which is loaded if it is not.
    Run(ModelId),
    /// The model that nobody needs any more goes.
    Drop,
    /// Nothing before that time, or before another claim comes.
    Wait(Option<Instant>),
}

/// What comes next for claims of these models, oldest first.
fn next(turn: Option<&Turn>, waiting: &[ModelId], now: Instant) -> Next {
    let Some(turn) = turn else {
        return waiting.first().map_or(Next::Wait(None), |model| Next::Run(*model));
    };
    let other = waiting.iter().find(|model| **model != turn.model);
    match (waiting.contains(&turn.model), other) {
        (_, Some(other)) if now >= turn.until => Next::Run(*other),
        (true, _) => Next::Run(turn.model),
        (false, Some(_)) => Next::Wait(Some(turn.until)),
        (false, None) if now >= turn.used + KEPT => Next::Drop,
        (false, None) => Next::Wait(Some(turn.used + KEPT)),
    }
}

impl Second {
    /// Runs claims until told to stop.
    pub async fn run(mut self) -> Result<(), NodeError> {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
        self.unload().await;
        Ok(())
    }

    /// Goes on until nobody can bring a claim any more.
    async fn work(&mut self) {
        loop {
            while let Ok(claim) = self.claims.try_recv() {
                self.waiting.push(claim);
            }
            let models: Vec<ModelId> = self.waiting.iter().map(|waiting| waiting.model).collect();
            let until = match next(self.loaded.as_ref().map(|(turn, _)| turn), &models, Instant::now()) {
                Next::Run(model) => {
                    self.run_all(model).await;
                    continue;
                }
                Next::Drop => {
                    self.unload().await;
                    continue;
                }
                Next::Wait(until) => until,
            };
            let brought = match until {
                Some(until) => timeout_at(until, self.claims.recv()).await,
                None => Ok(self.claims.recv().await),
            };
            match brought {
                Ok(Some(claim)) => self.waiting.push(claim),
                Ok(None) => return,
                Err(_elapsed) => {}
            }
        }
    }

    /// Runs all claims of a model that wait. Where it cannot be loaded they are dropped: this node cannot tell.
    async fn run_all(&mut self, model: ModelId) {
        let all = std::mem::take(&mut self.waiting);
        let (claims, others) = all.into_iter().partition::<Vec<_>, _>(|waiting| waiting.model == model);
        self.waiting = others;
        let Some(backend) = self.backend(model).await else { return };
        let mut runs = JoinSet::new();
        for Waiting { work, .. } in claims {
            let backend = Arc::clone(&backend);
            runs.spawn(async move { work.run(&*backend).await });
        }
        while runs.join_next().await.is_some() {}
        if let Some((turn, _)) = &mut self.loaded {
            turn.used = Instant::now();
        }
    }

    /// What runs a model: as it is loaded already, or instead of another one.
    async fn backend(&mut self, model: ModelId) -> Option<Arc<dyn Backend>> {
        let loaded = self.loaded.as_ref().filter(|(turn, _)| turn.model == model);
        // The contract may have become smaller since.
        if let Some((_, backend)) = loaded.filter(|_| self.governor.check_beside().is_ok()) {
            return Some(Arc::clone(backend));
        }
        self.unload().await;
        if self.failed.get(&model).is_some_and(|since| since.elapsed() < TRY_AGAIN) {
            return None;
        }
        let begun = Instant::now();
        match self.load(model).await {
            Ok(backend) => {
                tracing::info!(%model, "a model that is not served is loaded for audits");
                self.failed.remove(&model);
                let used = Instant::now();
                let until = used + TURN.max((used - begun) * TURN_LOADS);
                self.loaded = Some((Turn { model, until, used }, Arc::clone(&backend)));
                Some(backend)
            }
            Err(error) => {
                if self.failed.insert(model, Instant::now()).is_none() {
                    tracing::warn!(%model, %error, "this node has a model that it cannot run for audits");
                }
                None
            }
        }
    }

    /// Loads a model and makes sure that it is the one: a file may be another by now than when it was looked at.
    async fn load(&self, model: ModelId) -> Result<Arc<dyn Backend>, NodeError> {
        let (files, stop) = (Arc::clone(&self.files), self.stop.clone());
        let options = EngineOptions { kernel: self.kernel, ..EngineOptions::default() };
        let governor = Arc::clone(&self.governor);
        let loading = spawn_blocking(move || {
            let found = find(&files, &model, &stop).ok_or_else(|| NodeError::NoModel { name: model.to_string() })?;
            let backend = governor.load_beside(&found.located, &options)?;
            if backend.model().digest.0 == *model.as_bytes() {
                return Ok(backend);
            }
            governor.leave_beside();
            Err(NodeError::Model { name: found.located.source.to_string(), reason: "it was changed".to_owned() })
        });
        loading.await.map_err(|error| NodeError::Task { task: "second model", reason: error.to_string() })?
    }

    async fn unload(&mut self) {
        let Some((Turn { model, .. }, backend)) = self.loaded.take() else { return };
        let governor = Arc::clone(&self.governor);
        let unloading = spawn_blocking(move || {
            governor.leave_beside();
            drop(backend);
        });
        // What frees memory has nothing to say.
        let _ = unloading.await;
        tracing::info!(%model, "no audit needs a model any more, or another one has its turn");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use aria_inference::gguf::Gguf;
    use aria_inference::synthetic::Shape;
    use serde_json::json;

    use super::*;
    use crate::cli::StartArgs;
    use crate::config::{ConfigFile, NodeConfig};
    use crate::data_dir::DataDir;
    use crate::model::{Located, Source};

    /// Puts a small model into a file, and returns which it is.
    fn write(path: &Path, seed: u64) -> ModelId {
        let bytes = Shape::named("tiny").expect("known").file(seed);
        std::fs::write(path, bytes).expect("written");
        Found::read(Located { name: String::new(), source: Source::File(path.into()) }).expect("sound").model
    }

    /// The second engine of a node with these files.
    fn second(folder: &Path) -> (Second, Arc<Governor>) {
        let dir = DataDir::create(folder).expect("a folder");
        let config = NodeConfig::settle(&StartArgs::default(), &ConfigFile::default()).expect("sound");
        let governor = Governor::open(&dir, &config).expect("no contract");
        let files = Arc::new(Mutex::new(Files::new(dir.models())));
        let (_, second) = Models::new((Arc::default(), files), Arc::clone(&governor), None, CancellationToken::new());
        (second, governor)
    }

    #[tokio::test]
    async fn one_model_at_a_time_is_loaded_if_it_is_the_one_and_fits() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut second, governor) = second(folder.path());
        let files = ["one.gguf", "other.gguf"].map(|name| folder.path().join("models").join(name));
        std::fs::create_dir_all(folder.path().join("models")).expect("a folder");
        let (one, other) = (write(&files[0], 1), write(&files[1], 2));
        let loaded = Arc::downgrade(&second.backend(one).await.expect("it is there"));
        assert_eq!(loaded.upgrade().expect("it stays").model().digest.0, *one.as_bytes());
        assert!(second.backend(other).await.is_some());
        assert!(loaded.upgrade().is_none(), "one at a time");
        second.unload().await;

        // Another file of the same length and time, as damage on a disk looks.
        let written = std::fs::metadata(&files[1]).expect("there").modified().expect("told");
        write(&files[1], 3);
        File::options().write(true).open(&files[1]).expect("there").set_modified(written).expect("set");
        assert!(Gguf::open(&files[1]).is_ok() && second.backend(other).await.is_none(), "it is not what it was");
        assert!(second.failed.contains_key(&other) && second.loaded.is_none());

        // A contract that becomes too small ends it, and a larger one lets it begin again, a while later.
        assert!(second.backend(one).await.is_some());
        governor.set(json!({"max_ram_mb": 98}).as_object().expect("fields")).expect("it can be stated");
        assert!(second.backend(one).await.is_none() && second.loaded.is_none());
        governor.set(json!({"max_ram_mb": 512}).as_object().expect("fields")).expect("it can be stated");
        assert!(second.backend(one).await.is_none(), "not at once");
        second.failed.clear();
        assert!(second.backend(one).await.is_some());
    }

    #[test]
    fn who_is_loaded_has_its_turn_and_goes_when_nobody_needs_it() {
        let (one, other, third) = (ModelId::new([1; 32]), ModelId::new([2; 32]), ModelId::new([3; 32]));
        let used = Instant::now();
        let turn = Turn { model: one, until: used + TURN, used };
        let (early, late) = (used, used + TURN);
        assert_eq!(next(None, &[], early), Next::Wait(None));
        assert_eq!(next(None, &[other, one], early), Next::Run(other), "the oldest first");
        let turn = Some(&turn);
        assert_eq!(next(turn, &[other, one, third], early), Next::Run(one), "what is there, while it has its turn");
        assert_eq!(next(turn, &[other, third], early), Next::Wait(Some(late)), "claims of others gather");
        assert_eq!(next(turn, &[one, other, third], late), Next::Run(other), "nobody keeps others out");
        assert_eq!(next(turn, &[one], late), Next::Run(one), "where nobody waits it stays");
        assert_eq!(next(turn, &[], late), Next::Wait(Some(used + KEPT)));
        assert_eq!(next(turn, &[], used + KEPT), Next::Drop);
    }
}
