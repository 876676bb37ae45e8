//! Who ran which layers of an answer: all of them sign its record, and who ran what is wrong is found.

use std::sync::Arc;

use aria_chain::keys::{Signature, verify_stage};
use aria_chain::record::{InferenceRecord, Stage};
use aria_inference::backend::{Backend, CancelToken};
use aria_inference::transcript::Hash;
use aria_inference::verify::{Claim, LayerClaim, LayerVerdict};
use tokio::sync::oneshot;

use super::Pipeline;
use super::talk::{Answer, Ask, Roots, ToSign};

/// Who ran which layers of an answer.
pub struct Cut {
    pub(super) pipeline: Arc<Pipeline>,
    /// As the record names them.
    pub stages: Vec<Stage>,
    /// The numbers that other nodes know their stages by.
    pub(super) numbers: Vec<Option<u64>>,
    pub(super) roots: Vec<Hash>,
    pub(super) text: Hash,
}

impl Cut {
    /// The signatures of all stages over a record, in order: this node's own, and others' who find what they computed in it. For one that does
    /// not sign this node signs itself, and the record says so: it ran all layers when it checked the answer.
    pub async fn sign(mut self, record: &mut InferenceRecord) -> Vec<Signature> {
        // Each round ends it, or leaves one stage fewer to others.
        loop {
            match self.sign_as_it_is(record).await {
                Ok(signatures) => return signatures,
                Err((place, reason)) => {
                    let node = self.stages[place].node_id;
                    tracing::warn!(%node, reason, "a stage does not sign; this node answers for its layers");
                    metrics::counter!("aria_stages_replaced_total").increment(1);
                    self.take_over(place);
                    record.stages.clone_from(&self.stages);
                }
            }
        }
    }

    /// The same, or the place of a stage that does not sign, and why.
    async fn sign_as_it_is(&self, record: &InferenceRecord) -> Result<Vec<Signature>, (usize, String)> {
        let chain = &self.pipeline.chain;
        let (id, chain_id) = (record.id(), chain.genesis.chain_id());
        let mut signatures = Vec::with_capacity(self.stages.len());
        for (place, (stage, number)) in self.stages.iter().zip(&self.numbers).enumerate() {
            let index = u16::try_from(place).unwrap_or(u16::MAX);
            let Some(number) = *number else {
                signatures.push(chain.key.sign_stage(chain_id, &id, index));
                continue;
            };
            let asked = ToSign { record: record.clone(), roots: Roots(self.roots.clone()), text: self.text };
            let node = stage.node_id;
            match self.pipeline.ask(&node, Ask::Sign(number, Box::new(asked))).await {
                Ok(Answer::Signed(signature)) if verify_stage(&node, chain_id, &id, index, &signature) => {
                    signatures.push(signature);
                }
                Ok(_) => return Err((place, "it gives no signature of its own over the record".into())),
                Err(reason) => return Err((place, reason)),
            }
        }
        Ok(signatures)
    }

    /// Makes a stage this node's own, in one with its neighbours that are.
    fn take_over(&mut self, place: usize) {
        let me = self.pipeline.chain.key.node_id();
        (self.stages[place].node_id, self.numbers[place]) = (me, None);
        let mut at = 1;
        while at < self.stages.len() {
            if self.stages[at - 1].node_id == me && self.stages[at].node_id == me {
                self.stages[at - 1].layer_end = self.stages[at].layer_end;
                self.stages.remove(at);
                self.numbers.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Finds the stage whose layers do not give what it said, once the whole is known to be wrong, and gives it no layers for a while.
    pub async fn blame(&self, backend: &dyn Backend, claim: Claim) {
        let (told, verdict) = oneshot::channel();
        let layers = 0..backend.model().hyper.layers;
        let asked = LayerClaim { claim, choice: 0, boundary_roots: self.roots.clone(), layers, states: Vec::new() };
        let sink = Box::new(move |verdict| drop(told.send(verdict)));
        if backend.verify_layers(asked, CancelToken::new(), sink).is_err() {
            return;
        }
        if let Ok(Ok(LayerVerdict::Wrong { layer, .. })) = verdict.await {
            let ran = |stage: &&Stage| (usize::from(stage.layer_start)..usize::from(stage.layer_end)).contains(&layer);
            let guilty = self.stages.iter().find(ran).map(|stage| stage.node_id);
            if let Some(node) = guilty.filter(|node| *node != self.pipeline.chain.key.node_id()) {
                self.pipeline.distrust(node, &format!("layer {layer} does not give what it said"));
            }
        }
    }
}
