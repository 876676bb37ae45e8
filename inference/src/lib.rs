//! Exact inference of ternary language models: tokens in, tokens and transcript out.
//!
//! The same model and the same tokens give the same bits on every machine, because every number follows
//! [`arith`] (`docs/arithmetic.md`). That is what makes a run checkable by repeating it.
//!
//! This crate refuses to know the chain, records, rewards, the network, and every async runtime. It speaks of tokens,
//! digests and layers; the node translates.
//!
//! Modules in reading order:
//! - [`gguf`] reads model files, [`hyper`] their sizes, [`digest`] names them by content, [`catalog`] finds them;
//! - [`tokenizer`] and [`chat`] turn text into tokens and back;
//! - [`arith`] is the canonical arithmetic in its plainest form, [`kernels`] the same on each CPU, [`pool`] the threads;
//! - [`model`] and [`embedding`] hold the weights in [`memory`], [`kv_cache`] and [`session`] one conversation, [`forward`] the layers;
//! - [`stage`] is some of the layers, for answers that several engines give;
//! - [`sampler`] draws tokens, [`transcript`] commits to a run;
//! - [`generation`] is one request, [`batch`] many at once, [`verify`] a claim checked again;
//! - [`engine`] and [`backend`] are what a node holds, [`pace`] how much of the machine they take; [`energy`] is what it took; [`synthetic`] makes models for benches.

pub mod arith;
pub mod backend;
pub mod batch;
pub mod catalog;
pub mod chat;
pub mod digest;
pub mod embedding;
pub mod energy;
pub mod engine;
pub mod forward;
pub mod generation;
pub mod gguf;
pub mod hyper;
pub mod kernels;
pub mod kv_cache;
pub mod memory;
pub mod model;
pub mod pace;
pub mod pool;
pub mod sampler;
pub mod session;
pub mod stage;
pub mod synthetic;
pub mod tokenizer;
pub mod transcript;
pub mod verify;
