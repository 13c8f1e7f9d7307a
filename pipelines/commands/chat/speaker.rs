//! A model that answers.

use anyhow::Result;
use espalier_inference::{Event, NativeEngine, Request, Service, ServiceOptions};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often Ctrl-C is looked for.
const TICK: Duration = Duration::from_millis(50);

/// A model under way: its service keeps the keys and values of the conversation, so that a turn reads only what is added.
pub struct Speaker {
    /// What it is called.
    pub label: String,
    engine: Arc<NativeEngine>,
    service: Service,
}

/// An answer and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The text, as far as it was written.
    pub text: String,
    /// Whether Ctrl-C ended it.
    pub stopped: bool,
    tokens: usize,
    /// Until the first token, and from there to the last.
    seconds: (f64, f64),
}

impl Speaker {
    /// Starts the service of an engine.
    pub fn new(reference: &str, adapter: bool, engine: NativeEngine) -> Self {
        let name = Path::new(reference).file_name();
        let name = name.map_or_else(|| reference.to_owned(), |name| name.to_string_lossy().into_owned());
        let engine = Arc::new(engine);
        let service = Service::start(Arc::clone(&engine), ServiceOptions::default());
        Self { label: if adapter { format!("{name} + adapter") } else { name }, engine, service }
    }

    /// The engine behind it.
    pub fn engine(&self) -> &NativeEngine {
        &self.engine
    }

    /// Writes an answer and shows its text as it comes. `stop` ends it; the flag is taken back.
    pub fn answer(&self, request: Request, stop: &AtomicBool, show: &mut dyn FnMut(&str)) -> Result<Answered> {
        let (sender, events) = mpsc::channel();
        let on_event = move |event| match sender.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let begun = Instant::now();
        let request = self.service.submit(request, 0, Box::new(on_event))?;
        let (mut text, mut tokens, mut first) = (String::new(), 0, None);
        let stopped = loop {
            match events.recv_timeout(TICK) {
                Ok(Event::Token { text: part, .. }) => {
                    first.get_or_insert_with(|| begun.elapsed());
                    tokens += 1;
                    text.push_str(&part);
                    show(&part);
                }
                Ok(Event::Done(answer)) => {
                    show(answer.text.strip_prefix(text.as_str()).unwrap_or_default());
                    text = answer.text;
                    break false;
                }
                Ok(Event::Failed(error)) => return Err(error.into()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the engine ended without an answer"),
            }
            if stop.swap(false, Ordering::SeqCst) {
                request.cancel();
                break true;
            }
        };
        let all = begun.elapsed().as_secs_f64();
        let first = first.map_or(all, |first| first.as_secs_f64());
        Ok(Answered { text, stopped, tokens, seconds: (first, all - first) })
    }
}

impl Answered {
    /// Tokens and their rate, in a line.
    pub fn figures(&self) -> String {
        let stopped = if self.stopped { ", stopped" } else { "" };
        let (first, rest) = self.seconds;
        // The first token is the end of reading the prompt.
        let rate = match self.tokens {
            0 | 1 => String::new(),
            tokens => format!(", {:.1} a second", (tokens - 1) as f64 / rest.max(1e-9)),
        };
        format!("  ({} tokens{rate}, the first after {first:.2} s{stopped})", self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_count_tokens_from_the_first_on() {
        let answered = |tokens, stopped| Answered { text: String::new(), stopped, tokens, seconds: (0.25, 2.0) };
        assert_eq!(answered(101, false).figures(), "  (101 tokens, 50.0 a second, the first after 0.25 s)");
        assert_eq!(answered(1, true).figures(), "  (1 tokens, the first after 0.25 s, stopped)");
    }
}
