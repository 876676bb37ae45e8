//! One conversation: its cache, its transcript, and how far it has come.

use crate::kv_cache::{KvCache, KvShape};
use crate::transcript::{Hash, Transcript, boundaries};

/// One sequence of tokens being computed.
#[derive(Clone, Debug)]
pub struct Session {
    /// Keys and values. Invariant: every layer holds exactly `position` of them.
    pub(crate) cache: KvCache,
    /// Commitments, if asked for. Invariant: it has as many positions as the cache.
    pub(crate) transcript: Option<Transcript>,
    /// Next position to compute.
    pub(crate) position: usize,
    /// The residual stream of every position at every boundary, `[position][boundary][dim]`, if another request may begin where this one did:
    /// its transcript has another salt, so it hashes them again.
    pub(crate) states: Option<Vec<f32>>,
}

impl Session {
    /// An empty session with room for `capacity` positions; with a salt it keeps a transcript.
    #[must_use]
    pub fn new(shape: KvShape, capacity: usize, salt: Option<Hash>) -> Session {
        let transcript = salt.map(|salt| Transcript::new(salt, shape.layers));
        Session { cache: KvCache::new(shape, capacity), transcript, position: 0, states: None }
    }

    /// The same, and what it computes can be begun from again, see [`Session::resume`].
    #[must_use]
    pub fn keeping_states(mut self) -> Session {
        self.states = Some(Vec::new());
        self
    }

    /// A session with room for `capacity` positions that begins with the first `positions` of this one, under another salt.
    ///
    /// # Panics
    /// If this one does not keep states, or has not come so far.
    #[must_use]
    pub fn resume(&self, positions: usize, capacity: usize, salt: Hash) -> Session {
        let states = self.states.as_ref().expect("a session that keeps its states");
        assert!(positions <= self.position && positions <= capacity, "positions that were computed");
        let shape = self.cache.shape();
        let per_position = states.len() / self.position.max(1);
        let states = states[..positions * per_position].to_vec();
        let mut transcript = Transcript::new(salt, shape.layers);
        let (maker, mut bytes) = (transcript.leaves(), Vec::new());
        let count = boundaries(shape.layers);
        let mut leaves = vec![[0; 32]; count];
        for (position, states) in (0_u32..).zip(states.chunks_exact(per_position.max(1))) {
            for ((boundary, leaf), state) in (0_u32..).zip(&mut leaves).zip(states.chunks_exact(per_position / count)) {
                *leaf = maker.leaf(boundary, position, state, &mut bytes);
            }
            transcript.push(&leaves);
        }
        let cache = self.cache.copy(positions, capacity);
        Session { cache, transcript: Some(transcript), position: positions, states: Some(states) }
    }

    /// Gives back the memory of positions that were never reached.
    pub(crate) fn shrink(&mut self) {
        self.cache = self.cache.copy(self.position, self.position);
        self.transcript = None;
        if let Some(states) = &mut self.states {
            states.shrink_to_fit();
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.cache.size_bytes() + self.states.as_ref().map_or(0, |states| states.capacity() * size_of::<f32>())
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

    /// A second session that continues from the same prefix. It keeps no states.
    #[must_use]
    pub fn fork(&self) -> Session {
        let cache = self.cache.copy(self.position, self.cache.capacity());
        Session { cache, transcript: self.transcript.clone(), position: self.position, states: None }
    }
}
