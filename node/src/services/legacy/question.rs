//! What an older node asks, read from its text: a pure function, so that it can be read by a fuzzer too.

use aria_chain::request::TaskType;
use serde_json::Value;

use super::refusal::{Code, Refusal};

/// How far a message's time may lie back, and ahead, in seconds.
const WINDOW_S: (f64, f64) = (300.0, 60.0);
/// Tokens of an answer, where the caller does not say, and at most.
const TOKENS: (u64, u64) = (100, 1_024);
/// Longest question, in bytes.
const QUERY_BYTES_MAX: usize = 8 * 1_024;
const TASKS: &str = "must be text_gen, code_gen, summarization, translation, embedding or any";
/// Peers of one list.
const PEERS_MAX: u64 = 50;

/// Messages of each kind, a second, and in a burst.
pub(super) const RATES: [(&str, f64, f64); 7] = [
    ("ping", 1.0, 5.0),
    ("pong", 1.0, 5.0),
    ("peer_announce", 1.0 / 60.0, 3.0),
    ("shard_announce", 1.0 / 60.0, 3.0),
    ("get_peers", 1.0, 5.0),
    ("get_stats", 1.0, 5.0),
    ("inference_request", 10.0, 10.0),
];

/// Messages of that version that change or reveal something: without a key nobody may say them.
const SIGNED: [&str; 6] =
    ["pipeline_forward", "inference_response", "peers_list", "stats", "get_ledger_stats", "verify_ledger"];

/// What an unsigned peer may ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Whether somebody is there.
    Ping,
    /// It is there too.
    Pong,
    /// It says where it is, which is not noted: nobody proves it.
    Announce {
        /// Who it says it is.
        node_id: Option<String>,
    },
    /// It says which layers it has, which is not noted either.
    Shards,
    /// Who else is there.
    Peers {
        /// Most of them to tell.
        limit: usize,
    },
    /// How this node is.
    Stats,
    /// An answer.
    Infer(Inference),
}

/// What is to be answered, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Inference {
    /// What to answer.
    pub query: String,
    /// Tokens of the answer.
    pub max_tokens: u32,
    /// 0 to 2.
    pub temperature: f64,
    /// Which model; whichever is served, if none.
    pub model: Option<String>,
    /// What kind of work it is.
    pub task: TaskType,
    /// Memory that it asks for.
    pub ram_mb: u32,
}

impl Question {
    /// Its place among [`RATES`].
    pub(super) fn rate(&self) -> (&'static str, f64, f64) {
        let place = match self {
            Question::Ping => 0,
            Question::Pong => 1,
            Question::Announce { .. } => 2,
            Question::Shards => 3,
            Question::Peers { .. } => 4,
            Question::Stats => 5,
            Question::Infer(_) => 6,
        };
        RATES[place]
    }
}

/// Reads a message that came at `now_s`, in seconds since 1970. The request id is echoed whatever the rest is.
pub fn read(text: &str, now_s: f64) -> (Value, Result<Question, Refusal>) {
    let asked: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let question = question(&asked, now_s);
    (asked["request_id"].clone(), question)
}

fn question(asked: &Value, now_s: f64) -> Result<Question, Refusal> {
    if !asked.is_object() {
        let text = "the message must be a JSON object with type, data and timestamp";
        return Err(Refusal::new(Code::InvalidMessage, text));
    }
    let kind = asked["type"].as_str().unwrap_or_default();
    if RATES.iter().all(|(name, ..)| *name != kind) {
        return Err(not_served(kind));
    }
    check_time(asked, now_s)?;
    let data = &asked["data"];
    match kind {
        "ping" => Ok(Question::Ping),
        "pong" => Ok(Question::Pong),
        "peer_announce" => announcement(data),
        "shard_announce" => Ok(Question::Shards),
        "get_peers" => {
            let limit = data["max_peers"].as_u64().unwrap_or(PEERS_MAX).min(PEERS_MAX);
            Ok(Question::Peers { limit: usize::try_from(limit).unwrap_or(0) })
        }
        "get_stats" => Ok(Question::Stats),
        _ => inference(data),
    }
}

fn not_served(kind: &str) -> Refusal {
    let known = RATES.map(|(name, ..)| name).join(", ");
    if SIGNED.contains(&kind) {
        let text = format!("`{kind}` is taken only from peers that prove their key (aria.v1); without one: {known}");
        return Refusal::new(Code::Unauthorized, text);
    }
    Refusal::new(Code::UnknownType, format!("there is no message of type `{kind}`; known: {known}"))
}

fn check_time(asked: &Value, now_s: f64) -> Result<(), Refusal> {
    let Some(time) = asked["timestamp"].as_f64() else {
        return Err(Refusal::field("timestamp", "timestamp must be a number of seconds"));
    };
    let age = now_s - time;
    if age > WINDOW_S.0 || age < -WINDOW_S.1 {
        let (back, ahead) = WINDOW_S;
        let text = format!("timestamp is {age:.0} s old; it must be within -{back} and +{ahead} s, check the clock");
        return Err(Refusal::field("timestamp", text));
    }
    Ok(())
}

fn announcement(data: &Value) -> Result<Question, Refusal> {
    let host = data["host"].as_str().unwrap_or_default();
    let is_port = data["port"].as_u64().is_some_and(|port| (1..65_536).contains(&port));
    if host.is_empty() || host.len() > 255 {
        return Err(Refusal::field("data.host", "data.host must be a name or address of 1 to 255 bytes"));
    }
    if !is_port {
        return Err(Refusal::field("data.port", "data.port must be 1 to 65535"));
    }
    Ok(Question::Announce { node_id: data["node_id"].as_str().map(str::to_owned) })
}

fn inference(data: &Value) -> Result<Question, Refusal> {
    let query = data["query"].as_str().unwrap_or_default();
    if query.is_empty() || query.len() > QUERY_BYTES_MAX {
        let text = format!("data.query must be a text of 1 to {QUERY_BYTES_MAX} bytes");
        return Err(Refusal::field("data.query", text));
    }
    let tokens = data["max_tokens"].as_u64().unwrap_or(TOKENS.0);
    let max_tokens = u32::try_from(tokens).ok().filter(|_| (1..=TOKENS.1).contains(&tokens));
    let Some(max_tokens) = max_tokens else {
        return Err(Refusal::field("data.max_tokens", format!("data.max_tokens must be 1 to {}", TOKENS.1)));
    };
    let temperature = data["temperature"].as_f64().unwrap_or(0.7);
    if !(0.0..=2.0).contains(&temperature) {
        return Err(Refusal::field("data.temperature", "data.temperature must be 0 to 2"));
    }
    let model = data["model_id"].as_str().map(str::to_owned);
    let task = match data["task_type"].as_str() {
        None => TaskType::Any,
        Some(name) => name.parse().map_err(|()| Refusal::field("data.task_type", format!("data.task_type {TASKS}")))?,
    };
    // What is beyond its type is beyond every contract.
    let ram_mb = data["ram_mb"].as_u64().map_or(0, |ram_mb| u32::try_from(ram_mb).unwrap_or(u32::MAX));
    Ok(Question::Infer(Inference { query: query.to_owned(), max_tokens, temperature, model, task, ram_mb }))
}
