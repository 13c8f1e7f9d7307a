//! The answers of one request while they are written: events of the service on their way to one connection.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use super::connection::{Connection, Gone};
use super::problem::Problem;
use crate::error::EngineError;
use crate::request::{Answer, Event, Request};
use crate::service::{Cancel, Service};

/// Events that may wait for a client to read; one that lets more gather is given up.
const MAX_PENDING: usize = 8192;

/// How often a wait looks whether the client is still there.
const TICK: Duration = Duration::from_millis(100);

/// Why nothing more is written.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nobody reads any more.
    Gone,
    /// The answers of this request failed.
    Failed(EngineError),
    /// The service ended.
    Stopped,
}

impl From<Gone> for Ended {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

/// What the service's thread and the connection's thread both see.
#[derive(Debug, Default)]
struct Link {
    pending: AtomicUsize,
    too_slow: AtomicBool,
}

/// Answers that are being written. Dropping it cancels those that are open.
pub(super) struct Writing {
    receiver: Receiver<(usize, Event)>,
    link: Arc<Link>,
    cancels: Vec<Cancel>,
    open: usize,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.cancels.iter().for_each(Cancel::cancel);
    }
}

impl Writing {
    /// Hands all requests over. With `streamed`, each token is an event; otherwise only whole answers are.
    pub(super) fn begin(
        service: &Service,
        requests: impl Iterator<Item = Request>,
        client: u64,
        streamed: bool,
    ) -> Result<Self, Problem> {
        let (sender, receiver) = mpsc::channel();
        let mut writing = Self { receiver, link: Arc::default(), cancels: Vec::new(), open: 0 };
        for (index, request) in requests.enumerate() {
            let (sender, link) = (sender.clone(), Arc::clone(&writing.link));
            let on_event = Box::new(move |event| {
                if matches!(event, Event::Token { .. }) && !streamed {
                    return ControlFlow::Continue(());
                }
                if link.pending.fetch_add(1, Ordering::Relaxed) >= MAX_PENDING {
                    link.too_slow.store(true, Ordering::Relaxed);
                    return ControlFlow::Break(());
                }
                match sender.send((index, event)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
            // What was handed over before a refusal is cancelled when `writing` goes.
            writing.cancels.push(service.submit(request, client, on_event)?);
            writing.open += 1;
        }
        Ok(writing)
    }

    /// The next event; `None` after the last answer.
    pub(super) fn next(&mut self, connection: &Connection<'_>) -> Result<Option<(usize, Event)>, Ended> {
        if self.open == 0 {
            return Ok(None);
        }
        loop {
            match self.receiver.recv_timeout(TICK) {
                Ok((_, Event::Failed(error))) => return Err(Ended::Failed(error)),
                Ok((index, event)) => {
                    self.link.pending.fetch_sub(1, Ordering::Relaxed);
                    self.open -= usize::from(matches!(event, Event::Done(_)));
                    return Ok(Some((index, event)));
                }
                Err(RecvTimeoutError::Timeout) if connection.is_gone() => return Err(Ended::Gone),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.link.too_slow.load(Ordering::Relaxed) => {
                    return Err(Ended::Gone);
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Ended::Stopped),
            }
            if self.link.too_slow.load(Ordering::Relaxed) {
                return Err(Ended::Gone);
            }
        }
    }

    /// All answers, in the order of their requests.
    pub(super) fn whole(mut self, connection: &Connection<'_>) -> Result<Vec<Answer>, Ended> {
        let mut answers: Vec<Option<Answer>> = Vec::new();
        answers.resize(self.open, None);
        while let Some((index, event)) = self.next(connection)? {
            if let Event::Done(answer) = event {
                answers[index] = Some(answer);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }
}
