//! A client for servers that speak the `OpenAI` protocol, one or many: llama-server, vLLM, Ollama, LM Studio and others.
//!
//! Conversations go to `/v1/chat/completions`, texts and tokens to `/v1/completions`. All requests stand in one queue and a
//! server takes the next one when it has room ([`schedule`]); how many it gets at once is what it says or what is found out
//! ([`limit`]); one that fails is put aside and looked at again ([`health`]). What differs between the kinds of servers stands
//! in one table ([`kind`]).
//!
//! Results depend on the kind of the servers and on the model, not on which of them answered: a pool is of one kind and one
//! model, and these two are its identity. Keys come from the environment, go to the servers, and are shown nowhere.

mod address;
mod ask;
mod drive;
mod event;
mod exchange;
mod form;
mod health;
mod inspect;
mod kind;
mod limit;
mod open;
mod options;
mod protocol;
mod schedule;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use crate::error::EngineError;
use crate::request::{Answer, Request};

use address::Address;
use ask::Server;
use drive::{Found, Problem};
use exchange::Client;
use health::Severity;
use inspect::{Absent, inspect};
use limit::Limit;
use schedule::{Outcome, Standing};

pub use event::{ServerEvent, ServerNews};
pub use kind::ServerKind;
pub use options::ServerOptions;

/// Servers of one kind with one model, as an engine.
#[derive(Debug)]
pub struct ServerPool {
    members: Vec<Member>,
    kind: ServerKind,
    /// The model's name without what differs between servers.
    model: String,
    identity: String,
    options: ServerOptions,
    client: Client,
    began: Instant,
    /// What is known of the servers from one call to the next.
    standings: Mutex<Vec<Standing>>,
    /// What happened before the first call.
    news: Mutex<Vec<ServerEvent>>,
}

/// A server of the pool.
#[derive(Debug)]
struct Member {
    address: Address,
    /// `None` as long as it has not answered.
    server: RwLock<Option<Arc<Server>>>,
}

impl ServerPool {
    /// Kind and model.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The model's name, without folder, registry and ending.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Sends all requests. Answers and failures arrive as they end, each request's once, with its index; what happens to
    /// servers goes to `on_event`. After a `Break` nothing new is sent; what is under way is waited for and dropped.
    ///
    /// # Errors
    /// All servers are gone and stay so for [`ServerOptions::patience`]. What was answered until then was handed over. What is
    /// wrong with one request goes to its own answer.
    pub fn generate(
        &self,
        requests: &[Request],
        on_answer: &mut dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>,
        on_event: &mut dyn FnMut(&ServerEvent),
    ) -> Result<(), EngineError> {
        let news = std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
        news.iter().for_each(&mut *on_event);
        let fields: BTreeSet<&str> =
            requests.iter().flat_map(|request| protocol::left_out(request, self.kind)).collect();
        if !fields.is_empty() {
            let fields: Vec<&str> = fields.into_iter().collect();
            let what = ServerNews::LeftOut { kind: self.kind, fields: fields.join(", ") };
            on_event(&ServerEvent { url: self.members[0].address.url.clone(), what });
        }
        drive::drive(self, requests, on_answer, on_event)
    }

    fn standings(&self) -> Vec<Standing> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, standings: Vec<Standing>) {
        *self.standings.lock().unwrap_or_else(PoisonError::into_inner) = standings;
    }

    fn ask(&self, server: usize, request: &Request, stopped: &AtomicBool) -> Outcome {
        let member = &self.members[server];
        let known = member.server.read().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(server) => ask::answer(&self.client, &member.address, &server, request, stopped),
            None => Outcome::Failed(Severity::Dead, "it has not said what it serves".to_owned()),
        }
    }

    /// Looks whether a server is back, and still what it was.
    fn look_at(&self, server: usize) -> Result<Found, Problem> {
        let member = &self.members[server];
        let profile = inspect(&self.client, &member.address).map_err(|absent| match absent {
            Absent::Gone(reason) | Absent::NotReady(reason) => Problem::Absent(reason),
            Absent::Wrong(error) => Problem::Excluded(error.to_string()),
        })?;
        if profile.kind != self.kind {
            let problem = format!("it is {}, the others are {}; results depend on the kind", profile.kind, self.kind);
            return Err(Problem::Excluded(problem));
        }
        let Some(model) = profile.own_name(&self.model) else {
            return Err(Problem::Excluded(format!("it does not serve {}; it serves {}", self.model, profile.served())));
        };
        let mut known = member.server.write().unwrap_or_else(PoisonError::into_inner);
        let news = match &*known {
            Some(known) if known.model == model && known.base == profile.base => None,
            _ => Some(self.options.found(&profile, &model)),
        };
        if news.is_some() {
            *known = Some(Arc::new(Server::new(&profile, model)));
        }
        Ok(Found { limit: self.options.limit(&profile), news })
    }
}
