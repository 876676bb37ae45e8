//! A hash of the whole state that is updated entry by entry.
//!
//! Every entry (key and value) is stretched to 1024 numbers of 16 bits by BLAKE3; the state's sum adds them lane by
//! lane, modulo 2^16. Adding and removing commute, so the sum depends on the set of entries alone: not on the order of
//! changes, not on the way that led there. This is the construction known as LtHash (lattice hash, lanes of 16 bits,
//! 1024 of them), whose collisions are as hard as short vectors in a lattice, above 2^200 operations for these sizes.
//! The state root is the BLAKE3 hash of the sum. See `docs/decisions/0010-state-root.md`.

use aria_chain::ids::Digest;

/// Numbers in a sum.
const LANES: usize = 1_024;

/// Encoded size of a sum.
pub const LATTICE_BYTES: usize = LANES * 2;

/// Domain of an entry's numbers.
const ENTRY_DOMAIN: &str = "aria/state-entry/v1";

/// Domain of the state root.
const ROOT_DOMAIN: &str = "aria/state-root/v1";

/// The sum over a set of entries.
#[derive(Clone, PartialEq, Eq)]
pub struct Lattice(Box<[u16; LANES]>);

impl Lattice {
    /// The sum over no entries.
    pub fn empty() -> Lattice {
        Lattice(Box::new([0; LANES]))
    }

    /// Adds an entry. The caller knows that the set does not hold it.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let numbers = entry_numbers(key, value);
        for (sum, number) in self.0.iter_mut().zip(numbers.0.iter()) {
            *sum = sum.wrapping_add(*number);
        }
    }

    /// Removes an entry. The caller knows that the set holds it.
    pub fn remove(&mut self, key: &[u8], value: &[u8]) {
        let numbers = entry_numbers(key, value);
        for (sum, number) in self.0.iter_mut().zip(numbers.0.iter()) {
            *sum = sum.wrapping_sub(*number);
        }
    }

    /// The state root of this sum.
    pub fn root(&self) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key(ROOT_DOMAIN);
        Digest::new(*hasher.update(&self.to_bytes()).finalize().as_bytes())
    }

    /// The sum as bytes: its numbers in order, each little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// The sum from its bytes, or nothing if there are too many or too few.
    pub fn from_bytes(bytes: &[u8]) -> Option<Lattice> {
        if bytes.len() != LATTICE_BYTES {
            return None;
        }
        let mut sum = Lattice::empty();
        let (pairs, _) = bytes.as_chunks::<2>();
        for (number, pair) in sum.0.iter_mut().zip(pairs) {
            *number = u16::from_le_bytes(*pair);
        }
        Some(sum)
    }
}

impl std::fmt::Debug for Lattice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lattice(root {})", self.root())
    }
}

/// The numbers of one entry. The key's length goes first, so that no two entries feed the hash the same bytes.
fn entry_numbers(key: &[u8], value: &[u8]) -> Lattice {
    let length = u64::try_from(key.len()).expect("a key's length has at most 64 bits");
    let mut hasher = blake3::Hasher::new_derive_key(ENTRY_DOMAIN);
    hasher.update(&length.to_le_bytes()).update(key).update(value);
    let mut bytes = [0; LATTICE_BYTES];
    hasher.finalize_xof().fill(&mut bytes);
    Lattice::from_bytes(&bytes).expect("the array has the size of a sum")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of(entries: &[(&str, &str)]) -> Lattice {
        let mut sum = Lattice::empty();
        for (key, value) in entries {
            sum.add(key.as_bytes(), value.as_bytes());
        }
        sum
    }

    #[test]
    fn order_does_not_matter() {
        let one = sum_of(&[("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(one, sum_of(&[("c", "3"), ("a", "1"), ("b", "2")]));
    }

    #[test]
    fn removing_undoes_adding() {
        let mut sum = sum_of(&[("a", "1"), ("b", "2")]);
        sum.remove(b"b", b"2");
        assert_eq!(sum, sum_of(&[("a", "1")]));
        sum.remove(b"a", b"1");
        assert_eq!(sum, Lattice::empty());
    }

    #[test]
    fn every_difference_shows_in_the_root() {
        let roots: std::collections::BTreeSet<Digest> = [
            sum_of(&[]),
            sum_of(&[("a", "1")]),
            sum_of(&[("a", "2")]),
            sum_of(&[("b", "1")]),
            sum_of(&[("a", "1"), ("b", "1")]),
            sum_of(&[("a", "1"), ("a", "1")]),
            sum_of(&[("a1", "")]),
            sum_of(&[("", "a1")]),
        ]
        .iter()
        .map(Lattice::root)
        .collect();
        assert_eq!(roots.len(), 8);
    }

    #[test]
    fn bytes_round_trip_and_wrong_sizes_are_refused() {
        let sum = sum_of(&[("a", "1")]);
        assert_eq!(Lattice::from_bytes(&sum.to_bytes()), Some(sum.clone()));
        assert_eq!(sum.to_bytes().len(), LATTICE_BYTES);
        assert_eq!(Lattice::from_bytes(&sum.to_bytes()[1..]), None);
        assert_eq!(Lattice::from_bytes(&[0; LATTICE_BYTES + 1]), None);
    }

    #[test]
    fn sums_wrap_lane_by_lane() {
        let mut sum = Lattice::from_bytes(&[0xff; LATTICE_BYTES]).unwrap();
        let before = sum.clone();
        sum.add(b"k", b"v");
        sum.remove(b"k", b"v");
        assert_eq!(sum, before);
    }

    #[test]
    fn roots_are_pinned() {
        // Changing either is a consensus change.
        assert_eq!(
            Lattice::empty().root().to_string(),
            "346e3f4bb5aacefc6a80d2a77c54de957a06b6b5316756bf56caa1a22cb65abb"
        );
        assert_eq!(
            sum_of(&[("key", "value")]).root().to_string(),
            "137da8236081bef3c8bcc060cac5f4595da4c8c116701b413a43a509327d822a"
        );
    }
}
