//! What the keys of a file say about its tokenizer, with every default filled in.

use super::TokenizerError;
use super::vocabulary::{Vocabulary, read_tokens};
use crate::gguf::Metadata;

/// How text is turned into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Byte-level BPE (`gpt2`): text is split by a rule, its bytes are written in an alphabet and merged by rank.
    ByteLevel(Pre),
    /// SentencePiece BPE (`llama`): spaces are marked, characters merged by score, unknown ones written as bytes.
    SentencePiece {
        /// Whether a space is put in front of every text.
        adds_space: bool,
    },
}

/// The rule by which byte-level BPE splits text before merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pre {
    /// Words, numbers of at most three digits, punctuation. Llama 3 and the published BitNet models.
    Llama3,
    /// Words, numbers, punctuation. GPT-2.
    Gpt2,
}

impl Pre {
    /// Values of `tokenizer.ggml.pre` that are understood.
    pub(super) const KNOWN: &'static str = "llama-bpe, llama3, llama-v3, gpt-2";

    fn of(name: Option<&str>) -> Result<Pre, TokenizerError> {
        match name {
            // BitNet-b1.58-2B-4T files lack the key, and mean this.
            None | Some("llama-bpe" | "llama3" | "llama-v3") => Ok(Pre::Llama3),
            Some("gpt-2") => Ok(Pre::Gpt2),
            Some(other) => Err(TokenizerError::Pre { found: other.to_owned(), known: Pre::KNOWN }),
        }
    }
}

/// The tokenizer's settings; part of the model's digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How text is turned into tokens.
    pub family: Family,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// Tokens that end an answer, sorted: the ones that the file names, and control tokens known to end turns.
    pub ends: Vec<u32>,
    /// Whether plain text is meant to begin with `bos`.
    pub adds_bos: bool,
    /// Tokens for what is unknown, padding and separation: control tokens too.
    others: Vec<u32>,
}

/// Control tokens that end an answer whatever the keys say. Published files often name only one of two.
const END_NAMES: [&str; 8] =
    ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "</s>"];

impl Settings {
    /// Reads settings and vocabulary together: each needs a part of the other.
    pub(crate) fn read(keys: Metadata<'_>) -> Result<(Settings, Vocabulary), TokenizerError> {
        let family = match keys.str("tokenizer.ggml.model")? {
            "gpt2" => Family::ByteLevel(Pre::of(keys.opt_str("tokenizer.ggml.pre")?)?),
            "llama" => {
                Family::SentencePiece { adds_space: keys.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) }
            }
            other => return Err(TokenizerError::Model { found: other.to_owned() }),
        };
        let tokens = read_tokens(keys)?;
        let role = |name: &str| role_of(keys, name, tokens.len());
        let (bos, eos) = (role("bos")?, role("eos")?);
        let mut settings = Settings {
            family,
            bos,
            eos,
            ends: [eos, role("eot")?, role("eom")?].into_iter().flatten().collect(),
            adds_bos: keys.opt_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(bos.is_some()) && bos.is_some(),
            others: [role("unknown")?, role("padding")?, role("separator")?].into_iter().flatten().collect(),
        };
        let vocabulary = Vocabulary::read(keys, &tokens, &settings)?;
        settings.ends.extend(vocabulary.controls().filter(|(name, _)| END_NAMES.contains(name)).map(|(_, id)| id));
        settings.ends.sort_unstable();
        settings.ends.dedup();
        Ok((settings, vocabulary))
    }

    /// Tokens that are control tokens because of what they are for.
    pub(super) fn roles(&self) -> impl Iterator<Item = u32> {
        self.bos.iter().chain(&self.eos).chain(&self.ends).chain(&self.others).copied()
    }
}

fn role_of(keys: Metadata<'_>, name: &str, tokens: usize) -> Result<Option<u32>, TokenizerError> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    match keys.opt_u32(&key)? {
        // Several converters write the largest number for "none".
        None | Some(u32::MAX) => Ok(None),
        Some(id) if (id as usize) < tokens => Ok(Some(id)),
        Some(id) => Err(TokenizerError::TokenId { key, id, tokens }),
    }
}
