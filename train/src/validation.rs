//! Rows that are held out: their loss tells what is learned and not only remembered.

use std::borrow::Cow;
use std::collections::BTreeSet;

use espalier_nn::transformer::{Batch, LoraModel};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::metrics::{Groups, ValidationLine};
use crate::step::{RowLoss, row_losses};
use crate::tokens::{Sequence, Sequences};

/// The stream of the generator that draws the rows; epochs and sources have others.
const STREAM: u64 = u64::MAX / 2;

/// Which checkpoint of a run was the best so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Steps done.
    pub step: usize,
    /// Its validation loss.
    pub loss: f64,
    /// Validations since then.
    pub since: usize,
}

impl Best {
    /// The best after a validation at `step`.
    pub fn after(best: Option<Self>, step: usize, loss: f64) -> Self {
        match best {
            Some(best) if best.loss <= loss => Self { since: best.since + 1, ..best },
            _ => Self { step, loss, since: 0 },
        }
    }
}

/// The rows to train on, and those that are held out: about `share` of all lines of the data, drawn by `seed`. All rows of
/// a line, the pieces of a long text among them, stay together.
///
/// # Errors
///
/// Data of which nothing would be left on one side.
pub(crate) fn split(data: &Sequences, share: f64, seed: u64) -> Result<(Cow<'_, Sequences>, Sequences), TrainError> {
    let with = |rows: Vec<Sequence>| Sequences { rows, warnings: Vec::new(), ..data.clone() };
    if share <= 0.0 {
        return Ok((Cow::Borrowed(data), Sequences { rows: Vec::new(), ..data.clone() }));
    }
    let line = |row: &Sequence| (row.file, row.line);
    let mut lines: Vec<_> = data.rows.iter().map(line).collect::<BTreeSet<_>>().into_iter().collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(STREAM);
    lines.shuffle(&mut random);
    let count = ((share * lines.len() as f64).round() as usize).max(1);
    if count >= lines.len() {
        return Err(TrainError::Config {
            name: "validation",
            problem: format!("a share of {share} of {} rows leaves none to train on", lines.len()),
        });
    }
    let held_out: BTreeSet<_> = lines[..count].iter().copied().collect();
    let (apart, rest) = data.rows.iter().cloned().partition(|row| held_out.contains(&line(row)));
    Ok((Cow::Owned(with(rest)), with(apart)))
}

/// The loss of the held-out rows under the network as it is; `rows` fit into a batch.
pub(crate) fn validate(
    network: &LoraModel,
    held_out: &Sequences,
    rows: usize,
    step: usize,
) -> Result<ValidationLine, TrainError> {
    let mut losses: Vec<RowLoss> = Vec::with_capacity(held_out.rows.len());
    let (mut batch, mut length) = (Vec::new(), 0);
    for (index, row) in held_out.rows.iter().enumerate() {
        if length > 0 && length + row.tokens.len() - 1 > rows {
            losses.extend(of_batch(network, held_out, &batch)?);
            (batch, length) = (Vec::new(), 0);
        }
        batch.push(index);
        length += row.tokens.len() - 1;
    }
    losses.extend(of_batch(network, held_out, &batch)?);
    let all = Groups::of(&losses, |_| Some("all"));
    let leaf = |row: usize| held_out.rows[row].leaf.map(|leaf| held_out.leaves[leaf].as_str());
    let total = all.0.into_values().next().unwrap_or_default();
    Ok(ValidationLine {
        step,
        validation_loss: total.loss,
        target_tokens: total.target_tokens,
        leaves: Groups::of(&losses, leaf),
    })
}

fn of_batch(network: &LoraModel, held_out: &Sequences, rows: &[usize]) -> Result<Vec<RowLoss>, TrainError> {
    let sequences = rows.iter().map(|&row| &held_out.rows[row]);
    let batch = Batch::pack(sequences.map(|row| (row.tokens.as_slice(), row.weights.as_slice())), 1.0)?;
    Ok(row_losses(&held_out.rows, rows, &network.loss(&batch)?.nll))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_best_stays_until_a_better_one_comes() {
        let first = Best::after(None, 5, 2.0);
        let second = Best::after(Some(first.clone()), 10, 2.0);
        assert_eq!((first.since, second.step, second.since), (0, 5, 1));
        assert_eq!(Best::after(Some(second), 15, 1.5), Best { step: 15, loss: 1.5, since: 0 });
    }
}
