//! Between peers and the rest of the node: what a peer says is decoded, checked and passed on.
//!
//! Votes and blocks go to the loop of consensus. Proofs are verified, taken into the pool and told to the other peers, once.
//! Questions for old blocks are answered from the store, a few at a time. What cannot be decoded ends the connection.

use std::sync::Arc;
use std::time::Duration;

use aria_chain::attestation::SignedAttestation;
use aria_chain::codec::Versioned;
use aria_chain::evidence::Evidence;
use aria_chain::ids::NodeId;
use aria_chain::light::{FinalHeader, set_changes};
use aria_chain::proof::SignedProof;
use aria_chain::transaction::SignedTransaction;
use aria_chain::units::{Height, Timestamp};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::consensus::message::Message;
use crate::consensus::run::Told;
use crate::consensus::talk::{BLOCKS_BYTES_MAX, BLOCKS_MAX, Blocks, Gossip, HEADERS_MAX, Headers, Sync, WireFinal};
use crate::error::NodeError;
use crate::network::{Channel, Network, PeerEvent, Received, Room};
use crate::pipeline::Pipeline;

/// How long a peer that sends nonsense stays out.
const BAN: Duration = Duration::from_secs(600);
/// Events that are served together.
const EVENTS_AT_ONCE: usize = 64;
/// Answers with old blocks that are made at once.
const ANSWERS_MAX: usize = 2;
/// Answers to auditors that are made at once: small, and each of them is waited for.
const PAYLOADS_MAX: usize = 64;
/// Waiting proofs that a new peer is told.
const PENDING_MAX: usize = 1_000;

/// Serves peers until told to stop.
pub async fn run(
    (chain, pipeline): (Arc<Chain>, Arc<Pipeline>),
    network: Network,
    mut events: mpsc::Receiver<PeerEvent>,
    tell: mpsc::Sender<Told>,
    stop: CancellationToken,
) -> Result<(), NodeError> {
    let (answers, payloads) = (Arc::new(Semaphore::new(ANSWERS_MAX)), Arc::new(Semaphore::new(PAYLOADS_MAX)));
    let exchange = Exchange { chain, pipeline, network, tell, answers, payloads };
    let mut ready = Vec::with_capacity(EVENTS_AT_ONCE);
    loop {
        let count = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            count = events.recv_many(&mut ready, EVENTS_AT_ONCE) => count,
        };
        // The network ends only with the node.
        if count == 0 {
            return Ok(());
        }
        let mut proofs = Vec::new();
        for event in ready.drain(..) {
            exchange.on(event, &mut proofs).await;
        }
        exchange.take_proofs(proofs).await;
    }
}

struct Exchange {
    chain: Arc<Chain>,
    pipeline: Arc<Pipeline>,
    network: Network,
    tell: mpsc::Sender<Told>,
    answers: Arc<Semaphore>,
    payloads: Arc<Semaphore>,
}

impl Exchange {
    /// Serves an event. Proofs are gathered: their verification is worth another thread, and many share the way there.
    async fn on(&self, event: PeerEvent, proofs: &mut Vec<(NodeId, SignedProof)>) {
        match event {
            PeerEvent::Connected(peer) => self.greet(&peer),
            // One of two connections ended: what the peer said since on the other still holds.
            PeerEvent::Disconnected(peer) if self.network.is_connected(&peer) => {}
            PeerEvent::Disconnected(peer) => {
                self.pipeline.forget(&peer);
                self.pass(Told::Gone(peer)).await;
            }
            PeerEvent::Frame(peer, channel, Received { bytes, room }) => {
                let outcome = match channel {
                    Channel::Consensus => self.consensus(peer, &bytes, room).await,
                    Channel::Gossip => self.gossip(peer, &bytes, proofs).await,
                    Channel::Sync => self.sync(peer, &bytes, room).await,
                    Channel::Stages => self.pipeline.hear(peer, &self.network, &bytes),
                    // The network keeps this to itself.
                    Channel::Peers => Ok(()),
                };
                if let Err(reason) = outcome {
                    self.network.ban(&peer, &reason, BAN);
                }
            }
        }
    }

    /// The loop is gone only where the node stops; then nothing needs to be passed on.
    async fn pass(&self, told: Told) {
        let _ = self.tell.send(told).await;
    }

    /// Tells a new peer where we are and what waits.
    fn greet(&self, peer: &NodeId) {
        if let Ok(tip) = self.chain.store.tip() {
            self.network.send(peer, Channel::Gossip, &Gossip::Tip(tip.height, tip.hash).encode());
        }
        let waiting = self.chain.mempool().select(aria_chain::mempool::SelectLimits {
            records_max: PENDING_MAX,
            ..aria_chain::mempool::SelectLimits::default()
        });
        for piece in self.chain.accused().pieces() {
            self.network.send(peer, Channel::Gossip, &Gossip::Evidence(Box::new(piece)).encode());
        }
        for attestation in self.chain.attestations().all() {
            let news = Gossip::Attestation(Box::new(attestation.signed().clone()));
            self.network.send(peer, Channel::Gossip, &news.encode());
        }
        for (_, transaction) in self.chain.transactions().iter() {
            let news = Gossip::Transaction(Box::new(transaction.signed().clone()));
            self.network.send(peer, Channel::Gossip, &news.encode());
        }
        for proof in waiting {
            self.network.send(peer, Channel::Gossip, &Gossip::Proof(Box::new(proof.proof().clone())).encode());
        }
    }

    async fn consensus(&self, peer: NodeId, bytes: &[u8], room: Room) -> Result<(), String> {
        let message = Message::decode(bytes).map_err(|error| error.to_string())?;
        self.pass(Told::Heard(peer, Box::new(message), room)).await;
        Ok(())
    }

    async fn gossip(&self, peer: NodeId, bytes: &[u8], proofs: &mut Vec<(NodeId, SignedProof)>) -> Result<(), String> {
        match Gossip::decode(bytes).map_err(|error| error.to_string())? {
            Gossip::Tip(height, _) => {
                self.network.note_height(&peer, height);
                self.pass(Told::Tip(peer, height)).await;
            }
            Gossip::Proof(proof) => {
                let is_known = proofs.iter().any(|(_, other)| *other == *proof)
                    || self.chain.mempool().contains(&proof.record.id());
                if !is_known {
                    proofs.push((peer, *proof));
                }
            }
            Gossip::Evidence(piece) => self.take_evidence(peer, *piece).await?,
            Gossip::Attestation(attestation) => self.take_attestation(peer, *attestation).await?,
            Gossip::Transaction(transaction) => self.take_transaction(peer, *transaction).await?,
        }
        Ok(())
    }

    /// Proofs that other nodes hold. Only their signatures can be a peer's fault: that they are known, late or too many is not.
    async fn take_proofs(&self, proofs: Vec<(NodeId, SignedProof)>) {
        if proofs.is_empty() {
            return;
        }
        let chain = Arc::clone(&self.chain);
        let taken = spawn_blocking(move || {
            let take = |(peer, proof)| (peer, take_proof(&chain, proof));
            proofs.into_iter().map(take).collect::<Vec<(NodeId, Result<Option<Vec<u8>>, String>)>>()
        });
        // It panics only by a defect of ours; then these proofs are lost and others hold them.
        for (peer, outcome) in taken.await.unwrap_or_default() {
            match outcome {
                Ok(Some(bytes)) => {
                    self.network.broadcast(Channel::Gossip, &bytes, Some(&peer));
                    self.chain.wake.notify_one();
                }
                Ok(None) => {}
                Err(reason) => self.network.ban(&peer, &reason, BAN),
            }
        }
    }

    /// Evidence that another node holds. That it does not hold is the peer's fault, that it is late is not.
    async fn take_evidence(&self, peer: NodeId, piece: Evidence) -> Result<(), String> {
        if self.chain.accused().contains(&piece.node_id) {
            return Ok(());
        }
        let chain = Arc::clone(&self.chain);
        let bytes = Gossip::Evidence(Box::new(piece.clone())).encode();
        let taken = spawn_blocking(move || {
            piece.check(chain.genesis.chain_id()).map_err(|error| error.to_string())?;
            // A store that cannot be read is no fault of the peer's, and stops this node elsewhere.
            Ok::<_, String>(chain.accuse(piece).unwrap_or(false))
        });
        if taken.await.map_err(|error| error.to_string())?? {
            self.network.broadcast(Channel::Gossip, &bytes, Some(&peer));
        }
        Ok(())
    }

    /// A transaction that another node holds. A wrong signature is the peer's fault; that it cannot be included here and now is not.
    async fn take_transaction(&self, peer: NodeId, transaction: SignedTransaction) -> Result<(), String> {
        if self.chain.transactions().get(&transaction.transaction.id()).is_some() {
            return Ok(());
        }
        let news = Gossip::Transaction(Box::new(transaction.clone()));
        self.take(peer, &news, move |chain| {
            let verified = transaction.verify(chain.genesis.chain_id()).map_err(|error| error.to_string())?;
            Ok(chain.admit_order(verified).is_ok())
        })
        .await
    }

    /// An attestation that another node holds. A wrong signature is the peer's fault; one that is late or of no validator is not.
    async fn take_attestation(&self, peer: NodeId, attestation: SignedAttestation) -> Result<(), String> {
        if self.chain.attestations().get(&attestation.attestation.id()).is_some() {
            return Ok(());
        }
        let news = Gossip::Attestation(Box::new(attestation.clone()));
        self.take(peer, &news, move |chain| {
            let verified = attestation.verify(chain.genesis.chain_id()).map_err(|error| error.to_string())?;
            Ok(chain.admit_attestation(verified))
        })
        .await
    }

    /// Lets something wait, and passes it on if it is new.
    async fn take(
        &self,
        peer: NodeId,
        news: &Gossip,
        admit: impl FnOnce(&Chain) -> Result<bool, String> + Send + 'static,
    ) -> Result<(), String> {
        let chain = Arc::clone(&self.chain);
        if spawn_blocking(move || admit(&chain)).await.map_err(|error| error.to_string())?? {
            self.network.broadcast(Channel::Gossip, &news.encode(), Some(&peer));
            self.chain.wake.notify_one();
        }
        Ok(())
    }

    async fn sync(&self, peer: NodeId, bytes: &[u8], room: Room) -> Result<(), String> {
        match Sync::decode(bytes).map_err(|error| error.to_string())? {
            Sync::Blocks(Blocks(blocks)) => self.pass(Told::Blocks(peer, blocks, room)).await,
            Sync::Payload(record, payload) => self.chain.payload_came(&peer, &record, payload),
            Sync::Layer(record, number, part) => self.chain.layers.came(&peer, &record, number, part),
            // Late answers to what this node asked when it began.
            Sync::Snapshot(_) | Sync::Chunk(..) | Sync::Headers(_) => {}
            question => self.answer(peer, question),
        }
        Ok(())
    }

    /// Answers from store, snapshots and payloads. Beyond so many answers at once a question is not answered, and the peer asks another node.
    fn answer(&self, peer: NodeId, question: Sync) {
        let is_auditors = matches!(question, Sync::AskPayload(_) | Sync::AskLayer(..));
        let places = if is_auditors { &self.payloads } else { &self.answers };
        let Ok(permit) = Arc::clone(places).try_acquire_owned() else { return };
        let (chain, network) = (Arc::clone(&self.chain), self.network.clone());
        drop(spawn_blocking(move || {
            match answer_to(&chain, &peer, question) {
                Ok(Some(answer)) => drop(network.send(&peer, Channel::Sync, &answer.encode())),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "cannot read for a peer"),
            }
            drop(permit);
        }));
    }
}

/// What the store and the snapshots say to a question.
pub(crate) fn answer_to(chain: &Chain, peer: &NodeId, question: Sync) -> Result<Option<Sync>, NodeError> {
    let store = &*chain.store;
    Ok(match question {
        Sync::Ask(from) => Some(Sync::Blocks(Blocks(read_blocks(chain, from)?))),
        Sync::AskSnapshot => Some(Sync::Snapshot(chain.snapshots.offer(store)?.map(Box::new))),
        Sync::AskChunk(height, index) => Some(Sync::Chunk(height, index, chain.snapshots.chunk(height, index))),
        Sync::AskHeaders(from, to) => {
            let mut headers = Vec::new();
            if from > Height::ZERO {
                headers.extend(FinalHeader::of(store, from)?);
            }
            let (span, limit) = ((from, to.min(chain.tip_height())), HEADERS_MAX - headers.len());
            let changes = set_changes(store, span, chain.genesis.params().epoch_blocks, limit)?;
            headers.extend(changes.into_iter().filter(|change| change.header.height > from));
            Some(Sync::Headers(Headers(headers)))
        }
        Sync::AskPayload(record) => {
            let payload = if chain.may_audit(peer, &record)? { chain.payloads.read(&record) } else { None };
            Some(Sync::Payload(record, payload))
        }
        Sync::AskLayer(record, number) => {
            let part = if chain.may_judge(peer, &record)? { chain.layers.part(&record, number) } else { None };
            Some(Sync::Layer(record, number, part))
        }
        Sync::Blocks(_) | Sync::Snapshot(_) | Sync::Chunk(..) => None,
        Sync::Headers(_) | Sync::Payload(..) | Sync::Layer(..) => None,
    })
}

/// Verifies a proof and lets it wait. Returns its message for others, if it is new.
fn take_proof(chain: &Chain, proof: SignedProof) -> Result<Option<Vec<u8>>, String> {
    let proof = proof.verify(chain.genesis.chain_id()).map_err(|error| error.to_string())?;
    let bytes = Gossip::Proof(Box::new(proof.proof().clone())).encode();
    let (tip, now) = (chain.tip_height(), Timestamp::new(chain.clock.now_ms()));
    let is_sealed = matches!(chain.store.record(&proof.record_id()), Ok(Some(_)));
    let is_new = !is_sealed && chain.mempool().insert(proof, tip, now).is_ok();
    Ok(is_new.then_some(bytes))
}

fn read_blocks(chain: &Chain, from: Height) -> Result<Vec<WireFinal>, NodeError> {
    let tip = chain.tip_height();
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    let mut height = from;
    while height <= tip && blocks.len() < BLOCKS_MAX {
        let Some(block) = chain.store.block(height)? else { break };
        let Some(certificate) = block.certificate else { break };
        bytes += block.body.encode().len();
        if bytes > BLOCKS_BYTES_MAX && !blocks.is_empty() {
            break;
        }
        blocks.push(WireFinal { header: block.header, body: block.body, certificate });
        let Ok(next) = height.next() else { break };
        height = next;
    }
    Ok(blocks)
}
