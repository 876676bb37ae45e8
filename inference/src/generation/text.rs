//! From drawn tokens to released text: whole characters only, stop strings never, and the end of a choice.
//!
//! Text that could be the beginning of a stop string is held back until it is known not to be. The end is part of the canonical
//! result, so generation and verification share this.

use crate::generation::FinishReason;
use crate::tokenizer::{Decoder, Tokenizer};

/// The text of one choice while it grows.
#[derive(Debug)]
pub struct TextStream {
    decoder: Decoder,
    stops: Vec<String>,
    /// Decoded and not released: a proper beginning of a stop string.
    held: String,
}

/// What one token did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// Text that may be shown.
    pub text: String,
    /// Whether a stop string was completed. Nothing comes after that.
    pub is_stopped: bool,
}

impl TextStream {
    /// An empty text that ends before any of `stops`.
    #[must_use]
    pub fn new(decoder: Decoder, stops: &[String]) -> TextStream {
        TextStream { decoder, stops: stops.to_vec(), held: String::new() }
    }

    /// Adds the bytes of a token.
    pub fn push(&mut self, bytes: &[u8]) -> Released {
        let text = self.decoder.push(bytes);
        self.hold(&text);
        self.release()
    }

    /// Ends the text: an unfinished character becomes the replacement character, what was held back is released unless a stop completes.
    pub fn finish(&mut self) -> String {
        let text = self.decoder.flush();
        self.hold(&text);
        let mut released = self.release();
        if !released.is_stopped {
            released.text.push_str(&self.held);
        }
        self.held.clear();
        released.text
    }

    fn hold(&mut self, text: &str) {
        self.held.push_str(text);
    }

    fn release(&mut self) -> Released {
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            let text = self.held[..at].to_owned();
            self.held.clear();
            return Released { text, is_stopped: true };
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Released { text: std::mem::replace(&mut self.held, rest), is_stopped: false }
    }
}

/// Length of the longest end of `text` that is a proper beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&n| text.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
}

/// One choice: its tokens, its text, and whether it has ended.
#[derive(Debug)]
pub struct Continuation {
    stream: TextStream,
    max_tokens: usize,
    /// Every token drawn.
    pub tokens: Vec<u32>,
    /// All text released.
    pub text: String,
    /// Why it ended, once it has.
    pub finish: Option<FinishReason>,
}

impl Continuation {
    /// An empty continuation.
    #[must_use]
    pub fn new(tokenizer: &Tokenizer, stops: &[String], max_tokens: u32) -> Continuation {
        Continuation {
            stream: TextStream::new(tokenizer.decoder(), stops),
            max_tokens: max_tokens as usize,
            tokens: Vec::new(),
            text: String::new(),
            finish: None,
        }
    }

    /// Adds a drawn token. Returns the text it releases; when that ended the choice, `rest` is what the end releases on top.
    pub fn accept(&mut self, tokenizer: &Tokenizer, token: u32) -> Accepted {
        debug_assert!(self.finish.is_none(), "nothing follows the end");
        self.tokens.push(token);
        let mut accepted = Accepted::default();
        if tokenizer.end_tokens().contains(&token) {
            self.end(FinishReason::Stop, &mut accepted);
            return accepted;
        }
        let bytes = if tokenizer.is_control(token) { None } else { tokenizer.token_bytes(token) };
        let released = self.stream.push(bytes.unwrap_or_default());
        self.text.push_str(&released.text);
        accepted.text = released.text;
        if released.is_stopped {
            self.finish = Some(FinishReason::Stop);
        } else if self.tokens.len() >= self.max_tokens {
            self.end(FinishReason::Length, &mut accepted);
        }
        accepted
    }

    /// Ends a choice without a token: its caller gave up, or there is nothing more to say. Returns the text this releases.
    pub fn close(&mut self, finish: FinishReason) -> String {
        let mut accepted = Accepted::default();
        self.end(finish, &mut accepted);
        accepted.rest
    }

    fn end(&mut self, finish: FinishReason, accepted: &mut Accepted) {
        accepted.rest = self.stream.finish();
        self.text.push_str(&accepted.rest);
        self.finish = Some(finish);
    }
}

/// Text released by one token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// By the token itself.
    pub text: String,
    /// By the end of the choice.
    pub rest: String,
}

#[cfg(test)]
mod tests {
    use super::{TextStream, overlap};
    use crate::tokenizer::Decoder;

    /// Feeds pieces; returns what each released, what the end released, and whether a stop was met.
    fn run(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut stream = TextStream::new(Decoder::default(), &stops);
        let mut released = Vec::new();
        for piece in pieces {
            let step = stream.push(piece);
            released.push(step.text);
            if step.is_stopped {
                return (released, String::new(), true);
            }
        }
        (released, stream.finish(), false)
    }

    #[test]
    fn a_stop_is_cut_out_even_across_tokens() {
        let (released, rest, stopped) = run(&["END"], &[b"abcE", b"N", b"Dxyz"]);
        assert_eq!((released.concat().as_str(), rest.as_str(), stopped), ("abc", "", true));
        assert_eq!(released, ["abc", "", ""]);
    }

    #[test]
    fn what_turns_out_not_to_be_a_stop_is_released() {
        let (released, rest, stopped) = run(&["END"], &[b"E", b"N", b"Q", b"EN"]);
        assert_eq!(released, ["", "", "ENQ", ""]);
        assert_eq!((rest.as_str(), stopped), ("EN", false));
    }

    #[test]
    fn the_earliest_stop_wins() {
        assert_eq!(run(&["cd", "bcx", "b"], &[b"abcd"]).0, ["a"]);
    }

    #[test]
    fn repeated_beginnings_are_found() {
        let (released, _, stopped) = run(&["aab"], &[b"a", b"a", b"a", b"b"]);
        assert_eq!((released.concat().as_str(), stopped), ("a", true));
    }

    #[test]
    fn characters_are_never_split() {
        let (released, rest, _) = run(&[], &[b"\xe2\x82", b"\xac!", b"\xf0\x9f"]);
        assert_eq!(released, ["", "€!", ""]);
        assert_eq!(rest, "\u{fffd}");
    }

    #[test]
    fn overlaps() {
        assert_eq!(overlap("abc", "cde"), 1);
        assert_eq!(overlap("abc", "abc"), 0, "a whole stop is not a beginning");
        assert_eq!(overlap("xab", "abab"), 2);
        assert_eq!(overlap("", "x"), 0);
    }
}
