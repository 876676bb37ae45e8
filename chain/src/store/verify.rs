//! Checks of a stored chain that need no state: hashes, stamps, parents, roots, certificates, every signature. Runtime adds
//! re-execution.

use super::{Store, StoreError};
use crate::block::{Header, ProposedBlock, verify_certificate};
use crate::error::{BlockError, CertificateError};
use crate::ids::{BlockHash, Digest, RecordId};
use crate::units::Height;

/// What a chain's genesis says about its blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkRules {
    /// Leading zero hex digits of every block hash.
    pub stamp_zero_digits: u8,
}

/// The first thing that is wrong with a stored chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("height {height}: {kind}")]
pub struct ChainFault {
    /// Where.
    pub height: Height,
    /// What.
    pub kind: FaultKind,
}

/// What can be wrong with a stored block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] StoreError),
    /// It is not there.
    #[error("the block is missing")]
    Missing,
    /// The first block is another one.
    #[error("the genesis block has hash {got}, the store says {expected}")]
    Genesis {
        /// Computed.
        got: BlockHash,
        /// As noted in the store.
        expected: BlockHash,
    },
    /// It does not stand on the block below.
    #[error("the block names parent {got}, the block below has hash {expected}")]
    Parent {
        /// As the header says.
        got: BlockHash,
        /// Computed.
        expected: BlockHash,
    },
    /// It is voted on by another set than the block below says.
    #[error("the block names validator set {got}, the block below says that {expected} votes")]
    Validators {
        /// As the header says.
        got: Digest,
        /// As the header below says.
        expected: Digest,
    },
    /// It is not well formed, or a proof of it does not verify.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// Nothing made it final.
    #[error("the block has no certificate")]
    NoCertificate,
    /// Nobody knows who voted.
    #[error("validator set {hash} is missing")]
    NoValidators {
        /// Hash in the header.
        hash: Digest,
    },
    /// Its certificate does not make it final.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Its hash does not lead back to it.
    #[error("block hash {hash} leads to {}", found_at(.found))]
    HashIndex {
        /// The hash.
        hash: BlockHash,
        /// Where it leads.
        found: Option<Height>,
    },
    /// The id of a record of it does not lead back to it.
    #[error("record {record} at index {index} is not found by its id")]
    RecordIndex {
        /// The record.
        record: RecordId,
        /// Its place in the block.
        index: u32,
    },
    /// The last block is another one than the tip says.
    #[error("the tip has hash {expected}, the last block has {got}")]
    Tip {
        /// Computed.
        got: BlockHash,
        /// As the tip says.
        expected: BlockHash,
    },
}

fn found_at(found: &Option<Height>) -> String {
    found.map_or_else(|| "nothing".to_owned(), |height| format!("height {height}"))
}

/// Checks all blocks that the store has from `from` to `to`, the tip at most, and names the first fault. `progress` hears of every height
/// that is sound. Returns how many blocks were checked.
pub fn verify_chain_links(
    store: &dyn Store,
    from: Height,
    to: Height,
    rules: LinkRules,
    progress: &mut dyn FnMut(Height),
) -> Result<u64, ChainFault> {
    let tip = store.tip().map_err(|fault| ChainFault { height: to, kind: fault.into() })?;
    let to = to.min(tip.height);
    let base = store.base();
    let mut below = match from.previous() {
        Some(height) if height <= to && height >= base => Some(header_at(store, height)?),
        _ => None,
    };
    let mut checked = 0;
    for number in from.get()..=to.get() {
        let height = Height::new(number);
        if height < base {
            if height == Height::ZERO {
                verify_block(store, height, rules).map_err(|kind| ChainFault { height, kind })?;
            }
            continue;
        }
        let header = verify_block(store, height, rules).and_then(|header| match &below {
            Some(below) => check_link(below, &header).map(|()| header),
            None => Ok(header),
        });
        let header = header.map_err(|kind| ChainFault { height, kind })?;
        let hash = header.hash();
        if height == tip.height && hash != tip.hash {
            return Err(ChainFault { height, kind: FaultKind::Tip { got: hash, expected: tip.hash } });
        }
        below = Some(header);
        checked += 1;
        progress(height);
    }
    Ok(checked)
}

fn header_at(store: &dyn Store, height: Height) -> Result<Header, ChainFault> {
    let fault = |kind| ChainFault { height, kind };
    let header = store.header(height).map_err(|unreadable| fault(unreadable.into()))?;
    header.ok_or_else(|| fault(FaultKind::Missing))
}

fn check_link(below: &Header, header: &Header) -> Result<(), FaultKind> {
    let expected = below.hash();
    if header.parent != expected {
        return Err(FaultKind::Parent { got: header.parent, expected });
    }
    let (got, expected) = (header.validators_hash, below.next_validators_hash);
    if got != expected {
        return Err(FaultKind::Validators { got, expected });
    }
    Ok(())
}

/// Checks one block by itself; returns its header.
pub(super) fn verify_block(store: &dyn Store, height: Height, rules: LinkRules) -> Result<Header, FaultKind> {
    let block = store.block(height)?.ok_or(FaultKind::Missing)?;
    let (hash, header) = (block.hash, block.header.clone());
    let found = store.height_of(&hash)?;
    if height == Height::ZERO {
        let expected = store.chain().genesis_hash;
        if hash != expected {
            return Err(FaultKind::Genesis { got: hash, expected });
        }
    } else {
        let certificate = block.certificate.ok_or(FaultKind::NoCertificate)?;
        let set_hash = block.header.validators_hash;
        let set = store.validators(&set_hash)?.ok_or(FaultKind::NoValidators { hash: set_hash })?;
        let digits = rules.stamp_zero_digits;
        let checked = ProposedBlock::check(block.header, block.body, &store.chain().chain_id, digits)?;
        verify_certificate(checked.header(), &hash, &certificate, &set)?;
        for (index, proof) in (0u32..).zip(checked.proofs()) {
            let record = proof.record_id();
            let place = store.record(&record)?.map(|entry| (entry.height, entry.index));
            if place != Some((height, index)) {
                return Err(FaultKind::RecordIndex { record, index });
            }
        }
    }
    if found != Some(height) {
        return Err(FaultKind::HashIndex { hash, found });
    }
    Ok(header)
}
