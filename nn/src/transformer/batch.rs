//! Packed rows of tokens and what each should predict.

use std::sync::Arc;

use espalier_kernels::ops::RowLoss;

use crate::error::NnError;
use crate::ops::linear_cross_entropy::Targets;
use crate::ops::self_attention::Layout;
use crate::ops::teacher_tokens::TeacherTokens;

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
    /// Packs `(tokens, weights)` sequences: row `i` predicts token `i + 1` with `weights[i + 1] * factor` in the loss, or
    /// nothing where that is 0.
    ///
    /// The last token of a sequence is only predicted, never an input.
    pub fn pack<'a>(sequences: impl IntoIterator<Item = (&'a [u32], &'a [f32])>, factor: f32) -> Result<Self, NnError> {
        let (mut tokens, mut next, mut weights, mut segments) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (sequence, learned) in sequences {
            if sequence.len() < 2 || learned.len() != sequence.len() {
                let (tokens, weights) = (sequence.len(), learned.len());
                return Err(NnError::Batch(format!(
                    "a sequence of {tokens} tokens has {weights} weights; it needs two tokens and a weight for each"
                )));
            }
            tokens.extend_from_slice(&sequence[..sequence.len() - 1]);
            next.extend_from_slice(&sequence[1..]);
            weights.extend(learned[1..].iter().map(|weight| weight * factor));
            segments.push(sequence.len() - 1);
        }
        let targets = Targets { tokens: Arc::new(next), weights: Arc::new(weights), teacher: None };
        Ok(Self { tokens, layout: Layout::of_segments(segments), targets })
    }

    /// The same with what a teacher thinks of each row; `share` of the loss of such a row is the divergence from it.
    ///
    /// # Errors
    /// Another number of rows than the batch has.
    pub fn with_teacher(mut self, teacher: TeacherTokens, share: f32) -> Result<Self, NnError> {
        let (rows, taught) = (self.tokens.len(), teacher.len());
        if rows != taught {
            return Err(NnError::Batch(format!("{rows} rows have {taught} rows of a teacher")));
        }
        self.targets.teacher = Some((Arc::new(teacher), share));
        Ok(self)
    }
}

/// Refuses rows that do not fit together, tokens outside of the vocabulary and positions beyond those that are known.
pub(super) fn check_rows(tokens: &[u32], layout: &Layout, vocabulary: usize, positions: usize) -> Result<(), NnError> {
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
        return Err(NnError::Batch(format!("token {token} lies outside the vocabulary of {vocabulary}")));
    }
    if tokens.is_empty()
        || layout.positions.len() != tokens.len()
        || layout.segments.iter().sum::<usize>() != tokens.len()
    {
        return Err(NnError::Batch("tokens, positions and sequences differ in length, or there are none".to_owned()));
    }
    if let Some(position) = layout.positions.iter().find(|&&position| position as usize >= positions) {
        return Err(NnError::Batch(format!(
            "position {position} lies beyond the {positions} positions that the model was loaded for"
        )));
    }
    Ok(())
}

/// What a batch taught.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchLoss {
    /// `sum_t weight_t loss_t`: `nll_t`, or with a teacher `(1 - share) nll_t + share KL_t`.
    pub loss: f64,
    /// What each row costs without its weight; nothing where that is 0.
    pub rows: Vec<RowLoss>,
}
