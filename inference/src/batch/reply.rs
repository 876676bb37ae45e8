//! Answers that are always given: a reply that is dropped without an end says that the engine stopped.

use std::fmt;

use crate::backend::{EventSink, VerdictSink};
use crate::engine::EngineError;
use crate::generation::Event;

/// Where the events of a request go. Exactly one `Done` or `Failed` is sent, at the latest when this is dropped.
pub struct EventReply(Option<EventSink>);

impl EventReply {
    /// Wraps a sink.
    #[must_use]
    pub fn new(sink: EventSink) -> EventReply {
        EventReply(Some(sink))
    }

    /// Sends one event of a running request.
    pub fn send(&mut self, event: Event) {
        if let Some(sink) = &mut self.0 {
            sink(event);
        }
    }

    /// Drops the sink without a word: the request was refused, and its caller knows.
    pub(crate) fn forget(mut self) {
        self.0 = None;
    }

    /// Sends the last event.
    pub fn end(mut self, event: Event) {
        self.send(event);
        self.0 = None;
    }
}

impl Drop for EventReply {
    fn drop(&mut self) {
        self.send(Event::Failed(EngineError::Stopped));
    }
}

impl fmt::Debug for EventReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventReply")
    }
}

/// Where a verdict goes. Called exactly once, at the latest when this is dropped.
pub struct VerdictReply<V>(Option<VerdictSink<V>>);

impl<V> VerdictReply<V> {
    /// Wraps a sink.
    #[must_use]
    pub fn new(sink: VerdictSink<V>) -> VerdictReply<V> {
        VerdictReply(Some(sink))
    }

    /// Drops the sink without a word: the claim was refused, and its caller knows.
    pub(crate) fn forget(mut self) {
        self.0 = None;
    }

    /// Gives the verdict.
    pub fn end(mut self, verdict: Result<V, EngineError>) {
        if let Some(sink) = self.0.take() {
            sink(verdict);
        }
    }
}

impl<V> Drop for VerdictReply<V> {
    fn drop(&mut self) {
        if let Some(sink) = self.0.take() {
            sink(Err(EngineError::Stopped));
        }
    }
}

impl<V> fmt::Debug for VerdictReply<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerdictReply")
    }
}
