//! A list of requests, known before the first is computed, and those that follow from answers.

use std::borrow::Cow;
use std::ops::ControlFlow;

use rayon::prelude::*;

use crate::error::EngineError;
use crate::follow::Follow;
use crate::native::NativeEngine;
use crate::prefix;
use crate::request::{Answer, Counts, Event, Request};
use crate::schedule::{Keep, Prepared, Scheduler, prepare};

/// The receiver of answers.
pub(crate) type OnAnswer<'a> = dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()> + 'a;

/// Answers all requests; see [`NativeEngine::generate`].
pub(crate) fn generate(engine: &NativeEngine, requests: &[Request], on_answer: &mut OnAnswer<'_>) -> Counts {
    let requests = requests.iter().map(Cow::Borrowed).collect();
    answer(engine, requests, &mut |index, answer| match on_answer(index, answer) {
        ControlFlow::Continue(()) => ControlFlow::Continue(Vec::new()),
        ControlFlow::Break(()) => ControlFlow::Break(()),
    })
}

/// Answers requests and what follows from the answers; see [`NativeEngine::generate_following`].
pub(crate) fn generate_following(engine: &NativeEngine, requests: Vec<Request>, follow: &mut Follow<'_>) -> Counts {
    answer(engine, requests.into_iter().map(Cow::Owned).collect(), follow)
}

fn answer<'a>(engine: &'a NativeEngine, requests: Vec<Cow<'a, Request>>, follow: &mut Follow<'_>) -> Counts {
    let mut scheduler = Scheduler::new(engine, Keep::Beginnings, false);
    let mut asked = requests.len();
    submit(engine, &mut scheduler, requests, 0);
    let mut enough = false;
    while !enough && !scheduler.is_idle() {
        let mut next = Vec::new();
        scheduler.step(&mut |index, event| {
            let answer = match event {
                _ if enough => return ControlFlow::Break(()),
                Event::Token { .. } => return ControlFlow::Continue(()),
                Event::Done(answer) => Ok(answer),
                Event::Failed(error) => Err(error),
            };
            match follow(*index, answer) {
                ControlFlow::Continue(requests) => next.extend(requests.into_iter().map(Cow::Owned)),
                ControlFlow::Break(()) => enough = true,
            }
            if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let first = asked;
        asked += next.len();
        submit(engine, &mut scheduler, next, first);
    }
    scheduler.counts()
}

/// Queues requests, the first of which has the index `first`, in an order in which neighbours share the most.
fn submit<'a>(
    engine: &'a NativeEngine,
    scheduler: &mut Scheduler<'a, usize>,
    requests: Vec<Cow<'a, Request>>,
    first: usize,
) {
    let mut prepared: Vec<Option<Result<Prepared, EngineError>>> =
        requests.par_iter().map(|request| Some(prepare(engine, request))).collect();
    let order: Vec<usize> = if engine.shares_prefixes {
        let texts: Vec<prefix::Text<'_>> = prepared.iter().zip(&requests).map(text).collect();
        prefix::order(&texts)
    } else {
        (0..requests.len()).collect()
    };
    let mut requests: Vec<Option<Cow<'a, Request>>> = requests.into_iter().map(Some).collect();
    for index in order {
        if let (Some(prepared), Some(request)) = (prepared[index].take(), requests[index].take()) {
            scheduler.submit(0, first + index, request, prepared);
        }
    }
}

/// What decides a request's place in the order; one that is refused has none.
fn text<'a>((prepared, request): (&'a Option<Result<Prepared, EngineError>>, &Cow<'_, Request>)) -> prefix::Text<'a> {
    match prepared {
        Some(Ok(Prepared { adapter, prompt, .. })) => {
            prefix::Text { adapter: *adapter, tokens: prompt, longest_answer: request.max_tokens }
        }
        _ => prefix::Text { adapter: None, tokens: &[], longest_answer: 0 },
    }
}
