//! What older ARIA nodes may ask on the peers' port: readable JSON, unsigned, a public rate. Nothing that they say enters state.
//!
//! Replies are whole envelopes with the caller's `request_id`; their fields also stand beside the envelope's, where version 0.5.5
//! looks for them. Aliases of that version are read, canonical names are written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use aria_chain::request::TaskType;
use aria_inference::{chat::ChatMessage, sampler::Sampling};
use aria_rpc::consent::show;
use aria_rpc::services::{GenerateCall, GenerateError, GenerationEvent, Prompt, Services};
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::network::{Legacy, LegacySession};

/// How far a message's time may lie back, and ahead, in seconds.
const WINDOW_S: (f64, f64) = (300.0, 60.0);
/// Tokens of an answer, where the caller does not say, and at most.
const TOKENS: (u64, u64) = (100, 1_024);
/// Longest question, in bytes.
const QUERY_BYTES_MAX: usize = 8 * 1_024;
/// Peers of one list.
const PEERS_MAX: u64 = 50;

/// What this node's consent forbids.
const CONSENT: &str = "CONSENT_DENIED";
const TASKS: &str = "must be text_gen, code_gen, summarization, translation, embedding or any";

/// Messages of each kind, a second, and in a burst.
const RATES: [(&str, f64, f64); 6] = [
    ("ping", 1.0, 5.0),
    ("peer_announce", 1.0 / 60.0, 3.0),
    ("shard_announce", 1.0 / 60.0, 3.0),
    ("get_peers", 1.0, 5.0),
    ("get_stats", 1.0, 5.0),
    ("inference_request", 10.0, 10.0),
];

/// Why a message is not answered as asked: a stable code, and a sentence with the remedy.
type Refusal = (&'static str, String);

/// The door for older nodes.
pub struct LegacyDoor {
    services: Arc<dyn Services>,
    clock: Arc<dyn Clock>,
}

impl LegacyDoor {
    /// A door in front of a node's services.
    pub fn new(services: Arc<dyn Services>, clock: Arc<dyn Clock>) -> LegacyDoor {
        LegacyDoor { services, clock }
    }
}

impl Legacy for LegacyDoor {
    fn open(&self) -> Box<dyn LegacySession> {
        Box::new(Session {
            services: Arc::clone(&self.services),
            clock: Arc::clone(&self.clock),
            budgets: HashMap::new(),
        })
    }
}

/// One connection.
struct Session {
    services: Arc<dyn Services>,
    clock: Arc<dyn Clock>,
    budgets: HashMap<&'static str, (f64, Instant)>,
}

#[async_trait]
impl LegacySession for Session {
    async fn answer(&mut self, text: &str) -> String {
        let asked: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let (kind, fields) = match self.reply(&asked).await {
            Ok(reply) => reply,
            Err((code, message)) => ("error", json!({"status": "error", "code": code, "error": message})),
        };
        let mut envelope = match &fields {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        };
        envelope.insert("type".into(), json!(kind));
        envelope.insert("request_id".into(), asked["request_id"].clone());
        envelope.insert("sender_id".into(), json!(self.services.status().node_id));
        envelope.insert("timestamp".into(), json!(self.now_s()));
        envelope.insert("protocol".into(), json!("aria/0.1"));
        envelope.insert("data".into(), fields);
        Value::Object(envelope).to_string()
    }
}

impl Session {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit 53 bits")]
    fn now_s(&self) -> f64 {
        self.clock.now_ms() as f64 / 1_000.0
    }

    async fn reply(&mut self, asked: &Value) -> Result<(&'static str, Value), Refusal> {
        if !asked.is_object() {
            return Err(("INVALID_MESSAGE", "the message must be a JSON object with type, data and timestamp".into()));
        }
        let kind = asked["type"].as_str().unwrap_or_default();
        let Some(&(kind, per_second, burst)) = RATES.iter().find(|(name, ..)| *name == kind) else {
            let known: Vec<&str> = RATES.iter().map(|(name, ..)| *name).collect();
            return Err((
                "UNKNOWN_TYPE",
                format!("type `{kind}` is not served to unsigned peers; known: {}", known.join(", ")),
            ));
        };
        self.check_time(asked)?;
        self.take(kind, per_second, burst)?;
        let data = &asked["data"];
        match kind {
            "ping" => Ok(("pong", self.pong())),
            "peer_announce" => self.announced(data),
            "shard_announce" => {
                Ok(("shard_announce", json!({"status": "ignored", "reason": "shards of unsigned peers are not used"})))
            }
            "get_peers" => Ok(("peers_list", self.peers(data))),
            "get_stats" => Ok(("stats", self.stats())),
            _ => self.infer(data).await,
        }
    }

    fn check_time(&self, asked: &Value) -> Result<(), Refusal> {
        let Some(time) = asked["timestamp"].as_f64() else {
            return Err(("INVALID_MESSAGE", "timestamp must be a number of seconds".into()));
        };
        let age = self.now_s() - time;
        if age > WINDOW_S.0 || age < -WINDOW_S.1 {
            let text = format!(
                "timestamp is {age:.0} s old; it must be within -{} and +{} s, check the clock",
                WINDOW_S.0, WINDOW_S.1
            );
            return Err(("TIMESTAMP_OUT_OF_WINDOW", text));
        }
        Ok(())
    }

    fn take(&mut self, kind: &'static str, per_second: f64, burst: f64) -> Result<(), Refusal> {
        let (left, since) = self.budgets.entry(kind).or_insert((burst, Instant::now()));
        *left = (*left + since.elapsed().as_secs_f64() * per_second).min(burst);
        *since = Instant::now();
        if *left < 1.0 {
            return Err(("RATE_LIMITED", format!("more than {per_second:.2} {kind} a second; wait and try again")));
        }
        *left -= 1.0;
        Ok(())
    }

    fn pong(&self) -> Value {
        let status = self.services.status();
        let height = *self.services.tip_changes().borrow();
        json!({"node_id": status.node_id, "timestamp": self.now_s(), "peer_count": status.peers, "height": height})
    }

    fn announced(&self, data: &Value) -> Result<(&'static str, Value), Refusal> {
        let host = data["host"].as_str().unwrap_or_default();
        let is_port = data["port"].as_u64().is_some_and(|port| (1..65_536).contains(&port));
        if host.is_empty() || host.len() > 255 || !is_port {
            return Err(("INVALID_REQUEST", "peer_announce needs data.host and data.port (1 to 65535)".into()));
        }
        let status = self.services.status();
        let reply = json!({
            "status": "accepted", "peer_id": status.node_id, "node_id": status.node_id, "peer_count": status.peers,
            "selected_protocol": "aria.v0", "consent": self.consent(),
        });
        Ok(("peer_announce", reply))
    }

    fn peers(&self, data: &Value) -> Value {
        let limit = data["max_peers"].as_u64().unwrap_or(PEERS_MAX).min(PEERS_MAX);
        let peers = self.services.peers().1;
        let limit = usize::try_from(limit).unwrap_or(0);
        let peers = peers.iter().take(limit).map(|peer| {
            let (host, port) = peer.address.rsplit_once(':').unwrap_or((&peer.address, ""));
            json!({"node_id": peer.node_id, "host": host, "port": port.parse::<u16>().unwrap_or(0), "direction": peer.direction})
        });
        json!({"peers": peers.collect::<Vec<Value>>()})
    }

    fn stats(&self) -> Value {
        let status = self.services.status();
        let height = *self.services.tip_changes().borrow();
        json!({
            "status": "ok",
            "node_id": status.node_id,
            "is_running": true,
            "uptime_seconds": status.uptime_s,
            "consent": self.consent(),
            "network": {"peer_count": status.peers},
            "ledger": {"chain_length": height.get() + 1, "height": height, "chain_id": status.chain_id},
            "engine": {"model": status.model, "backend": status.backend, "ready": status.ready},
        })
    }

    /// The contract in force; null where none was stated or it was revoked.
    fn consent(&self) -> Option<Value> {
        self.services.consent().filter(|consent| !consent.is_revoked).map(|consent| show(&consent.contract))
    }

    async fn infer(&self, data: &Value) -> Result<(&'static str, Value), Refusal> {
        let query = data["query"].as_str().unwrap_or_default();
        if query.is_empty() || query.len() > QUERY_BYTES_MAX {
            return Err(("INVALID_REQUEST", format!("data.query must be a text of 1 to {QUERY_BYTES_MAX} bytes")));
        }
        let tokens = data["max_tokens"].as_u64().unwrap_or(TOKENS.0);
        if !(1..=TOKENS.1).contains(&tokens) {
            return Err(("INVALID_REQUEST", format!("data.max_tokens must be 1 to {}", TOKENS.1)));
        }
        let temperature = data["temperature"].as_f64().unwrap_or(0.7);
        if !(0.0..=2.0).contains(&temperature) {
            return Err(("INVALID_REQUEST", "data.temperature must be 0 to 2".into()));
        }
        let Some(served) = self.services.models().first().map(|card| card.id.clone()) else {
            return Err(("NOT_READY", "the model is being loaded; try again in a moment".into()));
        };
        let asked = data["model_id"].as_str().unwrap_or(&served);
        if asked != served {
            return Err(("MODEL_NOT_FOUND", format!("this node serves `{served}`, not `{asked}`")));
        }
        let message = ChatMessage { role: "user".into(), content: query.to_owned() };
        #[expect(clippy::cast_possible_truncation, reason = "a temperature; the door rounds it to parts per million")]
        let sampling = Sampling { temperature: temperature as f32, ..Sampling::default() };
        let task = match data["task_type"].as_str() {
            None => TaskType::Any,
            Some(name) => name.parse().map_err(|()| ("INVALID_REQUEST", format!("data.task_type {TASKS}")))?,
        };
        let call = GenerateCall {
            task,
            // What is beyond its type is beyond every contract.
            ram_mb: data["ram_mb"].as_u64().map_or(0, |ram_mb| u32::try_from(ram_mb).unwrap_or(u32::MAX)),
            audit: aria_chain::request::AuditMode::Committee,
            model: served.clone(),
            prompt: Prompt::Chat(vec![message]),
            choices: 1,
            max_tokens: u32::try_from(tokens).ok(),
            stop: Vec::new(),
            sampling,
            is_seeded: false,
            logprobs: None,
        };
        let mut generation = match self.services.generate(call) {
            Ok(generation) => generation,
            Err(GenerateError::Consent(refusal)) => {
                let fields = json!({"status": "error", "code": CONSENT, "clause": refusal.clause(), "error": refusal.to_string()});
                return Ok(("error", fields));
            }
            Err(error) => return Err(refused(error)),
        };
        let mut output = String::new();
        while let Some(event) = generation.events.recv().await {
            match event {
                GenerationEvent::Token { text, .. } | GenerationEvent::ChoiceDone { text, .. } => {
                    output.push_str(&text)
                }
                GenerationEvent::Done(finished) => {
                    let tokens = finished.completion_tokens;
                    let aria = &finished.aria;
                    let reply = json!({
                        "status": "completed", "output": output, "tokens_generated": tokens, "tokens": tokens,
                        "latency_ms": aria.latency_ms, "energy_mj": aria.energy_mj, "model_id": served,
                        "node_id": self.services.status().node_id, "nodes_used": aria.node_ids,
                        "record_id": aria.record_id,
                    });
                    return Ok(("inference_response", reply));
                }
                GenerationEvent::Failed(error) => return Err(refused(error)),
            }
        }
        Err(("INTERNAL_ERROR", "the answer ended without an end; try again".into()))
    }
}

fn refused(error: GenerateError) -> Refusal {
    let code = match &error {
        GenerateError::Busy { .. } => "NODE_BUSY",
        GenerateError::NotReady { .. } => "NOT_READY",
        GenerateError::Consent(_) => CONSENT,
        GenerateError::UnknownModel(_) => "MODEL_NOT_FOUND",
        GenerateError::Engine(_) => "INTERNAL_ERROR",
        GenerateError::Request(_) | GenerateError::Messages(_) => "INVALID_REQUEST",
    };
    (code, error.to_string())
}
