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
    /// The same of a second model, where there is one.
    pub beside_bytes_max: u64,
    /// Ended sessions.
    pub prefix_bytes_max: u64,
}

impl Memory {
    /// What a contract leaves beside so many bytes of weights.
    pub fn of(contract: &Consent, weight_bytes: u64) -> Memory {
        let left = (u64::from(contract.max_ram_mb) * MB).saturating_sub(NODE_BYTES.saturating_add(weight_bytes));
        let prefix_bytes_max = left / PREFIX_PART;
        Memory { kv_bytes_max: left - prefix_bytes_max, beside_bytes_max: 0, prefix_bytes_max }
    }

    /// The same where a second model has half of the caches of running requests.
    pub fn halved(self) -> Memory {
        let half = self.kv_bytes_max / 2;
        Memory { kv_bytes_max: half, beside_bytes_max: half, ..self }
    }

    /// Megabytes that a request with so many bytes of caches takes, with all that is there already.
    pub fn needed_mb(self, weight_bytes: u64, kv_bytes: u64) -> u32 {
        let kept = self.beside_bytes_max.saturating_add(self.prefix_bytes_max);
        megabytes(NODE_BYTES.saturating_add(weight_bytes).saturating_add(kept).saturating_add(kv_bytes))
    }

    /// Whether all weights fit with one short session of each model, whose positions take at most so much.
    pub fn check(self, contract: &Consent, weight_bytes: u64, bytes_per_position: u64) -> Result<(), NodeError> {
        let session = bytes_per_position.saturating_mul(POSITIONS_MIN);
        if session <= self.kv_bytes_max {
            return Ok(());
        }
        Err(NodeError::DoesNotFit { needed_mb: self.needed_mb(weight_bytes, session), max_mb: contract.max_ram_mb })
    }
}

/// Whether a second model takes at most half of the memory that the machine has free: strangers choose when audits need it, and
/// what else runs here was there first.
pub fn check_machine(free_bytes: Option<u64>, (weight_bytes, bytes_per_position): (u64, u64)) -> Result<(), NodeError> {
    let needed = weight_bytes.saturating_add(bytes_per_position.saturating_mul(POSITIONS_MIN));
    match free_bytes {
        Some(free) if needed > free / 2 => {
            Err(NodeError::NoMemory { needed_mb: megabytes(needed), free_mb: megabytes(free) })
        }
        Some(_) | None => Ok(()),
    }
}

/// Memory that the machine can still give, where the system tells.
pub fn free_bytes() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/meminfo").ok()?;
    let free = told.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    free.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1_024)
}

fn megabytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(MB)).unwrap_or(u32::MAX)
}
