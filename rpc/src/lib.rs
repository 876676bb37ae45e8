//! The doors of an ARIA node: the OpenAI API, JSON-RPC for the chain, and the status page.
//!
//! This crate knows HTTP, JSON and who may come in. It refuses to know how answers are made or blocks decided: all it asks
//! of a node stands in [`services::Services`], which the node implements. In reading order:
//!
//! - [`services`]: what the doors ask of a node
//! - [`openai`]: models, chat and text completions, health, metrics
//! - [`chain`]: JSON-RPC over HTTP and WebSocket
//! - [`dashboard`]: the status page
//! - [`consent`]: a consent contract as JSON
//! - [`admin`]: the private door
//! - [`auth`]: who may come in
//! - [`server`]: the accept loop

pub mod admin;
pub mod auth;
pub mod chain;
pub mod consent;
pub mod dashboard;
pub mod openai;
pub mod server;
pub mod services;

pub use axum::Router;
