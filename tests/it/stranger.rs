//! A connection to nodes under a key of the test's own choice, that speaks and listens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aria_chain::attestation::{Attestation, Opening, SignedAttestation, Statement};
use aria_chain::codec::Versioned;
use aria_chain::ids::{BlockHash, ChainId, Digest, NodeId, RecordId};
use aria_chain::keys::NodeKey;
use aria_chain::units::Height;
use aria_node::audit::parts::Part;
use aria_node::consensus::context::{Address, At, BlockId, NilOrVal, Round, SignedMessage, Vote, VoteType};
use aria_node::consensus::crypto::sign_vote;
use aria_node::consensus::message::Message;
use aria_node::consensus::talk::{Gossip, Sync};
use aria_node::network::{Channel, Identity, Kept, Network, NetworkConfig, PeerEvent};
use aria_tests::Devnet;
use serde_json::json;

/// Longest wait for nodes to answer the first call.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who said, at which height and round, in which step.
type Place = (NodeId, u64, i64, &'static str);

/// What was heard on the wire: one thing in each place, and places with more.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    said: HashMap<Place, Option<BlockHash>>,
    pub(crate) contradictions: Vec<Place>,
}

impl Heard {
    /// Places in which somebody signed something.
    pub(crate) fn places(&self) -> usize {
        self.said.len()
    }

    fn hear(&mut self, message: &Message) {
        let (place, value) = match message {
            Message::Vote(vote) => {
                let step = if vote.kind == VoteType::Prevote { "prevote" } else { "precommit" };
                let value = match &vote.value {
                    NilOrVal::Val(block) => Some(block.0),
                    NilOrVal::Nil => None,
                };
                ((vote.voter.0, vote.height.0.get(), vote.round.as_i64(), step), value)
            }
            Message::Proposal(proposal, _) => {
                let place = (proposal.proposer.0, proposal.height.0.get(), proposal.round.as_i64(), "proposal");
                (place, Some(proposal.value.0))
            }
            Message::Polka(_) | Message::Skip(_) => return,
        };
        if *self.said.entry(place).or_insert(value) != value {
            self.contradictions.push(place);
        }
    }
}

/// A connection to nodes under a key of the test's own choice.
pub(crate) struct Stranger {
    runtime: tokio::runtime::Runtime,
    network: Network,
    chain_id: ChainId,
    key: Arc<NodeKey>,
    pub(crate) heard: Arc<Mutex<Heard>>,
    /// What it shows to judges who ask where a record is false, and how often it was asked.
    pub(crate) shows: Arc<Mutex<(Option<Part>, usize)>>,
    /// What it was shown itself.
    pub(crate) shown: Arc<Mutex<Vec<Option<Part>>>>,
}

impl Stranger {
    /// Connects to all members, but for one whose place it may take.
    pub(crate) fn connect(network: &Devnet, key: Arc<NodeKey>, except: Option<usize>) -> Stranger {
        let genesis = network.members[0].result("chain_getHeader", json!([0]));
        let chain_id: ChainId = genesis["chain_id"].as_str().unwrap().parse().unwrap();
        let hash: BlockHash = genesis["hash"].as_str().unwrap().parse().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let identity = Identity { key: Arc::clone(&key), chain_id: chain_id.clone(), genesis: hash };
        let heard = Arc::new(Mutex::new(Heard::default()));
        let ear = Arc::clone(&heard);
        let shows = Arc::new(Mutex::new((None, 0)));
        let offered = Arc::clone(&shows);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&shown);
        let peers = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let stop = tokio_util::sync::CancellationToken::new();
            let (peers, mut events) =
                Network::start((listener, address), identity, NetworkConfig::default(), Kept::default(), None, stop);
            let voice = peers.clone();
            // Whatever they say is read, so that nobody takes it for a slow peer.
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    match event {
                        PeerEvent::Frame(_, Channel::Consensus, received) => {
                            ear.lock().unwrap().hear(&Message::decode(&received.bytes).expect("nodes speak well"));
                        }
                        PeerEvent::Frame(peer, Channel::Sync, received) => match Sync::decode(&received.bytes) {
                            Ok(Sync::AskLayer(record, number)) => {
                                let mut offered = offered.lock().unwrap();
                                offered.1 += 1;
                                let answer = Sync::Layer(record, number, offered.0.clone());
                                voice.send(&peer, Channel::Sync, &answer.encode());
                            }
                            Ok(Sync::Layer(.., part)) => told.lock().unwrap().push(part),
                            _ => {}
                        },
                        _ => {}
                    }
                }
            });
            peers
        });
        let others: Vec<String> = network.bootstrap(except).split(',').map(ToOwned::to_owned).collect();
        let count = others.len();
        runtime.block_on(async { others.into_iter().for_each(|address| assert!(peers.dial(address))) });
        let begun = Instant::now();
        while peers.peers().len() < count {
            assert!(begun.elapsed() < PATIENCE, "nobody answers");
            std::thread::sleep(Duration::from_millis(20));
        }
        Stranger { runtime, network: peers, chain_id, key, heard, shows, shown }
    }

    pub(crate) fn vote(&self, height: u64, value: NilOrVal<BlockId>) -> Message {
        let voter = Address(self.key.node_id());
        let vote =
            Vote { kind: VoteType::Prevote, height: At(Height::new(height)), round: Round::new(0), value, voter };
        let signature = sign_vote(&self.key, &self.chain_id, &vote);
        Message::Vote(SignedMessage::new(vote, signature))
    }

    /// Says something of records of a block, as their auditor.
    pub(crate) fn attest(&self, height: u64, statement: Statement) {
        let (auditor, chain_id) = (self.key.node_id(), self.chain_id.clone());
        let attestation = Attestation { chain_id, auditor, height: Height::new(height), statement };
        let signature = self.key.sign_attestation(&self.chain_id, &attestation.id());
        let said = Gossip::Attestation(Box::new(SignedAttestation { attestation, signature }));
        let _inside = self.runtime.enter();
        self.network.broadcast(Channel::Gossip, &said.encode(), None);
    }

    /// Whose place it takes.
    pub(crate) fn node_id(&self) -> NodeId {
        self.key.node_id()
    }

    /// Asks everybody for the layer at which a record is false.
    pub(crate) fn ask_layer(&self, record: RecordId) {
        let _inside = self.runtime.enter();
        self.network.broadcast(Channel::Sync, &Sync::AskLayer(record, 0).encode(), None);
    }

    /// What binds it to an opening.
    pub(crate) fn commitment(&self, opening: &Opening, record: &RecordId) -> Digest {
        opening.commitment(&self.chain_id, &self.key.node_id(), record)
    }

    pub(crate) fn say(&self, message: &Message) {
        let _inside = self.runtime.enter();
        self.network.broadcast(Channel::Consensus, &message.encode(), None);
    }
}
