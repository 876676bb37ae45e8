//! Makes the first inputs of the corpus from the data directory of a node: `cargo run -p aria-tests --example fuzz-seeds -- DATA_DIR CORPUS_DIR`.
//!
//! Sound values of every kind, which the fuzzer then takes apart.

use std::path::{Path, PathBuf};

use aria_chain::attestation::{Attestation, Opening, SignedAttestation, Statement, Verdict};
use aria_chain::codec::Versioned;
use aria_chain::consent::Consent;
use aria_chain::evidence::{Evidence, Said};
use aria_chain::ids::{BlockHash, Digest, ModelId, RecordId};
use aria_chain::keys::NodeKey;
use aria_chain::light::{FinalHeader, LightProof, LightStep};
use aria_chain::merkle::RecordTree;
use aria_chain::model::{ModelName, Shape, proposal_id};
use aria_chain::proof::SignedProof;
use aria_chain::store::{OpenOptions, SledStore, Store};
use aria_chain::transaction::{Action, SignedTransaction, Transaction};
use aria_chain::units::{Height, NanoAria, Round as ChainRound};
use aria_node::audit::parts::Part;
use aria_node::audit::payload::{End, Payload};
use aria_node::consensus::context::{Address, At, BlockId, NilOrVal, Proposal, Round, SignedMessage, Vote, VoteType};
use aria_node::consensus::crypto::{sign_proposal, sign_vote};
use aria_node::consensus::message::Message;
use aria_node::consensus::talk::{Blocks, Gossip, Headers, Sync, WireFinal};
use aria_node::network::discover::Acquaintance;
use aria_node::pipeline::talk::{Answer, Ask, Closed, Reason, Roots, States, Talk, ToRun, ToSign};
use aria_node::snapshot::{Manifest, Offer, chunk_digest};
use aria_tests::decoders::chain_id;
use serde_json::json;

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(data), Some(corpus)) = (arguments.next(), arguments.next()) else {
        eprintln!("name the data directory of a node that is stopped, and the folder of the corpus");
        std::process::exit(2);
    };
    let (store, _) = SledStore::open_existing(&data.join("chain"), OpenOptions::default()).expect("a stopped node");
    let tip = store.tip().expect("readable").height;
    let full = (1..=tip.get()).map(Height::new).filter_map(|height| store.block(height).expect("readable"));
    let full = full.filter(|block| !block.body.proofs.is_empty()).take(2);
    order_and_attest(&corpus);
    introduce(&corpus);
    for (number, block) in full.enumerate() {
        let keep = |name: &str, bytes: &[u8]| keep(&corpus, name, number, bytes);
        let (header, body) = (block.header.clone(), block.body.clone());
        let certificate = block.certificate.expect("above genesis");
        let proof = body.proofs[0].clone();
        let final_header = FinalHeader::of(&store, header.height).expect("readable").expect("there");
        keep("header", &header.encode());
        keep("body", &body.encode());
        keep("certificate", &certificate.encode());
        keep("validators", &final_header.validators.encode());
        keep("proof", &proof.encode());
        stages(&corpus, number, &proof);
        keep("gossip", &Gossip::Proof(Box::new(proof)).encode());
        let ids = store.record_ids(header.height).expect("readable");
        let path = RecordTree::new(header.height, &ids).and_then(|tree| tree.proof(0)).expect("a tree");
        keep("record-proof", &serde_json::to_vec(&path).expect("text"));
        let step = LightStep::from(&final_header);
        let light = LightProof::new(vec![step.clone()], path, step);
        keep("light-proof", &serde_json::to_vec(&light).expect("text"));
        speak(&corpus, number, (header.clone(), body.clone()));
        let wire = WireFinal { header, body, certificate };
        keep("sync", &Sync::Blocks(Blocks(vec![wire])).encode());
        show(&corpus, number, &data, final_header);
    }
}

/// What gateway and stage say to each other of an answer.
fn stages(corpus: &Path, number: usize, proof: &SignedProof) {
    let states = States(vec![0.5, -0.0, f32::NAN]);
    let to_run = ToRun {
        request: proof.request.clone(),
        signature: proof.request_signature,
        layer_start: 2,
        layer_end: 4,
        positions: 9,
        leaf_key: [5; 32],
    };
    let to_sign = ToSign { record: proof.record.clone(), roots: Roots(vec![[1; 32]; 3]), text: [2; 32] };
    let closed = Closed { roots: Roots(vec![[1; 32]; 3]), energy_uj: 7, is_measured: true };
    let said = [
        Talk::Ask(1, Ask::Open(3, Box::new(to_run))),
        Talk::Ask(2, Ask::Run(3, states.clone())),
        Talk::Ask(3, Ask::Sign(3, Box::new(to_sign))),
        Talk::Ask(4, Ask::Close(3)),
        Talk::Answer(1, Answer::Open),
        Talk::Answer(2, Answer::States(states)),
        Talk::Answer(3, Answer::Signed(proof.request_signature)),
        Talk::Answer(4, Answer::Closed(closed)),
        Talk::Answer(5, Answer::Refused(Reason::new("not now"))),
    ];
    for (place, message) in said.iter().enumerate() {
        keep(corpus, "stages", 9 * number + place, &message.encode());
    }
}

/// A transaction, attestations and a payload under keys that everybody knows.
fn order_and_attest(corpus: &Path) {
    let (key, chain_id) = (NodeKey::from_seed(&[7; 32]), chain_id());
    let (model, name) = (ModelId::new([5; 32]), ModelName::new("aria-tiny").expect("a name"));
    let shape = Shape { layers: 6, dim: 256, ffn: 768, heads: 4, kv_heads: 2, head_dim: 64, vocab: 4_096 };
    let proposal = proposal_id(&model, &name, &shape);
    let opening = Opening { secret: [1; 32], verdict: Verdict::Valid, root: Digest::new([2; 32]) };
    let actions = [
        Action::Transfer { to: key.node_id(), amount: NanoAria::new(1) },
        Action::Consent { contract: Some(Consent::default()) },
        Action::Consent { contract: None },
        Action::Doubt { height: Height::new(9), index: 3, auditor: key.node_id() },
        Action::RegisterModel { model, name, shape },
        Action::ConfirmModel { model, proposal },
        Action::Leak { height: Height::new(9), index: 3, auditor: key.node_id(), opening },
        Action::Challenge { height: Height::new(9), index: 3 },
        Action::Deliver { height: Height::new(9), index: 3, part: 0, parts: 1, sealed: vec![6; 32] },
    ];
    for (number, action) in actions.into_iter().enumerate() {
        let transaction = Transaction {
            chain_id: chain_id.clone(),
            sender: key.node_id(),
            nonce: 3,
            fee: NanoAria::new(100_000),
            expiry: Height::new(1_000),
            action,
        };
        let signature = key.sign_transaction(&chain_id, &transaction.id());
        let transaction = SignedTransaction { transaction, signature };
        keep(corpus, "transaction", number, &transaction.encode());
        if number == 0 {
            keep(corpus, "gossip", 3, &Gossip::Transaction(Box::new(transaction)).encode());
        }
    }
    let statements =
        [Statement::Commit(vec![(0, Digest::new([3; 32]))]), Statement::Open(vec![(0, opening), (5, opening)])];
    for (number, statement) in statements.into_iter().enumerate() {
        let auditor = key.node_id();
        let attestation = Attestation { chain_id: chain_id.clone(), auditor, height: Height::new(9), statement };
        let signature = key.sign_attestation(&chain_id, &attestation.id());
        let attestation = SignedAttestation { attestation, signature };
        keep(corpus, "attestation", number, &attestation.encode());
        keep(corpus, "gossip", 4 + number, &Gossip::Attestation(Box::new(attestation)).encode());
    }
    let payload = Payload {
        prompt: vec![1, 2, 3],
        outputs: vec![vec![4, 5], vec![6]],
        stop: vec!["end".to_owned()],
        bias_ppm: vec![(7, -1_000_000)],
        prompt_salt: [1; 32],
        output_salt: [2; 32],
        options_salt: [3; 32],
        ends: vec![
            End { is_cut: true, boundary_roots: vec![[4; 32], [5; 32]] },
            End { is_cut: false, boundary_roots: Vec::new() },
        ],
    };
    keep(corpus, "payload", 0, &payload.encode());
    keep(corpus, "sync", 8, &Sync::AskPayload(RecordId::new([4; 32])).encode());
    keep(corpus, "sync", 9, &Sync::Payload(RecordId::new([4; 32]), Some(payload.encode())).encode());
    keep(corpus, "sync", 20, &Sync::AskLayer(RecordId::new([4; 32]), 1).encode());
    let part = Part { choice: 1, layer: 5, parts: 2, bytes: vec![0, 0, 128, 63] };
    keep(corpus, "sync", 21, &Sync::Layer(RecordId::new([4; 32]), 1, Some(part)).encode());
}

/// The key that a peer shows, and what an older one asks without any.
fn introduce(corpus: &Path) {
    let head = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    keep(corpus, "node-key", 0, &[&head[..], &[7; 32]].concat());
    let questions = [
        json!({"type": "ping", "data": {}}),
        json!({"type": "peer_announce", "data": {"node_id": "alice", "host": "127.0.0.1", "port": 8_765}}),
        json!({"type": "shard_announce", "data": {"shards": [{"model_id": "m", "layers": [0, 8]}]}}),
        json!({"type": "get_peers", "data": {"max_peers": 5}}),
        json!({"type": "get_stats", "request_id": "r-1"}),
        json!({"type": "inference_request", "request_id": 7, "data": {"query": "What is a block?", "max_tokens": 12, "temperature": 0.5, "model_id": "m"}}),
    ];
    for (number, mut question) in questions.into_iter().enumerate() {
        question["timestamp"] = json!(1_700_000_000);
        keep(corpus, "legacy", number, question.to_string().as_bytes());
    }
}

/// Votes and proposals about a block, and evidence, under a key that everybody knows.
fn speak(corpus: &Path, number: usize, block: (aria_chain::block::Header, aria_chain::block::Body)) {
    let (key, chain, hash) = (NodeKey::from_seed(&[7; 32]), chain_id(), block.0.hash());
    let (height, me) = (block.0.height, Address(key.node_id()));
    for (place, value) in [NilOrVal::Nil, NilOrVal::Val(BlockId(hash))].into_iter().enumerate() {
        let vote = Vote { kind: VoteType::Precommit, height: At(height), round: Round::new(1), value, voter: me };
        let signature = sign_vote(&key, &chain, &vote);
        keep(corpus, "message", 10 * number + place, &Message::Vote(SignedMessage::new(vote, signature)).encode());
    }
    let value = BlockId(hash);
    let proposal = Proposal { height: At(height), round: Round::new(0), value, pol_round: Round::Nil, proposer: me };
    let signature = sign_proposal(&key, &chain, &proposal);
    let signed = SignedMessage::new(proposal, signature);
    keep(corpus, "message", 10 * number + 2, &Message::Proposal(signed, Some(Box::new(block))).encode());
    let said = |block: Option<BlockHash>| {
        (Said::Prevote(block), key.sign_prevote(&chain, height, ChainRound::ZERO, block.as_ref()))
    };
    let piece = Evidence::new(key.node_id(), height, ChainRound::ZERO, said(Some(hash)), said(None));
    keep(corpus, "evidence", number, &piece.encode());
    keep(corpus, "gossip", 10 * number + 1, &Gossip::Evidence(Box::new(piece)).encode());
    keep(corpus, "gossip", 10 * number + 2, &Gossip::Tip(height, hash).encode());
    keep(corpus, "acquaintance", 0, &Acquaintance::Ask.encode());
    // Version, one version of frames, name and genesis of the chain, a port.
    let name = chain.as_str().as_bytes();
    let length = u8::try_from(name.len()).expect("short");
    let hello = [&[2, 1, 0, 0, 0, 2, 0, length, 0, 0, 0], name, &[9; 32], &[0x3d, 0x22]].concat();
    keep(corpus, "hello", 0, &hello);
}

/// What a peer says of its snapshots.
fn show(corpus: &Path, number: usize, data: &Path, header: FinalHeader) {
    let keep = |name: &str, place: usize, bytes: &[u8]| keep(corpus, name, 10 * number + place, bytes);
    let height = header.header.height;
    let folders = std::fs::read_dir(data.join("snapshots")).into_iter().flatten().flatten();
    for folder in folders.take(1) {
        let chunk = std::fs::read(folder.path().join("0")).expect("a chunk");
        let manifest = Manifest { height, chunks: vec![chunk_digest(&chunk)] };
        keep("manifest", 0, &manifest.encode());
        keep("chunk", 0, &chunk);
        keep("sync", 1, &Sync::Chunk(height, 0, Some(chunk)).encode());
        let offer = Offer { manifest, last: header.clone(), next: header.clone() };
        keep("sync", 2, &Sync::Snapshot(Some(Box::new(offer))).encode());
    }
    keep("sync", 3, &Sync::Headers(Headers(vec![header.clone(), header])).encode());
    let questions =
        [Sync::Ask(height), Sync::AskSnapshot, Sync::AskChunk(height, 3), Sync::AskHeaders(Height::ZERO, height)];
    for (place, question) in (4..).zip(questions) {
        keep("sync", place, &question.encode());
    }
}

fn keep(corpus: &Path, name: &str, number: usize, bytes: &[u8]) {
    let folder = corpus.join(name);
    std::fs::create_dir_all(&folder).expect("the corpus can be written");
    std::fs::write(folder.join(format!("seed-{number}")), bytes).expect("the corpus can be written");
}
