//! Where a record is false. Its root binds the roots of all boundaries between layers, so what is false about it is false about one
//! layer: what enters it is what the provider itself committed to, and running that layer alone does not give what the provider
//! committed to behind it. An auditor that found a record false looks for the layer and keeps it; a judge that is shown one runs
//! nothing else. Where none is shown, or what is shown is right or made up, the whole record is run: who accuses may lie.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aria_chain::attestation::Verdict;
use aria_chain::codec::Versioned as _;
use aria_chain::ids::{ModelId, NodeId, RecordId};
use aria_inference::backend::{Backend, CancelToken};
use aria_inference::transcript::boundaries;
use aria_inference::verify::{Claim, LayerClaim, LayerVerdict};
use aria_runtime::state::{Audit, Phase, RecordPlace};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::judge::Case;
use super::models::Models;
use super::parts::{FalseLayer, Gathering, Part};
use super::payload::{BoundaryRoots, Payload, Shown};
use crate::chain::Chain;
use crate::consensus::talk::Sync;
use crate::network::Channel;

/// How long who is asked for a part has to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long all accusers together are listened to: there must be time left for the whole record.
const LISTENED_MAX: Duration = Duration::from_secs(6);
/// How often who has no layer yet is asked again, and after how long.
const ROUNDS: usize = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// Layers that are run for one record. Who has the truth to show needs one.
const LAYERS_MAX: usize = 3;

/// Those of a committee who called a record false, where it is disputed now.
pub(super) fn accusers(audit: &Audit) -> Vec<NodeId> {
    let accuses = |(node, verdict): &(NodeId, Verdict)| (*verdict == Verdict::Invalid).then_some(*node);
    if audit.phase == Phase::Disputed { audit.first.iter().filter_map(accuses).collect() } else { Vec::new() }
}

/// Runs layers of a claim again. None: this node cannot tell.
pub(super) async fn run_layers(backend: &dyn Backend, asked: LayerClaim) -> Option<LayerVerdict> {
    let (told, verdict) = oneshot::channel();
    let sink = Box::new(move |verdict| drop(told.send(verdict)));
    backend.verify_layers(asked, CancelToken::new(), sink).ok()?;
    verdict.await.ok()?.ok()
}

/// A record that this node called false, to be looked through for the layer.
pub(super) struct Search {
    pub(super) place: RecordPlace,
    pub(super) record: RecordId,
}

impl Search {
    /// Looks for the layer, and keeps it for the judges as long as the audit lasts.
    pub(super) async fn run(self, chain: &Arc<Chain>, models: &Models) {
        let record = self.record;
        let Some((model, claim, roots)) = self.read(chain).await else { return };
        let Some(layer) = find(models, &model, (&claim, &roots)).await else { return };
        let (choice, number) = (layer.choice, layer.layer);
        let chain = Arc::clone(chain);
        let kept = spawn_blocking(move || {
            let lasts = matches!(chain.audit_of(&record), Ok(Some(_)));
            lasts && chain.layers.keep(record, layer)
        });
        let is_kept = kept.await.unwrap_or(false);
        tracing::info!(%record, choice, layer = number, is_kept, "where an audited record is false");
    }

    /// What the record claims, and what its root is made of, if that was told.
    async fn read(self, chain: &Arc<Chain>) -> Option<(ModelId, Claim, BoundaryRoots)> {
        let chain = Arc::clone(chain);
        let read = spawn_blocking(move || {
            let proof = chain.store.proof(&self.record).ok().flatten()?;
            let payload = Payload::decode(&chain.payloads.read(&self.record)?).ok()?;
            let Shown::Claims(claim, roots) = payload.claim(&proof.request, &proof.record, [0; 32]) else { return None };
            (!roots.is_empty()).then_some((proof.record.model_id, *claim, roots))
        });
        read.await.ok()?
    }
}

/// The first layer that does not give what is claimed, with what enters it.
async fn find(models: &Models, model: &ModelId, (claim, roots): (&Claim, &BoundaryRoots)) -> Option<FalseLayer> {
    for (choice, boundary_roots) in (0_u32..).zip(roots) {
        let layers = 0..boundary_roots.len().checked_sub(boundaries(0))?;
        let boundary_roots = boundary_roots.clone();
        let asked = LayerClaim { claim: claim.clone(), choice, boundary_roots, layers, states: Vec::new() };
        match models.run_layers(model, asked).await? {
            LayerVerdict::Wrong { layer, states } => {
                return Some(FalseLayer { choice, layer: u32::try_from(layer).ok()?, states });
            }
            LayerVerdict::Right => {}
            LayerVerdict::Foreign | LayerVerdict::Cancelled => return None,
        }
    }
    None
}

/// Whether somebody shows a layer of a disputed record that does not give what is claimed. Nothing is said about it where not.
pub(super) async fn is_shown(
    chain: &Arc<Chain>,
    models: &Models,
    case: &Case,
    (claim, roots): (&Claim, &BoundaryRoots),
) -> bool {
    if case.accusers.is_empty() || roots.is_empty() {
        return false;
    }
    let record = case.proof.record.id();
    let dispute = Dispute { models, model: &case.proof.record.model_id, claim, roots };
    let mut shown = None;
    if let Some(own) = chain.layers.get(&record).map(|layer| FalseLayer::clone(&layer)) {
        shown = dispute.check(own).await;
    }
    if shown.is_none() {
        let me = chain.key.node_id();
        let accusers = in_turn(&case.accusers, &me);
        let ask = |from, number| ask(Arc::clone(chain), record, from, number);
        // Layers of others take memory, so few are gathered at once; to wait for a place is to wait for an accuser.
        let end = Instant::now() + LISTENED_MAX;
        if let Ok(Ok(_place)) = timeout_at(end, chain.layers.gathered.acquire()).await {
            shown = dispute.listen(accusers, end, ask).await;
        }
        chain.layers.expect_none(&record);
    }
    let Some((choice, layer)) = shown else { return false };
    tracing::info!(%record, choice, layer, "a disputed record is false: one layer of it was run again");
    metrics::counter!("aria_disputes_total", "by" => "layer").increment(1);
    true
}

/// Everybody but this node, beginning with one that depends on it: so that not all judges begin with the same.
fn in_turn(accusers: &[NodeId], me: &NodeId) -> Vec<NodeId> {
    let mut others: Vec<NodeId> = accusers.iter().filter(|node| *node != me).copied().collect();
    let [first, ..] = *me.as_bytes();
    if let Some(turn) = usize::from(first).checked_rem(others.len()) {
        others.rotate_left(turn);
    }
    others
}

/// What an accuser says when it is asked for a part of a layer.
#[derive(Debug)]
enum Said {
    /// This.
    Part(Part),
    /// That it has none, or not yet, or not for this node, as far as it knows.
    None,
    /// Nothing.
    Nothing,
}

/// Asks for a part of a layer.
async fn ask(chain: Arc<Chain>, record: RecordId, from: NodeId, number: u32) -> Said {
    let Some(network) = chain.network.get() else { return Said::Nothing };
    let asked = async {
        if !network.reach(&from).await {
            return Said::Nothing;
        }
        let answer = chain.layers.expect(record, number, from);
        if !network.send(&from, Channel::Sync, &Sync::AskLayer(record, number).encode()) {
            return Said::Nothing;
        }
        match answer.await {
            Ok(Some(part)) => Said::Part(part),
            Ok(None) => Said::None,
            Err(_) => Said::Nothing,
        }
    };
    timeout(ANSWER_MAX, asked).await.unwrap_or(Said::Nothing)
}

/// What came of asking an accuser for a layer.
enum Gathered {
    Layer(FalseLayer),
    /// It may have one later.
    None,
    /// It is not asked again.
    Nothing,
}

async fn gather<F: Future<Output = Said>>(ask: impl Fn(u32) -> F) -> Gathered {
    let mut gathering = match ask(0).await {
        Said::Part(part) => match Gathering::begin(part) {
            Some(gathering) => gathering,
            None => return Gathered::Nothing,
        },
        Said::None => return Gathered::None,
        Said::Nothing => return Gathered::Nothing,
    };
    while let Some(number) = gathering.next() {
        let Said::Part(part) = ask(number).await else { return Gathered::Nothing };
        if gathering.add(part).is_none() {
            return Gathered::Nothing;
        }
    }
    gathering.end().map_or(Gathered::Nothing, Gathered::Layer)
}

/// A record that is to be judged by one layer.
struct Dispute<'a> {
    models: &'a Models,
    model: &'a ModelId,
    claim: &'a Claim,
    roots: &'a BoundaryRoots,
}

impl Dispute<'_> {
    /// Asks accusers in turn until one shows a layer that is wrong: of which choice, and which.
    async fn listen<F: Future<Output = Said>>(
        &self,
        mut accusers: Vec<NodeId>,
        end: Instant,
        ask: impl Fn(NodeId, u32) -> F,
    ) -> Option<(u32, u32)> {
        let mut left = LAYERS_MAX;
        for round in 0..ROUNDS {
            if round > 0 {
                sleep(PAUSE).await;
            }
            for from in std::mem::take(&mut accusers) {
                match timeout_at(end, gather(|number| ask(from, number))).await.ok()? {
                    Gathered::Layer(layer) => {
                        let shown = self.check(layer).await;
                        left -= 1;
                        if shown.is_some() || left == 0 {
                            return shown;
                        }
                        tracing::debug!(%from, "a layer that an accuser named shows nothing");
                    }
                    Gathered::None => accusers.push(from),
                    Gathered::Nothing => {}
                }
            }
            if accusers.is_empty() {
                return None;
            }
        }
        None
    }

    /// Runs one layer. Of which choice, and which, if it does not give what is claimed.
    async fn check(&self, shown: FalseLayer) -> Option<(u32, u32)> {
        let FalseLayer { choice, layer, states } = shown;
        let boundary_roots = self.roots.get(usize::try_from(choice).ok()?)?.clone();
        let first = usize::try_from(layer).ok()?;
        let layers = first..first.checked_add(1)?;
        let asked = LayerClaim { claim: self.claim.clone(), choice, boundary_roots, layers, states };
        let verdict = self.models.run_layers(self.model, asked).await?;
        matches!(verdict, LayerVerdict::Wrong { .. }).then_some((choice, layer))
    }
}
