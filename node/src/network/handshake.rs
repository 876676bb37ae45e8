//! Both sides say on which chain they are and how they speak, before anything else.
//!
//! The connection is encrypted and both keys are proven by then (`tls`), so nobody else can have said it, and nobody
//! can talk the two down to an older version.

use std::time::Duration;

use aria_chain::codec::Versioned;
use aria_chain::ids::{BlockHash, ChainId};
use borsh::{BorshDeserialize, BorshSerialize};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::Identity;

/// The subprotocol of nodes that prove their keys.
pub const SUBPROTOCOL: &str = "aria.v1";
/// Versions of the frames after the handshake that this node speaks, best first.
const VERSIONS: [u16; 1] = [2];
/// Most versions a peer may offer.
const VERSIONS_MAX: usize = 16;

/// What a side says first.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Hello {
    versions: Vec<u16>,
    chain_id: ChainId,
    genesis: BlockHash,
    /// Where the sender listens, at the address that it comes from.
    port: u16,
}

impl Versioned for Hello {
    const NAME: &'static str = "hello";
    const VERSION: u8 = 2;
    const BYTES_MAX: usize = 256;
}

/// Why two nodes do not speak.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other side waits too long.
    #[error("the peer did not introduce itself within {} seconds", .0.as_secs())]
    Slow(Duration),
    /// The connection ended or broke.
    #[error("the connection ended in the handshake: {0}")]
    Connection(String),
    /// The other side has no key, or not the one that it shows.
    #[error("the peer does not prove a key: {0}")]
    Unproven(String),
    /// What came is no handshake.
    #[error("the peer does not speak this protocol: {0}")]
    Malformed(String),
    /// Another chain.
    #[error("the peer is on chain {chain} with genesis {genesis}")]
    Chain {
        /// Its name.
        chain: ChainId,
        /// Its first block.
        genesis: BlockHash,
    },
    /// No version in common.
    #[error("the peer speaks versions {0:?} of the protocol, this node {VERSIONS:?}; one of both is too old")]
    Version(Vec<u16>),
    /// This node.
    #[error("the address is this node's own")]
    Own,
}

/// Says who we are and that we listen on `port`, and checks what the peer says. Returns its port.
pub async fn greet<S>(socket: &mut S, identity: &Identity, port: u16, limit: Duration) -> Result<u16, HandshakeError>
where
    S: Stream<Item = Result<Message, SocketError>> + Sink<Message, Error = SocketError> + Unpin,
{
    let greeting = tokio::time::timeout(limit, exchange(socket, identity, port));
    greeting.await.map_err(|_| HandshakeError::Slow(limit))?
}

async fn exchange<S>(socket: &mut S, identity: &Identity, port: u16) -> Result<u16, HandshakeError>
where
    S: Stream<Item = Result<Message, SocketError>> + Sink<Message, Error = SocketError> + Unpin,
{
    let Identity { chain_id, genesis, .. } = identity;
    let own = Hello { versions: VERSIONS.to_vec(), chain_id: chain_id.clone(), genesis: *genesis, port };
    let own = Message::binary(own.encode());
    socket.send(own).await.map_err(|error| HandshakeError::Connection(error.to_string()))?;
    let peer = hear(socket, Hello::BYTES_MAX).await?;
    let peer = Hello::decode(&peer).map_err(|error| HandshakeError::Malformed(error.to_string()))?;
    if (&peer.chain_id, peer.genesis) != (chain_id, *genesis) {
        return Err(HandshakeError::Chain { chain: peer.chain_id, genesis: peer.genesis });
    }
    let is_common = |version| VERSIONS.contains(version);
    if peer.versions.len() > VERSIONS_MAX || !peer.versions.iter().any(is_common) {
        return Err(HandshakeError::Version(peer.versions));
    }
    Ok(peer.port)
}

async fn hear<S>(socket: &mut S, bytes_max: usize) -> Result<Vec<u8>, HandshakeError>
where
    S: Stream<Item = Result<Message, SocketError>> + Unpin,
{
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) if bytes.len() <= bytes_max => return Ok(bytes.to_vec()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_))) | None => return Err(HandshakeError::Connection("closed".into())),
            Some(Ok(other)) => {
                return Err(HandshakeError::Malformed(format!("a frame of {} bytes that is none of it", other.len())));
            }
            Some(Err(error)) => return Err(HandshakeError::Connection(error.to_string())),
        }
    }
}
