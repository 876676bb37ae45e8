//! Who is there and who is not, by a clock that the test turns: no second is waited for, and none is missed.

use futures_util::FutureExt;
use tokio::io::DuplexStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::network::peers::Peers;

type Socket = WebSocketStream<DuplexStream>;

const PING: Duration = Duration::from_secs(30);
const DEAD: Duration = Duration::from_secs(300);

/// Both ends of a connection that lies in memory.
async fn wire() -> (Socket, Socket) {
    let (here, there) = tokio::io::duplex(1 << 16);
    let here = WebSocketStream::from_raw_socket(here, Role::Server, None).await;
    (here, WebSocketStream::from_raw_socket(there, Role::Client, None).await)
}

fn peers(seed: u8) -> (Arc<Peers>, mpsc::Receiver<PeerEvent>) {
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    let (own, config) = ((identity(seed, "aria-test"), 1), NetworkConfig::default());
    (Arc::new(Peers::new(own, Kept::default(), config, None, events)), receiver)
}

/// A peer that greeted a node, with the node's events. Nothing but the test reads what the node sends.
async fn greeted_in_memory(peers: &Arc<Peers>, other: &Identity) -> Socket {
    let (here, mut there) = wire().await;
    let from = (other.key.node_id(), "127.0.0.1:9".parse().expect("an address"));
    tokio::spawn(peer::live(here, from, false, Arc::clone(peers), CancellationToken::new()));
    handshake::greet(&mut there, other, 2, WAIT).await.expect("greeted");
    there
}

async fn next_ping(socket: &mut Socket) -> Instant {
    loop {
        let message = socket.next().await.expect("the connection stands").expect("a frame");
        if message.is_ping() {
            // What is owed to the ping leaves with the flush.
            socket.flush().await.expect("sent");
            return Instant::now();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_asked_every_thirty_seconds_and_dropped_after_three_hundred_of_silence() {
    let ((peers, mut events), other) = (peers(1), identity(2, "aria-test"));
    let id = other.key.node_id();
    let mut socket = greeted_in_memory(&peers, &other).await;
    assert!(matches!(events.recv().await, Some(PeerEvent::Connected(node)) if node == id));
    let first = next_ping(&mut socket).await;
    let mut last = first;
    for turn in 1..=100 {
        last = next_ping(&mut socket).await;
        assert_eq!((last - first).as_secs(), turn * PING.as_secs(), "ping {turn}");
    }
    // Fifty minutes of answers and no other word, and it is still here.
    tokio::task::yield_now().await;
    assert!(events.recv().now_or_never().is_none() && peers.is_connected(&id));
    // From here on it says nothing, and what it is sent is read by nobody.
    assert!(matches!(events.recv().await, Some(PeerEvent::Disconnected(node)) if node == id));
    assert_eq!(last.elapsed().as_secs(), DEAD.as_secs());
    assert!(!peers.is_connected(&id));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_owes_an_answer_gives_way_to_a_new_one() {
    let (own, lower) = (identity(1, "aria-test"), identity(2, "aria-test"));
    // The node with the lower key should have dialled: the other is the one whose new connection is the worse of two.
    let (own, other) = if own.key.node_id() < lower.key.node_id() { (1, 2) } else { (2, 1) };
    let ((peers, mut events), other) = (peers(own), identity(other, "aria-test"));
    let (id, address) = (other.key.node_id(), "127.0.0.1:9".parse().expect("an address"));
    let dialled = |socket| peer::live(socket, (id, address), true, Arc::clone(&peers), CancellationToken::new());
    let (here, mut there) = wire().await;
    tokio::spawn(dialled(here));
    handshake::greet(&mut there, &other, 2, WAIT).await.expect("greeted");
    assert!(matches!(events.recv().await, Some(PeerEvent::Connected(_))));
    next_ping(&mut there).await;
    let mut second = greeted_in_memory(&peers, &other).await;
    assert!(!matches!(second.next().await, Some(Ok(Message::Binary(_)))), "the first one is answered and the better");
    // Its machine is gone without a word; it comes back at once and dials.
    tokio::time::sleep(PING + Duration::from_secs(11)).await;
    let mut third = greeted_in_memory(&peers, &other).await;
    next_ping(&mut third).await;
    assert!(peers.is_connected(&id) && peers.list().iter().all(|peer| !peer.is_dialled));
}

/// Says the same to whatever it is told.
struct Parrot;

#[async_trait]
impl LegacySession for Parrot {
    async fn answer(&mut self, text: &str) -> Option<String> {
        Some(text.to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_node_is_dropped_after_three_hundred_seconds_of_silence() {
    let (peers, _events) = peers(1);
    let (here, mut there) = wire().await;
    let served = tokio::spawn(async move { peer::answer_legacy(here, Box::new(Parrot), &peers).await });
    for _ in 0..3 {
        tokio::time::sleep(DEAD - Duration::from_secs(1)).await;
        there.send(Message::text("still here")).await.expect("sent");
        let reply = there.next().await.expect("the connection stands").expect("a frame");
        assert_eq!(reply, Message::text("still here"));
    }
    let last = Instant::now();
    served.await.expect("it ends by itself");
    assert_eq!(last.elapsed().as_secs(), DEAD.as_secs());
}
