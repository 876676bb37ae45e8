//! R1: what a row of a pass could not compute.

/// Where in the pass a number stopped being finite (R1). With the position it is part of the canonical result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultCode {
    /// The norm before attention, or a product that could overflow after it.
    AttentionNorm,
    /// A key or value does not fit binary16.
    Cache,
    /// An attention score.
    Score,
    /// The norm after attention.
    AttentionSubNorm,
    /// The norm before the feed-forward part.
    FeedForwardNorm,
    /// The norm after the gate.
    FeedForwardSubNorm,
    /// The final norm.
    OutputNorm,
    /// A logit.
    Logits,
}

/// The first thing of a row that was not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// Which step.
    pub code: FaultCode,
    /// In which layer; the number of layers for the steps after the last.
    pub layer: u32,
}
