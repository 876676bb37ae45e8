//! Sessions under stable indices.

use super::prefixes::Prefixes;
use crate::kv_cache::KvShape;
use crate::session::Session;

/// Sessions of all tasks, in one slice for the forward pass. A removed session leaves an empty one in its place.
#[derive(Debug)]
pub(super) struct Slab {
    sessions: Vec<Session>,
    free: Vec<usize>,
    /// Those that ended and may be begun from again.
    pub(super) prefixes: Prefixes,
}

impl Slab {
    /// No sessions, and room to keep so many bytes of ended ones.
    pub(super) fn new(prefix_bytes_max: u64) -> Slab {
        Slab { sessions: Vec::new(), free: Vec::new(), prefixes: Prefixes::new(prefix_bytes_max) }
    }

    /// Adds a session and returns its index.
    pub(super) fn insert(&mut self, session: Session) -> usize {
        if let Some(index) = self.free.pop() {
            self.sessions[index] = session;
            return index;
        }
        self.sessions.push(session);
        self.sessions.len() - 1
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, index: usize) -> Session {
        let empty = Session::new(KvShape { layers: 0, kv_heads: 0, head_dim: 0 }, 0, None);
        self.free.push(index);
        std::mem::replace(&mut self.sessions[index], empty)
    }

    pub(super) fn get(&self, index: usize) -> &Session {
        &self.sessions[index]
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Session] {
        &mut self.sessions
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;
    use crate::kv_cache::KvShape;
    use crate::session::Session;

    #[test]
    fn places_are_reused() {
        let shape = KvShape { layers: 1, kv_heads: 1, head_dim: 2 };
        let mut slab = Slab::new(0);
        let a = slab.insert(Session::new(shape, 4, None));
        let b = slab.insert(Session::new(shape, 5, None));
        assert_eq!(slab.remove(a).capacity(), 4);
        assert_eq!(slab.get(a).capacity(), 0);
        assert_eq!(slab.insert(Session::new(shape, 6, None)), a);
        assert_eq!((slab.get(a).capacity(), slab.get(b).capacity()), (6, 5));
        assert_eq!(slab.as_mut_slice().len(), 2);
    }
}
