//! Real sockets on loopback.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::*;

mod dialling;
mod heartbeat;

const WAIT: Duration = Duration::from_secs(20);

fn identity(seed: u8, chain: &str) -> Identity {
    let key = Arc::new(NodeKey::from_seed(&[seed; 32]));
    Identity { key, chain_id: chain.parse().expect("a name"), genesis: BlockHash::new([7; 32]) }
}

struct Node {
    id: NodeId,
    address: String,
    network: Network,
    events: mpsc::Receiver<PeerEvent>,
    stop: CancellationToken,
}

async fn node_with(identity: Identity, config: NetworkConfig) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let bound = listener.local_addr().expect("bound");
    let (id, stop, address) = (identity.key.node_id(), CancellationToken::new(), bound.to_string());
    let (network, events) = Network::start((listener, bound), identity, config, Kept::default(), None, stop.clone());
    Node { id, address, network, events, stop }
}

async fn node(seed: u8) -> Node {
    node_with(identity(seed, "aria-test"), NetworkConfig::default()).await
}

impl Node {
    async fn next(&mut self) -> PeerEvent {
        tokio::time::timeout(WAIT, self.events.recv()).await.expect("in time").expect("the network runs")
    }

    async fn connected(&mut self) -> NodeId {
        loop {
            if let PeerEvent::Connected(node) = self.next().await {
                return node;
            }
        }
    }

    async fn disconnected(&mut self) -> NodeId {
        loop {
            if let PeerEvent::Disconnected(node) = self.next().await {
                return node;
            }
        }
    }

    async fn frame(&mut self) -> (NodeId, Channel, Vec<u8>) {
        loop {
            if let PeerEvent::Frame(node, channel, received) = self.next().await {
                return (node, channel, received.bytes);
            }
        }
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn peers_know_each_other_and_exchange_frames() {
    let (mut a, mut b) = (node(1).await, node(2).await);
    a.network.dial(b.address.clone());
    assert_eq!((a.connected().await, b.connected().await), (b.id, a.id));
    let long = vec![9; FRAME];
    assert!(a.network.send(&b.id, Channel::Sync, &long));
    assert_eq!(b.frame().await, (a.id, Channel::Sync, long));
    b.network.broadcast(Channel::Gossip, b"news", None);
    assert_eq!(a.frame().await, (b.id, Channel::Gossip, b"news".to_vec()));
    assert!(!a.network.send(&NodeId::new([3; 32]), Channel::Gossip, b"nobody"));
    let info = &b.network.peers()[0];
    assert!(info.node_id == a.id && !info.is_dialled && info.bytes.0 > FRAME as u64 && info.height.is_none());
    b.network.note_height(&a.id, Height::new(7));
    until("the first ping is answered", || b.network.peers()[0].round_trip.is_some()).await;
    assert_eq!(b.network.peers()[0].height, Some(Height::new(7)));
}

const FRAME: usize = 1_000_000;

#[tokio::test]
async fn of_two_connections_both_sides_keep_the_same() {
    for seeds in [(1, 2), (2, 1)] {
        let (mut a, mut b) = (node(seeds.0).await, node(seeds.1).await);
        a.network.dial(b.address.clone());
        b.network.dial(a.address.clone());
        a.connected().await;
        b.connected().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        until("one connection that both name alike", || {
            let (ours, theirs) = (a.network.peers(), b.network.peers());
            ours.len() == 1 && theirs.len() == 1 && ours[0].is_dialled != theirs[0].is_dialled
        })
        .await;
        let lower_dialled = if a.id < b.id { a.network.peers() } else { b.network.peers() };
        assert!(lower_dialled[0].is_dialled);
        a.network.broadcast(Channel::Consensus, b"once", None);
        if tokio::time::timeout(Duration::from_secs(2), b.frame()).await.is_err() {
            // The connection was replaced at that moment; now it is not.
            a.network.broadcast(Channel::Consensus, b"once", None);
            assert_eq!(b.frame().await.2, b"once");
        }
    }
}

#[tokio::test]
async fn a_lost_peer_is_dialled_again() {
    let (mut a, b) = (node(1).await, node(2).await);
    a.network.dial(b.address.clone());
    a.connected().await;
    b.stop.cancel();
    assert_eq!(a.disconnected().await, b.id);
    drop(b.events);
    // The port of the first is free again only after its listener is gone.
    let address = b.address.clone();
    let mut listener = None;
    until("the port is free", || {
        listener = std::net::TcpListener::bind(&address).ok();
        listener.is_some()
    })
    .await;
    let listener = listener.expect("bound");
    listener.set_nonblocking(true).expect("a socket");
    let listener = TcpListener::from_std(listener).expect("a socket");
    let bound = listener.local_addr().expect("bound");
    let (_again, _events) = Network::start(
        (listener, bound),
        identity(2, "aria-test"),
        NetworkConfig::default(),
        Kept::default(),
        None,
        CancellationToken::new(),
    );
    assert_eq!(a.connected().await, b.id);
}

#[tokio::test]
async fn a_ban_outlives_a_restart() {
    let (mut a, b) = (node(1).await, node(2).await);
    a.network.ban(&b.id, "lies", Duration::from_secs(600));
    let kept = serde_json::from_str::<Kept>(&serde_json::to_string(&a.network.kept()).expect("text")).expect("read");
    assert_eq!((kept.bans.len(), kept.bans[0].reason.as_str()), (1, "lies"));
    a.stop.cancel();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let bound = listener.local_addr().expect("bound");
    let (again, mut events) = Network::start(
        (listener, bound),
        identity(1, "aria-test"),
        NetworkConfig::default(),
        kept,
        None,
        CancellationToken::new(),
    );
    let (node, left, _) = again.bans().remove(0);
    assert!(node == b.id && left > Duration::from_secs(590) && left <= Duration::from_secs(600));
    b.network.dial(bound.to_string());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(events.try_recv().is_err() && a.events.try_recv().is_err(), "nobody is let in");
    again.ban(&b.id, "", Duration::ZERO);
    assert_eq!(again.kept().bans, []);
}

/// Real multicast, on loopback alone.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_chain_find_each_other_on_the_local_network() {
    let (mut a, mut b, other) =
        (node(1).await, node(2).await, node_with(identity(3, "aria-other"), NetworkConfig::default()).await);
    for node in [&a, &b, &other] {
        node.network.look_around(CancellationToken::new()).expect("loopback has multicast");
    }
    assert_eq!((a.connected().await, b.connected().await), (b.id, a.id));
    assert!(other.network.peers().is_empty());
    let known: BTreeSet<NodeId> = a.network.kept().nodes.iter().map(|entry| entry.node_id).collect();
    assert!(known.contains(&b.id) && !known.contains(&other.id), "{known:?}");
}

#[tokio::test]
async fn strangers_of_another_chain_are_not_let_in() {
    let mut a = node(1).await;
    let b = node_with(identity(2, "aria-other"), NetworkConfig::default()).await;
    b.network.dial(a.address.clone());
    b.network.dial(b.address.clone());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(a.network.peers().is_empty() && b.network.peers().is_empty());
    assert!(a.events.try_recv().is_err());
}

/// A client that proves a key, speaks the upgrade and then what the test says.
async fn raw(
    address: &str,
    key: &Arc<NodeKey>,
    subprotocol: Option<&'static str>,
) -> Option<WebSocketStream<TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(address).await.expect("connects");
    let (stream, _) = tls::Tls::new(key).connect(stream).await.ok()?;
    let mut request = format!("wss://{address}/").into_client_request().expect("an address");
    if let Some(name) = subprotocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", name.parse().expect("a header"));
    }
    tokio_tungstenite::client_async(request, stream).await.ok().map(|(socket, _)| socket)
}

/// The same up to where frames begin.
async fn greeted(address: &str, identity: &Identity) -> WebSocketStream<TlsStream<TcpStream>> {
    let mut socket = raw(address, &identity.key, Some("aria.v1")).await.expect("upgraded");
    handshake::greet(&mut socket, identity, 0, WAIT).await.expect("greeted");
    socket
}

#[tokio::test]
async fn who_does_not_speak_as_a_peer_is_refused() {
    let a = node(1).await;
    let key = identity(2, "aria-test").key;
    assert!(raw(&a.address, &key, None).await.is_none(), "no subprotocol");
    assert!(raw(&a.address, &key, Some("aria.v0")).await.is_none(), "that of older nodes");
    for garbage in [vec![], vec![1; 32], vec![1; 257], vec![255; 100]] {
        let mut socket = raw(&a.address, &key, Some("aria.v1")).await.expect("upgraded");
        socket.send(Message::binary(garbage)).await.expect("sent");
        while let Some(Ok(message)) = socket.next().await {
            assert!(!message.is_empty() || message.is_close() || message.is_ping());
        }
    }
    assert!(a.network.peers().is_empty());
}

#[tokio::test]
async fn without_encryption_there_is_no_peer() {
    let a = node(1).await;
    let stream = TcpStream::connect(&a.address).await.expect("connects");
    let mut request = format!("ws://{}/", a.address).into_client_request().expect("an address");
    request.headers_mut().insert("Sec-WebSocket-Protocol", "aria.v1".parse().expect("a header"));
    let refused = tokio_tungstenite::client_async(request, stream).await;
    let Err(tokio_tungstenite::tungstenite::Error::Http(answer)) = refused else { panic!("not refused") };
    let reason = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
    assert!(answer.status() == 400 && reason.contains("TLS 1.3"), "{reason}");
}

#[tokio::test]
async fn who_shows_a_key_that_it_has_not_is_refused() {
    let a = node(1).await;
    let (own, other) = (identity(2, "aria-test").key, identity(3, "aria-test").key);
    let stream = TcpStream::connect(&a.address).await.expect("connects");
    // TLS 1.3 tells a client of its refusal only after the client has sent its proof.
    let connected = tls::Tls::showing(other.node_id(), &own).connect(stream).await;
    if let Ok((mut stream, _)) = connected {
        use tokio::io::AsyncReadExt;
        assert!(stream.read_u8().await.is_err(), "an impostor is cut off");
    }
    let stream = TcpStream::connect(&a.address).await.expect("connects");
    let (_, node) = tls::Tls::new(&own).connect(stream).await.expect("its own key is good");
    assert_eq!(node, a.id, "and the other end is who it is");
    // The other way round: who dials an impostor notices.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let serve = async {
        let (stream, _) = listener.accept().await.expect("a client");
        drop(tls::Tls::showing(other.node_id(), &own).accept(stream).await);
    };
    let dial = async {
        let stream = TcpStream::connect(address).await.expect("connects");
        tls::Tls::new(&own).connect(stream).await.map(|(_, node)| node)
    };
    let (_, dialled) = tokio::join!(serve, dial);
    assert!(dialled.is_err(), "{dialled:?}");
}

#[tokio::test]
async fn noise_and_oversize_are_dropped() {
    let config = NetworkConfig { rate: (100, 1_000_000), ..NetworkConfig::default() };
    let mut a = node_with(identity(1, "aria-test"), config).await;
    let peer = identity(2, "aria-test");
    let id = peer.key.node_id();
    for (frame, count) in [(vec![1; 10], 300), (vec![1; 600_000], 4), (vec![77; 10], 1), (vec![], 1)] {
        let mut socket = greeted(&a.address, &peer).await;
        assert_eq!(a.connected().await, id);
        for _ in 0..count {
            if socket.send(Message::binary(frame.clone())).await.is_err() {
                break;
            }
        }
        assert_eq!(a.disconnected().await, id, "{} bytes", frame.len());
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_costs_a_queue_and_no_more() {
    let mut a = node(1).await;
    let peer = identity(2, "aria-test");
    let id = peer.key.node_id();
    let _unread = greeted(&a.address, &peer).await;
    a.connected().await;
    let frame = vec![5; 100_000];
    let queued = (0..10 * peer::QUEUE_MAX).take_while(|_| a.network.send(&id, Channel::Consensus, &frame)).count();
    // What fits the sockets' own buffers has left the queue.
    assert!(queued < 3 * peer::QUEUE_MAX, "{queued}");
    assert_eq!(a.disconnected().await, id);
}

#[tokio::test]
async fn what_nobody_works_on_takes_bounded_memory() {
    let a = node(1).await;
    let peer = identity(2, "aria-test");
    let mut socket = greeted(&a.address, &peer).await;
    let frame = Message::binary(vec![2; 4_000_000]);
    let sent = async {
        for count in 0.. {
            if socket.send(frame.clone()).await.is_err() {
                return count;
            }
        }
        0
    };
    // The reader waits for room, so the sender's socket fills and stands still.
    assert!(tokio::time::timeout(Duration::from_secs(2), sent).await.is_err(), "it stands still");
    let received: u64 = a.network.peers().iter().map(|peer| peer.bytes.0).sum();
    assert!(received < 80_000_000, "{received}");
}

#[tokio::test]
async fn a_banned_peer_stays_out() {
    let (mut a, mut b) = (node(1).await, node(2).await);
    b.network.dial(a.address.clone());
    a.connected().await;
    b.connected().await;
    a.network.ban(&b.id, "lies", Duration::from_secs(600));
    assert_eq!(a.disconnected().await, b.id);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(a.network.peers().is_empty());
}

#[tokio::test]
async fn many_nodes_form_a_mesh() {
    let mut nodes = Vec::new();
    for seed in 1..=5 {
        nodes.push(node(seed).await);
    }
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    for node in &nodes {
        for address in &addresses {
            node.network.dial(address.clone());
        }
    }
    until("everyone knows everyone", || nodes.iter().all(|node| node.network.peers().len() == 4)).await;
    // A connection that is being replaced by its better twin loses what waits in it, so this is said more than once.
    let mut heard = BTreeSet::new();
    let (first, others) = nodes.split_first_mut().expect("five");
    for _ in 0..200 {
        first.network.broadcast(Channel::Gossip, b"hello", None);
        tokio::time::sleep(Duration::from_millis(50)).await;
        for node in &mut *others {
            while let Ok(event) = node.events.try_recv() {
                if matches!(event, PeerEvent::Frame(from, Channel::Gossip, received) if from == first.id && received.bytes == b"hello")
                {
                    heard.insert(node.id);
                }
            }
        }
        if heard.len() == 4 {
            return;
        }
    }
    panic!("only {heard:?} heard");
}

fn sociable() -> NetworkConfig {
    NetworkConfig { discover_every: Duration::from_millis(50), ..NetworkConfig::default() }
}

#[tokio::test]
async fn peers_of_peers_become_peers() {
    let mut nodes = Vec::new();
    for seed in 1..=5 {
        nodes.push(node_with(identity(seed, "aria-test"), sociable()).await);
    }
    // One that knows all, and a newcomer that knows this one.
    let hub = node_with(identity(6, "aria-test"), sociable()).await;
    for node in &nodes {
        hub.network.dial(node.address.clone());
    }
    until("the hub knows all", || hub.network.peers().len() == 5).await;
    let newcomer = node_with(identity(7, "aria-test"), sociable()).await;
    newcomer.network.dial(hub.address.clone());
    until("the newcomer knows all", || newcomer.network.peers().len() == 6).await;
}

#[tokio::test]
async fn a_node_finds_its_peers_again_by_its_book() {
    let (mut a, b) = (node(1).await, node(2).await);
    a.network.dial(b.address.clone());
    a.connected().await;
    let known = a.network.kept();
    assert_eq!(known.nodes.iter().map(|entry| entry.node_id).collect::<Vec<_>>(), [b.id]);
    a.stop.cancel();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let bound = listener.local_addr().expect("bound");
    let stop = CancellationToken::new();
    let (again, _events) = Network::start((listener, bound), identity(1, "aria-test"), sociable(), known, None, stop);
    until("it is back", || again.peers().iter().any(|peer| peer.node_id == b.id)).await;
}

#[tokio::test]
async fn nobody_pushes_addresses() {
    let a = node_with(identity(1, "aria-test"), sociable()).await;
    let peer = identity(2, "aria-test");
    let mut socket = greeted(&a.address, &peer).await;
    let contact =
        |n: u8| book::Contact { node_id: NodeId::new([n; 32]), address: "127.0.0.1:9".parse().expect("an address") };
    let known = |n| discover::Acquaintance::Known(discover::Contacts(vec![contact(n)]));
    let say = |message: discover::Acquaintance| {
        Message::Binary(peer::frame(Channel::Peers, &aria_chain::codec::Versioned::encode(&message)))
    };
    // One answer to one question. Who cannot be reached is tried three times in half a minute before it is forgotten.
    socket.send(say(known(7))).await.expect("sent");
    socket.send(say(known(8))).await.expect("sent");
    until("the answer is noted", || a.network.kept().nodes.iter().any(|entry| entry.node_id == NodeId::new([7; 32])))
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(a.network.kept().nodes.iter().all(|entry| entry.node_id != NodeId::new([8; 32])));
    // Too many at once is no message.
    let many = discover::Acquaintance::Known(discover::Contacts(vec![contact(9); 33]));
    socket.send(say(many)).await.expect("sent");
    until("it is dropped", || a.network.peers().is_empty()).await;
}

#[tokio::test]
async fn a_limited_node_takes_and_gives_no_more_than_is_stated() {
    let config = NetworkConfig::default();
    // Half a million bytes a second.
    config.throttle.set(Some(4_000));
    let throttle = Arc::clone(&config.throttle);
    let (mut limited, mut free) = (node_with(identity(1, "aria-test"), config).await, node(2).await);
    free.network.dial(limited.address.clone());
    let (to, from) = (limited.connected().await, free.connected().await);
    let bulk = vec![7; 100_000];
    let send = |node: &Node, to: &NodeId| assert!((0..10).all(|_| node.network.send(to, Channel::Sync, &bulk)));
    for is_out in [true, false] {
        let begun = std::time::Instant::now();
        if is_out {
            send(&limited, &to);
        } else {
            send(&free, &from);
        }
        let reader = if is_out { &mut free } else { &mut limited };
        for _ in 0..10 {
            assert_eq!(reader.frame().await.1, Channel::Sync);
        }
        // A million bytes; the first and the last may be ahead of their time.
        let took = begun.elapsed().as_secs_f64();
        assert!((1.2..10.0).contains(&took), "{took} s, out: {is_out}");
    }
    throttle.set(None);
    let begun = std::time::Instant::now();
    send(&limited, &to);
    for _ in 0..10 {
        free.frame().await;
    }
    assert!(begun.elapsed().as_secs_f64() < 1.2, "without a limit nothing waits");
}
