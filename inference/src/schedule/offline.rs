//! A list of requests, all known before the first is computed.

use std::borrow::Cow;
use std::ops::ControlFlow;

use rayon::prelude::*;

use crate::error::EngineError;
use crate::native::NativeEngine;
use crate::prefix;
use crate::request::{Answer, Counts, Event, Request};
use crate::schedule::{Prepared, Scheduler, prepare};

/// The receiver of answers.
pub(crate) type OnAnswer<'a> = dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()> + 'a;

/// Answers all requests; see [`NativeEngine::generate`].
pub(crate) fn generate(engine: &NativeEngine, requests: &[Request], on_answer: &mut OnAnswer<'_>) -> Counts {
    let mut prepared: Vec<Option<Result<Prepared, EngineError>>> =
        requests.par_iter().map(|request| Some(prepare(engine, request))).collect();
    let order: Vec<usize> = if engine.shares_prefixes {
        let texts: Vec<prefix::Text<'_>> = prepared.iter().zip(requests).map(text).collect();
        prefix::order(&texts)
    } else {
        (0..requests.len()).collect()
    };
    let mut scheduler = Scheduler::new(engine, 1, false);
    for index in order {
        if let Some(prepared) = prepared[index].take() {
            scheduler.submit(0, index, Cow::Borrowed(&requests[index]), prepared);
        }
    }
    let mut enough = false;
    while !enough && !scheduler.is_idle() {
        scheduler.step(&mut |index, event| {
            let flow = match event {
                _ if enough => ControlFlow::Break(()),
                Event::Token { .. } => ControlFlow::Continue(()),
                Event::Done(answer) => on_answer(*index, Ok(answer)),
                Event::Failed(error) => on_answer(*index, Err(error)),
            };
            enough |= flow.is_break();
            flow
        });
    }
    scheduler.counts()
}

/// What decides a request's place in the order; one that is refused has none.
fn text<'a>((prepared, request): (&'a Option<Result<Prepared, EngineError>>, &Request)) -> prefix::Text<'a> {
    match prepared {
        Some(Ok(Prepared { adapter, prompt, .. })) => {
            prefix::Text { adapter: *adapter, tokens: prompt, longest_answer: request.max_tokens }
        }
        _ => prefix::Text { adapter: None, tokens: &[], longest_answer: 0 },
    }
}
