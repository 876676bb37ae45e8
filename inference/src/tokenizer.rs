//! Text to tokens and back, by the file's own vocabulary.
//!
//! The splitting itself is done by Hugging Face's `tokenizers`, the library that models are published with; this module
//! builds it from the keys of a GGUF file and keeps two promises of its own. Text never becomes a control token: control
//! tokens are simply not in the vocabulary that text is matched against. And decoding never splits a character:
//! [`Decoder`] holds bytes back until they are complete.
//!
//! Reading order: [`settings`] (what the keys say), [`vocabulary`] (tokens, their kinds and bytes), `pipeline` (the
//! library's parts put together), [`Decoder`].

mod alphabet;
mod decoder;
mod pipeline;
pub mod settings;
pub mod vocabulary;

use std::borrow::Cow;
use std::sync::Arc;

pub use decoder::Decoder;
use settings::Family;
pub use settings::Settings;
use vocabulary::Vocabulary;

use crate::gguf::{Gguf, GgufError};

/// Text given to [`Tokenizer::encode`]: some 260,000 tokens of prose. A megabyte takes up to two seconds to split.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// What is wrong with a file's tokenizer, or with a text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A key is missing, or has the wrong type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// `tokenizer.ggml.model` is `gpt2` or `llama`.
    #[error(
        "tokenizer.ggml.model is {found:?}; only \"gpt2\" (byte-level BPE) and \"llama\" (SentencePiece) can be built"
    )]
    Model {
        /// The claim.
        found: String,
    },
    /// `tokenizer.ggml.pre` is one we know the splitting rule of.
    #[error("tokenizer.ggml.pre is {found:?}; known are {known}: convert the model with one of them")]
    Pre {
        /// The claim.
        found: String,
        /// What would work.
        known: &'static str,
    },
    /// Tokens, kinds and scores are lists of one length.
    #[error("the key {key:?} has {found} elements for {tokens} tokens")]
    Length {
        /// The key.
        key: &'static str,
        /// Its length.
        found: usize,
        /// Number of tokens.
        tokens: usize,
    },
    /// A token number in a key is one of the vocabulary.
    #[error("the key {key:?} names token {id}, but there are only {tokens}")]
    TokenId {
        /// The key.
        key: String,
        /// The claim.
        id: u32,
        /// Number of tokens.
        tokens: usize,
    },
    /// Every byte can be written down, or some texts would lose characters.
    #[error("the vocabulary has no token for byte {byte:#04x}; convert the model again")]
    ByteMissing {
        /// The first missing byte.
        byte: u8,
    },
    /// A merge joins two tokens to a third.
    #[error("merge {index} of tokenizer.ggml.merges, {merge:?}, does not join two tokens to a third")]
    Merge {
        /// Its position.
        index: usize,
        /// Its text.
        merge: String,
    },
    /// A text is longer than any model could read.
    #[error("the text has {bytes} bytes; at most {max} are accepted")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The library refuses.
    #[error("the tokenizer failed: {reason}")]
    Library {
        /// In its words.
        reason: String,
    },
}

/// The tokenizer of one model. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    vocabulary: Vocabulary,
    library: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Builds the tokenizer that the file's keys describe.
    ///
    /// # Errors
    /// The keys describe none, or one that we do not know.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, TokenizerError> {
        let keys = gguf.metadata();
        let (settings, vocabulary) = Settings::read(keys)?;
        let library = pipeline::build(keys, &settings, &vocabulary)?;
        Ok(Tokenizer { shared: Arc::new(Shared { settings, vocabulary, library }) })
    }

    /// The tokens of a text. No control token is ever among them, whatever the text says, and none is put in front.
    ///
    /// # Errors
    /// The text is too long.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenizerError::TooLong { bytes: text.len(), max: TEXT_BYTES_MAX });
        }
        let adds_space = self.shared.settings.family == Family::SentencePiece { adds_space: true } && !text.is_empty();
        let text = if adds_space { Cow::Owned(format!(" {text}")) } else { Cow::Borrowed(text) };
        let encoding = self.shared.library.encode_fast(text, false).map_err(library_error)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The bytes that a token stands for; of a control token, its name. None for a number that is no token.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.shared.vocabulary.bytes(id)
    }

    /// Whether the token steers the conversation instead of standing for text. Its bytes are not part of an answer.
    #[must_use]
    pub fn is_control(&self, id: u32) -> bool {
        self.shared.vocabulary.is_control(id)
    }

    /// The token that begins a text.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.shared.settings.bos
    }

    /// Whether plain text (no chat template) is meant to begin with [`Tokenizer::bos`].
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        self.shared.settings.adds_bos
    }

    /// Tokens that end an answer, sorted.
    #[must_use]
    pub fn end_tokens(&self) -> &[u32] {
        &self.shared.settings.ends
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.vocabulary.len()
    }

    /// Whether there is no token at all; never true for a tokenizer that was built.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A fresh streaming decoder.
    #[must_use]
    pub fn decoder(&self) -> Decoder {
        Decoder::default()
    }

    /// The text of a whole answer: control tokens and unknown numbers left out, broken characters as U+FFFD.
    #[must_use]
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut decoder = self.decoder();
        let mut text = String::new();
        for &token in tokens.iter().filter(|&&token| !self.is_control(token)) {
            text += &decoder.push(self.token_bytes(token).unwrap_or_default());
        }
        text + &decoder.flush()
    }

    /// All control tokens with their names.
    pub(crate) fn controls(&self) -> impl Iterator<Item = (&str, u32)> {
        self.shared.vocabulary.controls()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }
}

fn library_error(error: tokenizers::Error) -> TokenizerError {
    TokenizerError::Library { reason: error.to_string() }
}
