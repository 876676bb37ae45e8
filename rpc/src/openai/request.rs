//! From JSON to an order. A parameter works, or is on a short documented list without effect (`user`, `metadata`, `store`,
//! `service_tier`, `safety_identifier`, `prompt_cache_key`, `parallel_tool_calls`, `logit_bias` of nothing), or is refused by
//! name. Unknown fields are accepted: client libraries add new ones every month.

use aria_chain::keys::Signature;
use aria_chain::request::{AuditMode, TaskType};
use aria_chain::units::NanoAria;
use aria_inference::{chat::ChatMessage, sampler::Sampling};
use serde_json::Value;

use super::{error::ApiError, fields::Fields};
use crate::services::{GenerateCall, Payer, Prompt};

/// Answers to one request.
const CHOICES_MAX: u32 = 8;
/// Messages of a conversation: far more than fit a context.
const MESSAGES_MAX: usize = 4096;
/// Candidates kept: docs/arithmetic.md, R13.
const TOP_K_MAX: u32 = 1024;
/// Alternatives in the shape of chat completions and in the older one.
const TOP_LOGPROBS_MAX: u32 = 20;
const LOGPROBS_MAX: u32 = 5;
/// Longest answer that can be asked for; the model's context is always shorter.
const TOKENS_MAX: u32 = 1 << 20;

/// What was asked, and how it is to be told.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) call: GenerateCall,
    pub(super) is_stream: bool,
    pub(super) includes_usage: bool,
}

/// A chat completion.
pub(super) fn chat(body: Value) -> Result<Asked, ApiError> {
    let fields = Fields::new(body)?;
    refuse_unsupported_of_chat(&fields)?;
    let (one, other) =
        (fields.whole("max_completion_tokens", 1..=TOKENS_MAX)?, fields.whole("max_tokens", 1..=TOKENS_MAX)?);
    if one.is_some() && other.is_some() && one != other {
        return Err(ApiError::value("max_tokens", "differs from 'max_completion_tokens'; send one of them"));
    }
    let top = fields.whole("top_logprobs", 0..=TOP_LOGPROBS_MAX)?;
    let logprobs = fields.bool("logprobs")?;
    if top.is_some() && !logprobs {
        return Err(ApiError::value("top_logprobs", "needs 'logprobs' to be true"));
    }
    let logprobs = logprobs.then(|| u8::try_from(top.unwrap_or_default()).unwrap_or(u8::MAX));
    asked(&fields, Prompt::Chat(messages(&fields)?), one.or(other), logprobs)
}

/// A text completion.
pub(super) fn completion(body: Value) -> Result<Asked, ApiError> {
    let fields = Fields::new(body)?;
    if fields.bool("echo")? {
        return Err(ApiError::unsupported("echo", "the prompt is not repeated by this server"));
    }
    if fields.whole("best_of", 1..=u32::MAX)?.is_some_and(|best| best > 1) {
        return Err(ApiError::unsupported("best_of", "only 1 is possible; use 'n' for several answers"));
    }
    if fields.str("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::unsupported("suffix", "the models here only continue a text"));
    }
    let logprobs = fields.whole("logprobs", 0..=LOGPROBS_MAX)?.map(|top| u8::try_from(top).unwrap_or(u8::MAX));
    // OpenAI's default here is 16, and its clients rely on it.
    let max_tokens = fields.whole("max_tokens", 1..=TOKENS_MAX)?.unwrap_or(16);
    asked(&fields, text_prompt(&fields)?, Some(max_tokens), logprobs)
}

fn asked(fields: &Fields, prompt: Prompt, max_tokens: Option<u32>, logprobs: Option<u8>) -> Result<Asked, ApiError> {
    let model = fields.str("model")?.ok_or_else(|| ApiError::value("model", "is missing; see /v1/models"))?;
    let seed = fields.seed("seed")?;
    let usual = Sampling::default();
    let sampling = Sampling {
        temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(usual.temperature),
        top_p: fields.number("top_p", 0.0..=1.0)?.unwrap_or(usual.top_p),
        top_k: fields.whole("top_k", 0..=TOP_K_MAX)?.unwrap_or(usual.top_k),
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(usual.min_p),
        repetition_penalty: fields.number("repetition_penalty", 0.01..=10.0)?.unwrap_or(usual.repetition_penalty),
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(usual.presence_penalty),
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(usual.frequency_penalty),
        logit_bias: fields.logit_bias()?,
        seed: seed.unwrap_or_default(),
    };
    let is_stream = fields.bool("stream")?;
    let includes_usage = match fields.get("stream_options") {
        None => false,
        Some(_) if !is_stream => return Err(ApiError::value("stream_options", "needs 'stream' to be true")),
        Some(options) => Fields::new(options.clone())
            .map_err(|_| ApiError::value("stream_options", "must be an object"))?
            .bool("include_usage")?,
    };
    let (audit, task, payer) = own(fields)?;
    let call = GenerateCall {
        model: model.to_owned(),
        prompt,
        choices: fields.whole("n", 1..=CHOICES_MAX)?.unwrap_or(1),
        max_tokens,
        stop: fields.stops()?,
        sampling,
        is_seeded: seed.is_some(),
        logprobs,
        audit,
        task,
        ram_mb: 0,
        payer,
    };
    Ok(Asked { call, is_stream, includes_usage })
}

/// Our own object: `{"aria": {"audit": "none", "task_type": "code_gen", "max_fee": 5000000}}`.
fn own(fields: &Fields) -> Result<(AuditMode, TaskType, Payer), ApiError> {
    let Some(own) = fields.get("aria") else { return Ok((AuditMode::Committee, TaskType::Any, Payer::Node(None))) };
    let own = Fields::new(own.clone()).map_err(|_| ApiError::value("aria", "must be an object"))?;
    let fault = || ApiError::value("aria.audit", "must be `committee` or `none`");
    let audit = match own.str("audit").map_err(|_| fault())? {
        None | Some("committee") => AuditMode::Committee,
        Some("none") => AuditMode::None,
        Some(_) => return Err(fault()),
    };
    let names = TaskType::ALL.map(TaskType::name).join(", ");
    let fault = || ApiError::value("aria.task_type", format!("must be one of {names}"));
    let task = match own.str("task_type").map_err(|_| fault())? {
        None => TaskType::Any,
        Some(name) => name.parse().map_err(|()| fault())?,
    };
    Ok((audit, task, payer(&own)?))
}

/// Who pays: `max_fee`, and for clients with a key `requester`, then `request_id` and `signature`.
fn payer(own: &Fields) -> Result<Payer, ApiError> {
    let fault = || ApiError::value("aria.max_fee", "must be a whole number of nano-ARIA");
    let max_fee = own.get("max_fee").map(|nano| nano.as_u64().map(NanoAria::new).ok_or_else(fault)).transpose()?;
    if let Some(signature) = signature(own, "aria.signature")? {
        let fault = || ApiError::value("aria.request_id", "must be the 64 hex digits of the offer that is signed");
        let id = own.str("request_id").ok().flatten().and_then(|id| id.parse().ok()).ok_or_else(fault)?;
        return Ok(Payer::Signed(id, signature));
    }
    let fault = || ApiError::value("aria.requester", "must be a public key of 64 hex digits");
    match own.str("requester").map_err(|_| fault())? {
        None => Ok(Payer::Node(max_fee)),
        Some(key) => Ok(Payer::Client(key.parse().map_err(|_| fault())?, max_fee.unwrap_or(NanoAria::ZERO))),
    }
}

/// The field `signature`, named as `param` where it is none.
pub(super) fn signature(fields: &Fields, param: &str) -> Result<Option<Signature>, ApiError> {
    let fault = || ApiError::value(param, "must be a signature of 128 hex digits");
    let Some(text) = fields.str("signature").map_err(|_| fault())? else { return Ok(None) };
    let mut bytes = [0; 64];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| fault())?;
    Ok(Some(Signature::new(bytes)))
}

fn refuse_unsupported_of_chat(fields: &Fields) -> Result<(), ApiError> {
    let format = fields.get("response_format").and_then(|format| format["type"].as_str().or(format.as_str()));
    if fields.has("response_format") && format != Some("text") {
        return Err(ApiError::unsupported("response_format", "only {\"type\": \"text\"} is possible"));
    }
    for name in ["tools", "functions"] {
        if fields.get(name).is_some_and(|tools| tools.as_array().is_none_or(|tools| !tools.is_empty())) {
            return Err(ApiError::unsupported(name, "the models here call no tools"));
        }
    }
    for name in ["tool_choice", "function_call"] {
        if fields.get(name).is_some_and(|choice| !matches!(choice.as_str(), Some("none" | "auto"))) {
            return Err(ApiError::unsupported(name, "the models here call no tools"));
        }
    }
    if fields.get("modalities").is_some_and(|kinds| *kinds != serde_json::json!(["text"])) {
        return Err(ApiError::unsupported("modalities", "only [\"text\"] is possible"));
    }
    for name in ["audio", "prediction", "reasoning_effort", "web_search_options", "verbosity"] {
        if fields.has(name) {
            return Err(ApiError::unsupported(name, "it has no meaning for the models here"));
        }
    }
    Ok(())
}

fn messages(fields: &Fields) -> Result<Vec<ChatMessage>, ApiError> {
    let rule = "must be an array of messages, at least one";
    let messages = fields.get("messages").and_then(Value::as_array).filter(|messages| !messages.is_empty());
    let messages = messages.ok_or_else(|| ApiError::value("messages", rule))?;
    if messages.len() > MESSAGES_MAX {
        return Err(ApiError::value(
            "messages",
            format!("at most {MESSAGES_MAX} messages are read, not {}", messages.len()),
        ));
    }
    messages.iter().enumerate().map(|(index, message)| read_message(index, message)).collect()
}

fn read_message(index: usize, message: &Value) -> Result<ChatMessage, ApiError> {
    let at = |field: &str| format!("messages[{index}].{field}");
    let role = match message["role"].as_str() {
        // Newer clients call the system's voice the developer's.
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant")) => role,
        _ => return Err(ApiError::value(&at("role"), "must be system, developer, user or assistant")),
    };
    let content = match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .enumerate()
            .map(|(part, value)| read_part(&at(&format!("content[{part}]")), value))
            .collect::<Result<String, _>>()?,
        Value::Null if role == "assistant" => String::new(),
        _ => return Err(ApiError::value(&at("content"), "must be a string or an array of text parts")),
    };
    Ok(ChatMessage { role: role.to_owned(), content })
}

fn read_part(place: &str, part: &Value) -> Result<String, ApiError> {
    match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text.to_owned()),
        (Some("text"), None) => Err(ApiError::value(place, "a text part needs 'text'")),
        (kind, _) => Err(ApiError::unsupported(
            place,
            format!("only text parts are read, not {}", kind.unwrap_or("a part without a type")),
        )),
    }
}

/// A text, an array with one text, or an array of token ids.
fn text_prompt(fields: &Fields) -> Result<Prompt, ApiError> {
    let rule = "must be a string, an array of one string, or an array of token ids";
    let fault = || ApiError::value("prompt", rule);
    match fields.get("prompt").ok_or_else(|| ApiError::value("prompt", "is missing"))? {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(items) => match items.as_slice() {
            [Value::String(text)] => Ok(Prompt::Text(text.clone())),
            [] => Err(fault()),
            ids => {
                let ids = ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()));
                ids.collect::<Option<_>>().map(Prompt::Tokens).ok_or_else(fault)
            }
        },
        _ => Err(fault()),
    }
}
