//! Which server gets which request, and when: a state without threads, sockets or clock.
//!
//! All requests stand in one queue. A server takes the next one when it has room, so that a fast one takes more. A request
//! whose server failed goes back to the front, and to another server where one works. The driver carries out the orders and
//! reports each outcome once; every request is delivered once.

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::EngineError;
use crate::request::Answer;

use super::event::{ServerEvent, ServerNews};
use super::health::{Health, Severity, pause};
use super::limit::Limit;

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Send a request to a server; the episode comes back with the outcome.
    Send { server: usize, request: usize, episode: u32 },
    /// Look whether a server is back.
    Probe { server: usize },
}

/// How a request ended at a server.
#[derive(Debug)]
pub(super) enum Outcome {
    /// With an answer.
    Answered(Answer),
    /// The request itself cannot be answered: no server is asked again.
    Refused(EngineError),
    /// The server failed: another one is asked.
    Failed(Severity, String),
    /// The server has too much to do (`true`) or is not ready, and asks for a pause.
    Busy { overloaded: bool, wished: Option<Duration>, reason: String },
    /// The server refuses us and will go on to.
    Excluded(String),
}

/// A request that has ended.
pub(super) type Delivery = (usize, Result<Answer, EngineError>);

/// What is known of a server from one call to the next.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub url: String,
    pub health: Health,
    pub limit: Limit,
    /// Whether it was said that its token counts are estimates.
    pub estimated: bool,
}

#[derive(Debug, Default)]
struct Served {
    under_way: usize,
    answers: usize,
    tokens: usize,
    failed: usize,
}

#[derive(Debug, Default)]
struct Job {
    seed: u64,
    attempts: u32,
    last_failed_at: Option<usize>,
    /// Before this time it does not go to the server that it failed at.
    not_before: Duration,
    reasons: Vec<String>,
}

/// Bounds of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub attempts: u32,
    pub first_pause: Duration,
    pub patience: Duration,
}

/// The state of a call.
#[derive(Debug)]
pub(super) struct Schedule {
    servers: Vec<(Standing, Served)>,
    jobs: Vec<Job>,
    /// Requests that were not sent yet.
    queue: VecDeque<usize>,
    /// Those that came back: they go first.
    returned: Vec<usize>,
    /// Requests that are not delivered.
    open: usize,
    bounds: Bounds,
    began: Duration,
    /// When the last server went, if no answer has come since.
    gone_since: Option<Duration>,
    events: Vec<ServerEvent>,
}

impl Schedule {
    /// A call with requests of these seeds; `now` is the time of this and all further calls from one beginning.
    pub(super) fn new(
        servers: Vec<Standing>,
        seeds: impl IntoIterator<Item = u64>,
        bounds: Bounds,
        now: Duration,
    ) -> Self {
        let jobs: Vec<Job> = seeds.into_iter().map(|seed| Job { seed, ..Job::default() }).collect();
        Self {
            servers: servers.into_iter().map(|standing| (standing, Served::default())).collect(),
            queue: (0..jobs.len()).collect(),
            returned: Vec::new(),
            open: jobs.len(),
            jobs,
            bounds,
            began: now,
            gone_since: None,
            events: Vec::new(),
        }
    }

    /// Whether every request is delivered.
    pub(super) fn ended(&self) -> bool {
        self.open == 0
    }

    /// What is to be done now.
    pub(super) fn orders(&mut self, now: Duration) -> Vec<Order> {
        let mut orders = Vec::new();
        for (server, (standing, _)) in self.servers.iter_mut().enumerate() {
            if standing.health.awake(now) {
                orders.push(Order::Probe { server });
            }
        }
        while let Some((server, request)) = self.next(now) {
            let (standing, served) = &mut self.servers[server];
            served.under_way += 1;
            orders.push(Order::Send { server, request, episode: standing.health.episode() });
        }
        if !self.anybody() {
            self.gone_since.get_or_insert(now);
        }
        orders
    }

    /// The server with most room to its size that has something to take, and what it takes.
    fn next(&mut self, now: Duration) -> Option<(usize, usize)> {
        let mut free: Vec<(usize, f64)> = (0..self.servers.len())
            .filter_map(|server| {
                let (standing, served) = &self.servers[server];
                let most = if standing.health.is_on_trial() { 1 } else { standing.limit.at_once() };
                let room = standing.health.is_usable() && served.under_way < most;
                room.then(|| (server, served.under_way as f64 / most as f64))
            })
            .collect();
        free.sort_by(|one, other| one.1.total_cmp(&other.1));
        free.into_iter().find_map(|(server, _)| Some((server, self.take_for(server, now)?)))
    }

    /// A request that came back from another server, or that this one failed some time ago where no other works; else the
    /// next of the queue.
    fn take_for(&mut self, server: usize, now: Duration) -> Option<usize> {
        let another = self.servers.iter().enumerate().any(|(at, (other, _))| at != server && other.health.is_usable());
        let may = |request: &usize| {
            let job = &self.jobs[*request];
            job.last_failed_at != Some(server) || (!another && job.not_before <= now)
        };
        match self.returned.iter().position(may) {
            Some(place) => Some(self.returned.remove(place)),
            None => self.queue.pop_front(),
        }
    }

    /// Whether anything is under way or could be.
    fn anybody(&self) -> bool {
        self.servers.iter().any(|(standing, served)| {
            served.under_way > 0 || standing.health.is_usable() || standing.health.is_probing()
        })
    }

    /// Takes the outcome of a [`Order::Send`]; the request, if it has ended with it.
    pub(super) fn settle(
        &mut self,
        (server, request, episode): (usize, usize, u32),
        outcome: Outcome,
        now: Duration,
    ) -> Option<Delivery> {
        let (standing, served) = &mut self.servers[server];
        let full = served.under_way >= standing.limit.at_once();
        served.under_way -= 1;
        let job = &mut self.jobs[request];
        let jitter = jitter(job.seed, job.attempts);
        let pauses = (self.bounds.first_pause, jitter);
        match outcome {
            Outcome::Answered(answer) => {
                served.answers += 1;
                served.tokens += answer.new_tokens();
                // An empty answer was work too.
                let step = standing.limit.answered(answer.new_tokens().max(1), full, now);
                let news = answer.is_estimated() && !std::mem::replace(&mut standing.estimated, answer.is_estimated());
                self.alive(server);
                if news {
                    self.tell(server, ServerNews::Estimated);
                }
                if let Some(step) = step {
                    self.tell(server, ServerNews::Concurrency { from: step.from, to: step.to, reason: step.reason });
                }
                return self.deliver(request, Ok(answer));
            }
            Outcome::Refused(error) => {
                self.alive(server);
                return self.deliver(request, Err(error));
            }
            Outcome::Failed(severity, reason) => {
                served.failed += 1;
                job.not_before = now + pause(self.bounds.first_pause, job.attempts, jitter);
                job.attempts += 1;
                job.last_failed_at = Some(server);
                job.reasons.push(format!("{}: {reason}", standing.url));
                let pause = standing.health.failed((severity, &reason), episode, pauses, now);
                if let Some(pause) = pause {
                    self.tell(server, ServerNews::Aside { reason, pause });
                }
                if self.jobs[request].attempts >= self.bounds.attempts {
                    let reasons = std::mem::take(&mut self.jobs[request].reasons);
                    let error = EngineError::GivenUp { attempts: reasons.len(), reasons: counted(reasons) };
                    return self.deliver(request, Err(error));
                }
            }
            Outcome::Busy { overloaded, wished, reason } => {
                let step = if overloaded { standing.limit.step_back(&reason) } else { None };
                let pause = standing.health.busy((wished, &reason), episode, pauses, now);
                job.last_failed_at = Some(server);
                if let Some(step) = step.filter(|_| pause.is_some()) {
                    self.tell(server, ServerNews::Concurrency { from: step.from, to: step.to, reason: step.reason });
                }
                if let Some(pause) = pause {
                    self.tell(server, ServerNews::Aside { reason, pause });
                }
            }
            Outcome::Excluded(reason) => self.exclude(server, reason),
        }
        self.returned.push(request);
        None
    }

    /// Takes the outcome of a [`Order::Probe`]: the server's limit anew where it has been started anew, or what is wrong.
    pub(super) fn probed(&mut self, server: usize, result: Result<Option<Limit>, String>, now: Duration) {
        let (standing, _) = &mut self.servers[server];
        let pauses = (self.bounds.first_pause, jitter(server as u64, standing.health.episode()));
        match result {
            Ok(limit) => {
                standing.health.probed(Ok(()), pauses, now);
                if let Some(limit) = limit {
                    standing.limit = limit;
                }
            }
            Err(reason) => {
                if let Some(pause) = standing.health.probed(Err(&reason), pauses, now) {
                    self.tell(server, ServerNews::Aside { reason, pause });
                }
            }
        }
    }

    /// Never asks this server again.
    pub(super) fn exclude(&mut self, server: usize, reason: String) {
        let health = &mut self.servers[server].0.health;
        if !health.is_excluded() {
            health.exclude(&reason);
            self.tell(server, ServerNews::Excluded { reason });
        }
    }

    fn alive(&mut self, server: usize) {
        self.gone_since = None;
        if self.servers[server].0.health.answered() {
            self.tell(server, ServerNews::Back);
        }
    }

    fn deliver(&mut self, request: usize, answer: Result<Answer, EngineError>) -> Option<Delivery> {
        self.open -= 1;
        Some((request, answer))
    }

    pub(super) fn tell(&mut self, server: usize, what: ServerNews) {
        self.events.push(ServerEvent { url: self.servers[server].0.url.clone(), what });
    }

    /// What has happened since the last call of this.
    pub(super) fn news(&mut self) -> Vec<ServerEvent> {
        std::mem::take(&mut self.events)
    }

    /// When [`Self::orders`] or [`Self::given_up`] have something to say without an outcome.
    pub(super) fn wake(&self, now: Duration) -> Option<Duration> {
        let end = self.gone_since.filter(|_| !self.anybody()).map(|since| since + self.bounds.patience);
        let due = self.servers.iter().filter_map(|(standing, _)| standing.health.due());
        let waiting = self.returned.iter().map(|&request| self.jobs[request].not_before);
        due.chain(waiting.filter(|until| *until > now)).chain(end).min()
    }

    /// Why the call ends without its answers: no server is left, or none came back in time.
    pub(super) fn given_up(&self, now: Duration) -> Option<EngineError> {
        if self.ended() || self.anybody() {
            return None;
        }
        let excluded = self.servers.iter().all(|(standing, _)| standing.health.is_excluded());
        let since = self.gone_since.unwrap_or(now);
        if !excluded && now < since + self.bounds.patience {
            return None;
        }
        let reasons =
            self.servers.iter().map(|(standing, _)| format!("{}: {}", standing.url, standing.health.last_error()));
        Some(EngineError::ServersGone {
            patience: if excluded { None } else { Some(self.bounds.patience) },
            unanswered: self.open,
            servers: reasons.collect(),
        })
    }

    /// The figures of the call, and what the next one should know.
    pub(super) fn finish(mut self, now: Duration) -> (Vec<Standing>, Vec<ServerEvent>) {
        let elapsed = now.saturating_sub(self.began);
        for server in 0..self.servers.len() {
            let Served { answers, tokens, failed, .. } = self.servers[server].1;
            if answers + failed > 0 {
                self.tell(server, ServerNews::Served { answers, tokens, elapsed, failed });
            }
        }
        let events = self.news();
        (self.servers.into_iter().map(|(standing, _)| standing).collect(), events)
    }
}

/// A number in 0..1 that follows from a request's seed and how often it was tried (a step of `SplitMix64`).
fn jitter(seed: u64, attempt: u32) -> f64 {
    let mut mixed = seed.wrapping_add(u64::from(attempt).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Each reason once, with how often it was given.
fn counted(reasons: Vec<String>) -> Vec<String> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for reason in reasons {
        match counts.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => counts.push((reason, 1)),
        }
    }
    let words = |(reason, count)| if count == 1 { reason } else { format!("{reason} ({count} times)") };
    counts.into_iter().map(words).collect()
}

#[cfg(test)]
mod tests;
