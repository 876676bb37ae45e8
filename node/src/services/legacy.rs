//! What older ARIA nodes may ask on the peers' port: readable JSON, unsigned, a public rate. Nothing that they say enters state.
//!
//! Replies are whole envelopes with the caller's `request_id`; their fields also stand beside the envelope's, where version 0.5.5
//! looks for them. Aliases of that version are read, canonical names are written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aria_chain::units::NanoAria;
use aria_inference::{chat::ChatMessage, sampler::Sampling};
use aria_rpc::consent::show;
use aria_rpc::services::{GenerateCall, GenerateError, GenerationEvent, Payer, Prompt, Services};
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use self::question::{Inference, Question};
use self::refusal::{Code, Refusal};
use crate::clock::Clock;
use crate::network::{Legacy, LegacySession};

pub mod question;
pub mod refusal;

/// Longest time for an answer: version 0.5.5 waits a minute.
const ANSWER_MAX: Duration = Duration::from_secs(55);

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
    async fn answer(&mut self, text: &str) -> Option<String> {
        let (request_id, question) = question::read(text, self.now_s());
        // Version 0.5.5 tells this to everybody and reads no reply to it: one would be taken for the reply to its next question.
        if request_id.is_null() && matches!(question, Ok(Question::Pong | Question::Shards)) {
            return None;
        }
        let reply = match question {
            Ok(question) => self.reply(question).await,
            Err(refusal) => Err(refusal),
        };
        let (kind, fields) = match reply {
            Ok(reply) => reply,
            Err(refusal) => ("error", refusal.fields()),
        };
        let mut envelope = match &fields {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        };
        envelope.insert("type".into(), json!(kind));
        envelope.insert("request_id".into(), request_id);
        envelope.insert("sender_id".into(), json!(self.services.status().node_id));
        envelope.insert("timestamp".into(), json!(self.now_s()));
        envelope.insert("protocol".into(), json!("aria/0.1"));
        envelope.insert("data".into(), fields);
        Some(Value::Object(envelope).to_string())
    }
}

impl Session {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit 53 bits")]
    fn now_s(&self) -> f64 {
        self.clock.now_ms() as f64 / 1_000.0
    }

    async fn reply(&mut self, question: Question) -> Result<(&'static str, Value), Refusal> {
        self.take(question.rate())?;
        match question {
            Question::Ping => Ok(("pong", self.pong())),
            Question::Announce { node_id } => Ok(("peer_announce", self.announced(node_id)?)),
            Question::Pong => Ok(("pong", json!({"status": "ignored"}))),
            Question::Shards => {
                Ok(("shard_announce", json!({"status": "ignored", "reason": "shards of unsigned peers are not used"})))
            }
            Question::Peers { limit } => Ok(("peers_list", self.peers(limit))),
            Question::Stats => Ok(("stats", self.stats())),
            Question::Infer(asked) => in_time(self.infer(asked)).await,
        }
    }

    fn take(&mut self, (kind, per_second, burst): (&'static str, f64, f64)) -> Result<(), Refusal> {
        let (left, since) = self.budgets.entry(kind).or_insert((burst, Instant::now()));
        *left = (*left + since.elapsed().as_secs_f64() * per_second).min(burst);
        *since = Instant::now();
        if *left < 1.0 {
            let text = format!("more than {per_second:.2} {kind} a second; wait and try again");
            return Err(Refusal::new(Code::RateLimited, text));
        }
        *left -= 1.0;
        Ok(())
    }

    fn pong(&self) -> Value {
        let status = self.services.status();
        let height = *self.services.tip_changes().borrow();
        json!({"node_id": status.node_id, "timestamp": self.now_s(), "peer_count": status.peers, "height": height})
    }

    fn announced(&self, node_id: Option<String>) -> Result<Value, Refusal> {
        let status = self.services.status();
        if node_id.as_ref() == Some(&status.node_id) {
            let text = "data.node_id is this node's own; announce the id of the sender";
            return Err(Refusal::new(Code::Conflict, text).with("field", "data.node_id"));
        }
        Ok(json!({
            "status": "accepted", "peer_id": status.node_id, "node_id": status.node_id, "peer_count": status.peers,
            "selected_protocol": "aria.v0", "consent": self.consent(),
        }))
    }

    fn peers(&self, limit: usize) -> Value {
        let peers = self.services.peers().1;
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

    async fn infer(&self, asked: Inference) -> Result<(&'static str, Value), Refusal> {
        let Inference { query, max_tokens, temperature, model, task, ram_mb } = asked;
        let Some(served) = self.services.models().first().map(|card| card.id.clone()) else {
            return Err(Refusal::new(Code::Unavailable, "the model is being loaded; try again in a moment"));
        };
        if let Some(asked) = model.filter(|model| *model != served) {
            let text = format!("this node serves `{served}`, not `{asked}`");
            return Err(Refusal::new(Code::NotFound, text).with("field", "data.model_id"));
        }
        let message = ChatMessage { role: "user".into(), content: query };
        #[expect(clippy::cast_possible_truncation, reason = "a temperature; the door rounds it to parts per million")]
        let sampling = Sampling { temperature: temperature as f32, ..Sampling::default() };
        let call = GenerateCall {
            task,
            ram_mb,
            audit: aria_chain::request::AuditMode::Committee,
            model: served.clone(),
            prompt: Prompt::Chat(vec![message]),
            choices: 1,
            max_tokens: Some(max_tokens),
            stop: Vec::new(),
            sampling,
            is_seeded: false,
            logprobs: None,
            // Who proves no key spends nobody's money.
            payer: Payer::Node(Some(NanoAria::ZERO)),
        };
        let mut generation = self.services.generate(call).map_err(|error| refused(&error))?;
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
                GenerationEvent::Failed(error) => return Err(refused(&error)),
            }
        }
        Err(Refusal::new(Code::InternalError, "the answer ended without an end; try again"))
    }
}

/// An answer, or why the asker need not wait any longer. What is given up here ends with it.
async fn in_time<T>(answer: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    let late = || format!("no answer within {} s; ask for fewer tokens", ANSWER_MAX.as_secs());
    let answered = tokio::time::timeout(ANSWER_MAX, answer).await;
    answered.unwrap_or_else(|_| Err(Refusal::new(Code::Timeout, late())))
}

fn refused(error: &GenerateError) -> Refusal {
    let refusal = |code| Refusal::new(code, error.to_string());
    match error {
        GenerateError::Busy { retry_after_s, .. } => refusal(Code::Unavailable).with("retry_after_s", *retry_after_s),
        GenerateError::NotReady { .. } | GenerateError::StoreStopped { .. } => refusal(Code::Unavailable),
        GenerateError::Consent(denied) => refusal(Code::Forbidden).with("clause", denied.clause().to_string()),
        GenerateError::UnknownModel(_) => refusal(Code::NotFound).with("field", "data.model_id"),
        GenerateError::Engine(_) => refusal(Code::InternalError),
        GenerateError::Fee(_)
        | GenerateError::Unsigned { .. }
        | GenerateError::Signature { .. }
        | GenerateError::ReceiptOwed { .. }
        | GenerateError::Request(_)
        | GenerateError::Messages(_) => refusal(Code::InvalidMessage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_answer_is_told_before_it_gives_up() {
        let begun = tokio::time::Instant::now();
        let soon = async {
            tokio::time::sleep(ANSWER_MAX.checked_sub(Duration::from_secs(1)).expect("longer")).await;
            Ok(7)
        };
        assert_eq!(in_time(soon).await, Ok(7));
        let refusal = in_time(std::future::pending::<Result<u8, Refusal>>()).await.expect_err("nobody answers");
        assert_eq!((refusal.code, begun.elapsed().as_secs()), (Code::Timeout, 54 + 55));
        assert_eq!(refusal.fields()["error_code"], json!("TIMEOUT"));
    }
}
