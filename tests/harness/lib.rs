//! Equipment for tests with real processes and real sockets.
//!
//! Knows the program from outside only: its command line, its doors, its files. In reading order:
//! [`node`] starts, asks, kills and stops one node; [`http`] speaks to its doors.

pub mod http;
pub mod node;

pub use node::{Node, aria};
