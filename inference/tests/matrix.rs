//! The whole matrix: whatever computes a run, and however it is cut, the bits are the same.

#[path = "fixtures/models.rs"]
mod models;
#[path = "fixtures/requests.rs"]
mod requests;

use std::collections::VecDeque;
use std::sync::mpsc::Receiver;

use aria_inference::backend::{Backend, CancelToken};
use aria_inference::engine::{Engine, EngineOptions};
use aria_inference::forward::{Row, Wants};
use aria_inference::generation::{Event, GenerationRequest, Outcome};
use aria_inference::kernels::KernelKind;
use aria_inference::sampler::Sampling;
use aria_inference::session::Session;
use aria_inference::transcript::Transcript;
use models::{aria_tiny, engine, mini_silu, mini_silu_ids, paths, reference};
use requests::{builtin, options, run, submit};

const SALT: [u8; 32] = [9; 32];

/// What a run leaves: roots of every boundary, and the bits of the last logits.
type Trace = (Vec<[u8; 32]>, Vec<u32>);

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|l| l.to_bits()).collect()
}

fn roots(session: &Session) -> Vec<[u8; 32]> {
    session.transcript().map(Transcript::boundary_roots).expect("a transcript is kept")
}

fn rows(tokens: &[u32], first: usize, chunk: usize) -> Vec<Row> {
    let range = first..tokens.len().min(first + chunk);
    let wants = |position: usize| if position + 1 == tokens.len() { Wants::ALL } else { Wants::NOTHING };
    range.map(|position| Row { session: 0, token: tokens[position], position, wants: wants(position) }).collect()
}

/// One sequence, `chunk` tokens per pass.
fn whole(engine: &mut Engine, tokens: &[u32], chunk: usize) -> Trace {
    let mut session = engine.session(tokens.len(), Some(SALT));
    for first in (0..tokens.len()).step_by(chunk) {
        engine.forward(std::slice::from_mut(&mut session), &rows(tokens, first, chunk));
    }
    (roots(&session), bits(engine.logits(0)))
}

#[test]
fn threads_from_one_to_eight_and_every_chunk() {
    let sequence = reference()[2].sequence();
    for model in [aria_tiny(), mini_silu()] {
        let tokens: Vec<u32> = if model.tensor_names().count() > 60 { sequence.clone() } else { mini_silu_ids() };
        let expected = whole(&mut engine(&model, None, 1), &tokens, 512);
        for kind in paths() {
            for threads in 1..=8 {
                // Software fma is slow: the scalar path meets every thread count with one chunk only.
                let chunks: &[usize] = if kind == KernelKind::Scalar { &[64] } else { &[1, 7, 64, 512] };
                let mut engine = engine(&model, Some(kind), threads);
                for &chunk in chunks {
                    let got = whole(&mut engine, &tokens, chunk);
                    assert!(got == expected, "{kind}, {threads} threads, chunks of {chunk}");
                }
            }
        }
    }
}

/// Cuts the layers before each of `cuts` and hands states from stage to stage as bytes; every stage has a session of its own.
fn staged(engine: &mut Engine, tokens: &[u32], chunk: usize, cuts: &[usize]) -> Trace {
    let layers = engine.info().hyper.layers;
    let bounds: Vec<usize> = [&[0], cuts, &[layers]].concat();
    let stages: Vec<_> = bounds.windows(2).map(|pair| pair[0]..pair[1]).collect();
    let mut sessions: Vec<Session> = stages.iter().map(|_| engine.session(tokens.len(), Some(SALT))).collect();
    for first in (0..tokens.len()).step_by(chunk) {
        let rows = rows(tokens, first, chunk);
        let mut wire: Option<Vec<u8>> = None;
        for (stage, session) in stages.iter().zip(&mut sessions) {
            let states: Option<Vec<f32>> =
                wire.map(|bytes| bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect());
            let left = engine.forward_stage(std::slice::from_mut(session), &rows, stage.clone(), states.as_deref());
            wire = Some(left.iter().flat_map(|value| value.to_le_bytes()).collect());
        }
    }
    // Each stage vouches for the boundaries that it saw; neighbours agree on the one between them.
    let seen: Vec<Vec<[u8; 32]>> = sessions.iter().map(roots).collect();
    for ((stage, left), right) in stages.iter().zip(&seen).zip(&seen[1..]) {
        assert_eq!(left[stage.end], right[stage.end], "both sides of the cut before layer {}", stage.end);
    }
    let owner = |boundary: usize| stages.iter().position(|stage| stage.contains(&boundary)).unwrap_or(stages.len() - 1);
    let roots = (0..layers + 2).map(|boundary| seen[owner(boundary)][boundary]).collect();
    (roots, bits(engine.logits(0)))
}

#[test]
fn layers_cut_anywhere_give_the_same_run() {
    let tiny = aria_tiny();
    let tokens = reference()[1].sequence();
    let mut engine = engine(&tiny, None, 2);
    let expected = whole(&mut engine, &tokens, 512);
    let layers = engine.info().hyper.layers;
    let all: Vec<usize> = (1..layers).collect();
    let mut splits: Vec<Vec<usize>> = all.iter().map(|&cut| vec![cut]).collect();
    splits.extend([vec![1, 3], vec![2, 4], all]);
    for cuts in splits {
        for chunk in [1, 7, 512] {
            assert!(staged(&mut engine, &tokens, chunk, &cuts) == expected, "cuts {cuts:?}, chunks of {chunk}");
        }
    }
}

#[test]
fn a_cache_that_was_lost_is_built_again() {
    let tiny = aria_tiny();
    let tokens = reference()[4].sequence();
    let mut engine = engine(&tiny, None, 2);
    let expected = whole(&mut engine, &tokens, 512);
    let cut = tokens.len() / 2;
    // Token by token up to the middle; then the session is gone, and the rest starts from one prefill of what was there.
    let mut first = engine.session(tokens.len(), Some(SALT));
    for &token in &tokens[..cut] {
        engine.feed(&mut first, &[token], Wants::NOTHING).expect("finite");
    }
    drop(first);
    let mut second = engine.session(tokens.len(), Some(SALT));
    engine.feed(&mut second, &tokens[..cut], Wants::NOTHING).expect("finite");
    for &token in &tokens[cut..] {
        engine.feed(&mut second, &[token], Wants::ALL).expect("finite");
    }
    assert!((roots(&second), bits(engine.logits(0))) == expected);
}

#[test]
fn a_session_resumed_under_another_salt_is_like_a_fresh_one() {
    let tiny = aria_tiny();
    let tokens = reference()[4].sequence();
    let mut engine = engine(&tiny, None, 2);
    let expected = whole(&mut engine, &tokens, 512);
    let mut kept = engine.session(tokens.len(), Some([1; 32])).keeping_states(tokens.len());
    engine.feed(&mut kept, &tokens[..tokens.len() - 3], Wants::NOTHING).expect("finite");
    for positions in [0, 1, 17, tokens.len() - 3] {
        let mut resumed = kept.resume(positions, tokens.len(), SALT);
        engine.feed(&mut resumed, &tokens[positions..], Wants::ALL).expect("finite");
        assert!((roots(&resumed), bits(engine.logits(0))) == expected, "resumed at {positions}");
    }
}

/// A fresh engine's answer to one request, with nothing beside it.
fn alone(request: &GenerationRequest) -> Outcome {
    let backend = builtin(&aria_tiny(), &EngineOptions { prefix_bytes_max: 0, ..options(1) });
    match run(&backend, request.clone()).pop() {
        Some(Event::Done(outcome)) => *outcome,
        other => panic!("an answer, not {other:?}"),
    }
}

#[test]
fn the_next_turn_of_a_conversation_starts_where_the_last_one_ended() {
    let backend = builtin(&aria_tiny(), &options(2));
    let ask = |request: &GenerationRequest| match run(&backend, request.clone()).pop() {
        Some(Event::Done(outcome)) => *outcome,
        other => panic!("an answer, not {other:?}"),
    };
    let mut prompt = reference()[0].prompt.clone();
    let mut cached = Vec::new();
    for turn in 0..4 {
        let request = GenerationRequest { salt: [turn; 32], ..requests::sampled(&prompt, 24, u64::from(turn)) };
        let (got, expected) = (ask(&request), alone(&request));
        assert_eq!(got.choices, expected.choices, "turn {turn}");
        assert_eq!(got.transcript_root, expected.transcript_root, "turn {turn}");
        cached.push(got.cached_tokens as usize);
        prompt.extend(&got.choices[0].tokens);
        prompt.extend(&reference()[1].prompt[..8]);
    }
    assert_eq!(cached[0], 0);
    assert!(cached.windows(2).all(|pair| pair[0] < pair[1]), "each turn begins later: {cached:?}");
}

/// A small generator.
struct Source(u64);

impl Source {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

/// Requests of every kind: lengths, choices, sampling, stop strings, shared beginnings.
fn kinds(source: &mut Source) -> Vec<GenerationRequest> {
    let prompts: Vec<Vec<u32>> = reference().iter().map(|case| case.prompt.clone()).collect();
    (0_u8..24)
        .map(|kind| {
            let mut prompt = prompts[source.below(5)].clone();
            prompt.truncate(1 + source.below(prompt.len()));
            let greedy = requests::greedy(&prompt, [1, 2, 3, 4, 5, 6][source.below(6)]);
            let sampling = match kind % 4 {
                0 => Sampling::greedy(),
                1 => Sampling { seed: u64::from(kind), top_k: 0, top_p: 0.9, ..Sampling::default() },
                2 => Sampling {
                    seed: u64::from(kind),
                    repetition_penalty: 1.3,
                    presence_penalty: 0.4,
                    ..Sampling::default()
                },
                _ => Sampling { temperature: 1.7, logit_bias: vec![(300, 4.0), (301, -50.0)], ..Sampling::default() },
            };
            GenerationRequest {
                sampling,
                choices: 1 + u32::from(kind % 3 == 0),
                stop: if kind % 5 == 0 { vec!["e".to_owned()] } else { Vec::new() },
                salt: [kind; 32],
                ..greedy
            }
        })
        .collect()
}

fn last(events: &Receiver<Event>) -> Outcome {
    loop {
        match events.recv_timeout(std::time::Duration::from_secs(60)).expect("an event") {
            Event::Done(outcome) => return *outcome,
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

#[test]
fn ten_thousand_completions_under_random_load_have_one_digest_each() {
    let mut source = Source(5);
    let kinds = kinds(&mut source);
    let expected: Vec<Outcome> = kinds.iter().map(alone).collect();
    let tiny = aria_tiny();
    let mut finished = 0;
    for (round, kind) in paths().into_iter().filter(|&kind| kind != KernelKind::Scalar).cycle().take(9).enumerate() {
        let threads = 1 + round % 3;
        let prefix_bytes_max = [0, 1 << 20, 256 << 20][round % 3];
        let options = EngineOptions { kernel: Some(kind), prefix_bytes_max, ..options(threads) };
        let backend = builtin(&tiny, &options);
        let mut open: VecDeque<(usize, CancelToken, Receiver<Event>)> = VecDeque::new();
        let mut started = 0;
        while started < 1250 || !open.is_empty() {
            let wanted = 1 + source.below(24);
            while open.len() < wanted && started < 1250 {
                let index = source.below(kinds.len());
                let cancel = CancelToken::new();
                open.push_back((index, cancel.clone(), submit(&backend, kinds[index].clone(), cancel)));
                started += 1;
            }
            let at = source.below(open.len());
            let Some((index, cancel, events)) = open.remove(at) else { break };
            if source.below(16) == 0 {
                cancel.cancel();
            }
            let outcome = last(&events);
            if outcome.cancelled {
                continue;
            }
            finished += 1;
            assert_eq!(outcome.choices, expected[index].choices, "request {index} on {kind}, {threads} threads");
            assert_eq!(outcome.transcript_root, expected[index].transcript_root, "request {index} on {kind}");
        }
        backend.stop(true);
    }
    assert!(finished >= 10_000, "{finished} were not cancelled");
}
