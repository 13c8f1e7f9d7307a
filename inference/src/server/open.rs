//! Opening a pool: who is there, and whether they serve the same.

use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::EngineError;

use super::address::{Address, addresses};
use super::ask::Server;
use super::event::{ServerEvent, ServerNews};
use super::exchange::Client;
use super::health::Health;
use super::inspect::{Absent, Profile, inspect};
use super::schedule::Standing;
use super::{Member, ServerKind, ServerOptions, ServerPool};

impl ServerPool {
    /// A pool of the servers of a list like `http://127.0.0.1:8080,http://127.0.0.1:8081`, each with or without `/v1`. `key`
    /// gives the value of an environment variable: `ESPALIER_API_KEY_2` for the second server, else `ESPALIER_API_KEY`.
    ///
    /// All servers are asked what they are. Those that are not there are waited for while the others work; where none is, the
    /// call fails at once, unless one is there and not ready yet.
    ///
    /// # Errors
    /// A URL that is not plain http, options that are zero, no server, one that is none or does not serve the model, servers of
    /// different kinds or models.
    pub fn open(list: &str, key: &dyn Fn(&str) -> Option<String>, options: ServerOptions) -> Result<Self, EngineError> {
        options.check()?;
        let addresses = addresses(list, key)?;
        let client = Client::new(options.timeouts(), options.concurrency.saturating_mul(addresses.len()));
        let began = Instant::now();
        let profiles = profiles(&client, &addresses, &options)?;
        let kind = same_kind(&addresses, &profiles)?;
        let model = same_model(&addresses, &profiles, options.model.as_deref())?;
        let (mut members, mut standings, mut news) = (Vec::new(), Vec::new(), Vec::new());
        for (address, profile) in addresses.into_iter().zip(profiles) {
            let url = address.url.clone();
            let mut server = None;
            let (health, limit, what) = match profile {
                Ok(profile) => {
                    // A server that lists nothing is asked for the name as it was given.
                    let own = profile.own_name(options.model.as_deref().unwrap_or(&model)).unwrap_or_default();
                    let (limit, found) = (options.limit(&profile), options.found(&profile, &own));
                    server = Some(Arc::new(Server::new(&profile, own)));
                    (Health::up(), limit, found)
                }
                Err(reason) => {
                    let pause = options.first_pause;
                    let limit = super::Limit::climbing(1, options.concurrency);
                    let health = Health::absent(reason.clone(), began.elapsed() + pause);
                    (health, limit, ServerNews::Aside { reason, pause })
                }
            };
            news.push(ServerEvent { url: url.clone(), what });
            standings.push(Standing { url, health, limit, estimated: false });
            members.push(Member { address, server: RwLock::new(server) });
        }
        let identity = format!("{}:{model}", kind.name());
        let (standings, news) = (Mutex::new(standings), Mutex::new(news));
        Ok(Self { members, kind, model, identity, options, client, began, standings, news })
    }
}

impl Server {
    pub(super) fn new(profile: &Profile, model: String) -> Self {
        Self { kind: profile.kind, base: profile.base.clone(), model, forms: super::form::TakenForms::default() }
    }
}

/// What each server said, or why it said nothing; at least one said something.
fn profiles(
    client: &Client,
    addresses: &[Address],
    options: &ServerOptions,
) -> Result<Vec<Result<Profile, String>>, EngineError> {
    let began = Instant::now();
    let mut pause = options.first_pause;
    loop {
        let looks: Vec<Result<Profile, Absent>> = thread::scope(|scope| {
            let looks: Vec<_> = addresses.iter().map(|address| scope.spawn(move || inspect(client, address))).collect();
            let absent = || Err(Absent::Gone("the look at it failed".to_owned()));
            looks.into_iter().map(|look| look.join().unwrap_or_else(|_| absent())).collect()
        });
        let starting = looks.iter().any(|look| matches!(look, Err(Absent::NotReady(_))));
        let mut profiles = Vec::new();
        for look in looks {
            match look {
                Ok(profile) => profiles.push(Ok(profile)),
                Err(Absent::Gone(reason) | Absent::NotReady(reason)) => profiles.push(Err(reason)),
                Err(Absent::Wrong(error)) => return Err(error),
            }
        }
        if profiles.iter().any(Result::is_ok) {
            return Ok(profiles);
        }
        if !starting || began.elapsed() + pause > options.patience {
            let reason = |(address, profile): (&Address, Result<Profile, String>)| {
                format!("{}: {}", address.url, profile.err().unwrap_or_default())
            };
            return Err(EngineError::ServersGone {
                patience: Some(if starting { options.patience } else { Duration::ZERO }),
                unanswered: 0,
                servers: addresses.iter().zip(profiles).map(reason).collect(),
            });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// The kind of all servers that are there.
fn same_kind(addresses: &[Address], profiles: &[Result<Profile, String>]) -> Result<ServerKind, EngineError> {
    let kinds: Vec<(&Address, ServerKind)> = addresses
        .iter()
        .zip(profiles)
        .filter_map(|(address, profile)| Some((address, profile.as_ref().ok()?.kind)))
        .collect();
    let first = kinds.first().map_or(ServerKind::Other, |(_, kind)| *kind);
    if kinds.iter().all(|(_, kind)| *kind == first) {
        return Ok(first);
    }
    Err(EngineError::DifferentServers {
        what: "kinds",
        servers: kinds.iter().map(|(address, kind)| format!("{}: {kind}", address.url)).collect(),
    })
}

/// The plain name of the model that was asked for, or of the first that all servers list.
fn same_model(
    addresses: &[Address],
    profiles: &[Result<Profile, String>],
    asked: Option<&str>,
) -> Result<String, EngineError> {
    let there: Vec<(&Address, &Profile)> = addresses
        .iter()
        .zip(profiles)
        .filter_map(|(address, profile)| Some((address, profile.as_ref().ok()?)))
        .collect();
    if let Some(asked) = asked {
        if let Some((address, profile)) = there.iter().find(|(_, profile)| profile.own_name(asked).is_none()) {
            return Err(EngineError::ModelNotServed {
                url: address.url.clone(),
                model: asked.to_owned(),
                served: profile.served(),
            });
        }
        return Ok(there.first().map_or(asked, |(_, profile)| profile.kind.plain_name(asked)).to_owned());
    }
    let Some((first, profile)) = there.first() else {
        return Ok(String::new());
    };
    let Some(models) = &profile.models else {
        // A word that servers of one model ignore.
        return Ok("default".to_owned());
    };
    let by_all = |names: &&Vec<String>| there.iter().all(|(_, other)| other.own_name(&names[0]).is_some());
    match models.iter().find(by_all) {
        Some(names) => Ok(profile.kind.plain_name(&names[0]).to_owned()),
        None if there.len() == 1 => Err(EngineError::ModelNotServed {
            url: first.url.clone(),
            model: "any model".to_owned(),
            served: profile.served(),
        }),
        None => Err(EngineError::DifferentServers {
            what: "models",
            servers: there.iter().map(|(address, profile)| format!("{}: {}", address.url, profile.served())).collect(),
        }),
    }
}
