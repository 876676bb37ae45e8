//! One conversation: its cache, its transcript, and how far it has come.

use crate::kv_cache::{KvCache, KvShape};
use crate::transcript::{Hash, Transcript, boundaries, leaf_key};

/// One sequence of tokens being computed.
#[derive(Clone, Debug)]
pub struct Session {
    /// Keys and values. Invariant: every layer holds exactly `position` of them.
    pub(crate) cache: KvCache,
    /// Commitments, if asked for. Invariant: it has as many positions as the cache.
    pub(crate) transcript: Option<Transcript>,
    /// A second transcript of the same run with a secret of the one who verifies.
    pub(crate) witness: Option<Transcript>,
    /// Next position to compute.
    pub(crate) position: usize,
    /// What another request needs to begin like this one.
    pub(crate) states: States,
}

/// The residual stream at every boundary, for the first positions of a session: a transcript with another salt hashes it again.
#[derive(Clone, Debug, Default)]
pub(crate) struct States {
    /// `[position][boundary][dim]`.
    values: Vec<f32>,
    /// Numbers of one position.
    per_position: usize,
    /// Positions that are kept; later ones are not.
    limit: usize,
}

impl States {
    /// Notes the state of one position at one boundary, if the position is to be kept.
    pub(crate) fn note(&mut self, position: usize, boundary: usize, boundaries: usize, state: &[f32]) {
        if position >= self.limit {
            return;
        }
        self.per_position = boundaries * state.len();
        let place = position * self.per_position + boundary * state.len();
        let end = (position + 1) * self.per_position;
        if self.values.len() < end {
            self.values.resize(end, 0.0);
        }
        self.values[place..place + state.len()].copy_from_slice(state);
    }
}

impl Session {
    /// An empty session with room for `capacity` positions; with a salt it keeps a transcript.
    #[must_use]
    pub fn new(shape: KvShape, capacity: usize, salt: Option<Hash>) -> Session {
        Session::under(shape, capacity, salt.map(|salt| leaf_key(&salt)))
    }

    /// An empty session with room for `capacity` positions; with the key of the leaves it keeps a transcript.
    #[must_use]
    pub fn under(shape: KvShape, capacity: usize, leaf_key: Option<Hash>) -> Session {
        Session {
            cache: KvCache::new(shape, capacity),
            transcript: leaf_key.map(|key| Transcript::new(key, shape.layers)),
            witness: None,
            position: 0,
            states: States::default(),
        }
    }

    /// The same, with a second transcript of the run under a secret of its own.
    #[must_use]
    pub fn with_witness(mut self, shape: KvShape, secret: Option<Hash>) -> Session {
        self.witness = secret.map(|secret| Transcript::new(leaf_key(&secret), shape.layers));
        self
    }

    /// The same, and its first `limit` positions can be begun from again, see [`Session::resume`].
    #[must_use]
    pub fn keeping_states(mut self, limit: usize) -> Session {
        self.states.limit = limit;
        self
    }

    /// Positions from which another session can begin.
    #[must_use]
    pub fn resumable(&self) -> usize {
        self.position.min(self.states.limit)
    }

    /// A session with room for `capacity` positions that begins with the first `positions` of this one, under another salt.
    ///
    /// # Panics
    /// If `positions` is more than [`Session::resumable`] or `capacity`.
    #[must_use]
    pub fn resume(&self, positions: usize, capacity: usize, salt: Hash) -> Session {
        assert!(positions <= self.resumable() && positions <= capacity, "positions that were kept");
        let shape = self.cache.shape();
        let count = boundaries(shape.layers);
        let per_position = self.states.per_position;
        let values = self.states.values[..positions * per_position].to_vec();
        let mut transcript = Transcript::new(leaf_key(&salt), shape.layers);
        let (maker, mut bytes) = (transcript.leaves(), Vec::new());
        let mut leaves = vec![[0; 32]; count];
        for (position, states) in (0_u32..).zip(values.chunks_exact(per_position.max(1))) {
            for ((boundary, leaf), state) in (0_u32..).zip(&mut leaves).zip(states.chunks_exact(per_position / count)) {
                *leaf = maker.leaf(boundary, position, state, &mut bytes);
            }
            transcript.push(&leaves);
        }
        let cache = self.cache.copy(positions, capacity);
        Session {
            cache,
            transcript: Some(transcript),
            witness: None,
            position: positions,
            states: States { values, per_position, limit: 0 },
        }
    }

    /// Keeps only what others can begin from.
    pub(crate) fn shrink(&mut self) {
        self.position = self.resumable();
        self.cache = self.cache.copy(self.position, self.position);
        self.transcript = None;
        self.witness = None;
        self.states.values.truncate(self.position * self.states.per_position);
        self.states.values.shrink_to_fit();
    }

    /// Bytes held.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.cache.size_bytes() + self.states.values.capacity() * size_of::<f32>()
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

    /// The second transcript, if it keeps one.
    #[must_use]
    pub fn witness(&self) -> Option<&Transcript> {
        self.witness.as_ref()
    }

    /// A second session that continues from the same prefix. It keeps no states.
    #[must_use]
    pub fn fork(&self) -> Session {
        let cache = self.cache.copy(self.position, self.cache.capacity());
        Session {
            cache,
            transcript: self.transcript.clone(),
            witness: self.witness.clone(),
            position: self.position,
            states: States::default(),
        }
    }
}
