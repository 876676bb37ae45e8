//! One record run again: what lies behind it is fetched, and the run says whether it is true.

use std::sync::Arc;
use std::time::Duration;

use aria_chain::attestation::{Opening, Verdict};
use aria_chain::codec::Versioned as _;
use aria_chain::hash::Domain;
use aria_chain::ids::{Digest, NodeId, RecordId};
use aria_chain::proof::SignedProof;
use aria_inference::backend::{Backend, CancelToken};
use aria_inference::verify::{self, Claim, Reason};
use aria_runtime::state::{OpenedRoot, Phase, RecordPlace};
use tokio::sync::oneshot;

use super::challenge;
use super::layer;
use super::models::Models;
use super::payload::{Payload, Shown};
use crate::chain::Chain;
use crate::consensus::talk::Sync;
use crate::network::Channel;

/// How long a node has to answer, and how often it is asked before the payload is missing: the provider, and in between the
/// others who were drawn.
const ANSWER_MAX: Duration = Duration::from_secs(3);
pub(super) const ASKED_MAX: usize = 16;

/// What is to be judged: a record; or, where one is named, the root that an auditor opened about it.
pub(super) struct Case {
    pub(super) place: RecordPlace,
    pub(super) proof: SignedProof,
    /// Who else was drawn for it.
    pub(super) others: Vec<NodeId>,
    /// Those of the committee who called it false, where there is a dispute.
    pub(super) accusers: Vec<NodeId>,
    /// What is asked of them.
    pub(super) phase: Phase,
    pub(super) doubted: Option<OpenedRoot>,
}

/// What nobody else can know before this node opens: one for a verdict on the record, others for whatever is asked later. All of
/// them follow from one that is never told, so that those that were opened tell nothing of the next.
fn secret(untold: &[u8; 32], phase: Phase, accused: Option<NodeId>) -> [u8; 32] {
    *Domain::AUDIT_SECRET.hash_of(&(untold, phase, accused)).as_bytes()
}

/// Fetches what a record was made of and runs it again. None: this node cannot tell.
pub(super) async fn judge(chain: &Arc<Chain>, models: &Models, case: &Case) -> Option<Opening> {
    let record = case.proof.record.id();
    let untold = chain.key.audit_secret(chain.genesis.chain_id(), &record);
    let secret = secret(&untold, case.phase, case.doubted.as_ref().map(|doubted| doubted.node));
    let found = |verdict: Verdict, root: Digest| Some(Opening { secret, verdict, root });
    if !models.has(&case.proof.record.model_id).await {
        tracing::debug!(%record, "is of a model that this node does not have");
        return None;
    }
    let fetched = challenge::fetch(chain, case).await;
    chain.expect_no_payload(&record);
    let payload = match fetched? {
        Fetched::Payload(payload) => *payload,
        Fetched::Withheld => {
            tracing::info!(%record, "nobody delivered what an audit needs");
            return found(Verdict::Missing, Digest::ZERO);
        }
        Fetched::Unreached => {
            tracing::info!(%record, "its provider cannot be reached from here");
            return None;
        }
    };
    if let Some(doubted) = &case.doubted {
        let is_right = holds(models, payload, &case.proof, doubted).await?;
        return found(if is_right { Verdict::Valid } else { Verdict::Invalid }, Digest::ZERO);
    }
    let (claim, roots) = match payload.claim(&case.proof.request, &case.proof.record, secret) {
        Shown::Claims(claim, roots) => (*claim, roots),
        Shown::Miscounted => return found(Verdict::Invalid, Digest::ZERO),
        Shown::Foreign => return found(Verdict::Missing, Digest::ZERO),
    };
    if layer::is_shown(chain, models, case, (&claim, &roots)).await {
        return found(Verdict::Invalid, Digest::ZERO);
    }
    let (verdict, root) = models.run_again(&case.proof.record.model_id, claim).await?;
    if case.phase == Phase::Disputed {
        metrics::counter!("aria_disputes_total", "by" => "record").increment(1);
    }
    if verdict == Verdict::Invalid {
        tracing::warn!(%record, "an audited record is false");
    }
    found(verdict, root)
}

/// Whether a root is that of a run under the secret that was opened with it. None: this node cannot tell.
pub(super) async fn holds(models: &Models, payload: Payload, proof: &SignedProof, opened: &OpenedRoot) -> Option<bool> {
    let Shown::Claims(claim, _) = payload.claim(&proof.request, &proof.record, opened.secret) else { return None };
    let (verdict, root) = models.run_again(&proof.record.model_id, *claim).await?;
    Some(verdict == Verdict::Valid && root == opened.root)
}

/// Runs a claim again: whether it is true, and the root of the transcript under its secret. None: this node cannot tell.
pub async fn run_again(backend: &dyn Backend, mut claim: Claim) -> Option<(Verdict, Digest)> {
    // How each choice ended follows from the run; each round corrects one guess.
    for _ in 0..=claim.choices.len() {
        let (told, verdict) = oneshot::channel();
        let sink = Box::new(move |verdict| drop(told.send(verdict)));
        backend.verify(claim.clone(), CancelToken::new(), sink).ok()?;
        match verdict.await.ok()?.ok()? {
            verify::Verdict::Valid(root) => return Some((Verdict::Valid, root.map_or(Digest::ZERO, Digest::new))),
            verify::Verdict::Invalid(Reason::Finish { choice, canonical, .. }) => {
                claim.choices.get_mut(choice as usize)?.finish = canonical;
            }
            // A limit of this node's, such as its memory: others may be able to tell.
            verify::Verdict::Invalid(Reason::Request(_)) | verify::Verdict::Cancelled => return None,
            verify::Verdict::Invalid(reason) => {
                tracing::info!(%reason, "a claim is false");
                return Some((Verdict::Invalid, Digest::ZERO));
            }
        }
    }
    None
}

/// What came of asking for what lies behind a record.
pub(super) enum Fetched {
    /// That.
    Payload(Box<Payload>),
    /// Its provider was there and did not give it, nor did anybody else.
    Withheld,
    /// Nobody was there to ask; others may do better.
    Unreached,
}

/// Asks the provider and, in between, those who may have it already: so often in all.
pub(super) async fn fetch(chain: &Arc<Chain>, case: &Case, asked_max: usize) -> Fetched {
    let (record, proof) = (case.proof.record.id(), &case.proof);
    let Some(provider) = proof.record.stages.first().map(|stage| stage.node_id) else { return Fetched::Unreached };
    let own = chain.payloads.read(&record).and_then(|bytes| Payload::decode(&bytes).ok());
    if let Some(payload) = own.filter(|payload| payload.belongs_to(&proof.request, &proof.record)) {
        return Fetched::Payload(Box::new(payload));
    }
    let mut others = case.others.iter().copied().cycle();
    let mut was_there = false;
    for asked in 0..asked_max {
        // The first two questions are the provider's.
        let other = if asked > 1 && asked % 2 == 1 { others.next() } else { None };
        if asked > 0 && other.is_none() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let from = other.unwrap_or(provider);
        let Asked::There(bytes) = ask(chain, record, from).await else { continue };
        was_there |= other.is_none();
        let Some(bytes) = bytes else { continue };
        match Payload::decode(&bytes) {
            Ok(payload) if payload.belongs_to(&proof.request, &proof.record) => {
                chain.payloads.borrow(record, bytes);
                return Fetched::Payload(Box::new(payload));
            }
            Ok(_) => tracing::debug!(%record, %from, "what was delivered belongs to something else"),
            Err(error) => tracing::debug!(%record, %from, %error, "what was delivered is no payload"),
        }
    }
    if was_there { Fetched::Withheld } else { Fetched::Unreached }
}

/// What came of a question.
enum Asked {
    /// Who was asked is there; perhaps it answered.
    There(Option<Vec<u8>>),
    /// Nobody is there.
    Away,
}

/// Asks a node for what lies behind a record.
async fn ask(chain: &Arc<Chain>, record: RecordId, from: NodeId) -> Asked {
    let Some(network) = chain.network.get() else { return Asked::Away };
    if !network.reach(&from).await {
        return Asked::Away;
    }
    let answer = chain.expect_payload(record, from);
    if !network.send(&from, Channel::Sync, &Sync::AskPayload(record).encode()) {
        return Asked::There(None);
    }
    Asked::There(tokio::time::timeout(ANSWER_MAX, answer).await.ok().and_then(Result::ok))
}

#[cfg(test)]
mod tests {
    use aria_chain::keys::NodeKey;

    use super::*;

    #[test]
    fn an_opened_secret_tells_no_other_one() {
        let (key, accused) = (NodeKey::from_seed(&[1; 32]), NodeKey::from_seed(&[2; 32]).node_id());
        let untold = key.audit_secret(&"aria-test".parse().expect("a name"), &RecordId::new([3; 32]));
        let asked = [(Phase::Drawn, None), (Phase::Disputed, None), (Phase::Doubted, Some(accused))];
        let secrets = asked.map(|(phase, accused)| secret(&untold, phase, accused));
        for opened in secrets {
            assert_ne!(opened, untold);
            let follow = asked.map(|(phase, accused)| secret(&opened, phase, accused));
            assert!(!follow.iter().any(|guess| secrets.contains(guess)));
            assert_eq!(secrets.iter().filter(|other| **other == opened).count(), 1);
        }
    }
}
