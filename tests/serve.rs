//! `pipeline serve`: what it says, whom it lets in, how it ends.

mod binary;

use binary::Bench;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

const TINY: &str = "tests/assets/model/stories260K.bin";
const ENCODER: &str = "tests/assets/encoders/bert";

/// A server, which ends with its test, however that does.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that runs, its port, and the line with which it began.
fn start(bench: &Bench, model: &str, more: &[&str]) -> (Serving, u16, String, BufReader<std::process::ChildStdout>) {
    let arguments = [&["serve", "--model", model, "--port", "0"], more].concat();
    let mut command = bench.command(&arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut serving = Serving(child);
    let mut out = BufReader::new(serving.0.stdout.take().expect("a pipe"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    let after = line.split("127.0.0.1:").nth(1).unwrap_or_else(|| panic!("no address in {line:?}"));
    let port = after.split('/').next().and_then(|port| port.parse().ok()).expect("a port");
    (serving, port, line, out)
}

fn ask(port: u16, body: &str) -> String {
    post(port, "/v1/completions", body)
}

fn post(port: u16, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a server");
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a response");
    text
}

/// What is left after Ctrl-C: the exit code, the rest of standard output, standard error.
fn interrupt(mut serving: Serving, mut out: impl Read) -> (i32, String, String) {
    let killed = Command::new("kill").args(["-INT", &serving.0.id().to_string()]).status().expect("a signal");
    assert!(killed.success());
    let (mut rest, mut errors) = (String::new(), String::new());
    out.read_to_string(&mut rest).expect("text");
    serving.0.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("text");
    (serving.0.wait().expect("an end").code().unwrap_or(-1), rest, errors)
}

#[test]
fn it_says_where_it_is_and_ends_at_ctrl_c() {
    let bench = Bench::new();
    let (serving, port, line, out) = start(&bench, TINY, &["-v"]);
    assert_eq!(line, format!("serving stories260K in bf16 at http://127.0.0.1:{port}/v1; Ctrl-C ends it\n"));
    let answer = ask(port, r#"{"prompt": "Once", "max_tokens": 5}"#);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains(r#""completion_tokens":5"#), "{answer}");
    let (code, rest, errors) = interrupt(serving, out);
    assert_eq!((code, rest.as_str()), (0, ""));
    let line = errors.lines().find(|line| line.starts_with("POST")).expect("a line for the request");
    assert!(line.starts_with("POST /v1/completions  200  ") && line.contains(" + 5 tokens  127.0.0.1:"), "{line}");
}

#[test]
fn events_tell_the_same_and_the_key_stays_unsaid() {
    let bench = Bench::new();
    let (serving, port, line, out) = start(&bench, TINY, &["--json", "--name", "garden"]);
    let event: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&event["figures"]["event"], &event["figures"]["models"][0]), (&"serving".into(), &"garden".into()));
    assert!(ask(port, "{}").starts_with("HTTP/1.1 400 Bad Request"));
    let (code, rest, _) = interrupt(serving, out);
    assert_eq!(code, 0);
    let events: Vec<Value> = rest.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    // Before it may stand what the weights are.
    let request = events.iter().find(|event| event["figures"]["event"] == "request").expect("the request");
    assert_eq!(request["figures"]["status"], 400);
    let result = &events.last().expect("a result")["result"];
    assert_eq!(
        (&result["requests"], &result["refused_or_failed"], &result["cut_off"]),
        (&1.into(), &1.into(), &false.into())
    );

    let mut command = bench.command(&["serve", "--model", TINY, "--port", "0", "--host", "198.51.100.1"]);
    let said = bench.said(&command.env("ESPALIER_API_KEY", "secret-key").output().expect("the binary starts"));
    assert_eq!(said.code, 2);
    assert!(!said.err.contains("secret-key"));
}

#[test]
fn an_encoder_is_served_for_vectors() {
    let bench = Bench::new();
    let (serving, port, line, out) = start(&bench, ENCODER, &[]);
    let url = format!("http://127.0.0.1:{port}/v1");
    assert_eq!(line, format!("serving bert in bf16 at {url} for embeddings alone; Ctrl-C ends it\n"));
    let answer = post(port, "/v1/embeddings", r#"{"input": "Where did it live?"}"#);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"embedding\":["), "{answer}");
    let refused = ask(port, r#"{"prompt": "Once"}"#);
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("is an encoder: it writes no text"), "{refused}");
    let (code, ..) = interrupt(serving, out);
    assert_eq!(code, 0);
}

#[test]
fn refusals() {
    let bench = Bench::new();
    let run = |more: &[&str]| bench.run(&[&["serve", "--model", TINY], more].concat()).refusal();
    let words = [
        run(&["--host", "0.0.0.0"]),
        run(&["--host", "198.51.100.1", "--without-key"]),
        run(&["--max-waiting", "0"]),
        run(&["--host", "here"]),
        run(&["--adapter", "runs/adapter"]),
        run(&["--adapter", "stories260K=runs/adapter"]),
        run(&["--adapter", "dates=no/such/folder"]),
        bench.run(&["serve", "--model", ENCODER, "--adapter", "dates=runs/adapter"]).refusal(),
    ];
    insta::assert_snapshot!(words.join("\n\n"));
    insta::assert_snapshot!("help", bench.run(&["serve", "--help"]).out);
}
