//! Texts that models are measured on.

use espalier_inference::{NativeEngine, SpecialTokens};

/// Tokens, and which of them count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredText {
    tokens: Vec<u32>,
    /// For each token whether the prediction of it is measured; the first has none.
    scored: Vec<bool>,
}

impl MeasuredText {
    /// Every token counts that has one before it.
    pub fn whole(tokens: Vec<u32>) -> Self {
        Self { scored: (0..tokens.len()).map(|place| place > 0).collect(), tokens }
    }

    /// A row of training data: what the model learns to write counts, its weight in the loss being above zero.
    pub fn learned(tokens: Vec<u32>, weights: &[f32]) -> Self {
        let weight = |place: usize| weights.get(place).copied().unwrap_or(0.0);
        Self { scored: (0..tokens.len()).map(|place| place > 0 && weight(place) != 0.0).collect(), tokens }
    }

    /// A text as llama-imatrix and llama-perplexity cut it: BOS in front where the model wants one, windows of `window` tokens
    /// without a rest, BOS in the place of each window's first token. The tokens behind the middle count (255 of 512), so
    /// that each has at least half a window before it.
    pub fn windows(engine: &NativeEngine, text: &str, window: usize) -> Vec<Self> {
        let tokenizer = engine.tokenizer();
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        let mut tokens: Vec<u32> = bos.into_iter().collect();
        tokens.extend(tokenizer.encode(text, SpecialTokens::AsText));
        let window_of = |chunk: &[u32]| {
            let mut tokens = chunk.to_vec();
            if let (Some(first), Some(bos)) = (tokens.first_mut(), bos) {
                *first = bos;
            }
            Self { scored: (0..window).map(|place| place > window / 2).collect(), tokens }
        };
        tokens.chunks_exact(window.max(1)).map(window_of).collect()
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many of its tokens count.
    pub fn scored(&self) -> usize {
        self.scored.iter().filter(|scored| **scored).count()
    }

    /// The first position whose logits are needed; none when no token counts.
    pub(crate) fn first_position(&self) -> Option<usize> {
        self.scored.iter().position(|scored| *scored).map(|place| place - 1)
    }

    /// The token behind a position, where it counts.
    pub(crate) fn next(&self, position: usize) -> Option<u32> {
        self.scored.get(position + 1)?.then(|| self.tokens[position + 1])
    }
}
