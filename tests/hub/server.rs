//! A Hugging Face hub on loopback with one repository, whose manners a test chooses.

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The commit that `main` stands for.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Path and query.
    pub path: String,
    /// First byte of the range; 0 without one.
    pub from: usize,
    /// The token.
    pub token: Option<String>,
}

/// An answer.
pub enum Reply {
    /// As it should be.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// So many bytes of a body, then the connection ends; or stays open without a word.
    Part { from: usize, body: Vec<u8>, sent: usize, stays: bool },
}

/// `org/name`, its files, and those of them that git keeps as large files.
pub struct Repository {
    pub files: Vec<(&'static str, Vec<u8>)>,
    pub card: serde_json::Value,
}

pub fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn is_large(path: &str) -> bool {
    path.rsplit('.').next().is_some_and(|extension| ["gguf", "safetensors"].contains(&extension))
}

/// The hash that a hub states for a file.
pub fn stated_hash(path: &str, bytes: &[u8]) -> String {
    if is_large(path) {
        return hex(&Sha256::digest(bytes));
    }
    let mut digest = Sha1::new();
    digest.update(format!("blob {}\0", bytes.len()));
    digest.update(bytes);
    hex(&digest.finalize())
}

impl Repository {
    /// What a good hub answers.
    pub fn reply(&self, asked: &Asked) -> Reply {
        if asked.path.starts_with("/api/models/org/name/revision/main?") {
            let sibling = |(path, bytes): &(&str, Vec<u8>)| {
                let hash = stated_hash(path, bytes);
                if is_large(path) {
                    json!({"rfilename": path, "size": bytes.len(), "blobId": "0".repeat(40),
                           "lfs": {"sha256": hash, "size": bytes.len(), "pointerSize": 130}})
                } else {
                    json!({"rfilename": path, "size": bytes.len(), "blobId": hash})
                }
            };
            let siblings: Vec<_> = self.files.iter().map(sibling).collect();
            let body = json!({"id": "org/name", "sha": COMMIT, "cardData": self.card, "siblings": siblings});
            return Reply::Whole(200, Vec::new(), body.to_string().into_bytes());
        }
        let file = self.files.iter().find(|(path, _)| asked.path == format!("/org/name/resolve/{COMMIT}/{path}"));
        match file {
            Some((_, bytes)) => ranged(asked, bytes),
            None if asked.path.starts_with("/api/models/org/name/") => refusal(404, "RevisionNotFound"),
            None => refusal(401, "RepoNotFound"),
        }
    }
}

/// The bytes that a request asks for.
pub fn ranged(asked: &Asked, bytes: &[u8]) -> Reply {
    if asked.from == 0 {
        return Reply::Whole(200, Vec::new(), bytes.to_vec());
    }
    let range = format!("bytes {}-{}/{}", asked.from, bytes.len() - 1, bytes.len());
    Reply::Whole(206, vec![("content-range", range)], bytes[asked.from..].to_vec())
}

pub fn refusal(status: u16, code: &str) -> Reply {
    Reply::Whole(status, vec![("x-error-code", code.to_owned())], Vec::new())
}

/// The server; what was asked is kept.
pub struct Hub {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Hub {
    /// Answers the n-th request with `reply(n, asked)`.
    pub fn start(reply: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, reply) = (Arc::clone(&asked), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                std::thread::spawn(move || answer(stream, &log, &*reply));
            }
        });
        Self { url, asked }
    }

    /// The same hub under another address.
    pub fn moved_to(self, url: String) -> Self {
        Self { url, ..self }
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    /// Path ends and first bytes of the requests for files.
    pub fn files_asked(&self) -> Vec<(String, usize)> {
        let files = self.asked().into_iter().filter(|asked| asked.path.contains("/resolve/"));
        files.map(|asked| (asked.path.rsplit('/').next().expect("a name").to_owned(), asked.from)).collect()
    }
}

fn answer(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, reply: &dyn Fn(usize, &Asked) -> Reply) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let header = |name: &str| {
        let of_line = |line: &str| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        };
        text.lines().find_map(of_line)
    };
    let from = header("range")
        .map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().expect("a number"));
    let asked = Asked {
        path: text.split(' ').nth(1).unwrap_or_default().to_owned(),
        from: from.unwrap_or(0),
        token: header("authorization"),
    };
    let number = {
        let mut log = log.lock().expect("no panic");
        log.push(asked.clone());
        log.len() - 1
    };
    let mut send = |status: u16, headers: &[(&str, String)], body: &[u8], length: usize| {
        let mut head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n");
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(body));
        let _ = stream.flush();
    };
    match reply(number, &asked) {
        Reply::Whole(status, headers, body) => send(status, &headers, &body, body.len()),
        Reply::Part { from, body, sent, stays } => {
            let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
            let status = if from == 0 { 200 } else { 206 };
            send(status, &[("content-range", range)], &body[from..from + sent], body.len() - from);
            if stays {
                std::thread::sleep(Duration::from_mins(1));
            }
        }
    }
}
