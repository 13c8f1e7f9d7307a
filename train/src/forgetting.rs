//! Forgetting: how far the predictions on general text have moved from those of the base.
//!
//! `forgetting = mean_t KL(p_t || q_t)` in nats, where `p_t` is what the base predicts at place `t` of the text, over the
//! whole vocabulary, and `q_t` what the model with its updates does. Low divergence on such text goes with little loss of what
//! the base could do. Both come from one copy of the weights: the base is the same network with its updates switched off.

use espalier_nn::transformer::{Batch, Network};

use crate::metrics::ForgettingLine;
use crate::tokens::{Sequence, Sequences};
use crate::validation::batches;
use crate::{TrainConfig, TrainError};

/// The places of the general text that are looked at.
pub(crate) struct Slice<'a> {
    rows: Vec<&'a Sequence>,
    /// How many places these are.
    pub(crate) tokens: usize,
    /// How many the text has.
    pub(crate) of: usize,
}

impl<'a> Slice<'a> {
    /// About `forgetting_tokens` tokens of rows that lie evenly in the text, whatever the seed: so runs compare.
    ///
    /// # Errors
    ///
    /// A text with less than one sequence of tokens.
    pub(crate) fn new(general: &'a Sequences, config: &TrainConfig) -> Result<Self, TrainError> {
        let of: usize = general.rows.iter().map(Sequence::targets).sum();
        let least = config.forgetting_tokens.min(config.max_sequence);
        if of < least {
            let files: Vec<String> = general.files.iter().map(|file| file.display().to_string()).collect();
            let problem = format!(
                "{} has {of} tokens to predict, and so few say little: name a text of at least {least} (the smaller of forgetting_tokens and max_sequence)",
                files.join(", ")
            );
            return Err(TrainError::Config { name: "forgetting", problem });
        }
        // As many rows as come nearest to what was asked for.
        let count = (2 * config.forgetting_tokens * general.rows.len() + of) / (2 * of);
        let count = count.clamp(1, general.rows.len());
        let rows: Vec<&Sequence> =
            (0..count).map(|index| &general.rows[(2 * index + 1) * general.rows.len() / (2 * count)]).collect();
        let tokens = rows.iter().map(|row| row.targets()).sum();
        Ok(Self { rows, tokens, of })
    }

    /// Tokens of the longest row.
    pub(crate) fn longest(&self) -> usize {
        self.rows.iter().map(|row| row.tokens.len()).max().unwrap_or_default()
    }

    /// Tokens that go through the network.
    pub(crate) fn inputs(&self) -> usize {
        self.rows.iter().map(|row| row.tokens.len() - 1).sum()
    }
}

/// General text with what the base thinks of it.
pub(crate) struct Forgetting {
    /// Each with the base's states at its chosen places.
    batches: Vec<(Batch, Vec<f32>)>,
}

impl Forgetting {
    /// Asks the base of `network` about `slice`, in batches of at most `rows` rows.
    pub(crate) fn new(slice: &Slice<'_>, network: &Network, rows: usize) -> Result<Self, TrainError> {
        let base = network.without_updates();
        let of_batch = |indices: Vec<usize>| {
            let rows = indices.iter().map(|&index| slice.rows[index]);
            let batch = Batch::pack(rows.map(|row| (row.tokens.as_slice(), row.weights.as_slice())), 1.0)?;
            let states = base.chosen_states(&batch)?;
            Ok((batch, states))
        };
        let lengths = slice.rows.iter().map(|row| row.tokens.len() - 1);
        let batches = batches(lengths, rows).into_iter().map(of_batch).collect::<Result<_, TrainError>>()?;
        Ok(Self { batches })
    }

    /// The divergence of `network` as it is.
    pub(crate) fn measure(&self, network: &Network, step: usize) -> Result<ForgettingLine, TrainError> {
        let (mut sum, mut tokens) = (0.0, 0);
        for (batch, base) in &self.batches {
            let divergences = network.divergence_from(base, batch)?;
            sum += divergences.iter().sum::<f64>();
            tokens += divergences.len();
        }
        Ok(ForgettingLine { step, forgetting: sum / tokens.max(1) as f64, tokens })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_slice_lies_evenly_in_the_text_and_a_short_text_is_refused() {
        let row = |line| Sequence { tokens: vec![line; 11], weights: vec![1.0; 11], ..Sequence::default() };
        let text = |rows| Sequences {
            rows: (0..rows).map(row).collect(),
            files: vec!["general.txt".into()],
            ..Sequences::default()
        };
        let config = TrainConfig { forgetting_tokens: 40, max_sequence: 11, tokens_per_step: 11, ..Default::default() };
        let slice = |rows| {
            let text = text(rows);
            let slice = Slice::new(&text, &config).unwrap();
            (slice.rows.iter().map(|row| row.tokens[0]).collect::<Vec<_>>(), slice.tokens, slice.of)
        };
        assert_eq!(slice(20), (vec![2, 7, 12, 17], 40, 200));
        assert_eq!(slice(5), (vec![0, 1, 3, 4], 40, 50));
        assert_eq!(slice(2), (vec![0, 1], 20, 20));
        let message = Slice::new(&text(1), &config).err().unwrap().to_string();
        assert!(
            message.contains("forgetting: general.txt has 10 tokens") && message.contains("at least 11"),
            "{message}"
        );
    }
}
