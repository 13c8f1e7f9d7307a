//! Packed rows of tokens and what each should predict.

use std::sync::Arc;

use crate::error::NnError;
use crate::ops::linear_cross_entropy::Targets;
use crate::ops::self_attention::Layout;

/// Sequences one after another, without padding.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Input tokens of all sequences.
    pub tokens: Vec<u32>,
    /// Where the sequences begin and end.
    pub layout: Layout,
    /// The next token of each row, and its weight in the loss.
    pub targets: Targets,
}

impl Batch {
    /// Packs `(tokens, learn)` sequences: row `i` predicts token `i + 1` when `learn[i + 1]`, with `weight`.
    ///
    /// The last token of a sequence is only predicted, never an input.
    pub fn pack<'a>(
        sequences: impl IntoIterator<Item = (&'a [u32], &'a [bool])>,
        weight: f32,
    ) -> Result<Self, NnError> {
        let (mut tokens, mut next, mut weights, mut segments) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (sequence, learn) in sequences {
            if sequence.len() < 2 || learn.len() != sequence.len() {
                let (tokens, flags) = (sequence.len(), learn.len());
                return Err(NnError::Batch(format!(
                    "a sequence of {tokens} tokens has {flags} flags; it needs two tokens and a flag for each"
                )));
            }
            tokens.extend_from_slice(&sequence[..sequence.len() - 1]);
            next.extend_from_slice(&sequence[1..]);
            weights.extend(learn[1..].iter().map(|&learn| if learn { weight } else { 0.0 }));
            segments.push(sequence.len() - 1);
        }
        let targets = Targets { tokens: Arc::new(next), weights: Arc::new(weights) };
        Ok(Self { tokens, layout: Layout::of_segments(segments), targets })
    }
}
