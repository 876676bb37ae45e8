//! Consensus: a driver without hands around the Tendermint core, and the loop that lends it some. In `run` alone anything is
//! awaited.
//!
//! In reading order:
//!
//! - [`driver`]: events in, actions out
//! - [`context`]: our heights, blocks and validators in the words of the core
//! - [`crypto`]: who signed what
//! - [`message`]: what validators say to each other
//! - [`log`]: what was heard and said at this height
//! - [`evidence`]: who contradicted itself, with proof
//! - [`guard`]: in each place a key signs once
//! - [`hands`]: blocks made, checked and committed
//! - [`talk`]: what else nodes say to each other
//! - [`catch_up`]: whom to ask for blocks
//! - [`ahead`]: their proofs, verified while others are written
//! - [`run`]: the loop

pub mod ahead;
pub mod catch_up;
pub mod context;
pub mod crypto;
pub mod driver;
pub mod evidence;
pub mod guard;
pub mod hands;
pub mod log;
pub mod message;
pub mod run;
pub mod talk;
