//! A server on loopback that can also behave badly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

/// What came in.
pub(crate) struct Call {
    /// How many with a body came before it.
    pub(crate) number: usize,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Value,
}

/// What goes out.
pub(crate) enum Reply {
    Text(u16, String),
    /// With one more header.
    Header(u16, &'static str, String),
    /// With success, bytes as they are.
    Bytes(Vec<u8>),
    /// With success, and the connection ends in the middle of the text.
    Cut(String),
    /// The connection ends without a word.
    Hangup,
}

type Manners = dyn Fn(&Call) -> Reply + Send + Sync;

pub(crate) struct Loopback {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    manners: Box<Manners>,
    stopped: AtomicBool,
    posts: AtomicUsize,
    connections: Mutex<Vec<TcpStream>>,
}

impl Loopback {
    /// A server of an unknown kind with the model `small`; `manners` answers what has a body.
    pub(crate) fn start(manners: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        Self::bare(move |call| match (call.method.as_str(), call.path.as_str()) {
            ("GET", "/v1/models") => Reply::Text(200, json!({"data": [{"id": "small"}]}).to_string()),
            ("GET", _) => Reply::Text(404, "not found".to_owned()),
            _ => manners(call),
        })
    }

    /// A server that answers everything by `manners`.
    pub(crate) fn bare(manners: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), manners)
    }

    pub(crate) fn at(address: SocketAddr, manners: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manners: Box::new(manners),
            stopped: AtomicBool::new(false),
            posts: AtomicUsize::new(0),
            connections: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.stopped.load(Ordering::SeqCst) {
                    return;
                }
                serving.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || serving.serve(&stream));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests with a body so far.
    pub(crate) fn count(&self) -> usize {
        self.shared.posts.load(Ordering::SeqCst)
    }

    /// Ends at once, in the middle of whatever it does: from here on nothing listens there.
    pub(crate) fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        thread.join().unwrap();
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(call) = self.read(&mut reader) {
            let reply = (self.manners)(&call);
            if self.stopped.load(Ordering::SeqCst) || !write(stream, reply) {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
        }
    }

    fn read(&self, reader: &mut BufReader<&TcpStream>) -> Option<Call> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let header = |name: &str| {
            head.iter().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
        let mut first = head.first()?.split(' ');
        let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
        let number = if method == "POST" { self.posts.fetch_add(1, Ordering::SeqCst) } else { 0 };
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Some(Call { number, method, path, authorization: header("authorization"), body })
    }
}

/// Whether the connection goes on.
fn write(mut stream: &TcpStream, reply: Reply) -> bool {
    let (status, header, body, cut) = match reply {
        Reply::Text(status, text) => (status, "x-none: 1", text.into_bytes(), false),
        Reply::Header(status, header, text) => (status, header, text.into_bytes(), false),
        Reply::Bytes(bytes) => (200, "x-none: 1", bytes, false),
        Reply::Cut(text) => (200, "x-none: 1", text.into_bytes(), true),
        Reply::Hangup => return false,
    };
    let sent = if cut { body.len() / 2 } else { body.len() };
    let mut bytes = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{header}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(&body[..sent]);
    stream.write_all(&bytes).is_ok() && !cut
}
