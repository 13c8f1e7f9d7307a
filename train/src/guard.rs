//! What becomes of a step whose loss or gradient is no number, or whose loss jumps.
//!
//! The run goes back to its last checkpoint that was written on schedule, passes over the rows of that step, and goes on: a
//! jump mostly comes from the meeting of certain rows with a certain state, and training goes past it without these rows
//! (Chowdhery et al. 2022, `PaLM`, section 5.1). Where that checkpoint has been gone back to before, the learning rate of
//! everything behind it is halved as well.
//!
//! All of this is a function of the steps before, and it lies in the checkpoints: an interrupted run acts as an unbroken one.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

/// Losses from which is taken what is usual.
const WINDOW: usize = 50;
/// Fewer say nothing.
const FEWEST: usize = 20;
/// Makes the median absolute deviation of normally distributed values their standard deviation.
const NORMAL: f64 = 1.4826;
/// A loss that is not this far above the median, in nats, is no jump: late in training the usual deviation is tiny.
const SMALLEST_JUMP: f64 = 1.0;
/// What the learning rate is multiplied by when a run goes back to the same checkpoint again.
const SLOWER: f64 = 0.5;

/// Why a step was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Trouble {
    /// The loss is infinite or no number.
    LossNotFinite,
    /// The norm of the gradient is infinite or no number.
    GradientNotFinite,
    /// The loss lies far above those of the steps before.
    Spike {
        /// The loss.
        loss: f64,
        /// The largest that would have passed.
        limit: f64,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LossNotFinite => formatter.write_str("the loss is not a finite number"),
            Self::GradientNotFinite => formatter.write_str("the gradient is not finite"),
            Self::Spike { loss, limit } => {
                write!(formatter, "the loss jumped to {loss:.3}, above the limit of {limit:.3}")
            }
        }
    }
}

/// What the guard remembers; part of every checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// The latest losses of steps that were taken.
    losses: VecDeque<f64>,
    /// Steps, counted from 0, whose rows are passed over.
    skipped: BTreeSet<usize>,
    /// The checkpoints gone back to, in order.
    rollbacks: Vec<usize>,
    /// What the learning rate of the schedule is multiplied by.
    learning_rate_factor: f64,
}

impl Default for Guard {
    fn default() -> Self {
        Self { losses: VecDeque::new(), skipped: BTreeSet::new(), rollbacks: Vec::new(), learning_rate_factor: 1.0 }
    }
}

impl Guard {
    /// Whether the rows of a step, counted from 0, are passed over.
    pub fn skips(&self, step: usize) -> bool {
        self.skipped.contains(&step)
    }

    /// What the learning rate of the schedule is multiplied by.
    pub fn learning_rate_factor(&self) -> f64 {
        self.learning_rate_factor
    }

    /// How often the run has gone back.
    pub fn rollbacks(&self) -> usize {
        self.rollbacks.len()
    }

    /// What is wrong with a step, if anything is.
    ///
    /// A jump is a loss above `median + threshold * 1.4826 * MAD` of the last 50 losses, and more than 1 nat above their
    /// median; there is none without a threshold or before 20 losses.
    pub fn judge(&self, loss: f64, gradient_norm: f64, threshold: Option<f64>) -> Option<Trouble> {
        if !loss.is_finite() {
            return Some(Trouble::LossNotFinite);
        }
        if !gradient_norm.is_finite() {
            return Some(Trouble::GradientNotFinite);
        }
        let threshold = threshold.filter(|_| self.losses.len() >= FEWEST)?;
        let usual = median(self.losses.iter().copied().collect());
        let deviation = NORMAL * median(self.losses.iter().map(|loss| (loss - usual).abs()).collect());
        let limit = usual + (threshold * deviation).max(SMALLEST_JUMP);
        (loss > limit).then_some(Trouble::Spike { loss, limit })
    }

    /// Remembers the loss of a step that was taken.
    pub fn accept(&mut self, loss: f64) {
        self.losses.push_back(loss);
        if self.losses.len() > WINDOW {
            self.losses.pop_front();
        }
    }

    /// The guard of a run that goes back from `step` (counted from 0) to a checkpoint after `to` steps, which had
    /// `losses`; `None` when it has gone back `limit` times already.
    pub fn roll_back(&self, step: usize, to: usize, losses: &Self, limit: usize) -> Option<Self> {
        if self.rollbacks.len() >= limit {
            return None;
        }
        let mut next = Self { losses: losses.losses.clone(), ..self.clone() };
        if next.rollbacks.last() == Some(&to) {
            next.learning_rate_factor *= SLOWER;
        }
        next.skipped.insert(step);
        next.rollbacks.push(to);
        Some(next)
    }
}

/// The middle of `values`, the mean of two for an even number; 0 for none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn after(losses: impl IntoIterator<Item = f64>) -> Guard {
        let mut guard = Guard::default();
        losses.into_iter().for_each(|loss| guard.accept(loss));
        guard
    }

    #[test]
    fn what_is_no_number_is_always_trouble() {
        let guard = Guard::default();
        assert_eq!(guard.judge(f64::NAN, 1.0, None), Some(Trouble::LossNotFinite));
        assert_eq!(guard.judge(1.0, f64::INFINITY, None), Some(Trouble::GradientNotFinite));
        assert_eq!(guard.judge(1e9, 1e9, Some(10.0)), None);
    }

    #[test]
    fn a_jump_is_far_above_the_usual_deviation_and_the_smallest_jump() {
        // Median 2, MAD 0.1: ten deviations are 1.4826.
        let guard = after((0..40).map(|step| [1.9, 2.0, 2.1, 2.0][step % 4]));
        assert_eq!(guard.judge(3.0, 1.0, Some(10.0)), None);
        assert_eq!(guard.judge(9.0, 1.0, None), None);
        let quiet = after([0.01; 30]);
        assert_eq!(quiet.judge(1.0, 1.0, Some(10.0)), None);
        assert_eq!(quiet.judge(1.5, 1.0, Some(10.0)), Some(Trouble::Spike { loss: 1.5, limit: 1.01 }));
        let wide = after((0..30).map(|step| 2.0 + 0.4 * f64::from(step % 3 - 1)));
        assert_eq!(wide.judge(7.9, 1.0, Some(10.0)), None);
        assert!(wide.judge(8.0, 1.0, Some(10.0)).is_some());
        assert_eq!(after([1.0; 19]).judge(50.0, 1.0, Some(10.0)), None);
    }

    #[test]
    fn the_window_moves_on() {
        let guard = after((0..60).map(f64::from));
        assert_eq!((guard.losses.len(), guard.losses[0]), (WINDOW, 10.0));
    }

    #[test]
    fn the_same_place_again_halves_the_learning_rate() {
        let at_ten = after([1.0; 10]);
        let first = after([1.0; 17]).roll_back(17, 10, &at_ten, 3).unwrap();
        assert!(first.skips(17) && !first.skips(16) && first.losses == at_ten.losses);
        assert!((first.learning_rate_factor() - 1.0).abs() < 1e-12);
        let second = first.roll_back(18, 10, &at_ten, 3).unwrap();
        assert!(second.skips(17) && second.skips(18) && (second.learning_rate_factor() - 0.5).abs() < 1e-12);
        let third = second.roll_back(25, 20, &at_ten, 3).unwrap();
        assert!((third.learning_rate_factor() - 0.5).abs() < 1e-12);
        assert_eq!((third.rollbacks(), third.roll_back(30, 30, &at_ten, 3)), (3, None));
    }
}
