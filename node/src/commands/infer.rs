//! `aria infer`: ask the running node; with none running, answer in this process and say that nothing was recorded.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
    sync::mpsc,
};

use anyhow::Context;
use aria_inference::{
    backend::CancelToken,
    chat::ChatMessage,
    engine::EngineOptions,
    generation::{Event, GenerationRequest, Outcome},
    sampler::Sampling,
};
use serde_json::{Value, json};

use super::{Setting, paid::ask_at, print_json};
use crate::{
    amount::Amount,
    cli::{BackendChoice, InferArgs},
    client::chat,
    model::{EMBEDDED_NAME, locate},
    node::kernel_of,
};

/// Longest question from standard input.
const PROMPT_BYTES_MAX: u64 = 4 << 20;

pub(super) async fn infer(setting: &Setting, mut args: InferArgs) -> anyhow::Result<ExitCode> {
    if args.prompt == "-" {
        args.prompt.clear();
        io::stdin().take(PROMPT_BYTES_MAX).read_to_string(&mut args.prompt).context("standard input cannot be read")?;
    }
    let answer = match setting.existing().running() {
        _ if !args.at.is_empty() => ask_at(setting, &args).await?.view(),
        Some(node) => {
            let key = setting.existing().api_keys()?.into_iter().next();
            stream(setting, &node.api, key.as_deref(), &body(&args, &node.model)).await?.view()
        }
        None => answer_here(setting, &args)?,
    };
    if setting.json {
        print_json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    println!();
    match answer["record_id"].as_str() {
        Some(id) => eprintln!("record {id}"),
        None => eprintln!("(no node is running here, so nothing was recorded; start one with `aria node start`)"),
    }
    Ok(ExitCode::SUCCESS)
}

fn messages(args: &InferArgs) -> Vec<ChatMessage> {
    let message = |role: &str, content: &str| ChatMessage { role: role.to_owned(), content: content.to_owned() };
    let system = args.system.as_deref().map(|text| message("system", text));
    system.into_iter().chain([message("user", &args.prompt)]).collect()
}

/// What a node is asked.
pub(super) fn body(args: &InferArgs, model: &str) -> Value {
    let messages: Vec<Value> =
        messages(args).iter().map(|message| json!({"role": message.role, "content": message.content})).collect();
    let mut own = json!({"audit": if args.private { "none" } else { "committee" }});
    if let Some(Amount(fee)) = args.pay {
        own["max_fee"] = json!(fee.get());
    }
    json!({
        "model": args.model.as_deref().unwrap_or(model),
        "messages": messages,
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "seed": args.seed,
        "stream": true,
        "stream_options": {"include_usage": true},
        "aria": own,
    })
}

/// An answer as it came.
#[derive(Default)]
pub(super) struct Answer {
    model: Value,
    text: String,
    finish: Value,
    pub(super) usage: Value,
    pub(super) aria: Value,
}

impl Answer {
    fn take(&mut self, chunk: &Value) {
        let choice = &chunk["choices"][0];
        self.text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        for (slot, value) in [
            (&mut self.finish, &choice["finish_reason"]),
            (&mut self.usage, &chunk["usage"]),
            (&mut self.aria, &chunk["aria"]),
        ] {
            if !value.is_null() {
                *slot = value.clone();
            }
        }
    }

    fn view(&self) -> Value {
        let Answer { model, text, finish, usage, aria } = self;
        json!({
            "text": text,
            "finish_reason": finish,
            "record_id": aria["record_id"],
            "request_id": aria["request_id"],
            "transcript_root": aria["transcript_root"],
            "model": model,
            "prompt_tokens": usage["prompt_tokens"],
            "tokens_generated": usage["completion_tokens"],
            "latency_ms": aria["latency_ms"],
            "first_token_ms": aria["first_token_ms"],
            "energy_mj": aria["energy_mj"],
            "energy_source": aria["energy_source"],
        })
    }
}

/// Shows an answer while it comes.
pub(super) async fn stream(setting: &Setting, api: &str, key: Option<&str>, body: &Value) -> anyhow::Result<Answer> {
    let mut answer = Answer { model: body["model"].clone(), ..Answer::default() };
    chat(api, key, body, |chunk| {
        show(setting, chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        answer.take(chunk);
    })
    .await?;
    Ok(answer)
}

/// Shows a piece of the answer at once, unless a script is reading.
fn show(setting: &Setting, piece: &str) {
    if !setting.json {
        print!("{piece}");
        // A reader that went away is noticed at the next line.
        let _ = io::stdout().flush();
    }
}

fn answer_here(setting: &Setting, args: &InferArgs) -> anyhow::Result<Value> {
    let located = locate(args.model.as_deref().unwrap_or(EMBEDDED_NAME), &setting.existing().models())?;
    let mut options = EngineOptions { kernel: kernel_of(args.kernel.as_deref())?, ..EngineOptions::default() };
    options.threads = args.threads.unwrap_or(options.threads);
    let backend = located.start(BackendChoice::Auto, &options)?;
    let template = backend.chat().context("the model has no chat template")?;
    let prompt = template.encode(backend.tokenizer(), &messages(args))?;
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("the system's source of randomness failed: {error}"))?;
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: args.top_p,
        seed: args.seed.unwrap_or(u64::from_le_bytes(seed)),
        ..Sampling::default()
    };
    let request = GenerationRequest {
        prompt,
        choices: 1,
        max_tokens: args.max_tokens,
        stop: Vec::new(),
        sampling: crate::services::gateway::settle(sampling),
        logprobs: None,
        // Fixed, so that the transcript root can be compared between machines.
        salt: [0; 32],
    };
    let (sink, events) = mpsc::channel();
    backend.submit(request, CancelToken::new(), Box::new(move |event| drop(sink.send(event))))?;
    for event in events {
        match event {
            Event::Token { text, .. } | Event::ChoiceDone { text, .. } => show(setting, &text),
            Event::Started { .. } => {}
            Event::Failed(error) => return Err(error.into()),
            Event::Done(outcome) => return Ok(here_view(&located.name, backend.model().kernel.name(), &outcome)),
        }
    }
    anyhow::bail!("the engine stopped without an answer")
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn here_view(model: &str, kernel: &str, outcome: &Outcome) -> Value {
    let choice = &outcome.choices[0];
    let root: String = outcome.transcript_root.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "text": choice.text,
        "tokens": choice.tokens,
        "finish_reason": format!("{:?}", choice.finish).to_lowercase(),
        "record_id": null,
        "request_id": null,
        "transcript_root": root,
        "model": model,
        "kernel": kernel,
        "prompt_tokens": outcome.prompt_tokens,
        "tokens_generated": outcome.generated_tokens,
        "latency_ms": outcome.total_ms,
        "first_token_ms": outcome.first_token_ms,
        "energy_mj": outcome.energy.microjoules as f64 / 1000.0,
        "energy_source": format!("{:?}", outcome.energy.source).to_lowercase(),
    })
}
