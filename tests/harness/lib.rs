//! Equipment for tests with real processes and real sockets.
//!
//! Knows the program from outside only: its command line, its doors, its files. In reading order:
//! [`node`] starts, asks, kills and stops one node; [`devnet`] a network of them, [`wires`] cut it; [`http`] speaks to their doors. [`decoders`] are the
//! program's own, for the fuzzer.

pub mod decoders;
pub mod devnet;
pub mod http;
pub mod node;
pub mod wires;

pub use devnet::Devnet;
pub use node::{Node, START, aria, refused, told};
