//! One optimizer step: loss, gradient, and what each of its rows cost.

use espalier_nn::transformer::{Batch, LoraModel};

use crate::TrainError;
use crate::optimizer::clip;
use crate::tokens::{Sequence, Sequences};

/// What a step found, before its update.
#[derive(Clone, Debug)]
pub(crate) struct StepResult {
    /// Weighted mean loss over its target tokens.
    pub(crate) loss: f64,
    /// Norm of its gradient before clipping.
    pub(crate) grad_norm: f64,
    /// Tokens that went through the network.
    pub(crate) tokens: usize,
    /// Tokens that were learned.
    pub(crate) target_tokens: usize,
    /// Each row.
    pub(crate) rows: Vec<RowLoss>,
}

/// What one row cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowLoss {
    /// Its place among the rows of the run.
    pub(crate) row: usize,
    /// Sum of the losses of its target tokens, without their weights.
    pub(crate) nll: f64,
    /// How many these are.
    pub(crate) targets: usize,
}

impl RowLoss {
    /// Mean loss of a target token.
    pub(crate) fn mean(&self) -> f64 {
        self.nll / self.targets.max(1) as f64
    }
}

/// Loss of an optimizer step, and its clipped gradient into `gradient`.
pub(crate) fn step(
    network: &LoraModel,
    rows: &[Sequence],
    micro_batches: &[Vec<usize>],
    gradient: &mut [f32],
    max_grad_norm: f64,
) -> Result<StepResult, TrainError> {
    // Each target token of the step counts by its weight, whatever the micro-batch that it came in.
    let target_weight: f64 = micro_batches.iter().flatten().map(|&row| rows[row].target_weight()).sum();
    let factor = (1.0 / target_weight) as f32;
    gradient.fill(0.0);
    let (mut loss, mut tokens, mut costs) = (0.0, 0, Vec::new());
    for micro_batch in micro_batches {
        let sequences = micro_batch.iter().map(|&row| (rows[row].tokens.as_slice(), rows[row].weights.as_slice()));
        let batch = Batch::pack(sequences, factor)?;
        tokens += batch.tokens.len();
        let found = network.loss_and_gradient(&batch, gradient)?;
        loss += found.loss;
        costs.extend(row_losses(rows, micro_batch, &found.nll));
    }
    let grad_norm = clip(gradient, max_grad_norm);
    let target_tokens = costs.iter().map(|row| row.targets).sum();
    Ok(StepResult { loss, grad_norm, tokens, target_tokens, rows: costs })
}

/// The losses of the rows of a micro-batch from those of its tokens.
pub(crate) fn row_losses(rows: &[Sequence], micro_batch: &[usize], nll: &[f32]) -> Vec<RowLoss> {
    let mut first = 0;
    let of_row = |&row: &usize| {
        let length = rows[row].tokens.len() - 1;
        let tokens = &nll[first..first + length];
        first += length;
        RowLoss { row, nll: tokens.iter().map(|&nll| f64::from(nll)).sum(), targets: rows[row].targets() }
    };
    micro_batch.iter().map(of_row).collect()
}

/// The rows that cost most, with their places in the data, for a message.
pub(crate) fn suspects(data: &Sequences, losses: &[RowLoss]) -> String {
    const NAMED: usize = 5;
    let mut losses = losses.to_vec();
    let badness = |row: &RowLoss| if row.nll.is_finite() { row.mean() } else { f64::INFINITY };
    losses.sort_by(|one, other| badness(other).total_cmp(&badness(one)).then(one.row.cmp(&other.row)));
    let words = |loss: &RowLoss| format!("{} (loss {:.3})", data.place(&data.rows[loss.row]), loss.mean());
    let mut named: Vec<String> = losses.iter().take(NAMED).map(words).collect();
    if losses.len() > NAMED {
        named.push(format!("and {} more", losses.len() - NAMED));
    }
    named.join(", ")
}
