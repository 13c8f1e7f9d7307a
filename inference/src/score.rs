//! Probabilities of given texts.
//!
//! Scoring walks over the requests as over the leaves of a tree: requests with one context are one item, items are sorted so
//! that neighbours share a prefix, and a *lane* (one sequence) goes from leaf to leaf, stepping back to the branch and reading
//! only what is new. Several lanes share each pass over the weights.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use espalier_kernels::ops::log_sum_exp;
use rayon::prelude::*;

use crate::cache::{Cache, PageTable};
use crate::error::EngineError;
use crate::forward::{Batch, HEAD_ROWS, Workspace, forward};
use crate::native::NativeEngine;
use crate::prefix;
use crate::request::{Score, ScoreRequest, TokenLogprob};
use crate::sampling::{argmax, most_probable};

/// Lanes beyond this gain nothing: they only divide attention among threads, and each reads a shared head once.
const MAX_LANES: usize = 16;

/// The receiver of scores.
pub(crate) type OnScore<'a> = dyn FnMut(usize, Score) -> ControlFlow<()> + 'a;

/// The receiver of the distributions at a continuation's tokens.
pub(crate) type OnDistributions<'a> = dyn FnMut(usize, Vec<TokenLogprob>) -> ControlFlow<()> + 'a;

/// Requests with the same context, which is computed once for all of them.
struct Item<'a> {
    context: &'a [u32],
    /// Index of each request with its continuation.
    continuations: Vec<(usize, &'a [u32])>,
}

/// A token whose probability a row tells.
#[derive(Clone, Copy)]
struct Target {
    request: usize,
    /// Place in the continuation.
    at: usize,
    token: u32,
}

/// A row to be computed.
struct Row {
    position: usize,
    token: u32,
    targets: Vec<Target>,
}

/// One sequence on its way over its items.
struct Lane<'a> {
    items: &'a [Item<'a>],
    /// The context that the table holds.
    context: &'a [u32],
    table: PageTable,
    rows: VecDeque<Row>,
    shares: bool,
}

impl Lane<'_> {
    /// Plans the rows of the next item; `false` when there is none.
    fn plan(&mut self, cache: &Cache) -> bool {
        let Some((item, rest)) = self.items.split_first() else {
            return false;
        };
        self.items = rest;
        let context = item.context;
        let common = if self.shares { prefix::common_prefix(self.context, context).min(context.len() - 1) } else { 0 };
        let shared = cache.shareable(&self.table, common);
        let row = |position, token| Row { position, token, targets: Vec::new() };
        self.rows.extend((shared..context.len()).map(|position| row(position, context[position])));
        if let Some(last) = self.rows.back_mut() {
            let first_tokens =
                item.continuations.iter().map(|&(request, tokens)| Target { request, at: 0, token: tokens[0] });
            last.targets.extend(first_tokens);
        }
        for &(request, tokens) in &item.continuations {
            self.rows.extend(tokens.windows(2).enumerate().map(|(at, pair)| Row {
                position: context.len() + at,
                token: pair[0],
                targets: vec![Target { request, at: at + 1, token: pair[1] }],
            }));
        }
        self.context = context;
        true
    }
}

/// A score that is being summed.
#[derive(Clone, Copy)]
struct Sum {
    logprob: f64,
    greedy: bool,
    missing: usize,
}

/// Scores continuations; see [`NativeEngine::loglikelihood`].
pub(crate) fn loglikelihood(
    engine: &NativeEngine,
    requests: &[ScoreRequest],
    on_score: &mut OnScore<'_>,
) -> Result<(), EngineError> {
    let mut sums: Vec<Sum> = requests
        .iter()
        .map(|request| Sum { logprob: 0.0, greedy: true, missing: request.continuation.len() })
        .collect();
    let measure = |logits: &[f32], targets: &[Target]| -> Vec<(f32, bool)> {
        let normalizer = log_sum_exp(logits);
        let best = argmax(logits) as u32;
        targets.iter().map(|target| (logits[target.token as usize] - normalizer, best == target.token)).collect()
    };
    walk(engine, requests, &measure, &mut |target, (logprob, greedy)| {
        let sum = &mut sums[target.request];
        sum.logprob += f64::from(logprob);
        sum.greedy &= greedy;
        sum.missing -= 1;
        if sum.missing > 0 {
            return ControlFlow::Continue(());
        }
        let tokens = requests[target.request].continuation.len();
        on_score(target.request, Score { logprob: sum.logprob, greedy: sum.greedy, tokens })
    })
}

/// The most probable tokens at each place of continuations; see [`NativeEngine::top_logprobs`].
pub(crate) fn top_logprobs(
    engine: &NativeEngine,
    requests: &[ScoreRequest],
    count: usize,
    among: usize,
    on_answer: &mut OnDistributions<'_>,
) -> Result<(), EngineError> {
    let among = among.min(engine.weights.config.vocabulary);
    let mut found: Vec<Vec<Option<TokenLogprob>>> = vec![Vec::new(); requests.len()];
    let mut missing: Vec<usize> = requests.iter().map(|request| request.continuation.len()).collect();
    let measure = |logits: &[f32], targets: &[Target]| -> Vec<TokenLogprob> {
        let (normalizer, top) = most_probable(logits, count, among);
        let at = |target: &Target| TokenLogprob {
            token: target.token,
            logprob: logits[target.token as usize] - normalizer,
            top: top.clone(),
        };
        targets.iter().map(at).collect()
    };
    walk(engine, requests, &measure, &mut |target, distribution| {
        let (index, length) = (target.request, requests[target.request].continuation.len());
        found[index].resize(length, None);
        found[index][target.at] = Some(distribution);
        missing[index] -= 1;
        if missing[index] > 0 {
            return ControlFlow::Continue(());
        }
        on_answer(index, std::mem::take(&mut found[index]).into_iter().flatten().collect())
    })
}

/// The contexts as the engine reads them: BOS for an empty one, the newest tokens of one too long for the window.
fn contexts<'a>(
    engine: &NativeEngine,
    requests: &'a [ScoreRequest],
    start: &'a [u32],
) -> Result<Vec<&'a [u32]>, EngineError> {
    let window = engine.context();
    let mut contexts = Vec::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        engine.weights.check_tokens(&request.context)?;
        engine.weights.check_tokens(&request.continuation)?;
        let scored = request.continuation.len();
        if scored == 0 {
            return Err(EngineError::EmptyContinuation { index });
        }
        if scored > window {
            return Err(EngineError::TextTooLong { tokens: scored, context: window });
        }
        let context = if request.context.is_empty() { start } else { &request.context };
        if context.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        // The last token of a continuation is scored but never read.
        let room = window + 1 - scored;
        contexts.push(&context[context.len().saturating_sub(room)..]);
    }
    Ok(contexts)
}

/// Computes the logits in front of every token of every continuation and shows what `measure` makes of them.
fn walk<R: Send>(
    engine: &NativeEngine,
    requests: &[ScoreRequest],
    measure: &(impl Fn(&[f32], &[Target]) -> Vec<R> + Sync),
    on_found: &mut impl FnMut(Target, R) -> ControlFlow<()>,
) -> Result<(), EngineError> {
    let tokenizer = engine.tokenizer();
    let start: Vec<u32> = tokenizer.bos().or_else(|| tokenizer.eos()).into_iter().collect();
    let contexts = contexts(engine, requests, &start)?;
    let order = if engine.shares_prefixes {
        let text = |&tokens| prefix::Text { adapter: engine.adapter, tokens, longest_answer: 0 };
        prefix::order(&contexts.iter().map(text).collect::<Vec<_>>())
    } else {
        (0..requests.len()).collect()
    };
    let mut items: Vec<Item<'_>> = Vec::new();
    for index in order {
        let continuation = (index, requests[index].continuation.as_slice());
        match items.last_mut() {
            Some(item) if engine.shares_prefixes && item.context == contexts[index] => {
                item.continuations.push(continuation);
            }
            _ => items.push(Item { context: contexts[index], continuations: vec![continuation] }),
        }
    }

    let mut cache = new_cache(engine);
    let lane_bytes = cache.needed_bytes(0, engine.context(), engine.max_batch_tokens).max(1);
    let lanes = rayon::current_num_threads()
        .min(MAX_LANES)
        .min(engine.cache_bytes() / lane_bytes)
        .min(engine.max_batch_tokens)
        .min(items.len())
        .max(1);
    let mut lanes: Vec<Lane<'_>> = items
        .chunks(items.len().div_ceil(lanes).max(1))
        .map(|items| Lane {
            items,
            context: &[],
            table: cache.table(),
            rows: VecDeque::new(),
            shares: engine.shares_prefixes,
        })
        .collect();
    let mut batch = Batch::default();
    let mut workspace = Workspace::default();
    let mut targets: Vec<Vec<Target>> = Vec::new();
    let mut found: Vec<Vec<R>> = Vec::new();
    let vocabulary = engine.weights.config.vocabulary;
    loop {
        fill(engine, &mut cache, &mut lanes, &mut batch, &mut targets);
        if batch.is_empty() {
            return Ok(());
        }
        forward(&engine.weights, &batch, &mut cache, &mut workspace, &mut |first, logits| {
            let rows = logits.par_chunks(vocabulary).zip(&targets[first..]);
            found.par_extend(rows.map(|(logits, targets)| measure(logits, targets)));
        });
        for (target, result) in targets.drain(..).flatten().zip(found.drain(..).flatten()) {
            if on_found(target, result).is_break() {
                return Ok(());
            }
        }
    }
}

/// Fills a batch from all lanes in equal parts; what one lane does not need goes to those after it.
fn fill(
    engine: &NativeEngine,
    cache: &mut Cache,
    lanes: &mut [Lane<'_>],
    batch: &mut Batch,
    targets: &mut Vec<Vec<Target>>,
) {
    batch.clear();
    let count = lanes.len();
    let mut run = Vec::new();
    for (index, lane) in lanes.iter_mut().enumerate() {
        let mut room = (engine.max_batch_tokens - batch.len()).div_ceil(count - index);
        while room > 0 {
            if lane.rows.is_empty() && !lane.plan(cache) {
                break;
            }
            // Rows up to the next step back are one segment.
            let start = lane.rows.front().map_or(0, |row| row.position);
            while run.len() < room
                && let Some(row) = lane.rows.pop_front_if(|row| row.position == start + run.len())
            {
                run.push((row.token, !row.targets.is_empty()));
                if !row.targets.is_empty() {
                    targets.push(row.targets);
                }
            }
            room -= run.len();
            batch.push(cache, &mut lane.table, engine.adapter, start, lane.context.len(), run.drain(..));
        }
    }
}

fn new_cache(engine: &NativeEngine) -> Cache {
    Cache::new(&engine.weights)
}

/// Runs `tokens` as one sequence; shows the logits of rows from `first_wanted` on, in chunks: `visit(position, rows)`.
fn run_text(engine: &NativeEngine, tokens: &[u32], first_wanted: usize, visit: &mut dyn FnMut(usize, &mut [f32])) {
    let mut cache = new_cache(engine);
    let mut table = cache.table();
    let mut batch = Batch::default();
    let mut workspace = Workspace::default();
    // Whole chunks of the head, where the limit allows.
    let step = engine.max_batch_tokens;
    let step = if step > HEAD_ROWS { step / HEAD_ROWS * HEAD_ROWS } else { step };
    for (part, piece) in tokens.chunks(step).enumerate() {
        batch.clear();
        let start = part * step;
        let rows = piece.iter().enumerate().map(|(offset, &token)| (token, start + offset >= first_wanted));
        batch.push(&mut cache, &mut table, engine.adapter, start, start, rows);
        let shown = start.max(first_wanted);
        forward(&engine.weights, &batch, &mut cache, &mut workspace, &mut |first, logits| {
            visit(shown + first, logits);
        });
    }
}

/// Log-probabilities of a text; see [`NativeEngine::token_logprobs`].
pub(crate) fn token_logprobs(engine: &NativeEngine, tokens: &[u32]) -> Vec<f32> {
    if tokens.len() < 2 {
        return Vec::new();
    }
    if engine.weights.check_tokens(tokens).is_err() {
        return vec![f32::NAN; tokens.len() - 1];
    }
    let window = engine.context();
    let vocabulary = engine.weights.config.vocabulary;
    let mut logprobs = Vec::with_capacity(tokens.len() - 1);
    // The last token is scored but never read, so a window of `window` inputs scores one more token.
    while logprobs.len() + 1 < tokens.len() {
        let done = logprobs.len();
        let start = if done == 0 { 0 } else { (done + 1).saturating_sub(window.div_ceil(2)) };
        let end = (start + window).min(tokens.len() - 1);
        run_text(engine, &tokens[start..end], done - start, &mut |position, logits| {
            let targets = &tokens[start + position + 1..];
            logprobs.par_extend(
                logits
                    .par_chunks(vocabulary)
                    .zip(targets)
                    .map(|(logits, &token)| logits[token as usize] - log_sum_exp(logits)),
            );
        });
    }
    logprobs
}

/// Shows the logits of a text from a position on; see [`NativeEngine::logits_from`].
pub(crate) fn logits_from(
    engine: &NativeEngine,
    tokens: &[u32],
    first: usize,
    visit: &mut dyn FnMut(usize, &[f32]),
) -> Result<(), EngineError> {
    engine.weights.check_tokens(tokens)?;
    let context = engine.context();
    if tokens.len() > context {
        return Err(EngineError::TextTooLong { tokens: tokens.len(), context });
    }
    run_text(engine, tokens, first, &mut |position, logits| visit(position, logits));
    Ok(())
}
