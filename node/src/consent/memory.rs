//! What a model and its answers take of the memory that a contract states.

use aria_chain::consent::Consent;

use crate::error::NodeError;

/// A megabyte.
const MB: u64 = 1 << 20;
/// What a node takes besides weights and caches: program, store, buffers of a forward pass. Measured, see decision 0021.
pub const NODE_BYTES: u64 = 96 * MB;
/// Positions of the shortest session that is worth loading a model for.
const POSITIONS_MIN: u64 = 512;
/// The part of what is left beside the weights that ended sessions may keep.
const PREFIX_PART: u64 = 4;

/// How the memory of a contract is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Caches of running requests together.
    pub kv_bytes_max: u64,
    /// Ended sessions.
    pub prefix_bytes_max: u64,
}

impl Memory {
    /// What a contract leaves beside so many bytes of weights.
    pub fn of(contract: &Consent, weight_bytes: u64) -> Memory {
        let left = (u64::from(contract.max_ram_mb) * MB).saturating_sub(NODE_BYTES.saturating_add(weight_bytes));
        let prefix_bytes_max = left / PREFIX_PART;
        Memory { kv_bytes_max: left - prefix_bytes_max, prefix_bytes_max }
    }

    /// Megabytes that a request with so many bytes of caches takes, with all that is there already.
    pub fn needed_mb(self, weight_bytes: u64, kv_bytes: u64) -> u32 {
        let bytes =
            NODE_BYTES.saturating_add(weight_bytes).saturating_add(self.prefix_bytes_max).saturating_add(kv_bytes);
        u32::try_from(bytes.div_ceil(MB)).unwrap_or(u32::MAX)
    }
}

/// Whether a model fits with one short session.
pub fn check_model(contract: &Consent, weight_bytes: u64, bytes_per_position: u64) -> Result<(), NodeError> {
    let memory = Memory::of(contract, weight_bytes);
    let session = bytes_per_position.saturating_mul(POSITIONS_MIN);
    if session <= memory.kv_bytes_max {
        return Ok(());
    }
    let needed_mb = memory.needed_mb(weight_bytes, session);
    Err(NodeError::DoesNotFit { needed_mb, max_mb: contract.max_ram_mb })
}
