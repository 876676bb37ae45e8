//! This node as a stage of others' answers.
//!
//! It computes for whom its operator named, as far as the consent contract lets it, and keeps for a while what it computed. It signs a record
//! that names it, with the layers that it ran, and whose root binds the roots that it computed itself: of the states that it took over, of those
//! that it passed on, and of all between. Of the text it knows nothing but the number of its positions.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use aria_chain::ids::{ModelId, NodeId};
use aria_chain::keys::{Signature, verify_request};
use aria_chain::record::{BackendClass, Stage};
use aria_chain::request::InferenceRequest;
use aria_chain::units::{NanoAria, Timestamp};
use aria_inference::backend::BackendKind;
use aria_inference::stage::{StageEnd, StageId, StageInput, StageJob, StageOutput, StagePlan};
use aria_inference::transcript::{choice_root, request_root};

use super::Pipeline;
use super::hop::run;
use super::talk::{Answer, Ask, Closed, Roots, ToRun, ToSign};
use crate::consent::{Permit, Wanted};
use crate::services::{Served, answer::earnings};

/// Stages of one gateway at once.
const EACH_MAX: usize = 16;
/// Stages of all gateways.
const ALL_MAX: usize = 64;
/// Stages that are open, and those that ended and wait for their record: a few kilobytes each.
const KEPT_MAX: usize = 4_096;
/// How long a stage waits for what comes next.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// A stage of another node's answer.
pub(super) struct Begun {
    id: StageId,
    request: InferenceRequest,
    stage: Stage,
    last: Instant,
    /// What it computed, once it ended; then no leave is held any more.
    end: Option<StageEnd>,
    permit: Option<Permit>,
}

/// All of them, by gateway and its number.
#[derive(Default)]
pub(super) struct Serving {
    begun: HashMap<(NodeId, u64), Begun>,
}

impl Pipeline {
    pub(super) fn serving(&self) -> MutexGuard<'_, Serving> {
        self.serving.lock().expect("no section that holds this lock panics")
    }

    /// Does what a gateway asks, or says why not.
    pub(super) async fn serve(self: &Arc<Self>, peer: NodeId, ask: Ask) -> Result<Answer, String> {
        let served = self.served.get().ok_or("the model is being loaded")?;
        match ask {
            Ask::Open(number, asked) => self.begin((peer, number), *asked, served).await,
            Ask::Run(number, states) => {
                let id = self.touch((peer, number))?;
                let input = StageInput::States(states.0);
                match run(&*served.backend, |reply| StageJob::Run { id, input, reply }).await {
                    Ok(StageOutput::States(states)) => Ok(Answer::States(super::talk::States(states))),
                    Ok(_) => Err("this stage gives no states".into()),
                    Err(error) => Err(error.to_string()),
                }
            }
            Ask::Close(number) => self.close((peer, number), served).await,
            Ask::Sign(number, asked) => self.sign((peer, number), &asked, served),
        }
    }

    /// Forgets stages, and ends them in the engine.
    pub(super) fn end(&self, is_over: impl Fn(&(NodeId, u64), &Begun) -> bool) {
        let Some(served) = self.served.get() else { return };
        let over: Vec<Begun> =
            self.serving().begun.extract_if(|key, begun| is_over(key, begun)).map(|(_, begun)| begun).collect();
        for begun in over.into_iter().filter(|begun| begun.end.is_none()) {
            // An engine that has stopped has nothing left to end.
            let _ = served.backend.stage(StageJob::Close { id: begun.id, reply: Box::new(drop) });
        }
    }

    /// Ends a stage whose gateway says nothing for too long.
    async fn watch(self: Arc<Self>, key: (NodeId, u64)) {
        while self.serving().begun.contains_key(&key) {
            tokio::time::sleep(IDLE_MAX).await;
            self.end(|other, begun| *other == key && begun.last.elapsed() >= IDLE_MAX);
        }
    }

    async fn begin(self: &Arc<Self>, key: (NodeId, u64), asked: ToRun, served: &Served) -> Result<Answer, String> {
        let (id, request) = (StageId::next(), asked.request.clone());
        let permit = self.admit(&key, &asked, served)?;
        let stage =
            Stage { node_id: self.chain.key.node_id(), layer_start: asked.layer_start, layer_end: asked.layer_end };
        let layers = usize::from(stage.layer_start)..usize::from(stage.layer_end);
        let plan = StagePlan { layers, positions: asked.positions as usize, leaf_key: asked.leaf_key, draws: None };
        {
            let mut serving = self.serving();
            let running = || serving.begun.iter().filter(|(_, begun)| begun.end.is_none());
            let (own, all) = (running().filter(|((gateway, _), _)| *gateway == key.0).count(), running().count());
            if own >= EACH_MAX || all >= ALL_MAX || serving.begun.len() >= KEPT_MAX || serving.begun.contains_key(&key)
            {
                return Err(format!(
                    "{all} stages are open here, {own} of them for this gateway; try again in a moment"
                ));
            }
            let begun = Begun { id, request, stage, last: Instant::now(), end: None, permit: Some(permit) };
            serving.begun.insert(key, begun);
        }
        match run(&*served.backend, |reply| StageJob::Open { id, plan, reply }).await {
            Ok(_) if !self.serving().begun.contains_key(&key) => {
                // Its gateway has gone meanwhile.
                let _ = served.backend.stage(StageJob::Close { id, reply: Box::new(drop) });
                Err(NO_STAGE.into())
            }
            Ok(_) => {
                metrics::counter!("aria_stages_served_total").increment(1);
                tokio::spawn(Arc::clone(self).watch(key));
                Ok(Answer::Open)
            }
            Err(error) => {
                self.serving().begun.remove(&key);
                Err(error.to_string())
            }
        }
    }

    /// Whether this node computes this for this gateway.
    fn admit(&self, key: &(NodeId, u64), asked: &ToRun, served: &Served) -> Result<Permit, String> {
        if !self.config.serves.contains(&key.0) {
            return Err("this node runs no layers for you; its operator names gateways with --serve-stages".into());
        }
        let (request, info) = (&asked.request, served.backend.model());
        let is_ours = request.chain_id == *self.chain.genesis.chain_id() && request.expiry > self.chain.tip_height();
        if !is_ours || !verify_request(&request.requester, &request.chain_id, &request.id(), &asked.signature) {
            return Err("request: is of another chain, has expired, or is not signed by its requester".into());
        }
        if served.backend.kind() != BackendKind::Builtin || request.model_id != ModelId::new(info.digest.0) {
            return Err(format!("request: is for another model than {}, which this node serves", served.name));
        }
        if request.choices != 1 || asked.layer_start == 0 {
            return Err("a stage of others takes states of one choice; the first layers are the gateway's".into());
        }
        let share = u64::from(asked.layer_end.saturating_sub(asked.layer_start));
        let layers = (info.hyper.layers as u64).max(1);
        let kv_bytes = u64::from(asked.positions).saturating_mul(info.kv_shape().bytes_per_position() as u64);
        let whole = earnings(&self.chain, served, &request.model_id, (request.audit, request.max_fee));
        let whole = whole.map_err(|error| error.to_string())?;
        let wanted = Wanted {
            at: Timestamp::new(self.chain.clock.now_ms()),
            task: request.task_type,
            ram_mb: 0,
            kv_bytes: kv_bytes.saturating_mul(share) / layers,
            reward: NanoAria::new(whole.get().saturating_mul(share) / layers),
        };
        self.governor.admit(&wanted).map_err(|refusal| refusal.to_string())
    }

    /// The stage of this number goes on.
    fn touch(&self, key: (NodeId, u64)) -> Result<StageId, String> {
        let mut serving = self.serving();
        let begun = serving.begun.get_mut(&key).filter(|begun| begun.end.is_none()).ok_or(NO_STAGE)?;
        begun.last = Instant::now();
        Ok(begun.id)
    }

    async fn close(&self, key: (NodeId, u64), served: &Served) -> Result<Answer, String> {
        let id = self.touch(key)?;
        let end = match run(&*served.backend, |reply| StageJob::Close { id, reply }).await {
            Ok(StageOutput::Closed(end)) => end,
            Ok(_) => return Err("this stage ended without an end".into()),
            Err(error) => return Err(error.to_string()),
        };
        let closed = Closed {
            roots: Roots(end.roots.clone()),
            energy_uj: end.energy.microjoules,
            is_measured: end.energy.source == aria_inference::energy::EnergySource::Measured,
        };
        let mut serving = self.serving();
        let begun = serving.begun.get_mut(&key).ok_or(NO_STAGE)?;
        (begun.end, begun.permit) = (Some(end), None);
        Ok(Answer::Closed(closed))
    }

    /// Signs a record that binds both sides of this stage.
    fn sign(&self, key: (NodeId, u64), asked: &ToSign, served: &Served) -> Result<Answer, String> {
        let serving = self.serving();
        let begun = serving.begun.get(&key).ok_or(NO_STAGE)?;
        let end = begun.end.as_ref().ok_or("this stage has not ended yet")?;
        let digest = served.backend.model().digest;
        let place = check(begun, end, asked, |roots, text| choice_root(&digest, roots, text))?;
        let signature: Signature = self.chain.key.sign_stage(&begun.request.chain_id, &asked.record.id(), place);
        metrics::counter!("aria_stages_signed_total").increment(1);
        Ok(Answer::Signed(signature))
    }
}

const NO_STAGE: &str = "there is no such stage here; it ended, or this node was started again";

/// Which stage of the record this is, if the record says of it what is true.
fn check(
    begun: &Begun,
    end: &StageEnd,
    ToSign { record, roots: Roots(roots), text }: &ToSign,
    choice_root: impl Fn(&[[u8; 32]], &[u8; 32]) -> [u8; 32],
) -> Result<u16, String> {
    let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_owned()) };
    let Begun { request, stage, .. } = begun;
    rule(record.request_id == request.id(), "record.request_id: is of another request than this stage was begun for")?;
    rule(record.model_id == request.model_id, "record.model_id: is not the request's")?;
    rule(record.backend == BackendClass::Canonical, "record.backend: these layers were run exactly")?;
    let place = record.stages.iter().position(|other| other == stage);
    let place = place.ok_or("record.stages: does not name this node with the layers that it ran")?;
    let positions = u64::from(record.prompt_tokens).saturating_add(u64::from(record.tokens_generated));
    rule(positions == end.positions as u64 + 1, "record.tokens_generated: this stage ran another number of positions")?;
    rule(record.energy_uj.get() >= end.energy.microjoules, "record.energy_uj: is less than this stage took alone")?;
    let root = request_root(&[choice_root(roots, text)]);
    rule(root == *record.transcript_root.as_bytes(), "record.transcript_root: is not of these roots")?;
    let own = roots.get(usize::from(stage.layer_start)..=usize::from(stage.layer_end));
    rule(
        own == Some(end.roots.as_slice()),
        "record.transcript_root: binds other states than this stage took over and passed on",
    )?;
    u16::try_from(place).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use aria_chain::ids::{ChainId, Digest, RequestId};
    use aria_chain::keys::NodeKey;
    use aria_chain::record::{EnergySource, InferenceRecord};
    use aria_chain::request::{AuditMode, TaskType};
    use aria_chain::units::{Height, Microjoules, Millis};
    use aria_inference::digest::ModelDigest;
    use aria_inference::energy::{self, Energy};
    use aria_inference::generation::GenerationRequest;
    use aria_inference::sampler::Sampling;

    use super::*;
    use crate::services::gateway::{Secrets, Terms, request};

    const MODEL: ModelDigest = ModelDigest([2; 32]);

    type Change = fn(&mut ToSign);

    /// A stage that ran layers 2 to 4 of 6 over ten positions, and the record that it is right to sign.
    fn ran() -> (Begun, StageEnd, ToSign) {
        let (key, chain) = (NodeKey::from_seed(&[1; 32]), "aria-test".parse::<ChainId>().expect("a name"));
        let generation = GenerationRequest {
            prompt: vec![1, 2, 3],
            choices: 1,
            max_tokens: 8,
            stop: Vec::new(),
            sampling: Sampling::default(),
            logprobs: None,
            salt: [0; 32],
        };
        let terms = Terms { audit: AuditMode::Committee, task: TaskType::Any, max_fee: NanoAria::ZERO };
        let (secrets, here) = (Secrets::draw().expect("randomness"), (&chain, ModelId::new(MODEL.0)));
        let request = request(key.node_id(), here, Height::new(5), (&generation, terms), &secrets);
        let stage = Stage { node_id: key.node_id(), layer_start: 2, layer_end: 4 };
        let roots: Vec<[u8; 32]> = (0..8).map(|boundary| [boundary; 32]).collect();
        let energy = Energy { microjoules: 40, source: energy::EnergySource::Measured };
        let end = StageEnd { roots: roots[2..=4].to_vec(), positions: 10, energy };
        let root = request_root(&[choice_root(&MODEL, &roots, &[9; 32])]);
        let gateway = NodeKey::from_seed(&[3; 32]).node_id();
        let other = |layer_start, layer_end| Stage { node_id: gateway, layer_start, layer_end };
        let record = InferenceRecord {
            request_id: request.id(),
            query_hash: request.prompt_commitment,
            output_hash: Digest::new([4; 32]),
            model_id: request.model_id,
            stages: vec![other(0, 2), stage, other(4, 6)],
            energy_uj: Microjoules::new(40),
            energy_source: EnergySource::Measured,
            latency_ms: Millis::new(1),
            first_token_ms: Millis::new(1),
            prompt_tokens: 3,
            tokens_generated: 8,
            timestamp_ms: Timestamp::new(1),
            backend: BackendClass::Canonical,
            transcript_root: Digest::new(root),
        };
        let begun = Begun { id: StageId::next(), request, stage, last: Instant::now(), end: None, permit: None };
        (begun, end, ToSign { record, roots: Roots(roots), text: [9; 32] })
    }

    #[test]
    fn a_stage_signs_what_it_took_over_and_passed_on_and_nothing_else() {
        let (begun, end, honest) = ran();
        let signs = |asked: &ToSign| check(&begun, &end, asked, |roots, text| choice_root(&MODEL, roots, text));
        assert_eq!(signs(&honest), Ok(1), "the second of three");
        // The record of an answer in which this boundary was another.
        let with_other = |boundary: usize| {
            let mut asked = honest.clone();
            asked.roots.0[boundary][0] ^= 0x80;
            asked.record.transcript_root =
                Digest::new(request_root(&[choice_root(&MODEL, &asked.roots.0, &asked.text)]));
            asked
        };
        for boundary in 0..8 {
            let is_its_own = (2..=4).contains(&boundary);
            assert_eq!(signs(&with_other(boundary)).is_err(), is_its_own, "boundary {boundary}");
        }
        let changes: [(&str, Change); 11] = [
            ("record.request_id", |asked| asked.record.request_id = RequestId::new([0; 32])),
            ("record.model_id", |asked| asked.record.model_id = ModelId::new([0; 32])),
            ("record.backend", |asked| asked.record.backend = BackendClass::External),
            ("record.stages", |asked| asked.record.stages.truncate(1)),
            ("record.stages", |asked| asked.record.stages[1].layer_end = 5),
            ("record.tokens_generated", |asked| asked.record.tokens_generated = 9),
            ("record.tokens_generated", |asked| asked.record.prompt_tokens = u32::MAX),
            ("record.energy_uj", |asked| asked.record.energy_uj = Microjoules::new(39)),
            ("record.transcript_root", |asked| asked.record.transcript_root = Digest::ZERO),
            ("record.transcript_root", |asked| asked.text = [8; 32]),
            ("record.transcript_root", |asked| asked.roots.0.truncate(7)),
        ];
        for (field, change) in changes {
            let mut asked = honest.clone();
            change(&mut asked);
            let refused = signs(&asked).expect_err(field);
            assert!(refused.starts_with(field), "{field}: {refused}");
        }
    }
}
