//! The reward of a verified record: base rate x quality x efficiency, in exact integers.
//!
//! Quality falls with the time that an answer of a fixed length would have taken, so that long answers are not
//! punished; efficiency grows as energy per generated token falls. All rounding is against the payee and happens at
//! three named places: the time is rounded up, quality and efficiency down, the product down.

use std::num::NonZeroU64;

use aria_chain::record::{EnergySource, InferenceRecord};
use aria_chain::units::NanoAria;

use crate::fixed::{Fixed, scale_ceil};
use crate::params::{PPM, Params};
use crate::work::{counted_tokens, work};

/// What a record claims about its run, as far as money depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Tokens generated.
    pub tokens: u64,
    /// Time to the first token.
    pub first_token_ms: u64,
    /// Time to the last.
    pub latency_ms: u64,
    /// Energy of the run; zero stands for unknown.
    pub energy_uj: u64,
    /// Whether the energy was measured. An estimate never earns a bonus.
    pub is_measured: bool,
    /// Whether it was compared with that of others: [`crate::rules::sobriety`]. Without it there is no bonus either.
    pub is_vouched: bool,
    /// Operations of the run: what the physical floor of energy is reckoned from.
    pub ops: u64,
}

impl Effort {
    /// That of a record, on a model with so many operations a token, for whose energy nobody vouches.
    pub fn of(record: &InferenceRecord, ops_per_token: u64, params: &Params) -> Effort {
        let tokens = counted_tokens(record.prompt_tokens, record.tokens_generated, params.prompt_credit_ratio);
        Effort {
            tokens: u64::from(record.tokens_generated),
            first_token_ms: record.first_token_ms.get(),
            latency_ms: record.latency_ms.get(),
            energy_uj: record.energy_uj.get(),
            is_measured: record.energy_source == EnergySource::Measured,
            is_vouched: false,
            ops: work(tokens, ops_per_token).get(),
        }
    }
}

/// The reward of a record. Nothing was generated, nothing is paid.
pub fn reward(effort: &Effort, params: &Params) -> NanoAria {
    if effort.tokens == 0 {
        return NanoAria::ZERO;
    }
    let factor = quality(effort, params);
    let paid = factor.of_floor(efficiency(effort, params), params.base_rate_nano);
    NanoAria::new(paid.expect("quality is at most one, and `Params::check` bounds base rate times bonus to 64 bits"))
}

/// `clamp(1 - (time - full) / span, 0, 1)`, where time is that of an answer of [`Params::quality_tokens`].
pub fn quality(effort: &Effort, params: &Params) -> Fixed {
    let late_ms = answer_time_ms(effort, params).saturating_sub(params.quality_full_ms);
    Fixed::ONE.minus_or_zero(Fixed::ratio_ceil(late_ms, params.quality_span()))
}

/// Time to the first token plus [`Params::quality_tokens`] times the mean time of a further token. A run of one token
/// has no further token: its time is its latency.
fn answer_time_ms(effort: &Effort, params: &Params) -> u64 {
    let Some(further) = NonZeroU64::new(effort.tokens.saturating_sub(1)) else {
        return effort.latency_ms;
    };
    let decode_ms = effort.latency_ms.saturating_sub(effort.first_token_ms);
    let scaled = scale_ceil(decode_ms, u64::from(params.quality_tokens), further);
    effort.first_token_ms.saturating_add(scaled)
}

/// `clamp(baseline / energy per generated token, min, max)`; at most one whole for an estimate and where nobody vouches, exactly one whole where
/// the energy is unknown. A claim below the physical floor of the work counts as the floor.
pub fn efficiency(effort: &Effort, params: &Params) -> Fixed {
    let Some(energy_uj) = counted_energy_uj(effort, params) else {
        return Fixed::ONE;
    };
    let baseline = params.energy_baseline_uj.saturating_mul(effort.tokens);
    let bonus_max = if effort.is_measured && effort.is_vouched { params.bonus_max_ppm } else { PPM };
    let bounds = (Fixed::from_ppm(params.bonus_min_ppm), Fixed::from_ppm(bonus_max));
    Fixed::ratio_floor(baseline, energy_uj).max(bounds.0).min(bounds.1)
}

/// The energy that counts: what is claimed, no less than the physical floor of the work. `None` where it is unknown.
pub fn counted_energy_uj(effort: &Effort, params: &Params) -> Option<NonZeroU64> {
    Some(NonZeroU64::new(effort.energy_uj)?.max(energy_floor_uj(effort.ops, params)))
}

/// Least energy that so many operations can take.
fn energy_floor_uj(ops: u64, params: &Params) -> NonZeroU64 {
    const GIGA: NonZeroU64 = NonZeroU64::new(1_000_000_000).expect("10^9 is not zero");
    let floor = scale_ceil(ops, params.energy_floor_uj_per_gigaop, GIGA);
    NonZeroU64::new(floor).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::tests::params;

    /// A measured answer of `tokens` tokens in `latency_ms`, the first after `first_token_ms`.
    fn effort(tokens: u64, first_token_ms: u64, latency_ms: u64, energy_uj: u64) -> Effort {
        Effort { tokens, first_token_ms, latency_ms, energy_uj, is_measured: true, is_vouched: true, ops: 0 }
    }

    #[track_caller]
    fn check(effort: &Effort, expected_nano: u64) {
        assert_eq!(reward(effort, &params()), NanoAria::new(expected_nano), "{effort:?}");
    }

    #[test]
    fn a_long_answer_is_judged_like_a_short_one() {
        // 20 ms per further token: 200 + 50 x 20 = 1200 ms, whatever the length.
        for tokens in [2_u64, 51, 401, 2_001] {
            check(&effort(tokens, 200, 200 + 20 * (tokens - 1), 28_000 * tokens), 1_900_000);
        }
    }

    #[test]
    fn one_token_is_judged_by_its_latency() {
        check(&effort(1, 1_200, 1_200, 28_000), 1_900_000);
        check(&effort(1, 0, 1_200, 28_000), 1_900_000);
    }

    #[test]
    fn a_first_token_after_the_end_gains_nothing() {
        // Admission refuses such a record; the formula stays sound all the same.
        assert_eq!(quality(&effort(51, 9_000, 100, 1), &params()), Fixed::ZERO);
    }

    #[test]
    fn an_estimate_earns_no_bonus() {
        let estimated = |energy_uj| Effort { is_measured: false, ..effort(1, 0, 1_000, energy_uj) };
        check(&estimated(28_000), 1_000_000);
        check(&estimated(150_000), 1_000_000);
        check(&estimated(200_000), 750_000);
        check(&estimated(900_000), 500_000);
    }

    #[test]
    fn unknown_energy_is_neutral_and_no_tokens_earn_nothing() {
        check(&effort(1, 0, 1_000, 0), 1_000_000);
        check(&effort(0, 0, 1_000, 28_000), 0);
    }

    #[test]
    fn energy_below_the_floor_counts_as_the_floor() {
        // 200 giga-operations take at least 200,000 uJ here, whatever the record says.
        let claimed = Effort { ops: 200_000_000_000, ..effort(1, 0, 1_000, 1) };
        check(&claimed, 750_000);
    }

    #[test]
    fn rounding_is_against_the_payee() {
        // 3 further tokens in 1 ms: 50 / 3 rounds up to 17 ms.
        let late = effort(4, 1_000, 1_001, 600_000);
        assert_eq!(quality(&late, &params()), Fixed::ONE.minus_or_zero(Fixed::from_ppm(4_250)));
        check(&effort(1, 0, 1_000, 149_999), 1_000_006);
    }

    #[test]
    fn extremes_do_not_overflow() {
        check(&effort(u64::MAX, u64::MAX, u64::MAX, u64::MAX), 0);
        check(&effort(u64::MAX, 0, 0, u64::MAX), 1_000_000);
        check(&effort(1, 0, 0, 1), 2_000_000);
    }
}
