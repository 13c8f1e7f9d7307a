//! The server over its protocol: what it answers, what it refuses, and what clients that misbehave do to it.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use espalier_inference::serve::{Answered, Limits, ServeOptions, Server};
use espalier_inference::{EmbeddingOptions, EngineOptions, NativeEngine, Overflow, Prompt, Request};
use espalier_kernels::Precision;
use espalier_model::LoraAdapter;
use serde_json::{Value, json};

struct Running {
    server: Server,
    engine: Arc<NativeEngine>,
    log: Arc<Mutex<Vec<Answered>>>,
}

fn options() -> ServeOptions {
    ServeOptions {
        address: "127.0.0.1:0".parse().unwrap(),
        model: "stories".to_owned(),
        other_names: vec!["stories260K.bin".to_owned()],
        adapters: Vec::new(),
        key: None,
        max_waiting: 1024,
        max_tokens: 32,
        overflow: Overflow::Refuse,
        limits: Limits::default(),
    }
}

fn start(options: ServeOptions) -> Running {
    let model = common::stories();
    let adapters: Vec<LoraAdapter> =
        (1..=options.adapters.len()).map(|seed| common::adapter(&model, 4, seed as u64)).collect();
    let named: Vec<(&str, &LoraAdapter)> = options.adapters.iter().map(String::as_str).zip(&adapters).collect();
    let engine_options = EngineOptions { max_sequences: 16, ..common::options(Precision::F32) };
    let engine = Arc::new(NativeEngine::load_with_adapters(&model, &named, &engine_options).unwrap());
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    let write = Box::new(move |line: &Answered| lines.lock().unwrap().push(line.clone()));
    Running { server: Server::start(Arc::clone(&engine), options, write).unwrap(), engine, log }
}

/// A response: status, head, body.
#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }

    /// Status, code and message of an error.
    fn error(&self) -> String {
        let error = &self.json()["error"];
        assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
        format!("{} {} {}: {}", self.status, error["code"], error["param"], error["message"].as_str().unwrap())
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream
}

/// Reads until the server closes.
fn read_all(mut stream: TcpStream) -> Said {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if head.contains("chunked") { dechunked(body) } else { body.to_owned() };
    Said { status, head: head.to_owned(), body }
}

fn dechunked(mut text: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.push_str(&rest[..size]);
        text = rest[size..].strip_prefix("\r\n").unwrap();
    }
}

fn head(method: &str, path: &str, length: usize) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
}

fn send(address: SocketAddr, bytes: &[u8]) -> Said {
    let mut stream = connect(address);
    stream.write_all(bytes).unwrap();
    read_all(stream)
}

fn get(address: SocketAddr, path: &str) -> Said {
    send(address, head("GET", path, 0).as_bytes())
}

fn post_bytes(address: SocketAddr, path: &str, body: &[u8]) -> Said {
    send(address, &[head("POST", path, body.len()).as_bytes(), body].concat())
}

fn post(address: SocketAddr, path: &str, body: &Value) -> Said {
    post_bytes(address, path, body.to_string().as_bytes())
}

fn events(said: &Said) -> Vec<Value> {
    let lines: Vec<&str> = said.body.split("\n\n").filter(|line| !line.is_empty()).collect();
    let (last, events) = lines.split_last().unwrap();
    assert_eq!(*last, "data: [DONE]");
    events.iter().map(|line| serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

fn engine_texts(engine: &NativeEngine, requests: &[Request]) -> Vec<String> {
    common::answers(engine, requests).into_iter().map(|answer| answer.unwrap().text).collect()
}

/// Waits until nothing is computed any more.
fn settle(address: SocketAddr) -> String {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let text = get(address, "/metrics").body;
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("espalier_{name} "))).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
        };
        if value("requests_waiting") == 0 && value("requests_writing") == 0 && value("connections") <= 1 {
            return text;
        }
        assert!(Instant::now() < end, "{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const CHAT: &str = "/v1/chat/completions";
const TEXTS: &str = "/v1/completions";

fn question() -> Value {
    json!([{"role": "user", "content": "Once upon a time"}])
}

fn as_request(max_tokens: usize) -> Request {
    let message = espalier_inference::Message::new("user", "Once upon a time");
    Request::new(Prompt::Chat(vec![message]), max_tokens)
}

#[test]
fn answers_are_those_of_the_engine() {
    let running = start(options());
    let address = running.server.address();
    let said = post(address, CHAT, &json!({"messages": question(), "max_tokens": 12, "temperature": 0}));
    assert_eq!(said.status, 200, "{}", said.body);
    let answer = said.json();
    let expected = engine_texts(&running.engine, &[as_request(12)]);
    assert_eq!(answer["choices"][0]["message"]["content"], expected[0]);
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("stories")));
    assert_eq!(answer["usage"]["completion_tokens"], 12);
    assert!(answer["created"].as_u64().unwrap() > 1_600_000_000);

    let body = json!({"model": "stories260K.bin", "messages": question(), "max_completion_tokens": 9, "n": 3, "seed": 7,
        "logprobs": true, "top_logprobs": 2});
    let answer = post(address, CHAT, &body).json();
    let mut request = Request { seed: 7, ..as_request(9) };
    request.sampling.temperature = 1.0;
    let expected = engine_texts(&running.engine, &request.alternatives(3).collect::<Vec<_>>());
    for (index, expected) in expected.iter().enumerate() {
        let choice = &answer["choices"][index];
        assert_eq!(choice["message"]["content"], *expected);
        let tokens = choice["logprobs"]["content"].as_array().unwrap();
        assert!(tokens.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 2));
    }

    let prompts = ["Once upon a time", "One day", "Once upon a time"];
    let answer = post(address, TEXTS, &json!({"prompt": prompts, "max_tokens": 8, "temperature": 0})).json();
    let requests = prompts.map(|prompt| common::text(prompt, 8));
    for (index, expected) in engine_texts(&running.engine, &requests).iter().enumerate() {
        assert_eq!(
            (&answer["choices"][index]["text"], answer["choices"][index]["index"].as_u64()),
            (&json!(expected), Some(index as u64))
        );
    }
    assert_eq!(answer["object"], "text_completion");

    let schema = json!({"enum": ["red", "blue"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}});
    let answer = post(address, CHAT, &json!({"messages": question(), "response_format": format})).json();
    let colour = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(["\"red\"", "\"blue\""].contains(&colour), "{colour}");
    assert!(running.server.stop(Duration::from_secs(5)));
}

#[test]
fn an_adapter_is_a_model_of_its_own() {
    let running = start(ServeOptions { adapters: vec!["poet".to_owned(), "judge".to_owned()], ..options() });
    let address = running.server.address();
    let names: Vec<Value> =
        get(address, "/v1/models").json()["data"].as_array().unwrap().iter().map(|entry| entry["id"].clone()).collect();
    assert_eq!(names, ["stories", "poet", "judge"]);
    assert_eq!(get(address, "/v1/models/poet").json()["parent"], "stories");
    let models = [None, Some("stories"), Some("poet"), Some("judge")];
    let adapters = [None, None, Some("poet"), Some("judge")];
    let requests =
        adapters.map(|adapter| Request { adapter: adapter.map(str::to_owned), ..common::text("One day", 16) });
    let expected = engine_texts(&running.engine, &requests);
    assert!(expected[0] != expected[2] && expected[2] != expected[3], "{expected:?}");
    std::thread::scope(|scope| {
        for (model, expected) in models.iter().zip(&expected) {
            scope.spawn(move || {
                let body = json!({"model": model, "prompt": "One day", "max_tokens": 16, "temperature": 0});
                let answer = post(address, TEXTS, &body).json();
                assert_eq!(answer["choices"][0]["text"], **expected);
                assert_eq!(answer["model"], model.unwrap_or("stories"));
            });
        }
    });
    let unknown = post(address, TEXTS, &json!({"model": "cook", "prompt": "One day"})).error();
    let words = "model \"cook\" is not served here; there is \"stories\", \"poet\", \"judge\"";
    assert_eq!(unknown, format!("404 \"model_not_found\" \"model\": {words}"));
}

#[test]
fn a_stream_has_the_same_text_and_ends_with_its_usage() {
    let running = start(options());
    let address = running.server.address();
    let body = json!({"messages": question(), "max_tokens": 20, "seed": 3, "n": 2, "stop": ["."]});
    let whole = post(address, CHAT, &body).json();
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    streamed["logprobs"] = true.into();
    let said = post(address, CHAT, &streamed);
    assert!(said.head.contains("text/event-stream"), "{}", said.head);
    let events = events(&said);
    for index in 0..2 {
        let mine: Vec<&Value> = events
            .iter()
            .filter_map(|event| event["choices"].get(0))
            .filter(|choice| choice["index"] == index)
            .collect();
        assert_eq!(mine[0]["delta"]["role"], "assistant");
        let text: String = mine.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(whole["choices"][index]["message"]["content"], text);
        assert_eq!(mine.last().unwrap()["finish_reason"], whole["choices"][index]["finish_reason"]);
        assert!(mine.iter().any(|choice| choice["logprobs"]["content"][0]["logprob"].is_number()));
    }
    let last = events.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
    assert!(events[0]["usage"].is_null());

    let body = json!({"prompt": "Once", "max_tokens": 9, "temperature": 0, "echo": true});
    let whole = post(address, TEXTS, &body).json();
    let mut streamed = body;
    streamed["stream"] = true.into();
    let text: String = self::events(&post(address, TEXTS, &streamed))
        .iter()
        .map(|event| event["choices"][0]["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(whole["choices"][0]["text"], text);
    assert!(text.starts_with("Once"));

    // A client of the older protocol reads to the end of the connection.
    let body = json!({"prompt": "Once", "max_tokens": 9, "temperature": 0, "stream": true}).to_string();
    let said =
        send(address, format!("POST {TEXTS} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    assert!(said.status == 200 && !said.head.contains("chunked") && said.body.ends_with("data: [DONE]\n\n"));
}

#[test]
fn a_prompt_is_scored_as_the_engine_scores_it() {
    let running = start(options());
    let address = running.server.address();
    let tokens =
        running.engine.prompt_tokens(&Prompt::Text("Once upon a time, there was a little girl".to_owned())).unwrap();
    let expected = running.engine.token_logprobs(&tokens);
    for prompt in [json!([tokens, tokens]), json!(["Once upon a time, there was a little girl"])] {
        let body =
            json!({"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": true, "seed": 1234});
        let answer = post(address, TEXTS, &body).json();
        for choice in answer["choices"].as_array().unwrap() {
            let columns = &choice["logprobs"];
            let column = |name: &str| columns[name].as_array().unwrap().clone();
            let logprobs = column("token_logprobs");
            assert_eq!(logprobs.len(), tokens.len() + 1, "the prompt and one token");
            assert!(logprobs[0].is_null());
            for (found, expected) in logprobs[1..].iter().zip(&expected) {
                assert!((found.as_f64().unwrap() - f64::from(*expected)).abs() < 1e-5, "{found} {expected}");
            }
            let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
            for ((name, offset), top) in
                column("tokens").iter().zip(column("text_offset")).zip(column("top_logprobs")).skip(2)
            {
                let name: Vec<char> = name.as_str().unwrap().chars().collect();
                let offset = offset.as_u64().unwrap() as usize;
                assert_eq!(text[offset..offset + name.len()], name);
                assert!(top.as_object().unwrap().contains_key(&name.iter().collect::<String>()));
            }
        }
    }
    // Harnesses drop one entry at the end: also an answer that ends at once has it.
    let eos = running.engine.tokenizer().eos().unwrap();
    let body =
        json!({"prompt": [tokens], "max_tokens": 1, "logprobs": 1, "echo": true, "logit_bias": {eos.to_string(): 100}});
    let choice = post(address, TEXTS, &body).json()["choices"][0].clone();
    assert_eq!(
        (choice["finish_reason"].as_str(), choice["logprobs"]["tokens"].as_array().unwrap().len()),
        (Some("stop"), tokens.len() + 1)
    );
    assert_eq!(choice["logprobs"]["token_logprobs"].as_array().unwrap().len(), tokens.len() + 1);

    let body = json!({"prompt": "Once upon a time", "max_tokens": 0, "logprobs": 0, "echo": true});
    let answer = post(address, TEXTS, &body).json();
    assert_eq!(answer["choices"][0]["text"], "Once upon a time");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

#[test]
fn vectors_are_those_of_the_engine() {
    let running = start(ServeOptions { adapters: vec!["poet".to_owned()], ..options() });
    let address = running.server.address();
    let texts = ["Once upon a time", "The dog", "Once upon a time"];
    let tokens: Vec<Vec<u32>> =
        texts.iter().map(|text| running.engine.prompt_tokens(&Prompt::Text((*text).to_owned())).unwrap()).collect();
    let mut expected = vec![Vec::new(); texts.len()];
    running
        .engine
        .embed(&tokens, EmbeddingOptions::default(), &mut |index, vector| {
            expected[index] = vector.unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    let said = post(address, "/v1/embeddings", &json!({"input": texts, "model": "stories"})).json();
    assert_eq!((&said["object"], &said["model"]), (&json!("list"), &json!("stories")));
    assert_eq!(said["usage"]["prompt_tokens"].as_u64().unwrap() as usize, tokens.iter().map(Vec::len).sum::<usize>());
    for (index, expected) in expected.iter().enumerate() {
        assert_eq!(said["data"][index]["embedding"], json!(expected));
    }
    let packed = post(address, "/v1/embeddings", &json!({"input": tokens[0], "encoding_format": "base64"})).json();
    assert_eq!(packed["data"][0]["embedding"].as_str().unwrap().len(), (expected[0].len() * 4).div_ceil(3) * 4);
    let words = [
        post(address, "/v1/embeddings", &json!({"input": "a", "model": "poet"})).error(),
        post(address, "/v1/embeddings", &json!({"input": "a", "dimensions": 5})).error(),
        post(address, "/v1/embeddings", &json!({"input": "Once upon a time ".repeat(600)})).error(),
        post(address, "/v1/embeddings", &json!({"input": [[99999]]})).error(),
    ];
    insta::assert_snapshot!(words.join("\n"));
}

#[test]
fn refusals_say_what_is_wrong() {
    let limits = Limits { body_bytes: 20_000, ..Limits::default() };
    let running = start(ServeOptions { limits, max_waiting: 8, ..options() });
    let address = running.server.address();
    let chat = |extra: Value| {
        let mut body = json!({"messages": question(), "max_tokens": 4});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        post(address, CHAT, &body).error()
    };
    let long = "Once upon a time ".repeat(600);
    let words = [
        post_bytes(address, CHAT, b"{\"messages\": [").error(),
        post_bytes(address, CHAT, b"[]").error(),
        post_bytes(address, CHAT, b"").error(),
        post_bytes(address, CHAT, b"{\"messages\": \"\xff\xfe\"}").error(),
        post_bytes(address, CHAT, &b"[".repeat(10_000)).error(),
        post(address, CHAT, &json!({})).error(),
        chat(json!({"tempurature": 1})),
        chat(json!({"tools": []})),
        chat(json!({"model": "gpt-9"})),
        chat(json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "thing"}}}})),
        chat(json!({"messages": [{"role": "user", "content": long}]})),
        chat(json!({"logit_bias": {"99999": 5}})),
        post(address, TEXTS, &json!({"prompt": vec!["a"; 9]})).error(),
        post(address, TEXTS, &json!({"prompt": [[99999]], "max_tokens": 1})).error(),
        post(address, TEXTS, &json!({"prompt": "a", "echo": true, "logprobs": 1, "stream": true})).error(),
        post_bytes(address, CHAT, &vec![b'a'; 20_001]).error(),
        get(address, CHAT).error(),
        post(address, "/v1/models", &json!({})).error(),
        get(address, "/v1/nothing").error(),
        get(address, "/v1/models/nothing").error(),
        send(address, b"NONSENSE\r\n\r\n").error(),
        send(address, b"GET / HTTP/1.1\r\nOrigin: https://example.org\r\nConnection: close\r\n\r\n").error(),
    ];
    insta::assert_snapshot!(words.join("\n"));
    assert_eq!(get(address, "/health").json(), json!({"status": "ok"}));
    assert_eq!(get(address, "/v1/models").json()["data"][0]["id"], "stories");
    assert_eq!(get(address, "/v1/models/stories").json()["context_length"], running.engine.context());
    let log = running.log.lock().unwrap();
    assert!(log.iter().any(|line| (line.status, line.path.as_str()) == (404, "/v1/nothing")));
}

#[test]
fn only_the_key_opens() {
    let running = start(ServeOptions { key: Some("secret".to_owned()), ..options() });
    let address = running.server.address();
    let with = |path: &str, line: &str| {
        send(address, format!("GET {path} HTTP/1.1\r\n{line}Connection: close\r\n\r\n").as_bytes())
    };
    assert_eq!(with("/v1/models", "Authorization: Bearer secret\r\n").status, 200);
    assert_eq!(with("/health", "").status, 200);
    for line in ["", "Authorization: Bearer other\r\n"] {
        for path in ["/v1/models", "/metrics", "/v1/nothing", "/v1/chat/completions"] {
            let said = with(path, line);
            assert!(said.error().starts_with("401 \"invalid_api_key\""), "{}", said.body);
            assert!(said.head.contains("WWW-Authenticate: Bearer"));
        }
    }
}

#[test]
fn a_full_queue_says_so() {
    let running = start(ServeOptions { max_waiting: 1, ..options() });
    let address = running.server.address();
    let body = json!({"prompt": "Once", "max_tokens": 200, "temperature": 0, "stop_token_ids": [], "logit_bias": {"1": -100, "2": -100}});
    let said: Vec<Said> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..60).map(|_| scope.spawn(|| post(address, TEXTS, &body))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (good, busy): (Vec<&Said>, Vec<&Said>) = said.iter().partition(|said| said.status == 200);
    assert!(!good.is_empty() && !busy.is_empty(), "{} good, {} busy", good.len(), busy.len());
    for said in busy {
        assert!(said.error().starts_with("429 \"rate_limit_exceeded\""), "{}", said.body);
        assert!(said.head.contains("Retry-After: 1"));
    }
    assert!(good.iter().all(|said| said.json()["choices"][0]["text"] == good[0].json()["choices"][0]["text"]));
}

/// A body in chunks, and several requests on one connection, sent before the first is answered.
#[test]
fn a_connection_serves_one_request_after_another() {
    let running = start(options());
    let body = json!({"prompt": "Once", "max_tokens": 4, "temperature": 0}).to_string();
    let (first, second) = body.split_at(9);
    let chunked = format!(
        "POST {TEXTS} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x};a=b\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\nA: b\r\n\r\n",
        first.len(),
        second.len()
    );
    let plain = format!("POST {TEXTS} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = connect(running.server.address());
    stream.write_all(format!("{chunked}{plain}GET /health HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
    assert_eq!(text.matches("text_completion").count(), 2, "{text}");
}

#[test]
fn a_client_that_leaves_cancels_its_request() {
    let running = start(options());
    let address = running.server.address();
    for stream in [true, false] {
        let body = json!({"prompt": "Once", "max_tokens": 100_000, "stream": stream, "n": 20,
            "logit_bias": {"1": -100, "2": -100}})
        .to_string();
        let mut client = connect(address);
        client.write_all(format!("{}{body}", head("POST", TEXTS, body.len())).as_bytes()).unwrap();
        if stream {
            client.read_exact(&mut [0; 100]).unwrap();
        }
        drop(client);
    }
    settle(address);
    let log = running.log.lock().unwrap();
    assert_eq!(log.iter().filter(|line| line.status == 499).count(), 2, "{log:?}");
}

#[test]
fn a_stop_lets_answers_end_within_its_grace() {
    let running = start(options());
    let address = running.server.address();
    let idle = connect(address);
    let body = json!({"prompt": "Once", "max_tokens": 60, "temperature": 0}).to_string();
    let mut client = connect(address);
    client.write_all(format!("{}{body}", head("POST", TEXTS, body.len())).as_bytes()).unwrap();
    // Until it is taken, or answered already.
    let taken = |text: &str| text.contains(TEXTS) || !text.contains("waiting 0") || !text.contains("writing 0");
    while !taken(&get(address, "/metrics").body) {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(running.server.stop(Duration::from_secs(20)));
    assert_eq!(read_all(client).status, 200);
    drop(idle);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

/// Two hundred clients at once: good ones, slow ones, and all kinds of bad ones.
#[test]
fn good_requests_are_served_whatever_others_do() {
    let limits = Limits { head: Duration::from_millis(700), body: Duration::from_millis(700), ..Limits::default() };
    let running = start(ServeOptions { limits, ..options() });
    let address = running.server.address();
    let prompts: Vec<String> = (0..50).map(|index| format!("Once upon a time {index}")).collect();
    let requests: Vec<Request> = prompts.iter().map(|prompt| common::text(prompt, 12)).collect();
    let expected = engine_texts(&running.engine, &requests);
    std::thread::scope(|scope| {
        for index in 0..200 {
            let (prompt, expected) = (&prompts[index % 50], &expected[index % 50]);
            let body = json!({"prompt": prompt, "max_tokens": 12, "temperature": 0});
            scope.spawn(move || match index / 50 {
                0 => assert_eq!(post(address, TEXTS, &body).json()["choices"][0]["text"], **expected),
                1 => slow_reader(address, body, expected),
                _ => misbehave(address, index, &body.to_string()),
            });
        }
    });
    let metrics = settle(address);
    assert!(!metrics.contains("status=\"500\""), "{metrics}");
    assert!(peak_bytes() < 1 << 30, "{} bytes", peak_bytes());
    let again = post(address, TEXTS, &json!({"prompt": prompts[0], "max_tokens": 12, "temperature": 0}));
    assert_eq!(again.json()["choices"][0]["text"], expected[0]);
    assert!(running.server.stop(Duration::from_secs(10)));
}

/// What clients do not take piles up nowhere: their requests end, and the process stays as small as its limits say.
#[test]
fn clients_that_stop_reading_are_given_up() {
    let limits = Limits { write: Duration::from_millis(500), ..Limits::default() };
    let running = start(ServeOptions { limits, ..options() });
    let address = running.server.address();
    // Each event lists twenty alternatives: together far more than the buffers of a socket hold.
    let body =
        json!({"prompt": "Once", "max_tokens": 100_000, "stream": true, "n": 40, "temperature": 1, "logprobs": 5,
        "logit_bias": {"1": -100, "2": -100}})
        .to_string();
    let clients: Vec<TcpStream> = (0..6)
        .map(|_| {
            let mut client = connect(address);
            client.write_all(format!("{}{body}", head("POST", TEXTS, body.len())).as_bytes()).unwrap();
            client
        })
        .collect();
    let again = post(address, TEXTS, &json!({"prompt": "Once", "max_tokens": 12, "temperature": 0}));
    assert_eq!(again.status, 200, "others are served meanwhile");
    settle(address);
    let given_up = running.log.lock().unwrap().iter().filter(|line| line.status == 499).count();
    assert!(given_up > 0, "the sockets took all of it: the test is too small");
    drop(clients);
    assert!(peak_bytes() < 1 << 30, "{} bytes", peak_bytes());
}

/// The most memory that this process held so far.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Reads a stream a few bytes at a time.
fn slow_reader(address: SocketAddr, mut body: Value, expected: &str) {
    body["stream"] = true.into();
    let body = body.to_string();
    let mut stream = connect(address);
    stream.write_all(format!("{}{body}", head("POST", TEXTS, body.len())).as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut piece = [0; 97];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..read]);
        std::thread::sleep(Duration::from_millis(5));
    }
    let text = String::from_utf8(bytes).unwrap();
    let (_, chunks) = text.split_once("\r\n\r\n").unwrap();
    let events = events(&Said { status: 200, head: String::new(), body: dechunked(chunks) });
    let text: String = events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(text, expected);
}

fn misbehave(address: SocketAddr, index: usize, body: &str) {
    let whole = format!("{}{body}", head("POST", TEXTS, body.len()));
    let status = |bytes: &[u8]| send(address, bytes).status;
    match index % 10 {
        // A head, or a body, that never ends.
        0 => assert_eq!(status(&whole.as_bytes()[..30]), 408),
        1 => assert_eq!(status(&whole.as_bytes()[..whole.len() - 5]), 408),
        2 => {
            // Gone at once.
            let mut stream = connect(address);
            stream.write_all(whole.as_bytes()).unwrap();
        }
        3 => {
            // Half a body, then the end of it.
            let mut stream = connect(address);
            stream.write_all(&whole.as_bytes()[..whole.len() - 5]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(stream).status, 400);
        }
        4 => assert_eq!(post_bytes(address, TEXTS, b"{\"prompt\": \"\xc3\x28\"}").status, 400),
        5 => assert_eq!(post_bytes(address, TEXTS, &body.as_bytes()[1..]).status, 400),
        6 => assert_eq!(status(&[0; 4000]), 400),
        7 => assert_eq!(post(address, TEXTS, &json!({"prompt": "Once upon a time ".repeat(3000)})).status, 400),
        8 => assert_eq!(status(format!("POST / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(40_000)).as_bytes()), 431),
        _ => {
            // A whole body that is announced as larger than it may be is not waited for.
            let text = format!("POST {TEXTS} HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n{body}");
            assert_eq!(status(text.as_bytes()), 413);
        }
    }
}
