//! The ARIA node: wires chain, runtime, inference and doors, and is the library behind the binary `aria`.
//!
//! It refuses to decide what the other packages decide: validity is runtime's, arithmetic is inference's, shapes of answers
//! are rpc's. Here are tasks, clocks, files and the order in which they start and stop. In reading order:
//!
//! - [`node`]: how a node starts and stops
//! - [`chain`]: what the services share of the chain
//! - [`accused`]: evidence that waits for a block
//! - [`audit`]: what others check of this node, and what it checks of them
//! - [`network`]: peers, who they are and what they say
//! - [`book`]: where peers were, at rest
//! - [`exchange`]: between peers and the rest of the node
//! - [`consensus`]: from waiting proofs to final blocks
//! - [`snapshot`]: states of the past, for nodes that begin with one
//! - [`consent`]: what this node lets others do with its machine, and that it holds
//! - [`services`]: what the doors get; one answer from order to acknowledged record
//! - [`pipeline`]: one answer by several nodes
//! - [`sobriety`]: what this node tells the chain of its energy
//! - [`model`]: which model is served
//! - [`registrar`]: a voter's word on models that are proposed
//! - [`supervisor`], [`clock`], [`telemetry`]: tasks, time, logs
//! - [`config`], [`data_dir`], [`cli`], [`client`], [`amount`]: what a person sets, where it lies, what a person types
//! - [`commands`]: what each command does
//! - [`error`]: what can go wrong, and the remedy

pub mod accused;
pub mod amount;
pub mod audit;
pub mod book;
pub mod chain;
pub mod cli;
pub mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod consensus;
pub mod consent;
pub mod data_dir;
pub mod error;
pub mod exchange;
pub mod model;
pub mod network;
pub mod node;
pub mod pipeline;
pub mod registrar;
pub mod services;
pub mod snapshot;
pub mod sobriety;
pub mod supervisor;
pub mod telemetry;
