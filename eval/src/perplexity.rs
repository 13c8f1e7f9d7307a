//! Perplexity of a text, cut and counted as llama.cpp's `llama-perplexity` does it.

use std::ops::ControlFlow;

use espalier_inference::SpecialTokens;
use espalier_inference::{NativeEngine, ScoreRequest};
use serde::{Deserialize, Serialize};

use crate::error::EvalError;

/// The perplexity of a text under a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// exp(mean negative log-likelihood); comparable only between models of one tokenizer.
    pub perplexity: f64,
    /// Standard error of `perplexity`, from the spread of the windows' means; NaN for a single window.
    pub standard_error: f64,
    /// Mean negative natural log-likelihood of a token.
    pub mean_nll: f64,
    /// The same in bits for each byte of the text, comparable between tokenizers.
    pub bits_per_byte: f64,
    /// Windows scored.
    pub windows: usize,
    /// Tokens scored.
    pub tokens: usize,
}

/// The default window of `llama-perplexity`, in tokens.
pub const WINDOW: usize = 512;

/// The text's tokens are cut into windows of `window` tokens, what remains is left out; in each, where the model wants BOS, the
/// first token is replaced by it; scored are the tokens after the middle one (255 of 512), so that each has at least half a window
/// before it. `most_windows` ends earlier. `on_progress` hears windows done and in all; `Break` is an interruption.
pub fn perplexity(
    engine: &NativeEngine,
    text: &str,
    window: usize,
    most_windows: Option<usize>,
    on_progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Perplexity, EvalError> {
    let tokenizer = engine.tokenizer();
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let mut tokens: Vec<u32> = bos.into_iter().collect();
    tokens.extend(tokenizer.encode(text, SpecialTokens::AsText));
    // A window of three is the smallest with a token to score.
    let window = window.max(3);
    if tokens.len() < window {
        return Err(EvalError::TextTooShort { tokens: tokens.len(), window });
    }
    let requests = windows(&tokens, window, bos, most_windows);
    let bytes: usize = requests
        .iter()
        .flat_map(|request| &request.continuation)
        .map(|&token| tokenizer.token_bytes(token).len())
        .sum();
    let mut losses = vec![0.0; requests.len()];
    let (mut done, mut interrupted) = (0, false);
    engine.loglikelihood(&requests, &mut |index, score| {
        losses[index] = -score.logprob;
        done += 1;
        let flow = on_progress(done, requests.len());
        interrupted = flow.is_break() && done < requests.len();
        flow
    })?;
    if interrupted {
        return Err(EvalError::Interrupted { done, total: requests.len() });
    }
    Ok(summarize(&losses, scored(window), bytes))
}

/// Tokens scored in a window.
fn scored(window: usize) -> usize {
    window - window / 2 - 1
}

fn windows(tokens: &[u32], window: usize, bos: Option<u32>, most: Option<usize>) -> Vec<ScoreRequest> {
    tokens
        .chunks_exact(window)
        .take(most.unwrap_or(usize::MAX))
        .map(|chunk| {
            let (context, continuation) = chunk.split_at(window - scored(window));
            let mut context = context.to_vec();
            if let (Some(first), Some(bos)) = (context.first_mut(), bos) {
                *first = bos;
            }
            ScoreRequest { context, continuation: continuation.to_vec() }
        })
        .collect()
}

/// From the summed loss of each window.
fn summarize(losses: &[f64], tokens_each: usize, bytes: usize) -> Perplexity {
    let windows = losses.len() as f64;
    let tokens = losses.len() * tokens_each;
    let total: f64 = losses.iter().sum();
    let mean_nll = total / tokens as f64;
    let spread: f64 = losses.iter().map(|loss| (loss / tokens_each as f64 - mean_nll).powi(2)).sum();
    let error_of_mean = (spread / (windows - 1.0) / windows).sqrt();
    let perplexity = mean_nll.exp();
    Perplexity {
        perplexity,
        // The slope of exp at the mean is the perplexity itself.
        standard_error: perplexity * error_of_mean,
        mean_nll,
        bits_per_byte: total / std::f64::consts::LN_2 / bytes as f64,
        windows: losses.len(),
        tokens,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_as_in_llama_perplexity() {
        let tokens: Vec<u32> = (0..1100).collect();
        let requests = windows(&tokens, 512, Some(9999), None);
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[1].context.len(), 257);
        assert_eq!((requests[1].context[0], requests[1].context[1]), (9999, 513));
        assert_eq!(requests[1].continuation, (769..1024).collect::<Vec<u32>>());
        assert_eq!(windows(&tokens, 512, None, Some(1))[0].context[0], 0);
    }

    #[test]
    fn means_and_errors_by_hand() {
        // Two windows of two tokens with mean losses 1 and 3.
        let found = summarize(&[2.0, 6.0], 2, 8);
        assert!((found.mean_nll - 2.0).abs() < 1e-12);
        assert!((found.perplexity - 2.0_f64.exp()).abs() < 1e-12);
        // sd of (1, 3) is sqrt 2, over sqrt 2 windows: 1
        assert!((found.standard_error - 2.0_f64.exp()).abs() < 1e-12);
        assert!((found.bits_per_byte - 1.0 / std::f64::consts::LN_2).abs() < 1e-12);
        assert_eq!((found.windows, found.tokens), (2, 4));
        assert!(summarize(&[1.0], 2, 2).standard_error.is_nan());
    }
}
