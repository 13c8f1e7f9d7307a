//! Pools of servers against servers on loopback.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod kinds;
mod loopback;
mod many;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use espalier_inference::{
    Answer, Constraint, Engine, EngineError, Finish, Prompt, Request, Sampling, ServerEvent, ServerOptions, ServerPool,
};
use espalier_model::Message;
use loopback::{Loopback, Reply};
use serde_json::{Value, json};

fn options() -> ServerOptions {
    ServerOptions {
        model: Some("small".to_owned()),
        concurrency: 4,
        timeout: Duration::from_secs(5),
        attempts: 3,
        first_pause: Duration::from_millis(5),
        patience: Duration::from_millis(300),
        ..ServerOptions::default()
    }
}

fn open(urls: &str) -> Result<ServerPool, EngineError> {
    ServerPool::open(urls, &|_| None, options())
}

fn chat(text: &str) -> Request {
    Request::new(Prompt::Chat(vec![Message::new("user", text)]), 16)
}

fn chat_reply(content: &str) -> String {
    json!({"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
           "usage": {"prompt_tokens": 9}})
    .to_string()
}

/// All answers, each of which came once.
fn all(pool: ServerPool, requests: &[Request]) -> (Vec<Result<Answer, EngineError>>, Vec<ServerEvent>) {
    let engine = Engine::Servers(pool);
    let mut answers: Vec<_> = requests.iter().map(|_| None).collect();
    let mut events = Vec::new();
    let on_answer = &mut |index: usize, answer| {
        assert!(answers[index].replace(answer).is_none());
        ControlFlow::Continue(())
    };
    engine.generate_with_events(requests, on_answer, &mut |event| events.push(event.clone())).unwrap();
    (answers.into_iter().map(Option::unwrap).collect(), events)
}

fn ask(url: &str, requests: &[Request]) -> Vec<Result<Answer, EngineError>> {
    all(open(url).unwrap(), requests).0
}

#[test]
fn conversations_and_texts_go_to_their_paths() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let server = Loopback::start(move |call| {
        let body = &call.body;
        seen.lock().unwrap().push((call.path.clone(), body.clone()));
        Reply::Text(
            200,
            if call.path == "/v1/chat/completions" {
                chat_reply(&format!("re: {}", body["messages"][0]["content"].as_str().unwrap()))
            } else {
                json!({"choices": [{"text": " world", "finish_reason": "length"}]}).to_string()
            },
        )
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
fn a_server_that_does_not_count_is_estimated_and_that_is_said_once() {
    let silent = Loopback::start(|call| {
        let usage = match call.number {
            0 => json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
            1 => Value::Null,
            _ => json!({"prompt_tokens": 30, "completion_tokens": 2}),
        };
        Reply::Text(200, json!({"choices": [{"message": {"content": "A green frog."}}], "usage": usage}).to_string())
    });
    let one_by_one = ServerOptions { concurrency: 1, ..options() };
    let pool = ServerPool::open(&silent.url(), &|_| None, one_by_one).unwrap();
    let (answers, events) = all(pool, &[chat("What is it?"), chat("What is it?"), chat("What is it?")]);
    let counts: Vec<_> = answers
        .into_iter()
        .map(Result::unwrap)
        .map(|answer| (answer.prompt_tokens, answer.new_tokens(), answer.is_estimated()))
        .collect();
    assert_eq!(counts, [(3, 4, true), (3, 4, true), (30, 2, false)]);
    let words: Vec<String> = events.iter().map(ToString::to_string).filter(|words| words.contains("usage")).collect();
    let expected = "does not tell its tokens (`usage`): their counts are estimates, four bytes a token";
    assert_eq!(words, [format!("{}: {expected}", silent.url())]);
}

#[test]
fn the_form_of_an_answer_is_passed_on() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let server = Loopback::start(move |call| {
        seen.lock().unwrap().push(call.body.clone());
        Reply::Text(200, chat_reply(call.body["messages"][0]["content"].as_str().unwrap()))
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
    let server = Loopback::start(|call| {
        if call.number == 0 {
            return Reply::Text(200, chat_reply("Sure! {\"a\": 1}"));
        }
        let messages = call.body["messages"].as_array().unwrap();
        assert_eq!((messages.len(), &messages[1]["content"]), (3, &json!("Sure! {\"a\": 1}")));
        let said = messages[2]["content"].as_str().unwrap();
        assert!(said.contains("does not fit the JSON schema that was asked for: it is not JSON"), "{said}");
        Reply::Text(200, chat_reply("{\"a\": 2}"))
    });
    let answer = ask(&server.url(), &[Request { constraint: schema(), ..chat("x") }]).remove(0).unwrap();
    assert_eq!((answer.text.as_str(), server.count()), ("{\"a\": 2}", 2));

    let stubborn = Loopback::start(|_| Reply::Text(200, chat_reply("{\"b\": 1}")));
    let error = ask(&stubborn.url(), &[Request { constraint: schema(), ..chat("x") }]).remove(0).unwrap_err();
    assert!(matches!(error, EngineError::Unfit { .. }), "{error}");
    assert!(
        error.to_string().contains("(tried twice): \"a\" is a required property; it starts: {\"b\": 1}"),
        "{error}"
    );
    assert_eq!(stubborn.count(), 2);

    let cut = json!({"choices": [{"message": {"content": "{\"a\": [1, "}, "finish_reason": "length"}]}).to_string();
    let short = Loopback::start(move |_| Reply::Text(200, cut.clone()));
    let answer = ask(&short.url(), &[Request { constraint: schema(), ..chat("x") }]).remove(0).unwrap();
    assert_eq!((answer.finish, short.count()), (Finish::Length, 1));
}

#[test]
fn a_form_that_is_refused_is_said_in_fewer_words() {
    let server = Loopback::start(|call| {
        let said = call.body["messages"][0]["content"].as_str().unwrap();
        match call.body.get("response_format") {
            Some(format) if format["type"] == "json_schema" => {
                Reply::Text(400, "json_schema is not supported".to_owned())
            }
            Some(_) => Reply::Text(422, "response_format: extra field".to_owned()),
            None => {
                assert!(said.contains("Answer with JSON that fits this JSON schema: {\"type\":\"integer\"}"), "{said}");
                Reply::Text(200, chat_reply("7"))
            }
        }
    });
    let constraint = Some(Arc::new(Constraint::JsonSchema(json!({"type": "integer"}))));
    let request = |text: &str| Request { constraint: constraint.clone(), ..chat(text) };
    let pool = ServerPool::open(&server.url(), &|_| None, ServerOptions { concurrency: 1, ..options() }).unwrap();
    let (answers, _) = all(pool, &[request("a"), request("b"), request("c")]);
    assert!(answers.into_iter().all(|answer| answer.unwrap().text == "7"));
    assert_eq!(server.count(), 5, "what it refused is not tried again");

    let never = Loopback::start(|_| Reply::Text(400, "temperature must be 1".to_owned()));
    let error = ask(&never.url(), &[request("a")]).remove(0).unwrap_err();
    assert!(matches!(error, EngineError::Status { status: 400, .. }), "{error}");
    assert_eq!(never.count(), 3);
}

#[test]
fn a_passing_failure_is_tried_again() {
    let server = Loopback::start(|call| match call.number {
        0 => Reply::Text(500, "broken".to_owned()),
        1 => Reply::Header(429, "retry-after: 0", "busy".to_owned()),
        2 => Reply::Header(503, "retry-after: 0.2", "loading".to_owned()),
        _ => Reply::Text(200, chat_reply("here")),
    });
    let start = Instant::now();
    let answers = ask(&server.url(), &[chat("x")]);
    assert_eq!(answers[0].as_ref().unwrap().text, "here");
    assert_eq!(server.count(), 4);
    assert!(start.elapsed() > Duration::from_millis(200), "the pause that it asked for");
}

#[test]
fn a_request_that_fails_everywhere_is_given_up_with_its_reasons() {
    for (reply, words) in [
        (
            || Reply::Text(500, "out of memory".to_owned() + &"!".repeat(500)),
            "the server answered 500: out of memory!!!",
        ),
        (|| Reply::Text(200, "<html>hello</html>".to_owned()), "it is not JSON"),
        (|| Reply::Text(200, "{\"ok\":true}".to_owned()), "\"choices\" is missing; it starts: {\"ok\":true}"),
        (|| Reply::Bytes(b"{\"choices\": \"\xff\"}".to_vec()), "not UTF-8 from byte 13 on"),
        (|| Reply::Cut(chat_reply("half of it")), "the connection broke"),
        (|| Reply::Hangup, "the connection broke"),
    ] as [(fn() -> Reply, &str); 6]
    {
        let server = Loopback::start(move |_| reply());
        let error = ask(&server.url(), &[chat("x")]).remove(0).unwrap_err();
        assert!(matches!(error, EngineError::GivenUp { attempts: 3, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains(&server.url()) && text.contains("3 times"), "{text}");
        assert!(text.len() < 600, "{text}");
        assert_eq!(server.count(), 3);
    }
}

#[test]
fn a_refusal_is_not_tried_again() {
    let server = Loopback::start(|_| Reply::Text(400, "no such field".to_owned()));
    let error = ask(&server.url(), &[chat("x")]).remove(0).unwrap_err().to_string();
    assert!(error.contains("answered 400: no such field"), "{error}");
    assert_eq!(server.count(), 1);
}

#[test]
fn keys_are_sent_and_never_shown() {
    let server = Loopback::start(|call| {
        let sent = call.authorization.as_deref().unwrap_or("nothing");
        Reply::Text(if call.number < 1 { 400 } else { 401 }, format!("I got {sent}"))
    });
    let key = |name: &str| (name == "ESPALIER_API_KEY_1").then(|| "secret-7".to_owned());
    let pool = ServerPool::open(&server.url(), &key, ServerOptions { concurrency: 1, ..options() }).unwrap();
    assert!(!format!("{pool:?}{}", pool.identity()).contains("secret"));
    let mut refused = None;
    let gone = pool
        .generate(
            &[chat("x"), chat("y")],
            &mut |_, answer| {
                refused = Some(answer.unwrap_err().to_string());
                ControlFlow::Continue(())
            },
            &mut |event| assert!(!event.to_string().contains("secret")),
        )
        .unwrap_err();
    assert!(refused.unwrap().contains("I got Bearer (the key)"));
    assert!(matches!(gone, EngineError::ServersGone { patience: None, unanswered: 1, .. }));
    let gone = gone.to_string();
    assert!(gone.contains("401") && gone.contains("ESPALIER_API_KEY") && !gone.contains("secret"), "{gone}");
}

#[test]
fn what_is_no_server_is_refused_before_anything_is_sent() {
    let page = Loopback::bare(|_| Reply::Text(200, "<html>Welcome</html>".to_owned()));
    let error = open(&page.url()).unwrap_err();
    assert!(matches!(error, EngineError::Garbage { .. }) && error.to_string().contains("<html>"), "{error}");

    let locked = Loopback::bare(|_| Reply::Text(401, "who are you?".to_owned()));
    let error = open(&locked.url()).unwrap_err().to_string();
    assert!(error.contains("401") && error.contains("ESPALIER_API_KEY"), "{error}");

    // A port that was free a moment ago.
    let url = { format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()) };
    let start = Instant::now();
    let error = open(&url).unwrap_err();
    assert!(matches!(error, EngineError::ServersGone { patience: Some(_), .. }), "{error}");
    assert!(error.to_string().contains(&format!("{url}: connection refused")), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2), "a wrong port is said at once");

    let loading = Loopback::bare(|_| Reply::Text(503, "Loading model".to_owned()));
    let error = open(&loading.url()).unwrap_err().to_string();
    assert!(error.contains("for 0.3 s") && error.contains("503: Loading model"), "{error}");
}

#[test]
fn the_model_that_was_asked_for_must_be_there() {
    let with = |models: &'static [&'static str]| {
        Loopback::bare(move |call| match call.path.as_str() {
            "/v1/models" => {
                let data: Vec<Value> = models.iter().map(|model| json!({"id": model})).collect();
                Reply::Text(200, json!({"data": data}).to_string())
            }
            "/v1/chat/completions" => Reply::Text(200, chat_reply(call.body["model"].as_str().unwrap())),
            _ => Reply::Text(404, String::new()),
        })
    };
    let (one, two, other) = (with(&["first", "second"]), with(&["third", "/models/second.gguf"]), with(&["third"]));
    let open = |urls: &str, model: Option<&str>| {
        ServerPool::open(urls, &|_| None, ServerOptions { model: model.map(ToOwned::to_owned), ..options() })
    };
    let pool = open(&one.url(), None).unwrap();
    assert_eq!(pool.identity(), "openai-compatible:first");
    assert_eq!(all(pool, &[chat("x")]).0.remove(0).unwrap().text, "first");

    let both = format!("{},{}", one.url(), two.url());
    let pool = open(&both, None).unwrap();
    assert_eq!(pool.identity(), "openai-compatible:second", "the first that both have");
    let texts: Vec<String> = all(pool, &vec![chat("x"); 20]).0.into_iter().map(|answer| answer.unwrap().text).collect();
    assert!(texts.iter().all(|text| text == "second" || text == "/models/second.gguf"), "its own name for each");

    let error = open(&both, Some("first")).unwrap_err().to_string();
    assert_eq!(error, format!("{}: this server does not serve first; it serves third, second", two.url()));
    let error = open(&format!("{},{}", one.url(), other.url()), None).unwrap_err();
    assert!(matches!(error, EngineError::DifferentServers { what: "models", .. }));
    assert!(error.to_string().contains(&format!("{}: first, second; {}: third", one.url(), other.url())), "{error}");
}

#[test]
fn servers_of_different_kinds_are_no_pool() {
    let llama = Loopback::bare(|call| match call.path.as_str() {
        "/v1/models" => Reply::Text(200, json!({"data": [{"id": "small"}]}).to_string()),
        "/props" => Reply::Text(200, json!({"total_slots": 2}).to_string()),
        _ => Reply::Text(404, String::new()),
    });
    let other = Loopback::start(|_| Reply::Hangup);
    let error = open(&format!("{},{}", llama.url(), other.url())).unwrap_err().to_string();
    assert!(error.contains(&format!("{}: llama-server", llama.url())) && error.contains("kinds"), "{error}");
}

#[test]
fn a_break_ends_the_call() {
    let server = Loopback::start(|_| {
        std::thread::sleep(Duration::from_millis(20));
        Reply::Text(200, chat_reply("x"))
    });
    let pool = open(&server.url()).unwrap();
    let requests: Vec<Request> = (0..100).map(|i| chat(&i.to_string())).collect();
    let mut answers = 0;
    let mut on_answer = |_, _| {
        answers += 1;
        if answers == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    pool.generate(&requests, &mut on_answer, &mut |_| {}).unwrap();
    assert_eq!(answers, 2);
    assert!(server.count() < 60);
}
