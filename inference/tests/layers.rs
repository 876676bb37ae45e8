//! What is wrong with a claim is wrong with one of its layers, and what enters that layer is enough to show it.

#[path = "fixtures/models.rs"]
mod models;
#[path = "fixtures/requests.rs"]
mod requests;

use std::ops::Range;
use std::sync::mpsc;
use std::time::Duration;

use aria_inference::backend::builtin::Builtin;
use aria_inference::backend::{Backend, CancelToken};
use aria_inference::engine::EngineOptions;
use aria_inference::generation::{FinishReason, GenerationRequest};
use aria_inference::gguf::Gguf;
use aria_inference::transcript::{Hash, choice_root, request_root, text_hash};
use aria_inference::verify::{Claim, LayerClaim, LayerVerdict, Verdict};
use models::{aria_tiny, paths, reference};
use requests::{builtin, greedy, options, outcome, run, sampled, verify};

fn ask(backend: &Builtin, asked: LayerClaim) -> LayerVerdict {
    let (sender, verdicts) = mpsc::channel();
    let sink = Box::new(move |verdict| sender.send(verdict).expect("the test waits"));
    backend.verify_layers(asked, CancelToken::new(), sink).expect("accepted");
    verdicts.recv_timeout(Duration::from_secs(60)).expect("a verdict").expect("the engine goes on")
}

/// What an honest node claims, and the roots of all boundaries.
fn honest(backend: &Builtin, request: &GenerationRequest) -> (Claim, Vec<Vec<Hash>>) {
    let events = run(backend, request.clone());
    let outcome = outcome(&events);
    let roots = outcome.choices.iter().map(|choice| choice.boundary_roots.clone()).collect();
    (Claim::new(request.clone(), outcome), roots)
}

/// The same claim under other roots, which it binds.
fn rebound(backend: &Builtin, mut claim: Claim, roots: &[Vec<Hash>]) -> Claim {
    let model = backend.model().digest;
    let choices = claim.choices.iter().zip(roots).map(|(choice, roots)| {
        let text = text_hash(&claim.request.salt, &claim.request.prompt, &choice.tokens, choice.finish);
        choice_root(&model, roots, &text)
    });
    claim.transcript_root = request_root(&choices.collect::<Vec<Hash>>());
    assert!(claim.binds(&model, roots));
    claim
}

fn of(claim: &Claim, roots: &[Vec<Hash>], choice: u32, layers: Range<usize>, states: Vec<f32>) -> LayerClaim {
    let boundary_roots = roots[choice as usize].clone();
    LayerClaim { claim: claim.clone(), choice, boundary_roots, layers, states }
}

/// Two nodes on different paths: who looks for what is wrong, and who is shown it.
fn two(tiny: &Gguf) -> (Builtin, Builtin) {
    let all = paths();
    let on = |kernel, threads| builtin(tiny, &EngineOptions { kernel: Some(kernel), ..options(threads) });
    (on(all[0], 2), on(all[all.len() - 1], 1))
}

/// The layer where a claim is wrong, and that whoever is shown it agrees, and finds nothing wrong with the layer before.
fn found(tiny: &Gguf, claim: &Claim, roots: &[Vec<Hash>], choice: u32) -> usize {
    let (finder, judge) = two(tiny);
    let layers = finder.model().hyper.layers;
    let LayerVerdict::Wrong { layer, states } = ask(&finder, of(claim, roots, choice, 0..layers, Vec::new())) else {
        panic!("something is wrong")
    };
    let shown = of(claim, roots, choice, layer..layer + 1, states.clone());
    assert_eq!(ask(&judge, shown.clone()), LayerVerdict::Wrong { layer, states: states.clone() });
    if layer > 0 {
        assert_eq!(ask(&judge, of(claim, roots, choice, 0..layer, Vec::new())), LayerVerdict::Right);
        let mut other = shown;
        other.states[0] = f32::NAN;
        assert_eq!(ask(&judge, other), LayerVerdict::Foreign, "what the claim does not have there proves nothing");
    }
    layer
}

#[test]
fn every_layer_of_an_honest_claim_is_right() {
    let tiny = aria_tiny();
    let (finder, _) = two(&tiny);
    let layers = finder.model().hyper.layers;
    let long = sampled(&reference()[4].prompt, 300, 11);
    for request in [GenerationRequest { choices: 2, ..sampled(&reference()[3].prompt, 30, 1) }, long] {
        let (claim, roots) = honest(&finder, &request);
        assert!(claim.binds(&finder.model().digest, &roots));
        for choice in 0..request.choices {
            assert_eq!(ask(&finder, of(&claim, &roots, choice, 0..layers, Vec::new())), LayerVerdict::Right);
        }
    }
}

#[test]
fn another_token_is_the_last_layers_fault() {
    let tiny = aria_tiny();
    let (finder, _) = two(&tiny);
    let last = finder.model().hyper.layers - 1;
    let request = greedy(&reference()[0].prompt, 48);
    let (truth, _) = honest(&finder, &request);
    // A provider that drew one token at will, and computed on from it honestly: it claims what that gives.
    let mut told = request.clone();
    let mut tokens = truth.choices[0].tokens[..4].to_vec();
    tokens.push(700);
    told.prompt.extend(&tokens);
    let (rest, _) = honest(&finder, &GenerationRequest { max_tokens: 43, ..told });
    tokens.extend(&rest.choices[0].tokens);
    let positions = [&request.prompt[..], &tokens[..tokens.len() - 1]].concat();
    let (_, roots) = honest(&finder, &greedy(&positions, 1));
    let mut lie = truth.clone();
    lie.choices[0].tokens = tokens;
    lie.choices[0].finish = rest.choices[0].finish;
    let lie = rebound(&finder, lie, &roots);
    assert!(matches!(verify(&finder, lie.clone()), Ok(Verdict::Invalid(_))));
    assert_eq!(found(&tiny, &lie, &roots, 0), last);
    // An answer that stops too early, with the right states.
    let mut short = truth;
    short.choices[0].tokens.truncate(7);
    short.choices[0].finish = FinishReason::Length;
    let (_, roots) = honest(&finder, &greedy(&[&request.prompt[..], &short.choices[0].tokens[..6]].concat(), 1));
    let short = rebound(&finder, short, &roots);
    assert_eq!(found(&tiny, &short, &roots, 0), last);
}

#[test]
fn wrong_states_are_the_fault_of_the_layer_that_gave_them() {
    let tiny = aria_tiny();
    let (finder, _) = two(&tiny);
    let request = sampled(&reference()[3].prompt, 30, 1);
    let (claim, roots) = honest(&finder, &request);
    let layers = finder.model().hyper.layers;
    // From some boundary on, the roots are those of nothing.
    for boundary in 0..layers + 2 {
        let mut false_roots = roots.clone();
        for root in &mut false_roots[0][boundary..] {
            root[0] ^= 1;
        }
        let lie = rebound(&finder, claim.clone(), &false_roots);
        let layer = boundary.saturating_sub(1).min(layers - 1);
        assert_eq!(found(&tiny, &lie, &false_roots, 0), layer, "boundary {boundary}");
        assert!(matches!(verify(&finder, lie), Ok(Verdict::Invalid(_))));
    }
}

#[test]
fn sizes_of_another_model_prove_nothing() {
    let (finder, _) = two(&aria_tiny());
    let (claim, roots) = honest(&finder, &greedy(&reference()[0].prompt, 8));
    let layers = finder.model().hyper.layers;
    let asked = |layers: Range<usize>, states: Vec<f32>| of(&claim, &roots, 0, layers, states);
    let short = LayerClaim { boundary_roots: vec![[0; 32]; 3], ..asked(0..1, Vec::new()) };
    let other = LayerClaim { choice: 1, ..asked(0..1, Vec::new()) };
    let beyond = asked(layers..layers + 1, Vec::new());
    for foreign in [short, other, beyond, asked(1..1, Vec::new()), asked(1..2, vec![0.0; 5]), asked(0..1, vec![0.0])] {
        assert_eq!(ask(&finder, foreign), LayerVerdict::Foreign);
    }
}
