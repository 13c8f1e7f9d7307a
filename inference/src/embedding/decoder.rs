//! Vectors of the models that write.

use std::collections::VecDeque;

use espalier_model::Pooling;

use super::{EmbeddingOptions, OnVector, Pool};
use crate::cache::{Cache, PageTable};
use crate::error::EngineError;
use crate::forward::{Batch, Workspace, hidden_states};
use crate::native::NativeEngine;

/// A text that is being read.
struct Reading<'a> {
    index: usize,
    tokens: &'a [u32],
    adapter: Option<usize>,
    table: PageTable,
    pool: Pool,
}

/// See [`NativeEngine::embed_with_adapter`]. Texts are read one after the other, as many together as a pass has rows.
pub(crate) fn embed(
    engine: &NativeEngine,
    texts: &[Vec<u32>],
    adapter: Option<usize>,
    options: EmbeddingOptions,
    on_vector: &mut OnVector<'_>,
) {
    let pooling = options.pooling.unwrap_or(Pooling::Mean);
    let normalize = options.normalize.unwrap_or(true);
    let width = engine.weights.config.hidden;
    let mut cache = Cache::new(&engine.weights);
    let (mut batch, mut workspace) = (Batch::default(), Workspace::default());
    let mut waiting = texts.iter().enumerate().peekable();
    let mut reading: VecDeque<Reading<'_>> = VecDeque::new();
    loop {
        batch.clear();
        cache.settle();
        // For each state that is asked for, the text among those being read.
        let mut owners = Vec::new();
        for (place, text) in reading.iter_mut().enumerate() {
            push(engine, &mut batch, &mut cache, text, pooling, place, &mut owners);
        }
        while batch.len() < engine.max_batch_tokens
            && let Some(&(index, tokens)) = waiting.peek()
        {
            let needed = match check(engine, &cache, tokens) {
                Ok(needed) => needed,
                Err(error) => {
                    waiting.next();
                    if on_vector(index, Err(error)).is_break() {
                        return;
                    }
                    continue;
                }
            };
            if !reading.is_empty() && cache.used_bytes() + needed > engine.cache_bytes() {
                break;
            }
            let table = cache.table();
            reading.push_back(Reading { index, tokens, adapter, table, pool: Pool::new(pooling, width) });
            waiting.next();
            let place = reading.len() - 1;
            push(engine, &mut batch, &mut cache, &mut reading[place], pooling, place, &mut owners);
        }
        hidden_states(&engine.weights, &batch, &mut cache, &mut workspace, &mut |first, states| {
            for (state, owner) in states.chunks_exact(width).zip(&owners[first..]) {
                reading[*owner].pool.add(state);
            }
        });
        while let Some(text) = reading.pop_front_if(|text| text.table.length() == text.tokens.len()) {
            cache.release(text.table);
            if on_vector(text.index, Ok(text.pool.finish(normalize))).is_break() {
                return;
            }
        }
        if reading.is_empty() && waiting.peek().is_none() {
            return;
        }
    }
}

/// What keys and values of a text take; the error says why it has no vector.
fn check(engine: &NativeEngine, cache: &Cache, tokens: &[u32]) -> Result<usize, EngineError> {
    engine.weights.check_tokens(tokens)?;
    if tokens.is_empty() {
        return Err(EngineError::EmptyPrompt);
    }
    if tokens.len() > engine.context() {
        return Err(EngineError::TextTooLong { tokens: tokens.len(), context: engine.context() });
    }
    let needed = cache.needed_bytes(0, tokens.len(), engine.max_batch_tokens);
    let available = engine.cache_bytes();
    if needed > available {
        return Err(EngineError::TooLargeForMemory { tokens: tokens.len(), needed, available });
    }
    Ok(needed)
}

/// Adds the next rows of a text to the batch, as many as there is room for.
fn push(
    engine: &NativeEngine,
    batch: &mut Batch,
    cache: &mut Cache,
    text: &mut Reading<'_>,
    pooling: Pooling,
    place: usize,
    owners: &mut Vec<usize>,
) {
    let start = text.table.length();
    let end = text.tokens.len().min(start + engine.max_batch_tokens - batch.len());
    let wanted = |position: usize| Pool::wants(pooling, position, text.tokens.len());
    owners.extend((start..end).filter(|position| wanted(*position)).map(|_| place));
    let rows = (start..end).map(|position| (text.tokens[position], wanted(position)));
    batch.push(cache, &mut text.table, text.adapter, start, start, rows);
}
