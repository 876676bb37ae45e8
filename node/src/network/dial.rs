//! Connections that this node keeps: dialled again when they end, with growing and random pauses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aria_chain::ids::NodeId;
use aria_chain::keys::NodeKey;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use super::handshake::HandshakeError;
use super::peers::Peers;
use super::tls::Tls;
use super::{NetworkConfig, NetworkError, peer};

/// What a ping carries, and its answer.
const PING: &str = "aria";

/// Dials `address` whenever there is no connection to the node behind it.
pub(super) async fn keep(peers: Arc<Peers>, address: String, stop: CancellationToken) {
    let (least, most) = peers.config.dial_again;
    let (mut pause, mut known) = (least, None);
    while !stop.is_cancelled() {
        let is_connected = known.as_ref().is_some_and(|node: &NodeId| peers.is_connected(node));
        if !is_connected {
            match once(&peers, &address, &stop).await {
                Ok(node) => {
                    known = Some(node);
                    pause = least;
                }
                Err(NetworkError::Handshake(HandshakeError::Own)) => {
                    tracing::debug!(address, "is this node itself");
                    return;
                }
                // The peer dialled us first; look again later whether that connection still stands.
                Err(NetworkError::Duplicate(node)) => known = Some(node),
                Err(error) => {
                    tracing::debug!(address, %error, "cannot connect");
                    pause = longer(pause, most);
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(jitter(pause)) => {}
        }
    }
}

pub(super) async fn once(peers: &Arc<Peers>, address: &str, stop: &CancellationToken) -> Result<NodeId, NetworkError> {
    let limit = peers.config.handshake_max;
    let connect = tokio::time::timeout(limit, TcpStream::connect(address));
    let stream =
        connect.await.map_err(|_| NetworkError::Connection(format!("no answer in {} seconds", limit.as_secs())));
    let stream = stream?.map_err(|error| NetworkError::Connection(error.to_string()))?;
    // Votes are small and urgent. Where the system refuses, they are only slower.
    let _ = stream.set_nodelay(true);
    peer::dial(stream, Arc::clone(peers), stop.clone()).await
}

/// What [`ping`] found.
#[derive(Clone, Copy, Debug)]
pub struct Pinged {
    /// Who is there.
    pub node_id: NodeId,
    /// Time until it had proven its key.
    pub connect: Duration,
    /// Time of one question and its answer.
    pub round_trip: Duration,
}

/// Asks who listens at an address (`host:port`), on whatever chain, and measures the way there.
pub async fn ping(key: &Arc<NodeKey>, address: &str) -> Result<Pinged, NetworkError> {
    let asked = async {
        let begun = Instant::now();
        let stream = TcpStream::connect(address).await.map_err(|error| NetworkError::Connection(error.to_string()))?;
        let _ = stream.set_nodelay(true);
        let (mut socket, node_id) = peer::open(&Tls::new(key), stream).await?;
        let connect = begun.elapsed();
        let begun = Instant::now();
        let broken = |error: tungstenite::Error| NetworkError::Connection(error.to_string());
        socket.send(Message::Ping(PING.as_bytes().into())).await.map_err(broken)?;
        loop {
            match socket.next().await {
                Some(Ok(Message::Pong(said))) if said == PING.as_bytes() => {
                    return Ok(Pinged { node_id, connect, round_trip: begun.elapsed() });
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(broken(error)),
                None => return Err(NetworkError::Connection("it ended before the answer".into())),
            }
        }
    };
    let limit = NetworkConfig::default().handshake_max;
    let slow = |_| NetworkError::Connection(format!("no answer in {} seconds", limit.as_secs()));
    tokio::time::timeout(limit, asked).await.map_err(slow)?
}

/// The pause after one that was in vain.
pub(super) fn longer(pause: Duration, most: Duration) -> Duration {
    (pause * 2).min(most)
}

/// Between half of it and all of it, so that nodes that lost the same peer do not come back at once.
pub(super) fn jitter(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness all wait the longest time.
    let share = if getrandom::fill(&mut byte).is_ok() { u32::from(byte[0]) } else { 255 };
    pause / 2 + pause / 2 * share / 255
}
