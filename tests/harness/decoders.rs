//! Every decoder that reads what a peer sent, as a function of bytes: what the fuzzer runs, and what its corpus is run through.
//!
//! None may panic, and what is accepted has exactly one encoding.

use aria_chain::attestation::SignedAttestation;
use aria_chain::block::{Body, FinalBlock, Header, ProposedBlock};
use aria_chain::certificate::{CommitCertificate, ValidatorSet};
use aria_chain::codec::Versioned;
use aria_chain::evidence::Evidence;
use aria_chain::ids::{ChainId, Digest};
use aria_chain::light::{FinalHeader, LightProof, Trusted};
use aria_chain::merkle::RecordProof;
use aria_chain::proof::SignedProof;
use aria_chain::transaction::SignedTransaction;
use aria_node::audit::parts::Gathering;
use aria_node::audit::payload::Payload;
use aria_node::consensus::message::Message;
use aria_node::consensus::talk::{Gossip, Sync};
use aria_node::network::discover::Acquaintance;
use aria_node::network::handshake::Hello;
use aria_node::network::tls::node_of_spki;
use aria_node::pipeline::talk::Talk;
use aria_node::services::legacy::question;
use aria_node::snapshot::{Chunk, Manifest};

/// Reads bytes, looks closer at what was read, and says whether there was anything.
pub type Decoder = fn(&[u8]) -> bool;

/// All decoders by name.
pub const DECODERS: [(&str, Decoder); 21] = [
    ("acquaintance", |bytes| exact::<Acquaintance>(bytes).is_some()),
    ("attestation", attestation),
    ("body", |bytes| exact::<Body>(bytes).is_some()),
    ("certificate", certificate),
    ("chunk", |bytes| exact::<Chunk>(bytes).is_some()),
    ("evidence", evidence),
    ("gossip", gossip),
    ("header", |bytes| exact::<Header>(bytes).is_some_and(|header| header.hash() != header.parent)),
    ("hello", |bytes| exact::<Hello>(bytes).is_some()),
    ("legacy", legacy),
    ("light-proof", light_proof),
    ("manifest", |bytes| exact::<Manifest>(bytes).is_some()),
    ("message", |bytes| exact::<Message>(bytes).is_some_and(|message| message.round().as_i64() >= -1)),
    ("node-key", |bytes| node_of_spki(bytes).is_some_and(|node| bytes.ends_with(node.as_bytes()))),
    ("payload", |bytes| exact::<Payload>(bytes).is_some()),
    ("proof", |bytes| exact::<SignedProof>(bytes).map(verify).is_some()),
    ("record-proof", record_proof),
    ("stages", |bytes| exact::<Talk>(bytes).is_some()),
    ("sync", sync),
    ("transaction", transaction),
    ("validators", |bytes| exact::<ValidatorSet>(bytes).is_some_and(|set| set.is_quorum(set.total_power()))),
];

/// The chain that the corpus is about.
#[must_use]
pub fn chain_id() -> ChainId {
    "aria-fuzz".parse().expect("a name")
}

/// A value of which these bytes are the encoding.
fn exact<T: Versioned>(bytes: &[u8]) -> Option<T> {
    let value = T::decode(bytes).ok()?;
    assert_eq!(value.encode(), bytes, "{} has two encodings", T::NAME);
    Some(value)
}

// Whether signatures hold is not asked: only that asking does no harm.

fn verify(proof: SignedProof) {
    let _ = proof.verify(&chain_id());
}

fn attestation(bytes: &[u8]) -> bool {
    exact::<SignedAttestation>(bytes).map(|attestation| drop(attestation.verify(&chain_id()))).is_some()
}

fn transaction(bytes: &[u8]) -> bool {
    exact::<SignedTransaction>(bytes).map(|transaction| drop(transaction.verify(&chain_id()))).is_some()
}

fn evidence(bytes: &[u8]) -> bool {
    exact::<Evidence>(bytes).map(|piece| drop(piece.check(&chain_id()))).is_some()
}

fn certificate(bytes: &[u8]) -> bool {
    let Some(certificate) = exact::<CommitCertificate>(bytes) else { return false };
    let of_nobody = ValidatorSet::new(Vec::new());
    drop(of_nobody.map(|set| certificate.verify(&chain_id(), &set)));
    true
}

fn gossip(bytes: &[u8]) -> bool {
    match exact::<Gossip>(bytes) {
        None => return false,
        Some(Gossip::Proof(proof)) => verify(*proof),
        Some(Gossip::Evidence(piece)) => drop(piece.check(&chain_id())),
        Some(Gossip::Attestation(attestation)) => drop(attestation.verify(&chain_id())),
        Some(Gossip::Transaction(transaction)) => drop(transaction.verify(&chain_id())),
        Some(Gossip::Tip(..)) => {}
    }
    true
}

fn sync(bytes: &[u8]) -> bool {
    let final_header = |step: &FinalHeader| {
        let trusted = Trusted { chain_id: chain_id(), set_hash: step.validators.hash() };
        drop(step.check(&trusted));
    };
    match exact::<Sync>(bytes) {
        None => return false,
        Some(Sync::Blocks(blocks)) => {
            for block in blocks.0 {
                let checked = ProposedBlock::check(block.header, block.body, &chain_id(), 0);
                if let (Ok(checked), Ok(set)) = (checked, ValidatorSet::new(Vec::new())) {
                    drop(FinalBlock::new(checked, block.certificate, &set));
                }
            }
        }
        Some(Sync::Headers(headers)) => headers.0.iter().for_each(final_header),
        Some(Sync::Snapshot(Some(offer))) => [&offer.last, &offer.next].into_iter().for_each(final_header),
        Some(Sync::Chunk(_, _, Some(chunk))) => drop(Chunk::decode(&chunk)),
        Some(Sync::Payload(_, Some(payload))) => drop(Payload::decode(&payload)),
        Some(Sync::Layer(_, _, Some(part))) => drop(Gathering::begin(part)),
        Some(_) => {}
    }
    true
}

/// At the time of the messages of the corpus.
fn legacy(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| question::read(text, 1_700_000_000.0).1.is_ok())
}

fn light_proof(bytes: &[u8]) -> bool {
    let Ok(proof) = serde_json::from_slice::<LightProof>(bytes) else { return false };
    drop(proof.verify(&Trusted { chain_id: chain_id(), set_hash: Digest::ZERO }));
    true
}

fn record_proof(bytes: &[u8]) -> bool {
    let Ok(proof) = serde_json::from_slice::<RecordProof>(bytes) else { return false };
    drop((proof.verify(), proof.claim()));
    true
}
