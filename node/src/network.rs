//! Peers over WebSocket: who they are, and frames of bytes to and from them.
//!
//! A peer is its key, proven on both sides by TLS 1.3 ([`tls`]) before anything else is said. Then both say on which chain they
//! are ([`handshake`]). After that a connection carries binary frames, each with a channel in front. What the frames mean is not this module's business. Everything is bounded:
//! connections, frames, queues, what one peer may send in a second. A slow or noisy peer is dropped with a reason in the log.
//!
//! In reading order: [`tls`], [`handshake`], [`peer`], [`peers`], [`dial`], [`throttle`], [`book`], [`discover`], `lan`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aria_chain::ids::{BlockHash, ChainId, NodeId};
use aria_chain::keys::NodeKey;
use aria_chain::units::Height;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

pub mod book;
pub mod dial;
pub mod discover;
pub mod handshake;
mod lan;
pub mod peer;
pub mod peers;
pub mod throttle;
pub mod tls;

use book::Entry;
pub use peers::PeerInfo;
use peers::Peers;
use throttle::Throttle;

/// Events that wait for the node; a full queue slows the readers, and so the peers.
const EVENTS_MAX: usize = 1_024;
/// Kibibytes of all frames that were read and not yet worked on. Beyond it readers wait.
const ROOM_KIB: usize = 64 * 1_024;
/// Addresses that the operator may name.
const NAMED_MAX: usize = 256;

/// What a frame is about. The first byte of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Proposals and votes.
    Consensus,
    /// What waits to be sealed. Dropped first where a queue is full.
    Gossip,
    /// Blocks of the past.
    Sync,
    /// Where others are.
    Peers,
    /// Steps of answers that several nodes give.
    Stages,
}

impl Channel {
    const ALL: [Channel; 5] = [Channel::Consensus, Channel::Gossip, Channel::Sync, Channel::Peers, Channel::Stages];

    fn tag(self) -> u8 {
        self as u8
    }

    fn of(tag: u8) -> Option<Channel> {
        Channel::ALL.into_iter().find(|channel| channel.tag() == tag)
    }
}

/// What happens between this node and its peers.
#[derive(Debug)]
pub enum PeerEvent {
    /// A peer proved its key.
    Connected(NodeId),
    /// It is gone.
    Disconnected(NodeId),
    /// It said this.
    Frame(NodeId, Channel, Received),
}

/// The bytes of a frame, and the room that they take until this is dropped.
#[derive(Debug)]
pub struct Received {
    /// Without the channel.
    pub bytes: Vec<u8>,
    /// Held by whoever still works on what the bytes say.
    pub room: Room,
}

/// A part of the memory that frames of all peers may take together.
pub type Room = OwnedSemaphorePermit;

/// How many peers, and how long to wait for them.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Connections that others began.
    pub inbound_max: usize,
    /// Connections that this node begins by itself, those to named addresses included.
    pub outbound_max: usize,
    /// How often it looks for somebody while there are fewer.
    pub discover_every: Duration,
    /// Time for both sides to prove their keys.
    pub handshake_max: Duration,
    /// How often to ask whether a peer is there.
    pub ping_every: Duration,
    /// Silence after which a peer is dead.
    pub dead_after: Duration,
    /// First wait before dialling again; it doubles, with a random part, up to the second number.
    pub dial_again: (Duration, Duration),
    /// Messages and bytes that one peer may send in a second; twice that in a burst.
    pub rate: (u32, u32),
    /// What all peers together may say and be told. Can be changed while the network runs.
    pub throttle: Arc<Throttle>,
}

impl Default for NetworkConfig {
    fn default() -> NetworkConfig {
        NetworkConfig {
            inbound_max: 128,
            outbound_max: 8,
            discover_every: Duration::from_secs(3),
            handshake_max: Duration::from_secs(5),
            ping_every: Duration::from_secs(30),
            dead_after: Duration::from_secs(300),
            dial_again: (Duration::from_millis(200), Duration::from_secs(30)),
            rate: (4_000, 64 * 1_024 * 1_024),
            throttle: Arc::default(),
        }
    }
}

/// Who this node is to its peers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its key.
    pub key: Arc<NodeKey>,
    /// The chain.
    pub chain_id: ChainId,
    /// Where the chain began: two chains of one name are two chains.
    pub genesis: BlockHash,
}

/// Who answers older nodes, which prove no key and speak JSON.
pub trait Legacy: Send + Sync {
    /// A connection begins.
    fn open(&self) -> Box<dyn LegacySession>;
}

/// One connection of an older node.
#[async_trait]
pub trait LegacySession: Send {
    /// The reply to a message, if it expects one. It is told to nobody else.
    async fn answer(&mut self, text: &str) -> Option<String>;
}

/// Why there are no peers, or not this one.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// See [`handshake::HandshakeError`].
    #[error(transparent)]
    Handshake(#[from] handshake::HandshakeError),
    /// The connection itself.
    #[error("connection: {0}")]
    Connection(String),
    /// Multicast on the local network.
    #[error("the local network cannot be asked: {0}")]
    Lan(String),
    /// A peer that this node does not speak to for a while.
    #[error("{node} is banned: {reason}")]
    Banned {
        /// Who.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// There is a better connection to the same peer.
    #[error("there is a connection to {0} already")]
    Duplicate(NodeId),
}

/// What a node keeps of its peers over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where nodes can be dialled.
    #[serde(default)]
    pub nodes: Vec<Entry>,
    /// Who stays out.
    #[serde(default)]
    pub bans: Vec<Ban>,
}

/// A node that stays out for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Who.
    pub node_id: NodeId,
    /// Until when, in seconds since 1970.
    pub until_s: u64,
    /// Why.
    pub reason: String,
}

/// All peers of a node.
#[derive(Clone)]
pub struct Network {
    address: SocketAddr,
    peers: Arc<Peers>,
    stop: CancellationToken,
    /// Addresses that are named, each with what ends its dialling.
    named: Arc<Mutex<HashMap<String, CancellationToken>>>,
    /// Doors call from threads of their own.
    runtime: tokio::runtime::Handle,
}

impl Network {
    /// Accepts peers on `listener`, which is bound to `address`, until `stop`, and dials those that `kept` tells of; events come
    /// out of the receiver. Older nodes get their replies from `legacy`; without it they are not let in.
    pub fn start(
        (listener, address): (TcpListener, SocketAddr),
        identity: Identity,
        config: NetworkConfig,
        kept: Kept,
        legacy: Option<Box<dyn Legacy>>,
        stop: CancellationToken,
    ) -> (Network, mpsc::Receiver<PeerEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let peers = Arc::new(Peers::new((identity, address.port()), kept, config, legacy, events));
        tokio::spawn(accept(listener, Arc::clone(&peers), stop.clone()));
        tokio::spawn(discover::keep_company(Arc::clone(&peers), stop.clone()));
        let (named, runtime) = (Arc::default(), tokio::runtime::Handle::current());
        (Network { address, peers, stop, named, runtime }, receiver)
    }

    /// Where peers connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keeps a connection to an address (`host:port`) for as long as the node runs, or until [`leave`](Network::leave). Beyond
    /// so many addresses no more are taken. Whether it is kept now.
    pub fn dial(&self, address: String) -> bool {
        let mut named = self.named();
        if named.contains_key(&address) {
            return true;
        }
        if named.len() >= NAMED_MAX {
            return false;
        }
        let stop = self.stop.child_token();
        named.insert(address.clone(), stop.clone());
        self.runtime.spawn(dial::keep(Arc::clone(&self.peers), address, stop));
        true
    }

    /// Ends what [`dial`](Network::dial) began, and the connection if this node dialled it. Whether the address was named. Who is
    /// behind it may come back by itself: [`ban`](Network::ban) keeps it out.
    pub fn leave(&self, address: &str) -> bool {
        if let Ok(address) = address.parse() {
            self.peers.book().forget(address);
        }
        self.named().remove(address).inspect(CancellationToken::cancel).is_some()
    }

    fn named(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.named.lock().expect("no section that holds this lock panics")
    }

    /// Tells the local network that this node is here, and dials those that say so too, until `stop`.
    pub fn look_around(&self, stop: CancellationToken) -> Result<(), NetworkError> {
        let _inside = self.runtime.enter();
        let begun = lan::look_around(Arc::clone(&self.peers), self.address, stop);
        begun.map_err(|error| NetworkError::Lan(error.to_string()))
    }

    /// Queues a frame for one peer. False: it is not connected, or too slow and now dropped.
    pub fn send(&self, to: &NodeId, channel: Channel, bytes: &[u8]) -> bool {
        self.peers.send(to, channel, &peer::frame(channel, bytes))
    }

    /// Queues a frame for all peers but one.
    pub fn broadcast(&self, channel: Channel, bytes: &[u8], except: Option<&NodeId>) {
        self.peers.broadcast(channel, &peer::frame(channel, bytes), except);
    }

    /// Notes where a peer says it is, for who asks about peers.
    pub fn note_height(&self, node: &NodeId, height: Height) {
        self.peers.note_height(node, height);
    }

    /// Whether there is a connection to a peer.
    pub fn is_connected(&self, node: &NodeId) -> bool {
        self.peers.is_connected(node)
    }

    /// Connects to a node that the address book knows, unless it is connected. Whether it is then.
    pub async fn reach(&self, node: &NodeId) -> bool {
        if self.is_connected(node) {
            return true;
        }
        let address = self.peers.book().address_of(node);
        let Some(address) = address else { return false };
        if let Err(error) = dial::once(&self.peers, &address.to_string(), &self.stop).await {
            tracing::debug!(%node, %address, %error, "cannot connect");
        }
        self.is_connected(node)
    }

    /// Who is connected.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.peers.list()
    }

    /// What is to be kept over a restart.
    pub fn kept(&self) -> Kept {
        Kept { nodes: self.peers.book().entries(), bans: self.peers.kept_bans() }
    }

    /// Who is kept out, for how long and why.
    pub fn bans(&self) -> Vec<(NodeId, Duration, String)> {
        self.peers.bans()
    }

    /// Ends the connection to a peer that did what it must not, and does not speak to it for a while. No time at all ends a ban.
    pub fn ban(&self, node: &NodeId, reason: &str, time: Duration) {
        self.peers.ban(node, reason, time);
    }
}

async fn accept(listener: TcpListener, peers: Arc<Peers>, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(peers.config.inbound_max));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                // Votes are small and urgent. Where the system refuses, they are only slower.
                let _ = stream.set_nodelay(true);
                // Beyond the limit a connection is closed at once: dialling again later is cheap.
                let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
                let (peers, stop) = (Arc::clone(&peers), stop.clone());
                tokio::spawn(async move {
                    let ended = peer::serve(stream, address, peers, stop).await;
                    if let Err(error) = ended {
                        tracing::debug!(%address, %error, "a peer was not let in");
                    }
                    drop(slot);
                });
            }
            // Out of descriptors or the like: it passes, and a tight loop would not help.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
