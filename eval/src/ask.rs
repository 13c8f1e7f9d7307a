//! Asking an engine: choices by log-likelihood, questions by a generated answer.

use std::ops::ControlFlow;

use espalier_inference::SpecialTokens;
use espalier_inference::{Engine, EngineError, NativeEngine, Prompt, Request, ScoreRequest};

use crate::error::EvalError;
use crate::run::{ItemAnswer, OnAnswer};
use crate::task::{Item, ItemPrompt, Task};

/// Asks the engine: first the items with choices, then the others.
pub(crate) fn ask(engine: &Engine, task: &Task, items: &[&Item], on_answer: OnAnswer<'_>) -> Result<(), EvalError> {
    let (choices, texts): (Vec<usize>, Vec<usize>) = (0..items.len()).partition(|&at| !items[at].choices.is_empty());
    if !choices.is_empty() {
        let Engine::Native(native) = engine else {
            return Err(EvalError::NoLogLikelihood { task: task.name.clone() });
        };
        if rank_choices(native, items, &choices, on_answer)?.is_break() {
            return Ok(());
        }
    }
    let requests: Vec<Request> = texts
        .iter()
        .map(|&at| {
            let prompt = match &items[at].prompt {
                ItemPrompt::Chat(messages) => Prompt::Chat(messages.clone()),
                ItemPrompt::Text(text) => Prompt::Text(text.clone()),
            };
            Request { stop: task.generation.stop.clone(), ..Request::new(prompt, task.generation.max_tokens) }
        })
        .collect();
    if requests.is_empty() {
        return Ok(());
    }
    let mut failure = None;
    engine.generate(&requests, &mut |at, answer| match answer {
        Ok(answer) => on_answer(texts[at], ItemAnswer::Text(answer.text)),
        Err(error) if is_about_the_item(&error) => on_answer(texts[at], ItemAnswer::Failed(error.to_string())),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// Whether only this item is at fault, and asking again would not help.
pub(crate) fn is_about_the_item(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::PromptTooLong { .. }
            | EngineError::TextTooLong { .. }
            | EngineError::EmptyPrompt
            | EngineError::EmptyContinuation { .. }
            | EngineError::Model(_)
    )
}

fn rank_choices(
    engine: &NativeEngine,
    items: &[&Item],
    which: &[usize],
    on_answer: OnAnswer<'_>,
) -> Result<ControlFlow<()>, EvalError> {
    let mut requests = Vec::new();
    // (item, choice) of each request
    let mut places = Vec::new();
    let mut collected: Vec<Vec<Option<f64>>> = vec![Vec::new(); items.len()];
    for &at in which {
        match choice_requests(engine, items[at]) {
            Ok(of_item) => {
                collected[at] = vec![None; of_item.len()];
                places.extend((0..of_item.len()).map(|choice| (at, choice)));
                requests.extend(of_item);
            }
            Err(error) if is_about_the_item(&error) => {
                if on_answer(at, ItemAnswer::Failed(error.to_string())).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut flow = ControlFlow::Continue(());
    engine.loglikelihood(&requests, &mut |index, score| {
        let (at, choice) = places[index];
        collected[at][choice] = Some(score.logprob);
        let all: Option<Vec<f64>> = collected[at].iter().copied().collect();
        flow = all.map_or(ControlFlow::Continue(()), |logprobs| on_answer(at, ItemAnswer::Logprobs(logprobs)));
        flow
    })?;
    Ok(flow)
}

/// One request a choice. A context beyond the window loses its beginning, as in lm-eval.
fn choice_requests(engine: &NativeEngine, item: &Item) -> Result<Vec<ScoreRequest>, EngineError> {
    let window = engine.context();
    item.choices
        .iter()
        .map(|choice| {
            let (mut context, continuation) = match &item.prompt {
                ItemPrompt::Chat(messages) => {
                    (engine.render_chat(messages)?, engine.tokenizer().encode(choice, SpecialTokens::AsText))
                }
                ItemPrompt::Text(text) => encode_pair(engine, text, &[item.prompt.delimiter(), choice].concat())?,
            };
            let tokens = context.len() + continuation.len();
            if continuation.len() >= window {
                return Err(EngineError::TextTooLong { tokens: continuation.len(), context: window });
            }
            context.drain(..tokens.saturating_sub(window));
            Ok(ScoreRequest { context, continuation })
        })
        .collect()
}

/// The tokens of context and continuation as lm-eval cuts them: spaces at the end of the context belong to the continuation, both
/// are encoded together, and the cut is where the context alone would end.
fn encode_pair(engine: &NativeEngine, context: &str, continuation: &str) -> Result<(Vec<u32>, Vec<u32>), EngineError> {
    let trimmed = context.trim_end();
    let continuation = [&context[trimmed.len()..], continuation].concat();
    let mut whole = engine.prompt_tokens(&Prompt::Text([trimmed, &continuation].concat()))?;
    let cut = if trimmed.is_empty() { 0 } else { engine.prompt_tokens(&Prompt::Text(trimmed.to_owned()))?.len() };
    // A merge across the border may leave the continuation nothing: it gets the last token.
    let continuation = whole.split_off(cut.min(whole.len() - 1));
    Ok((whole, continuation))
}
