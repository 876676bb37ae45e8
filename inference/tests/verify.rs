//! Claims: honest ones pass on every path, each kind of lie is found with its position.

#[path = "fixtures/models.rs"]
mod models;
#[path = "fixtures/requests.rs"]
mod requests;

use aria_inference::backend::builtin::Builtin;
use aria_inference::engine::EngineOptions;
use aria_inference::generation::{FinishReason, GenerationRequest};
use aria_inference::sampler::Sampling;
use aria_inference::verify::{Claim, Reason, Verdict};
use models::{aria_tiny, mini_silu, paths, reference};
use requests::{builtin, greedy, options, outcome, run, sampled, verify};

fn claim(backend: &Builtin, request: &GenerationRequest) -> Claim {
    Claim::new(request.clone(), outcome(&run(backend, request.clone())))
}

/// Requests of every kind.
fn requests() -> Vec<GenerationRequest> {
    let cases = reference();
    let penalised = Sampling {
        temperature: 1.3,
        top_p: 0.9,
        min_p: 0.02,
        repetition_penalty: 1.2,
        presence_penalty: 0.5,
        frequency_penalty: 0.3,
        logit_bias: vec![(258, 2.0), (13, -3.0)],
        ..Sampling::default()
    };
    vec![
        greedy(&cases[0].prompt, 48),
        greedy(&cases[4].prompt, 1),
        sampled(&cases[3].prompt, 40, 99),
        GenerationRequest { choices: 3, ..sampled(&cases[3].prompt, 30, 1) },
        GenerationRequest { stop: vec!["help".to_owned()], ..greedy(&cases[0].prompt, 48) },
        GenerationRequest { sampling: penalised, ..greedy(&cases[4].prompt, 100) },
    ]
}

#[test]
fn honest_claims_are_valid_on_every_path() {
    let tiny = aria_tiny();
    let provider = builtin(&tiny, &options(2));
    let claims: Vec<Claim> = requests().iter().map(|request| claim(&provider, request)).collect();
    for kernel in paths() {
        for threads in [1, 2] {
            let auditor = builtin(&tiny, &EngineOptions { kernel: Some(kernel), ..options(threads) });
            for claim in &claims {
                assert_eq!(verify(&auditor, claim.clone()), Ok(Verdict::Valid(None)), "{kernel}, {threads} threads");
            }
        }
    }
}

#[test]
fn a_witness_is_the_transcript_of_the_verifiers_own_run() {
    let tiny = aria_tiny();
    let backend = builtin(&tiny, &options(2));
    for request in requests() {
        let honest = claim(&backend, &request);
        let secret = [77; 32];
        // What the same request gives under the secret, computed the slow way: by generating the answer again.
        let own = claim(&backend, &GenerationRequest { salt: secret, ..request.clone() });
        assert_eq!(own.choices, honest.choices);
        for kernel in paths() {
            let auditor = builtin(&tiny, &EngineOptions { kernel: Some(kernel), ..options(1) });
            let asked = Claim { secret: Some(secret), ..honest.clone() };
            assert_eq!(verify(&auditor, asked), Ok(Verdict::Valid(Some(own.transcript_root))), "{kernel}");
        }
        assert_ne!(own.transcript_root, honest.transcript_root);
    }
}

#[test]
fn one_changed_token_is_found_where_it_is() {
    let backend = builtin(&aria_tiny(), &options(2));
    for request in requests() {
        let honest = claim(&backend, &request);
        for (choice, claimed) in honest.choices.iter().enumerate() {
            for index in [0, claimed.tokens.len() / 2, claimed.tokens.len() - 1] {
                let mut lie = honest.clone();
                let token = &mut lie.choices[choice].tokens[index];
                let canonical = *token;
                *token = if canonical == 700 { 701 } else { 700 };
                let expected = Reason::Token {
                    choice: u32::try_from(choice).expect("small"),
                    position: u32::try_from(request.prompt.len() + index).expect("small"),
                    claimed: *token,
                    canonical,
                };
                assert_eq!(verify(&backend, lie), Ok(Verdict::Invalid(expected)));
            }
        }
    }
}

#[test]
fn a_changed_seed_is_found() {
    let backend = builtin(&aria_tiny(), &options(1));
    let request = sampled(&reference()[3].prompt, 40, 99);
    let honest = claim(&backend, &request);
    let mut lie = honest.clone();
    lie.request.sampling.seed = 100;
    // The first position where the other seed draws another token, found the slow way.
    let other = claim(&backend, &lie.request);
    let differs = |(a, b): (&u32, &u32)| a != b;
    let index = honest.choices[0].tokens.iter().zip(&other.choices[0].tokens).position(differs).expect("they differ");
    let expected = Reason::Token {
        choice: 0,
        position: u32::try_from(request.prompt.len() + index).expect("small"),
        claimed: honest.choices[0].tokens[index],
        canonical: other.choices[0].tokens[index],
    };
    assert_eq!(verify(&backend, lie), Ok(Verdict::Invalid(expected)));
}

#[test]
fn truncated_and_prolonged_answers_are_found() {
    let backend = builtin(&aria_tiny(), &options(1));
    let request = greedy(&reference()[0].prompt, 48);
    let prompt = u32::try_from(request.prompt.len()).expect("small");
    let honest = claim(&backend, &request);
    assert_eq!(honest.choices[0].tokens.len(), 11);

    let mut short = honest.clone();
    short.choices[0].tokens.truncate(7);
    let expected = Reason::Truncated { choice: 0, position: prompt + 7 };
    assert_eq!(verify(&backend, short.clone()), Ok(Verdict::Invalid(expected.clone())));
    short.choices[0].finish = FinishReason::Length;
    assert_eq!(verify(&backend, short.clone()), Ok(Verdict::Invalid(expected)), "a false reason does not help");
    short.choices[0].tokens.clear();
    let nothing = Reason::Truncated { choice: 0, position: prompt };
    assert_eq!(verify(&backend, short), Ok(Verdict::Invalid(nothing)));

    let mut long = honest.clone();
    long.choices[0].tokens.push(13);
    let expected = Reason::PastEnd { choice: 0, position: prompt + 11 };
    assert_eq!(verify(&backend, long), Ok(Verdict::Invalid(expected)));

    let mut beyond = claim(&backend, &greedy(&reference()[0].prompt, 5));
    beyond.choices[0].tokens.push(492);
    let expected = Reason::PastEnd { choice: 0, position: prompt + 5 };
    assert_eq!(verify(&backend, beyond), Ok(Verdict::Invalid(expected)));
}

#[test]
fn a_wrong_end_a_wrong_root_and_a_wrong_salt_are_found() {
    let backend = builtin(&aria_tiny(), &options(1));
    let honest = claim(&backend, &greedy(&reference()[0].prompt, 48));
    let mut lie = honest.clone();
    lie.choices[0].finish = FinishReason::Length;
    let finish = Reason::Finish { choice: 0, claimed: FinishReason::Length, canonical: FinishReason::Stop };
    assert_eq!(verify(&backend, lie), Ok(Verdict::Invalid(finish)));
    let mut lie = honest.clone();
    lie.transcript_root[31] ^= 1;
    assert_eq!(verify(&backend, lie), Ok(Verdict::Invalid(Reason::Transcript)));
    let mut lie = honest;
    lie.request.salt = [0; 32];
    assert_eq!(verify(&backend, lie), Ok(Verdict::Invalid(Reason::Transcript)));
}

#[test]
fn another_model_is_found() {
    let provider = builtin(&mini_silu(), &options(1));
    let auditor = builtin(&aria_tiny(), &options(1));
    let claim = claim(&provider, &greedy(&[5, 6, 7], 8));
    assert!(matches!(verify(&auditor, claim), Ok(Verdict::Invalid(Reason::Token { choice: 0, .. }))));
}

#[test]
fn claims_that_need_no_computation_to_refute() {
    let backend = builtin(&aria_tiny(), &options(1));
    let honest = claim(&backend, &greedy(&reference()[0].prompt, 48));
    let mut lie = honest.clone();
    lie.choices.push(lie.choices[0].clone());
    assert_eq!(verify(&backend, lie), Ok(Verdict::Invalid(Reason::Choices { asked: 1, claimed: 2 })));
    let mut lie = honest.clone();
    lie.choices[0].tokens[2] = 4096;
    let prompt = u32::try_from(honest.request.prompt.len()).expect("small");
    let expected = Reason::UnknownToken { choice: 0, position: prompt + 2, token: 4096 };
    assert_eq!(verify(&backend, lie), Ok(Verdict::Invalid(expected)));
    let mut lie = honest;
    lie.request.prompt.clear();
    assert!(matches!(verify(&backend, lie), Ok(Verdict::Invalid(Reason::Request(_)))));
}

#[test]
fn long_claims_span_several_passes() {
    // More output than one pass gives logits for.
    let backend = builtin(&aria_tiny(), &options(2));
    let request = sampled(&reference()[4].prompt, 300, 11);
    let honest = claim(&backend, &request);
    assert_eq!(verify(&backend, honest.clone()), Ok(Verdict::Valid(None)));
    let last = honest.choices[0].tokens.len() - 1;
    let mut lie = honest;
    lie.choices[0].tokens[last] ^= 1;
    let position = u32::try_from(request.prompt.len() + last).expect("small");
    assert!(matches!(
        verify(&backend, lie),
        Ok(Verdict::Invalid(Reason::Token { choice: 0, position: at, .. })) if at == position
    ));
}
