//! Finds the names of control tokens in rendered text.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::tokenizer::Tokenizer;

/// The control tokens of a model, the longest name first: where two names begin at one place the longer is meant.
pub(super) struct Controls<'a> {
    tokens: Vec<(&'a str, u32)>,
    /// The characters that names begin with: most text is stepped over by looking at these alone.
    firsts: BTreeSet<char>,
}

/// A part of the rendered text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// The name of a control token stood here.
    Control(u32),
    /// Anything else, as one run.
    Text(&'t str),
}

impl<'a> Controls<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Controls<'a> {
        Controls::of(tokenizer.controls())
    }

    fn of(controls: impl Iterator<Item = (&'a str, u32)>) -> Controls<'a> {
        let mut controls: Vec<_> = controls.filter(|(name, _)| !name.is_empty()).collect();
        controls.sort_by_key(|(name, _)| Reverse(name.len()));
        let firsts = controls.iter().filter_map(|(name, _)| name.chars().next()).collect();
        Controls { tokens: controls, firsts }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.tokens.iter().map(|(name, _)| *name)
    }

    pub(super) fn name(&self, id: Option<u32>) -> Option<&'a str> {
        self.tokens.iter().find(|control| Some(control.1) == id).map(|control| control.0)
    }

    /// Cuts a text at the names of control tokens. Empty runs are left out.
    pub(super) fn split<'t>(&self, text: &'t str) -> Vec<Piece<'t>> {
        let mut pieces = Vec::new();
        let (mut start, mut at) = (0, 0);
        while let Some(c) = text[at..].chars().next() {
            let found = if self.firsts.contains(&c) {
                self.tokens.iter().find(|(name, _)| text[at..].starts_with(name))
            } else {
                None
            };
            let Some((name, id)) = found else {
                at += c.len_utf8();
                continue;
            };
            if start < at {
                pieces.push(Piece::Text(&text[start..at]));
            }
            pieces.push(Piece::Control(*id));
            at += name.len();
            start = at;
        }
        if start < at {
            pieces.push(Piece::Text(&text[start..]));
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::{Controls, Piece};

    #[test]
    fn the_longer_name_wins_and_empty_runs_vanish() {
        let controls = Controls::of([("<|a|>", 7), ("<|a|>b", 8), ("</s>", 9)].into_iter());
        let pieces = controls.split("<|a|><|a|>b x<|a| </s>");
        assert_eq!(pieces, [Piece::Control(7), Piece::Control(8), Piece::Text(" x<|a| "), Piece::Control(9)]);
        assert_eq!(controls.split(""), []);
        assert_eq!(controls.split("é<"), [Piece::Text("é<")]);
    }
}
