//! Snapshots: the state after a block in chunks, for nodes that begin without the blocks below.
//!
//! - [`take`]: made beside the chain as it goes on, and kept in the data folder
//! - [`fetch`]: how a new node begins with one that peers offer
//!
//! A peer is trusted with nothing. The header above the block names the root of the state after it, a certificate makes that
//! header final, and the sets that signed are followed from genesis, or from a header that the user trusts, one final header
//! for every change. The chunks are checked one by one against the list in the manifest, so that many peers can give them,
//! and all entries together against that root, so that a false list is found out.

use aria_chain::codec::{Versioned, read_list};
use aria_chain::hash::Domain;
use aria_chain::ids::Digest;
use aria_chain::light::FinalHeader;
use aria_chain::limits::{STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
use aria_chain::store::StateEntry;
use aria_chain::units::Height;
use borsh::io::{Error, Read};
use borsh::{BorshDeserialize, BorshSerialize};

pub mod fetch;
pub mod take;

/// A chunk ends with the entry that fills it this far.
pub const CHUNK_BYTES: usize = 512 * 1_024;
/// Chunks of one snapshot: 16 GiB of state.
pub const CHUNKS_MAX: usize = 32_768;
/// Entries of one chunk. The shortest, a key of one byte without a value, takes nine bytes.
const ENTRIES_MAX: usize = CHUNK_BYTES / 9 + 1;

/// What a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Manifest {
    /// The block after which this is the state.
    pub height: Height,
    /// Digest of every chunk, in order.
    #[borsh(deserialize_with = "read_digests")]
    pub chunks: Vec<Digest>,
}

impl Versioned for Manifest {
    const NAME: &'static str = "manifest of a snapshot";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = CHUNKS_MAX * 32 + 64;
}

/// A part of the state: entries in order of key, the sum over all of them left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Chunk {
    /// Keys and values.
    #[borsh(deserialize_with = "read_entries")]
    pub entries: Vec<StateEntry>,
}

impl Versioned for Chunk {
    const NAME: &'static str = "chunk of a snapshot";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = CHUNK_BYTES + STATE_KEY_BYTES_MAX + STATE_VALUE_BYTES_MAX + 64;
}

/// Digest of a chunk as it travels.
pub fn chunk_digest(bytes: &[u8]) -> Digest {
    Domain::SNAPSHOT_CHUNK.hash(bytes)
}

/// A snapshot, and what shows that it is one of this chain.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Offer {
    /// Its chunks.
    pub manifest: Manifest,
    /// Header of the block after which this is the state.
    pub last: FinalHeader,
    /// The header above, which names the root of the state.
    pub next: FinalHeader,
}

fn read_digests<R: Read>(reader: &mut R) -> Result<Vec<Digest>, Error> {
    read_list(reader, CHUNKS_MAX, "chunks")
}

fn read_entries<R: Read>(reader: &mut R) -> Result<Vec<StateEntry>, Error> {
    read_list(reader, ENTRIES_MAX, "entries")
}

#[cfg(test)]
mod tests;
