//! One connection: keys, a greeting, then a reader and a writer until one of them ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aria_chain::codec::Versioned;
use aria_chain::ids::NodeId;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_rustls::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_util::sync::CancellationToken;

use super::book::Contact;
use super::discover::{Acquaintance, hear, now_s};
use super::handshake::{HandshakeError, SUBPROTOCOL, greet};
use super::peers::{Link, Peers};
use super::throttle::Outlet;
use super::tls::Tls;
use super::{Channel, LegacySession, NetworkError, PeerEvent, Received};
use crate::consensus::message::MESSAGE_BYTES_MAX;

/// Longest frame: the longest consensus message and its channel.
pub const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 1;
/// Frames that wait for one peer. A peer that reads slower than this is dropped; gossip for it is dropped before.
pub const QUEUE_MAX: usize = 512;
/// Frames that leave with the one before them.
const TOGETHER_MAX: usize = 32;
/// Longest time for them to leave.
const SEND_MAX: Duration = Duration::from_secs(20);

/// The subprotocol of older nodes.
const LEGACY_SUBPROTOCOL: &str = "aria.v0";
/// Longest message of an older node.
const LEGACY_BYTES_MAX: usize = 16 * 1_024;
/// Messages of an older node in a second, of all kinds, and their bytes.
const LEGACY_RATE: (u32, u32) = (20, 20 * 16 * 1_024);
/// Silence after which its connection is closed.
const LEGACY_SILENCE: Duration = Duration::from_secs(300);

const HEADER: &str = "Sec-WebSocket-Protocol";

/// A frame: its channel and its bytes.
pub fn frame(channel: Channel, bytes: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(channel.tag());
    frame.extend_from_slice(bytes);
    Bytes::from(frame)
}

fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
        .read_buffer_size(16 * 1_024)
        .max_write_buffer_size(2 * FRAME_BYTES_MAX)
}

fn connection(error: impl std::fmt::Display) -> NetworkError {
    NetworkError::Connection(error.to_string())
}

/// The first byte of a TLS connection.
const TLS_RECORD: u8 = 0x16;

/// A connection whose other end is known.
pub(super) type Secure = WebSocketStream<TlsStream<TcpStream>>;

/// Somebody who dialled us: a peer, who begins with TLS, or an older node, who does not.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    peers: Arc<Peers>,
    stop: CancellationToken,
) -> Result<NodeId, NetworkError> {
    let limit = peers.config.handshake_max;
    let slow = |_| HandshakeError::Slow(limit);
    let mut first = [0];
    tokio::time::timeout(limit, stream.peek(&mut first)).await.map_err(slow)?.map_err(connection)?;
    if first[0] == TLS_RECORD {
        let secure = tokio::time::timeout(limit, peers.tls.accept(stream)).await.map_err(slow)?;
        let (stream, node) = secure.map_err(unproven)?;
        let choose = |request: &Request, response: Response| choose(request, response, &[SUBPROTOCOL]);
        let upgrade = tokio_tungstenite::accept_hdr_async_with_config(stream, choose, Some(socket_config()));
        let socket = tokio::time::timeout(limit, upgrade).await.map_err(slow)?.map_err(connection)?;
        return live(socket, (node, address), false, peers, stop).await;
    }
    // Who has nothing for older nodes still refuses them in words.
    let offered: &[&str] = if peers.legacy.is_some() { &[LEGACY_SUBPROTOCOL, ""] } else { &[] };
    let choose = |request: &Request, response: Response| choose(request, response, offered);
    let upgrade = tokio_tungstenite::accept_hdr_async_with_config(stream, choose, Some(socket_config()));
    let socket = tokio::time::timeout(limit, upgrade).await.map_err(slow)?.map_err(connection)?;
    if let Some(legacy) = &peers.legacy {
        let session = legacy.open();
        tokio::select! {
            () = stop.cancelled() => {}
            () = answer_legacy(socket, session, &peers) => {}
        }
    }
    Ok(NodeId::ZERO)
}

fn unproven(error: std::io::Error) -> NetworkError {
    HandshakeError::Unproven(error.to_string()).into()
}

/// Answers an older node, one message after the other, until it says something too long or nothing for a while.
pub(super) async fn answer_legacy<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    mut session: Box<dyn LegacySession>,
    peers: &Peers,
) {
    let mut budget = Budget::new(LEGACY_RATE);
    loop {
        let silent = tokio::time::timeout(LEGACY_SILENCE, socket.next());
        let Ok(Some(Ok(message))) = silent.await else { return };
        if !budget.take(message.len()) {
            return;
        }
        let text = match &message {
            Message::Text(text) if text.len() <= LEGACY_BYTES_MAX => text.as_str(),
            Message::Ping(_) | Message::Pong(_) => continue,
            // Anything else is not of their protocol.
            _ => return,
        };
        let _room = peers.room(text.len()).await;
        peers.config.throttle.heard(&message).await;
        let Some(reply) = session.answer(text).await else { continue };
        peers.config.throttle.say(reply.len()).await;
        if !matches!(tokio::time::timeout(SEND_MAX, socket.send(Message::text(reply))).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// The server's half of the upgrade: the first of `known` that the client offers; the empty name stands for none.
fn choose(request: &Request, mut response: Response, known: &[&'static str]) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get_all(HEADER).iter().filter_map(|value| value.to_str().ok());
    let mut offered: Vec<&str> = offered.flat_map(|list| list.split(',')).map(str::trim).collect();
    if offered.is_empty() {
        offered.push("");
    }
    if let Some(name) = known.iter().find(|name| offered.contains(name)) {
        if !name.is_empty() {
            response.headers_mut().insert(HEADER, HeaderValue::from_static(name));
        }
        return Ok(response);
    }
    let text = format!("this port is for peers that speak {SUBPROTOCOL} over TLS 1.3 with their node's key");
    let mut refusal = ErrorResponse::new(Some(text));
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    Err(refusal)
}

/// A peer that we dial. Returns when the connection is over.
pub(super) async fn dial(
    stream: TcpStream,
    peers: Arc<Peers>,
    stop: CancellationToken,
) -> Result<NodeId, NetworkError> {
    let address = stream.peer_addr().map_err(connection)?;
    let limit = peers.config.handshake_max;
    let opened = tokio::time::timeout(limit, open(&peers.tls, stream)).await;
    let (socket, node) = opened.map_err(|_| HandshakeError::Slow(limit))??;
    live(socket, (node, address), true, peers, stop).await
}

/// The dialling end up to where both greet each other. Returns who is there.
pub(super) async fn open(tls: &Tls, stream: TcpStream) -> Result<(Secure, NodeId), NetworkError> {
    let address = stream.peer_addr().map_err(connection)?;
    let mut request = format!("wss://{address}/").into_client_request().map_err(connection)?;
    request.headers_mut().insert(HEADER, HeaderValue::from_static(SUBPROTOCOL));
    let (stream, node) = tls.connect(stream).await.map_err(unproven)?;
    let upgrade = tokio_tungstenite::client_async_with_config(request, stream, Some(socket_config()));
    let (socket, _) = upgrade.await.map_err(connection)?;
    Ok((socket, node))
}

/// The life of a connection after its upgrade.
pub(super) async fn live<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    (node, address): (NodeId, SocketAddr),
    is_dialler: bool,
    peers: Arc<Peers>,
    stop: CancellationToken,
) -> Result<NodeId, NetworkError> {
    if node == peers.identity.key.node_id() {
        return Err(HandshakeError::Own.into());
    }
    let port = greet(&mut socket, &peers.identity, peers.port, peers.config.handshake_max).await?;
    if is_dialler {
        peers.book().proven(Contact { node_id: node, address }, now_s());
    } else {
        let listens = SocketAddr::new(address.ip(), port);
        peers.book().heard(node, address.ip(), &[Contact { node_id: node, address: listens }]);
    }
    let (sender, queue) = mpsc::channel(QUEUE_MAX);
    let link = Link::new(sender, address, is_dialler);
    let end = link.end.clone();
    let number = peers.join(node, link)?;
    tracing::info!(%node, %address, is_dialler, "peer connected");
    peers.send(&node, Channel::Peers, &frame(Channel::Peers, &Acquaintance::Ask.encode()));
    let (sink, stream) = socket.split();
    let read = read(stream, (node, address), &peers, number);
    let write = write(sink, queue, &peers, (&node, number));
    // A peer that is there is told before anything that it says.
    let told = peers.events.send(PeerEvent::Connected(node)).await;
    let reason = tokio::select! {
        () = stop.cancelled() => "ended by this node".to_owned(),
        () = end.cancelled() => "replaced or dropped".to_owned(),
        reason = read => reason,
        reason = write => reason,
    };
    peers.leave(&node, number);
    tracing::info!(%node, %address, reason, "peer gone");
    if told.is_ok() {
        // The node may have stopped listening; then nobody needs to know.
        let _ = peers.events.send(PeerEvent::Disconnected(node)).await;
    }
    Ok(node)
}

/// Passes on what the peer says, until it says too much or nothing. Returns why it ended.
async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: SplitStream<WebSocketStream<S>>,
    (node, address): (NodeId, SocketAddr),
    peers: &Peers,
    number: u64,
) -> String {
    let mut budget = Budget::new(peers.config.rate);
    // It was asked as the connection began.
    let mut has_asked = true;
    loop {
        let message = match tokio::time::timeout(peers.config.dead_after, stream.next()).await {
            Err(_) => return format!("silent for {} seconds", peers.config.dead_after.as_secs()),
            Ok(None) => return "closed".into(),
            Ok(Some(Err(error))) => return error.to_string(),
            Ok(Some(Ok(message))) => message,
        };
        if !budget.take(message.len()) {
            return format!("sends more than {} messages or {} bytes a second", budget.rate.0, budget.rate.1);
        }
        peers.count_received(&node, number, message.len());
        peers.config.throttle.heard(&message).await;
        match message {
            Message::Binary(frame) => {
                let Some((channel, bytes)) =
                    frame.split_first().and_then(|(tag, bytes)| Some((Channel::of(*tag)?, bytes)))
                else {
                    return "a frame without a known channel".into();
                };
                if channel == Channel::Peers {
                    match hear(peers, (node, address), bytes, &mut has_asked) {
                        Ok(()) => continue,
                        Err(error) => return error,
                    }
                }
                let received = Received { bytes: bytes.to_vec(), room: peers.room(bytes.len()).await };
                if peers.events.send(PeerEvent::Frame(node, channel, received)).await.is_err() {
                    return "this node stops".into();
                }
            }
            Message::Ping(_) => {}
            Message::Pong(_) => peers.ponged(&node, number),
            Message::Close(_) => return "closed by the peer".into(),
            Message::Text(_) | Message::Frame(_) => return "speaks text on a binary connection".into(),
        }
    }
}

/// Sends what is queued, and a ping now and then. Returns why it ended.
async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    queue: mpsc::Receiver<Bytes>,
    peers: &Peers,
    (node, number): (&NodeId, u64),
) -> String {
    let mut queue = Outlet::new(queue, &peers.config.throttle);
    let mut ping = tokio::time::interval(peers.config.ping_every);
    loop {
        let message = tokio::select! {
            frame = queue.recv() => match frame {
                Some(frame) => Message::Binary(frame),
                None => return "dropped".into(),
            },
            _ = ping.tick() => {
                peers.pinged(node, number);
                Message::Ping(Bytes::new())
            }
        };
        let sent = async {
            sink.feed(message).await?;
            // Some of what waits behind it goes with it: one write to the system in place of many.
            for _ in 0..TOGETHER_MAX {
                let Some(frame) = queue.try_recv() else { break };
                sink.feed(Message::Binary(frame)).await?;
            }
            sink.flush().await
        };
        match tokio::time::timeout(SEND_MAX, sent).await {
            Err(_) => return format!("took nothing for {} seconds", SEND_MAX.as_secs()),
            Ok(Err(error)) => return error.to_string(),
            Ok(Ok(())) => {}
        }
    }
}

/// What a peer may still send: two buckets that fill with time.
struct Budget {
    rate: (u32, u32),
    messages: f64,
    bytes: f64,
    since: Instant,
}

impl Budget {
    fn new(rate: (u32, u32)) -> Budget {
        Budget { rate, messages: 2.0 * f64::from(rate.0), bytes: 2.0 * f64::from(rate.1), since: Instant::now() }
    }

    fn take(&mut self, bytes: usize) -> bool {
        let passed = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        let (messages, all) = (f64::from(self.rate.0), f64::from(self.rate.1));
        self.messages = (self.messages + passed * messages).min(2.0 * messages) - 1.0;
        self.bytes = (self.bytes + passed * all).min(2.0 * all) - f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.messages >= 0.0 && self.bytes >= 0.0
    }
}
