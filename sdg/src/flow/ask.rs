//! Asking engines: kept answers first, then what follows from answers while others are being written.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use espalier_inference::{Answer, AnswerAll, EngineError, Follow, Request, in_waves};

use super::cache::{Kept, ResponseCache};
use super::sample::Refused;
use crate::error::SdgError;

/// Something that answers.
pub struct FlowEngine<'a> {
    /// Names it in rows and in the cache: model, precision, whatever decides its answers.
    identity: String,
    way: Way<'a>,
}

/// How an engine is asked.
enum Way<'a> {
    /// List by list: what follows from the answers to one is the next.
    InWaves(&'a mut AnswerAll<'a>),
    /// What follows from an answer joins those that are being answered.
    Following(&'a mut AnswerFollowing<'a>),
}

/// Whatever answers requests and those that follow from the answers.
pub type AnswerFollowing<'a> = dyn FnMut(Vec<Request>, &mut Follow<'_>) -> Result<(), EngineError> + 'a;

impl<'a> FlowEngine<'a> {
    /// One that gets a list of requests, and the next list when all of it is answered.
    pub fn in_waves(identity: impl Into<String>, answer: &'a mut AnswerAll<'a>) -> Self {
        Self { identity: identity.into(), way: Way::InWaves(answer) }
    }

    /// One that takes requests while it answers others.
    pub fn following(identity: impl Into<String>, answer: &'a mut AnswerFollowing<'a>) -> Self {
        Self { identity: identity.into(), way: Way::Following(answer) }
    }
}

impl std::fmt::Debug for FlowEngine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowEngine").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Engines by the names that blocks call them. Where there is no [`JUDGE`], the [`TEACHER`] judges.
pub type FlowEngines<'a> = BTreeMap<String, FlowEngine<'a>>;

/// The engine that writes.
pub const TEACHER: &str = "teacher";
/// The engine that judges, unless a block names another.
pub const JUDGE: &str = "judge";

/// The name of the engine that a block gets who asks for `wanted`.
pub(crate) fn engine_for(wanted: &str, is_there: impl Fn(&str) -> bool) -> Option<&str> {
    let instead = (wanted == JUDGE).then_some(TEACHER);
    [Some(wanted), instead].into_iter().flatten().find(|name| is_there(name))
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) engine: String,
    pub(crate) answer: Answer,
    /// Tokens of the answer; from a server, a quarter of its bytes.
    pub(crate) answer_tokens: usize,
    /// Whether it was known: from an earlier run, or from an equal request.
    pub(crate) cached: bool,
}

/// An answer, or why this row gets none.
pub(crate) type Replied = Result<Reply, Refused>;

impl Reply {
    fn new(engine: &str, kept: &Kept, cached: bool) -> Self {
        Self { engine: engine.to_owned(), answer: kept.answer(), answer_tokens: kept.answer_tokens, cached }
    }
}

/// A request, and whether an engine that cannot follow it may say so without ending the run.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) request: Request,
    pub(crate) may_fail: bool,
}

/// A request with where its answer goes.
pub(crate) struct Asked<P> {
    pub(crate) place: P,
    pub(crate) wanted: Wanted,
}

/// What is heard while an engine answers.
pub(crate) enum Heard<P> {
    /// What became of a request.
    Reply { place: P, replied: Box<Replied> },
    /// How many of the requests that the engine got are answered.
    Progress { done: usize, total: usize },
}

/// Takes what is heard, and gives what the same engine is asked next.
pub(crate) type OnHeard<'a, P> = dyn FnMut(Heard<P>) -> Result<Vec<Asked<P>>, SdgError> + 'a;

/// Has an engine answer requests and those that follow from the answers, kept answers first. Equal requests are asked once.
///
/// `false` where the deadline came before the last answer: those that came are in the cache.
///
/// # Errors
/// What stops the engine, a cache that cannot be written, a stop from outside. What was answered is in the cache.
pub(crate) fn ask<P: Copy>(
    engine: &mut FlowEngine<'_>,
    asked: Vec<Asked<P>>,
    cache: &mut ResponseCache,
    stop: &AtomicBool,
    deadline: Option<Instant>,
    on_heard: &mut OnHeard<'_, P>,
) -> Result<bool, SdgError> {
    let FlowEngine { identity, way } = engine;
    let waiting = HashMap::new();
    let mut asking = Asking { identity, cache, on_heard, sent: Vec::new(), waiting, refused: HashMap::new(), asked: 0 };
    let is_late = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
    let (mut failure, mut done) = (None, 0);
    let first = asking.take(asked)?;
    if !first.is_empty() {
        let follow: &mut Follow<'_> = &mut |index, answer| {
            done += 1;
            let next = asking.answer(index, answer, done);
            let total = asking.sent.len();
            match next {
                Err(error) => failure = Some(error),
                Ok(_) if stop.load(Ordering::Relaxed) => failure = Some(SdgError::Interrupted { done, total }),
                Ok(next) if !is_late() => return ControlFlow::Continue(next),
                Ok(_) => {}
            }
            ControlFlow::Break(())
        };
        match way {
            Way::InWaves(answer_all) => in_waves(answer_all, first, follow)?,
            Way::Following(answer) => answer(first, follow)?,
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    let missing = asking.waiting.values().map(Vec::len).sum();
    match missing {
        0 => Ok(true),
        _ if is_late() => Ok(false),
        _ => Err(SdgError::Unanswered { missing, asked: asking.asked }),
    }
}

/// Requests on their way to an engine and back.
struct Asking<'a, P> {
    identity: &'a str,
    cache: &'a mut ResponseCache,
    on_heard: &'a mut OnHeard<'a, P>,
    /// What the engine got, in the order of its indices.
    sent: Vec<Sent>,
    /// Who waits for each request under way.
    waiting: HashMap<String, Vec<P>>,
    refused: HashMap<String, Refused>,
    /// All requests, those that were known or equal counted too.
    asked: usize,
}

/// A request that the engine got.
struct Sent {
    key: String,
    may_fail: bool,
}

impl<P: Copy> Asking<'_, P> {
    /// Replies to what is known; gives what the engine has to answer.
    fn take(&mut self, asked: Vec<Asked<P>>) -> Result<Vec<Request>, SdgError> {
        let mut fresh = Vec::new();
        let mut open = VecDeque::from(asked);
        while let Some(Asked { place, wanted }) = open.pop_front() {
            self.asked += 1;
            let key = wanted.request.digest(self.identity);
            if let Some(places) = self.waiting.get_mut(&key) {
                places.push(place);
            } else if let Some(replied) = self.known(&key, true) {
                open.extend((self.on_heard)(Heard::Reply { place, replied: Box::new(replied) })?);
            } else {
                self.waiting.insert(key.clone(), vec![place]);
                self.sent.push(Sent { key, may_fail: wanted.may_fail });
                fresh.push(wanted.request);
            }
        }
        Ok(fresh)
    }

    /// What is known of a request.
    fn known(&self, key: &str, cached: bool) -> Option<Replied> {
        match (self.cache.get(key), self.refused.get(key)) {
            (Some(kept), _) => Some(Ok(Reply::new(self.identity, kept, cached))),
            (None, refused) => refused.cloned().map(Err),
        }
    }

    /// Takes the answer number `done`; gives what the engine has to answer next.
    fn answer(
        &mut self,
        index: usize,
        answer: Result<Answer, EngineError>,
        done: usize,
    ) -> Result<Vec<Request>, SdgError> {
        let Sent { key, may_fail } = &self.sent[index];
        let key = key.clone();
        match answer {
            Ok(answer) => self.cache.put(&key, Kept::from(answer))?,
            // A prompt that is too long is the fault of one row; whatever else an engine says stops the run.
            Err(error) if error.is_prompt_too_long() => {
                self.refused.insert(key.clone(), Refused::new("prompt too long", error.to_string()));
            }
            Err(error) if *may_fail => {
                self.refused.insert(key.clone(), Refused::new("refused by the engine", error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
        let total = self.sent.len();
        let mut next = (self.on_heard)(Heard::Progress { done, total })?;
        for (at, place) in self.waiting.remove(&key).unwrap_or_default().into_iter().enumerate() {
            if let Some(replied) = self.known(&key, at > 0) {
                next.append(&mut (self.on_heard)(Heard::Reply { place, replied: Box::new(replied) })?);
            }
        }
        self.take(next)
    }
}
