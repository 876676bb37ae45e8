//! Pipelines: one answer by several nodes, each with some layers of the model.
//!
//! The gateway, which the client asked, runs the first layers, and everything that knows the text: tokens, final norm, draws. The layers
//! between are other nodes', which see states and no tokens. Each hashes what it takes over and what it passes on; it signs the record only if
//! the record's root binds both. A stage that fails is replaced in the middle of an answer: what entered it is run again by another, and
//! since arithmetic is exact nobody can tell the difference.
//!
//! - [`talk`]: what gateway and stages say to each other
//! - [`serve`]: this node as a stage of others' answers
//! - [`hop`]: a stage as the gateway has it, here or at another node
//! - [`answer`]: the gateway's way through an answer
//! - [`cut`]: who ran what: all of them sign

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use aria_chain::codec::Versioned;
use aria_chain::ids::NodeId;
use aria_runtime::reputation::Reputation;
use aria_runtime::state::Reader;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use self::serve::Serving;
use self::talk::{Answer, Ask, Reason, Talk};
use crate::chain::Chain;
use crate::consent::Governor;
use crate::network::{Channel, Network};
use crate::services::Served;

pub mod answer;
pub mod cut;
pub mod hop;
pub mod serve;
pub mod talk;

/// How long a stage may take for one step.
const STEP_MAX: Duration = Duration::from_secs(30);
/// How often to look whether it is still there.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often to look for stages that are not connected.
const REACH_EVERY: Duration = Duration::from_secs(5);
/// How long a stage that did wrong is not asked.
const DISTRUST: Duration = Duration::from_secs(600);
/// Nodes that can be named.
pub const NAMED_MAX: usize = 64;

/// Who takes part in pipelines with this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineConfig {
    /// Nodes that this one gives layers of its clients' answers to; none: it runs all of them.
    pub stages: Vec<NodeId>,
    /// How many of them for one answer; the others replace who fails.
    pub depth: usize,
    /// For whom it runs layers.
    pub serves: Serves,
}

/// For whom a node runs layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// For nobody. A stage answers with its bond for a record that its gateway could make false.
    #[default]
    Nobody,
    /// For these.
    Nodes(HashSet<NodeId>),
    /// For every node that asks.
    Everybody,
}

impl Serves {
    fn contains(&self, node: &NodeId) -> bool {
        match self {
            Serves::Nobody => false,
            Serves::Nodes(nodes) => nodes.contains(node),
            Serves::Everybody => true,
        }
    }
}

/// This node's part in pipelines, its own and others'.
pub struct Pipeline {
    chain: Arc<Chain>,
    served: Arc<OnceLock<Served>>,
    governor: Arc<Governor>,
    config: PipelineConfig,
    serving: Mutex<Serving>,
    /// Places for answers of this node's clients.
    answers: Arc<Semaphore>,
    /// Questions that wait for their answers, by number.
    asked: Mutex<HashMap<u64, (NodeId, oneshot::Sender<Answer>)>>,
    numbers: AtomicU64,
    distrusted: Mutex<HashMap<NodeId, Instant>>,
}

impl Pipeline {
    /// With the model that is served, once it is loaded.
    pub fn new(
        chain: Arc<Chain>,
        (served, governor): (Arc<OnceLock<Served>>, Arc<Governor>),
        (config, answers_max): (PipelineConfig, usize),
    ) -> Pipeline {
        let (serving, asked, distrusted) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (answers, numbers) = (Arc::new(Semaphore::new(answers_max)), AtomicU64::new(0));
        Pipeline { chain, served, governor, config, serving, answers, asked, numbers, distrusted }
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<u64, (NodeId, oneshot::Sender<Answer>)>> {
        self.asked.lock().expect("no section that holds this lock panics")
    }

    fn distrusted(&self) -> MutexGuard<'_, HashMap<NodeId, Instant>> {
        self.distrusted.lock().expect("no section that holds this lock panics")
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Serves what a peer says. A question is worked on by a task of its own.
    ///
    /// # Errors
    /// If it is none of this channel: that is the peer's fault.
    pub fn hear(self: &Arc<Self>, peer: NodeId, network: &Network, bytes: &[u8]) -> Result<(), String> {
        match Talk::decode(bytes).map_err(|error| error.to_string())? {
            Talk::Answer(number, answer) => {
                let mut asked = self.asked();
                if asked.get(&number).is_some_and(|(node, _)| *node == peer)
                    && let Some((_, told)) = asked.remove(&number)
                {
                    // Who gave up meanwhile does not need it.
                    let _ = told.send(answer);
                }
            }
            Talk::Ask(number, ask) => {
                let (pipeline, network) = (Arc::clone(self), network.clone());
                tokio::spawn(async move {
                    let refused = |reason: String| {
                        tracing::debug!(%peer, reason, "a stage of a pipeline is refused");
                        Answer::Refused(Reason::new(&reason))
                    };
                    let answer = pipeline.serve(peer, ask).await.unwrap_or_else(refused);
                    // Who is gone does not need it.
                    network.send(&peer, Channel::Stages, &Talk::Answer(number, answer).encode());
                });
            }
        }
        Ok(())
    }

    /// Ends what a peer that is gone had begun here.
    pub fn forget(&self, peer: &NodeId) {
        self.end(|(gateway, _), _| gateway == peer);
    }

    /// Asks a stage, and waits for its answer for as long as it is connected.
    async fn ask(&self, node: &NodeId, ask: Ask) -> Result<Answer, String> {
        let network = self.chain.network.get().ok_or("this node has no peers yet")?;
        let (told, mut answer) = oneshot::channel();
        let number = self.number();
        self.asked().insert(number, (*node, told));
        let _forget = Forget(self, number);
        let gone = || format!("{node} is not connected");
        if !network.send(node, Channel::Stages, &Talk::Ask(number, ask).encode()) {
            return Err(gone());
        }
        let until = Instant::now() + STEP_MAX;
        loop {
            match tokio::time::timeout(LOOK_EVERY, &mut answer).await {
                Ok(Ok(Answer::Refused(Reason(reason)))) => return Err(reason),
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(_)) => return Err("the node is stopping".into()),
                Err(_) if !network.is_connected(node) => return Err(gone()),
                Err(_) if Instant::now() >= until => {
                    return Err(format!("{node} says nothing for {} seconds", STEP_MAX.as_secs()));
                }
                Err(_) => {}
            }
        }
    }

    /// Keeps connections to the nodes that are named for this node's answers, as far as it knows where they are, until told to stop.
    pub async fn keep_company(self: Arc<Self>, stop: CancellationToken) {
        let keep = async {
            while !self.config.stages.is_empty() {
                if let Some(network) = self.chain.network.get() {
                    for node in &self.config.stages {
                        // One that cannot be reached is tried again the next time.
                        let _is_there = network.reach(node).await;
                    }
                }
                tokio::time::sleep(REACH_EVERY).await;
            }
        };
        stop.run_until_cancelled(Box::pin(keep)).await;
    }

    /// Nodes that can be given layers now, who has most reputation first.
    fn candidates(&self) -> Vec<NodeId> {
        let Some(network) = self.chain.network.get() else { return Vec::new() };
        self.distrusted().retain(|_, since| since.elapsed() < DISTRUST);
        let view = self.chain.view();
        // A record may name accounts of the chain only.
        let reputation = |node: &NodeId| {
            Reader(&view).account(node).ok()??;
            Some((*node, Reader(&view).reputation(node).ok()?))
        };
        let is_there = |node: &&NodeId| network.is_connected(node) && !self.distrusted().contains_key(node);
        let there = self.config.stages.iter().filter(is_there);
        best_first(there.filter_map(reputation))
    }

    /// Does not give layers to a node for a while.
    fn distrust(&self, node: NodeId, reason: &str) {
        tracing::warn!(%node, reason, "a stage did wrong; it is given no layers for a while");
        metrics::counter!("aria_stages_distrusted_total").increment(1);
        self.distrusted().insert(node, Instant::now());
    }
}

/// Forgets a question when nobody waits for its answer any more.
struct Forget<'a>(&'a Pipeline, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.asked().remove(&self.1);
    }
}

/// Those of good repute, the best first; of equals who was named first.
fn best_first(nodes: impl Iterator<Item = (NodeId, Reputation)>) -> Vec<NodeId> {
    let mut known: Vec<(NodeId, Reputation)> = nodes.filter(|(_, reputation)| reputation.may_audit()).collect();
    known.sort_by_key(|(_, reputation)| Reverse(reputation.score_ppm));
    known.into_iter().map(|(node, _)| node).collect()
}

#[cfg(test)]
mod tests {
    use aria_runtime::reputation::Outcome;

    use super::*;

    #[test]
    fn layers_go_to_the_best_known_first_and_to_nobody_of_ill_repute() {
        let after =
            |outcomes: &[Outcome]| outcomes.iter().fold(Reputation::default(), |so_far, end| so_far.after(*end));
        let node = |n: u8| NodeId::new([n; 32]);
        let nodes = [
            (node(1), after(&[])),
            (node(2), after(&[Outcome::Refuted, Outcome::Refuted])),
            (node(3), after(&[Outcome::Verified])),
            (node(4), after(&[])),
            (node(5), after(&[Outcome::Unavailable])),
        ];
        assert_eq!(best_first(nodes.into_iter()), [3, 1, 4, 5].map(node));
    }
}
