//! A server of the small model, and a client that speaks HTTP by hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use espalier_inference::serve::{Answered, Limits, ServeOptions, Server};
use espalier_inference::{EngineOptions, NativeEngine, Overflow, Prompt, Request};
use espalier_kernels::Precision;
use espalier_model::LoraAdapter;
use serde_json::{Value, json};

use crate::common;

pub struct Running {
    pub server: Server,
    pub engine: Arc<NativeEngine>,
    pub log: Arc<Mutex<Vec<Answered>>>,
}

pub fn options() -> ServeOptions {
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

pub fn start(options: ServeOptions) -> Running {
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
pub struct Said {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }

    /// Status, code and message of an error.
    pub fn error(&self) -> String {
        let error = &self.json()["error"];
        assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
        format!("{} {} {}: {}", self.status, error["code"], error["param"], error["message"].as_str().unwrap())
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream
}

/// Reads until the server closes.
pub fn read_all(mut stream: TcpStream) -> Said {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if head.contains("chunked") { dechunked(body) } else { body.to_owned() };
    Said { status, head: head.to_owned(), body }
}

pub fn dechunked(mut text: &str) -> String {
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

pub fn head(method: &str, path: &str, length: usize) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
}

pub fn send(address: SocketAddr, bytes: &[u8]) -> Said {
    let mut stream = connect(address);
    stream.write_all(bytes).unwrap();
    read_all(stream)
}

pub fn get(address: SocketAddr, path: &str) -> Said {
    send(address, head("GET", path, 0).as_bytes())
}

pub fn post_bytes(address: SocketAddr, path: &str, body: &[u8]) -> Said {
    send(address, &[head("POST", path, body.len()).as_bytes(), body].concat())
}

pub fn post(address: SocketAddr, path: &str, body: &Value) -> Said {
    post_bytes(address, path, body.to_string().as_bytes())
}

pub fn events(said: &Said) -> Vec<Value> {
    let lines: Vec<&str> = said.body.split("\n\n").filter(|line| !line.is_empty()).collect();
    let (last, events) = lines.split_last().unwrap();
    assert_eq!(*last, "data: [DONE]");
    events.iter().map(|line| serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

pub fn engine_texts(engine: &NativeEngine, requests: &[Request]) -> Vec<String> {
    common::answers(engine, requests).into_iter().map(|answer| answer.unwrap().text).collect()
}

/// Waits until nothing is computed any more.
pub fn settle(address: SocketAddr) -> String {
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

pub const CHAT: &str = "/v1/chat/completions";
pub const TEXTS: &str = "/v1/completions";
pub const EMBEDDINGS: &str = "/v1/embeddings";

pub fn question() -> Value {
    json!([{"role": "user", "content": "Once upon a time"}])
}

pub fn as_request(max_tokens: usize) -> Request {
    let message = espalier_inference::Message::new("user", "Once upon a time");
    Request::new(Prompt::Chat(vec![message]), max_tokens)
}
