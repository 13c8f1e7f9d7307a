//! How likely given texts are by a server: it is asked to repeat them with the log-probabilities of their tokens.

use std::ops::ControlFlow;

use espalier_inference::{Echoed, Engine, EngineError, Prompt, Request};

use crate::ask::{Ask, OnReply, Reply, is_about_the_item};
use crate::error::EvalError;
use crate::task::ItemPrompt;

/// Puts questions about given texts to a server. A server that does not repeat texts with log-probabilities ends the asking with its
/// error.
///
/// Tokens are the server's: one counts for the continuation if it ends behind the context (white space at the end of the context
/// belongs to the continuation). A first token has no log-probability, so a text needs a context or a server that puts one in front.
pub(crate) fn score(
    engine: &Engine,
    task: &str,
    asks: &[&Ask],
    which: &[usize],
    on_reply: OnReply<'_>,
) -> Result<ControlFlow<()>, EvalError> {
    let mut requests = Vec::with_capacity(which.len());
    let mut starts = Vec::with_capacity(which.len());
    for &at in which {
        let (text, start) = match asks[at] {
            Ask::Continuation { prompt, continuation } => match &**prompt {
                ItemPrompt::Text(context) => {
                    ([context, continuation.as_str()].concat(), context.trim_end().chars().count())
                }
                ItemPrompt::Chat(_) => return Err(EvalError::NoLogLikelihood { task: task.to_owned() }),
            },
            Ask::Whole { text } => (text.clone(), 0),
            Ask::Text { .. } => (String::new(), 0),
        };
        starts.push((start, text.chars().count()));
        // One token more is what harnesses ask for; servers need not know how to write none.
        requests.push(Request { prompt_logprobs: Some(1), ..Request::new(Prompt::Text(text), 1) });
    }
    let (mut flow, mut failure) = (ControlFlow::Continue(()), None);
    engine.generate(&requests, &mut |number, answer| {
        let (start, length) = starts[number];
        let reply = match answer {
            Ok(answer) => likelihood(&answer.echo, start, length),
            Err(error) if is_about_the_item(&error) => Reply::Failed(error.to_string()),
            Err(error) => {
                failure = Some(error);
                return ControlFlow::Break(());
            }
        };
        flow = on_reply(which[number], reply);
        flow
    })?;
    failure.map_or(Ok(flow), |error: EngineError| Err(error.into()))
}

/// The sum over tokens that end behind `start`, of a text of `length` characters.
fn likelihood(echo: &[Echoed], start: usize, length: usize) -> Reply {
    let ends = echo.iter().skip(1).map(|token| token.offset).chain([length]);
    let counted: Vec<&Echoed> = echo.iter().zip(ends).filter(|(_, end)| *end > start).map(|(token, _)| token).collect();
    let sum: Option<f64> = counted.iter().map(|token| token.logprob).sum();
    match sum {
        Some(logprob) if !counted.is_empty() && !logprob.is_nan() => {
            Reply::Likelihood { logprob, greedy: counted.iter().all(|token| token.likeliest), cut: 0 }
        }
        _ => Reply::Failed("the server gives no log-probability for the first token of a text".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_end_behind_the_context_count() {
        let token = |offset, logprob, likeliest| Echoed { offset, logprob, likeliest };
        // "ab" + " cd" as the tokens "a", "b c", "d": the second one ends behind the context.
        let echo = [token(0, None, false), token(1, Some(-2.0), true), token(4, Some(-0.5), true)];
        assert_eq!(likelihood(&echo, 2, 5), Reply::Likelihood { logprob: -2.5, greedy: true, cut: 0 });
        assert_eq!(likelihood(&echo, 4, 5), Reply::Likelihood { logprob: -0.5, greedy: true, cut: 0 });
        assert!(matches!(likelihood(&echo, 0, 5), Reply::Failed(_)));
        assert!(matches!(likelihood(&[], 0, 5), Reply::Failed(_)));
    }
}
