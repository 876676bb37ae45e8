//! Consensus in a world of its own: a clock that jumps, a network that loses, delays, doubles and cuts, disks that forget
//! what was not flushed, and validators that lie. The drivers are the real ones. One seed is one run; a failure names it.
//!
//! `ARIA_SIM_SEEDS=1000 cargo test --release -p aria-tests --test sim` runs more seeds of every kind.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

mod disk;
mod faults;
mod liar;
mod locks;
mod node;
mod safety;
mod world;
