//! One request at one server: the form that it takes, the look at the answer, the second try.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::constraint::Constraint;
use crate::error::EngineError;
use crate::request::{Answer, Finish, Request};

use super::address::Address;
use super::exchange::{Client, Reply};
use super::form::{Form, TakenForms};
use super::health::Severity;
use super::kind::ServerKind;
use super::protocol::{beginning, body, once_more, parse_answer, remedy};
use super::schedule::Outcome;

/// A server that is there.
#[derive(Debug)]
pub(super) struct Server {
    pub kind: ServerKind,
    pub base: String,
    /// Its name of the model.
    pub model: String,
    pub forms: TakenForms,
}

/// An answer, or how the request ended without one.
type Asked = Result<Answer, Box<Outcome>>;

/// Asks for an answer in the form that was asked for. What comes is checked, and asked for once more when it does not fit.
pub(super) fn answer(
    client: &Client,
    address: &Address,
    server: &Server,
    request: &Request,
    stopped: &AtomicBool,
) -> Outcome {
    let ask = |request: &Request| match &request.constraint {
        None => ask(client, address, server, request, Form::Fields),
        Some(constraint) => ask_in_form(client, address, server, request, constraint),
    };
    let in_its_form = |constraint: &Constraint| -> Asked {
        constraint.validate().map_err(|problem| Outcome::Refused(constraint.broken(problem)))?;
        let first = ask(request)?;
        // Nobody waits for it any more: whether it fits is all the same.
        if stopped.load(Ordering::Relaxed) {
            return Ok(first);
        }
        let again = match fitting(first, constraint) {
            Ok(answer) => return Ok(answer),
            Err((text, problem)) => once_more(request, &text, constraint, &problem),
        };
        fitting(ask(&again)?, constraint).map_err(|(text, problem)| {
            let (url, answer) = (address.url.clone(), beginning(&text));
            Outcome::Refused(EngineError::Unfit { url, kind: constraint.kind(), problem, answer }).into()
        })
    };
    let asked = match &request.constraint {
        None => ask(request),
        Some(constraint) => in_its_form(constraint),
    };
    match asked {
        Ok(answer) => Outcome::Answered(answer),
        Err(outcome) => *outcome,
    }
}

/// Asks with the form in the words that the server takes: where it refuses the request, with fewer.
fn ask_in_form(
    client: &Client,
    address: &Address,
    server: &Server,
    request: &Request,
    constraint: &Constraint,
) -> Asked {
    let mut form = server.forms.first(constraint, server.kind.words());
    let mut refused = None;
    loop {
        let outcome = match ask(client, address, server, request, form) {
            Ok(answer) => {
                if refused.is_some() {
                    server.forms.took(constraint, form);
                }
                return Ok(answer);
            }
            Err(outcome) => *outcome,
        };
        match outcome {
            Outcome::Refused(error) if may_be_the_form(&error) => {
                let first = refused.take().unwrap_or(error);
                let Some(next) = form.next(constraint) else {
                    return Err(Outcome::Refused(first).into());
                };
                refused = Some(first);
                form = next;
            }
            outcome => return Err(outcome.into()),
        }
    }
}

/// Whether a request may pass with another form: a server that does not know one, or not this schema, says 400 and the like.
fn may_be_the_form(error: &EngineError) -> bool {
    matches!(error, EngineError::Status { status: 400 | 422 | 501, .. }) && !error.is_prompt_too_long()
}

/// One exchange.
fn ask(client: &Client, address: &Address, server: &Server, request: &Request, form: Form) -> Asked {
    let (path, body) = body(request, &server.model, server.kind, form).map_err(Outcome::Refused)?;
    let url = format!("{}/{path}", server.base);
    let Reply { status, text, retry_after: wished } =
        client.post(address, &url, &body).map_err(|no_reply| Outcome::Failed(no_reply.severity, no_reply.reason))?;
    let said = || format!("the server answered {status}: {}", beginning(&text));
    let outcome = match status {
        200..300 => match parse_answer(&text, request) {
            Ok(answer) => return Ok(answer),
            Err(missing) => {
                let start = beginning(&text);
                let reason = format!("the answer is not in the OpenAI form: {missing}; it starts: {start}");
                Outcome::Failed(Severity::Broken, reason)
            }
        },
        401 | 403 => Outcome::Excluded(format!("{}; {}", said(), remedy(status))),
        429 | 503 => Outcome::Busy { overloaded: status == 429, wished, reason: said() },
        // 501 says that it will never know how.
        500 | 502 | 504.. | 408 | 425 => Outcome::Failed(Severity::Broken, said()),
        _ => Outcome::Refused(EngineError::Status { url, status, body: beginning(&text), remedy: remedy(status) }),
    };
    Err(outcome.into())
}

/// The answer without fences around it, or its text and what is wrong with it. One that was cut off is what it is.
fn fitting(answer: Answer, constraint: &Constraint) -> Result<Answer, (String, String)> {
    if answer.finish == Finish::Length {
        return Ok(answer);
    }
    let text = constraint.unwrap(&answer.text).to_owned();
    match constraint.check(&text) {
        Ok(()) => Ok(Answer { text, ..answer }),
        Err(problem) => Err((answer.text, problem)),
    }
}
