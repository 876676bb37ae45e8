//! What the engine does with the embedded model: prefill and decode, through the backend that a node uses, transcript and all.

use std::{path::Path, sync::Arc, sync::mpsc, time::Duration};

use aria_inference::{
    backend::{Backend, CancelToken, builtin::Builtin},
    energy::{Meter, POWERCAP_ROOT},
    engine::{Engine, EngineOptions},
    generation::{Event, GenerationRequest, Outcome},
    gguf::Gguf,
    sampler::Sampling,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn backend(threads: usize) -> Builtin {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../genesis/aria-tiny.gguf");
    let gguf = Gguf::open(&path).expect("the embedded model is part of the project");
    let engine =
        Engine::load(&gguf, &EngineOptions { threads, ..EngineOptions::default() }).expect("the embedded model runs");
    Builtin::start(engine, Arc::new(Meter::new(Path::new(POWERCAP_ROOT)))).expect("a thread can be started")
}

fn run(backend: &Builtin, prompt: u32, generate: u32) -> Outcome {
    // End-of-turn tokens are made impossible, so that every run has the same length.
    let logit_bias = backend.tokenizer().end_tokens().iter().map(|token| (*token, -100.0)).collect();
    let request = GenerationRequest {
        prompt: (0..prompt).map(|at| 300 + at % 3000).collect(),
        choices: 1,
        max_tokens: generate,
        stop: Vec::new(),
        sampling: Sampling { logit_bias, ..Sampling::greedy() },
        logprobs: None,
        salt: [0; 32],
    };
    let (told, events) = mpsc::channel();
    backend
        .submit(request, CancelToken::new(), Box::new(move |event| drop(told.send(event))))
        .expect("an idle backend takes a request");
    let outcome =
        events.into_iter().find_map(|event| if let Event::Done(outcome) = event { Some(*outcome) } else { None });
    outcome.expect("every request ends")
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aria-tiny");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for threads in [1, 2] {
        let backend = backend(threads);
        group.throughput(Throughput::Elements(512));
        group.bench_function(format!("prefill 512 tokens, {threads} threads"), |bench| {
            bench.iter(|| run(&backend, 512, 1))
        });
        group.throughput(Throughput::Elements(128));
        group.bench_function(format!("decode 128 tokens, {threads} threads"), |bench| {
            bench.iter(|| run(&backend, 1, 128))
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
