//! A client for servers that speak the `OpenAI` protocol: llama-server, vLLM, Ollama, LM Studio and others.
//!
//! Conversations go to `/v1/chat/completions`, texts and tokens to `/v1/completions`. Requests run on a few threads; failures
//! that may pass (429, 5xx, a broken connection) are tried again with growing pauses. A key is read from the environment
//! variable `ESPALIER_API_KEY`; it is sent to the server and shown nowhere.

mod protocol;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::constraint::Constraint;
use crate::error::EngineError;
use crate::request::{Answer, Finish, Request};

use protocol::{beginning, once_more, parse_answer, remedy};

/// Longest answer of a server that is read.
const MAX_BODY: u64 = 64 << 20;

/// Longest pause between two tries, also when the server asks for a longer one.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// How a server is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// The name of the model; `None` takes the first that the server lists.
    pub model: Option<String>,
    /// Requests under way at once.
    pub concurrency: usize,
    /// Longest time for one request, its answer included.
    pub timeout: Duration,
    /// How often a request is tried in all.
    pub attempts: u32,
    /// Pause before the second try; it doubles with each further one.
    pub first_pause: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            model: None,
            concurrency: 8,
            timeout: Duration::from_mins(10),
            attempts: 5,
            first_pause: Duration::from_millis(500),
        }
    }
}

/// A server as an engine.
pub struct ServerEngine {
    /// Ends in `/v1`.
    base: String,
    options: ServerOptions,
    agent: ureq::Agent,
    authorization: Option<String>,
    identity: String,
    listed_model: OnceLock<String>,
}

impl std::fmt::Debug for ServerEngine {
    // By hand: the derived form would print the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerEngine").field("base", &self.base).field("options", &self.options).finish_non_exhaustive()
    }
}

impl ServerEngine {
    /// A client for `url` (`http://127.0.0.1:8080`, with or without `/v1`). Nothing is sent yet.
    ///
    /// # Errors
    /// A URL that is not plain http, options that are zero.
    pub fn new(url: &str, options: ServerOptions) -> Result<Self, EngineError> {
        let refused = |problem| EngineError::Url { url: url.to_owned(), problem };
        let trimmed = url.trim().trim_end_matches('/');
        let Some(rest) = trimmed.strip_prefix("http://") else {
            return Err(refused("only http:// is supported"));
        };
        let authority = rest.split('/').next().unwrap_or("");
        if authority.is_empty() {
            return Err(refused("there is no host in it"));
        }
        if authority.contains('@') {
            return Err(refused("a user or password does not belong into it; put the key into ESPALIER_API_KEY"));
        }
        for (option, value) in [("concurrency", options.concurrency), ("attempts", options.attempts as usize)] {
            if value == 0 {
                return Err(EngineError::Option { option, problem: "must be at least 1".to_owned() });
            }
        }
        let base = if trimmed.ends_with("/v1") { trimmed.to_owned() } else { format!("{trimmed}/v1") };
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(options.timeout))
            .timeout_connect(Some(options.timeout.min(Duration::from_secs(10))))
            .http_status_as_error(false)
            // The servers meant here stand on this machine or in its network.
            .proxy(None)
            .max_idle_connections_per_host(options.concurrency)
            .build()
            .into();
        let authorization = std::env::var("ESPALIER_API_KEY")
            .ok()
            .filter(|key| !key.trim().is_empty())
            .map(|key| format!("Bearer {}", key.trim()));
        let identity = format!("{base}#{}", options.model.as_deref().unwrap_or("default"));
        Ok(Self { base, options, agent, authorization, identity, listed_model: OnceLock::new() })
    }

    /// The server and the name of its model.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Sends all requests, [`ServerOptions::concurrency`] at a time. Answers and failures arrive as they end, each with the
    /// index of its request. After a `Break` nothing new is sent; what is under way is waited for and dropped.
    ///
    /// # Errors
    /// None now: what is wrong with a request goes to its own answer.
    pub fn generate(
        &self,
        requests: &[Request],
        on_answer: &mut dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let next = AtomicUsize::new(0);
        let stopped = AtomicBool::new(false);
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            for _ in 0..self.options.concurrency.min(requests.len()) {
                let sender = sender.clone();
                let (next, stopped) = (&next, &stopped);
                scope.spawn(move || {
                    while !stopped.load(Ordering::Relaxed) {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(request) = requests.get(index) else {
                            return;
                        };
                        if sender.send((index, self.answer(request, stopped))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for (index, answer) in receiver {
                if on_answer(index, answer).is_break() {
                    stopped.store(true, Ordering::Relaxed);
                    return;
                }
            }
        });
        Ok(())
    }

    /// An answer in the form that was asked for. Whether the server knows the form or not: what comes is checked, and asked
    /// for once more when it does not fit.
    fn answer(&self, request: &Request, stopped: &AtomicBool) -> Result<Answer, EngineError> {
        let Some(constraint) = &request.constraint else {
            return self.ask(request, stopped);
        };
        constraint.validate().map_err(|problem| constraint.broken(problem))?;
        match fitting(self.ask(request, stopped)?, constraint) {
            Ok(answer) => Ok(answer),
            Err((text, problem)) => {
                let again = once_more(request, &text, constraint, &problem);
                fitting(self.ask(&again, stopped)?, constraint).map_err(|(text, problem)| EngineError::Unfit {
                    url: self.base.clone(),
                    kind: constraint.kind(),
                    problem,
                    answer: beginning(&text),
                })
            }
        }
    }

    fn ask(&self, request: &Request, stopped: &AtomicBool) -> Result<Answer, EngineError> {
        let (path, body) = protocol::body(request, self.model());
        let url = format!("{}/{path}", self.base);
        let text = self.send(&url, Some(&body), stopped)?;
        parse_answer(&text, request).map_err(|missing| EngineError::Garbage { url, missing, body: beginning(&text) })
    }

    /// The model's name: as given, else the first that the server lists, else a word that servers of one model ignore.
    fn model(&self) -> &str {
        if let Some(model) = &self.options.model {
            return model;
        }
        if let Some(model) = self.listed_model.get() {
            return model;
        }
        let url = format!("{}/models", self.base);
        let listed = self.try_once(&url, None).ok().filter(|(status, ..)| *status == 200).and_then(|(_, text, _)| {
            let list: Value = serde_json::from_str(&text).ok()?;
            Some(list.get("data")?.get(0)?.get("id")?.as_str()?.to_owned())
        });
        match listed {
            Some(model) => self.listed_model.get_or_init(|| model),
            None => "default",
        }
    }

    /// Sends one request until it succeeds, fails for good, or has been tried often enough.
    fn send(&self, url: &str, body: Option<&Value>, stopped: &AtomicBool) -> Result<String, EngineError> {
        let mut attempts = 0;
        let mut pause = self.options.first_pause;
        loop {
            attempts += 1;
            let (error, wished) = match self.try_once(url, body) {
                Ok((200..300, text, _)) => return Ok(text),
                Ok((status, text, wished)) => {
                    let passing = status == 429 || status >= 500;
                    let url = url.to_owned();
                    let remedy = remedy(status);
                    let error = EngineError::Status { url, status, body: beginning(&text), attempts, remedy };
                    if !passing {
                        return Err(error);
                    }
                    (error, wished)
                }
                Err(problem) => (EngineError::Connection { url: url.to_owned(), problem, attempts }, None),
            };
            if attempts >= self.options.attempts || stopped.load(Ordering::Relaxed) {
                return Err(error);
            }
            wait(wished.unwrap_or(pause).min(MAX_PAUSE), stopped);
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// One exchange: status, text, and the pause that the server wishes for.
    fn try_once(&self, url: &str, body: Option<&Value>) -> Result<(u16, String, Option<Duration>), String> {
        let response = if let Some(body) = body {
            let mut post = self.agent.post(url);
            if let Some(authorization) = &self.authorization {
                post = post.header("Authorization", authorization);
            }
            post.send_json(body)
        } else {
            let mut get = self.agent.get(url);
            if let Some(authorization) = &self.authorization {
                get = get.header("Authorization", authorization);
            }
            get.call()
        };
        let mut response = response.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let wished = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_BODY)
            .lossy_utf8(true)
            .read_to_string()
            .map_err(|error| error.to_string())?;
        Ok((status, text, wished))
    }
}

/// The answer without fences around it, or its text and what is wrong with it. One that was cut off is what it is.
fn fitting(answer: Answer, constraint: &Constraint) -> Result<Answer, (String, String)> {
    if answer.finish == Finish::Length {
        return Ok(answer);
    }
    let text = constraint.unwrap(&answer.text).to_owned();
    match constraint.check(&text) {
        Ok(()) => Ok(Answer { text, ..answer }),
        Err(problem) => Err((answer.text, problem)),
    }
}

/// Sleeps, but wakes early when nobody wants the answer any more.
fn wait(pause: Duration, stopped: &AtomicBool) {
    let end = Instant::now() + pause;
    while !stopped.load(Ordering::Relaxed) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn urls_with_and_without_version_are_the_same() {
        for url in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1/"] {
            let engine = ServerEngine::new(url, ServerOptions::default()).unwrap();
            assert_eq!(engine.identity(), "http://127.0.0.1:8080/v1#default");
        }
        for url in ["https://x", "http://", "localhost:1", "http://a:b@c"] {
            assert!(matches!(ServerEngine::new(url, ServerOptions::default()), Err(EngineError::Url { .. })), "{url}");
        }
    }
}
