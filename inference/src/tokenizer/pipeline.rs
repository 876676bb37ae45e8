//! Puts the parts of the `tokenizers` library together: the only module that knows it from inside.

use std::collections::HashSet;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::Replace;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use super::alphabet::char_of;
use super::settings::{Family, Pre, Settings};
use super::vocabulary::{Kind, Vocabulary, read_tokens};
use super::{TokenizerError, library_error};
use crate::gguf::Metadata;

const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";

/// Words with one leading sign, numbers up to three digits, runs of punctuation, line ends, spaces.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The library's tokenizer for text. Its vocabulary has no control token.
pub(super) fn build(
    keys: Metadata<'_>,
    settings: &Settings,
    vocabulary: &Vocabulary,
) -> Result<Tokenizer, TokenizerError> {
    let tokens = read_tokens(keys)?;
    let words = TextTokens::new(&tokens, vocabulary.kinds());
    let mut tokenizer = match settings.family {
        Family::ByteLevel(pre) => byte_level(keys, &words, pre)?,
        Family::SentencePiece { .. } => sentence_piece(keys, &tokens, vocabulary.kinds(), &words)?,
    };
    let whole = tokens.iter().zip(vocabulary.kinds()).filter(|(_, kind)| **kind == Kind::Whole);
    let whole: Vec<AddedToken> = whole.map(|(token, _)| AddedToken::from(*token, false).normalized(false)).collect();
    if !whole.is_empty() {
        tokenizer.add_tokens(whole).map_err(library_error)?;
    }
    Ok(tokenizer)
}

/// The tokens that text may become, by their text.
struct TextTokens {
    ids: Vocab,
    /// Names of the tokens that text must not become.
    controls: HashSet<String>,
}

impl TextTokens {
    fn new(tokens: &[&str], kinds: &[Kind]) -> TextTokens {
        let mut words = TextTokens { ids: Vocab::default(), controls: HashSet::new() };
        for ((id, token), kind) in (0..).zip(tokens).zip(kinds) {
            if *kind == Kind::Control {
                words.controls.insert((*token).to_owned());
            } else {
                // Of two tokens with one text the first is used, as a reader of the list would expect.
                words.ids.entry((*token).to_owned()).or_insert(id);
            }
        }
        words.controls.retain(|name| !words.ids.contains_key(name));
        words
    }
}

fn byte_level(keys: Metadata<'_>, words: &TextTokens, pre: Pre) -> Result<Tokenizer, TokenizerError> {
    for byte in 0..=u8::MAX {
        if !words.ids.contains_key(char_of(byte).to_string().as_str()) {
            return Err(TokenizerError::ByteMissing { byte });
        }
    }
    let mut merges = Merges::new();
    for (index, merge) in keys.strings(MERGES)?.into_iter().enumerate() {
        let wrong = || TokenizerError::Merge { index, merge: merge.to_owned() };
        let (left, right) = merge.split_once(' ').ok_or_else(wrong)?;
        let parts = [left.to_owned(), right.to_owned(), format!("{left}{right}")];
        if parts.iter().all(|part| words.ids.contains_key(part)) {
            let [left, right, _] = parts;
            merges.push((left, right));
        } else if !parts.iter().any(|part| words.controls.contains(part)) {
            return Err(wrong());
        }
    }
    // A piece that is a token as a whole is not merged: what Llama 3's published tokenizer says. GPT-2's does not.
    let is_whole_first = pre != Pre::Gpt2;
    let model = BPE::builder().vocab_and_merges(words.ids.clone(), merges).ignore_merges(is_whole_first);
    let mut tokenizer = Tokenizer::new(model.build().map_err(library_error)?);
    match pre {
        Pre::Gpt2 => tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true))),
        Pre::Llama3 => tokenizer.with_pre_tokenizer(Some(split_then_bytes(LLAMA3)?)),
    };
    Ok(tokenizer)
}

fn split_then_bytes(rule: &str) -> Result<PreTokenizers, TokenizerError> {
    let pattern = SplitPattern::Regex(rule.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(library_error)?;
    Ok(PreTokenizers::new(vec![split.into(), ByteLevel::new(false, true, false).into()]))
}

fn sentence_piece(
    keys: Metadata<'_>,
    tokens: &[&str],
    kinds: &[Kind],
    words: &TextTokens,
) -> Result<Tokenizer, TokenizerError> {
    for byte in 0..=u8::MAX {
        if !words.ids.contains_key(format!("<0x{byte:02X}>").as_str()) {
            return Err(TokenizerError::ByteMissing { byte });
        }
    }
    let scores = keys.f32s(SCORES)?;
    if scores.len() != tokens.len() {
        return Err(TokenizerError::Length { key: SCORES, found: scores.len(), tokens: tokens.len() });
    }
    let pieces: Vec<(&str, f32)> = tokens
        .iter()
        .zip(kinds)
        .zip(&scores)
        .filter(|((_, kind), _)| **kind == Kind::Normal)
        .map(|((t, _), s)| (*t, *s))
        .collect();
    let model = BPE::builder().vocab_and_merges(words.ids.clone(), merges_by_score(&pieces));
    let model = model.byte_fallback(true).fuse_unk(true).build().map_err(library_error)?;
    let mut tokenizer = Tokenizer::new(model);
    let marked = Replace::new(" ", "\u{2581}").map_err(library_error)?;
    tokenizer.with_normalizer(Some(marked)).map_err(library_error)?;
    Ok(tokenizer)
}

/// SentencePiece merges whichever neighbours make the piece with the best score. As a ranked list, in the order of
/// Hugging Face's converter: by falling score of the piece, then by falling length of the left half.
fn merges_by_score(pieces: &[(&str, f32)]) -> Merges {
    let normal: HashSet<&str> = pieces.iter().map(|(piece, _)| *piece).collect();
    let mut ways: Vec<(f32, usize, &str, &str)> = Vec::new();
    for (piece, score) in pieces {
        for (length, (at, _)) in piece.char_indices().enumerate().skip(1) {
            let (left, right) = piece.split_at(at);
            if normal.contains(left) && normal.contains(right) {
                ways.push((*score, length, left, right));
            }
        }
    }
    ways.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    ways.into_iter().map(|(_, _, left, right)| (left.to_owned(), right.to_owned())).collect()
}
