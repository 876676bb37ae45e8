//! Reputation: how a node's checked records have ended. It comes from settled outcomes alone, rises slowly and falls fast.
//!
//! A number between zero and one whole, in parts per million, that moves a part of the way to one or to zero with each outcome:
//! `1/32` up for a record found right, `1/16` down for one that nobody could check, half down for one found wrong and for a
//! verdict found false. Some thirteen right answers make up for one lie.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::params::PPM;

/// Where everybody begins.
pub const BEGIN_PPM: u32 = PPM.div_euclid(2);
/// Below it a voter is not drawn to audit.
pub const DRAWN_FROM_PPM: u32 = PPM.div_euclid(5);

/// A node's reputation, and what it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reputation {
    /// The number.
    pub score_ppm: u32,
    /// Records of this node that auditors found right.
    pub verified: u64,
    /// Records that they found wrong.
    pub refuted: u64,
    /// Records that nobody could check.
    pub unavailable: u64,
    /// Verdicts of this node that were found false.
    pub misjudged: u64,
}

impl Default for Reputation {
    fn default() -> Reputation {
        Reputation { score_ppm: BEGIN_PPM, verified: 0, refuted: 0, unavailable: 0, misjudged: 0 }
    }
}

/// What moves a reputation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A record was found right.
    Verified,
    /// A record was found wrong.
    Refuted,
    /// Nobody could check a record.
    Unavailable,
    /// A verdict was found false.
    Misjudged,
}

impl Reputation {
    /// The reputation after an outcome.
    #[must_use]
    pub fn after(self, outcome: Outcome) -> Reputation {
        let Reputation { score_ppm: score, mut verified, mut refuted, mut unavailable, mut misjudged } = self;
        let count = |number: &mut u64| *number = number.saturating_add(1);
        let score_ppm = match outcome {
            Outcome::Verified => {
                count(&mut verified);
                // Rounded up, or the last part of the way would never be gone.
                score.saturating_add(PPM.saturating_sub(score).div_ceil(32))
            }
            Outcome::Unavailable => {
                count(&mut unavailable);
                score.saturating_sub(score.div_ceil(16))
            }
            Outcome::Refuted => {
                count(&mut refuted);
                score.div_euclid(2)
            }
            Outcome::Misjudged => {
                count(&mut misjudged);
                score.div_euclid(2)
            }
        };
        Reputation { score_ppm, verified, refuted, unavailable, misjudged }
    }

    /// Whether it is good enough to be drawn as an auditor.
    pub fn may_audit(&self) -> bool {
        self.score_ppm >= DRAWN_FROM_PPM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(outcomes: &[(Outcome, u32)]) -> Reputation {
        let all = outcomes.iter().flat_map(|(outcome, times)| (0..*times).map(|_| *outcome));
        all.fold(Reputation::default(), Reputation::after)
    }

    #[test]
    fn it_rises_slowly_and_falls_fast() {
        assert_eq!(after(&[(Outcome::Verified, 1)]).score_ppm, 515_625);
        assert_eq!(after(&[(Outcome::Refuted, 1)]).score_ppm, 250_000);
        assert_eq!(after(&[(Outcome::Misjudged, 1)]).score_ppm, 250_000);
        assert_eq!(after(&[(Outcome::Unavailable, 1)]).score_ppm, 468_750);
        let one_lie = after(&[(Outcome::Refuted, 1), (Outcome::Verified, 13)]).score_ppm;
        assert!(one_lie < 505_000, "thirteen right answers make up for one lie: {one_lie}");
        assert!(!after(&[(Outcome::Refuted, 2)]).may_audit());
        assert!(after(&[(Outcome::Refuted, 1)]).may_audit());
    }

    #[test]
    fn it_stays_within_its_bounds_and_counts() {
        assert_eq!(after(&[(Outcome::Verified, 10_000)]).score_ppm, PPM);
        assert_eq!(after(&[(Outcome::Unavailable, 10_000)]).score_ppm, 0);
        assert_eq!(after(&[(Outcome::Refuted, 10_000)]).score_ppm, 0);
        let all =
            after(&[(Outcome::Verified, 4), (Outcome::Refuted, 3), (Outcome::Unavailable, 2), (Outcome::Misjudged, 1)]);
        assert_eq!((all.verified, all.refuted, all.unavailable, all.misjudged), (4, 3, 2, 1));
    }
}
