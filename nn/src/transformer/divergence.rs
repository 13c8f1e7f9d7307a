//! How far a model has moved from its base: the divergence of what the two predict.
//!
//! Of the base only the hidden states before the head are kept. From them its predictions come out exactly, where its most
//! probable tokens would give a lower bound and all its logits would take `vocabulary / hidden` times as much; and the
//! base goes through the blocks only once.

use std::sync::Arc;

use espalier_kernels::ops::divergence_rows;

use super::batch::Batch;
use super::lora::LoraModel;
use crate::error::NnError;
use crate::ops::linear_cross_entropy::{chunk_rows, logits_of_rows};

impl LoraModel {
    /// The same model with its updates switched off: the base, whose weights it shares.
    #[must_use]
    pub fn without_updates(&self) -> Self {
        Self::of_plans(Arc::clone(&self.frozen), Vec::new(), self.updates.is_rslora(), false)
    }

    /// Hidden states `[chosen, hidden]` before the head of those rows of `batch` that have a weight.
    pub fn chosen_states(&self, batch: &Batch) -> Result<Vec<f32>, NnError> {
        let width = self.frozen.config.hidden;
        let states = self.forward(&batch.tokens, &batch.layout)?;
        Ok(chosen(batch).flat_map(|row| &states[row * width..(row + 1) * width]).copied().collect())
    }

    /// `KL(p || q)` in nats of each row of `batch` that has a weight: `p` is what `reference`, another model's
    /// [`LoraModel::chosen_states`] of the same batch, predicts, `q` what this model does. Both logits of a chunk of rows
    /// take as much memory as those of a training step.
    ///
    /// # Errors
    ///
    /// Another number of states than the batch has chosen rows.
    pub fn divergence_from(&self, reference: &[f32], batch: &Batch) -> Result<Vec<f64>, NnError> {
        let (head, vocabulary) = (&self.frozen.head, self.frozen.config.vocabulary);
        let states = self.chosen_states(batch)?;
        if states.len() != reference.len() {
            let (own, other) = (states.len(), reference.len());
            return Err(NnError::Batch(format!("{own} values of chosen rows beside {other} of the reference")));
        }
        let rows: Vec<usize> = (0..states.len() / head.inputs()).collect();
        let chunk = pair_rows(vocabulary).min(rows.len());
        let mut logits = self.blocks.pool.take(2 * chunk * vocabulary);
        let mut divergences = Vec::with_capacity(rows.len());
        for rows in rows.chunks(chunk.max(1)) {
            let (one, other) = logits.split_at_mut(chunk * vocabulary);
            let (one, other) = (&mut one[..rows.len() * vocabulary], &mut other[..rows.len() * vocabulary]);
            logits_of_rows(reference, rows, head, one);
            logits_of_rows(&states, rows, head, other);
            divergences.extend(divergence_rows(one, other, vocabulary));
        }
        Ok(divergences)
    }
}

/// Rows of `batch` that have a weight.
pub(super) fn chosen(batch: &Batch) -> impl Iterator<Item = usize> {
    batch.targets.weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0).map(|(row, _)| row)
}

/// Rows whose logits live at one time, of both models.
pub(super) fn pair_rows(vocabulary: usize) -> usize {
    (chunk_rows(vocabulary) / 2).max(1)
}
