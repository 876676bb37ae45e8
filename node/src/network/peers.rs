//! Who is connected, who is banned, and the queues to them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aria_chain::ids::NodeId;
use aria_chain::units::Height;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Bytes;
use tokio_util::sync::CancellationToken;

use super::book::Book;
use super::discover::now_s;
use super::tls::Tls;
use super::{Ban, Channel, Identity, Kept, Legacy, NetworkConfig, NetworkError, PeerEvent, ROOM_KIB, Room};

/// Longest ban that is kept over a restart: ten years, for clocks that were wrong.
const BAN_S_MAX: u64 = 10 * 366 * 24 * 3_600;
/// Bans that are remembered; the oldest end first.
const BANS_MAX: usize = 1_024;
/// Who owes the answer to a ping for so long may be gone: its connection gives way to a new one.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Places of a queue that gossip leaves free for what matters more.
const GOSSIP_SPARE: usize = 128;

/// A connected peer, for people.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its key.
    pub node_id: NodeId,
    /// Where it is.
    pub address: SocketAddr,
    /// Whether this node dialled.
    pub is_dialled: bool,
    /// Connected for so long.
    pub since: Duration,
    /// Bytes that came from it, and that were queued for it.
    pub bytes: (u64, u64),
    /// The last block that it says it has.
    pub height: Option<Height>,
    /// From the last ping to its answer.
    pub round_trip: Option<Duration>,
}

/// A connection whose peer has proven its key.
pub(super) struct Link {
    queue: mpsc::Sender<Bytes>,
    address: SocketAddr,
    is_dialled: bool,
    since: Instant,
    received: u64,
    sent: u64,
    height: Option<Height>,
    /// When the ping left that is not answered yet.
    pinged: Option<Instant>,
    round_trip: Option<Duration>,
    number: u64,
    pub(super) end: CancellationToken,
}

impl Link {
    pub(super) fn new(queue: mpsc::Sender<Bytes>, address: SocketAddr, is_dialled: bool) -> Link {
        let (since, end) = (Instant::now(), CancellationToken::new());
        let (height, pinged, round_trip) = (None, None, None);
        Link { queue, address, is_dialled, since, received: 0, sent: 0, height, pinged, round_trip, number: 0, end }
    }

    /// Queues a frame; where there is no room, gossip is left out and for anything else the peer is dropped.
    fn push(&mut self, node: &NodeId, channel: Channel, frame: &Bytes) -> bool {
        if channel == Channel::Gossip && self.queue.capacity() < GOSSIP_SPARE {
            return false;
        }
        let is_queued = self.queue.try_send(frame.clone()).is_ok();
        if is_queued {
            self.sent += frame.len() as u64;
        } else if !self.end.is_cancelled() {
            tracing::warn!(%node, "peer is too slow and is dropped");
            self.end.cancel();
        }
        is_queued
    }
}

#[derive(Default)]
struct Table {
    links: HashMap<NodeId, Link>,
    bans: HashMap<NodeId, (Instant, String)>,
    joined: u64,
}

/// All connections of a node.
pub(super) struct Peers {
    pub(super) identity: Identity,
    pub(super) config: NetworkConfig,
    pub(super) legacy: Option<Box<dyn Legacy>>,
    pub(super) events: mpsc::Sender<PeerEvent>,
    pub(super) tls: Tls,
    /// Where this node listens.
    pub(super) port: u16,
    book: Mutex<Book>,
    room: Arc<Semaphore>,
    table: Mutex<Table>,
}

impl Peers {
    pub(super) fn new(
        (identity, port): (Identity, u16),
        kept: Kept,
        config: NetworkConfig,
        legacy: Option<Box<dyn Legacy>>,
        events: mpsc::Sender<PeerEvent>,
    ) -> Peers {
        let tls = Tls::new(&identity.key);
        let (now, now_s) = (Instant::now(), now_s());
        let ends = |ban: Ban| {
            (ban.node_id, (now + Duration::from_secs(ban.until_s.saturating_sub(now_s).min(BAN_S_MAX)), ban.reason))
        };
        let bans = kept.bans.into_iter().take(BANS_MAX).map(ends).collect();
        Peers {
            tls,
            port,
            book: Mutex::new(Book::new(kept.nodes)),
            identity,
            config,
            legacy,
            events,
            room: Arc::new(Semaphore::new(ROOM_KIB)),
            table: Mutex::new(Table { bans, ..Table::default() }),
        }
    }

    /// Waits until there is room for a frame.
    pub(super) async fn room(&self, bytes: usize) -> Room {
        let kib = u32::try_from(bytes.div_ceil(1_024).max(1)).expect("frames are short");
        Arc::clone(&self.room).acquire_many_owned(kib).await.expect("it is never closed")
    }

    /// Where others are. Held for short sections only.
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no section that holds this lock panics")
    }

    /// How many connections this node began.
    pub(super) fn dialled(&self) -> usize {
        self.table().links.values().filter(|link| link.is_dialled).count()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no section that holds this lock panics")
    }

    /// Adds a connection; returns its number. Of two connections between the same two nodes both sides keep the one that
    /// the node with the lower key dialled, unless nobody answers there.
    pub(super) fn join(&self, node: NodeId, mut link: Link) -> Result<u64, NetworkError> {
        let mut table = self.table();
        if let Some((until, reason)) = table.bans.get(&node) {
            if *until > Instant::now() {
                return Err(NetworkError::Banned { node, reason: reason.clone() });
            }
            table.bans.remove(&node);
        }
        let should_dial = self.identity.key.node_id() < node;
        if let Some(other) = table.links.get(&node) {
            let is_worse = other.is_dialled == should_dial && link.is_dialled != should_dial;
            if is_worse && other.pinged.is_none_or(|pinged| pinged.elapsed() < ANSWER_MAX) {
                return Err(NetworkError::Duplicate(node));
            }
            other.end.cancel();
        }
        table.joined += 1;
        let number = table.joined;
        link.number = number;
        table.links.insert(node, link);
        Ok(number)
    }

    pub(super) fn leave(&self, node: &NodeId, number: u64) {
        let mut table = self.table();
        if table.links.get(node).is_some_and(|link| link.number == number) {
            table.links.remove(node);
        }
    }

    pub(super) fn is_connected(&self, node: &NodeId) -> bool {
        self.table().links.contains_key(node)
    }

    pub(super) fn count_received(&self, node: &NodeId, number: u64, bytes: usize) {
        if let Some(link) = self.table().links.get_mut(node).filter(|link| link.number == number) {
            link.received += bytes as u64;
        }
    }

    /// Notes that a ping leaves now.
    pub(super) fn pinged(&self, node: &NodeId, number: u64) {
        if let Some(link) = self.table().links.get_mut(node).filter(|link| link.number == number) {
            link.pinged.get_or_insert_with(Instant::now);
        }
    }

    /// Notes that its answer is here.
    pub(super) fn ponged(&self, node: &NodeId, number: u64) {
        if let Some(link) = self.table().links.get_mut(node).filter(|link| link.number == number)
            && let Some(pinged) = link.pinged.take()
        {
            link.round_trip = Some(pinged.elapsed());
        }
    }

    /// Notes where a peer says it is.
    pub(super) fn note_height(&self, node: &NodeId, height: Height) {
        if let Some(link) = self.table().links.get_mut(node) {
            link.height = Some(height);
        }
    }

    pub(super) fn send(&self, to: &NodeId, channel: Channel, frame: &Bytes) -> bool {
        self.table().links.get_mut(to).is_some_and(|link| link.push(to, channel, frame))
    }

    pub(super) fn broadcast(&self, channel: Channel, frame: &Bytes, except: Option<&NodeId>) {
        for (node, link) in self.table().links.iter_mut().filter(|(node, _)| Some(*node) != except) {
            link.push(node, channel, frame);
        }
    }

    pub(super) fn list(&self) -> Vec<PeerInfo> {
        let mut peers: Vec<PeerInfo> = self
            .table()
            .links
            .iter()
            .map(|(node, link)| PeerInfo {
                node_id: *node,
                address: link.address,
                is_dialled: link.is_dialled,
                since: link.since.elapsed(),
                bytes: (link.received, link.sent),
                height: link.height,
                round_trip: link.round_trip,
            })
            .collect();
        peers.sort_by_key(|peer| peer.node_id);
        peers
    }

    pub(super) fn bans(&self) -> Vec<(NodeId, Duration, String)> {
        let now = Instant::now();
        let table = self.table();
        let left = table.bans.iter().map(|(node, (until, reason))| (*node, until.duration_since(now), reason.clone()));
        let mut bans: Vec<_> = left.filter(|(_, left, _)| !left.is_zero()).collect();
        bans.sort_by_key(|(node, ..)| *node);
        bans
    }

    /// The bans by the clock on the wall.
    pub(super) fn kept_bans(&self) -> Vec<Ban> {
        let now_s = now_s();
        let kept = |(node_id, left, reason): (NodeId, Duration, String)| Ban {
            node_id,
            until_s: now_s + left.as_secs(),
            reason,
        };
        self.bans().into_iter().map(kept).collect()
    }

    pub(super) fn ban(&self, node: &NodeId, reason: &str, time: Duration) {
        let mut table = self.table();
        if time.is_zero() {
            table.bans.remove(node);
            return;
        }
        tracing::warn!(%node, reason, seconds = time.as_secs(), "peer is banned");
        if table.bans.len() >= BANS_MAX
            && let Some(oldest) = table.bans.iter().min_by_key(|(_, (until, _))| *until).map(|(node, _)| *node)
        {
            table.bans.remove(&oldest);
        }
        table.bans.insert(*node, (Instant::now() + time, reason.to_owned()));
        if let Some(link) = table.links.get(node) {
            link.end.cancel();
        }
    }
}
