//! The state transition of an ARIA chain: block x state -> state.
//!
//! Pure: it refuses to know files, clocks, threads, randomness, floats, and inference. Whether a model's answer is true is
//! decided before, by re-execution, and reaches this crate as signatures. Here validity is signatures, sizes and integers,
//! and the same block on the same state gives the same result on every machine.
//!
//! In reading order:
//!
//! - [`execute`]: a proposed block on a state gives changes, or the rule that the block breaks
//! - [`rules`]: each kind of content, validated in the context of the state
//! - [`propose`]: the other way round, a block from what is waiting
//! - [`beacon`]: the chain's random number
//! - [`state`]: keys and values, views, the overlay of changes, the state root
//! - [`genesis`]: the first state, from a file
//! - [`params`]: the numbers all nodes agree on, and the relations between them
//! - [`work`]: what a record stands for, and whose share it is
//! - [`reward`]: what it earns
//! - [`reputation`]: how a node's checked records have ended
//! - [`voters`]: who votes, epoch by epoch
//! - [`election`]: who proposes when
//! - [`rating`]: letters for energy
//! - [`fixed`]: exact fractions with named rounding
//! - [`verify`]: a whole chain, executed again

#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic, clippy::disallowed_types, clippy::arithmetic_side_effects)]

pub mod beacon;
pub mod election;
pub mod execute;
pub mod fixed;
pub mod genesis;
pub mod params;
pub mod propose;
pub mod rating;
pub mod reputation;
pub mod reward;
pub mod rules;
pub mod state;
pub mod verify;
pub mod voters;
pub mod work;
