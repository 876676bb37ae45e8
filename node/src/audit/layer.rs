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
/// Who has no layer yet is asked again after this long.
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
            let Shown::Claims(claim, roots) = payload.claim(&proof.request, &proof.record, [0; 32]) else {
                return None;
            };
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
        while !accusers.is_empty() && Instant::now() < end {
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
            if !accusers.is_empty() {
                sleep(PAUSE).await;
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::OnceLock;

    use aria_inference::digest::ModelDigest;
    use aria_inference::engine::EngineOptions;
    use aria_inference::generation::{ChoiceOutcome, Event, FinishReason, GenerationRequest};
    use aria_inference::sampler::Sampling;
    use aria_inference::transcript::{Hash, choice_root, request_root, text_hash};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::cli::{BackendChoice, StartArgs};
    use crate::config::{ConfigFile, NodeConfig};
    use crate::consent::Governor;
    use crate::data_dir::DataDir;
    use crate::model::{EMBEDDED_NAME, locate};
    use crate::registrar::files::Files;
    use crate::services::Served;

    /// A node that serves the built-in model.
    struct Judge {
        _folder: tempfile::TempDir,
        models: Models,
        backend: Arc<dyn Backend>,
        model: ModelId,
        layers: u32,
        dim: usize,
    }

    impl Judge {
        fn start() -> Judge {
            let folder = tempfile::tempdir().expect("a folder");
            let dir = DataDir::create(folder.path()).expect("a folder");
            let config = NodeConfig::settle(&StartArgs::default(), &ConfigFile::default()).expect("sound");
            let governor = Governor::open(&dir, &config).expect("no contract");
            let options = EngineOptions { threads: 1, ..EngineOptions::default() };
            let located = locate(EMBEDDED_NAME, Path::new("/nonexistent")).expect("built in");
            let backend = located.start(BackendChoice::Builtin, &options).expect("the model loads");
            let served = Served { name: EMBEDDED_NAME.to_owned(), backend: Arc::clone(&backend), loaded_s: 0 };
            let (served, files) = (Arc::new(OnceLock::from(served)), Arc::new(Files::new(dir.models()).into()));
            let (models, _) = Models::new((served, files), governor, None, CancellationToken::new());
            let (model, hyper) = (ModelId::new(backend.model().digest.0), backend.model().hyper.clone());
            let layers = u32::try_from(hyper.layers).expect("few");
            Judge { _folder: folder, models, backend, model, layers, dim: hyper.dim }
        }

        fn digest(&self) -> ModelDigest {
            ModelDigest(*self.model.as_bytes())
        }

        fn choices(&self, request: &GenerationRequest) -> Vec<ChoiceOutcome> {
            let (told, events) = std::sync::mpsc::channel();
            let sink = Box::new(move |event| drop(told.send(event)));
            self.backend.submit(request.clone(), CancelToken::new(), sink).expect("it is free");
            let ended = events.iter().find_map(|event| match event {
                Event::Done(outcome) => Some(outcome.choices),
                _ => None,
            });
            ended.expect("each request ends")
        }

        /// What follows from this text, under a root that binds it.
        fn claim(&self, mut choices: Vec<ChoiceOutcome>) -> (Claim, BoundaryRoots) {
            let request = request();
            for choice in &mut choices {
                let (_, fed) = choice.tokens.split_last().expect("tokens");
                let prompt = [&request.prompt[..], fed].concat();
                let again = self.choices(&GenerationRequest { prompt, choices: 1, max_tokens: 1, ..request.clone() });
                choice.boundary_roots.clone_from(&again[0].boundary_roots);
            }
            let roots: BoundaryRoots = choices.iter().map(|choice| choice.boundary_roots.clone()).collect();
            (bound(&self.digest(), request, &choices), roots)
        }

        fn dispute<'a>(&'a self, (claim, roots): &'a (Claim, BoundaryRoots)) -> Dispute<'a> {
            Dispute { models: &self.models, model: &self.model, claim, roots }
        }

        async fn find(&self, (claim, roots): &(Claim, BoundaryRoots)) -> Option<FalseLayer> {
            find(&self.models, &self.model, (claim, roots)).await
        }

        /// What enters a layer of the second choice of an honest claim: looked for under a false root behind it.
        async fn entering(&self, (claim, roots): &(Claim, BoundaryRoots), layer: u32) -> FalseLayer {
            let mut roots = roots.clone();
            roots[1][layer as usize + 1][0] ^= 1;
            let found = self.find(&(claim.clone(), roots)).await.expect("that is false");
            assert_eq!((found.choice, found.layer), (1, layer));
            found
        }
    }

    fn request() -> GenerationRequest {
        GenerationRequest {
            prompt: (300..330).collect(),
            choices: 2,
            max_tokens: 12,
            stop: Vec::new(),
            sampling: Sampling { temperature: 1.0, seed: 3, ..Sampling::greedy() },
            logprobs: None,
            salt: [7; 32],
        }
    }

    fn bound(digest: &ModelDigest, request: GenerationRequest, choices: &[ChoiceOutcome]) -> Claim {
        let roots = choices.iter().map(|choice| {
            let text = text_hash(&request.salt, &request.prompt, &choice.tokens, choice.finish);
            choice_root(digest, &choice.boundary_roots, &text)
        });
        let transcript_root = request_root(&roots.collect::<Vec<Hash>>());
        let claimed = |choice: &ChoiceOutcome| aria_inference::verify::ClaimedChoice {
            tokens: choice.tokens.clone(),
            finish: choice.finish,
        };
        Claim { choices: choices.iter().map(claimed).collect(), request, transcript_root, secret: None }
    }

    /// What an accuser does when it is asked.
    #[derive(Clone)]
    enum Accuser {
        Shows(FalseLayer),
        HasNone,
        IsSilent,
        /// The first part and no more.
        Stalls(FalseLayer),
    }

    async fn listen(dispute: &Dispute<'_>, accusers: &[Accuser]) -> Option<(u32, u32)> {
        let named = (1_u8..).map(|n| NodeId::new([n; 32])).take(accusers.len());
        let ask = |from: NodeId, number: u32| {
            let accuser = accusers[usize::from(from.as_bytes()[0]) - 1].clone();
            async move {
                match accuser {
                    Accuser::Shows(layer) => Said::Part(layer.part(number).expect("what there is")),
                    Accuser::HasNone => Said::None,
                    Accuser::IsSilent => timeout(ANSWER_MAX, std::future::pending()).await.unwrap_or(Said::Nothing),
                    Accuser::Stalls(layer) if number == 0 => {
                        Said::Part(Part { parts: 9, ..layer.part(0).expect("one") })
                    }
                    Accuser::Stalls(_) => timeout(ANSWER_MAX, std::future::pending()).await.unwrap_or(Said::Nothing),
                }
            }
        };
        dispute.listen(named.collect(), Instant::now() + LISTENED_MAX, ask).await
    }

    #[tokio::test(start_paused = true)]
    async fn one_layer_refutes_a_record_whoever_else_lies_about_it() {
        let judge = Judge::start();
        let mut choices = judge.choices(&request());
        // The second choice draws another token at will and goes on honestly from there.
        let tokens = &mut choices[1].tokens;
        tokens[6] = if tokens[6] == 700 { 701 } else { 700 };
        let lie = judge.claim(choices);
        let found = judge.find(&lie).await.expect("it is false somewhere");
        let place = (1, judge.layers - 1);
        assert_eq!((found.choice, found.layer), place, "what draws is the last layer");
        assert_eq!(found.states.len(), (30 + lie.0.choices[1].tokens.len() - 1) * judge.dim);
        let dispute = judge.dispute(&lie);
        assert_eq!(dispute.check(found.clone()).await, Some(place));

        let made_up = FalseLayer { states: vec![1.0; found.states.len()], ..found.clone() };
        let right = FalseLayer { layer: 0, states: Vec::new(), ..found.clone() };
        let truth = Accuser::Shows(found.clone());
        let first = [Accuser::IsSilent, Accuser::Shows(made_up.clone()), Accuser::HasNone, truth.clone()];
        assert_eq!(listen(&dispute, &first).await, Some(place));
        assert_eq!(listen(&dispute, &[Accuser::Shows(right), truth.clone()]).await, Some(place));
        // Where too many lie the record is run as a whole.
        let liar = Accuser::Shows(made_up);
        assert_eq!(listen(&dispute, &[liar.clone(), liar.clone(), liar, truth.clone()]).await, None);
        let stalls = Accuser::Stalls(FalseLayer { states: vec![0.0; 262_144], ..found });
        assert_eq!(listen(&dispute, &[stalls.clone(), stalls.clone(), truth.clone()]).await, Some(place));
        let late = [stalls.clone(), stalls.clone(), stalls.clone(), stalls, truth];
        assert_eq!(listen(&dispute, &late).await, None, "there must be time left for the whole record");
        assert_eq!(listen(&dispute, &[Accuser::HasNone]).await, None);
        assert_eq!(listen(&dispute, &[]).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn another_end_or_a_false_root_is_false_by_one_layer_too() {
        let judge = Judge::start();
        let mut choices = judge.choices(&request());
        choices[0].tokens.truncate(5);
        choices[0].finish = FinishReason::Stop;
        let short = judge.claim(choices);
        let found = judge.find(&short).await.expect("it is false somewhere");
        assert_eq!(judge.dispute(&short).check(found).await, Some((0, judge.layers - 1)));

        // A transcript out of thin air: the tokens are right, and nobody computed what lies between.
        let mut choices = judge.choices(&request());
        choices[1].boundary_roots[3] = [9; 32];
        let roots = choices.iter().map(|choice| choice.boundary_roots.clone()).collect();
        let guess = (bound(&judge.digest(), request(), &choices), roots);
        let found = judge.find(&guess).await.expect("it is false somewhere");
        assert_eq!(judge.dispute(&guess).check(found).await, Some((1, 2)));
    }

    #[tokio::test(start_paused = true)]
    async fn no_layer_refutes_an_honest_record() {
        let judge = Judge::start();
        let honest = judge.claim(judge.choices(&request()));
        let digest = judge.digest();
        assert!(honest.0.binds(&digest, &honest.1));
        assert_eq!(judge.find(&honest).await, None);
        let dispute = judge.dispute(&honest);
        let last = judge.layers - 1;
        for layer in 0..judge.layers {
            let right = judge.entering(&honest, layer).await;
            assert_eq!(dispute.check(right.clone()).await, None, "layer {layer} is right");
            for wrong in [0.0, -0.0, f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE / 2.0] {
                let mut one = right.clone();
                if let Some(state) = one.states.last_mut() {
                    *state = wrong;
                }
                assert_eq!(dispute.check(one).await, None);
                let all = FalseLayer { states: vec![wrong; right.states.len()], ..right.clone() };
                assert_eq!(dispute.check(all).await, None);
            }
            let long = FalseLayer { states: [&right.states[..], &[0.0]].concat(), ..right.clone() };
            let moved = FalseLayer { layer: (layer + 1) % judge.layers, ..right.clone() };
            let other = FalseLayer { choice: 0, ..right.clone() };
            for shown in [long, moved] {
                assert_eq!(dispute.check(shown).await, None);
            }
            // The first layer of each choice is entered by nothing.
            assert_eq!(dispute.check(other).await, None);
        }
        let nowhere = |choice, layer| FalseLayer { choice, layer, states: Vec::new() };
        for shown in [nowhere(2, 0), nowhere(u32::MAX, 0), nowhere(0, last + 1), nowhere(0, u32::MAX)] {
            assert_eq!(dispute.check(shown).await, None);
        }
        assert_eq!(listen(&dispute, &[Accuser::Shows(judge.entering(&honest, 1).await)]).await, None);
    }

    #[test]
    fn accusers_are_asked_in_turns_that_differ() {
        let all: Vec<NodeId> = (0..4).map(|n| NodeId::new([n; 32])).collect();
        assert_eq!(in_turn(&all, &all[1]), [all[2], all[3], all[0]]);
        assert_eq!(in_turn(&all[..1], &all[0]), []);
        assert_eq!(in_turn(&all, &NodeId::new([6; 32])), [all[2], all[3], all[0], all[1]]);
    }
}
