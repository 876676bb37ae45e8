//! The rules of each kind of content of a block, validated in the context of the state.
//!
//! - [`record`]: may an inference record be included here?
//! - [`evidence`]: what it costs to be accused with proof
//! - [`audit`]: who checks a record, and what follows
//! - [`challenge`]: what comes over no wire is posted on the chain
//! - [`doubt`]: whether an auditor ran what it attested
//! - [`leak`]: whose opening got about before its time
//! - [`sobriety`]: whose energy is believed
//! - [`transaction`]: what accounts order, and what it moves
//! - [`fee`]: what requesters pay, and how much may be minted for it
//! - [`model`]: how a model comes to be registered
//! - [`settle`]: what it earns, and for whom

pub mod audit;
pub mod challenge;
pub mod doubt;
pub mod evidence;
pub mod fee;
pub mod leak;
pub mod model;
pub mod record;
pub mod settle;
pub mod sobriety;
pub mod transaction;
