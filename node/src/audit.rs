//! Audits: what a provider keeps for those who check it, and this node's duty as one of them.
//!
//! - [`payload`]: token ids and salts behind a record, kept until its audit ends
//! - [`pool`]: attestations that wait for a block
//! - [`duty`]: for each record that this node was drawn for: fetch, run again, commit, open

pub mod duty;
pub mod payload;
pub mod pool;
