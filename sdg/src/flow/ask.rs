//! Asking engines: all requests of a wave in one call an engine, kept answers first.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use espalier_inference::{Answer, Request};

use super::cache::{Kept, ResponseCache};
use super::sample::Refused;
use crate::error::SdgError;
use crate::generate::Answerer;

/// Something that answers.
pub struct FlowEngine<'a> {
    /// Names it in rows and in the cache: model, precision, whatever decides its answers.
    pub identity: String,
    /// Answers.
    pub answer: Answerer<'a>,
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

/// Answers to all requests, in their order. Equal requests are asked once.
///
/// `None` where the deadline came before the last answer: those that came are in the cache.
///
/// # Errors
/// What stops the engine, a cache that cannot be written, a stop from outside. What was answered is in the cache.
pub(crate) fn ask_all(
    engine: &mut FlowEngine<'_>,
    requests: Vec<Wanted>,
    cache: &mut ResponseCache,
    stop: &AtomicBool,
    deadline: Option<Instant>,
    on_answer: &mut dyn FnMut(usize, usize),
) -> Result<Option<Vec<Replied>>, SdgError> {
    let keys: Vec<String> = requests.iter().map(|wanted| wanted.request.digest(&engine.identity)).collect();
    let mut first: HashMap<&str, usize> = HashMap::new();
    let (mut open, mut fresh, mut may_fail) = (Vec::new(), Vec::new(), Vec::new());
    let asked = requests.len();
    for (index, wanted) in requests.into_iter().enumerate() {
        let key = keys[index].as_str();
        if cache.get(key).is_none() && !first.contains_key(key) {
            first.insert(key, index);
            open.push(index);
            may_fail.push(wanted.may_fail);
            fresh.push(wanted.request);
        }
    }
    let mut refused: HashMap<&str, Refused> = HashMap::new();
    let mut failure = None;
    let mut answered = 0;
    if !fresh.is_empty() {
        (engine.answer)(&fresh, &mut |index, answer| {
            let key = &keys[open[index]];
            answered += 1;
            let step = match answer {
                Ok(answer) => cache.put(key, Kept::from(answer)).map_err(SdgError::from),
                // A prompt that is too long is the fault of one row; whatever else an engine says stops the run.
                Err(error) if error.is_prompt_too_long() => {
                    refused.insert(key, Refused::new("prompt too long", error.to_string()));
                    Ok(())
                }
                Err(error) if may_fail[index] => {
                    refused.insert(key, Refused::new("refused by the engine", error.to_string()));
                    Ok(())
                }
                Err(error) => Err(error.into()),
            };
            on_answer(answered, fresh.len());
            if let Err(error) = step {
                failure = Some(error);
            } else if stop.load(Ordering::Relaxed) {
                failure = Some(SdgError::Interrupted { done: answered, total: fresh.len() });
            }
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if failure.is_some() || late { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    if let Some(error) = failure {
        return Err(error);
    }
    let reply = |(index, key): (usize, &String)| match (cache.get(key), refused.get(key.as_str())) {
        (Some(kept), _) => Some(Ok(Reply::new(&engine.identity, kept, first.get(key.as_str()) != Some(&index)))),
        (None, refused) => refused.cloned().map(Err),
    };
    let replies: Vec<Option<Replied>> = keys.iter().enumerate().map(reply).collect();
    let missing = replies.iter().filter(|reply| reply.is_none()).count();
    if missing > 0 {
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        return if late { Ok(None) } else { Err(SdgError::Unanswered { missing, asked }) };
    }
    Ok(Some(replies.into_iter().flatten().collect()))
}
