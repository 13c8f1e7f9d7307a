//! Where callers leave requests for the scheduler's thread.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Listener, Load, Refused};
use crate::error::EngineError;
use crate::request::{Event, Request};
use crate::schedule::Prepared;

/// A request that the scheduler has not seen yet.
pub(super) struct Arrival {
    pub(super) client: u64,
    pub(super) request: Request,
    pub(super) prepared: Result<Prepared, EngineError>,
    pub(super) listener: Listener,
}

/// How far a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// Ends what is there.
    Draining,
    /// Ends at once.
    Stopping,
    Ended,
}

struct Inner {
    state: State,
    /// Requests that a caller is preparing.
    reserved: usize,
    arrived: Vec<Arrival>,
    /// As the scheduler last reported it.
    load: Load,
}

impl Inner {
    fn waiting(&self) -> usize {
        self.reserved + self.arrived.len() + self.load.waiting
    }
}

/// What callers and the scheduler's thread share.
pub(super) struct Inbox {
    max_waiting: usize,
    cache_bytes: usize,
    inner: Mutex<Inner>,
    /// Something has changed.
    changed: Condvar,
}

impl Inbox {
    pub(super) fn new(max_waiting: usize, cache_bytes: usize) -> Self {
        let inner = Inner { state: State::Running, reserved: 0, arrived: Vec::new(), load: Load::default() };
        Self { max_waiting: max_waiting.max(1), cache_bytes, inner: Mutex::new(inner), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that panics runs under the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure of a place among those that wait; [`Self::put`] takes it.
    pub(super) fn reserve(&self) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.state != State::Running {
            return Err(Refused::Stopping);
        }
        let waiting = inner.waiting();
        if waiting >= self.max_waiting {
            return Err(Refused::QueueFull { waiting });
        }
        inner.reserved += 1;
        Ok(())
    }

    /// Hands over a request for which there is a place.
    pub(super) fn put(&self, mut arrival: Arrival) {
        let mut inner = self.lock();
        inner.reserved -= 1;
        if matches!(inner.state, State::Running | State::Draining) {
            inner.arrived.push(arrival);
            self.changed.notify_all();
        } else {
            drop(inner);
            let _ = arrival.listener.tell(Event::Failed(EngineError::Stopped));
        }
    }

    /// What has arrived. Waits for something while the scheduler has nothing to do; `None` when it is to end. What has arrived
    /// by then is told so.
    pub(super) fn take(&self, idle: bool) -> Option<Vec<Arrival>> {
        let mut inner = self.lock();
        loop {
            match inner.state {
                State::Stopping | State::Ended => break,
                State::Draining if idle && inner.arrived.is_empty() && inner.reserved == 0 => break,
                _ if idle && inner.arrived.is_empty() => {
                    inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
                }
                State::Running | State::Draining => {
                    inner.load.waiting += inner.arrived.len();
                    return Some(std::mem::take(&mut inner.arrived));
                }
            }
        }
        inner.state = State::Stopping;
        let arrived = std::mem::take(&mut inner.arrived);
        drop(inner);
        for mut arrival in arrived {
            let _ = arrival.listener.tell(Event::Failed(EngineError::Stopped));
        }
        None
    }

    pub(super) fn report(&self, load: Load) {
        self.lock().load = load;
    }

    pub(super) fn load(&self) -> Load {
        let inner = self.lock();
        Load { waiting: inner.waiting(), cache_bytes: self.cache_bytes, ..inner.load }
    }

    pub(super) fn drain(&self) {
        self.change(State::Draining, &[State::Running]);
    }

    pub(super) fn stop(&self) {
        self.change(State::Stopping, &[State::Running, State::Draining]);
    }

    pub(super) fn ended(&self) {
        self.change(State::Ended, &[State::Running, State::Draining, State::Stopping]);
    }

    fn change(&self, to: State, from: &[State]) {
        let mut inner = self.lock();
        if from.contains(&inner.state) {
            inner.state = to;
        }
        self.changed.notify_all();
    }

    pub(super) fn wait_for_end(&self) {
        let mut inner = self.lock();
        while inner.state != State::Ended {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
