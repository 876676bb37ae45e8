//! What nodes say to each other besides votes: where they are, what waits, and blocks of the past.

use aria_chain::attestation::SignedAttestation;
use aria_chain::block::{Body, Header};
use aria_chain::certificate::CommitCertificate;
use aria_chain::codec::{Versioned, read_list};
use aria_chain::evidence::Evidence;
use aria_chain::ids::{BlockHash, RecordId};
use aria_chain::light::FinalHeader;
use aria_chain::limits::PROOF_BYTES_MAX;
use aria_chain::proof::SignedProof;
use aria_chain::transaction::SignedTransaction;
use aria_chain::units::Height;
use borsh::io::{Error, Read};
use borsh::{BorshDeserialize, BorshSerialize};

use super::message::MESSAGE_BYTES_MAX;
use crate::audit::parts::Part;
use crate::snapshot::Offer;

/// Blocks in one answer.
pub const BLOCKS_MAX: usize = 64;
/// Bytes of one answer; the first block may be longer.
pub const BLOCKS_BYTES_MAX: usize = 2 * 1_024 * 1_024;

/// Headers in one answer.
pub const HEADERS_MAX: usize = 64;

/// A small message, on the channel of gossip.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Gossip {
    /// The sender's last final block.
    Tip(Height, BlockHash),
    /// A proof that waits to be sealed.
    Proof(Box<SignedProof>),
    /// A validator contradicted itself.
    Evidence(Box<Evidence>),
    /// A transaction that waits to be sealed.
    Transaction(Box<SignedTransaction>),
    /// An attestation that waits to be sealed.
    Attestation(Box<SignedAttestation>),
}

impl Versioned for Gossip {
    const NAME: &'static str = "gossip";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = PROOF_BYTES_MAX + 64;
}

/// A final block as it travels.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct WireFinal {
    /// Header.
    pub header: Header,
    /// Body.
    pub body: Body,
    /// Why it is final.
    pub certificate: CommitCertificate,
}

/// A message on the channel of catching up.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Sync {
    /// Asks for final blocks from this height on.
    Ask(Height),
    /// Final blocks without a gap, from the height that was asked for.
    Blocks(Blocks),
    /// Asks for the newest snapshot.
    AskSnapshot,
    /// It, if there is one.
    Snapshot(Option<Box<Offer>>),
    /// Asks for a chunk of the snapshot of a height.
    AskChunk(Height, u32),
    /// Its bytes; none where the sender has no such chunk, or no longer.
    Chunk(Height, u32, Option<Vec<u8>>),
    /// Asks for the way from one height to another.
    AskHeaders(Height, Height),
    /// The final header of the first height, unless that is genesis, and those up to the other after which another set votes.
    Headers(Headers),
    /// Asks a provider for what lies behind a record that the sender was drawn to audit.
    AskPayload(RecordId),
    /// It; none where the sender may not have it, or there is none.
    Payload(RecordId, Option<Vec<u8>>),
    /// Asks an auditor who called a record false for a part of the layer where it is, as a judge of the dispute.
    AskLayer(RecordId, u32),
    /// It; none where the sender may not have it, or there is none, or not yet.
    Layer(RecordId, u32, Option<Part>),
}

impl Versioned for Sync {
    const NAME: &'static str = "sync message";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = MESSAGE_BYTES_MAX;
}

/// At most [`HEADERS_MAX`] headers.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct Headers(pub Vec<FinalHeader>);

impl BorshDeserialize for Headers {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Headers, Error> {
        read_list(reader, HEADERS_MAX, "headers").map(Headers)
    }
}

/// At most [`BLOCKS_MAX`] blocks.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct Blocks(pub Vec<WireFinal>);

impl BorshDeserialize for Blocks {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Blocks, Error> {
        read_list(reader, BLOCKS_MAX, "blocks").map(Blocks)
    }
}
