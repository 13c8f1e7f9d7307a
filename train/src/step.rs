//! One optimizer step: loss, gradient, and what each of its rows cost.

use espalier_nn::transformer::{Batch, BatchLoss, Network, RowLoss as TokenLoss};

use crate::optimizer::clip;
use crate::teacher::of_micro_batch;
use crate::tokens::{Sequence, Sequences};
use crate::{TrainConfig, TrainError};

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
    /// Weighted means of the two parts of the loss, where a teacher took part in it.
    pub(crate) parts: Option<LossParts>,
    /// Each row.
    pub(crate) rows: Vec<RowLoss>,
}

/// The parts of a loss of which a teacher is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LossParts {
    /// Over all target tokens.
    pub(crate) nll: f64,
    /// Divergence from the teacher over the target tokens that it knows.
    pub(crate) divergence: f64,
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
    /// Those of them than which no other token is more probable.
    pub(crate) likeliest: usize,
}

impl RowLoss {
    /// Mean loss of a target token.
    pub(crate) fn mean(&self) -> f64 {
        self.nll / self.targets.max(1) as f64
    }
}

/// Loss of an optimizer step, and its clipped gradient into `gradient`.
pub(crate) fn step(
    network: &Network,
    rows: &[Sequence],
    micro_batches: &[Vec<usize>],
    gradient: &mut [f32],
    config: &TrainConfig,
) -> Result<StepResult, TrainError> {
    // Each target token of the step counts by its weight, whatever the micro-batch that it came in.
    let target_weight: f64 = micro_batches.iter().flatten().map(|&row| rows[row].target_weight()).sum();
    let factor = (1.0 / target_weight) as f32;
    gradient.fill(0.0);
    let (mut loss, mut tokens, mut costs) = (0.0, 0, Vec::new());
    let mut parts = PartSums::default();
    for micro_batch in micro_batches {
        let sequences = micro_batch.iter().map(|&row| (rows[row].tokens.as_slice(), rows[row].weights.as_slice()));
        let mut batch = Batch::pack(sequences, factor)?;
        if let Some(teacher) = of_micro_batch(rows, micro_batch) {
            batch = batch.with_teacher(teacher, config.distill_weight)?;
        }
        tokens += batch.tokens.len();
        let found = network.loss_and_gradient(&batch, gradient)?;
        loss += found.loss;
        parts.add(&batch, &found);
        costs.extend(row_losses(rows, micro_batch, &found.rows));
    }
    let grad_norm = clip(gradient, config.max_grad_norm);
    let target_tokens = costs.iter().map(|row| row.targets).sum();
    Ok(StepResult { loss, grad_norm, tokens, target_tokens, parts: parts.means(), rows: costs })
}

/// Weighted sums over the rows of a step.
#[derive(Default)]
struct PartSums {
    nll: f64,
    weight: f64,
    divergence: f64,
    taught_weight: f64,
}

impl PartSums {
    fn add(&mut self, batch: &Batch, found: &BatchLoss) {
        let teacher = batch.targets.teacher.as_ref().map(|(teacher, _)| teacher);
        for (row, weight) in batch.targets.weights.iter().enumerate() {
            let weight = f64::from(*weight);
            self.nll += weight * f64::from(found.rows[row].nll);
            self.weight += weight;
            if teacher.is_some_and(|teacher| !teacher.row(row).0.is_empty()) {
                self.divergence += weight * f64::from(found.rows[row].divergence);
                self.taught_weight += weight;
            }
        }
    }

    fn means(&self) -> Option<LossParts> {
        let divergence = self.divergence / self.taught_weight;
        (self.taught_weight > 0.0).then(|| LossParts { nll: self.nll / self.weight, divergence })
    }
}

/// The losses of the rows of a micro-batch from those of its tokens.
pub(crate) fn row_losses(rows: &[Sequence], micro_batch: &[usize], losses: &[TokenLoss]) -> Vec<RowLoss> {
    let mut first = 0;
    let of_row = |&row: &usize| {
        let length = rows[row].tokens.len() - 1;
        let tokens = &losses[first..first + length];
        first += length;
        RowLoss {
            row,
            nll: tokens.iter().map(|token| f64::from(token.nll)).sum(),
            targets: rows[row].targets(),
            likeliest: tokens.iter().filter(|token| token.is_likeliest).count(),
        }
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
