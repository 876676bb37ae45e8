//! A node begins with what real peers on loopback offer, some of whom lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use aria_chain::block::FinalBlock;
use aria_chain::certificate::{CommitCertificate, Vote};
use aria_chain::codec::Versioned;
use aria_chain::ids::BlockHash;
use aria_chain::keys::NodeKey;
use aria_chain::store::{OpenOptions, SledStore, Store};
use aria_chain::units::{Height, Millis, Round};
use aria_runtime::beacon;
use aria_runtime::genesis::Genesis;
use aria_runtime::propose::{Slot, Waiting, propose};
use aria_runtime::verify::verify_chain;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fetch::{self, Begin};
use super::take::Snapshots;
use super::{Chunk, Offer, chunk_digest};
use crate::audit::payload::Payloads;
use crate::chain::{Chain, TrustedBlock};
use crate::clock::SystemClock;
use crate::consensus::talk::Sync;
use crate::exchange::answer_to;
use crate::network::{Channel, Identity, Kept, Network, NetworkConfig, PeerEvent};
use crate::node::DEVNET;

const EPOCH: u64 = 4;
/// Last block of the second epoch.
const AT: u64 = 2 * EPOCH - 1;

fn genesis() -> Genesis {
    let mut file: toml::Table = DEVNET.parse().expect("a good file");
    file["parameters"].as_table_mut().expect("parameters").insert("epoch_blocks".into(), 4.into());
    Genesis::from_toml(&file.to_string(), Some(key(1).node_id())).expect("a good file")
}

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed(&[seed; 32])
}

/// A node's chain of heartbeats, with the snapshots that it took on the way.
fn chain(folder: &std::path::Path, blocks: u64) -> Arc<Chain> {
    let (genesis, key) = (genesis(), Arc::new(key(1)));
    let opened = SledStore::open(&folder.join("chain"), &genesis.block(), &genesis.changes(), OpenOptions::default());
    let store: Arc<dyn Store> = Arc::new(opened.expect("a new store").0);
    let snapshots = Arc::new(Snapshots::new(folder.join("snapshots"), EPOCH));
    let payloads = Payloads::new(folder.join("payloads"));
    let chain = Chain::new(genesis, store, key, Arc::new(SystemClock), (snapshots, None), payloads).expect("a chain");
    for _ in 0..blocks {
        let parent = chain.tip_header().expect("readable");
        let span = Millis::new(chain.genesis.params().heartbeat_ms);
        let (round, proposer) = (Round::ZERO, chain.key.node_id());
        let timestamp = parent.timestamp_ms.plus(span).expect("a time");
        let input = beacon::input(parent.height.next().expect("a height"), &chain.view()).expect("readable");
        let slot = Slot { parent: &parent, round, timestamp, proposer, vrf: chain.key.prove_vrf(&input) };
        let proposal = propose(slot, Waiting::default(), &chain.view(), &chain.genesis).expect("a proposal");
        let (block, executed) = proposal.block.expect("a heartbeat is due");
        let set = chain.voters().expect("readable").set;
        let header = block.header().clone();
        let vote = Vote::sign(&chain.key, chain.genesis.chain_id(), header.height, round, block.hash());
        let certificate = CommitCertificate::gather(header.height, round, block.hash(), &[vote]);
        let block = FinalBlock::new(block, certificate, &set).expect("final");
        chain.snapshots.commit(&chain.store, &block, &executed.changes).expect("committed");
        chain.advance(block.block());
        while chain.snapshots.is_taking() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Arc::new(chain)
}

fn wait_for_snapshot(chain: &Chain, height: u64) -> Offer {
    let begun = Instant::now();
    loop {
        match chain.snapshots.offer(&*chain.store).expect("readable") {
            Some(offer) if offer.manifest.height.get() == height => return offer,
            _ => assert!(begun.elapsed() < Duration::from_secs(20), "no snapshot of height {height}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

type Lie = Box<dyn FnMut(Sync) -> Option<Sync> + Send>;

async fn network(seed: u8) -> (Network, tokio::sync::mpsc::Receiver<PeerEvent>, CancellationToken) {
    let (genesis, stop) = (genesis(), CancellationToken::new());
    let identity =
        Identity { key: Arc::new(key(seed)), chain_id: genesis.chain_id().clone(), genesis: genesis.block().hash() };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    // Nobody is introduced to anybody.
    let config = NetworkConfig { outbound_max: 0, ..NetworkConfig::default() };
    let (network, events) = Network::start((listener, address), identity, config, Kept::default(), None, stop.clone());
    (network, events, stop)
}

/// A peer that answers from a chain what `lie` makes of it.
async fn peer(seed: u8, chain: &Arc<Chain>, mut lie: Lie) -> (Network, JoinHandle<()>) {
    let (network, mut events, _) = network(seed).await;
    let (chain, mouth) = (Arc::clone(chain), network.clone());
    let task = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let PeerEvent::Frame(from, Channel::Sync, received) = event else { continue };
            let question = Sync::decode(&received.bytes).expect("a question");
            let answer = answer_to(&chain, &key(9).node_id(), question).expect("readable");
            if let Some(answer) = answer.and_then(&mut lie) {
                mouth.send(&from, Channel::Sync, &answer.encode());
            }
        }
    });
    (network, task)
}

fn honest() -> Lie {
    Box::new(Some)
}

struct Outcome {
    height: Option<u64>,
    banned: Vec<String>,
}

/// What a new node makes of these peers.
async fn begin(folder: &std::path::Path, peers: &[&Network], trusted: Option<TrustedBlock>) -> Outcome {
    // Those who run at one time are different nodes.
    static SEED: AtomicU8 = AtomicU8::new(100);
    let (own, events, stop) = network(SEED.fetch_add(1, Ordering::Relaxed)).await;
    for peer in peers {
        own.dial(peer.address().to_string());
    }
    // Who holds the chunks is asked of those who are here: what is tried is not how fast they connect.
    let begun = Instant::now();
    while own.peers().len() < peers.len() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not all peers are reached");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begin = Begin { genesis: &genesis(), trusted, store: folder.join("chain"), patience: Duration::from_secs(6) };
    let height = fetch::run(&begin, &own, events, &stop).await.expect("this node is sound");
    assert!(!folder.join("chain.restoring").exists(), "nothing is left over");
    assert_eq!(height.is_some(), folder.join("chain").exists());
    let banned = own.bans().into_iter().map(|(_, _, reason)| reason).collect();
    Outcome { height: height.map(Height::get), banned }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_begins_with_a_snapshot() {
    let (folder, fresh) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let chain = chain(folder.path(), AT + 3);
    wait_for_snapshot(&chain, AT);
    let (one, _) = peer(2, &chain, honest()).await;
    let (other, _) = peer(3, &chain, honest()).await;
    let outcome = begin(fresh.path(), &[&one, &other], None).await;
    assert_eq!((outcome.height, outcome.banned), (Some(AT), Vec::new()));

    let genesis = genesis();
    let (store, _) =
        SledStore::open(&fresh.path().join("chain"), &genesis.block(), &genesis.changes(), OpenOptions::default())
            .expect("a sound store");
    let tip = store.tip().expect("readable");
    let below = chain.store.header(Height::new(AT)).expect("readable").expect("there");
    assert_eq!((tip.height, tip.hash), (below.height, below.hash()));
    let report = verify_chain(&store, &genesis, Height::ZERO, Height::new(u64::MAX), &mut |_| {
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!((report.fault, report.blocks, report.is_state_compared), (None, 1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn liars_are_banned_and_others_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let chain = chain(folder.path(), AT + 1);
    let offer = wait_for_snapshot(&chain, AT);
    // A state with a richer account, cut and listed as it should be.
    let first = chain.snapshots.chunk(Height::new(AT), 0).expect("a chunk");
    let mut forged = Chunk::decode(&first).expect("a chunk");
    *forged.entries.last_mut().expect("entries").1.last_mut().expect("a value") ^= 1;
    let forged = forged.encode();
    let with = |change: fn(&mut Offer)| -> Lie {
        let mut offer = offer.clone();
        change(&mut offer);
        Box::new(move |answer| match answer {
            Sync::Snapshot(_) => Some(Sync::Snapshot(Some(Box::new(offer.clone())))),
            other => Some(other),
        })
    };
    let (mut listed, chunk) = (offer.clone(), forged.clone());
    listed.manifest.chunks[0] = chunk_digest(&chunk);
    let lies: Vec<(&str, Lie)> = vec![
        (
            "not the one that it listed",
            Box::new(move |answer| match answer {
                Sync::Chunk(height, index, Some(mut bytes)) => {
                    bytes[40] ^= 1;
                    Some(Sync::Chunk(height, index, Some(bytes)))
                }
                other => Some(other),
            }),
        ),
        (
            "the chain says",
            Box::new(move |answer| match answer {
                Sync::Snapshot(_) => Some(Sync::Snapshot(Some(Box::new(listed.clone())))),
                Sync::Chunk(height, 0, _) => Some(Sync::Chunk(height, 0, Some(chunk.clone()))),
                other => Some(other),
            }),
        ),
        ("certificate", with(|offer| offer.next.header.state_root = aria_chain::ids::Digest::ZERO)),
        ("not of the block that it names", with(|offer| offer.manifest.height = Height::new(AT + 1))),
        ("power", with(|offer| offer.next.certificate.signatures.clear())),
    ];
    let (truthful, _) = peer(2, &chain, honest()).await;
    let (chain, truthful) = (&chain, &truthful);
    let tries = (3..).zip(lies).map(|(seed, (reason, lie))| async move {
        let fresh = tempfile::tempdir().expect("a folder");
        let (liar, _) = peer(seed, chain, lie).await;
        let alone = begin(fresh.path(), &[&liar], None).await;
        assert_eq!((alone.height, alone.banned.len()), (None, 1), "{reason}: {:?}", alone.banned);
        assert!(alone.banned[0].contains(reason), "{reason}: {:?}", alone.banned);
        let together = begin(fresh.path(), &[&liar, truthful], None).await;
        assert_eq!(together.height, Some(AT), "{reason}");
    });
    futures_util::future::join_all(tries).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_or_has_nothing_is_not_waited_for_long() {
    let folder = tempfile::tempdir().expect("a folder");
    let chain = chain(folder.path(), AT + 1);
    wait_for_snapshot(&chain, AT);
    let fresh = tempfile::tempdir().expect("a folder");
    let (empty, _) = peer(
        2,
        &chain,
        Box::new(|answer| match answer {
            Sync::Snapshot(_) => Some(Sync::Snapshot(None)),
            _ => None,
        }),
    )
    .await;
    assert_eq!(begin(fresh.path(), &[&empty], None).await.height, None);
    // Who is busy leaves a question or two open.
    let mut heard = 0;
    let (busy, _) = peer(
        5,
        &chain,
        Box::new(move |answer| {
            heard += u32::from(matches!(answer, Sync::Headers(_) | Sync::Chunk(..)));
            (heard != 1 && heard != 3 || matches!(answer, Sync::Snapshot(_) | Sync::Blocks(_))).then_some(answer)
        }),
    )
    .await;
    let patient = tempfile::tempdir().expect("a folder");
    assert_eq!(begin(patient.path(), &[&busy], None).await.height, Some(AT));
    // One has the way and no chunks; the other, of whom nothing was known, has them.
    let (mute, _) = peer(
        3,
        &chain,
        Box::new(|answer| match answer {
            Sync::Chunk(height, index, _) => Some(Sync::Chunk(height, index, None)),
            other => Some(other),
        }),
    )
    .await;
    let (helper, _) = peer(
        4,
        &chain,
        Box::new(|answer| match answer {
            Sync::Snapshot(_) => None,
            other => Some(other),
        }),
    )
    .await;
    let outcome = begin(fresh.path(), &[&mute, &helper], None).await;
    assert_eq!((outcome.height, outcome.banned), (Some(AT), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_trusted_history_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let chain = chain(folder.path(), AT + 2);
    wait_for_snapshot(&chain, AT);
    let (peer, _) = peer(2, &chain, honest()).await;
    let hash = |height: u64| chain.store.header(Height::new(height)).expect("readable").expect("there").hash();
    let trusted = |height: u64, hash: BlockHash| Some(TrustedBlock { height: Height::new(height), hash });
    for (trusted, height, bans) in [
        (trusted(2, hash(2)), Some(AT), 0),
        (trusted(AT, hash(AT)), Some(AT), 0),
        (trusted(2, hash(3)), None, 1),
        // Newer than the snapshot: the blocks above it are to be fetched one by one.
        (trusted(AT + 1, hash(AT + 1)), None, 0),
    ] {
        let fresh = tempfile::tempdir().expect("a folder");
        let outcome = begin(fresh.path(), &[&peer], trusted).await;
        assert_eq!((outcome.height, outcome.banned.len()), (height, bans), "{trusted:?}: {:?}", outcome.banned);
    }
}
