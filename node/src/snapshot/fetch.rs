//! Beginning with a snapshot that peers offer: the way to it is verified, chunks come from all who have it, and the store is
//! put in its place only when the root is right.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aria_chain::block::{FinalBlock, ProposedBlock};
use aria_chain::codec::Versioned;
use aria_chain::ids::{Digest, NodeId};
use aria_chain::light::{FinalHeader, Trusted};
use aria_chain::store::{OpenOptions, Restoring, SledStore, SledTables, Start, StateEntry, StoreError};
use aria_chain::units::Height;
use aria_runtime::genesis::Genesis;
use aria_runtime::state::lattice::Lattice;
use aria_runtime::state::{MemoryState, Reader, key};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Chunk, Offer, chunk_digest};
use crate::chain::TrustedBlock;
use crate::consensus::talk::{Headers, Sync, WireFinal};
use crate::error::NodeError;
use crate::network::{Channel, Network, PeerEvent};

/// How long an answer may take, and how often in a row a peer may owe one: who serves many leaves some questions open.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const OWED_MAX: u32 = 3;
/// How long a peer that lied stays out.
const BAN: Duration = Duration::from_secs(3_600);
/// Chunks asked of one peer at a time.
const ASKED_MAX: usize = 2;
/// How often one line says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// What is known before.
pub struct Begin<'b> {
    /// The chain.
    pub genesis: &'b Genesis,
    /// A block that the user trusts.
    pub trusted: Option<TrustedBlock>,
    /// Where the store will be. Nothing is there yet.
    pub store: PathBuf,
    /// For how long to look for somebody who has a snapshot.
    pub patience: Duration,
}

/// Why a peer's snapshot is not taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// The peer is at fault.
    #[error("{0}")]
    Lie(String),
    /// Nobody can be blamed.
    #[error("{0}")]
    Gone(&'static str),
    /// This node.
    #[error(transparent)]
    Own(#[from] NodeError),
}

fn lie(reason: &dyn std::fmt::Display) -> Refused {
    Refused::Lie(reason.to_string())
}

/// A verified way to a snapshot.
struct Way {
    offer: Offer,
    headers: Vec<FinalHeader>,
    block: FinalBlock,
}

/// Brings a snapshot into place. None: nobody had one in time, and the chain is to be followed from genesis.
pub async fn run(
    begin: &Begin<'_>,
    network: &Network,
    events: mpsc::Receiver<PeerEvent>,
    stop: &CancellationToken,
) -> Result<Option<Height>, NodeError> {
    let mut talk = Talk { network, events, offers: VecDeque::new(), ready: VecDeque::new(), stop };
    let until = Instant::now() + begin.patience;
    while let Some((peer, offer)) = talk.offer(until).await {
        let height = offer.manifest.height;
        tracing::info!(%peer, %height, chunks = offer.manifest.chunks.len(), "snapshot offered");
        match one(begin, &mut talk, peer, offer).await {
            Ok(()) => return Ok(Some(height)),
            Err(Refused::Lie(reason)) => network.ban(&peer, &reason, BAN),
            Err(Refused::Gone(reason)) => tracing::warn!(%peer, %height, reason, "snapshot not taken"),
            Err(Refused::Own(error)) => return Err(error),
        }
        if stop.is_cancelled() {
            break;
        }
    }
    Ok(None)
}

async fn one(begin: &Begin<'_>, talk: &mut Talk<'_>, peer: NodeId, offer: Offer) -> Result<(), Refused> {
    let way = verify_way(begin, talk, peer, offer).await?;
    let folder = begin.store.with_extension("restoring");
    clear(&folder)?;
    let fault = |cause| NodeError::DataDir { path: folder.clone(), cause };
    std::fs::create_dir_all(&folder).map_err(fault)?;
    let outcome = match download(talk, peer, &way.offer, &folder).await {
        Ok(()) => {
            let (genesis, place, inside) = (begin.genesis.clone(), begin.store.clone(), folder.clone());
            let built = spawn_blocking(move || build(&genesis, &way, &inside, &place)).await;
            built.map_err(|error| NodeError::Task { task: "snapshot", reason: error.to_string() })?
        }
        Err(refused) => Err(refused),
    };
    clear(&folder)?;
    outcome
}

fn clear(folder: &Path) -> Result<(), NodeError> {
    match std::fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(NodeError::DataDir { path: folder.to_path_buf(), cause })
        }
        _ => Ok(()),
    }
}

/// Follows the sets from what is trusted to the snapshot, one final header for each change.
async fn verify_way(begin: &Begin<'_>, talk: &mut Talk<'_>, peer: NodeId, offer: Offer) -> Result<Way, Refused> {
    let (last, next) = (&offer.last.header, &offer.next.header);
    let is_next = last.height.next().is_ok_and(|above| above == next.height) && next.parent == last.hash();
    if offer.manifest.height != last.height || !is_next || last.height == Height::ZERO {
        return Err(Refused::Lie("its snapshot is not of the block that it names".into()));
    }
    let mut at = begin.trusted.map_or(Height::ZERO, |trusted| trusted.height);
    if at > last.height {
        return Err(Refused::Gone("it is older than the trusted block"));
    }
    let chain_id = begin.genesis.chain_id().clone();
    let mut trusted = Trusted { chain_id, set_hash: begin.genesis.block().validators().hash() };
    let mut headers: Vec<FinalHeader> = Vec::new();
    loop {
        let answer = talk.ask(peer, Sync::AskHeaders(at, last.height), |answer| match answer {
            Sync::Headers(Headers(headers)) => Some(headers),
            _ => None,
        });
        let answer = answer.await.ok_or(Refused::Gone("the peer does not show the way to it"))?;
        let before = at;
        for step in answer {
            let height = step.header.height;
            match begin.trusted {
                // The user vouches for this one; nobody's signature is needed for it.
                Some(block) if headers.is_empty() && height == block.height => {
                    if step.header.hash() != block.hash || step.header.chain_id != trusted.chain_id {
                        return Err(Refused::Lie(format!("its block {height} is not the trusted one")));
                    }
                    trusted.set_hash = step.header.validators_hash;
                }
                _ if height == before => continue,
                _ if height <= at || height >= last.height => {
                    return Err(Refused::Lie("its headers do not lead to its snapshot".into()));
                }
                _ => {}
            }
            step.check(&trusted).map_err(|fault| lie(&fault))?;
            trusted.set_hash = step.header.next_validators_hash;
            at = height;
            headers.push(step);
        }
        if begin.trusted.is_some() && headers.is_empty() {
            return Err(Refused::Gone("the peer does not have the trusted block"));
        }
        if at == before || trusted.set_hash == last.validators_hash {
            break;
        }
    }
    if last.height > at {
        offer.last.check(&trusted).map_err(|fault| lie(&fault))?;
    } else if headers.last().is_some_and(|step| step.header != *last) {
        return Err(Refused::Lie("its snapshot is not of the trusted block".into()));
    }
    let above = Trusted { set_hash: last.next_validators_hash, ..trusted };
    offer.next.check(&above).map_err(|fault| lie(&fault))?;
    let block = talk.ask(peer, Sync::Ask(last.height), |answer| match answer {
        Sync::Blocks(blocks) => Some(blocks.0),
        _ => None,
    });
    let block = block.await.and_then(|blocks| blocks.into_iter().next());
    let WireFinal { header, body, certificate } = block.ok_or(Refused::Gone("the peer does not send its block"))?;
    if header != *last {
        return Err(Refused::Lie("it sent another block than that of its snapshot".into()));
    }
    let digits = begin.genesis.params().stamp_zero_digits;
    let block = ProposedBlock::check(header, body, &above.chain_id, digits).map_err(|fault| lie(&fault))?;
    let block = FinalBlock::new(block, certificate, &offer.last.validators).map_err(|fault| lie(&fault))?;
    Ok(Way { offer, headers, block })
}

/// Brings every chunk into a folder. Peers that offer the same chunks share the work.
async fn download(talk: &mut Talk<'_>, first: NodeId, offer: &Offer, folder: &Path) -> Result<(), Refused> {
    let (height, digests) = (offer.manifest.height, &offer.manifest.chunks);
    let mut missing: VecDeque<usize> = (0..digests.len()).collect();
    let mut asked: HashMap<usize, (NodeId, Instant)> = HashMap::new();
    // Whoever is here may have it too; who has not says so and is not asked again. With the answers that each owes.
    let mut helpers: BTreeMap<NodeId, u32> = talk.network.peers().iter().map(|peer| (peer.node_id, 0)).collect();
    helpers.insert(first, 0);
    let (mut said, mut done) = (Instant::now(), 0);
    while done < digests.len() {
        let now = Instant::now();
        let late: Vec<usize> =
            asked.iter().filter(|(_, (_, since))| now - *since > ANSWER_MAX).map(|(index, _)| *index).collect();
        for index in late {
            if let Some((peer, _)) = asked.remove(&index) {
                *helpers.entry(peer).or_default() += 1;
            }
            missing.push_back(index);
        }
        for (&peer, _) in helpers.iter().filter(|(_, owed)| **owed < OWED_MAX) {
            while asked.values().filter(|(other, _)| *other == peer).count() < ASKED_MAX {
                let Some(index) = missing.pop_front() else { break };
                let number = u32::try_from(index).expect("chunks are few");
                talk.network.send(&peer, Channel::Sync, &Sync::AskChunk(height, number).encode());
                asked.insert(index, (peer, now));
            }
        }
        if asked.is_empty() {
            return Err(Refused::Gone("nobody has its chunks any more"));
        }
        let Some((peer, answer)) = talk.next(now + Duration::from_secs(1)).await else {
            if talk.stop.is_cancelled() {
                return Err(Refused::Gone("this node stops"));
            }
            continue;
        };
        let Sync::Chunk(of, number, bytes) = answer else { continue };
        let index = number as usize;
        if of != height || asked.get(&index).is_none_or(|(asked, _)| *asked != peer) {
            continue;
        }
        asked.remove(&index);
        match bytes {
            Some(bytes) if chunk_digest(&bytes) == digests[index] => {
                let path = folder.join(index.to_string());
                std::fs::write(&path, &bytes).map_err(|cause| NodeError::DataDir { path, cause })?;
                helpers.insert(peer, 0);
                done += 1;
            }
            // Another peer's snapshot of this height may be cut otherwise: only its author has promised these chunks.
            other => {
                missing.push_back(index);
                helpers.insert(peer, OWED_MAX);
                if peer == first && other.is_some() {
                    return Err(Refused::Lie("its chunk is not the one that it listed".into()));
                }
            }
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            tracing::info!(done, of = digests.len(), "chunks of the snapshot");
        }
    }
    Ok(())
}

/// Makes a store of the chunks, and puts it in its place if the root is the certified one.
fn build(genesis: &Genesis, way: &Way, folder: &Path, place: &Path) -> Result<(), Refused> {
    let own = |error: StoreError| Refused::Own(error.into());
    let inside = folder.join("chain");
    let restoring = SledStore::restore(&inside, OpenOptions::default()).map_err(own)?;
    let mut sum = Lattice::empty();
    let mut before: Option<Vec<u8>> = None;
    let mut small = MemoryState::new();
    for index in 0..way.offer.manifest.chunks.len() {
        let path = folder.join(index.to_string());
        let bytes = std::fs::read(&path).map_err(|cause| NodeError::DataDir { path, cause })?;
        let Chunk { entries } = Chunk::decode(&bytes).map_err(|fault| lie(&fault))?;
        for (key, value) in &entries {
            if before.as_ref().is_some_and(|before| key <= before) || key == key::LATTICE {
                return Err(Refused::Lie("the entries of its snapshot are not in order".into()));
            }
            sum.add(key, value);
            before = Some(key.clone());
            if [key::VOTERS, key::NEXT_VOTERS].contains(&key.as_slice()) {
                small.apply(&[(key.clone(), Some(value.clone()))]);
            }
        }
        put(&restoring, entries)?;
    }
    let (root, expected): (Digest, Digest) = (sum.root(), way.offer.next.header.state_root);
    if root != expected {
        return Err(Refused::Lie(format!("its snapshot has root {root}, the chain says {expected}")));
    }
    put(&restoring, vec![(key::LATTICE.to_vec(), sum.to_bytes())])?;
    let sets = Reader(&small).voters().and_then(|now| Ok(vec![now, Reader(&small).next_voters()?]));
    // The root is right, so only a defect of ours can hide the sets.
    let mut sets = sets.map_err(|fault| NodeError::Execution(fault.to_string()))?;
    sets.push(way.offer.last.validators.clone());
    sets.push(way.offer.next.validators.clone());
    let (block, headers) = (&way.block, &way.headers);
    let start = Start { genesis: &genesis.block(), block, state_root: root, headers, sets: &sets };
    drop(restoring.finish(&start).map_err(own)?);
    std::fs::rename(&inside, place).map_err(|cause| NodeError::DataDir { path: place.to_path_buf(), cause })?;
    let parent = place.parent().unwrap_or(Path::new("."));
    let synced = std::fs::File::open(parent).and_then(|folder| folder.sync_all());
    synced.map_err(|cause| Refused::Own(NodeError::DataDir { path: parent.to_path_buf(), cause }))
}

fn put(restoring: &Restoring<SledTables>, entries: Vec<StateEntry>) -> Result<(), Refused> {
    restoring.put_state(entries).map_err(|error| match error.is_failure() {
        true => Refused::Own(error.into()),
        false => lie(&error),
    })
}

/// What peers say, sorted.
struct Talk<'t> {
    network: &'t Network,
    events: mpsc::Receiver<PeerEvent>,
    offers: VecDeque<(NodeId, Offer)>,
    ready: VecDeque<(NodeId, Sync)>,
    stop: &'t CancellationToken,
}

impl Talk<'_> {
    /// The next snapshot that a peer offers, the newest of those that are known.
    async fn offer(&mut self, until: Instant) -> Option<(NodeId, Offer)> {
        loop {
            let newest = (0..self.offers.len()).max_by_key(|at| self.offers[*at].1.manifest.height);
            if let Some(offer) = newest.and_then(|at| self.offers.remove(at)) {
                return Some(offer);
            }
            self.hear(until).await?;
            // Answers to what is no longer asked.
            self.ready.clear();
        }
    }

    /// Asks one peer, more than once if need be, and waits for its answer.
    async fn ask<T>(&mut self, peer: NodeId, question: Sync, wanted: impl Fn(Sync) -> Option<T>) -> Option<T> {
        for _ in 0..OWED_MAX {
            self.network.send(&peer, Channel::Sync, &question.encode());
            let until = Instant::now() + ANSWER_MAX;
            while let Some((from, answer)) = self.next(until).await {
                if from == peer
                    && let Some(found) = wanted(answer)
                {
                    return Some(found);
                }
            }
            if self.stop.is_cancelled() {
                break;
            }
        }
        None
    }

    /// The next answer of any peer, offers aside. None: it is late, or this node stops.
    async fn next(&mut self, until: Instant) -> Option<(NodeId, Sync)> {
        while self.ready.is_empty() {
            self.hear(until).await?;
        }
        self.ready.pop_front()
    }

    /// Takes the next event.
    async fn hear(&mut self, until: Instant) -> Option<()> {
        let event = tokio::select! {
            () = self.stop.cancelled() => return None,
            () = tokio::time::sleep_until(until.into()) => return None,
            event = self.events.recv() => event?,
        };
        match event {
            PeerEvent::Connected(peer) => drop(self.network.send(&peer, Channel::Sync, &Sync::AskSnapshot.encode())),
            PeerEvent::Frame(peer, Channel::Sync, received) => match Sync::decode(&received.bytes) {
                Ok(Sync::Snapshot(Some(offer))) => {
                    self.offers.retain(|(other, _)| *other != peer);
                    self.offers.push_back((peer, *offer));
                }
                Ok(Sync::Snapshot(None)) => tracing::info!(%peer, "has no snapshot"),
                Ok(answer) => self.ready.push_back((peer, answer)),
                Err(fault) => self.network.ban(&peer, &fault.to_string(), BAN),
            },
            PeerEvent::Frame(..) | PeerEvent::Disconnected(_) => {}
        }
        Some(())
    }
}
