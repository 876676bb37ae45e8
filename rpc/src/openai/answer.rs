//! From a generation to a response: gathered whole, or told chunk by chunk. Either way the generation lives inside the
//! response, so that a client that goes away drops it, and dropping it cancels the engine's work.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use aria_inference::generation::FinishReason;
use axum::{
    Json,
    http::{HeaderValue, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use serde_json::{Value, json};

use super::{
    error::ApiError,
    shape::{Choice, Frame},
};
use crate::services::{Finished, GenerateError, Generation, GenerationEvent};

/// A comment is sent after this long without an event, so that nothing between us takes the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The engine or the node ended before the answer did.
fn broken_off() -> GenerateError {
    GenerateError::NotReady { reason: "the node is stopping; ask again when it is back".into() }
}

/// Waits for the whole answer.
pub(super) async fn gather(
    frame: &Frame,
    mut generation: Generation,
    choices: u32,
    prompt: &str,
) -> Result<Response, ApiError> {
    let mut gathered: Vec<Choice> = (0..choices).map(|_| Choice::default()).collect();
    loop {
        match generation.events.recv().await {
            Some(GenerationEvent::Token { choice, text, logprob }) => {
                let Some(choice) = gathered.get_mut(choice as usize) else { continue };
                choice.text.push_str(&text);
                choice.logprobs.extend(logprob);
            }
            Some(GenerationEvent::ChoiceDone { choice, finish, text }) => {
                let Some(choice) = gathered.get_mut(choice as usize) else { continue };
                choice.text.push_str(&text);
                choice.finish = Some(finish);
            }
            Some(GenerationEvent::Done(finished)) => return Ok(whole(frame, gathered, &finished)),
            Some(GenerationEvent::Failed(error)) => return Err(ApiError::of(&error, prompt)),
            None => return Err(ApiError::of(&broken_off(), prompt)),
        }
    }
}

fn whole(frame: &Frame, choices: Vec<Choice>, finished: &Finished) -> Response {
    let mut response = Json(frame.whole(choices, finished)).into_response();
    let record = finished.aria.record_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok());
    if let Some(record) = record {
        response.headers_mut().insert("x-aria-record-id", record);
    }
    response
}

/// Tells the answer as it comes.
pub(super) fn tell(frame: Frame, generation: Generation, choices: u32, includes_usage: bool) -> Response {
    let events = (0..choices).filter_map(|index| frame.opening(index)).map(|chunk| event(&chunk)).collect();
    let choices = (0..choices).map(|_| Choice::default()).collect();
    let teller = Teller { frame, generation, choices, includes_usage, events, held: None, is_over: false };
    let mut response = Sse::new(teller.stream()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies that gather a response before they pass it on would undo the streaming.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn event(data: &Value) -> Event {
    Event::default().data(data.to_string())
}

struct Teller {
    frame: Frame,
    generation: Generation,
    choices: Vec<Choice>,
    includes_usage: bool,
    /// Events that are ready to go out.
    events: VecDeque<Event>,
    /// The last closing chunk, kept back: if it is the last of all, it carries the object `aria`.
    held: Option<Value>,
    is_over: bool,
}

impl Teller {
    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut teller| async move {
            loop {
                if let Some(event) = teller.events.pop_front() {
                    return Some((Ok(event), teller));
                }
                if teller.is_over {
                    return None;
                }
                let next = teller.generation.events.recv().await;
                teller.take(next);
            }
        })
    }

    fn take(&mut self, next: Option<GenerationEvent>) {
        match next {
            Some(GenerationEvent::Token { choice, text, logprob }) => self.piece(choice, &text, logprob.as_ref()),
            Some(GenerationEvent::ChoiceDone { finish: FinishReason::Cancelled, .. }) => {}
            Some(GenerationEvent::ChoiceDone { choice, finish, text }) => {
                self.piece(choice, &text, None);
                if let Some(earlier) = self.held.replace(self.frame.closing(choice, finish)) {
                    self.events.push_back(event(&earlier));
                }
            }
            Some(GenerationEvent::Done(finished)) => self.end(&finished),
            Some(GenerationEvent::Failed(error)) => self.fail(&error),
            None => self.fail(&broken_off()),
        }
    }

    fn piece(&mut self, index: u32, text: &str, logprob: Option<&crate::services::Logprob>) {
        let Some(choice) = self.choices.get_mut(index as usize) else { return };
        if !text.is_empty() || logprob.is_some() {
            self.events.push_back(event(&self.frame.piece(index, choice, text, logprob)));
        }
    }

    fn end(&mut self, finished: &Finished) {
        self.is_over = true;
        let mut last = self.held.take().unwrap_or_else(|| json!({}));
        if self.includes_usage {
            self.events.push_back(event(&last));
            last = self.frame.counts(finished);
        }
        last["aria"] = json!(finished.aria);
        self.events.push_back(event(&last));
        self.events.push_back(Event::default().data("[DONE]"));
    }

    /// One event with the error and no end mark: clients raise it as they would an error status.
    fn fail(&mut self, error: &GenerateError) {
        self.is_over = true;
        let error = ApiError::of(error, "prompt");
        debug_assert_ne!(error.status, StatusCode::OK, "an error has an error's status");
        self.events.push_back(event(&error.body()));
    }
}
