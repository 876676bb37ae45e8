//! Keys and values of one session, per layer, as binary16 (R8).
//!
//! Layout `[layer][kv head][position][head_dim]`: the positions of one head are contiguous, which is how attention reads them.

/// Keys and values of one session.
#[derive(Clone, Debug)]
pub struct KvCache {
    shape: KvShape,
    capacity: usize,
    keys: Vec<u16>,
    values: Vec<u16>,
}

/// What of a model decides the size of its caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Layers.
    pub layers: usize,
    /// Key-value heads per layer.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl KvShape {
    /// Bytes of one position: keys and values of every layer.
    #[must_use]
    pub fn bytes_per_position(&self) -> usize {
        self.layers * self.kv_heads * self.head_dim * 2 * size_of::<u16>()
    }
}

impl KvCache {
    /// Room for `capacity` positions. The memory is touched, and so taken from the system, only as positions are written.
    #[must_use]
    pub fn new(shape: KvShape, capacity: usize) -> KvCache {
        let len = shape.layers * shape.kv_heads * shape.head_dim * capacity;
        KvCache { shape, capacity, keys: vec![0; len], values: vec![0; len] }
    }

    /// Positions there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes reserved.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.capacity * self.shape.bytes_per_position()
    }

    /// Stores the keys and values of one position in one layer, `[kv head][head_dim]` each.
    ///
    /// # Panics
    /// If the position is beyond the capacity or a length is wrong.
    pub fn write(&mut self, layer: usize, position: usize, keys: &[u16], values: &[u16]) {
        assert!(position < self.capacity && layer < self.shape.layers, "inside of the cache");
        let dim = self.shape.head_dim;
        assert!(keys.len() == self.shape.kv_heads * dim && values.len() == keys.len(), "every head of a position");
        for (head, (key, value)) in keys.chunks_exact(dim).zip(values.chunks_exact(dim)).enumerate() {
            let at = self.at(layer, head) + position * dim;
            self.keys[at..at + dim].copy_from_slice(key);
            self.values[at..at + dim].copy_from_slice(value);
        }
    }

    /// Keys and values of the first `positions` of one head, `[positions][head_dim]` each.
    #[must_use]
    pub fn head(&self, layer: usize, head: usize, positions: usize) -> (&[u16], &[u16]) {
        assert!(positions <= self.capacity, "inside of the cache");
        let at = self.at(layer, head);
        let range = at..at + positions * self.shape.head_dim;
        (&self.keys[range.clone()], &self.values[range])
    }

    /// What decides its size.
    #[must_use]
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// A cache with room for `capacity` positions and the first `positions` of this one.
    #[must_use]
    pub fn copy(&self, positions: usize, capacity: usize) -> KvCache {
        let mut copy = KvCache::new(self.shape, capacity);
        for layer in 0..self.shape.layers {
            for head in 0..self.shape.kv_heads {
                let (keys, values) = self.head(layer, head, positions);
                let at = copy.at(layer, head);
                copy.keys[at..at + keys.len()].copy_from_slice(keys);
                copy.values[at..at + values.len()].copy_from_slice(values);
            }
        }
        copy
    }

    fn at(&self, layer: usize, head: usize) -> usize {
        (layer * self.shape.kv_heads + head) * self.capacity * self.shape.head_dim
    }
}

#[cfg(test)]
mod tests {
    use super::{KvCache, KvShape};

    const SHAPE: KvShape = KvShape { layers: 2, kv_heads: 2, head_dim: 3 };

    #[test]
    fn what_is_written_is_read_by_head() {
        let mut cache = KvCache::new(SHAPE, 4);
        cache.write(1, 0, &[1, 2, 3, 4, 5, 6], &[7, 8, 9, 10, 11, 12]);
        cache.write(1, 1, &[21, 22, 23, 24, 25, 26], &[27, 28, 29, 30, 31, 32]);
        assert_eq!(cache.head(1, 0, 2), (&[1, 2, 3, 21, 22, 23][..], &[7, 8, 9, 27, 28, 29][..]));
        assert_eq!(cache.head(1, 1, 1), (&[4, 5, 6][..], &[10, 11, 12][..]));
        assert_eq!(cache.head(0, 0, 1), (&[0; 3][..], &[0; 3][..]));
        assert_eq!(cache.size_bytes(), 4 * SHAPE.bytes_per_position());
        assert_eq!(SHAPE.bytes_per_position(), 2 * 2 * 3 * 4);
    }

    #[test]
    fn a_copy_is_independent_whatever_its_room() {
        let mut cache = KvCache::new(SHAPE, 2);
        cache.write(0, 0, &[1; 6], &[2; 6]);
        let mut copy = cache.copy(1, 5);
        copy.write(0, 0, &[9; 6], &[9; 6]);
        assert_eq!(cache.head(0, 0, 1).0, &[1; 3]);
        assert_eq!(copy.head(0, 1, 1).0, &[9; 3]);
        assert_eq!(cache.copy(1, 1).head(0, 1, 1).1, &[2; 3]);
        assert_eq!((copy.capacity(), cache.copy(1, 1).capacity()), (5, 1));
    }
}
