//! Our own server: the engine's service, or an encoder, under the protocol of `OpenAI`, over HTTP/1.1.
//!
//! Each connection has a thread; what computes is the service's alone. A thread reads a request, hands it to the service's
//! queue and sends on what comes back, so that a client that reads slowly waits in its own thread and no other. What a
//! connection may hold or take is bounded everywhere: bytes of a head and of a body, bytes of all bodies, time for each
//! part, events that wait for a reader, requests that wait for the engine. A client that closes its side cancels its
//! requests.

mod auth;
mod body;
mod chat;
mod connection;
mod exchange;
mod head;
mod limits;
mod metrics;
mod model;
mod problem;
mod props;
mod router;
mod texts;
mod vectors;
mod writing;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::openai::Defaults;
use crate::overflow::Overflow;
use crate::service::ServiceOptions;
use body::Held;
use connection::Connection;
use exchange::{Exchange, Sent, Unanswered};
use metrics::Metrics;
use model::{Running, Writer};
use problem::Problem;
use router::Endpoint;

pub use limits::Limits;
pub use model::ServedModel;

/// How often the end of connections is looked for.
const TICK: Duration = Duration::from_millis(20);

/// Time for the errors that end what is cut off.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is served, and how.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes one that is free.
    pub address: SocketAddr,
    /// The model's name.
    pub model: String,
    /// Other names that mean the model too.
    pub other_names: Vec<String>,
    /// Names of the engine's adapters: each is served as a model of its own.
    pub adapters: Vec<String>,
    /// What clients must send as `Authorization: Bearer KEY`.
    pub key: Option<String>,
    /// Requests that may wait for the engine; more are refused with 429.
    pub max_waiting: usize,
    /// The longest answer of a conversation whose request does not say.
    pub max_tokens: usize,
    /// What happens to prompts that do not fit.
    pub overflow: Overflow,
    /// Bytes and seconds.
    pub limits: Limits,
}

/// A request that was answered, for a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// Who asked.
    pub client: SocketAddr,
    /// GET, POST.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its status; 499 where the client went away before the end.
    pub status: u16,
    /// From its head to the last byte of its response.
    pub seconds: f64,
    /// Tokens of its prompts.
    pub prompt_tokens: usize,
    /// Tokens written.
    pub new_tokens: usize,
}

/// Where lines of the log go.
pub type Log = Box<dyn Fn(&Answered) + Send + Sync>;

/// What all connections share.
struct Served {
    running: Running,
    options: ServeOptions,
    key: Option<auth::Key>,
    metrics: Metrics,
    log: Log,
    held: Held,
    /// Sockets by number, to be shut when the server ends at once.
    open: Mutex<HashMap<u64, TcpStream>>,
    /// Held by the one request that makes vectors.
    embedding: Mutex<()>,
    numbers: AtomicU64,
    stopping: AtomicBool,
    started: u64,
    random: RandomState,
}

/// A server that listens.
pub struct Server {
    served: Arc<Served>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens, and answers from a thread of its own.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub fn start(model: impl Into<ServedModel>, options: ServeOptions, log: Log) -> std::io::Result<Self> {
        let listener = TcpListener::bind(options.address)?;
        let address = listener.local_addr()?;
        let served = Arc::new(Served {
            running: Running::start(model.into(), ServiceOptions { max_waiting: options.max_waiting }),
            key: options.key.as_deref().map(auth::Key::new),
            options,
            metrics: Metrics::default(),
            log,
            held: Held::default(),
            open: Mutex::default(),
            embedding: Mutex::default(),
            numbers: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            started: clock(),
            random: RandomState::new(),
        });
        let accepting = {
            let served = Arc::clone(&served);
            std::thread::Builder::new().name("serve".to_owned()).spawn(move || accept(&listener, &served))?
        };
        Ok(Self { served, address, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests and lets those that are there end, for so long at most; then cuts them off. Says whether all
    /// of them ended by themselves.
    pub fn stop(self, grace: Duration) -> bool {
        self.served.stopping.store(true, Ordering::SeqCst);
        // A connection of our own ends the wait for the next one.
        let _ = TcpStream::connect_timeout(&reachable(self.address), Duration::from_secs(1));
        let _ = self.accepting.join();
        let end = Instant::now() + grace;
        while Instant::now() < end && self.served.connections() > 0 {
            std::thread::sleep(TICK);
        }
        // What is still written ends with an error, which its readers get before their connections are shut.
        let ended = self.served.connections() == 0;
        self.served.running.stop();
        let end = Instant::now() + LAST_WORDS;
        while Instant::now() < end && self.served.connections() > 0 {
            std::thread::sleep(TICK);
        }
        let cut: Vec<TcpStream> = self.served.sockets().drain().map(|(_, stream)| stream).collect();
        for stream in &cut {
            let _ = stream.shutdown(Shutdown::Both);
        }
        ended
    }
}

/// An address under which a listener on every address of the machine is reached.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn accept(listener: &TcpListener, served: &Arc<Served>) {
    loop {
        let accepted = listener.accept();
        if served.is_stopping() {
            return;
        }
        let Ok((stream, client)) = accepted else {
            // No more files may be open, as a rule: connections that end make room.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        let number = served.numbers.fetch_add(1, Ordering::Relaxed);
        if served.connections() >= served.options.limits.connections {
            refuse(stream, served);
            continue;
        }
        let Ok(copy) = stream.try_clone() else { continue };
        served.sockets().insert(number, copy);
        let at_work = Arc::clone(served);
        let spawned = std::thread::Builder::new().name(format!("serve {number}")).spawn(move || {
            let guard = Open { served: &at_work, number };
            converse(stream, client, guard.served, number);
        });
        if spawned.is_err() {
            served.sockets().remove(&number);
        }
    }
}

/// Takes a socket off the list when its thread ends, also by a panic.
struct Open<'a> {
    served: &'a Served,
    number: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.served.sockets().remove(&self.number);
    }
}

/// One connection too many: told so without a wait, for this is the thread that accepts.
fn refuse(stream: TcpStream, served: &Served) {
    if stream.set_nonblocking(true).is_ok()
        && let Ok(mut connection) = Connection::new(stream, &served.options.limits, &served.stopping)
    {
        let _ = connection.respond(&Problem::busy("too many connections are open").reply(), false);
    }
}

/// Answers the requests of one connection, one after another.
fn converse(stream: TcpStream, client: SocketAddr, served: &Served, number: u64) {
    let Ok(mut connection) = Connection::new(stream, &served.options.limits, &served.stopping) else { return };
    loop {
        let head = match connection.read_head() {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(problem) => {
                if connection.respond(&problem.reply(), false).is_ok() {
                    connection.close();
                }
                return;
            }
        };
        let begun = Instant::now();
        let endpoint = Endpoint::of(&head.path);
        let exchange = Exchange { served, connection: &mut connection, head: &head, client: number };
        let mut sent = router::answer(exchange, endpoint, &served.held);
        if let Err(Unanswered::Problem(problem)) = &sent {
            let keep_alive = head.keeps_alive() && connection.is_between() && !served.is_stopping();
            let responded = connection.respond(&problem.reply(), keep_alive);
            let status = problem.status();
            sent = match responded {
                Ok(()) => Ok(Sent { status, keep_alive, prompt_tokens: 0, new_tokens: 0 }),
                Err(gone) => Err(gone.into()),
            };
        }
        let cut = Sent { status: 500, keep_alive: false, prompt_tokens: 0, new_tokens: 0 };
        let sent_or_not = match sent {
            Ok(sent) => sent,
            Err(Unanswered::Gone) => Sent { status: 499, ..cut },
            Err(Unanswered::Problem(_) | Unanswered::Cut) => cut,
        };
        served.note(&head, endpoint, client, sent_or_not, begun.elapsed());
        if !sent_or_not.keep_alive {
            if sent_or_not.status != 499 {
                connection.close();
            }
            return;
        }
    }
}

impl Served {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn sockets(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> usize {
        self.sockets().len()
    }

    fn note(&self, head: &head::Head, endpoint: Option<Endpoint<'_>>, client: SocketAddr, sent: Sent, taken: Duration) {
        self.metrics.count(endpoint.map_or("other", Endpoint::path), sent.status, taken);
        (self.log)(&Answered {
            client,
            method: head.method.clone(),
            path: head.path.clone(),
            status: sent.status,
            seconds: taken.as_secs_f64(),
            prompt_tokens: sent.prompt_tokens,
            new_tokens: sent.new_tokens,
        });
    }

    /// An id that no other response of this server has.
    fn new_id(&self, kind: &str) -> String {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        format!("{kind}-{:016x}{number:x}", self.random.hash_one(self.started))
    }

    /// What holds where a body says nothing.
    fn defaults(&self, max_tokens: usize) -> Defaults {
        let seed = self.random.hash_one(self.numbers.fetch_add(1, Ordering::Relaxed));
        Defaults { seed, overflow: self.options.overflow, max_tokens }
    }

    /// Names of models in the order in which they are listed: the base, then its adapters.
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.options.model).chain(&self.options.adapters).map(String::as_str)
    }

    fn model_entry(&self, name: &str) -> Value {
        let parent = (name != self.options.model).then_some(&self.options.model);
        json!({"id": name, "object": "model", "created": self.started, "owned_by": "espalier", "parent": parent,
            "context_length": self.running.context()})
    }

    /// The name in responses of the model that a body names, and its adapter; without a name it is the base.
    fn model(&self, name: Option<&str>) -> Result<(&str, Option<String>), Problem> {
        let own = &self.options.model;
        let Some(name) = name.filter(|name| name != own && !self.options.other_names.iter().any(|other| other == name))
        else {
            return Ok((own, None));
        };
        if let Some(adapter) = self.options.adapters.iter().find(|adapter| *adapter == name) {
            return Ok((adapter, Some(adapter.clone())));
        }
        let served: Vec<String> = self.names().map(|name| format!("{name:?}")).collect();
        let message = format!("model {name:?} is not served here; there is {}", served.join(", "));
        Err(Problem::new(404, message).at("model").with_code("model_not_found"))
    }

    /// What writes, or why nothing does.
    fn writer(&self) -> Result<&Writer, Problem> {
        self.running.writer(&self.options.model)
    }
}
