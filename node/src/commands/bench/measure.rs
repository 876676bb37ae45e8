//! The measurements: requests through the scheduler, with the time of each token.

use std::{
    fmt,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::Context;
use aria_inference::{
    backend::{CancelToken, ModelInfo},
    batch::{EventReply, Job, Scheduler, VerdictReply},
    energy::Meter,
    engine::Engine,
    forward::Wants,
    generation::{Event, GenerationRequest, Outcome},
    sampler::Sampling,
    transcript::boundaries,
    verify::{Claim, LayerClaim, LayerVerdict, Verdict},
};
use serde_json::{Value, json};

use super::round;

/// Tokens over which the cost of commitments is measured, each way.
const COMMIT_TOKENS: usize = 64;

/// One combination of sizes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) threads: usize,
    pub(super) prompt: usize,
    pub(super) generate: usize,
    pub(super) batch: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { threads, prompt, generate, batch } = self;
        write!(f, "{threads} threads, prompt {prompt}, generate {generate}, {batch} at once")
    }
}

/// An engine being measured.
#[derive(Debug)]
pub(super) struct Bench {
    /// Taken while threads change.
    scheduler: Option<Scheduler>,
    meter: Arc<Meter>,
    info: ModelInfo,
    repeat: usize,
    /// So that no two prompts begin alike.
    started: u32,
}

/// One request's times.
struct Times {
    /// From the start to each token.
    tokens: Vec<Duration>,
    outcome: Outcome,
}

impl Bench {
    pub(super) fn new(engine: Engine, meter: Arc<Meter>, repeat: usize) -> Bench {
        let info = engine.info().clone();
        Bench { scheduler: Some(Scheduler::new(engine, Arc::clone(&meter))), meter, info, repeat, started: 0 }
    }

    pub(super) fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// All measurements of one case.
    pub(super) fn run(&mut self, case: &Case) -> anyhow::Result<Value> {
        let commit_share = self.with_engine(|engine| {
            engine.set_threads(case.threads)?;
            commit_share(engine)
        })?;
        // Warms up caches and clocks.
        self.requests(&Case { generate: 2, prompt: case.prompt.min(64), ..*case })?;
        let (mut prefill, mut decode, mut audit) = (Vec::new(), Vec::new(), Vec::new());
        let mut layers = [Vec::new(), Vec::new()];
        for _ in 0..self.repeat {
            let times = self.requests(case)?;
            let first = times.iter().map(|times| times.tokens[0]).max().unwrap_or_default();
            let last = times.iter().filter_map(|times| times.tokens.last()).max().copied().unwrap_or_default();
            prefill.push(count(case.prompt * case.batch) / first.as_secs_f64());
            // Tokens that came after the last request had its first.
            let later = times.iter().flat_map(|times| &times.tokens).filter(|&&at| at > first).count();
            decode.push(count(later) / (last - first).as_secs_f64());
            if let [times] = times.as_slice() {
                let generated = times.tokens.last().copied().unwrap_or_default();
                let whole = self.verify(case, &times.outcome)?.as_secs_f64();
                audit.push(whole / generated.as_secs_f64());
                let last = self.info.hyper.layers - 1;
                for (layer, ratios) in [last / 2, last].into_iter().zip(&mut layers) {
                    ratios.push(self.verify_layer(case, &times.outcome, layer)?.as_secs_f64() / whole);
                }
            }
        }
        Ok(json!({
            "threads": case.threads,
            "prompt": case.prompt,
            "generate": case.generate,
            "batch": case.batch,
            "prefill_tok_s": median(&prefill).map(round),
            "decode_tok_s": median(&decode).map(round),
            "audit_ratio": median(&audit).map(round),
            "layer_ratio": median(&layers[0]).map(round),
            "last_layer_ratio": median(&layers[1]).map(round),
            "commit_share": round(commit_share),
            "samples": {
                "prefill_tok_s": prefill.iter().copied().map(round).collect::<Vec<_>>(),
                "decode_tok_s": decode.iter().copied().map(round).collect::<Vec<_>>(),
                "audit_ratio": audit.iter().copied().map(round).collect::<Vec<_>>(),
            },
        }))
    }

    fn with_engine<T>(&mut self, work: impl FnOnce(&mut Engine) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut engine = self.scheduler.take().context("the bench has its engine")?.into_engine();
        let result = work(&mut engine);
        self.info = engine.info().clone();
        self.scheduler = Some(Scheduler::new(engine, Arc::clone(&self.meter)));
        result
    }

    fn scheduler(&mut self) -> anyhow::Result<&mut Scheduler> {
        self.scheduler.as_mut().context("the bench has its engine")
    }

    /// Runs the requests of a case together.
    fn requests(&mut self, case: &Case) -> anyhow::Result<Vec<Times>> {
        let began = Instant::now();
        let mut waiting = Vec::new();
        for _ in 0..case.batch {
            self.started += 1;
            let request = self.request(case, self.started)?;
            let (told, events) = mpsc::channel();
            let reply = EventReply::new(Box::new(move |event| {
                // The receiver lives until the end of this function.
                let _ = told.send((began.elapsed(), event));
            }));
            self.scheduler()?.push(Job::Generate { request, cancel: CancelToken::new(), reply });
            waiting.push(events);
        }
        self.finish()?;
        waiting.into_iter().map(times).collect()
    }

    /// Time to verify the claim of an outcome.
    fn verify(&mut self, case: &Case, outcome: &Outcome) -> anyhow::Result<Duration> {
        let claim = Claim::new(self.request(case, self.started)?, outcome);
        let (told, verdicts) = mpsc::channel();
        let reply = VerdictReply::new(Box::new(move |verdict| {
            let _ = told.send(verdict);
        }));
        let began = Instant::now();
        self.scheduler()?.push(Job::Verify { claim, cancel: CancelToken::new(), reply });
        self.finish()?;
        let elapsed = began.elapsed();
        match verdicts.recv()?? {
            Verdict::Valid(_) => Ok(elapsed),
            other => anyhow::bail!("a true claim was found to be {other:?}; please report this"),
        }
    }

    /// Time to run one layer of an outcome again, as a judge does who is shown what enters it.
    fn verify_layer(&mut self, case: &Case, outcome: &Outcome, layer: usize) -> anyhow::Result<Duration> {
        let claim = Claim::new(self.request(case, self.started)?, outcome);
        let boundary_roots = outcome.choices.first().context("there is a choice")?.boundary_roots.clone();
        // A false root behind it makes a search tell what enters it.
        let mut false_roots = boundary_roots.clone();
        false_roots.get_mut(layer + 1).context("there is a boundary behind each layer")?[0] ^= 1;
        let layers = 0..self.info.hyper.layers;
        let search = LayerClaim { claim, choice: 0, boundary_roots: false_roots, layers, states: Vec::new() };
        let (found, _) = self.layers(search.clone())?;
        let LayerVerdict::Wrong { states, .. } = found else {
            anyhow::bail!("a false root was found to be {found:?}; please report this");
        };
        match self.layers(LayerClaim { boundary_roots, layers: layer..layer + 1, states, ..search })? {
            (LayerVerdict::Right, elapsed) => Ok(elapsed),
            (other, _) => anyhow::bail!("a right layer was found to be {other:?}; please report this"),
        }
    }

    /// Runs layers of a claim again, and the time it took.
    fn layers(&mut self, asked: LayerClaim) -> anyhow::Result<(LayerVerdict, Duration)> {
        let (told, verdicts) = mpsc::channel();
        let reply = VerdictReply::new(Box::new(move |verdict| {
            let _ = told.send(verdict);
        }));
        let began = Instant::now();
        self.scheduler()?.push(Job::Layers { asked: Box::new(asked), cancel: CancelToken::new(), reply });
        self.finish()?;
        let elapsed = began.elapsed();
        Ok((verdicts.recv()??, elapsed))
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        let scheduler = self.scheduler()?;
        while !scheduler.is_idle() {
            scheduler.admit();
            scheduler.step();
        }
        Ok(())
    }

    /// A prompt that no other request begins with, answered greedily and never ended by the model.
    fn request(&mut self, case: &Case, number: u32) -> anyhow::Result<GenerationRequest> {
        let vocab = u32::try_from(self.info.hyper.vocab)?;
        let ends = self.scheduler()?.engine().tokenizer().end_tokens().to_vec();
        let prompt = (0..u32::try_from(case.prompt)?)
            .map(|at| at.wrapping_mul(7919).wrapping_add(number.wrapping_mul(104_729)) % vocab)
            .collect();
        Ok(GenerationRequest {
            prompt,
            choices: 1,
            max_tokens: u32::try_from(case.generate)?,
            stop: Vec::new(),
            sampling: Sampling {
                logit_bias: ends.iter().map(|&token| (token, -100.0)).collect(),
                ..Sampling::greedy()
            },
            logprobs: None,
            salt: [7; 32],
        })
    }
}

fn times(events: mpsc::Receiver<(Duration, Event)>) -> anyhow::Result<Times> {
    let mut tokens = Vec::new();
    for (at, event) in events {
        match event {
            Event::Token { .. } => tokens.push(at),
            Event::Done(outcome) => return Ok(Times { tokens, outcome: *outcome }),
            Event::Failed(error) => return Err(error.into()),
            Event::Started { .. } | Event::ChoiceDone { .. } => {}
        }
    }
    anyhow::bail!("the engine stopped without an answer")
}

/// The share of a token's time that its commitments take: the same tokens with and without a transcript, in turns, and the median of the differences:
/// a neighbour's noise is mostly longer than a token.
fn commit_share(engine: &mut Engine) -> anyhow::Result<f64> {
    let capacity = COMMIT_TOKENS.min(engine.info().context);
    let vocab = u32::try_from(engine.info().hyper.vocab)?;
    let mut plain = engine.session(capacity, None);
    let mut kept = engine.session(capacity, Some([7; 32]));
    let (mut without, mut with): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    for at in 0..u32::try_from(capacity)? {
        let token = at.wrapping_mul(7919) % vocab;
        for (session, samples) in [(&mut plain, &mut without), (&mut kept, &mut with)] {
            let began = Instant::now();
            engine.feed(session, &[token], Wants::greatest(1))?;
            samples.push(began.elapsed().as_secs_f64());
        }
    }
    let differences: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with - without).collect();
    Ok(median(&differences).unwrap_or_default() / median(&with).unwrap_or(1.0))
}

/// Adds what follows from the sizes: bytes and multiply-adds of a token, and the shares of the machine's limits.
pub(super) fn relate(run: &mut Value, info: &ModelInfo) {
    let hyper = &info.hyper;
    let head = hyper.vocab * hyper.dim;
    let ternary = hyper.multiplied_weights() - head as u64;
    // Two bits a weight; of the head one byte a value and two numbers a row.
    let bytes = ternary / 4 + (head + 8 * hyper.vocab) as u64;
    #[expect(clippy::cast_precision_loss, reason = "sizes far below 2^53")]
    let (bytes, macs) = (bytes as f64, ternary as f64);
    run["derived"] = json!({
        "bytes_per_token": bytes,
        "macs_per_prompt_token": macs,
        "hashed_bytes_per_token": boundaries(hyper.layers) * hyper.dim * 4,
        "decode_share_of_read_limit": ratio(run, "decode_tok_s", bytes / 1e9, "read_gb_s"),
        "prefill_share_of_int8_peak": ratio(run, "prefill_tok_s", macs / 1e9, "int8_gmac_s"),
    });
}

fn ratio(run: &Value, rate: &str, unit: f64, limit: &str) -> Option<f64> {
    let share = run[rate].as_f64()? * unit / run[limit].as_f64()?;
    // Streams that share a pass over the weights may well be above one.
    Some(round(share))
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens")]
fn count(tokens: usize) -> f64 {
    tokens as f64
}

fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Memory of this process that is in use, where the system tells.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
