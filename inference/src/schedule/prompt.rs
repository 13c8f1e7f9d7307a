//! From a request to the prompt that the model will see.

use crate::cache::Cache;
use crate::error::EngineError;
use crate::native::NativeEngine;
use crate::request::Request;
use crate::schedule::waiting::most_positions;

/// A request's prompt, with everything about the request checked.
pub(crate) struct Prepared {
    /// Which of the engine's adapters writes the answer.
    pub(crate) adapter: Option<usize>,
    pub(crate) prompt: Vec<u32>,
    /// Tokens of the prompt that were taken away because it did not fit.
    pub(crate) cut: usize,
}

/// Applies template, tokenizer and overflow rule, and finds out what is wrong with a request before anything is computed.
pub(crate) fn prepare(engine: &NativeEngine, request: &Request) -> Result<Prepared, EngineError> {
    let named: Vec<u32> = request
        .sampling
        .logit_bias
        .iter()
        .map(|&(token, _)| token)
        .chain(request.stop_tokens.iter().copied())
        .collect();
    engine.weights.check_tokens(&named)?;
    if let Some(constraint) = &request.constraint {
        engine.shelf.check(engine.tokenizer(), constraint)?;
    }
    let adapter = engine.adapter_of(request)?;
    let mut prompt = engine.tokens_of(&request.prompt, adapter)?;
    let context = engine.context();
    // The last token of a text that is only scored is never read.
    let fits = request.max_tokens == 0 && prompt.len() <= context + 1;
    let cut = if fits {
        0
    } else {
        request.overflow.fit(&mut prompt, request.max_tokens, context, engine.tokenizer().bos())?
    };
    let positions = most_positions(request, prompt.len(), context);
    let needed = Cache::new(&engine.weights).needed_bytes(0, positions, engine.max_batch_tokens);
    let available = engine.cache_bytes();
    if needed > available {
        return Err(EngineError::TooLargeForMemory { tokens: positions, needed, available });
    }
    Ok(Prepared { adapter, prompt, cut })
}
