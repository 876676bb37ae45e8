//! Letters for energy per generated token: how sober an answer was.

use std::fmt;

/// A letter. Lower bounds are inclusive: exactly 30 mJ per token is an A, exactly 150 a D.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rating {
    /// Below 30 mJ per generated token.
    APlus,
    /// From 30 mJ.
    A,
    /// From 50 mJ.
    B,
    /// From 100 mJ.
    C,
    /// From 150 mJ.
    D,
}

/// Where the next letter begins, in microjoules per generated token.
const BOUNDS_UJ: [(u64, Rating); 4] =
    [(30_000, Rating::APlus), (50_000, Rating::A), (100_000, Rating::B), (150_000, Rating::C)];

/// The letter of `energy_uj` spent on `tokens` generated tokens; exact, without division. No tokens, no letter.
pub fn rating(energy_uj: u64, tokens: u64) -> Option<Rating> {
    if tokens == 0 {
        return None;
    }
    let is_below = |bound: u64| u128::from(energy_uj) < u128::from(bound).saturating_mul(u128::from(tokens));
    let letter = BOUNDS_UJ.into_iter().find(|(bound, _)| is_below(*bound));
    Some(letter.map_or(Rating::D, |(_, letter)| letter))
}

impl fmt::Display for Rating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rating::APlus => "A+",
            Rating::A => "A",
            Rating::B => "B",
            Rating::C => "C",
            Rating::D => "D",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(energy_uj: u64, tokens: u64, expected: &str) {
        let letter = rating(energy_uj, tokens).map_or("N/A".to_owned(), |letter| letter.to_string());
        assert_eq!(letter, expected, "{energy_uj} uJ over {tokens} tokens");
    }

    #[test]
    fn lower_bounds_are_inclusive() {
        for (energy_uj, letter) in [
            (0, "A+"),
            (20_000, "A+"),
            (29_990, "A+"),
            (30_000, "A"),
            (40_000, "A"),
            (49_990, "A"),
            (50_000, "B"),
            (99_990, "B"),
            (100_000, "C"),
            (149_990, "C"),
            (150_000, "D"),
            (u64::MAX, "D"),
        ] {
            check(energy_uj, 1, letter);
        }
    }

    #[test]
    fn the_letter_is_per_token_and_exact() {
        check(29_999, 1, "A+");
        check(89_999, 3, "A+");
        check(90_000, 3, "A");
        check(u64::MAX, u64::MAX, "A+");
        check(5_000, 0, "N/A");
        check(0, 0, "N/A");
    }
}
