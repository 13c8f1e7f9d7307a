//! Rows that are held out: their loss and how many of them are answered tell what is learned and not only remembered.
//!
//! A row counts as right where each of its target tokens, given those before it, is the most probable one: then the
//! likeliest answer to its prompt is the text's own.

use std::fmt;

use espalier_nn::transformer::{Batch, Network};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::metrics::{Groups, Tally, ValidationLine};
use crate::step::{RowLoss, row_losses};
use crate::tokens::Sequences;

/// By which figure of the held-out rows the best checkpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// The lowest loss.
    #[default]
    Loss,
    /// The most right rows, and of as many the lower loss.
    Accuracy,
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Loss => "loss",
            Self::Accuracy => "accuracy",
        })
    }
}

/// Which checkpoint of a run was the best so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Steps done.
    pub step: usize,
    /// Its validation loss.
    pub loss: f64,
    /// Its share of right rows.
    pub accuracy: f64,
    /// Checkpoints with a validation since then.
    pub since: usize,
}

impl Best {
    /// The best after a validation.
    pub(crate) fn after(best: Option<Self>, line: &ValidationLine, metric: Metric) -> Self {
        let better = |best: &Self| match metric {
            Metric::Accuracy if line.accuracy.total_cmp(&best.accuracy).is_ne() => line.accuracy > best.accuracy,
            Metric::Loss | Metric::Accuracy => line.validation_loss < best.loss,
        };
        match best {
            Some(best) if !better(&best) => Self { since: best.since + 1, ..best },
            _ => Self { step: line.step, loss: line.validation_loss, accuracy: line.accuracy, since: 0 },
        }
    }
}

/// Rows of the given lengths into batches of at most `rows`, in their order.
pub(crate) fn batches(lengths: impl Iterator<Item = usize>, rows: usize) -> Vec<Vec<usize>> {
    let (mut batches, mut filled): (Vec<Vec<usize>>, usize) = (Vec::new(), 0);
    for (index, length) in lengths.enumerate() {
        match batches.last_mut() {
            Some(batch) if filled + length <= rows => batch.push(index),
            _ => {
                batches.push(vec![index]);
                filled = 0;
            }
        }
        filled += length;
    }
    batches
}

/// Scores the held-out rows under the network as it is; `rows` fit into a batch.
pub(crate) fn validate(
    network: &Network,
    held_out: &Sequences,
    rows: usize,
    step: usize,
) -> Result<ValidationLine, TrainError> {
    let mut losses: Vec<RowLoss> = Vec::with_capacity(held_out.rows.len());
    for batch in batches(held_out.rows.iter().map(|row| row.tokens.len() - 1), rows) {
        losses.extend(of_batch(network, held_out, &batch)?);
    }
    let source = |row: usize| Some(held_out.sources[held_out.rows[row].source].as_str());
    let leaf = |row: usize| held_out.rows[row].leaf.map(|leaf| held_out.leaves[leaf].as_str());
    let all = losses.iter().fold(Tally::default(), Tally::with);
    let score = all.score();
    Ok(ValidationLine {
        step,
        validation_loss: score.loss,
        target_tokens: score.target_tokens,
        accuracy: score.accuracy,
        rows: score.rows,
        token_accuracy: all.token_accuracy(),
        sources: if held_out.sources.len() > 1 { Groups::scores(&losses, source) } else { Groups::default() },
        leaves: Groups::scores(&losses, leaf),
    })
}

fn of_batch(network: &Network, held_out: &Sequences, rows: &[usize]) -> Result<Vec<RowLoss>, TrainError> {
    let sequences = rows.iter().map(|&row| &held_out.rows[row]);
    let batch = Batch::pack(sequences.map(|row| (row.tokens.as_slice(), row.weights.as_slice())), 1.0)?;
    Ok(row_losses(&held_out.rows, rows, &network.loss(&batch)?.rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: usize, validation_loss: f64, accuracy: f64) -> ValidationLine {
        ValidationLine { step, validation_loss, accuracy, ..ValidationLine::default() }
    }

    #[test]
    fn the_best_stays_until_a_better_one_comes() {
        let after = |best: Option<Best>, line: ValidationLine| Best::after(best, &line, Metric::Loss);
        let first = after(None, line(5, 2.0, 0.1));
        let second = after(Some(first.clone()), line(10, 2.0, 0.9));
        assert_eq!((first.since, second.step, second.since), (0, 5, 1));
        assert_eq!(after(Some(second), line(15, 1.5, 0.0)), Best { step: 15, loss: 1.5, accuracy: 0.0, since: 0 });
    }

    #[test]
    fn of_as_many_right_rows_the_lower_loss_is_better() {
        let steps = |lines: &[ValidationLine]| {
            let best = lines.iter().fold(None, |best, line| Some(Best::after(best, line, Metric::Accuracy)));
            best.map(|best| (best.step, best.since))
        };
        let lines =
            [line(5, 2.0, 0.5), line(10, 1.0, 0.25), line(15, 1.5, 0.5), line(20, 9.0, 0.75), line(25, 9.5, 0.75)];
        assert_eq!(
            [1, 2, 3, 4, 5].map(|count| steps(&lines[..count])),
            [(5, 0), (5, 1), (15, 0), (20, 0), (20, 1)].map(Some)
        );
    }

    #[test]
    fn batches_are_as_full_as_rows_allow() {
        assert_eq!(batches([3, 3, 5, 1, 9].into_iter(), 6), [vec![0, 1], vec![2, 3], vec![4]]);
    }
}
