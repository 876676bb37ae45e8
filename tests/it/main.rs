//! Whole nodes: real processes, real sockets, real files.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod audits;
mod challenges;
mod clients;
mod command_line;
mod consent;
mod crash;
mod disputes;
mod epochs;
mod hostile;
mod models;
mod network;
mod paid;
mod pipeline;
mod slice;
mod snapshot;
mod stranger;
mod wallet;
