//! Consensus: a driver without hands, and the loop that lends it some. In `run` alone anything is awaited.

pub mod driver;
pub mod run;
