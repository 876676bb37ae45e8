//! Both sides prove their keys, bound to this connection.
//!
//! Each side says who it is, on which chain, with a fresh number. Then each signs the digest of both sayings, in the order
//! dialler, listener, and its own role. The fresh numbers make a recorded handshake worthless, the roles keep a proof from
//! being sent back, and the versions that both sides offered are under the signatures, so nobody can talk them down.

use std::time::Duration;

use aria_chain::codec::{self, Versioned};
use aria_chain::hash::Domain;
use aria_chain::ids::{BlockHash, ChainId, Digest, NodeId};
use aria_chain::keys::{Signature, verify_handshake};
use borsh::{BorshDeserialize, BorshSerialize};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::Identity;

/// The subprotocol of nodes that prove their keys.
pub const SUBPROTOCOL: &str = "aria.v1";
/// Versions of the frames after the handshake that this node speaks, best first.
const VERSIONS: [u16; 1] = [1];
/// Most versions a peer may offer.
const VERSIONS_MAX: usize = 16;

/// What a side says first.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Hello {
    versions: Vec<u16>,
    chain_id: ChainId,
    genesis: BlockHash,
    node_id: NodeId,
    nonce: [u8; 32],
}

impl Versioned for Hello {
    const NAME: &'static str = "hello";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 256;
}

/// Why two nodes do not speak.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other side waits too long.
    #[error("the peer did not prove its key within {} seconds", .0.as_secs())]
    Slow(Duration),
    /// The connection ended or broke.
    #[error("the connection ended in the handshake: {0}")]
    Connection(String),
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
    /// The peer has not the key it names.
    #[error("the peer says it is {0} and cannot prove it")]
    Impostor(NodeId),
    /// No randomness.
    #[error("the system has no randomness: {0}")]
    Randomness(String),
}

/// Proves our key and checks the peer's; returns who it is.
pub async fn prove<S>(
    socket: &mut S,
    identity: &Identity,
    is_dialler: bool,
    limit: Duration,
) -> Result<NodeId, HandshakeError>
where
    S: Stream<Item = Result<Message, SocketError>> + Sink<Message, Error = SocketError> + Unpin,
{
    let proof = tokio::time::timeout(limit, exchange(socket, identity, is_dialler));
    proof.await.map_err(|_| HandshakeError::Slow(limit))?
}

async fn exchange<S>(socket: &mut S, identity: &Identity, is_dialler: bool) -> Result<NodeId, HandshakeError>
where
    S: Stream<Item = Result<Message, SocketError>> + Sink<Message, Error = SocketError> + Unpin,
{
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| HandshakeError::Randomness(error.to_string()))?;
    let own = Hello {
        versions: VERSIONS.to_vec(),
        chain_id: identity.chain_id.clone(),
        genesis: identity.genesis,
        node_id: identity.key.node_id(),
        nonce,
    };
    let own_bytes = own.encode();
    say(socket, own_bytes.clone()).await?;
    let peer_bytes = hear(socket, Hello::BYTES_MAX).await?;
    let peer = Hello::decode(&peer_bytes).map_err(|error| HandshakeError::Malformed(error.to_string()))?;
    check(&own, &peer)?;
    let transcript = if is_dialler { transcript(&own_bytes, &peer_bytes) } else { transcript(&peer_bytes, &own_bytes) };
    let signature = identity.key.sign_handshake(&identity.chain_id, &transcript, is_dialler);
    say(socket, codec::to_bytes(&signature)).await?;
    let proof = hear(socket, 64).await?;
    let proof: Signature = borsh::from_slice(&proof).map_err(|error| HandshakeError::Malformed(error.to_string()))?;
    if !verify_handshake(&peer.node_id, &identity.chain_id, &transcript, !is_dialler, &proof) {
        return Err(HandshakeError::Impostor(peer.node_id));
    }
    Ok(peer.node_id)
}

fn check(own: &Hello, peer: &Hello) -> Result<(), HandshakeError> {
    if (&peer.chain_id, peer.genesis) != (&own.chain_id, own.genesis) {
        return Err(HandshakeError::Chain { chain: peer.chain_id.clone(), genesis: peer.genesis });
    }
    if peer.node_id == own.node_id {
        return Err(HandshakeError::Own);
    }
    let is_common = |version| VERSIONS.contains(version);
    if peer.versions.len() > VERSIONS_MAX || !peer.versions.iter().any(is_common) {
        return Err(HandshakeError::Version(peer.versions.clone()));
    }
    Ok(())
}

/// What both sides sign.
fn transcript(dialler: &[u8], listener: &[u8]) -> Digest {
    Domain::SIGN_HANDSHAKE.hash_of(&(dialler, listener))
}

async fn say<S>(socket: &mut S, bytes: Vec<u8>) -> Result<(), HandshakeError>
where
    S: Sink<Message, Error = SocketError> + Unpin,
{
    socket.send(Message::binary(bytes)).await.map_err(|error| HandshakeError::Connection(error.to_string()))
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
