//! Each kind of server by its exchanges: recorded ones, or ones written from its documentation (`origin` in each file says
//! which). A request is answered only when its body is the one of the file: what a kind is sent, and what is read from its
//! answers, is held to them.

use std::fmt::Write as _;
use std::path::Path;

use espalier_inference::ServerKind;

use super::*;

/// A server that knows the exchanges of one file; what it does not know it notes.
fn replay(kind: ServerKind) -> (Loopback, Arc<Mutex<Vec<String>>>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/exchanges/{}.json", kind.name()));
    let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(["recorded from", "written from"].iter().any(|how| file["origin"].as_str().unwrap().starts_with(how)));
    let exchanges = file["exchanges"].as_array().unwrap().clone();
    let unknown = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&unknown);
    let server = Loopback::bare(move |call| {
        let known = exchanges.iter().find(|exchange| {
            exchange["method"] == call.method.as_str()
                && exchange["path"] == call.path.as_str()
                && exchange.get("request").unwrap_or(&Value::Null) == &call.body
        });
        let Some(exchange) = known else {
            noted.lock().unwrap().push(format!("{} {} {}", call.method, call.path, call.body));
            return Reply::Text(404, "not in the file".to_owned());
        };
        let text = match &exchange["response"] {
            Value::String(text) => text.clone(),
            response => response.to_string(),
        };
        Reply::Text(exchange["status"].as_u64().unwrap() as u16, text)
    });
    (server, unknown)
}

/// One request for each thing in which kinds differ.
fn requests() -> Vec<(&'static str, Request)> {
    let of = |text: &str, constraint| Request { max_tokens: 24, constraint: Some(Arc::new(constraint)), ..chat(text) };
    let colour = json!({"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"],
        "additionalProperties": false});
    let sampling = Sampling { temperature: 0.5, top_k: 4, min_p: 0.125, repetition_penalty: 1.5, ..Sampling::GREEDY };
    let sampled = Request { max_tokens: 8, seed: 3, stop: vec!["\n\n".to_owned()], sampling, ..chat("Name a colour.") };
    vec![
        ("sampled", sampled),
        ("schema", of("A colour in JSON.", Constraint::JsonSchema(colour))),
        ("object", of("Any JSON object.", Constraint::JsonObject)),
        ("choice", of("Red or blue?", Constraint::Choice(vec!["red".to_owned(), "blue".to_owned()]))),
        ("logprobs", Request { max_tokens: 3, top_logprobs: 2, ..chat("Say yes.") }),
        ("tokens", Request::new(Prompt::Tokens(vec![504, 2365, 282]), 3)),
        ("text", Request::new(Prompt::Text("Once upon a time".to_owned()), 3)),
    ]
}

fn told(answer: &Result<Answer, EngineError>, url: &str) -> String {
    match answer {
        Err(error) => error.to_string().replace(url, "http://server"),
        Ok(answer) => {
            let about = if answer.is_estimated() { "about " } else { "" };
            let (read, written) = (answer.prompt_tokens, answer.new_tokens());
            let mut text = format!("{:?} {:?}, {about}{read} + {written} tokens", answer.text, answer.finish);
            for logprob in &answer.logprobs {
                write!(text, ", {} {:.3} {:.3?}", logprob.token, logprob.logprob, logprob.top).unwrap();
            }
            text
        }
    }
}

fn replayed(kind: ServerKind) -> String {
    let (server, unknown) = replay(kind);
    let path = if kind == ServerKind::ModelRunner { "/" } else { "/v1" };
    let pool =
        ServerPool::open(&format!("{}{path}", server.url()), &|_| None, ServerOptions { model: None, ..options() })
            .unwrap();
    let mut words = format!("{}\n", pool.identity());
    let (names, requests): (Vec<_>, Vec<_>) = requests().into_iter().unzip();
    let (answers, events) = all(pool, &requests);
    for event in events.iter().filter(|event| !event.to_string().contains("tokens/s")) {
        writeln!(words, "{}", event.to_string().replace(&server.url(), "http://server")).unwrap();
    }
    for (name, answer) in names.iter().zip(&answers) {
        writeln!(words, "{name}: {}", told(answer, &server.url())).unwrap();
    }
    assert_eq!(*unknown.lock().unwrap(), Vec::<String>::new(), "{words}");
    words
}

#[test]
fn each_kind_is_known_by_its_exchanges_and_asked_in_its_words() {
    let kinds =
        [ServerKind::LlamaServer, ServerKind::Vllm, ServerKind::Ollama, ServerKind::LmStudio, ServerKind::ModelRunner];
    insta::assert_snapshot!(kinds.map(replayed).join("\n"));
}

#[test]
fn a_recorded_refusal_of_a_long_prompt_is_known_as_one() {
    let (server, _) = replay(ServerKind::LlamaServer);
    let pool = ServerPool::open(
        &server.url(),
        &|_| None,
        ServerOptions { model: Some("SmolLM2-135M-Instruct.Q4_1".to_owned()), ..options() },
    )
    .unwrap();
    let request = Request { max_tokens: 3, ..chat(&"word ".repeat(300)) };
    let error = all(pool, &[request]).0.remove(0).unwrap_err();
    assert!(error.is_prompt_too_long(), "{error}");
}
