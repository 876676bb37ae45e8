//! Every rule of the OpenAI door (docs/rpc.md), over real sockets.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[expect(dead_code, reason = "this door needs no blocks")]
mod scripted;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use aria_chain::consent::{Consent, Refusal};
use aria_chain::request::TaskType;
use aria_chain::units::{NanoAria, Timestamp};
use aria_rpc::services::{Payer, Prompt};
use scripted::{Script, Scripted, ask, open, post, send};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const WORDS: Script = Script::Words(&["one ", "", "two", " three"]);

fn body(more: Value) -> Value {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_work_or_are_refused_by_name() {
    let node = Scripted::new(WORDS);
    let (address, _stop) = open(&node, &[]).await;
    let refused: &[(&str, Value, &str)] = &[
        ("max_tokens", json!(-1), "invalid_value"),
        ("max_tokens", json!(0), "invalid_value"),
        ("max_tokens", json!("many"), "invalid_value"),
        ("temperature", json!(2.1), "invalid_value"),
        ("top_p", json!(-0.1), "invalid_value"),
        ("top_k", json!(5000), "invalid_value"),
        ("n", json!(9), "invalid_value"),
        ("seed", json!(1.5), "invalid_value"),
        ("stop", json!([""]), "invalid_value"),
        ("stop", json!(["a", "b", "c", "d", "e"]), "invalid_value"),
        ("stream", json!("yes"), "invalid_value"),
        ("stream_options", json!({"include_usage": true}), "invalid_value"),
        ("top_logprobs", json!(3), "invalid_value"),
        ("logit_bias", json!({"x": 1}), "invalid_value"),
        ("logit_bias", json!({"1": 101}), "invalid_value"),
        ("messages", json!([]), "invalid_value"),
        ("messages", json!("Hi"), "invalid_value"),
        ("tools", json!([{"type": "function"}]), "unsupported_parameter"),
        ("tool_choice", json!("required"), "unsupported_parameter"),
        ("response_format", json!({"type": "json_object"}), "unsupported_parameter"),
        ("modalities", json!(["audio"]), "unsupported_parameter"),
        ("reasoning_effort", json!("low"), "unsupported_parameter"),
    ];
    for (field, value, code) in refused {
        let answer = post(address, CHAT, &body(json!({ *field: value })));
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["param"], &error["code"]),
            (400, &json!(field), &json!(code)),
            "{field} {value}: {}",
            answer.body
        );
        assert_eq!(error["type"], "invalid_request_error");
        assert!(answer.head.contains("x-should-retry: false"), "{}", answer.head);
    }
    let places = [
        (json!([{"role": "robot", "content": "x"}]), "messages[0].role"),
        (json!([{"role": "user", "content": 5}]), "messages[0].content"),
        (json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]), "messages[0].content[0]"),
    ];
    for (messages, place) in places {
        assert_eq!(post(address, CHAT, &body(json!({"messages": messages}))).json()["error"]["param"], place);
    }
    let accepted = json!({
        "user": "u", "metadata": {"a": "b"}, "store": false, "service_tier": "auto", "parallel_tool_calls": true, "tools": [], "tool_choice": "none",
        "response_format": {"type": "text"}, "something_new": 1, "temperature": null, "stop": null, "n": null, "logprobs": null, "stream": null,
    });
    assert_eq!(post(address, CHAT, &body(accepted)).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_parameter_reaches_the_engine() {
    let node = Scripted::new(WORDS);
    let (address, _stop) = open(&node, &[]).await;
    let all = json!({
        "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "min_p": 0.125, "presence_penalty": 1, "frequency_penalty": -1,
        "repetition_penalty": 1.5, "logit_bias": {"7": -2}, "seed": -1, "n": 2, "stop": "END", "logprobs": true, "top_logprobs": 2,
    });
    assert_eq!(post(address, CHAT, &body(all)).status, 200);
    let call = node.asked.lock().unwrap().take().unwrap();
    let Prompt::Chat(messages) = &call.prompt else { panic!("{:?}", call.prompt) };
    assert_eq!((messages[0].role.as_str(), messages[1].content.as_str()), ("system", "ab"));
    assert_eq!(
        (call.max_tokens, call.choices, call.stop, call.logprobs),
        (Some(5), 2, vec!["END".to_owned()], Some(2))
    );
    let sampling = &call.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p), (0.5, 0.25, 3, 0.125));
    assert_eq!((sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty), (1.0, -1.0, 1.5));
    assert_eq!((&sampling.logit_bias, sampling.seed, call.is_seeded), (&vec![(7, -2.0)], u64::MAX, true));
    assert_eq!(post(address, CHAT, &body(json!({}))).status, 200);
    let call = node.asked.lock().unwrap().take().unwrap();
    assert_eq!((call.max_tokens, call.is_seeded, call.logprobs), (None, false, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_answer_has_every_part() {
    let node = Scripted::new(WORDS);
    let (address, _stop) = open(&node, &[]).await;
    let answer = post(address, CHAT, &body(json!({"n": 2, "logprobs": true})));
    let value = answer.json();
    assert_eq!(value["object"], "chat.completion");
    assert_eq!(value["choices"][1]["message"]["content"], "one two three");
    assert_eq!(value["choices"][1]["finish_reason"], "stop");
    let logprobs = &value["choices"][0]["logprobs"]["content"];
    assert_eq!(
        logprobs[0],
        json!({"token": "w", "logprob": -0.5, "bytes": [119], "top_logprobs": []}),
        "top_logprobs may be left out"
    );
    assert_eq!(
        value["usage"],
        json!({"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 3}})
    );
    assert_eq!(value["aria"]["record_id"], "ab".repeat(32));
    assert_eq!(value["system_fingerprint"], "arith1-121212121212");
    for header in ["x-request-id: req-", "x-aria-request-id: cdcd", "x-aria-record-id: abab"] {
        assert!(answer.head.contains(header), "{header} in {}", answer.head);
    }
    let named = ask(address, "GET", "/v1/models", &[("x-request-id", "mine-1")], "");
    assert!(named.head.contains("x-request-id: mine-1"), "{}", named.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_role_first_finish_last_usage_alone_and_an_end() {
    let node = Scripted::new(WORDS);
    let (address, _stop) = open(&node, &[]).await;
    let chunks = |more: Value| -> Vec<Value> {
        let answer = post(address, CHAT, &body(more));
        assert!(answer.head.contains("text/event-stream"), "{}", answer.head);
        let mut events = answer.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"));
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    };
    let plain = chunks(json!({"stream": true}));
    assert_eq!(plain[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let text: String = plain.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "one two three");
    let last = plain.last().unwrap();
    assert_eq!(
        (&last["choices"][0]["finish_reason"], &last["aria"]["record_id"]),
        (&json!("stop"), &json!("ab".repeat(32)))
    );
    assert!(plain.iter().all(|chunk| chunk.get("usage").is_none() && chunk["id"] == plain[0]["id"]));

    let counted = chunks(json!({"stream": true, "stream_options": {"include_usage": true}, "n": 2}));
    let without_choices: Vec<&Value> = counted.iter().filter(|chunk| chunk["choices"] == json!([])).collect();
    assert_eq!(without_choices.len(), 1);
    assert_eq!(without_choices[0], counted.last().unwrap());
    assert_eq!(without_choices[0]["usage"]["total_tokens"], 11);
    assert!(!without_choices[0]["aria"].is_null());
    for index in [0, 1] {
        let finishes = counted
            .iter()
            .filter(|chunk| chunk["choices"][0]["index"] == index && !chunk["choices"][0]["finish_reason"].is_null());
        assert_eq!(finishes.count(), 1, "choice {index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_in_a_stream_is_one_event_without_an_end_mark() {
    let node = Scripted::new(Script::Fails);
    let (address, _stop) = open(&node, &[]).await;
    let events = post(address, CHAT, &body(json!({"stream": true}))).events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(
        (&last["error"]["message"], &last["error"]["type"]),
        (&json!("a scripted fault"), &json!("server_error"))
    );
    let plain = post(address, CHAT, &body(json!({})));
    assert_eq!((plain.status, &plain.json()["error"]["code"]), (500, &json!("server_error")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_plain_and_streamed() {
    let node = Scripted::new(Script::Endless);
    let (address, _stop) = open(&node, &[]).await;
    for stream in [false, true] {
        let connection = send(
            address,
            "POST",
            CHAT,
            &[("content-type", "application/json")],
            &body(json!({"stream": stream})).to_string(),
        );
        wait(|| node.running.load(Ordering::SeqCst) == 1);
        drop(connection);
        wait(|| node.running.load(Ordering::SeqCst) == 0);
    }
}

fn wait(until: impl Fn() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < Duration::from_secs(8), "nothing happened");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_consent_forbids_names_its_clause() {
    let none = NanoAria::ZERO;
    let accepted = "text_gen".parse().unwrap();
    let at = Consent { schedule: "08:00-22:00".parse().unwrap(), days: "mon".parse().unwrap(), ..Consent::default() };
    // 1 January 1970 was a Thursday, and began at midnight.
    let when = |hour: u64| at.schedule.admits(at.days, Timestamp::new(hour * 3_600_000)).unwrap_err();
    let node = Scripted::new(WORDS);
    let (address, _stop) = open(&node, &[]).await;
    for (refusal, status, code, param) in [
        (when(1), 403, "consent_schedule", Value::Null),
        (when(12), 403, "consent_days", Value::Null),
        (Refusal::Task { asked: TaskType::Any, accepted }, 403, "consent_task", json!("aria.task_type")),
        (Refusal::Ram { asked_mb: 600, max_mb: 512 }, 403, "consent_ram", json!("max_tokens")),
        (Refusal::Reward { offered: none, min: NanoAria::new(1) }, 403, "consent_reward", json!("model")),
        (Refusal::Concurrency { running: 2, max: 2 }, 429, "consent_concurrency", Value::Null),
        (Refusal::Revoked, 403, "consent_revoked", Value::Null),
    ] {
        node.follow(Script::Refuses(refusal));
        let answer = post(address, CHAT, &body(json!({"stream": true})));
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"], &error["param"]), (status, &json!(code), &param), "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(refusal.clause()) && message.contains(';'), "the clause and the remedy: {message}");
        let again = if status == 429 { "retry-after: 1" } else { "x-should-retry: false" };
        assert!(answer.head.contains(again), "{}", answer.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_is_read_by_all_its_names() {
    let node = Scripted::new(WORDS);
    let (address, _stop) = open(&node, &[]).await;
    for (own, task) in [
        (json!({}), TaskType::Any),
        (json!({"aria": {"task_type": "code_gen"}}), TaskType::CodeGeneration),
        (json!({"aria": {"task_type": "text_generation", "audit": "none"}}), TaskType::TextGeneration),
    ] {
        assert_eq!(post(address, CHAT, &body(own.clone())).status, 200, "{own}");
        assert_eq!(node.asked.lock().unwrap().take().unwrap().task, task, "{own}");
    }
    for wrong in [json!("poetry"), json!(1)] {
        let refused = post(address, CHAT, &body(json!({"aria": {"task_type": wrong}})));
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("aria.task_type")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_pays_is_read_and_what_is_wrong_is_named() {
    let node = Scripted::new(WORDS);
    let (address, _stop) = open(&node, &[]).await;
    let (key, signature) = ("ab".repeat(32), "cd".repeat(64));
    let payer = |own: Value| {
        assert_eq!(post(address, CHAT, &body(json!({"aria": own}))).status, 200, "{own}");
        node.asked.lock().unwrap().take().unwrap().payer
    };
    assert!(matches!(payer(json!({})), Payer::Node(None)));
    assert!(matches!(payer(json!({"max_fee": 7})), Payer::Node(Some(fee)) if fee.get() == 7));
    assert!(matches!(payer(json!({"max_fee": 7, "requester": key})), Payer::Client(_, fee) if fee.get() == 7));
    assert!(matches!(payer(json!({"request_id": key, "signature": signature})), Payer::Signed(..)));
    for (wrong, field) in [
        (json!({"max_fee": -1}), "aria.max_fee"),
        (json!({"max_fee": "0.003"}), "aria.max_fee"),
        (json!({"requester": "ab"}), "aria.requester"),
        (json!({"requester": 5}), "aria.requester"),
        (json!({"signature": "ab", "request_id": key}), "aria.signature"),
        (json!({"signature": signature}), "aria.request_id"),
    ] {
        let refused = post(address, CHAT, &body(json!({"aria": wrong})));
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!(field)), "{wrong}");
    }
    let receipt = |body: Value| {
        let answer = post(address, "/v1/aria/receipts", &body);
        (answer.status, answer.json()["error"]["param"].as_str().unwrap().to_owned())
    };
    assert_eq!(receipt(json!({"signature": signature})), (400, "record_id".into()));
    assert_eq!(receipt(json!({"record_id": key})), (400, "signature".into()));
    assert_eq!(receipt(json!({"record_id": key, "signature": signature})), (400, "record_id".into()), "none is owed");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_and_loading_say_when_to_come_back() {
    let node = Scripted::new(Script::Busy);
    let (address, _stop) = open(&node, &[]).await;
    let full = post(address, CHAT, &body(json!({})));
    assert_eq!((full.status, &full.json()["error"]["type"]), (429, &json!("rate_limit_error")));
    assert!(full.head.contains("retry-after: 3"), "{}", full.head);
    node.follow(Script::Loading);
    let loading = post(address, CHAT, &body(json!({})));
    assert_eq!((loading.status, &loading.json()["error"]["code"]), (503, &json!("model_loading")));
    let health = ask(address, "GET", "/health", &[], "");
    assert_eq!((health.status, &health.json()["reason"]), (503, &json!("the model is being loaded")));
    node.follow(WORDS);
    assert_eq!(ask(address, "GET", "/health", &[], "").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_an_object() {
    let node = Scripted::new(WORDS);
    let (address, _stop) = open(&node, &[]).await;
    let json = ("content-type", "application/json");
    let huge = format!("{{\"model\": \"{}\"}}", "x".repeat(5 << 20));
    let cases = [
        (ask(address, "GET", "/nowhere", &[], ""), 404),
        (ask(address, "GET", CHAT, &[], ""), 405),
        (ask(address, "POST", CHAT, &[json], "{"), 400),
        (ask(address, "POST", CHAT, &[json], "[]"), 400),
        (ask(address, "POST", CHAT, &[("content-type", "text/plain")], "{}"), 415),
        (ask(address, "POST", CHAT, &[json], "{}"), 400),
        (ask(address, "GET", "/v1/models/nothing", &[], ""), 404),
        (post(address, CHAT, &body(json!({"model": "gpt"}))), 404),
    ];
    for (answer, status) in cases {
        assert_eq!(answer.status, status, "{}", answer.body);
        let error = answer.json()["error"].clone();
        assert!(["message", "type", "param", "code"].iter().all(|key| error.get(*key).is_some()), "{error}");
    }
    // The body is refused before it is read to its end, so the connection may break under the sender.
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    use std::io::{Read, Write};
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        huge.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = [0; 12];
    stream.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"HTTP/1.1 413");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_completions_have_their_own_shape() {
    let node = Scripted::new(WORDS);
    let (address, _stop) = open(&node, &[]).await;
    let complete = |more: Value| {
        let mut body = json!({"model": "tiny", "prompt": "Once"});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        post(address, "/v1/completions", &body)
    };
    let answer = complete(json!({"logprobs": 1})).json();
    assert_eq!(
        (&answer["object"], &answer["choices"][0]["text"]),
        (&json!("text_completion"), &json!("one two three"))
    );
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["w", "w", "w", "w"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2, 3]));
    assert_eq!(logprobs["top_logprobs"][0], json!({"w": -0.5}));
    assert_eq!(node.asked.lock().unwrap().take().unwrap().max_tokens, Some(16));
    assert_eq!(complete(json!({"prompt": [1, 2, 3]})).status, 200);
    assert_eq!(node.asked.lock().unwrap().take().unwrap().prompt, Prompt::Tokens(vec![1, 2, 3]));
    for (field, value) in [
        ("echo", json!(true)),
        ("best_of", json!(2)),
        ("suffix", json!("x")),
        ("prompt", json!([])),
        ("prompt", json!([1, "a"])),
    ] {
        let answer = complete(json!({ field: value }));
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!(field)));
    }
    let long = complete(json!({"prompt": "x".repeat(2000)}));
    let expected = "This model's maximum context length is 100 tokens. However, you requested 1016 tokens (1000 in the messages, 16 in the completion).";
    assert_eq!(long.json()["error"]["message"], expected);
    assert_eq!(
        (long.json()["error"]["code"].clone(), long.json()["error"]["param"].clone()),
        (json!("context_length_exceeded"), json!("prompt"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_hosts_and_origins_are_checked() {
    let node = Scripted::new(WORDS);
    let (address, _stop) = open(&node, &["aria-secret".into()]).await;
    let get = |headers: &[(&str, &str)]| ask(address, "GET", "/v1/models", headers, "").status;
    assert_eq!(get(&[]), 401);
    assert_eq!(get(&[("authorization", "Bearer aria-secreT")]), 401);
    assert_eq!(get(&[("authorization", "Bearer aria-secret")]), 200);
    assert_eq!(ask(address, "GET", "/health", &[], "").status, 200, "watchers need no key");
    let key = ("authorization", "Bearer aria-secret");
    assert_eq!(get(&[key, ("host", "evil.example")]), 403);
    assert_eq!(get(&[key, ("host", &format!("localhost:{}", address.port()))]), 200);
    assert_eq!(get(&[key, ("origin", "https://evil.example")]), 403);
    assert_eq!(get(&[key, ("origin", &format!("http://{address}"))]), 200);
    let allowed = ask(address, "GET", "/v1/models", &[key, ("origin", "https://page.example")], "");
    assert!(
        allowed.status == 200 && allowed.head.contains("access-control-allow-origin: https://page.example"),
        "{}",
        allowed.head
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_open_answers_end_and_takes_no_new_ones() {
    let node = Scripted::new(Script::Words(&["slow "; 3]));
    let (address, stop) = open(&node, &[]).await;
    assert_eq!(post(address, CHAT, &body(json!({"stream": true}))).events().last().map(String::as_str), Some("[DONE]"));
    stop.cancel();
    wait(|| std::net::TcpStream::connect(address).is_err());
}
