//! A voter's word on models that somebody proposes: whoever has the model looks into it, and confirms a proposal that is true.
//!
//! The shape decides how much work an answer of the model is, so nobody is believed about it. This node confirms what it read
//! in the header of a file whose digest it computed itself, and nothing else. A model that it does not have it leaves to others.
//!
//! - [`files`]: the shapes of the models at hand, by digest

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use aria_chain::ids::{Digest, ModelId};
use aria_chain::limits::MODEL_PROPOSALS_MAX;
use aria_chain::model::Shape;
use aria_chain::store::Health;
use aria_chain::transaction::Action;
use aria_chain::units::Height;
use aria_inference::backend::BackendKind;
use aria_runtime::state::{ModelProposal, ProposalIds, Reader, StateError};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::files::Files;
use crate::chain::Chain;
use crate::error::NodeError;
use crate::model::shape_of;
use crate::services::Served;

pub mod files;

/// How often to look where no block comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What was said and is in no block is said again after this long.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Blocks for which a confirmation stands. It comes with the next one, or is said again.
const EXPIRY_BLOCKS: u64 = 100;

/// Confirms true proposals until told to stop.
pub async fn run(
    chain: Arc<Chain>,
    served: Arc<OnceLock<Served>>,
    files: Arc<Mutex<Files>>,
    stop: CancellationToken,
) -> Result<(), NodeError> {
    let mut tips = chain.tip_changes();
    let mut registrar =
        Registrar { chain, served, files, stop: stop.clone(), said: BTreeMap::new(), warned: BTreeSet::new() };
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = tips.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        // The state and whole model files are read from disk.
        let looked = spawn_blocking(move || registrar.look().map(|()| registrar));
        registrar = looked.await.map_err(|error| NodeError::Task { task: "models", reason: error.to_string() })??;
    }
}

struct Registrar {
    chain: Arc<Chain>,
    served: Arc<OnceLock<Served>>,
    files: Arc<Mutex<Files>>,
    stop: CancellationToken,
    /// When this node last confirmed a model.
    said: BTreeMap<ModelId, Instant>,
    /// False proposals that the log names already.
    warned: BTreeSet<ProposalIds>,
}

/// A proposal with its ids.
type Proposed = (ProposalIds, ModelProposal);

impl Registrar {
    /// Looks at every proposal that stands, and confirms one of each model.
    fn look(&mut self) -> Result<(), NodeError> {
        let proposals = self.proposals()?;
        let is_there = |model: &ModelId| proposals.iter().any(|((other, _), _)| other == model);
        self.said.retain(|model, _| is_there(model));
        self.warned.retain(|ids| proposals.iter().any(|(other, _)| other == ids));
        let me = self.chain.key.node_id();
        let can_write = self.chain.health() == Health::Writing;
        if proposals.is_empty() || !can_write || self.chain.voters()?.set.power_of(&me) == 0 {
            return Ok(());
        }
        for of_model in proposals.chunk_by(|((one, _), _), ((other, _), _)| one == other) {
            let Some(((model, _), _)) = of_model.first() else { continue };
            if !self.stop.is_cancelled() && self.may_say(model) && !self.has_confirmed(of_model)? {
                self.judge(model, of_model)?;
            }
        }
        Ok(())
    }

    /// What the next block could confirm, in order of model.
    fn proposals(&self) -> Result<Vec<Proposed>, NodeError> {
        let (view, params) = (self.chain.view(), self.chain.genesis.params());
        let mut proposals = Reader(&view).model_proposals(MODEL_PROPOSALS_MAX).map_err(execution)?;
        let next = self.next_height();
        proposals.retain(|(_, proposal)| proposal.stands(next, params));
        Ok(proposals)
    }

    fn next_height(&self) -> Height {
        let tip = self.chain.tip_height();
        tip.next().unwrap_or(tip)
    }

    fn may_say(&self, model: &ModelId) -> bool {
        self.said.get(model).is_none_or(|since| since.elapsed() >= SAY_AGAIN)
    }

    /// Whether this node confirmed one of these that can still be registered. One true proposal of a model is enough: the
    /// others can differ by name only.
    fn has_confirmed(&self, of_model: &[Proposed]) -> Result<bool, NodeError> {
        let me = self.chain.key.node_id();
        for (_, proposal) in of_model.iter().filter(|(_, proposal)| proposal.confirmed_by.contains(&me)) {
            if self.is_free(&proposal.name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_free(&self, name: &str) -> Result<bool, NodeError> {
        let view = self.chain.view();
        let is_known = self.chain.genesis.model_of_name(name).is_some();
        Ok(!is_known && Reader(&view).model_of_name(name).map_err(execution)?.is_none())
    }

    /// Confirms the first true proposal of a model, if this node has the model.
    fn judge(&mut self, model: &ModelId, of_model: &[Proposed]) -> Result<(), NodeError> {
        let Some(shape) = self.shape(model) else { return Ok(()) };
        let (mut right, wrong): (Vec<&Proposed>, Vec<&Proposed>) =
            of_model.iter().partition(|(_, proposal)| proposal.shape == shape);
        for ((_, id), proposal) in wrong {
            if self.warned.insert((*model, *id)) {
                let (name, proposer) = (&proposal.name, proposal.proposer);
                tracing::warn!(%model, proposal = %id, name, %proposer, "a model is proposed with a false shape; this node does not confirm it");
            }
        }
        right.sort_by_key(|((_, id), proposal)| (proposal.height, *id));
        for ((_, id), proposal) in right {
            if self.is_free(&proposal.name)? {
                self.confirm(model, id, &proposal.name)?;
                break;
            }
        }
        Ok(())
    }

    /// The true shape of a model that this node serves or has a file of.
    fn shape(&mut self, model: &ModelId) -> Option<Shape> {
        let served = self.served.get().map(|served| &served.backend);
        let served = served.filter(|backend| backend.kind() == BackendKind::Builtin).map(|backend| backend.model());
        match served.filter(|info| info.digest.0 == *model.as_bytes()) {
            Some(info) => shape_of(&info.hyper),
            None => {
                let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
                files.find(model, &|| self.stop.is_cancelled()).map(|found| found.shape)
            }
        }
    }

    /// Orders the confirmation from this node's account. What is refused is tried again later, if it still matters then.
    fn confirm(&mut self, model: &ModelId, proposal: &Digest, name: &str) -> Result<(), NodeError> {
        self.said.insert(*model, Instant::now());
        let chain = &self.chain;
        let expiry = EXPIRY_BLOCKS.min(chain.genesis.params().request_expiry_blocks_max);
        let expiry = Height::new(self.next_height().get().saturating_add(expiry));
        match chain.order(Action::ConfirmModel { model: *model, proposal: *proposal }, expiry) {
            Ok(()) => tracing::info!(%model, name, "this node has the model and confirms its shape"),
            Err(reason) => tracing::warn!(%model, name, reason, "the model is not confirmed by this node for now"),
        }
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn execution(error: StateError) -> NodeError {
    NodeError::Execution(error.to_string())
}
