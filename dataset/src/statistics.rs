//! Figures of rows, counted as they come.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::row::{Row, Split, Verdict};

/// How long something is, by how often each length comes: exact quantiles in the memory of the lengths that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    counts: BTreeMap<u64, u64>,
    total: u64,
}

impl Lengths {
    /// Counts a length.
    pub fn add(&mut self, length: u64) {
        *self.counts.entry(length).or_default() += 1;
        self.total += 1;
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The smallest length that a share of all do not exceed (nearest rank); `None` where nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        self.counts.iter().find_map(|(&length, &count)| {
            seen += count;
            (seen >= rank).then_some(length)
        })
    }

    /// The mean.
    pub fn mean(&self) -> Option<f64> {
        let sum: f64 = self.counts.iter().map(|(&length, &count)| length as f64 * count as f64).sum();
        (self.total > 0).then(|| sum / self.total as f64)
    }

    /// At most `most` classes of equal width from the smallest to the largest length: where each starts, and how many are
    /// in it.
    pub fn histogram(&self, most: u64) -> Vec<(u64, u64)> {
        let (Some((&first, _)), Some((&last, _))) = (self.counts.first_key_value(), self.counts.last_key_value())
        else {
            return Vec::new();
        };
        let width = ((last - first + 1).div_ceil(most.max(1))).max(1);
        let classes = (last - first) / width + 1;
        let mut found: Vec<(u64, u64)> = (0..classes).map(|class| (first + class * width, 0)).collect();
        for (&length, &count) in &self.counts {
            if let Some(class) = found.get_mut(((length - first) / width) as usize) {
                class.1 += count;
            }
        }
        found
    }

    /// The figures that tables show; `None` where nothing was counted.
    pub fn summary(&self) -> Option<LengthSummary> {
        let at = |share| self.quantile(share);
        Some(LengthSummary {
            least: at(0.0)?,
            tenth: at(0.1)?,
            median: at(0.5)?,
            nine_tenths: at(0.9)?,
            most: at(1.0)?,
            mean: self.mean()?,
        })
    }
}

/// Figures of lengths.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LengthSummary {
    /// The smallest.
    pub least: u64,
    /// A tenth is not longer.
    pub tenth: u64,
    /// A half is not longer.
    pub median: u64,
    /// Nine tenths are not longer.
    pub nine_tenths: u64,
    /// The largest.
    pub most: u64,
    /// The mean.
    pub mean: f64,
}

/// Figures of the rows of a leaf, or of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Rows.
    pub rows: u64,
    /// Of these, accepted.
    pub accepted: u64,
    /// Accepted rows that are held out.
    pub held_out: u64,
    /// Rows that an epoch of training takes, by the weights of their leaves.
    pub an_epoch: f64,
    /// Letters of the first question of accepted rows.
    pub question_letters: Lengths,
    /// Letters of the last answer of accepted rows.
    pub answer_letters: Lengths,
    /// Tokens of the prompts, where the engine counted them, of all rows.
    pub prompt_tokens: Lengths,
    /// Tokens that the teacher wrote, where the engine counted them, of all rows.
    pub answer_tokens: Lengths,
}

impl Statistics {
    /// Counts a row.
    pub fn add(&mut self, row: &Row) {
        self.rows += 1;
        for (lengths, tokens) in
            [(&mut self.prompt_tokens, row.prompt_tokens), (&mut self.answer_tokens, row.answer_tokens)]
        {
            if tokens > 0 {
                lengths.add(tokens.into());
            }
        }
        if row.verdict != Verdict::Accepted {
            return;
        }
        self.accepted += 1;
        self.held_out += u64::from(row.split == Split::HeldOut);
        self.an_epoch += row.times_an_epoch();
        self.question_letters.add(row.question().unwrap_or_default().chars().count() as u64);
        let answer = row.turns.iter().rev().find(|turn| turn.role == "assistant");
        self.answer_letters.add(answer.map_or(0, |turn| turn.content.chars().count()) as u64);
    }

    /// Whether weights of leaves make an epoch of other rows than there are.
    pub fn is_weighed(&self) -> bool {
        let learned = (self.accepted - self.held_out) as f64;
        (self.an_epoch - learned).abs() > 1e-9 * learned.max(1.0)
    }

    /// What is measured, with its name.
    pub fn lengths(&self) -> [(&'static str, &Lengths); 4] {
        [
            ("question, letters", &self.question_letters),
            ("answer, letters", &self.answer_letters),
            ("prompt, tokens", &self.prompt_tokens),
            ("answer, tokens", &self.answer_tokens),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_list(mut lengths in proptest::collection::vec(0_u64..50, 1..60), share in 0.0_f64..=1.0) {
            let mut counted = Lengths::default();
            for &length in &lengths {
                counted.add(length);
            }
            lengths.sort_unstable();
            let rank = ((lengths.len() as f64 * share).ceil() as usize).max(1);
            prop_assert_eq!(counted.quantile(share), Some(lengths[rank - 1]));
            for most in [1, 7, 100] {
                let histogram = counted.histogram(most);
                prop_assert!(histogram.len() as u64 <= most);
                prop_assert_eq!(histogram.iter().map(|class| class.1).sum::<u64>(), lengths.len() as u64);
            }
        }
    }

    #[test]
    fn nothing_has_no_figures() {
        let none = Lengths::default();
        assert_eq!((none.quantile(0.5), none.mean(), none.histogram(4)), (None, None, vec![]));
    }
}
