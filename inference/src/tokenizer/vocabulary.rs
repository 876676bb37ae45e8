//! The tokens of a file: what each is, and which bytes it stands for.

use super::TokenizerError;
use super::alphabet::{ByteTable, bytes_of};
use super::settings::{Family, Settings};
use crate::gguf::metadata::bad_value;
use crate::gguf::{GgufError, Metadata};
use crate::hyper::VOCAB_MAX;

/// What a token is for. Numbers are those of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Stands for text that is made by merging (1, and every number we do not know).
    Normal,
    /// Steers the conversation: begins, ends, separates (3), or stands for what is unknown (2), or is not used (5).
    Control,
    /// Stands for its own text, matched as a whole (4).
    Whole,
    /// Stands for one byte in a SentencePiece vocabulary (6).
    Byte,
}

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
/// Bytes of one token. The longest in use are runs of some hundred spaces.
const TOKEN_BYTES_MAX: usize = 1_024;
const SPACE_MARK: char = '\u{2581}';

/// The table of tokens. Invariant: all parts have one length; `ends` grows.
#[derive(Debug)]
pub struct Vocabulary {
    kinds: Vec<Kind>,
    /// Bytes of all tokens, one after the other.
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<usize>,
}

impl Vocabulary {
    /// Reads tokens and kinds. `settings` says how tokens are written and which are control tokens by their role.
    pub(super) fn read(keys: Metadata<'_>, tokens: &[&str], settings: &Settings) -> Result<Vocabulary, TokenizerError> {
        let kinds = read_kinds(keys, tokens, settings)?;
        let table = ByteTable::new();
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(tokens.len());
        for (token, kind) in tokens.iter().zip(&kinds) {
            match (kind, settings.family) {
                (Kind::Control | Kind::Whole, _) => bytes.extend(token.as_bytes()),
                (Kind::Byte, _) => match byte_of(token) {
                    Some(byte) => bytes.push(byte),
                    None => bytes.extend(token.as_bytes()),
                },
                (Kind::Normal, Family::ByteLevel(_)) => match bytes_of(token, &table) {
                    Some(plain) => bytes.extend(plain),
                    None => bytes.extend(token.as_bytes()),
                },
                (Kind::Normal, Family::SentencePiece { .. }) => {
                    bytes.extend(token.replace(SPACE_MARK, " ").as_bytes());
                }
            }
            ends.push(bytes.len());
        }
        Ok(Vocabulary { kinds, bytes, ends })
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether there is no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// The bytes a token stands for.
    #[must_use]
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        let index = id as usize;
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    /// Whether the token steers the conversation.
    #[must_use]
    pub fn is_control(&self, id: u32) -> bool {
        self.kinds.get(id as usize) == Some(&Kind::Control)
    }

    /// What each token is for, in order.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Names and numbers of the control tokens.
    pub(super) fn controls(&self) -> impl Iterator<Item = (&str, u32)> {
        (0..).zip(&self.kinds).filter(|(_, kind)| **kind == Kind::Control).map(|(id, _)| {
            let name = self.bytes(id).expect("an index of this table");
            (std::str::from_utf8(name).expect("control tokens keep their text"), id)
        })
    }
}

/// The texts of all tokens, borrowed from the file.
pub(super) fn read_tokens(keys: Metadata<'_>) -> Result<Vec<&str>, GgufError> {
    let tokens = keys.strings(TOKENS)?;
    if tokens.is_empty() || tokens.len() > VOCAB_MAX {
        let rule = format!("a vocabulary has 1 to {VOCAB_MAX} tokens");
        return Err(bad_value(TOKENS, format!("{} long", tokens.len()), rule));
    }
    if let Some(index) = tokens.iter().position(|token| token.len() > TOKEN_BYTES_MAX) {
        let rule = format!("a token has at most {TOKEN_BYTES_MAX} bytes");
        return Err(bad_value(TOKENS, format!("{} bytes long at {index}", tokens[index].len()), rule));
    }
    Ok(tokens)
}

/// A token written `<0xNN>`.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// Names like `<|this|>` are control tokens whatever their number says: some converters call them whole or normal.
fn looks_like_control(token: &str) -> bool {
    token.len() > 4 && token.starts_with("<|") && token.ends_with("|>")
}

fn read_kinds(keys: Metadata<'_>, tokens: &[&str], settings: &Settings) -> Result<Vec<Kind>, TokenizerError> {
    let numbers = if keys.has(TYPES) { keys.i32s(TYPES)? } else { vec![1; tokens.len()] };
    if numbers.len() != tokens.len() {
        return Err(TokenizerError::Length { key: TYPES, found: numbers.len(), tokens: tokens.len() });
    }
    let mut kinds: Vec<Kind> = tokens
        .iter()
        .zip(&numbers)
        .map(|(token, number)| match number {
            2 | 3 | 5 => Kind::Control,
            _ if looks_like_control(token) => Kind::Control,
            4 if token.is_empty() => Kind::Control,
            4 => Kind::Whole,
            6 => Kind::Byte,
            _ => Kind::Normal,
        })
        .collect();
    for id in settings.roles() {
        kinds[id as usize] = Kind::Control;
    }
    Ok(kinds)
}
