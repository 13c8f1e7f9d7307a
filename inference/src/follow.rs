//! Requests that follow from answers.

use std::ops::ControlFlow;

use crate::error::EngineError;
use crate::request::{Answer, Request};

/// Takes an answer with the index of its request, and gives the requests that follow from it: their indices go on from those
/// before, in the order in which they are given. `Break` ends the call.
pub type Follow<'a> = dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<(), Vec<Request>> + 'a;

/// Whatever answers a list of requests: gets them all, hands over answers in any order; `Break` ends the call.
pub type AnswerAll<'a> = dyn FnMut(&[Request], &mut dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>) -> Result<(), EngineError>
    + 'a;

/// Has requests answered list by list: what follows from the answers to one is the next.
///
/// # Errors
/// Those of `answer_all`.
pub fn in_waves(
    answer_all: &mut AnswerAll<'_>,
    first: Vec<Request>,
    follow: &mut Follow<'_>,
) -> Result<(), EngineError> {
    let (mut wave, mut before) = (first, 0);
    let mut enough = false;
    while !wave.is_empty() && !enough {
        let mut next = Vec::new();
        answer_all(&wave, &mut |index, answer| match follow(before + index, answer) {
            ControlFlow::Continue(mut requests) => {
                next.append(&mut requests);
                ControlFlow::Continue(())
            }
            ControlFlow::Break(()) => {
                enough = true;
                ControlFlow::Break(())
            }
        })?;
        before += wave.len();
        wave = next;
    }
    Ok(())
}
