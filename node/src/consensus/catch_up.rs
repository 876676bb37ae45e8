//! Which peer to ask for the blocks that this node lacks. No IO, no clock of its own.
//!
//! One question at a time, to a peer that says it has more; who does not answer in time is passed over for a while. Ranges
//! begin right above the tip, so that no gap can be left behind.

use std::collections::HashMap;

use aria_chain::ids::NodeId;
use aria_chain::units::Height;

/// How long an answer may take.
const ANSWER_MAX_MS: u64 = 5_000;
/// How long a node that is one block behind waits for the votes of that block before it asks.
const PATIENCE_MS: u64 = 1_500;
/// How long a peer that did not answer is passed over.
const PASS_OVER_MS: u64 = 30_000;

/// The state of catching up.
#[derive(Debug, Default)]
pub struct CatchUp {
    /// What peers say they have.
    tips: HashMap<NodeId, Height>,
    passed_over: HashMap<NodeId, u64>,
    /// Whom we asked, when, and from which height.
    asked: Option<(NodeId, u64, Height)>,
    /// Since when the tip has not moved although a peer has more.
    behind_since: Option<(Height, u64)>,
}

impl CatchUp {
    /// A peer says where it is.
    pub fn heard(&mut self, peer: NodeId, tip: Height) {
        self.tips.insert(peer, tip);
    }

    /// A peer is gone.
    pub fn gone(&mut self, peer: &NodeId) {
        self.tips.remove(peer);
        self.passed_over.remove(peer);
        if self.asked.is_some_and(|(asked, ..)| asked == *peer) {
            self.asked = None;
        }
    }

    /// How many blocks the best peer is ahead.
    pub fn behind(&self, tip: Height) -> u64 {
        self.tips.values().max().map_or(0, |best| best.get().saturating_sub(tip.get()))
    }

    /// Whom to ask now for the blocks above `tip`, if anyone.
    pub fn next_question(&mut self, tip: Height, now_ms: u64) -> Option<NodeId> {
        if let Some((peer, since, _)) = self.asked {
            if now_ms.saturating_sub(since) < ANSWER_MAX_MS {
                return None;
            }
            tracing::debug!(%peer, "did not answer with blocks in time");
            self.passed_over.insert(peer, now_ms.saturating_add(PASS_OVER_MS));
            self.asked = None;
        }
        let behind = self.behind(tip);
        if behind == 0 {
            self.behind_since = None;
            return None;
        }
        let since = match self.behind_since {
            Some((at, since)) if at == tip => since,
            _ => {
                self.behind_since = Some((tip, now_ms));
                now_ms
            }
        };
        // The votes of the very next block are most likely on their way.
        if behind == 1 && now_ms.saturating_sub(since) < PATIENCE_MS {
            return None;
        }
        self.passed_over.retain(|_, until| *until > now_ms);
        let candidates = self.tips.iter().filter(|(peer, has)| **has > tip && !self.passed_over.contains_key(*peer));
        let (peer, _) = candidates.max_by_key(|(peer, has)| (**has, **peer))?;
        let peer = *peer;
        self.asked = Some((peer, now_ms, tip));
        Some(peer)
    }

    /// Whether blocks from this peer that begin at `first` were asked for. They count once. Who has none of the blocks, because
    /// it began above them, is passed over. What begins elsewhere answers a question of before.
    pub fn answered(&mut self, peer: &NodeId, first: Option<Height>, now_ms: u64) -> bool {
        let is_asked = self
            .asked
            .is_some_and(|(asked, _, tip)| asked == *peer && first.is_none_or(|first| Some(tip) == first.previous()));
        if is_asked {
            self.asked = None;
            if first.is_none() {
                self.passed_over.insert(*peer, now_ms.saturating_add(PASS_OVER_MS));
            }
        }
        is_asked
    }

    /// This node was busy until now: the peer that was asked has its time from here on.
    pub fn wait_from(&mut self, now_ms: u64) {
        if let Some((_, since, _)) = &mut self.asked {
            *since = now_ms;
        }
    }

    /// Whatever was asked is no longer wanted.
    pub fn forget_question(&mut self) {
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> NodeId {
        NodeId::new([number; 32])
    }

    fn at(height: u64) -> Height {
        Height::new(height)
    }

    #[test]
    fn nobody_is_asked_without_need() {
        let mut sync = CatchUp::default();
        assert_eq!(sync.next_question(at(5), 0), None);
        sync.heard(peer(1), at(5));
        assert_eq!(sync.next_question(at(5), 0), None);
        sync.heard(peer(1), at(6));
        assert_eq!(sync.next_question(at(5), 10), None, "the votes are on their way");
        assert_eq!(sync.next_question(at(5), 10 + PATIENCE_MS), Some(peer(1)));
    }

    #[test]
    fn who_has_none_of_the_blocks_is_passed_over() {
        let mut sync = CatchUp::default();
        sync.heard(peer(1), at(50));
        sync.heard(peer(2), at(60));
        assert_eq!(sync.next_question(at(5), 0), Some(peer(2)));
        assert!(sync.answered(&peer(2), None, 0));
        assert_eq!(sync.next_question(at(5), 0), Some(peer(1)));
    }

    #[test]
    fn one_question_at_a_time_and_silence_is_passed_over() {
        let mut sync = CatchUp::default();
        sync.heard(peer(1), at(50));
        sync.heard(peer(2), at(60));
        assert_eq!(sync.next_question(at(5), 0), Some(peer(2)));
        assert_eq!(sync.next_question(at(5), ANSWER_MAX_MS - 1), None);
        assert_eq!(sync.next_question(at(5), ANSWER_MAX_MS), Some(peer(1)));
        assert!(!sync.answered(&peer(2), Some(at(6)), ANSWER_MAX_MS), "too late");
        assert!(!sync.answered(&peer(1), Some(at(9)), ANSWER_MAX_MS), "of another question");
        assert!(sync.answered(&peer(1), Some(at(6)), ANSWER_MAX_MS));
        assert!(!sync.answered(&peer(1), Some(at(6)), ANSWER_MAX_MS), "once");
        assert_eq!(sync.next_question(at(40), ANSWER_MAX_MS), Some(peer(1)));
        sync.gone(&peer(1));
        assert_eq!(sync.next_question(at(40), ANSWER_MAX_MS), None);
        let later = ANSWER_MAX_MS + PASS_OVER_MS;
        assert_eq!(sync.next_question(at(40), later), Some(peer(2)));
    }
}
