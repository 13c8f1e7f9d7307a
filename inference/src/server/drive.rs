//! Carries out the orders of a [`Schedule`]: one thread decides, others wait for servers, the caller's takes the answers.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crate::error::EngineError;
use crate::request::{Answer, Request};

use super::ServerPool;
use super::event::{ServerEvent, ServerNews};
use super::limit::Limit;
use super::schedule::{Bounds, Order, Outcome, Schedule};

/// What a worker found out.
enum Message {
    Settled {
        worker: usize,
        of: (usize, usize, u32),
        outcome: Outcome,
    },
    Probed {
        worker: usize,
        server: usize,
        found: Result<Found, Problem>,
    },
    /// Nobody wants more answers.
    Stop,
}

/// A server that answered a look at it.
pub(super) struct Found {
    pub limit: Limit,
    /// What to say of it when it was not known, or is another one than before.
    pub news: Option<ServerNews>,
}

/// What a look at a server brought instead.
pub(super) enum Problem {
    /// It may be there later.
    Absent(String),
    /// It serves something else.
    Excluded(String),
}

/// What goes to the caller.
enum Said {
    Answer(usize, Result<Answer, EngineError>),
    Event(ServerEvent),
    End(EngineError),
}

/// Where answers go.
pub(super) type OnAnswer<'a> = &'a mut dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>;

/// Sends all requests and hands over every answer once.
pub(super) fn drive(
    pool: &ServerPool,
    requests: &[Request],
    on_answer: OnAnswer<'_>,
    on_event: &mut dyn FnMut(&ServerEvent),
) -> Result<(), EngineError> {
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        let (to_caller, said) = mpsc::channel();
        let (reports, messages) = mpsc::channel();
        let stop = reports.clone();
        let stopped = &stopped;
        scope.spawn(move || {
            let driver = Driver {
                pool,
                requests,
                stopped,
                to_caller,
                reports,
                workers: Vec::new(),
                idle: Vec::new(),
                began: pool.began,
            };
            driver.run(scope, &messages);
        });
        for said in said {
            match said {
                Said::Answer(index, answer) => {
                    if on_answer(index, answer).is_break() {
                        stopped.store(true, Ordering::Relaxed);
                        let _ = stop.send(Message::Stop);
                        return Ok(());
                    }
                }
                Said::Event(event) => on_event(&event),
                Said::End(error) => return Err(error),
            }
        }
        Ok(())
    })
}

struct Driver<'scope, 'env> {
    pool: &'env ServerPool,
    requests: &'env [Request],
    stopped: &'scope AtomicBool,
    to_caller: Sender<Said>,
    /// For the workers: what they find out comes back here.
    reports: Sender<Message>,
    workers: Vec<Sender<Order>>,
    idle: Vec<usize>,
    began: Instant,
}

impl<'scope, 'env: 'scope> Driver<'scope, 'env> {
    fn run(mut self, scope: &'scope Scope<'scope, 'env>, messages: &Receiver<Message>) {
        let options = &self.pool.options;
        let bounds =
            Bounds { attempts: options.attempts, first_pause: options.first_pause, patience: options.patience };
        let seeds = self.requests.iter().map(|request| request.seed);
        let mut schedule = Schedule::new(self.pool.standings(), seeds, bounds, self.now());
        let mut end = None;
        while !schedule.ended() {
            for order in schedule.orders(self.now()) {
                self.give(scope, order);
            }
            self.say(schedule.news());
            end = schedule.given_up(self.now());
            if end.is_some() {
                break;
            }
            match self.wait(messages, schedule.wake(self.now())) {
                None => {}
                Some(Message::Stop) => break,
                Some(Message::Settled { worker, of, outcome }) => {
                    self.idle.push(worker);
                    if let Some((request, answer)) = schedule.settle(of, outcome, self.now()) {
                        // The server's next request first, what the caller does with this answer may take its time.
                        for order in schedule.orders(self.now()) {
                            self.give(scope, order);
                        }
                        let _ = self.to_caller.send(Said::Answer(request, answer));
                    }
                }
                Some(Message::Probed { worker, server, found }) => {
                    self.idle.push(worker);
                    self.probed(&mut schedule, server, found);
                }
            }
        }
        let (standings, events) = schedule.finish(self.now());
        self.pool.keep(standings);
        self.say(events);
        if let Some(error) = end {
            let _ = self.to_caller.send(Said::End(error));
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wait(&self, messages: &Receiver<Message>, until: Option<Duration>) -> Option<Message> {
        match until {
            // The sender that new workers get a copy of lives here: the channel does not close.
            None => messages.recv().ok(),
            Some(until) => messages.recv_timeout(until.saturating_sub(self.now())).ok(),
        }
    }

    fn probed(&self, schedule: &mut Schedule, server: usize, found: Result<Found, Problem>) {
        match found {
            Ok(Found { limit, news: Some(news) }) => {
                schedule.probed(server, Ok(Some(limit)), self.now());
                schedule.tell(server, news);
            }
            Ok(Found { news: None, .. }) => schedule.probed(server, Ok(None), self.now()),
            Err(Problem::Absent(reason)) => schedule.probed(server, Err(reason), self.now()),
            Err(Problem::Excluded(reason)) => schedule.exclude(server, reason),
        }
    }

    fn say(&self, events: Vec<ServerEvent>) {
        for event in events {
            let _ = self.to_caller.send(Said::Event(event));
        }
    }

    /// Gives an order to a worker that has none, or to one more.
    fn give(&mut self, scope: &'scope Scope<'scope, 'env>, order: Order) {
        let worker = self.idle.pop().unwrap_or_else(|| {
            let worker = self.workers.len();
            let (sender, orders) = mpsc::channel();
            self.workers.push(sender);
            let (pool, requests, stopped) = (self.pool, self.requests, self.stopped);
            let reports = self.reports.clone();
            scope.spawn(move || {
                for order in orders {
                    let message = match order {
                        Order::Send { server, request, episode } => {
                            let outcome = pool.ask(server, &requests[request], stopped);
                            Message::Settled { worker, of: (server, request, episode), outcome }
                        }
                        Order::Probe { server } => Message::Probed { worker, server, found: pool.look_at(server) },
                    };
                    if reports.send(message).is_err() {
                        return;
                    }
                }
            });
            worker
        });
        // A worker ends with its channel alone.
        let _ = self.workers[worker].send(order);
    }
}
