//! `pipeline batch`: what it writes, what it refuses, and that a stop loses and doubles nothing.

mod binary;

use binary::Bench;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

const TINY: &str = "tests/assets/model/stories260K.bin";

/// A line that asks for the continuation of a story.
fn line(custom_id: &str, mut body: Value) -> String {
    body["messages"] = json!([{"role": "user", "content": format!("Once upon a time {custom_id}")}]);
    format!("{}\n", json!({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}))
}

fn arguments<'a>(input: &'a str, output: &'a str) -> Vec<&'a str> {
    vec!["batch", "--model", TINY, "--input", input, "--output", output]
}

/// The lines of a file of answers by their `custom_id`.
fn answers(bench: &Bench, name: &str) -> BTreeMap<String, Value> {
    let text = fs::read_to_string(bench.path(name)).expect("answers");
    let mut answers = BTreeMap::new();
    for line in text.lines() {
        let answer: Value = serde_json::from_str(line).expect("JSON");
        let custom_id = answer["custom_id"].as_str().expect("an id").to_owned();
        assert!(answers.insert(custom_id, answer).is_none(), "one line a request");
    }
    answers
}

#[test]
fn answers_have_what_was_asked_for() {
    let bench = Bench::new();
    let schema = json!({"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"],
        "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}});
    let input = bench.write(
        "in.jsonl",
        [
            line("form", json!({"response_format": format, "n": 3, "seed": 7})),
            line("logprobs", json!({"max_tokens": 5, "temperature": 0, "logprobs": true, "top_logprobs": 2})),
            line("plain", json!({"max_tokens": 6})),
            line("long", json!({"max_tokens": 6, "stop": " ".repeat(3)})).replace("Once", &"Once ".repeat(600)),
        ]
        .concat(),
    );
    let output = bench.text("out.jsonl");
    let said = bench.run(&arguments(&input, &output));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("1 of 4 requests failed"), "{}", said.err);
    let found = answers(&bench, "out.jsonl");
    let body = |id: &str| &found[id]["response"]["body"];

    let choices = body("form")["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 3);
    for (index, choice) in choices.iter().enumerate() {
        let content: Value = serde_json::from_str(choice["message"]["content"].as_str().expect("text")).expect("JSON");
        assert!(["red", "blue"].contains(&content["colour"].as_str().expect("a colour")), "{content}");
        assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(index), &json!("stop")));
    }

    let choice = &body("logprobs")["choices"][0];
    let tokens = choice["logprobs"]["content"].as_array().expect("tokens");
    let text: String = tokens.iter().map(|token| token["token"].as_str().expect("text")).collect();
    assert_eq!((text.as_str(), tokens.len()), (choice["message"]["content"].as_str().expect("text"), 5));
    assert!(
        tokens.iter().all(|token| token["top_logprobs"][0]["logprob"] == token["logprob"]),
        "greedy takes the best"
    );

    assert_eq!(body("plain")["choices"][0]["logprobs"], Value::Null);
    assert_eq!(body("plain")["usage"]["completion_tokens"], json!(6));
    assert_eq!(found["long"]["error"]["code"], "context_length_exceeded");

    let cut = bench.text("cut.jsonl");
    let said = bench.run(&[arguments(&input, &cut), vec!["--overflow", "truncate-middle"]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("1 prompts did not fit"), "{}", said.err);
    assert!(answers(&bench, "cut.jsonl")["long"]["response"]["body"]["usage"]["prompt_tokens_cut"].as_u64() > Some(0));
}

/// The URL of a server that answers every conversation in the same words, with this `usage`.
fn server(usage: Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let usage = usage.clone();
            std::thread::spawn(move || reply(&stream, usage));
        }
    });
    url
}

fn reply(mut stream: &TcpStream, usage: Value) {
    let mut first = String::new();
    BufReader::new(stream).read_line(&mut first).expect("a request");
    let body = match first.split(' ').nth(1) {
        Some("/v1/models") => json!({"data": [{"id": "small"}]}),
        Some("/v1/chat/completions") => {
            json!({"choices": [{"message": {"content": "A green frog."}}], "usage": usage})
        }
        _ => Value::Null,
    };
    let status = if body.is_null() { "404 Not Found" } else { "200 OK" };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn tokens_of_servers_are_counted_and_estimates_said() {
    let bench = Bench::new();
    let input = bench.write("in.jsonl", [line("1", json!({})), line("2", json!({"n": 2}))].concat());
    let usages = [Value::Null, json!({"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23})];
    let said = usages.map(|usage| {
        let (url, name) = (server(usage.clone()), format!("out{}.jsonl", usage.is_null()));
        let output = bench.text(&name);
        let said = bench.run(&["batch", "--model", "small", "--engine", &url, "--input", &input, "--output", &output]);
        assert_eq!(said.code, 0, "{}", said.err);
        let usage = |id: &str| answers(&bench, &name)[id]["response"]["body"]["usage"].clone();
        (usage("1"), usage("2"), said.err.matches("does not tell its tokens").count())
    });
    let counts = |prompt: usize, new: usize| json!({"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new});
    let estimated = |prompt, new| {
        let mut counts = counts(prompt, new);
        counts["estimated"] = json!(true);
        counts
    };
    assert_eq!(said[0], (estimated(5, 4), estimated(5, 8), 1));
    assert_eq!(said[1], (counts(20, 3), counts(20, 6), 0));
}

#[test]
fn a_killed_batch_goes_on_and_answers_every_request_once() {
    let bench = Bench::new();
    let lines: Vec<String> =
        (0..120).map(|id| line(&id.to_string(), json!({"max_tokens": 20 + id % 60, "n": 1 + id % 2}))).collect();
    let input = bench.write("in.jsonl", lines.concat());
    let (unbroken, broken) = (bench.text("unbroken.jsonl"), bench.text("broken.jsonl"));
    assert_eq!(bench.run(&arguments(&input, &unbroken)).code, 0);
    for kept in [5, 60] {
        let mut command = bench.command(&arguments(&input, &broken));
        let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
        let start = Instant::now();
        let written = || fs::read_to_string(&broken).map_or(0, |text| text.lines().count());
        while written() < kept && start.elapsed() < Duration::from_mins(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
        running.kill().expect("a kill");
        running.wait().expect("an end");
    }
    // As if the kill had come in the middle of a line.
    let mut text = fs::read(&broken).expect("answers");
    text.extend_from_slice(b"{\"id\": \"batch");
    fs::write(&broken, text).expect("a file");
    let said = bench.run(&arguments(&input, &broken));
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(answers(&bench, "broken.jsonl").len(), 120);
    assert_eq!(answers(&bench, "broken.jsonl"), answers(&bench, "unbroken.jsonl"));

    let before = fs::read(&broken).expect("answers");
    assert_eq!(bench.run(&arguments(&input, &broken)).code, 0);
    assert_eq!(fs::read(&broken).expect("answers"), before, "nothing is asked again");
}

#[test]
fn each_fault_of_a_file_has_its_place() {
    let bench = Bench::new();
    let good = line("1", json!({}));
    let schema = |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("broken UTF-8", [good.as_bytes(), b"{\"custom_id\": \"\xff\"}\n"].concat()),
        ("broken JSON", [good.as_bytes(), b"\n{\"custom_id\": \"2\", \"body\": {\"messages\": [}}\n"].concat()),
        ("no custom_id", b"{\"body\": {}}\n".to_vec()),
        ("no body", b"{\"custom_id\": \"1\"}\n".to_vec()),
        ("two of a name", [good.clone(), line("2", json!({})), good.clone()].concat().into_bytes()),
        ("another address", b"{\"custom_id\": \"1\", \"url\": \"/v1/embeddings\", \"body\": {}}\n".to_vec()),
        ("a field that is none", line("1", json!({"temprature": 1})).into_bytes()),
        ("a value out of range", line("1", json!({"n": 0})).into_bytes()),
        (
            "a form that cannot be",
            line("1", json!({"response_format": schema(json!({"type": "integer", "minimum": 2, "maximum": 1}))}))
                .into_bytes(),
        ),
        ("a form that cannot be followed", line("1", json!({"structured_outputs": {"regex": "a(?!b)"}})).into_bytes()),
        ("no such file", Vec::new()),
    ];
    let mut words = String::new();
    for (name, content) in cases {
        let input = if content.is_empty() { bench.text("none.jsonl") } else { bench.write("in.jsonl", content) };
        let said = bench.run(&arguments(&input, &bench.text("out.jsonl")));
        words += &format!("{name}\n{}\n\n", said.refusal());
        assert!(!bench.path("out.jsonl").exists(), "{name}: something was made");
    }
    let input = bench.write("in.jsonl", &good);
    let output = bench.text("out.jsonl");
    assert_eq!(bench.run(&arguments(&input, &output)).code, 0);
    let before = fs::read(&output).expect("answers");
    let other = bench.write("in.jsonl", line("1", json!({"seed": 3})));
    words += &format!("an output of another request\n{}\n\n", bench.run(&arguments(&other, &output)).refusal());
    let adapter = [arguments(&input, &output), vec!["--engine", "http://127.0.0.1:9", "--adapter", "x"]].concat();
    words += &format!("a server and an adapter\n{}\n", bench.run(&adapter).refusal());
    assert_eq!(fs::read(&output).expect("answers"), before);
    insta::assert_snapshot!(words);
}

#[test]
fn help() {
    insta::assert_snapshot!(Bench::new().run(&["batch", "--help"]).out);
}
