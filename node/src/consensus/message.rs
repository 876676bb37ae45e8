//! What validators say to each other, as borsh bytes: a proposal with its block, votes, and the certificates that help a
//! node which missed votes.

use aria_chain::block::{Body, Header};
use aria_chain::codec::Versioned;
use aria_chain::limits::{BODY_BYTES_MAX, HEADER_BYTES_MAX};
use aria_chain::units::Height;
use borsh::io::{Error, ErrorKind, Read, Write};
use borsh::{BorshDeserialize, BorshSerialize};
use malachite_types::{PolkaCertificate, Round, RoundCertificate, SignedProposal, SignedVote};

use super::context::Pouw;

/// Longest message: a proposal with the longest block.
pub const MESSAGE_BYTES_MAX: usize = BODY_BYTES_MAX + HEADER_BYTES_MAX + 1_024;
/// Longest message without a block: a certificate of the largest set, with room.
const SMALL_BYTES_MAX: usize = 32 * 1_024;

/// A block as it travels.
pub type WireBlock = (Header, Body);

/// What a validator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A signed prevote or precommit.
    Vote(SignedVote<Pouw>),
    /// A signed proposal, and the block that it names if the sender has it.
    Proposal(SignedProposal<Pouw>, Option<Box<WireBlock>>),
    /// Two thirds of the prevotes for one block.
    Polka(PolkaCertificate<Pouw>),
    /// Votes that justify leaving a round.
    Skip(RoundCertificate<Pouw>),
}

impl Message {
    /// The height that it is about.
    pub fn height(&self) -> Height {
        match self {
            Message::Vote(vote) => vote.height.0,
            Message::Proposal(proposal, _) => proposal.height.0,
            Message::Polka(certificate) => certificate.height.0,
            Message::Skip(certificate) => certificate.height.0,
        }
    }

    /// The round that it is about.
    pub fn round(&self) -> Round {
        match self {
            Message::Vote(vote) => vote.round,
            Message::Proposal(proposal, _) => proposal.round,
            Message::Polka(certificate) => certificate.round,
            Message::Skip(certificate) => certificate.round,
        }
    }
}

impl BorshSerialize for Message {
    fn serialize<W: Write>(&self, writer: &mut W) -> Result<(), Error> {
        match self {
            Message::Vote(vote) => (0_u8, vote).serialize(writer),
            Message::Proposal(proposal, block) => (1_u8, proposal, block).serialize(writer),
            Message::Polka(certificate) => (2_u8, certificate).serialize(writer),
            Message::Skip(certificate) => (3_u8, certificate).serialize(writer),
        }
    }
}

impl BorshDeserialize for Message {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Message, Error> {
        match u8::deserialize_reader(reader)? {
            0 => Ok(Message::Vote(BorshDeserialize::deserialize_reader(reader)?)),
            1 => Ok(Message::Proposal(
                BorshDeserialize::deserialize_reader(reader)?,
                BorshDeserialize::deserialize_reader(reader)?,
            )),
            2 => Ok(Message::Polka(BorshDeserialize::deserialize_reader(&mut small(reader))?)),
            3 => Ok(Message::Skip(BorshDeserialize::deserialize_reader(&mut small(reader))?)),
            kind => Err(Error::new(ErrorKind::InvalidData, format!("there is no message of kind {kind}"))),
        }
    }
}

/// Bounds what a list of signatures may take in memory.
fn small<R: Read>(reader: &mut R) -> impl Read {
    reader.take(SMALL_BYTES_MAX as u64)
}

impl Versioned for Message {
    const NAME: &'static str = "consensus message";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = MESSAGE_BYTES_MAX;
}
