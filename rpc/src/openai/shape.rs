//! Answers in the two shapes of OpenAI's API: chat completions and the older text completions, whole or in chunks.

use std::collections::BTreeMap;

use aria_inference::generation::FinishReason;
use serde_json::{Value, json};

use crate::services::{Finished, Logprob, TokenChance};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Text,
}

/// What stands in every part of an answer.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) shape: Shape,
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    /// Version of the arithmetic and digest of the model: the same fingerprint gives the same text for the same seed.
    pub(super) fingerprint: String,
    pub(super) has_logprobs: bool,
}

/// One choice, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) text: String,
    pub(super) logprobs: Vec<Logprob>,
    pub(super) finish: Option<FinishReason>,
    /// Characters of all tokens so far, for the offsets of the older shape.
    offset: usize,
}

pub(super) fn finish_name(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Stop | FinishReason::Cancelled => "stop",
        FinishReason::Length => "length",
    }
}

fn text_of(chance: &TokenChance) -> String {
    String::from_utf8_lossy(&chance.bytes).into_owned()
}

/// Logarithms in the shape of chat completions.
fn chat_logprobs(logprobs: &[Logprob]) -> Value {
    let chance =
        |chance: &TokenChance| json!({"token": text_of(chance), "logprob": chance.logprob, "bytes": chance.bytes});
    let content = logprobs.iter().map(|logprob| {
        let mut entry = chance(&logprob.drawn);
        entry["top_logprobs"] = logprob.top.iter().map(chance).collect();
        entry
    });
    json!({"content": content.collect::<Vec<Value>>(), "refusal": null})
}

/// Logarithms in the four arrays of text completions. `offset` counts characters and moves on.
fn text_logprobs(logprobs: &[Logprob], offset: &mut usize) -> Value {
    let (mut tokens, mut values, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for logprob in logprobs {
        let token = text_of(&logprob.drawn);
        offsets.push(*offset);
        *offset += token.chars().count();
        tokens.push(token);
        values.push(logprob.drawn.logprob);
        tops.push(
            logprob.top.iter().map(|chance| (text_of(chance), chance.logprob)).collect::<BTreeMap<String, f32>>(),
        );
    }
    json!({"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets})
}

impl Frame {
    fn object(&self, is_chunk: bool) -> &'static str {
        match (self.shape, is_chunk) {
            (Shape::Chat, true) => "chat.completion.chunk",
            (Shape::Chat, false) => "chat.completion",
            (Shape::Text, _) => "text_completion",
        }
    }

    fn envelope(&self, is_chunk: bool, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": self.object(is_chunk),
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        })
    }

    fn logprobs(&self, logprobs: &[Logprob], offset: &mut usize) -> Value {
        match self.shape {
            _ if !self.has_logprobs => Value::Null,
            Shape::Chat => chat_logprobs(logprobs),
            Shape::Text => text_logprobs(logprobs, offset),
        }
    }

    /// The first chunk of a choice: who speaks. Text completions have none.
    pub(super) fn opening(&self, index: u32) -> Option<Value> {
        let choice = json!({"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null});
        (self.shape == Shape::Chat).then(|| self.envelope(true, vec![choice]))
    }

    /// A chunk with more text.
    pub(super) fn piece(&self, index: u32, choice: &mut Choice, text: &str, logprob: Option<&Logprob>) -> Value {
        let logprobs =
            logprob.map_or(Value::Null, |logprob| self.logprobs(std::slice::from_ref(logprob), &mut choice.offset));
        let choice = match self.shape {
            Shape::Chat => {
                json!({"index": index, "delta": {"content": text}, "logprobs": logprobs, "finish_reason": null})
            }
            Shape::Text => json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": null}),
        };
        self.envelope(true, vec![choice])
    }

    /// The last chunk of a choice.
    pub(super) fn closing(&self, index: u32, finish: FinishReason) -> Value {
        let reason = finish_name(finish);
        let choice = match self.shape {
            Shape::Chat => json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": reason}),
            Shape::Text => json!({"index": index, "text": "", "logprobs": null, "finish_reason": reason}),
        };
        self.envelope(true, vec![choice])
    }

    /// The chunk with the counts, which alone has no choices.
    pub(super) fn counts(&self, finished: &Finished) -> Value {
        let mut chunk = self.envelope(true, Vec::new());
        chunk["usage"] = usage(finished);
        chunk
    }

    /// The whole answer.
    pub(super) fn whole(&self, choices: Vec<Choice>, finished: &Finished) -> Value {
        let choices = (0_u32..).zip(choices).map(|(index, mut choice)| {
            let logprobs = self.logprobs(&choice.logprobs, &mut choice.offset);
            let reason = choice.finish.map(finish_name);
            match self.shape {
                Shape::Chat => {
                    let message = json!({"role": "assistant", "content": choice.text, "refusal": null});
                    json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason})
                }
                Shape::Text => {
                    json!({"index": index, "text": choice.text, "logprobs": logprobs, "finish_reason": reason})
                }
            }
        });
        let mut answer = self.envelope(false, choices.collect());
        answer["usage"] = usage(finished);
        answer["aria"] = json!(finished.aria);
        answer
    }
}

fn usage(finished: &Finished) -> Value {
    let Finished { prompt_tokens, cached_tokens, completion_tokens, .. } = finished;
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": u64::from(*prompt_tokens) + u64::from(*completion_tokens),
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    })
}
