//! `aria bench`: how fast this machine runs a model, beside what the machine could do at most.
//!
//! Requests go through the same scheduler as a node's. Every figure is a median of measurements; what is derived from sizes says so.

mod measure;
mod show;

use std::{path::Path, process::ExitCode, sync::Arc, thread::available_parallelism};

use anyhow::Context;
use aria_inference::{
    energy::{Meter, POWERCAP_ROOT},
    engine::{Engine, EngineOptions},
    gguf::Gguf,
    kernels::peak,
    synthetic::Shape,
};
use serde_json::{Value, json};

use super::{Setting, print_json};
use crate::{
    cli::BenchArgs,
    model::{EMBEDDED_NAME, locate},
    node::kernel_of,
};
use measure::{Bench, Case};

/// Memory for the caches of all streams.
const KV_BYTES_MAX: u64 = 8 << 30;

pub(super) fn bench(setting: &Setting, args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let cores = available_parallelism().map_or(1, usize::from);
    let cases = cases(args, cores);
    let (engine, file_bytes) = load(setting, args, &cases)?;
    let limit = engine.info().context;
    for case in &cases {
        let needed = case.prompt + case.generate;
        anyhow::ensure!(
            needed <= limit,
            "prompt and answer of {needed} tokens do not fit the model's context of {limit}: lower --prompt, --context or --generate"
        );
    }
    let meter = Arc::new(Meter::new(Path::new(POWERCAP_ROOT)));
    let mut bench = Bench::new(engine, meter, usize::from(args.repeat));
    let mut runs = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        eprintln!("{}/{}: {case}", index + 1, cases.len());
        let before = peak::read_gb_s(case.threads)?;
        let mut run = bench.run(case)?;
        let after = peak::read_gb_s(case.threads)?;
        run["read_gb_s"] = json!(round(before.max(after)));
        run["read_gb_s_before_after"] = json!([round(before), round(after)]);
        run["int8_gmac_s"] = json!(peak::int8_gmac_s(bench.info().kernel, case.threads)?.map(round));
        measure::relate(&mut run, bench.info());
        runs.push(run);
    }
    let report = report(&bench, file_bytes, runs);
    if setting.json {
        print_json(&report);
    } else {
        show::table(&report);
    }
    Ok(ExitCode::SUCCESS)
}

/// The model, loaded, and the size of its file.
fn load(setting: &Setting, args: &BenchArgs, cases: &[Case]) -> anyhow::Result<(Engine, u64)> {
    let gguf: Gguf = if let Some(name) = &args.shape {
        let shape = Shape::named(name).context("shapes: tiny, 0.7b, 2b, 8b")?;
        eprintln!("making random weights of shape {name} …");
        shape.model(1)?
    } else {
        let name = args.model.as_deref().unwrap_or(EMBEDDED_NAME);
        locate(name, &setting.existing().models())?.open()?
    };
    eprintln!("loading …");
    let options = EngineOptions {
        threads: cases[0].threads,
        kernel: kernel_of(args.kernel.as_deref())?,
        sessions_max: 64,
        kv_bytes_max: KV_BYTES_MAX,
        // Every measurement reads its own prompt.
        prefix_bytes_max: 0,
        ..EngineOptions::default()
    };
    let file_bytes = gguf.size_bytes();
    Ok((Engine::load(&gguf, &options)?, file_bytes))
}

/// What is to be measured.
fn cases(args: &BenchArgs, cores: usize) -> Vec<Case> {
    let (prompt, generate) = (args.prompt as usize, args.generate as usize);
    if args.set {
        let scaling = (1..=cores).map(|threads| Case { threads, prompt, generate, batch: 1 });
        let streams = [2, 3, 4, 8].map(|batch| Case { threads: cores, prompt: 32, generate, batch });
        let contexts = [32, 128, 512, 1024].map(|context| {
            // The longest ends at its length, so that a model with this context can be measured.
            Case {
                threads: cores,
                prompt: context - generate.min(context / 2),
                generate: generate.min(context / 2),
                batch: 1,
            }
        });
        return scaling.chain(streams).chain(contexts).collect();
    }
    let threads = if args.threads.is_empty() { vec![cores] } else { args.threads.iter().map(|&t| t.into()).collect() };
    let prompts =
        if args.context.is_empty() { vec![prompt] } else { args.context.iter().map(|&c| c as usize).collect() };
    let mut cases = Vec::new();
    for &threads in &threads {
        for &prompt in &prompts {
            cases.extend(args.batch.iter().map(|&batch| Case { threads, prompt, generate, batch: batch.into() }));
        }
    }
    cases
}

/// One document; a single run lies at its top.
fn report(bench: &Bench, file_bytes: u64, mut runs: Vec<Value>) -> Value {
    let info = bench.info();
    let rss = measure::resident_bytes();
    #[expect(clippy::cast_precision_loss, reason = "sizes far below 2^53")]
    let ratio = rss.map(|rss| rss as f64 / file_bytes as f64);
    let mut report = json!({
        "model": info.name,
        "model_digest": info.digest.to_string(),
        "kernel": info.kernel.name(),
        "arithmetic": info.arithmetic,
        "file_bytes": file_bytes,
        "weight_bytes": info.weight_bytes,
        "rss_bytes": rss,
        "rss_over_file": ratio,
    });
    if let [run] = runs.as_mut_slice()
        && let (Some(report), Some(run)) = (report.as_object_mut(), run.as_object_mut())
    {
        report.append(run);
    } else {
        report["runs"] = json!(runs);
    }
    report
}

/// Three digits behind the point are more than any of this is worth.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
