//! The client against a server on loopback.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use espalier_inference::{
    Answer, Constraint, Engine, EngineError, Finish, Prompt, Request, Sampling, ServerEngine, ServerOptions,
};
use espalier_model::Message;
use serde_json::{Value, json};

/// A server that answers its n-th request with `reply(n, path, body)`.
struct Loopback {
    server: Arc<tiny_http::Server>,
    thread: Option<JoinHandle<()>>,
    requests: Arc<AtomicUsize>,
}

impl Loopback {
    fn start(reply: impl Fn(usize, &str, &Value) -> (u16, String) + Send + 'static) -> Self {
        let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let (serving, counter) = (Arc::clone(&server), Arc::clone(&requests));
        let thread = std::thread::spawn(move || {
            for mut request in serving.incoming_requests() {
                let mut body = String::new();
                request.as_reader().read_to_string(&mut body).unwrap();
                let body = serde_json::from_str(&body).unwrap_or(Value::Null);
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let (status, text) = reply(number, request.url(), &body);
                let _ = request.respond(tiny_http::Response::from_string(text).with_status_code(status));
            }
        });
        Self { server, thread: Some(thread), requests }
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.server_addr())
    }

    fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn options() -> ServerOptions {
    ServerOptions {
        model: Some("small".to_owned()),
        concurrency: 3,
        timeout: Duration::from_secs(5),
        attempts: 3,
        first_pause: Duration::from_millis(5),
    }
}

fn chat(text: &str) -> Request {
    Request::new(Prompt::Chat(vec![Message::new("user", text)]), 16)
}

fn chat_reply(content: &str) -> String {
    json!({"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
           "usage": {"prompt_tokens": 9}})
    .to_string()
}

fn ask(url: &str, requests: &[Request]) -> Vec<Result<Answer, EngineError>> {
    let engine = Engine::Server(ServerEngine::new(url, options()).unwrap());
    let mut answers: Vec<_> = requests.iter().map(|_| None).collect();
    engine
        .generate(requests, &mut |index, answer| {
            assert!(answers[index].replace(answer).is_none());
            ControlFlow::Continue(())
        })
        .unwrap();
    answers.into_iter().map(Option::unwrap).collect()
}

#[test]
fn conversations_and_texts_go_to_their_paths() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let server = Loopback::start(move |_, path, body| {
        seen.lock().unwrap().push((path.to_owned(), body.clone()));
        if path == "/v1/chat/completions" {
            (200, chat_reply(&format!("re: {}", body["messages"][0]["content"].as_str().unwrap())))
        } else {
            (200, json!({"choices": [{"text": " world", "finish_reason": "length"}]}).to_string())
        }
    });
    let text = Request {
        sampling: Sampling {
            temperature: 0.5,
            top_k: 4,
            top_p: 0.9,
            min_p: 0.1,
            repetition_penalty: 1.5,
            frequency_penalty: 0.25,
            presence_penalty: -0.5,
            logit_bias: vec![(11, -100.0)],
        },
        seed: 3,
        stop: vec!["\n".to_owned()],
        stop_tokens: vec![2, 5],
        ..Request::new(Prompt::Text("hello".to_owned()), 7)
    };
    let requests: Vec<Request> = (0..10).map(|i| chat(&i.to_string())).chain([text]).collect();
    let answers = ask(&server.url(), &requests);
    for (index, answer) in answers[..10].iter().enumerate() {
        let answer = answer.as_ref().unwrap();
        assert_eq!((answer.text.as_str(), answer.prompt_tokens), (format!("re: {index}").as_str(), 9));
    }
    let answer = answers[10].as_ref().unwrap();
    assert_eq!((answer.text.as_str(), answer.finish), (" world", Finish::Length));
    let bodies = bodies.lock().unwrap();
    let (_, body) = bodies.iter().find(|(path, _)| path == "/v1/completions").unwrap();
    assert_eq!(
        *body,
        json!({"model": "small", "prompt": "hello", "max_tokens": 7, "temperature": 0.5, "seed": 3, "top_p": 0.9_f32,
               "top_k": 4, "min_p": 0.1_f32, "repeat_penalty": 1.5, "repetition_penalty": 1.5, "stop": ["\n"],
               "frequency_penalty": 0.25, "presence_penalty": -0.5, "logit_bias": {"11": -100.0}, "stop_token_ids": [2, 5]})
    );
}

#[test]
fn the_form_of_an_answer_is_passed_on() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let server = Loopback::start(move |_, _, body| {
        seen.lock().unwrap().push(body.clone());
        let text = body["messages"][0]["content"].as_str().unwrap();
        (200, chat_reply(text))
    });
    let schema = json!({"type": "object", "required": ["a"]});
    let with = |text: &str, constraint| Request { constraint: Some(Arc::new(constraint)), ..chat(text) };
    let requests = [
        with("```json\n{\"a\": 1}\n```", Constraint::JsonSchema(schema.clone())),
        with("{}", Constraint::JsonObject),
        with("b2", Constraint::Regex("b[0-9]".to_owned())),
        with("yes\n", Constraint::Choice(vec!["no".to_owned(), "yes".to_owned()])),
        with("x", Constraint::Regex("(".to_owned())),
    ];
    let mut answers = ask(&server.url(), &requests);
    let error = answers.pop().unwrap().unwrap_err();
    assert!(matches!(error, EngineError::Constraint { kind: "regular expression", .. }), "{error}");
    let texts: Vec<String> = answers.into_iter().map(|answer| answer.unwrap().text).collect();
    assert_eq!(texts, ["{\"a\": 1}", "{}", "b2", "yes"]);
    let bodies = bodies.lock().unwrap();
    assert_eq!(bodies.len(), 4);
    let field = |text: &str, name: &str| -> Value {
        bodies.iter().find(|body| body["messages"][0]["content"].as_str().unwrap().starts_with(text)).unwrap()[name]
            .clone()
    };
    let json_schema = json!({"name": "answer", "strict": true, "schema": schema});
    assert_eq!(field("```", "response_format"), json!({"type": "json_schema", "json_schema": json_schema}));
    assert_eq!(field("{}", "response_format"), json!({"type": "json_object"}));
    assert_eq!(field("b2", "structured_outputs"), json!({"regex": "b[0-9]"}));
    assert_eq!(field("yes", "guided_choice"), json!(["no", "yes"]));
    assert_eq!(field("yes", "grammar"), "root ::= \"no\" | \"yes\"");
}

#[test]
fn an_answer_without_its_form_is_asked_for_once_more() {
    let schema = || Some(Arc::new(Constraint::JsonSchema(json!({"type": "object", "required": ["a"]}))));
    let server = Loopback::start(|number, _, body| {
        if number == 0 {
            return (200, chat_reply("Sure! {\"a\": 1}"));
        }
        let messages = body["messages"].as_array().unwrap();
        assert_eq!((messages.len(), &messages[1]["content"]), (3, &json!("Sure! {\"a\": 1}")));
        let said = messages[2]["content"].as_str().unwrap();
        assert!(said.contains("does not fit the JSON schema that was asked for: it is not JSON"), "{said}");
        (200, chat_reply("{\"a\": 2}"))
    });
    let answer = ask(&server.url(), &[Request { constraint: schema(), ..chat("x") }]).remove(0).unwrap();
    assert_eq!((answer.text.as_str(), server.count()), ("{\"a\": 2}", 2));

    let stubborn = Loopback::start(|_, _, _| (200, chat_reply("{\"b\": 1}")));
    let error = ask(&stubborn.url(), &[Request { constraint: schema(), ..chat("x") }]).remove(0).unwrap_err();
    assert!(matches!(error, EngineError::Unfit { .. }), "{error}");
    assert!(
        error.to_string().contains("(tried twice): \"a\" is a required property; it starts: {\"b\": 1}"),
        "{error}"
    );
    assert_eq!(stubborn.count(), 2);

    let cut = json!({"choices": [{"message": {"content": "{\"a\": [1, "}, "finish_reason": "length"}]}).to_string();
    let short = Loopback::start(move |_, _, _| (200, cut.clone()));
    let answer = ask(&short.url(), &[Request { constraint: schema(), ..chat("x") }]).remove(0).unwrap();
    assert_eq!((answer.finish, short.count()), (Finish::Length, 1));
}

#[test]
fn a_passing_failure_is_tried_again() {
    let server = Loopback::start(|number, _, _| match number {
        0 => (500, "loading".to_owned()),
        1 => (429, "busy".to_owned()),
        _ => (200, chat_reply("here")),
    });
    let answers = ask(&server.url(), &[chat("x")]);
    assert_eq!(answers[0].as_ref().unwrap().text, "here");
    assert_eq!(server.count(), 3);
}

#[test]
fn a_lasting_failure_is_reported_with_its_body() {
    let server = Loopback::start(|_, _, _| (500, "out of memory".to_owned() + &"!".repeat(500)));
    let error = ask(&server.url(), &[chat("x")]).remove(0).unwrap_err().to_string();
    assert!(error.contains("answered 500 (tried 3 times): out of memory!!!"), "{error}");
    assert!(error.len() < 400, "{error}");
    assert_eq!(server.count(), 3);
}

#[test]
fn a_refusal_is_not_tried_again() {
    let server = Loopback::start(|_, _, _| (401, "no key".to_owned()));
    let error = ask(&server.url(), &[chat("x")]).remove(0).unwrap_err().to_string();
    assert!(error.contains("401") && error.contains("ESPALIER_API_KEY"), "{error}");
    assert_eq!(server.count(), 1);
}

#[test]
fn garbage_is_named() {
    for (text, missing) in [("<html>hello</html>", "not JSON"), ("{\"ok\":true}", "\"choices\" is missing")] {
        let server = Loopback::start(move |_, _, _| (200, text.to_owned()));
        let error = ask(&server.url(), &[chat("x")]).remove(0).unwrap_err();
        assert!(matches!(error, EngineError::Garbage { .. }));
        assert!(error.to_string().contains(missing) && error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_refused_connection_says_where() {
    // A port that was free a moment ago.
    let url = { format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()) };
    let error = ask(&url, &[chat("x")]).remove(0).unwrap_err();
    assert!(matches!(error, EngineError::Connection { attempts: 3, .. }), "{error}");
    assert!(error.to_string().contains(&url), "{error}");
}

#[test]
fn a_silent_server_times_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let options = ServerOptions { timeout: Duration::from_millis(200), attempts: 1, ..options() };
    let engine = ServerEngine::new(&url, options).unwrap();
    let start = Instant::now();
    let mut failed = false;
    engine
        .generate(&[chat("x")], &mut |_, answer| {
            failed = matches!(answer, Err(EngineError::Connection { .. }));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(failed && start.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_break_ends_the_call() {
    let server = Loopback::start(|_, _, _| (200, chat_reply("x")));
    let engine = ServerEngine::new(&server.url(), options()).unwrap();
    let requests: Vec<Request> = (0..100).map(|i| chat(&i.to_string())).collect();
    let mut answers = 0;
    engine
        .generate(&requests, &mut |_, _| {
            answers += 1;
            if answers == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(answers, 2);
    assert!(server.count() < 20);
}

#[test]
fn the_first_listed_model_is_used() {
    let server = Loopback::start(|_, path, body| match path {
        "/v1/models" => (200, json!({"data": [{"id": "first"}, {"id": "second"}]}).to_string()),
        _ => (200, chat_reply(body["model"].as_str().unwrap())),
    });
    let engine = ServerEngine::new(&server.url(), ServerOptions { model: None, ..options() }).unwrap();
    engine
        .generate(&[chat("x")], &mut |_, answer| {
            assert_eq!(answer.unwrap().text, "first");
            ControlFlow::Continue(())
        })
        .unwrap();
}
