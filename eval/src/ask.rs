//! Asking an engine: how likely a text is after another, or what it writes. Every evaluation asks through here, leaves and tasks alike.

use std::ops::ControlFlow;
use std::sync::Arc;

use espalier_inference::{
    Answer, Engine, EngineError, NativeEngine, Overflow, Prompt, Request, Sampling, ScoreRequest, SpecialTokens,
};
use serde::{Deserialize, Serialize};

use crate::echo;
use crate::error::EvalError;
use crate::evaluation::sha256;
use crate::run::{ItemAnswer, OnAnswer};
use crate::task::{Item, ItemPrompt, Task};

/// One question to an engine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ask {
    /// How likely is the continuation after the prompt, and is it what the model would write?
    Continuation { prompt: Arc<ItemPrompt>, continuation: String },
    /// How likely is the text, from its first token on?
    Whole { text: String },
    /// What comes after the prompt?
    Text { prompt: Arc<ItemPrompt>, writing: Arc<Writing> },
}

/// How a text is written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Writing {
    /// It ends before the first of these.
    pub(crate) stop: Vec<String>,
    pub(crate) max_tokens: usize,
    /// 0 is greedy.
    pub(crate) temperature: f64,
    pub(crate) top_p: f64,
    pub(crate) top_k: usize,
    pub(crate) seed: u64,
    /// As lm-eval's hf backend: a prompt too long for the window loses its beginning (else it has no answer), and the space that
    /// `SentencePiece` puts in front of a text is no part of it.
    pub(crate) harness: bool,
}

impl Writing {
    /// The likeliest text; a prompt that does not fit has none.
    pub(crate) fn greedy(max_tokens: usize, stop: Vec<String>) -> Self {
        Self { stop, max_tokens, temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0, harness: false }
    }
}

/// What an engine says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Sum of the natural log-probabilities, whether every token is the likeliest, and tokens of the context that did not fit.
    Likelihood { logprob: f64, greedy: bool, cut: usize },
    /// A text, and tokens of the prompt that did not fit.
    Text { text: String, cut: usize },
    /// Why there is none; asking again would not help.
    Failed(String),
}

impl Ask {
    /// What tells this question from every other.
    pub(crate) fn key(&self) -> String {
        let parts = match self {
            Self::Continuation { prompt, continuation } => {
                serde_json::to_string(&("continuation", &**prompt, continuation))
            }
            Self::Whole { text } => serde_json::to_string(&("whole", text)),
            Self::Text { prompt, writing } => serde_json::to_string(&("text", &**prompt, &**writing)),
        };
        sha256(&parts.unwrap_or_default())
    }

    /// How often engines are asked it: as many times as it has tokens at least.
    fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

/// The receiver of replies, each with the place of its question; `Break` ends the asking.
pub(crate) type OnReply<'a> = &'a mut dyn FnMut(usize, Reply) -> ControlFlow<()>;

/// Puts all questions to the engine: first those about given texts, in one call so that prefixes are shared among all, then those
/// for new texts. `task` names the task in errors.
pub(crate) fn ask(engine: &Engine, task: &str, asks: &[&Ask], on_reply: OnReply<'_>) -> Result<(), EvalError> {
    let (texts, scores): (Vec<usize>, Vec<usize>) = (0..asks.len()).partition(|&at| asks[at].is_text());
    if !scores.is_empty() {
        let flow = match engine {
            Engine::Native(native) => score(native, task, asks, &scores, on_reply)?,
            Engine::Servers(_) => echo::score(engine, task, asks, &scores, on_reply)?,
        };
        if flow.is_break() {
            return Ok(());
        }
    }
    write(engine, asks, &texts, on_reply)
}

/// Asks the items of a task: those with choices for the likelihood of each, the others for a text.
pub(crate) fn ask_items(
    engine: &Engine,
    task: &Task,
    items: &[&Item],
    on_answer: OnAnswer<'_>,
) -> Result<(), EvalError> {
    let mut asks = Vec::new();
    // (item, choice) of each question
    let mut places = Vec::new();
    let mut collected: Vec<Vec<Option<f64>>> = Vec::new();
    let writing = Arc::new(Writing::greedy(task.generation.max_tokens, task.generation.stop.clone()));
    for (at, item) in items.iter().enumerate() {
        let prompt = Arc::new(item.prompt.clone());
        if item.choices.is_empty() {
            places.push((at, 0));
            asks.push(Ask::Text { prompt: Arc::clone(&prompt), writing: Arc::clone(&writing) });
        }
        for (choice, text) in item.choices.iter().enumerate() {
            places.push((at, choice));
            let continuation = [item.prompt.delimiter(), text].concat();
            asks.push(Ask::Continuation { prompt: Arc::clone(&prompt), continuation });
        }
        collected.push(vec![None; item.choices.len()]);
    }
    let mut failed = vec![false; items.len()];
    let asks: Vec<&Ask> = asks.iter().collect();
    ask(engine, &task.name, &asks, &mut |index, reply| {
        let (at, choice) = places[index];
        match reply {
            Reply::Text { text, .. } => on_answer(at, ItemAnswer::Text(text)),
            Reply::Likelihood { logprob, .. } => {
                collected[at][choice] = Some(logprob);
                let all: Option<Vec<f64>> = collected[at].iter().copied().collect();
                all.map_or(ControlFlow::Continue(()), |logprobs| on_answer(at, ItemAnswer::Logprobs(logprobs)))
            }
            Reply::Failed(_) if std::mem::replace(&mut failed[at], true) => ControlFlow::Continue(()),
            Reply::Failed(reason) => on_answer(at, ItemAnswer::Failed(reason)),
        }
    })
}

/// Whether only this question is at fault, and asking again would not help.
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

fn write(engine: &Engine, asks: &[&Ask], which: &[usize], on_reply: OnReply<'_>) -> Result<(), EvalError> {
    let requests: Vec<Request> = which
        .iter()
        .filter_map(|&at| {
            let Ask::Text { prompt, writing } = asks[at] else { return None };
            let prompt = match &**prompt {
                ItemPrompt::Chat(messages) => Prompt::Chat(messages.clone()),
                ItemPrompt::Text(text) => Prompt::Text(text.clone()),
            };
            let sampling = Sampling {
                temperature: writing.temperature as f32,
                top_p: writing.top_p as f32,
                top_k: writing.top_k,
                ..Sampling::GREEDY
            };
            let overflow = if writing.harness { Overflow::TruncateLeft } else { Overflow::Refuse };
            let stop = writing.stop.clone();
            Some(Request { stop, sampling, seed: writing.seed, overflow, ..Request::new(prompt, writing.max_tokens) })
        })
        .collect();
    if requests.is_empty() {
        return Ok(());
    }
    let mut failure = None;
    engine.generate(&requests, &mut |at, answer| match answer {
        Ok(answer) => {
            let cut = answer.prompt_tokens_cut;
            let text = match (engine, asks[which[at]]) {
                (Engine::Native(engine), Ask::Text { writing, .. }) if writing.harness => decoded(engine, &answer),
                _ => answer.text,
            };
            on_reply(which[at], Reply::Text { text, cut })
        }
        Err(error) if is_about_the_item(&error) => on_reply(which[at], Reply::Failed(error.to_string())),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// The text of an answer as its tokens alone decode: without the space that `SentencePiece` puts in front of a text.
fn decoded(engine: &NativeEngine, answer: &Answer) -> String {
    let alone = engine.tokenizer().decode(&answer.tokens);
    match answer.text.strip_prefix(' ') {
        Some(rest) if !alone.starts_with(&answer.text) => rest.to_owned(),
        _ => answer.text.clone(),
    }
}

/// A question about a given text while its parts are scored: a long text is scored in windows.
struct Sum {
    logprob: f64,
    greedy: bool,
    cut: usize,
    missing: usize,
}

fn score(
    engine: &NativeEngine,
    task: &str,
    asks: &[&Ask],
    which: &[usize],
    on_reply: OnReply<'_>,
) -> Result<ControlFlow<()>, EvalError> {
    let mut requests = Vec::new();
    // Question and part of each request.
    let mut places = Vec::new();
    let mut sums: Vec<Sum> = Vec::with_capacity(which.len());
    let mut parts: Vec<Vec<f64>> = Vec::with_capacity(which.len());
    for (number, &at) in which.iter().enumerate() {
        let found = match asks[at] {
            Ask::Continuation { prompt, continuation } => continuation_request(engine, prompt, continuation),
            Ask::Whole { text } => Ok((windows(engine, text), 0)),
            Ask::Text { .. } => Ok((Vec::new(), 0)),
        };
        let (of_ask, cut) = match found {
            Ok(found) => found,
            Err(error) if is_about_the_item(&error) => {
                if on_reply(at, Reply::Failed(error.to_string())).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                (Vec::new(), 0)
            }
            Err(error) => return Err(error.into()),
        };
        if of_ask.is_empty()
            && matches!(asks[at], Ask::Whole { .. })
            && on_reply(at, Reply::Failed("the text is empty".to_owned())).is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        sums.push(Sum { logprob: 0.0, greedy: true, cut, missing: of_ask.len() });
        parts.push(vec![0.0; of_ask.len()]);
        places.extend((0..of_ask.len()).map(|part| (number, part)));
        requests.extend(of_ask);
    }
    let mut flow = ControlFlow::Continue(());
    let mut failure = None;
    engine.loglikelihood(&requests, &mut |index, score| {
        let (number, part) = places[index];
        if score.logprob.is_nan() {
            failure = Some(EvalError::NotANumber { task: task.to_owned(), text: start_of(asks[which[number]]) });
            return ControlFlow::Break(());
        }
        let sum = &mut sums[number];
        parts[number][part] = score.logprob;
        sum.greedy &= score.greedy;
        sum.missing -= 1;
        if sum.missing == 0 {
            // In the order of the text, whatever order the windows came in.
            sum.logprob = parts[number].iter().sum();
            let reply = Reply::Likelihood { logprob: sum.logprob, greedy: sum.greedy, cut: sum.cut };
            flow = on_reply(which[number], reply);
        }
        flow
    })?;
    failure.map_or(Ok(flow), Err)
}

/// The last words before what was asked for, to find the item by.
fn start_of(ask: &Ask) -> String {
    let text = match ask {
        Ask::Continuation { continuation, .. } => continuation,
        Ask::Whole { text } => text,
        Ask::Text { .. } => "",
    };
    text.trim().chars().take(60).collect()
}

/// The request for a continuation, and how many tokens of its context the window has no room for: the engine leaves out the
/// oldest, as lm-eval does.
fn continuation_request(
    engine: &NativeEngine,
    prompt: &ItemPrompt,
    continuation: &str,
) -> Result<(Vec<ScoreRequest>, usize), EngineError> {
    let (context, continuation) = match prompt {
        ItemPrompt::Chat(messages) => {
            (engine.render_chat(messages)?, engine.tokenizer().encode(continuation, SpecialTokens::AsText))
        }
        ItemPrompt::Text(text) if text.is_empty() => {
            // The engine puts BOS, or EOS where there is none, in front; it is not scored twice.
            (Vec::new(), engine.tokenizer().encode(continuation, SpecialTokens::Parse))
        }
        ItemPrompt::Text(text) => encode_pair(engine, text, continuation)?,
    };
    let window = engine.context();
    if continuation.len() > window {
        return Err(EngineError::TextTooLong { tokens: continuation.len(), context: window });
    }
    let cut = (context.len() + continuation.len()).saturating_sub(window + 1);
    Ok((vec![ScoreRequest { context, continuation }], cut))
}

/// The tokens of context and continuation as lm-eval cuts them: spaces at the end of the context belong to the continuation, both
/// are encoded together, and the cut is where the context alone would end.
fn encode_pair(engine: &NativeEngine, context: &str, continuation: &str) -> Result<(Vec<u32>, Vec<u32>), EngineError> {
    let trimmed = context.trim_end();
    let continuation = [&context[trimmed.len()..], continuation].concat();
    let mut whole = engine.prompt_tokens(&Prompt::Text([trimmed, &continuation].concat()))?;
    let cut = if trimmed.is_empty() {
        usize::from(engine.tokenizer().adds_bos())
    } else {
        engine.prompt_tokens(&Prompt::Text(trimmed.to_owned()))?.len()
    };
    // A merge across the border may leave the continuation nothing: it gets the last token.
    let continuation = whole.split_off(cut.min(whole.len() - 1));
    Ok((whole, continuation))
}

/// A text in windows, every token scored once: the first window starts with BOS (EOS where there is none), each other with the last
/// token of the one before it and as many more as make it full.
fn windows(engine: &NativeEngine, text: &str) -> Vec<ScoreRequest> {
    let tokenizer = engine.tokenizer();
    let Ok(tokens) = engine.prompt_tokens(&Prompt::Text(text.to_owned())) else { return Vec::new() };
    let start = tokenizer.bos().or_else(|| tokenizer.eos()).into_iter().collect();
    rolling(&tokens, engine.context(), start)
}

fn rolling(tokens: &[u32], window: usize, start: Vec<u32>) -> Vec<ScoreRequest> {
    let first = window.min(tokens.len());
    if first == 0 {
        return Vec::new();
    }
    let mut requests = vec![ScoreRequest { context: start, continuation: tokens[..first].to_vec() }];
    let mut scored = first;
    while scored < tokens.len() {
        let end = tokens.len().min(scored + window);
        let context = tokens[end - window - 1..scored].to_vec();
        requests.push(ScoreRequest { context, continuation: tokens[scored..end].to_vec() });
        scored = end;
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_lm_eval() {
        // make_disjoint_window over get_rolling_token_windows(range(10), prefix_token=99, max_seq_len=4, context_len=1)
        let tokens: Vec<u32> = (0..10).collect();
        let found: Vec<(Vec<u32>, Vec<u32>)> =
            rolling(&tokens, 4, vec![99]).into_iter().map(|request| (request.context, request.continuation)).collect();
        assert_eq!(found, [(vec![99], vec![0, 1, 2, 3]), (vec![3], vec![4, 5, 6, 7]), (vec![5, 6, 7], vec![8, 9]),]);
        assert!(rolling(&[], 4, vec![99]).is_empty());
    }
}
