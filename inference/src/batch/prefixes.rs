//! Ended sessions, kept for requests that begin like them: the next turn of a conversation, a shared system prompt.
//!
//! What is kept is bounded in bytes, the states that the transcript needs included; the longest unused goes first. A request that starts from
//! here gives the same bits as one that does not: same keys and values, same states, hashed with its own salt.

use crate::session::Session;

/// Shorter beginnings are computed faster than they are found and copied.
const POSITIONS_MIN: usize = 8;

/// Kept sessions, the most recently used last.
#[derive(Debug)]
pub(super) struct Prefixes {
    entries: Vec<Entry>,
    bytes_max: usize,
    /// Promised to sessions that are still running.
    reserved: usize,
}

#[derive(Debug)]
struct Entry {
    /// As many as the session has positions.
    tokens: Vec<u32>,
    session: Session,
}

impl Prefixes {
    pub(super) fn new(bytes_max: u64) -> Prefixes {
        Prefixes { entries: Vec::new(), bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX), reserved: 0 }
    }

    /// Keeps no more than this from now on.
    pub(super) fn limit(&mut self, bytes_max: u64) {
        self.bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        self.forget();
    }

    /// Promises room for as many of `positions` as there can be, and makes it by forgetting others.
    pub(super) fn reserve(&mut self, positions: usize, per_position: usize) -> usize {
        let granted = positions.min(self.bytes_max.saturating_sub(self.reserved) / per_position);
        self.reserved += granted * per_position;
        self.forget();
        granted
    }

    /// Takes a promise back.
    pub(super) fn release(&mut self, bytes: usize) {
        self.reserved -= bytes;
    }

    /// The kept session that shares the longest beginning with `prompt`, and how many positions of it serve. The last token of a prompt is
    /// always computed: its logits are wanted.
    pub(super) fn find(&mut self, prompt: &[u32]) -> Option<(&Session, usize)> {
        let usable = &prompt[..prompt.len() - 1];
        let shared = |entry: &Entry| entry.tokens.iter().zip(usable).take_while(|(a, b)| a == b).count();
        let (index, positions) =
            self.entries.iter().map(shared).enumerate().max_by_key(|&(index, shared)| (shared, index))?;
        if positions < POSITIONS_MIN {
            return None;
        }
        let entry = self.entries.remove(index);
        self.entries.push(entry);
        self.entries.last().map(|entry| (&entry.session, positions))
    }

    /// Keeps what can be kept of a session that ended, in place of those that it continues.
    pub(super) fn keep(&mut self, mut tokens: Vec<u32>, mut session: Session) {
        session.shrink();
        tokens.truncate(session.position());
        if tokens.len() < POSITIONS_MIN {
            return;
        }
        self.entries.retain(|entry| !tokens.starts_with(&entry.tokens));
        self.entries.push(Entry { tokens, session });
        self.forget();
    }

    fn forget(&mut self) {
        let mut bytes: usize = self.entries.iter().map(|entry| entry.session.size_bytes()).sum();
        while bytes + self.reserved > self.bytes_max && !self.entries.is_empty() {
            bytes -= self.entries.remove(0).session.size_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Prefixes;
    use crate::kv_cache::KvShape;
    use crate::session::Session;

    const SHAPE: KvShape = KvShape { layers: 1, kv_heads: 1, head_dim: 2 };

    /// A session of so many positions, with the states that a model of width 4 would leave.
    fn session(positions: usize) -> Session {
        let mut session = Session::new(SHAPE, positions, None).keeping_states(positions);
        session.position = positions;
        for position in 0..positions {
            session.states.note(position, 0, 3, &[1.0; 4]);
        }
        session
    }

    const PER_POSITION: usize = 8 + 3 * 4 * 4;

    #[test]
    fn the_longest_beginning_is_found_and_the_last_token_never_counts() {
        let mut prefixes = Prefixes::new(1 << 20);
        prefixes.keep((0..20).collect(), session(20));
        prefixes.keep((0..10).chain(50..60).collect(), session(20));
        let find = |prefixes: &mut Prefixes, prompt: Vec<u32>| prefixes.find(&prompt).map(|(_, positions)| positions);
        assert_eq!(find(&mut prefixes, (0..30).collect()), Some(20));
        assert_eq!(find(&mut prefixes, (0..20).collect()), Some(19));
        assert_eq!(find(&mut prefixes, (0..10).chain([50, 51, 9]).collect()), Some(12));
        assert_eq!(find(&mut prefixes, (0..8).collect()), None, "seven would be too few");
        assert_eq!(find(&mut prefixes, vec![7]), None);
    }

    #[test]
    fn memory_is_bounded_and_the_longest_unused_goes_first() {
        let mut prefixes = Prefixes::new(3 * 20 * PER_POSITION as u64);
        for start in [0, 100, 200] {
            prefixes.keep((start..start + 20).collect(), session(20));
        }
        assert!(prefixes.find(&(0..20).collect::<Vec<_>>()).is_some(), "used now");
        prefixes.keep((300..320).collect(), session(20));
        assert!(prefixes.find(&(100..120).collect::<Vec<_>>()).is_none(), "the longest unused");
        assert!(prefixes.find(&(0..20).collect::<Vec<_>>()).is_some());
        assert_eq!(prefixes.reserve(40, PER_POSITION), 40);
        assert_eq!(prefixes.entries.len(), 1);
        assert_eq!(prefixes.reserve(40, PER_POSITION), 20, "the rest is promised to others");
        assert!(prefixes.entries.is_empty());
        prefixes.release(60 * PER_POSITION);
        assert_eq!(prefixes.reserve(100, PER_POSITION), 60);
    }

    #[test]
    fn a_continuation_takes_the_place_of_what_it_continues() {
        let mut prefixes = Prefixes::new(1 << 20);
        prefixes.keep((0..10).collect(), session(10));
        prefixes.keep((0..30).collect(), session(30));
        assert_eq!(prefixes.entries.len(), 1);
        prefixes.keep((60..70).collect(), session(10).keeping_states(0));
        assert_eq!(prefixes.entries.len(), 1, "without states it is of no use");
        prefixes.keep((60..90).collect(), session(30).keeping_states(12));
        assert_eq!(prefixes.entries[1].tokens.len(), 12, "what was kept of it is");
    }
}
