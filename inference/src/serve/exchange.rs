//! One request and its response: what all endpoints that write texts have in common.

use serde_json::Value;

use super::Served;
use super::connection::{Connection, Gone, Reply};
use super::head::Head;
use super::problem::Problem;
use super::writing::{Ended, Writing};
use crate::request::{Answer, Event};

/// A request that is being answered.
pub(super) struct Exchange<'e, 'c> {
    pub(super) served: &'e Served,
    pub(super) connection: &'e mut Connection<'c>,
    pub(super) head: &'e Head,
    /// Whose turn it is when requests of several wait.
    pub(super) client: u64,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) status: u16,
    pub(super) keep_alive: bool,
    pub(super) prompt_tokens: usize,
    pub(super) new_tokens: usize,
}

/// Why a request has no whole answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Nothing was sent yet: the problem is the response.
    Problem(Problem),
    /// The stream ended with an error.
    Cut,
    /// Nobody reads.
    Gone,
}

impl From<Problem> for Unanswered {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Gone> for Unanswered {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

/// What an end means where nothing was sent yet; `prompt` is the field that holds the prompt.
fn unanswered(ended: &Ended, prompt: &str) -> Unanswered {
    match ended {
        Ended::Gone => Unanswered::Gone,
        Ended::Failed(error) => Unanswered::Problem(Problem::of_engine(error, prompt)),
        Ended::Stopped => Unanswered::Problem(Problem::stopping()),
    }
}

impl<'c> Exchange<'_, 'c> {
    /// Sends a response that is there as a whole.
    pub(super) fn reply(&mut self, reply: &Reply) -> Result<Sent, Unanswered> {
        let keep_alive = self.head.keeps_alive() && !self.served.is_stopping();
        self.connection.respond(reply, keep_alive)?;
        Ok(Sent { status: reply.status, keep_alive, prompt_tokens: 0, new_tokens: 0 })
    }

    /// Sends a response that has its `usage`.
    pub(super) fn answer(&mut self, response: &Value) -> Result<Sent, Unanswered> {
        let sent = self.reply(&Reply::json(200, response))?;
        Ok(sent.of(&response["usage"]))
    }

    /// Waits for all answers; `prompt` is the field that holds the prompt.
    pub(super) fn whole(&mut self, writing: Writing, prompt: &str) -> Result<Vec<Answer>, Unanswered> {
        writing.whole(self.connection).map_err(|ended| unanswered(&ended, prompt))
    }

    /// Answers that are sent as they are written.
    pub(super) fn stream<'s>(&'s mut self, writing: Writing, prompt: &'static str) -> Stream<'s, 'c> {
        let keep_alive = self.head.keeps_alive_after_stream() && !self.served.is_stopping();
        Stream { connection: self.connection, head: self.head, writing, prompt, begun: false, keep_alive }
    }
}

impl Sent {
    /// With the counts of a `usage`.
    fn of(self, usage: &Value) -> Self {
        let count = |name: &str| usage[name].as_u64().unwrap_or(0) as usize;
        Self { prompt_tokens: count("prompt_tokens"), new_tokens: count("completion_tokens"), ..self }
    }
}

/// A response that is sent event by event. Its head goes out with the first one: until then a failure has its own status.
pub(super) struct Stream<'s, 'c> {
    connection: &'s mut Connection<'c>,
    head: &'s Head,
    writing: Writing,
    prompt: &'static str,
    begun: bool,
    keep_alive: bool,
}

impl Stream<'_, '_> {
    /// What happened next; `None` after the last answer.
    pub(super) fn next(&mut self) -> Result<Option<(usize, Event)>, Unanswered> {
        match self.writing.next(self.connection) {
            Ok(event) => Ok(event),
            Err(ended) => match unanswered(&ended, self.prompt) {
                Unanswered::Problem(problem) if self.begun => {
                    self.connection.event(self.head, &problem.to_json().to_string())?;
                    self.connection.end_stream(self.head)?;
                    Err(Unanswered::Cut)
                }
                unanswered => Err(unanswered),
            },
        }
    }

    /// Sends one event.
    pub(super) fn send(&mut self, value: &Value) -> Result<(), Unanswered> {
        if !std::mem::replace(&mut self.begun, true) {
            self.connection.begin_stream(self.head)?;
        }
        Ok(self.connection.event(self.head, &value.to_string())?)
    }

    /// Ends the response, whose `usage` this is.
    pub(super) fn end(self, usage: &Value) -> Result<Sent, Unanswered> {
        self.connection.end_stream(self.head)?;
        Ok(Sent { status: 200, keep_alive: self.keep_alive, prompt_tokens: 0, new_tokens: 0 }.of(usage))
    }
}
