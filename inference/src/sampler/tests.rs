//! Each rule of R12 and R13 on cases small enough to compute by hand.

use super::{DrawDomain, Logits, Sampler, Sampling, SamplingError, argmax, cut, greatest, pick};
use crate::digest::ModelDigest;

const MODEL: ModelDigest = ModelDigest([7; 32]);

/// Logits that are all there.
struct Dense {
    logits: Vec<f32>,
    greatest: Vec<(u32, f32)>,
}

impl Logits for Dense {
    fn greatest(&self) -> &[(u32, f32)] {
        &self.greatest
    }

    fn one(&mut self, id: u32) -> f32 {
        self.logits[id as usize]
    }
}

/// The next token, from as many of the greatest logits as the sampler asks for.
fn next(sampler: &mut Sampler, logits: &[f32], position: u32) -> u32 {
    let mut top = Vec::new();
    greatest(logits, sampler.needs(), &mut top);
    sampler.next(&mut Dense { logits: logits.to_vec(), greatest: top }, position)
}

fn sampler(sampling: Sampling, prompt: &[u32]) -> Sampler {
    Sampler::new(&sampling, DrawDomain::new(&MODEL, prompt), 0, prompt)
}

#[test]
fn argmax_takes_the_lowest_of_equals() {
    assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
    assert_eq!(argmax(&[-5.0, -4.0, -4.0]), 1);
    assert_eq!(argmax(&[0.0, -0.0]), 0);
    assert_eq!(argmax(&[-0.0, 0.0]), 0, "the zeros are equal");
    let mut long = vec![0.0; 100];
    long[97] = 1.0;
    assert_eq!(argmax(&long), 97);
}

#[test]
fn the_order_is_logit_descending_then_id_ascending() {
    let mut top = Vec::new();
    greatest(&[1.0, 5.0, 3.0, 5.0, 2.0], 3, &mut top);
    assert_eq!(top, [(1, 5.0), (3, 5.0), (2, 3.0)]);
    greatest(&[2.0, 2.0, 2.0, 2.0], 2, &mut top);
    assert_eq!(top, [(0, 2.0), (1, 2.0)]);
    greatest(&[1.0], 40, &mut top);
    assert_eq!(top, [(0, 1.0)]);
}

#[test]
fn temperature_zero_is_argmax_after_bias_and_penalties() {
    let mut plain = sampler(Sampling::greedy(), &[0]);
    assert_eq!(next(&mut plain, &[1.0, 2.0, 0.0], 1), 1);
    let biased = Sampling { logit_bias: vec![(2, 5.0)], ..Sampling::greedy() };
    assert_eq!(next(&mut sampler(biased, &[0]), &[1.0, 2.0, 0.0], 1), 2);
}

#[test]
fn repetition_divides_positive_and_multiplies_negative_logits_of_seen_tokens() {
    let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::greedy() };
    // Token 0 and token 3 are in the prompt: 3/2 = 1.5 < 2; -0.5*2 = -1.
    assert_eq!(next(&mut sampler(sampling.clone(), &[0, 3]), &[3.0, 2.0, -1.0, -0.5], 2), 1);
    assert_eq!(next(&mut sampler(sampling.clone(), &[0, 3]), &[3.0, 1.4, -1.0, -0.5], 2), 0);
    assert_eq!(next(&mut sampler(sampling.clone(), &[3]), &[-0.9, -1.1, -0.95, -0.5], 1), 0, "-1 behind -0.9");
    assert_eq!(next(&mut sampler(sampling, &[3]), &[-1.1, -1.2, -1.3, -0.5], 1), 3, "-1 before -1.1");
}

#[test]
fn presence_and_frequency_count_generated_tokens_only() {
    let sampling = Sampling { presence_penalty: 0.5, frequency_penalty: 0.25, ..Sampling::greedy() };
    let mut sampler = sampler(sampling, &[1]);
    assert_eq!(next(&mut sampler, &[1.0, 2.0], 1), 1, "the prompt's token 1 is not penalised");
    assert_eq!(next(&mut sampler, &[1.2, 2.0], 2), 1, "2 - 0.5 - 1 * 0.25 = 1.25");
    assert_eq!(next(&mut sampler, &[1.0, 2.0], 3), 0, "2 - 0.5 - 2 * 0.25: a tie at 1.0 goes to the lower id");
}

#[test]
fn the_order_of_adjustments_is_bias_then_repetition_then_presence_then_frequency() {
    let sampling = Sampling {
        logit_bias: vec![(0, 2.0)],
        repetition_penalty: 2.0,
        presence_penalty: 1.0,
        frequency_penalty: 0.5,
        ..Sampling::greedy()
    };
    let mut sampler = sampler(sampling, &[9]);
    let mut first = vec![0.0; 10];
    first[0] = 10.0;
    assert_eq!(next(&mut sampler, &first, 1), 0, "12 by its bias");
    // (4 + 2) / 2 - 1 - 0.5 = 1.5 for token 0, whatever other order gives another number.
    for (rival, winner) in [(1.5_f32.next_up(), 1), (1.5, 0)] {
        let mut second = vec![0.0; 10];
        (second[0], second[1]) = (4.0, rival);
        assert_eq!(next(&mut sampler.clone(), &second, 2), winner);
    }
}

/// The whole rule in its plainest form: every logit adjusted, sorted, cut.
fn plain(sampling: &Sampling, prompt: &[u32], generated: &[u32], logits: &[f32], position: u32) -> u32 {
    let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    for (token, l) in &mut all {
        if let Some(bias) = sampling.logit_bias.iter().find(|bias| bias.0 == *token) {
            *l += bias.1;
        }
        let count = u16::try_from(generated.iter().filter(|t| *t == token).count()).expect("small");
        if prompt.contains(token) || count > 0 {
            *l = if *l > 0.0 { *l / sampling.repetition_penalty } else { *l * sampling.repetition_penalty };
        }
        if count > 0 {
            *l -= sampling.presence_penalty;
            *l -= sampling.frequency_penalty * f32::from(count);
        }
    }
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if sampling.temperature == 0.0 {
        return all[0].0;
    }
    all.truncate(sampling.top_k as usize);
    pick(&mut all, sampling, DrawDomain::new(&MODEL, prompt).draw(sampling.seed, 0, position))
}

proptest::proptest! {
    #[test]
    fn the_greatest_logits_are_enough(
        logits in proptest::collection::vec(-8_i8..8, 30..60),
        prompt in proptest::collection::vec(0_u32..30, 1..12),
        bias in proptest::collection::btree_map(0_u32..30, -3_i8..3, 0..6),
        penalties in (1_u8..4, -2_i8..2, -2_i8..2),
        (hot, top_k, seed) in (proptest::bool::ANY, 1_u32..9, 0_u64..1000),
    ) {
        // Small whole numbers: ties are common, and no zero has a sign.
        let sampling = Sampling {
            temperature: if hot { 1.5 } else { 0.0 },
            top_k,
            seed,
            logit_bias: bias.into_iter().map(|(token, bias)| (token, f32::from(bias) * 0.5)).collect(),
            repetition_penalty: f32::from(penalties.0) * 0.5,
            presence_penalty: f32::from(penalties.1),
            frequency_penalty: f32::from(penalties.2) * 0.5,
            ..Sampling::default()
        };
        let logits: Vec<f32> = logits.into_iter().map(|l| f32::from(l) + 0.25).collect();
        let mut sampler = sampler(sampling.clone(), &prompt);
        let mut generated = Vec::new();
        for position in 0..8 {
            let expected = plain(&sampling, &prompt, &generated, &logits, position);
            proptest::prop_assert_eq!(next(&mut sampler, &logits, position), expected);
            generated.push(expected);
        }
    }
}

#[test]
fn top_p_keeps_the_shortest_prefix_and_min_p_cuts_relative_to_the_first() {
    let weights = [(4, 1.0), (2, 0.5), (9, 0.25), (1, 0.25)];
    let keep = |top_p, min_p| cut(&weights, 2.0, &Sampling { top_p, min_p, ..Sampling::default() }).len();
    assert_eq!(keep(1.0, 0.0), 4);
    assert_eq!(keep(0.5, 0.0), 1, "1.0 of 2.0 is the half already");
    assert_eq!(keep(0.51, 0.0), 2);
    assert_eq!(keep(0.75, 0.0), 2);
    assert_eq!(keep(0.76, 0.0), 3);
    assert_eq!(keep(1.0, 0.25), 4, "equal to the floor stays");
    assert_eq!(keep(1.0, 0.3), 2);
    assert_eq!(keep(f32::MIN_POSITIVE, 1.0), 1, "the first always stays");
}

#[test]
fn the_draw_walks_the_cumulative_weights() {
    // ln 2 apart: weights 1, 1/2 (to rounding); total 1.5.
    let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
    let draw = |u| pick(&mut [(5, std::f32::consts::LN_2), (3, 0.0)], &sampling, u);
    assert_eq!(draw(0.0), 5);
    assert_eq!(draw(0.66), 5);
    assert_eq!(draw(0.67), 3);
    assert_eq!(draw(0.999_999), 3);
}

#[test]
fn a_weight_of_zero_is_never_drawn_last() {
    let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
    // The second weight is exp32(-200) = 0; even u = 1 (which the draw cannot be) falls back to the first.
    assert_eq!(pick(&mut [(5, 0.0), (3, -200.0)], &sampling, 1.0), 5);
}

#[test]
fn temperature_flattens() {
    let hot = Sampling { temperature: 2.0, ..Sampling::default() };
    // 2 ln 2 apart at T = 2: weights 1 and 1/2 again.
    let draw = |u| pick(&mut [(5, 2.0 * std::f32::consts::LN_2), (3, 0.0)], &hot, u);
    assert_eq!((draw(0.66), draw(0.67)), (5, 3));
}

#[test]
fn draws_depend_on_seed_choice_position_model_and_prompt_and_on_nothing_else() {
    let domain = DrawDomain::new(&MODEL, &[1, 2, 3]);
    let base = domain.draw(42, 0, 10).to_bits();
    assert_eq!(base, DrawDomain::new(&MODEL, &[1, 2, 3]).draw(42, 0, 10).to_bits());
    let others = [
        domain.draw(43, 0, 10),
        domain.draw(42, 1, 10),
        domain.draw(42, 0, 11),
        DrawDomain::new(&MODEL, &[1, 2, 4]).draw(42, 0, 10),
        DrawDomain::new(&ModelDigest([8; 32]), &[1, 2, 3]).draw(42, 0, 10),
    ];
    for (index, other) in others.into_iter().enumerate() {
        assert_ne!(base, other.to_bits(), "case {index}");
        assert!((0.0..1.0).contains(&other));
    }
}

#[test]
fn draws_are_spread() {
    let domain = DrawDomain::new(&MODEL, &[1]);
    let mut low = 0;
    for position in 0..1000 {
        low += u32::from(domain.draw(1, 0, position) < 0.5);
    }
    assert!((440..560).contains(&low), "{low} of 1000 below one half");
}

#[test]
fn parameters_outside_of_their_range_name_themselves() {
    let check = |sampling: Sampling| sampling.check(100).expect_err("must be refused").field();
    assert_eq!(check(Sampling { temperature: -0.1, ..Sampling::default() }), "temperature");
    assert_eq!(check(Sampling { temperature: f32::NAN, ..Sampling::default() }), "temperature");
    assert_eq!(check(Sampling { top_p: 0.0, ..Sampling::default() }), "top_p");
    assert_eq!(check(Sampling { top_k: 1025, ..Sampling::default() }), "top_k");
    assert_eq!(check(Sampling { min_p: 1.5, ..Sampling::default() }), "min_p");
    assert_eq!(check(Sampling { repetition_penalty: 0.0, ..Sampling::default() }), "repetition_penalty");
    assert_eq!(check(Sampling { presence_penalty: 3.0, ..Sampling::default() }), "presence_penalty");
    assert_eq!(check(Sampling { frequency_penalty: -3.0, ..Sampling::default() }), "frequency_penalty");
    assert_eq!(check(Sampling { logit_bias: vec![(100, 0.0)], ..Sampling::default() }), "logit_bias");
    let twice = Sampling { logit_bias: vec![(1, 0.0), (1, 0.0)], ..Sampling::default() };
    assert_eq!(twice.check(100), Err(SamplingError::BiasTwice(1)));
    assert_eq!(Sampling::default().check(100), Ok(()));
}
