//! Requests through the backend: text, streams, stops, choices, seeds, cancellation, limits.

#[path = "fixtures/models.rs"]
mod models;
#[path = "fixtures/requests.rs"]
mod requests;

use std::sync::{Arc, Mutex};

use aria_inference::arith::half::narrow;
use aria_inference::backend::simulation::{NOTICE, Simulation};
use aria_inference::backend::{Backend, BackendKind, CancelToken, SubmitError};
use aria_inference::engine::{EngineError, EngineOptions};
use aria_inference::forward::FaultCode;
use aria_inference::generation::{Event, FinishReason, GenerationRequest, RequestError};
use aria_inference::gguf::Gguf;
use aria_inference::kernels::KernelKind;
use aria_inference::pace::Limits;
use aria_inference::sampler::Sampling;
use models::{aria_tiny, data, mini_silu, paths, reference};
use requests::{builtin, collect, greedy, options, outcome, run, sampled, streamed, submit};

#[test]
fn greedy_answers_are_the_reference_s_plain_and_streamed() {
    let backend = builtin(&aria_tiny(), &options(2));
    for case in reference() {
        let events = run(&backend, greedy(&case.prompt, 48));
        let outcome = outcome(&events);
        let choice = &outcome.choices[0];
        assert_eq!(choice.tokens, case.greedy);
        assert_eq!(choice.text, case.text);
        assert_eq!(streamed(&events, 0), case.text);
        let expected = if case.greedy.len() == 48 { FinishReason::Length } else { FinishReason::Stop };
        assert_eq!(choice.finish, expected);
        assert_eq!(outcome.generated_tokens as usize, case.greedy.len());
        assert_eq!(outcome.prompt_tokens as usize, case.prompt.len());
        assert!(!outcome.cancelled && outcome.transcript_root != [0; 32]);
        assert!(matches!(events[0], Event::Started { .. }));
    }
}

#[test]
fn stop_strings_never_appear_wherever_tokens_divide_them() {
    let backend = builtin(&aria_tiny(), &options(1));
    let case = &reference()[0];
    for (stop, expected) in [
        ("help", "Hello! How can I "),
        ("an I he", "Hello! How c"),
        ("!", "Hello"),
        ("H", ""),
        ("today?", "Hello! How can I help you "),
    ] {
        let request = GenerationRequest { stop: vec![stop.to_owned()], ..greedy(&case.prompt, 48) };
        let events = run(&backend, request);
        let choice = &outcome(&events).choices[0];
        assert_eq!((choice.text.as_str(), choice.finish), (expected, FinishReason::Stop), "stop {stop:?}");
        assert_eq!(streamed(&events, 0), expected, "stop {stop:?}");
        assert!(case.greedy.starts_with(&choice.tokens), "the tokens up to the stop are the same");
    }
}

#[test]
fn a_stop_that_never_completes_changes_nothing() {
    let backend = builtin(&aria_tiny(), &options(1));
    let case = &reference()[0];
    let stop = vec!["today?!".to_owned(), "helpful".to_owned()];
    let events = run(&backend, GenerationRequest { stop, ..greedy(&case.prompt, 48) });
    assert_eq!(outcome(&events).choices[0].text, case.text);
    assert_eq!(streamed(&events, 0), case.text);
}

#[test]
fn the_length_is_exact() {
    let backend = builtin(&aria_tiny(), &options(1));
    let case = &reference()[0];
    for max_tokens in [1, 2, 10] {
        let events = run(&backend, greedy(&case.prompt, max_tokens));
        let choice = &outcome(&events).choices[0];
        assert_eq!(choice.tokens, case.greedy[..max_tokens as usize]);
        assert_eq!(choice.finish, FinishReason::Length);
    }
    let events = run(&backend, greedy(&case.prompt, 11));
    assert_eq!(outcome(&events).choices[0].finish, FinishReason::Stop, "the end token is the eleventh");
}

/// Tokens of every choice and the root.
fn result(backend: &dyn Backend, request: &GenerationRequest) -> (Vec<Vec<u32>>, [u8; 32]) {
    let events = run(backend, request.clone());
    let outcome = outcome(&events);
    (outcome.choices.iter().map(|choice| choice.tokens.clone()).collect(), outcome.transcript_root)
}

#[test]
fn a_seed_decides_the_text_on_every_path() {
    let tiny = aria_tiny();
    let prompt = &reference()[3].prompt;
    let request = sampled(prompt, 24, 7);
    let base = builtin(&tiny, &options(1));
    let expected = result(&base, &request);
    assert_eq!(result(&base, &request), expected, "again");
    let mut others = std::collections::BTreeSet::new();
    for seed in 8..12 {
        others.insert(result(&base, &sampled(prompt, 24, seed)).0);
    }
    assert!(others.len() >= 3 && !others.contains(&expected.0), "other seeds give other texts");
    for kernel in paths() {
        for threads in [1, 3] {
            let options = EngineOptions { kernel: Some(kernel), ..options(threads) };
            assert_eq!(result(&builtin(&tiny, &options), &request), expected, "{kernel}, {threads} threads");
        }
    }
}

#[test]
fn limits_change_when_and_where_a_step_runs_and_nothing_else() {
    let tiny = aria_tiny();
    let request = sampled(&reference()[3].prompt, 24, 7);
    let expected = result(&builtin(&tiny, &options(1)), &request);
    let backend = builtin(&tiny, &options(2));
    for (threads, cpu_percent) in [(1, 20), (3, 90), (1, 100)] {
        backend.limit(Limits { threads, cpu_percent, kv_bytes_max: 1 << 30, prefix_bytes_max: 0 });
        assert_eq!(result(&backend, &request), expected, "{threads} threads, {cpu_percent} %");
    }
    // Memory is taken away as well.
    let limits = Limits { threads: 1, cpu_percent: 100, kv_bytes_max: 1_000, prefix_bytes_max: 0 };
    backend.limit(limits);
    let refused = backend.submit(request.clone(), CancelToken::new(), Box::new(drop));
    assert!(
        matches!(refused, Err(SubmitError::Invalid(RequestError::Memory { limit_bytes: 1_000, .. }))),
        "{refused:?}"
    );
    backend.limit(Limits { kv_bytes_max: 1 << 30, ..limits });
    assert_eq!(result(&backend, &request), expected, "and given back");
}

#[test]
fn choices_are_independent_and_numbered() {
    let backend = builtin(&aria_tiny(), &options(2));
    let request = GenerationRequest { choices: 4, ..sampled(&reference()[3].prompt, 20, 5) };
    let (four, _) = result(&backend, &request);
    let (two, _) = result(&backend, &GenerationRequest { choices: 2, ..request.clone() });
    assert_eq!(two[..], four[..2], "a choice does not depend on how many there are");
    assert_eq!(four.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "each draws for itself");
    let events = run(&backend, request);
    for choice in 0..4 {
        assert_eq!(streamed(&events, choice), outcome(&events).choices[choice as usize].text);
    }
}

#[test]
fn batch_mates_change_nothing() {
    let tiny = aria_tiny();
    let alone = builtin(&tiny, &EngineOptions { sessions_max: 1, ..options(1) });
    let together = builtin(&tiny, &EngineOptions { sessions_max: 7, ..options(2) });
    let cases = reference();
    let requests: Vec<GenerationRequest> = (0..20_u32)
        .map(|i| {
            let prompt = cases[i as usize % 5].sequence();
            let prompt = &prompt[..prompt.len() - (i as usize % 9)];
            sampled(prompt, 3 + i % 17, u64::from(i))
        })
        .collect();
    let expected: Vec<_> = requests.iter().map(|request| result(&alone, request)).collect();
    let running: Vec<_> = requests.iter().map(|r| submit(&together, r.clone(), CancelToken::new())).collect();
    for (events, expected) in running.iter().zip(expected) {
        let events = collect(events);
        let outcome = outcome(&events);
        assert_eq!((outcome.choices[0].tokens.clone(), outcome.transcript_root), (expected.0[0].clone(), expected.1));
    }
    let load = together.load();
    assert_eq!((load.queued, load.limit), (0, 64));
}

#[test]
fn logprobs_are_a_distribution_and_the_same_everywhere() {
    let case = &reference()[2];
    let request = GenerationRequest { logprobs: Some(20), ..greedy(&case.prompt, 5) };
    let report = |kernel| {
        let backend = builtin(&aria_tiny(), &EngineOptions { kernel: Some(kernel), ..options(2) });
        let mut report = Vec::new();
        for event in run(&backend, request.clone()) {
            if let Event::Token { token, logprob, .. } = event {
                let logprob = logprob.expect("asked for");
                assert_eq!(logprob.top[0].0, token, "greedy takes the first of the order");
                assert_eq!(logprob.top[0].1.to_bits(), logprob.logprob.to_bits());
                assert_eq!(logprob.top.len(), 20);
                let mass: f64 = logprob.top.iter().map(|(_, l)| f64::from(*l).exp()).sum();
                assert!(mass > 0.5 && mass < 1.000_01, "{mass}");
                report.push(logprob.top.iter().map(|(id, l)| (*id, l.to_bits())).collect::<Vec<_>>());
            }
        }
        report
    };
    let expected = report(KernelKind::Scalar);
    assert_eq!(expected.len(), 5);
    for kernel in paths() {
        assert_eq!(report(kernel), expected, "{kernel}");
    }
    let plain = run(&builtin(&aria_tiny(), &options(1)), greedy(&case.prompt, 1));
    assert!(plain.iter().all(|event| !matches!(event, Event::Token { logprob: Some(_), .. })));
}

#[test]
fn cancelling_ends_a_running_request_within_a_step() {
    let backend = builtin(&aria_tiny(), &options(1));
    let cancel = CancelToken::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (inner, token) = (Arc::clone(&seen), cancel.clone());
    let (sender, done) = std::sync::mpsc::channel();
    let sink = Box::new(move |event: Event| {
        let mut seen = inner.lock().expect("no panic");
        if matches!(event, Event::Token { .. }) && seen.len() == 3 {
            token.cancel();
        }
        if matches!(event, Event::Done(_) | Event::Failed(_)) {
            sender.send(()).expect("the test waits");
        }
        seen.push(event);
    });
    backend.submit(greedy(&reference()[4].prompt, 1000), cancel, sink).expect("accepted");
    done.recv_timeout(std::time::Duration::from_secs(30)).expect("it ends");
    let seen = seen.lock().expect("no panic");
    let tokens = seen.iter().filter(|event| matches!(event, Event::Token { .. })).count();
    assert_eq!(tokens, 3, "none after the cancellation");
    let outcome = outcome(&seen);
    assert!(outcome.cancelled);
    assert_eq!(outcome.choices[0].finish, FinishReason::Cancelled);
    assert_eq!(outcome.choices[0].text, streamed(&seen, 0));
}

#[test]
fn cancelling_ends_a_queued_request_while_another_runs() {
    let backend = builtin(&aria_tiny(), &EngineOptions { sessions_max: 1, ..options(1) });
    let long = CancelToken::new();
    let running = submit(&backend, greedy(&reference()[4].prompt, 1900), long.clone());
    assert!(matches!(running.recv(), Ok(Event::Started { .. })));
    let cancel = CancelToken::new();
    let queued = submit(&backend, greedy(&reference()[0].prompt, 10), cancel.clone());
    cancel.cancel();
    let events = collect(&queued);
    assert!(outcome(&events).cancelled);
    assert_eq!(events.len(), 1, "it never started");
    assert!(backend.load().active == 1, "the other goes on");
    long.cancel();
    assert!(outcome(&collect(&running)).cancelled);
}

#[test]
fn a_full_queue_says_so() {
    let backend = builtin(&aria_tiny(), &EngineOptions { sessions_max: 1, queue_max: 2, ..options(1) });
    let long = CancelToken::new();
    let running = submit(&backend, greedy(&reference()[4].prompt, 1900), long.clone());
    assert!(matches!(running.recv(), Ok(Event::Started { .. })));
    let request = greedy(&reference()[0].prompt, 4);
    let waiting: Vec<_> = (0..2).map(|_| submit(&backend, request.clone(), CancelToken::new())).collect();
    let refused = backend.submit(request, CancelToken::new(), Box::new(|_| panic!("a refused request has no events")));
    assert_eq!(refused, Err(SubmitError::Busy { queued: 2, limit: 2 }));
    long.cancel();
    for events in &waiting {
        assert!(!outcome(&collect(events)).cancelled);
    }
}

#[test]
fn stopping_drains_or_cancels() {
    let prompt = &reference()[4].prompt;
    let backend = builtin(&aria_tiny(), &options(1));
    let events = submit(&backend, greedy(prompt, 30), CancelToken::new());
    backend.stop(true);
    assert_eq!(outcome(&collect(&events)).generated_tokens, 30);
    let refused = backend.submit(greedy(prompt, 1), CancelToken::new(), Box::new(|_| ()));
    assert_eq!(refused, Err(SubmitError::Stopped));

    let backend = builtin(&aria_tiny(), &EngineOptions { sessions_max: 1, ..options(1) });
    let events: Vec<_> = (0..3).map(|_| submit(&backend, greedy(prompt, 1900), CancelToken::new())).collect();
    backend.stop(false);
    for events in &events {
        assert!(outcome(&collect(events)).cancelled);
    }
}

#[test]
fn requests_that_cannot_run_name_their_field() {
    let tiny = aria_tiny();
    let backend = builtin(&tiny, &options(1));
    let base = greedy(&[1, 2, 3], 5);
    let check =
        |request: GenerationRequest| match backend.submit(request, CancelToken::new(), Box::new(|_| panic!("refused")))
        {
            Err(SubmitError::Invalid(error)) => error,
            other => panic!("{other:?}"),
        };
    assert_eq!(check(GenerationRequest { prompt: vec![], ..base.clone() }), RequestError::EmptyPrompt);
    let unknown = check(GenerationRequest { prompt: vec![1, 4096], ..base.clone() });
    assert_eq!(unknown, RequestError::UnknownToken { token: 4096, index: 1, vocab: 4096 });
    let long = check(GenerationRequest { max_tokens: 2046, ..base.clone() });
    assert_eq!(
        long.to_string(),
        "This model's maximum context length is 2048 tokens. However, you requested 2049 tokens \
         (3 in the messages, 2046 in the completion)."
    );
    assert_eq!(check(GenerationRequest { choices: 0, ..base.clone() }), RequestError::Choices(0));
    assert_eq!(check(GenerationRequest { choices: 17, ..base.clone() }).field(), "n");
    assert_eq!(check(GenerationRequest { max_tokens: 0, ..base.clone() }), RequestError::MaxTokens);
    let stops = vec!["x".to_owned(); 17];
    assert_eq!(check(GenerationRequest { stop: stops, ..base.clone() }), RequestError::Stops(17));
    let stop = vec![String::new()];
    assert_eq!(check(GenerationRequest { stop, ..base.clone() }), RequestError::Stop { index: 0, size_bytes: 0 });
    assert_eq!(check(GenerationRequest { logprobs: Some(21), ..base.clone() }), RequestError::Logprobs(21));
    let sampling = Sampling { top_k: 9999, ..Sampling::default() };
    assert_eq!(check(GenerationRequest { sampling, ..base.clone() }).field(), "top_k");

    let small = builtin(&tiny, &EngineOptions { kv_bytes_max: 100 * 3072, sessions_max: 2, ..options(1) });
    assert_eq!(small.model().context, 100, "bounded by the cache memory");
    let tight = GenerationRequest { choices: 2, max_tokens: 60, ..base.clone() };
    let refused = small.submit(tight, CancelToken::new(), Box::new(|_| ()));
    assert!(matches!(refused, Err(SubmitError::Invalid(RequestError::Memory { .. }))), "{refused:?}");
    let many = GenerationRequest { choices: 3, ..base };
    let refused = small.submit(many, CancelToken::new(), Box::new(|_| ()));
    assert!(matches!(refused, Err(SubmitError::Invalid(RequestError::Sessions { .. }))), "{refused:?}");
}

/// The mini model with the first value of one row replaced: `(tensor, row, value)` for each change.
fn damaged(changes: &[(&str, usize, f32)]) -> Gguf {
    let mut bytes = std::fs::read(data("mini-silu-tq2_0.gguf")).expect("readable");
    let gguf = mini_silu();
    for &(name, index, value) in changes {
        let rows = gguf.tensor(name).and_then(|tensor| tensor.floats()).expect("floats");
        let mut row = vec![0.0; rows.cols()];
        rows.row(index, &mut row);
        // The embedding is stored as binary16, gains as binary32.
        let encode = |v: f32| {
            if rows.precision().is_some() { narrow(v).to_le_bytes().to_vec() } else { v.to_le_bytes().to_vec() }
        };
        let old: Vec<u8> = row.iter().flat_map(|&v| encode(v)).collect();
        let at = bytes.windows(old.len()).position(|window| window == old).expect("stored as is");
        let new = encode(value);
        bytes[at..at + new.len()].copy_from_slice(&new);
    }
    Gguf::from_vec(bytes).expect("still a file")
}

#[test]
fn numbers_out_of_range_are_a_canonical_error() {
    // One gain of the last layer's feed-forward norm is as large as a number can be: the norm overflows wherever that state is not tiny.
    let gguf = damaged(&[("blk.2.ffn_norm.weight", 0, f32::MAX)]);
    let mut errors = Vec::new();
    for kernel in paths() {
        for threads in [1, 2] {
            let backend = builtin(&gguf, &EngineOptions { kernel: Some(kernel), ..options(threads) });
            let events = run(&backend, greedy(&[5, 6, 7], 4));
            match events.last() {
                Some(Event::Failed(error)) => errors.push(error.clone()),
                other => panic!("{other:?}"),
            }
        }
    }
    let EngineError::NotFinite { layer, code, .. } = errors[0] else { panic!("{:?}", errors[0]) };
    assert_eq!((layer, code), (2, FaultCode::FeedForwardNorm));
    assert!(errors.iter().all(|error| error == &errors[0]), "{errors:?}");
}

#[test]
fn a_failed_request_leaves_its_batch_mates_alone() {
    // With this gain every token overflows in the first layer, except the one whose first embedding value is zero.
    let gguf = damaged(&[("blk.0.attn_norm.weight", 0, f32::MAX), ("token_embd.weight", 77, 0.0)]);
    let backend = builtin(&gguf, &options(1));
    let alone = result(&backend, &greedy(&[77], 1));
    let prompts: Vec<Vec<u32>> = (0..12).map(|i| if i % 3 == 0 { vec![77] } else { vec![77, i] }).collect();
    let running: Vec<_> = prompts.iter().map(|p| submit(&backend, greedy(p, 1), CancelToken::new())).collect();
    for (prompt, events) in prompts.iter().zip(&running) {
        let events = collect(events);
        if prompt.len() == 1 {
            let outcome = outcome(&events);
            assert_eq!((vec![outcome.choices[0].tokens.clone()], outcome.transcript_root), alone);
        } else {
            let Some(Event::Failed(error)) = events.last() else { panic!("{events:?}") };
            let expected = EngineError::NotFinite { position: 1, layer: 0, code: FaultCode::AttentionNorm };
            assert_eq!(error, &expected, "the second token, in the first norm");
        }
    }
}

#[test]
fn simulation_says_what_it_is_and_repeats_itself() {
    let backend = Simulation::new(&aria_tiny()).expect("starts");
    assert_eq!(backend.kind(), BackendKind::Simulation);
    let request = sampled(&reference()[0].prompt, 64, 3);
    let events = run(&backend, request.clone());
    let text = &outcome(&events).choices[0].text;
    assert!(text.starts_with(NOTICE), "{text:?}");
    assert_eq!(&streamed(&events, 0), text);
    assert_eq!(outcome(&events).transcript_root, [0; 32], "nothing to audit");
    assert_eq!(result(&backend, &request), result(&backend, &request));
    assert_ne!(result(&backend, &request), result(&backend, &sampled(&reference()[0].prompt, 64, 4)));
    let stopped = run(&backend, GenerationRequest { stop: vec!["answer".to_owned()], ..request.clone() });
    assert_eq!(outcome(&stopped).choices[0].text, "This is a simulated ");
    let short = run(&backend, GenerationRequest { max_tokens: 2, ..request.clone() });
    assert_eq!(outcome(&short).choices[0].finish, FinishReason::Length);
    backend.stop(true);
    assert_eq!(backend.submit(request, CancelToken::new(), Box::new(|_| ())), Err(SubmitError::Stopped));
}
