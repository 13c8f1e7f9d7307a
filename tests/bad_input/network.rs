//! No network, and servers that fail or talk nonsense.

use crate::binary::Bench;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const FAILS: u8 = 0;
const GARBAGE: u8 = 1;
const BREAKS: u8 = 2;
const GOOD: u8 = 3;

/// A server on loopback whose manners can be changed while it stands.
fn server() -> (String, Arc<AtomicU8>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let manners = Arc::new(AtomicU8::new(FAILS));
    let shared = Arc::clone(&manners);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || answer(stream, &shared));
        }
    });
    (url, manners)
}

fn answer(mut stream: TcpStream, manners: &AtomicU8) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    let _ = stream.read_exact(&mut body);
    let (status, body) = match manners.load(Ordering::Relaxed) {
        FAILS => ("500 Internal Server Error", "{\"error\": \"out of memory\"}"),
        GARBAGE => ("200 OK", "<html>Welcome to the router</html>"),
        _ if text.starts_with("get ") => ("200 OK", "{\"data\": [{\"id\": \"m\"}]}"),
        BREAKS => ("502 Bad Gateway", "the model is gone"),
        _ => (
            "200 OK",
            "{\"choices\": [{\"message\": {\"role\": \"assistant\", \"content\": \"The pond was blue.\"}, \
             \"finish_reason\": \"stop\"}]}",
        ),
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}

#[test]
fn a_server_that_fails_or_talks_nonsense_is_told_and_a_mended_one_goes_on() {
    let bench = Bench::new();
    let (url, manners) = server();
    let folder = bench.text("run");
    let run = || {
        let mut command = bench.command(&["run", "pipelines/tiny.yaml", "--engine", &url, "--run-dir", &folder]);
        bench.said(&command.env("ESPALIER_SERVER_PATIENCE", "1").output().expect("the binary starts"))
    };
    let failed = run();
    assert_eq!(failed.code, 75, "{}", failed.err);
    manners.store(GARBAGE, Ordering::Relaxed);
    let nonsense = run();
    assert_eq!(nonsense.code, 2, "{}", nonsense.err);
    manners.store(BREAKS, Ordering::Relaxed);
    let breaks = run();
    assert_eq!(breaks.code, 75, "{}", breaks.err);
    assert!(bench.results("run").is_empty(), "something was made of nothing");
    let words = [("fails", failed), ("nonsense", nonsense), ("breaks", breaks)]
        .map(|(name, said)| format!("{name}\n{}\n", said.refusal()))
        .join("\n");
    insta::assert_snapshot!(words.replace(&url, "http://server"));
    manners.store(GOOD, Ordering::Relaxed);
    let mended = run();
    assert_eq!(mended.code, 0, "{}", mended.err);
    assert!(mended.err.contains("it was begun and not finished: it goes on"), "{}", mended.err);
}

#[test]
fn a_server_that_is_not_there_and_an_engine_that_is_none() {
    let bench = Bench::new();
    // Bound and dropped: nobody listens there now.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let url = format!("http://127.0.0.1:{port}");
    let engine = |engine: &str| {
        let folder = bench.text("run");
        bench.run(&["run", "pipelines/tiny.yaml", "--engine", engine, "--run-dir", &folder])
    };
    let absent = engine(&url);
    assert_eq!(absent.code, 75, "{}", absent.err);
    let unknown = engine("natve");
    assert_eq!(unknown.code, 2);
    let encrypted = engine("https://example.org");
    assert_eq!(encrypted.code, 2);
    let words = format!(
        "{}\n\n{}\n\n{}\n",
        absent.refusal().replace(&url, "http://server"),
        unknown.refusal(),
        encrypted.refusal()
    );
    insta::assert_snapshot!(words);
}

#[test]
fn a_model_that_must_be_fetched_without_a_network() {
    let bench = Bench::new();
    let fetch = |name: &str, value: &str| {
        let folder = bench.text("run");
        let mut command = bench.command(&["run", "pipelines/quickstart.yaml", "--run-dir", &folder]);
        command.env(name, value).env("PIP_CONFIG_FILE", "/dev/null").env("PIP_RETRIES", "1").env("PIP_TIMEOUT", "1");
        command.env_remove("PIP_FIND_LINKS").env_remove("PIP_EXTRA_INDEX_URL");
        bench.said(&command.output().expect("the binary starts"))
    };
    let closed = fetch("PIP_INDEX_URL", "http://127.0.0.1:9/simple");
    let none = fetch("PIP_NO_INDEX", "1");
    assert_eq!((closed.code, none.code), (75, 75), "{}{}", closed.err, none.err);
    insta::assert_snapshot!(format!("{}\n\n{}\n", closed.refusal(), none.refusal()));
    assert!(bench.results("run").is_empty());
    let left: Vec<_> = std::fs::read_dir(bench.path("cache/fetching")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "half a download was left: {left:?}");
}
