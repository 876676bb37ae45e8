//! One conversation: its cache, its transcript, and how far it has come.

use crate::kv_cache::{KvCache, KvShape};
use crate::transcript::{Hash, Transcript};

/// One sequence of tokens being computed.
#[derive(Clone, Debug)]
pub struct Session {
    /// Keys and values. Invariant: every layer holds exactly `position` of them.
    pub(crate) cache: KvCache,
    /// Commitments, if asked for. Invariant: it has as many positions as the cache.
    pub(crate) transcript: Option<Transcript>,
    /// Next position to compute.
    pub(crate) position: usize,
}

impl Session {
    /// An empty session with room for `capacity` positions; with a salt it keeps a transcript.
    #[must_use]
    pub fn new(shape: KvShape, capacity: usize, salt: Option<Hash>) -> Session {
        let transcript = salt.map(|salt| Transcript::new(salt, shape.layers));
        Session { cache: KvCache::new(shape, capacity), transcript, position: 0 }
    }

    /// Next position to compute, which is also the number computed.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Positions there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// The commitments so far, if this session keeps them.
    #[must_use]
    pub fn transcript(&self) -> Option<&Transcript> {
        self.transcript.as_ref()
    }

    /// A second session that continues from the same prefix.
    #[must_use]
    pub fn fork(&self) -> Session {
        Session { cache: self.cache.fork(self.position), transcript: self.transcript.clone(), position: self.position }
    }
}
