//! Connections that this node keeps: dialled again when they end, with growing and random pauses.

use std::sync::Arc;
use std::time::Duration;

use aria_chain::ids::NodeId;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::handshake::HandshakeError;
use super::peers::Peers;
use super::{NetworkError, peer};

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
                    pause = (pause * 2).min(most);
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

/// Between half of it and all of it, so that nodes that lost the same peer do not come back at once.
pub(super) fn jitter(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness all wait the longest time.
    let share = if getrandom::fill(&mut byte).is_ok() { u32::from(byte[0]) } else { 255 };
    pause / 2 + pause / 2 * share / 255
}
