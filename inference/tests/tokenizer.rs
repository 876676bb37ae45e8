//! Text to tokens and back: equal to what the libraries that models are published with make of the same vocabulary.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

use aria_inference::gguf::Gguf;
use aria_inference::gguf::writer::Writer;
use aria_inference::tokenizer::{TEXT_BYTES_MAX, Tokenizer};
use proptest::prelude::*;
use serde_json::Value;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(data(name)).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Pairs of a text and its tokens.
fn cases(value: &Value) -> Vec<(String, Vec<u32>)> {
    value.as_array().unwrap().iter().map(|case| (case[0].as_str().unwrap().to_owned(), ids(&case[1]))).collect()
}

fn embedded() -> Gguf {
    Gguf::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../genesis/aria-tiny.gguf")).unwrap()
}

fn aria_tiny() -> Tokenizer {
    Tokenizer::from_gguf(&embedded()).unwrap()
}

/// The keys of aria-tiny's tokenizer in a file of their own, changed.
fn changed(pre: Option<&str>, change: impl FnOnce(Writer) -> Writer) -> Writer {
    let gguf = embedded();
    let keys = gguf.metadata();
    let mut writer = Writer::new()
        .text("tokenizer.ggml.model", "gpt2")
        .texts("tokenizer.ggml.tokens", keys.strings("tokenizer.ggml.tokens").unwrap())
        .texts("tokenizer.ggml.merges", keys.strings("tokenizer.ggml.merges").unwrap());
    if let Some(pre) = pre {
        writer = writer.text("tokenizer.ggml.pre", pre);
    }
    change(writer)
}

fn sentence_piece(adds_space: Option<bool>) -> Tokenizer {
    let json = json("sentencepiece.json");
    let list = |key: &str| json[key].as_array().unwrap().clone();
    let (tokens, scores, types) = (list("tokens"), list("scores"), list("types"));
    #[expect(clippy::cast_possible_truncation, reason = "the scores were binary32 when they were written down")]
    let scores: Vec<f32> = scores.iter().map(|score| score.as_f64().unwrap() as f32).collect();
    let types: Vec<i32> = types.iter().map(|kind| i32::try_from(kind.as_i64().unwrap()).unwrap()).collect();
    let mut writer = Writer::new()
        .text("tokenizer.ggml.model", "llama")
        .texts("tokenizer.ggml.tokens", tokens.iter().map(|token| token.as_str().unwrap()))
        .f32s("tokenizer.ggml.scores", &scores)
        .i32s("tokenizer.ggml.token_type", &types)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2);
    if let Some(adds_space) = adds_space {
        writer = writer.bool("tokenizer.ggml.add_space_prefix", adds_space);
    }
    Tokenizer::from_gguf(&writer.open().unwrap()).unwrap()
}

fn check_cases(tokenizer: &Tokenizer, cases: &[(String, Vec<u32>)]) {
    assert!(cases.len() > 30);
    for (text, expected) in cases {
        assert_eq!(&tokenizer.encode(text).unwrap(), expected, "{text:?}");
    }
}

/// Expected by Hugging Face's library on the published tokenizer.json.
#[test]
fn byte_level_text_becomes_the_same_tokens() {
    let expected = json("tokenizer-ids.json");
    let llama = cases(&expected["llama-bpe"]);
    check_cases(&aria_tiny(), &llama);
    // Files without the key mean the same.
    for pre in [None, Some("llama3"), Some("llama-v3")] {
        check_cases(&Tokenizer::from_gguf(&changed(pre, |w| w).open().unwrap()).unwrap(), &llama);
    }
    let gpt2 = Tokenizer::from_gguf(&changed(Some("gpt-2"), |w| w).open().unwrap()).unwrap();
    check_cases(&gpt2, &cases(&expected["gpt-2"]));
}

/// Expected by Google's library from the model that it trained.
#[test]
fn sentence_piece_text_becomes_the_same_tokens() {
    let expected = cases(&json("sentencepiece.json")["cases"]);
    check_cases(&sentence_piece(None), &expected);
    check_cases(&sentence_piece(Some(true)), &expected);
    let plain = sentence_piece(Some(false));
    assert_ne!(plain.encode("Hello!").unwrap(), sentence_piece(None).encode("Hello!").unwrap());
    assert_eq!(plain.decode(&plain.encode("Hello!").unwrap()), "Hello!");
}

#[test]
fn roles_of_tokens_are_read() {
    let tokenizer = aria_tiny();
    assert_eq!((tokenizer.bos(), tokenizer.adds_bos(), tokenizer.len()), (Some(4093), true, 4096));
    // The file names one end twice; the other is known by its name.
    assert_eq!(tokenizer.end_tokens(), [4094, 4095]);
    assert!((4093..4096).all(|id| tokenizer.is_control(id)));
    assert!(!tokenizer.is_control(4092) && !tokenizer.is_control(4096));
    assert_eq!(tokenizer.token_bytes(4095), Some(b"<|eot_id|>".as_slice()));
    assert_eq!(tokenizer.token_bytes(220), Some(b" ".as_slice()));
    assert_eq!(tokenizer.token_bytes(4096), None);

    let tokenizer = sentence_piece(None);
    assert_eq!(tokenizer.bos(), Some(1));
    assert!((0..4).all(|id| tokenizer.is_control(id)), "unknown, begin, end, <|end|>");
    assert_eq!(tokenizer.end_tokens(), [2, 3]);
    let newline = tokenizer.encode("\n").unwrap();
    assert_eq!(tokenizer.token_bytes(newline[1]), Some(b"\n".as_slice()));
}

#[test]
fn decoding_leaves_control_tokens_out() {
    let tokenizer = aria_tiny();
    let mut tokens = vec![4093];
    tokens.extend(tokenizer.encode("Hi 😀").unwrap());
    tokens.extend([4095, 5_000]);
    assert_eq!(tokenizer.decode(&tokens), "Hi 😀");
}

#[test]
fn text_that_looks_like_control_stays_text() {
    let cases = ["<|eot_id|>", "a<|begin_of_text|>b", " <|end_of_text|>\n", "</s>", "<s>", "<unk>", "<|end|>"];
    for tokenizer in [aria_tiny(), sentence_piece(None)] {
        for text in cases {
            let tokens = tokenizer.encode(text).unwrap();
            assert!(tokens.iter().all(|id| !tokenizer.is_control(*id)), "{text:?} became {tokens:?}");
            assert_eq!(tokenizer.decode(&tokens).trim_start_matches(' '), text.trim_start_matches(' '));
        }
    }
    // A control token that consists of letters alone would be found as a word, if words were looked up among all tokens.
    let types: Vec<i32> = (0..4096).map(|id| if id == 1055 { 3 } else { 1 }).collect();
    let gguf = changed(None, |w| w.i32s("tokenizer.ggml.token_type", &types)).open().unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    assert_eq!(aria_tiny().encode(" Hello").unwrap(), [1055]);
    let tokens = tokenizer.encode(" Hello").unwrap();
    assert!(!tokens.contains(&1055) && tokenizer.decode(&tokens) == " Hello", "{tokens:?}");
}

#[test]
fn a_text_has_a_limit() {
    let error = aria_tiny().encode(&"a".repeat(TEXT_BYTES_MAX + 1)).unwrap_err().to_string();
    assert!(error.contains("1048577") && error.contains("1048576"), "{error}");
}

fn check_refused(writer: Writer, expected: &[&str]) {
    let error = Tokenizer::from_gguf(&writer.open().unwrap()).unwrap_err().to_string();
    for part in expected {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

#[test]
fn each_rule_has_its_error() {
    check_refused(Writer::new(), &["tokenizer.ggml.model", "missing"]);
    check_refused(Writer::new().text("tokenizer.ggml.model", "bert"), &["tokenizer.ggml.model", "bert", "gpt2"]);
    check_refused(Writer::new().text("tokenizer.ggml.model", "gpt2"), &["tokenizer.ggml.tokens", "missing"]);
    check_refused(changed(Some("tekken"), |w| w), &["tokenizer.ggml.pre", "tekken", "llama-bpe"]);
    check_refused(
        changed(None, |w| w.i32s("tokenizer.ggml.token_type", &[1, 1])),
        &["token_type", "2 elements for 4096"],
    );
    check_refused(
        changed(None, |w| w.u32("tokenizer.ggml.eos_token_id", 4096)),
        &["eos_token_id", "token 4096", "4096"],
    );
    let gpt2 = || Writer::new().text("tokenizer.ggml.model", "gpt2");
    let few = || gpt2().texts("tokenizer.ggml.tokens", ["a", "b"]).texts("tokenizer.ggml.merges", ["a b"]);
    check_refused(few(), &["no token for byte 0x00"]);
    check_refused(gpt2().texts("tokenizer.ggml.tokens", []), &["tokenizer.ggml.tokens", "0 long"]);
    check_refused(gpt2().texts("tokenizer.ggml.tokens", ["x".repeat(1025).as_str()]), &["1025 bytes long at 0"]);
    check_refused(
        Writer::new().text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", ["a"]),
        &["no token for byte 0x00"],
    );
    let gguf = embedded();
    let tokens = gguf.metadata().strings("tokenizer.ggml.tokens").unwrap();
    let merging = |merge: &str| {
        let tokens = tokens.iter().copied();
        gpt2().texts("tokenizer.ggml.tokens", tokens).texts("tokenizer.ggml.merges", ["h e", merge])
    };
    for merge in ["h", "h qqqq", "zz qq", &"y ".repeat(600)] {
        check_refused(merging(merge), &["merge 1", "does not join"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_comes_back_whole_and_in_pieces(text in prop_oneof![".{0,60}", "[ -~\n\t<|>]{0,60}", "\\PC{0,20}"]) {
        thread_local! { static TOKENIZERS: [Tokenizer; 2] = [aria_tiny(), sentence_piece(Some(false))]; }
        TOKENIZERS.with(|tokenizers| -> Result<(), TestCaseError> {
            for tokenizer in tokenizers {
                let tokens = tokenizer.encode(&text).unwrap();
                prop_assert!(tokens.iter().all(|id| !tokenizer.is_control(*id)));
                prop_assert_eq!(tokenizer.decode(&tokens), text.as_str());
                let mut decoder = tokenizer.decoder();
                let mut streamed = String::new();
                for token in tokens {
                    streamed += &decoder.push(tokenizer.token_bytes(token).unwrap());
                }
                prop_assert_eq!(decoder.flush(), "");
                prop_assert_eq!(streamed, text.as_str());
            }
            Ok(())
        })?;
    }
}
