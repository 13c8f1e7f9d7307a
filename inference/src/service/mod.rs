//! The native engine as a service: requests come in while others are being written, tokens go out as they are chosen.
//!
//! One thread runs the scheduler of [`NativeEngine::generate`]; what it writes is the same, whoever else asks. Clients take
//! turns; of each the oldest request goes first. Keys and values of recent prompts and answers are kept while the memory is not
//! needed, so that a system prompt or a conversation that comes again is not computed again.

mod inbox;

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::error::EngineError;
use crate::native::NativeEngine;
use crate::request::{Counts, Event, Request};
use crate::schedule::{Keep, Scheduler, prepare};

use inbox::{Arrival, Inbox};

/// So many recent texts are kept beside those of the sequences being written.
const KEPT: usize = 64;

/// How much a service takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceOptions {
    /// How many requests may wait for a place; more are refused. At least one may.
    pub max_waiting: usize,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self { max_waiting: 1024 }
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many requests wait as may.
    #[error("{waiting} requests are waiting already; try again later")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The service ends.
    #[error("the engine is stopping and takes no more requests")]
    Stopping,
}

/// What a service is doing, and what it has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait for a place.
    pub waiting: usize,
    /// Requests being read or written.
    pub writing: usize,
    /// What was computed since the start.
    pub counts: Counts,
    /// Memory of keys and values in use, those kept for later prompts included.
    pub cache_used_bytes: usize,
    /// The most that they may take.
    pub cache_bytes: usize,
}

/// The receiver of a request's events.
type OnEvent = Box<dyn FnMut(Event) -> ControlFlow<()> + Send>;

/// A request under way, to be given up when nobody waits for it any more.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Gives the request up before the next step, also while it waits or its prompt is read. No event comes of it.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Who waits for a request.
struct Listener {
    on_event: OnEvent,
    cancelled: Cancel,
}

impl Listener {
    /// Tells an event. A receiver that panics wants no more of them.
    fn tell(&mut self, event: Event) -> ControlFlow<()> {
        catch_unwind(AssertUnwindSafe(|| (self.on_event)(event))).unwrap_or(ControlFlow::Break(()))
    }

    fn is_gone(&self) -> bool {
        self.cancelled.0.load(Ordering::Relaxed)
    }
}

/// An engine that takes requests at any time, from any thread. Dropped, it stops.
pub struct Service {
    engine: Arc<NativeEngine>,
    inbox: Arc<Inbox>,
    options: ServiceOptions,
    /// The scheduler's; taken where its end is waited for.
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Service {
    /// Starts the thread of the scheduler.
    pub fn start(engine: Arc<NativeEngine>, options: ServiceOptions) -> Self {
        let inbox = Arc::new(Inbox::new(options.max_waiting, engine.cache_bytes()));
        let (for_thread, inbox_there) = (Arc::clone(&engine), Arc::clone(&inbox));
        let thread = std::thread::spawn(move || run(&for_thread, &inbox_there));
        Self { engine, inbox, options, thread: Some(thread) }
    }

    /// The engine that it runs.
    pub fn engine(&self) -> &NativeEngine {
        &self.engine
    }

    /// Ends as [`Service::stop`] does, lets `change` change the engine, and starts anew, with nothing kept of earlier texts.
    /// `None` where somebody else holds the engine: then it stays as it was.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut NativeEngine) -> T) -> Option<T> {
        self.inbox.stop();
        if let Some(thread) = self.thread.take() {
            // It holds the engine until its very end. A panic in it was told to those who waited.
            let _ = thread.join();
        }
        let changed = Arc::get_mut(&mut self.engine).map(change);
        *self = Self::start(Arc::clone(&self.engine), self.options);
        changed
    }

    /// Queues a request. `client` is who asks: clients take turns. `on_event` is called on the scheduler's thread, in order; it
    /// must not block. After [`Event::Done`] or [`Event::Failed`] nothing comes; `Break` at a token gives the request up,
    /// and nothing comes after it either. Template, tokenizer and constraint are applied here, on the thread of the caller;
    /// what is wrong with the request comes as [`Event::Failed`].
    ///
    /// # Errors
    /// Too many requests wait, or the service ends.
    pub fn submit(&self, request: Request, client: u64, on_event: OnEvent) -> Result<Cancel, Refused> {
        self.inbox.reserve()?;
        let prepared = catch_unwind(AssertUnwindSafe(|| prepare(&self.engine, &request)))
            .unwrap_or_else(|panic| Err(EngineError::Broken { problem: words_of(&*panic) }));
        let cancelled = Cancel::default();
        let listener = Listener { on_event, cancelled: cancelled.clone() };
        self.inbox.put(Arrival { client, request, prepared, listener });
        Ok(cancelled)
    }

    /// What the service is doing.
    pub fn load(&self) -> Load {
        self.inbox.load()
    }

    /// Takes no more requests, and waits until those that are there have ended.
    pub fn drain(&self) {
        self.inbox.drain();
        self.inbox.wait_for_end();
    }

    /// Ends at once: what is open gets [`Event::Failed`] with [`EngineError::Stopped`]. Waits until all were told; not to be
    /// called from a receiver of events.
    pub fn stop(&self) {
        self.inbox.stop();
        self.inbox.wait_for_end();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.inbox.stop();
    }
}

/// The scheduler's thread. After a panic it tells those who wait and goes on with a scheduler that knows nothing.
fn run(engine: &NativeEngine, inbox: &Inbox) {
    let mut before = Counts::default();
    loop {
        let mut scheduler: Scheduler<'_, Listener> =
            Scheduler::new(engine, Keep::Texts(engine.max_sequences + KEPT), true);
        let panic = catch_unwind(AssertUnwindSafe(|| serve(&mut scheduler, inbox, before))).err();
        let open = scheduler.close();
        let ends = panic.is_none();
        for mut listener in open {
            let error = match &panic {
                None => EngineError::Stopped,
                Some(panic) => EngineError::Broken { problem: words_of(&**panic) },
            };
            let _ = listener.tell(Event::Failed(error));
        }
        before = before + scheduler.counts();
        inbox.report(Load { counts: before, ..Load::default() });
        if ends {
            break;
        }
    }
    inbox.ended();
}

/// Runs until the service is to end.
fn serve(scheduler: &mut Scheduler<'_, Listener>, inbox: &Inbox, before: Counts) {
    while let Some(arrivals) = inbox.take(scheduler.is_idle()) {
        for Arrival { client, request, prepared, listener } in arrivals {
            scheduler.submit(client, listener, Cow::Owned(request), prepared);
        }
        scheduler.cancel(Listener::is_gone);
        scheduler.step(&mut Listener::tell);
        inbox.report(Load {
            waiting: scheduler.waiting(),
            writing: scheduler.active(),
            counts: before + scheduler.counts(),
            cache_used_bytes: scheduler.cache_bytes(),
            cache_bytes: 0,
        });
    }
}

/// What a panic said.
fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
    words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without words".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use espalier_model::Model;

    use super::*;
    use crate::native::EngineOptions;
    use crate::request::Prompt;

    #[test]
    fn whoever_waits_for_an_engine_that_breaks_down_is_told() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin");
        let mut engine =
            NativeEngine::load(&Model::open(path.as_ref()).unwrap(), None, &EngineOptions::default()).unwrap();
        engine.weights.final_norm.clear();
        let service = Service::start(Arc::new(engine), ServiceOptions::default());
        let (sender, receiver) = mpsc::channel();
        for round in 0..3 {
            for client in 0..2 {
                let sender = sender.clone();
                let on_event = move |event| {
                    sender.send(event).unwrap();
                    ControlFlow::Continue(())
                };
                service.submit(Request::new(Prompt::Tokens(vec![5; 9]), 4), client, Box::new(on_event)).unwrap();
            }
            for _ in 0..2 {
                let event = receiver.recv_timeout(Duration::from_mins(2)).unwrap();
                assert!(matches!(event, Event::Failed(EngineError::Broken { .. })), "round {round}: {event:?}");
            }
        }
        service.stop();
    }
}
