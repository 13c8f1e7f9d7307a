//! Clients that are slow, wrong, too many or gone: others are served meanwhile.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use espalier_inference::Request;
use espalier_inference::serve::{Limits, ServeOptions};
use serde_json::{Value, json};

use crate::client::*;
use crate::common;

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
