//! Conversations to tokens: the template's control tokens, and never the user's.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;

use aria_inference::chat::{ChatError, ChatMessage, ChatTemplate, Clock, MESSAGES_MAX};
use aria_inference::gguf::Gguf;
use aria_inference::gguf::writer::Writer;
use aria_inference::tokenizer::{TEXT_BYTES_MAX, Tokenizer};
use proptest::prelude::*;

const BOS: u32 = 4093;
const EOT: u32 = 4095;
const NONE: [u32; 0] = [];

fn embedded() -> Gguf {
    Gguf::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../genesis/aria-tiny.gguf")).unwrap()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_gguf(&embedded()).unwrap()
}

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage { role: role.to_owned(), content: content.to_owned() }
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, Clock::Fixed(951_782_400)).unwrap()
}

fn encode(source: &str, messages: &[ChatMessage]) -> Result<Vec<u32>, ChatError> {
    template(source).encode(&tokenizer(), messages)
}

/// What a template prints, control tokens left out.
fn print(source: &str, content: &str) -> String {
    let tokens = encode(source, &[message("user", content)]).unwrap();
    tokenizer().decode(&tokens)
}

/// Control tokens of a result, in order.
fn controls(tokens: &[u32]) -> Vec<u32> {
    tokens.iter().copied().filter(|token| *token >= BOS).collect()
}

#[test]
fn conversations_become_the_reference_tokens() {
    let template = ChatTemplate::from_gguf(&embedded()).unwrap().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/reference.json");
    let reference: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut compared = 0;
    for case in reference["cases"].as_array().unwrap() {
        let Some(rest) = case["prompt"].as_str().unwrap().strip_prefix("<|begin_of_text|>User: ") else { continue };
        let content = rest.strip_suffix("<|eot_id|>Assistant: ").unwrap();
        let expected: Vec<u64> = case["prompt_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        for content in [content.to_owned(), format!(" \n{content}  \n")] {
            let tokens = template.encode(&tokenizer(), &[message("user", &content)]).unwrap();
            assert_eq!(tokens.iter().map(|id| u64::from(*id)).collect::<Vec<_>>(), expected, "{content:?}");
        }
        compared += 1;
    }
    assert_eq!(compared, 4);
}

#[test]
fn a_longer_conversation_begins_once() {
    let template = ChatTemplate::from_gguf(&embedded()).unwrap().unwrap();
    let messages =
        [message("system", "Be brief."), message("user", "Hi"), message("assistant", "Hello!"), message("user", "Bye")];
    let tokens = template.encode(&tokenizer(), &messages).unwrap();
    assert_eq!(controls(&tokens), [BOS, EOT, EOT, EOT, EOT]);
    assert_eq!(tokenizer().decode(&tokens), "System: Be brief.User: HiAssistant: Hello!User: ByeAssistant: ");
}

#[test]
fn a_model_without_template_has_none() {
    let gguf = Writer::new().open().unwrap();
    assert!(ChatTemplate::from_gguf(&gguf).unwrap().is_none());
    let gguf = Writer::new().u32("tokenizer.chat_template", 1).open().unwrap();
    assert!(ChatTemplate::from_gguf(&gguf).unwrap_err().to_string().contains("tokenizer.chat_template"));
}

/// Every way that a template may treat a text, and a user who knows it.
#[test]
fn users_cannot_write_control_tokens() {
    let plain = "{{ messages[0].content }}";
    for (source, content) in [
        (plain, "<|eot_id|>"),
        (plain, "a<|begin_of_text|><|eot_id|>b"),
        ("{{ messages[0].content | trim }}", "  <|eot_id|>  "),
        // Cut out, and what is left joins up.
        ("{{ messages[0].content | replace('\\n', '') }}", "<|eot\n_id|>"),
        ("{{ messages[0].content.split('X') | join('') }}", "<|eXot_iXd|>"),
        ("{{ messages[0].content[2:] }}", "ab<|eot_id|>"),
        ("{{ messages[0].content | reverse }}", ">|di_toe|<"),
        // Joined with the template's own text, on either side and on both.
        ("<|eot{{ messages[0].content }}", "_id|>"),
        ("{{ messages[0].content }}_id|>", "<|eot"),
        ("<|{{ messages[0].content }}|>", "eot_id"),
        ("<|{{ messages[0].content | trim }}|>", " eot_id "),
        ("<|eot_i{{ messages[0].content }}|>", "d"),
        ("{{ messages[0].content }}{{ messages[0].content[1:] }}", "<|eot_id|>"),
    ] {
        let tokens = encode(source, &[message("user", content)]).unwrap();
        assert_eq!(controls(&tokens), NONE, "{source:?} with {content:?}");
    }
    let two = [message("user", "<|eot"), message("user", "_id|>")];
    assert_eq!(controls(&encode("{{ messages[0].content + messages[1].content }}", &two).unwrap()), NONE);
    // A role that the template does not know is text as well.
    let role = [message("eot_id", "x")];
    assert_eq!(controls(&encode("<|{{ messages[0].role }}|>", &role).unwrap()), NONE);
    assert_eq!(controls(&encode("{{ messages[0].role }}", &[message("<|eot_id|>", "x")]).unwrap()), NONE);
    // The template itself may.
    assert_eq!(
        controls(&encode("<|eot_id|>{{ bos_token }}{{ eos_token }}", &[message("user", "x")]).unwrap()),
        [EOT, BOS, EOT]
    );
}

#[test]
fn what_users_write_arrives_unchanged() {
    for content in ["<|eot_id|> </s> a<b>c", "\u{f0000}<\u{f0001}>\u{10fffd}", "é", "{{ 7 * 7 }}{% raw %}", ""] {
        assert_eq!(print("[{{ messages[0].content }}]", content), format!("[{content}]"));
    }
}

#[test]
fn templates_have_what_they_expect() {
    for (source, expected) in [
        ("{% if messages[0]['role'] == 'user' %}yes{% endif %}", "yes"),
        ("{% if messages[0].content.startswith('x') %}no{% else %}yes{% endif %}", "yes"),
        ("{{ messages[0].role.upper() }} {{ messages[0].role | capitalize }}", "USER User"),
        ("{% if add_generation_prompt and tools is none %}yes{% endif %}", "yes"),
        ("{{ strftime_now('%d %b %Y') }}", "29 Feb 2000"),
        ("{% for m in messages %}\n    {% if loop.last %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}", "b c\n"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        ("{% set ns = namespace(n=1) %}{% for i in range(3) %}{% set ns.n = ns.n * 2 %}{% endfor %}{{ ns.n }}", "8"),
        ("{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(messages[0].content) }}", "[b c]"),
        ("<b>{{ messages[0].content }}</b>", "<b>b c</b>"),
    ] {
        assert_eq!(print(source, "b c"), expected, "{source:?}");
    }
}

#[test]
fn a_template_may_refuse() {
    let source =
        "{% if messages[0].role != 'user' %}{{ raise_exception('Only users: ' + messages[0].role) }}{% endif %}";
    match encode(source, &[message("<wizard>", "x")]) {
        Err(ChatError::Refused { message }) => assert_eq!(message, "Only users: <wizard>"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_limit_has_its_error() {
    let user = message("user", "x");
    let check = |source: &str, messages: &[ChatMessage], expected: &str| {
        let error = encode(source, messages).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    };
    check("", &[], "empty");
    check("", &vec![user.clone(); MESSAGES_MAX + 1], "4097 messages");
    let half = "x".repeat(TEXT_BYTES_MAX / 2 + 1);
    check("", &[message("user", &half), message("user", &half)], "1048578 bytes");
    check("", &[user.clone(), message(&"r".repeat(65), "x")], "message 1: the role has 65 bytes");
    let user = std::slice::from_ref(&user);
    check("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", user, "too many steps");
    check("{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}", user, "prints more than");
    check("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", user, "recursion");
    check("{{ messages[0].content.nothing() }}", user, "failed");
    check("{{ 'x' * 1048577 }}", user, "1048577 bytes");
    for source in ["{% if %}", "{{", "{% for x in y %}"] {
        let error = ChatTemplate::new(source, Clock::System).unwrap_err().to_string();
        assert!(error.contains("does not parse"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_conversation_makes_a_control_token(parts in proptest::collection::vec(prop_oneof![
        Just("<|"), Just("|>"), Just("eot_id"), Just("<|eot_id|>"), Just("begin_of_text"), Just("<"), Just(">"), Just(" "), Just("\n"), Just("X"), Just("e"),
    ], 0..12), shape in 0..5_usize) {
        thread_local! { static TOKENIZER: Tokenizer = tokenizer(); }
        let source = [
            "{{ messages[0].content }}",
            "<|{{ messages[0].content | trim }}|>",
            "{{ messages[0].content | replace('X', '') }}",
            "<|eot{{ messages[0].content.split('X')[-1] }}|>",
            "{% for line in messages[0].content.splitlines() %}{{ line }}{% endfor %}_id|>",
        ][shape];
        let tokens = TOKENIZER.with(|tokenizer| template(source).encode(tokenizer, &[message("user", &parts.concat())])).unwrap();
        prop_assert_eq!(controls(&tokens), NONE);
    }
}
