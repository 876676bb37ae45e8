//! The consent contract in force on this node: it admits what is served, and limits what that takes while it runs.
//!
//! Without a contract a node serves whoever reaches its doors, as before there were contracts. One that is stated, by flags,
//! configuration, file or the private door, governs every door, and is changed without a restart. One that was revoked admits
//! nothing; its limits stay.
//!
//! In reading order: [`Governor`], [`mod@file`] (how a contract outlives a restart), [`memory`] (what a model and its answers take),
//! [`place`] (who is told where this node is).

use std::sync::{Arc, Mutex, MutexGuard};

use aria_chain::consent::{Ask, Consent, Refusal};
use aria_chain::request::TaskType;
use aria_chain::units::{NanoAria, Timestamp};
use aria_inference::backend::Backend;
use aria_inference::engine::EngineOptions;
use aria_inference::pace::Limits;
use aria_rpc::consent::amend;
use serde_json::{Map, Value};
use tokio::sync::watch;

use self::memory::Memory;
use crate::cli::BackendChoice;
use crate::config::NodeConfig;
use crate::data_dir::DataDir;
use crate::error::NodeError;
use crate::model::Located;
use crate::network::throttle::Throttle;

pub mod file;
pub mod memory;
pub mod place;

/// Bytes of all key-value caches, where no contract says less. A session of the 2B model takes 77 kB a token.
pub const KV_BYTES_MAX: u64 = 2 << 30;

/// A contract, and whether its operator took it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// What was stated last.
    pub contract: Consent,
    /// Nothing is admitted any more.
    pub is_revoked: bool,
}

/// What is to be admitted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// When.
    pub at: Timestamp,
    /// The kind of task.
    pub task: TaskType,
    /// Memory that the client says its task takes, in megabytes.
    pub ram_mb: u32,
    /// Bytes of the caches of all its choices.
    pub kv_bytes: u64,
    /// What its answer can earn.
    pub reward: NanoAria,
}

/// Keeper of the contract.
pub struct Governor {
    dir: DataDir,
    /// Clauses of the configuration, for what a file leaves out.
    configured: Map<String, Value>,
    processors: usize,
    /// Threads, caches: what holds where no contract says less.
    unlimited: Limits,
    /// Bytes to and from peers.
    pub throttle: Arc<Throttle>,
    /// Whether the node may tell where it is.
    may_tell_place: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    in_force: Option<InForce>,
    /// Answers in the making.
    running: u16,
    /// What runs the model, once it is loaded.
    backend: Option<Arc<dyn Backend>>,
    /// A second model, while audits need it.
    beside: Option<Beside>,
}

/// A model beside the served one.
struct Beside {
    /// Of its weights; while it is loaded, as far as that is known.
    weight_bytes: u64,
    bytes_per_position: u64,
    /// What runs it, once it is loaded.
    backend: Option<Arc<dyn Backend>>,
}

impl State {
    /// Bytes of all weights.
    fn weight_bytes(&self) -> u64 {
        let served = self.backend.as_ref().map_or(0, |backend| backend.model().weight_bytes);
        served.saturating_add(self.beside.as_ref().map_or(0, |beside| beside.weight_bytes))
    }

    /// How the memory of a contract is divided now.
    fn memory(&self, contract: &Consent) -> Memory {
        let memory = Memory::of(contract, self.weight_bytes());
        if self.beside.is_some() { memory.halved() } else { memory }
    }

    /// Whether the contract has room for the second model, if there is one.
    fn check_beside(&self) -> Result<(), NodeError> {
        let (Some(InForce { contract, .. }), Some(beside)) = (self.in_force, &self.beside) else { return Ok(()) };
        let served = self.backend.as_ref().map_or(0, |backend| backend.model().kv_shape().bytes_per_position() as u64);
        let bytes_per_position = beside.bytes_per_position.max(served);
        self.memory(&contract).check(&contract, self.weight_bytes(), bytes_per_position)
    }
}

/// Leave for one answer; it counts until this is dropped.
pub struct Permit(Arc<Governor>);

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running = state.running.saturating_sub(1);
    }
}

impl Governor {
    /// The contract of a folder, changed by configuration and flags.
    pub fn open(dir: &DataDir, config: &NodeConfig) -> Result<Arc<Governor>, NodeError> {
        let kept = file::read(dir, &config.consent)?;
        let begins = !config.consent.is_empty() || !config.terms.is_empty();
        let base = match kept {
            Some(kept) => Some(kept),
            None if begins => {
                Some(InForce { contract: amend(Consent::default(), &config.consent)?, is_revoked: false })
            }
            None => None,
        };
        let in_force = match base {
            Some(InForce { contract, is_revoked }) => {
                Some(InForce { contract: amend(contract, &config.terms)?, is_revoked })
            }
            None => None,
        };
        if in_force.is_some_and(|in_force| in_force.is_revoked) {
            tracing::warn!("the consent was revoked, so nothing is answered; `aria consent set` states another one");
        }
        let governor = Governor {
            dir: dir.clone(),
            configured: config.consent.clone(),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            unlimited: unlimited(config),
            throttle: Arc::default(),
            may_tell_place: watch::Sender::new(true),
            state: Mutex::new(State { in_force, ..State::default() }),
        };
        governor.enforce(&governor.state());
        Ok(Arc::new(governor))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no section that holds this lock panics")
    }

    /// The contract, if one was stated.
    pub fn in_force(&self) -> Option<InForce> {
        self.state().in_force
    }

    /// Whether the node may tell where it is, now and whenever that changes.
    pub fn may_tell_place(&self) -> watch::Receiver<bool> {
        self.may_tell_place.subscribe()
    }

    /// States a contract: what is named, and the rest as it was or as operators begin. It is on disk, and kept, when this returns.
    pub fn set(&self, fields: &Map<String, Value>) -> Result<Consent, NodeError> {
        let mut state = self.state();
        let base = state.in_force.map_or_else(Consent::default, |in_force| in_force.contract);
        let contract = amend(base, fields)?;
        self.keep(&mut state, InForce { contract, is_revoked: false })?;
        Ok(contract)
    }

    /// Takes the consent back. Answers in the making end; the limits of the contract stay.
    pub fn revoke(&self) -> Result<(), NodeError> {
        let mut state = self.state();
        let contract = state.in_force.map_or_else(Consent::default, |in_force| in_force.contract);
        self.keep(&mut state, InForce { contract, is_revoked: true })
    }

    /// Takes over what somebody wrote into the file. Whether that is anything new.
    pub fn reload(&self) -> Result<bool, NodeError> {
        let mut state = self.state();
        let kept = file::read(&self.dir, &self.configured)?;
        // A file that was taken away revokes nothing and allows nothing more.
        if kept.is_none() || kept == state.in_force {
            return Ok(false);
        }
        state.in_force = kept;
        self.enforce(&state);
        Ok(true)
    }

    fn keep(&self, state: &mut State, in_force: InForce) -> Result<(), NodeError> {
        file::write(&self.dir, in_force)?;
        state.in_force = Some(in_force);
        self.enforce(state);
        Ok(())
    }

    /// Loads a model if the memory that is stated holds it with one short session: by its sizes before it is read, and as it is
    /// afterwards. *Blocks.*
    pub fn load(
        &self,
        located: &Located,
        choice: BackendChoice,
        options: &EngineOptions,
    ) -> Result<Arc<dyn Backend>, NodeError> {
        if choice != BackendChoice::Simulation {
            self.check_model(located.sizes()?)?;
        }
        let backend = located.start(choice, options)?;
        let info = backend.model();
        self.check_model((info.weight_bytes, info.kv_shape().bytes_per_position() as u64))?;
        Ok(backend)
    }

    fn check_model(&self, (weight_bytes, bytes_per_position): (u64, u64)) -> Result<(), NodeError> {
        let Some(InForce { contract, .. }) = self.in_force() else { return Ok(()) };
        Memory::of(&contract, weight_bytes).check(&contract, weight_bytes, bytes_per_position)
    }

    /// Loads a model beside the served one, if machine and contract have the memory: both keep room for one short session. There
    /// is one at a time. *Blocks.*
    pub fn load_beside(&self, located: &Located, options: &EngineOptions) -> Result<Arc<dyn Backend>, NodeError> {
        let sizes = located.sizes()?;
        memory::check_machine(memory::free_bytes(), sizes)?;
        let loaded = self.take_beside(sizes, None).and_then(|limits| {
            // The longest claim that it can run is settled here, by what its head says.
            let Limits { threads, kv_bytes_max, prefix_bytes_max, .. } = limits;
            let options = EngineOptions { threads, kv_bytes_max, prefix_bytes_max, ..options.clone() };
            let backend = located.start(BackendChoice::Builtin, &options)?;
            let info = backend.model();
            let sizes = (info.weight_bytes, info.kv_shape().bytes_per_position() as u64);
            self.take_beside(sizes, Some(Arc::clone(&backend))).map(|_| backend)
        });
        loaded.inspect_err(|_| self.leave_beside())
    }

    /// Counts a second model from now on, before it is read and as it is afterwards. What holds for it.
    fn take_beside(
        &self,
        (weight_bytes, bytes_per_position): (u64, u64),
        backend: Option<Arc<dyn Backend>>,
    ) -> Result<Limits, NodeError> {
        let mut state = self.state();
        state.beside = Some(Beside { weight_bytes, bytes_per_position, backend });
        state.check_beside()?;
        self.enforce(&state);
        Ok(self.limits_beside(&state))
    }

    /// Whether the contract still has room for the second model.
    pub fn check_beside(&self) -> Result<(), NodeError> {
        self.state().check_beside()
    }

    /// Counts no second model any more.
    pub fn leave_beside(&self) {
        let left = {
            let mut state = self.state();
            let left = state.beside.take();
            self.enforce(&state);
            left
        };
        // To end an engine takes a moment, in which nobody has to wait.
        drop(left);
    }

    /// Takes the model that is loaded into charge.
    pub fn take_charge(&self, backend: Arc<dyn Backend>) {
        let mut state = self.state();
        state.backend = Some(backend);
        self.enforce(&state);
    }

    /// Makes the limits of the contract hold.
    fn enforce(&self, state: &State) {
        let contract = state.in_force.map(|in_force| in_force.contract);
        self.throttle.set(contract.map(|contract| contract.max_bandwidth_kbps));
        self.may_tell_place.send_replace(contract.is_none_or(|contract| contract.allow_geo_tracking));
        if let Some(backend) = &state.backend {
            backend.limit(self.limits(state));
        }
        if let Some(Beside { backend: Some(backend), .. }) = &state.beside {
            backend.limit(self.limits_beside(state));
        }
    }

    /// What holds for the model that is served.
    fn limits(&self, state: &State) -> Limits {
        let Some(InForce { contract, .. }) = state.in_force else { return self.unlimited };
        let memory = state.memory(&contract);
        Limits {
            threads: self.threads_of(&contract),
            cpu_percent: contract.cpu_percent,
            kv_bytes_max: memory.kv_bytes_max.min(self.unlimited.kv_bytes_max),
            prefix_bytes_max: memory.prefix_bytes_max.min(self.unlimited.prefix_bytes_max),
        }
    }

    /// What holds for a second model: the caches that are left for it, none of ended sessions, and half of the threads, for the served
    /// one goes on meanwhile. Each rests by the processor time of the whole process, so both together keep to the share.
    fn limits_beside(&self, state: &State) -> Limits {
        let limits = self.limits(state);
        Limits { threads: (limits.threads / 2).max(1), prefix_bytes_max: 0, ..limits }
    }

    /// Whole threads of the share that is stated, at least one: what one thread is too much, rests make up for.
    fn threads_of(&self, contract: &Consent) -> usize {
        (self.processors * usize::from(contract.cpu_percent) / 100).clamp(1, self.unlimited.threads)
    }

    /// Threads of a forward pass now.
    pub fn threads(&self) -> usize {
        self.in_force().map_or(self.unlimited.threads, |in_force| self.threads_of(&in_force.contract))
    }

    /// Positions for which there is memory in each of so many choices.
    pub fn positions_max(&self, choices: u32, bytes_per_position: u64) -> usize {
        let state = self.state();
        let (Some(in_force), Some(_)) = (state.in_force, &state.backend) else { return usize::MAX };
        let bytes = state.memory(&in_force.contract).kv_bytes_max;
        usize::try_from(bytes / bytes_per_position.max(1) / u64::from(choices.max(1))).unwrap_or(usize::MAX)
    }

    /// Leave for an answer, or the clause that forbids it.
    pub fn admit(self: &Arc<Self>, wanted: &Wanted) -> Result<Permit, Refusal> {
        let mut state = self.state();
        if let Some(InForce { contract, is_revoked }) = state.in_force {
            if is_revoked {
                return Err(Refusal::Revoked);
            }
            let needed_mb = state.memory(&contract).needed_mb(state.weight_bytes(), wanted.kv_bytes);
            let ram_mb = needed_mb.max(wanted.ram_mb);
            let Wanted { at, task, reward, .. } = *wanted;
            contract.admits(&Ask { at, task, ram_mb, reward, running: state.running })?;
        }
        state.running = state.running.saturating_add(1);
        Ok(Permit(Arc::clone(self)))
    }
}

/// What a node takes of its machine where no contract says less.
fn unlimited(config: &NodeConfig) -> Limits {
    let defaults = EngineOptions::default();
    Limits {
        threads: config.threads.unwrap_or(defaults.threads),
        cpu_percent: 100,
        kv_bytes_max: KV_BYTES_MAX,
        prefix_bytes_max: defaults.prefix_bytes_max,
    }
}

#[cfg(test)]
mod tests;
