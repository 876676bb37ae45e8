//! The words of the ARIA protocol, and where they rest.
//!
//! This crate knows what a request, a record, a proof and a block are, how they are written as bytes, hashed and signed,
//! when each is well formed by itself, and how final blocks are kept on disk. It refuses to know what a block does to the
//! state (that is runtime's), how tokens come about (inference), and who talks to whom (node). It is synchronous, reads no
//! clock, draws no random number but for keys, and uses no floating point.
//!
//! Modules in reading order:
//!
//! - `units`, `ids`, `limits`: quantities, names and bounds;
//! - `hash`, `codec`, `keys`: domains, bytes, signatures;
//! - `request`, `record`, `proof`: what was asked, what is claimed, the two with all signatures;
//! - `consent`: what a node lets others do with its machine;
//! - `model`: what is said of a model: name and shape;
//! - `transaction`: what accounts order;
//! - `sobriety`: what a node says its answers took;
//! - `attestation`: what auditors say of records;
//! - `merkle`, `block`, `certificate`: records in blocks, blocks in a chain, votes that make them final;
//! - `evidence`: two statements of one validator that contradict each other;
//! - `light`: a record's proof for who has no chain;
//! - `mempool`: proofs and transactions that wait for a block;
//! - `store`: final blocks, state and waiting proofs at rest;
//! - `error`: the rules, one error variant each.

#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic, clippy::disallowed_types)]

pub mod attestation;
pub mod block;
pub mod certificate;
pub mod codec;
pub mod consent;
pub mod error;
pub mod evidence;
pub mod hash;
pub mod ids;
pub mod keys;
pub mod light;
pub mod limits;
pub mod mempool;
pub mod merkle;
pub mod model;
pub mod proof;
pub mod record;
pub mod request;
pub mod sobriety;
pub mod store;
pub mod transaction;
pub mod units;
