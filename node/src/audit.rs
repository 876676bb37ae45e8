//! Audits: what a provider keeps for those who check it, and this node's duty as one of them.
//!
//! - [`payload`]: token ids and salts behind a record, kept while somebody may ask for them
//! - [`pool`]: attestations that wait for a block
//! - [`duty`]: for each record that this node was drawn for: fetch, run again, commit, open
//! - [`judge`]: a record run again
//! - [`models`]: with the model that is served, or a second one
//! - `layer`: where a record is false, found by who called it so, and shown to who judges
//! - [`parts`]: such a layer, kept and on the wire
//! - `challenge`: what comes over no wire is asked for on the chain
//! - [`delivery`]: and posted there by its provider
//! - `doubt`: whether another auditor ran it too

mod challenge;
pub mod delivery;
mod doubt;
pub mod duty;
pub mod judge;
mod layer;
pub mod models;
pub mod parts;
pub mod payload;
pub mod pool;
