//! How far the predictions of a quantized model lie from those of its reference.
//!
//! Both engines read the same texts at the same time, and each position is compared as it comes: no file of logits, which
//! would take gigabytes, and no more than a few positions in memory.

use std::sync::mpsc::{Receiver, sync_channel};

use espalier_inference::{EngineError, NativeEngine};
use serde::Serialize;

use crate::QuantizeError;

/// Positions that the reference may run ahead.
const POSITIONS_AHEAD: usize = 16;

/// What is measured at every position with a next token, named as llama-perplexity names it.
///
/// With `p` the reference's distribution and `q` the candidate's, the divergence of a position is
/// `sum p (ln p - ln q)`, and its delta is `q - p` at the token that follows in the text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Divergence {
    /// Mean Kullback-Leibler divergence, in nats.
    pub mean_kld: f64,
    /// Median divergence.
    pub median: f64,
    /// The divergence that one position in a thousand exceeds.
    pub p99_9: f64,
    /// Largest divergence.
    pub max: f64,
    /// Part of the positions where both put the same token first.
    pub same_top: f64,
    /// Mean delta: below zero when the candidate is less sure of the text.
    pub mean_delta_p: f64,
    /// Root mean square of the delta.
    pub rms_delta_p: f64,
    /// Perplexity of the candidate over that of the reference.
    pub perplexity_ratio: f64,
    /// Positions compared.
    pub tokens: usize,
}

/// Compares two engines on texts, given as token ids.
///
/// # Errors
///
/// When the vocabularies differ, no text has two tokens, or an engine refuses a text.
pub fn divergence(
    reference: &NativeEngine,
    candidate: &NativeEngine,
    texts: &[Vec<u32>],
) -> Result<Divergence, QuantizeError> {
    let vocabularies = (reference.tokenizer().vocabulary(), candidate.tokenizer().vocabulary());
    if vocabularies.0 != vocabularies.1 {
        return Err(QuantizeError::Vocabulary { reference: vocabularies.0, candidate: vocabularies.1 });
    }
    let mut positions = Positions::default();
    for text in texts.iter().filter(|text| text.len() > 1) {
        compare_text(reference, candidate, text, &mut positions)?;
    }
    positions.summary().ok_or(QuantizeError::NothingToCompare { texts: texts.len() })
}

/// Runs both engines over a text, in step.
fn compare_text(
    reference: &NativeEngine,
    candidate: &NativeEngine,
    text: &[u32],
    positions: &mut Positions,
) -> Result<(), EngineError> {
    let (sender, receiver) = sync_channel::<Vec<f32>>(POSITIONS_AHEAD);
    std::thread::scope(|scope| {
        let running = scope.spawn(move || {
            reference.logits(text, &mut |position, logits| {
                // The last position has nothing to be compared with. A receiver that is gone had an error of its own.
                if position + 1 < text.len() {
                    let _ = sender.send(logits.to_vec());
                }
            })
        });
        let compared = against(candidate, text, receiver, positions);
        let referred = running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        referred.and(compared)
    })
}

/// Runs the candidate; takes the receiver, so that the reference goes on alone when the candidate stops.
fn against(
    candidate: &NativeEngine,
    text: &[u32],
    receiver: Receiver<Vec<f32>>,
    positions: &mut Positions,
) -> Result<(), EngineError> {
    let result = candidate.logits(text, &mut |position, logits| {
        if position + 1 < text.len()
            && let Ok(expected) = receiver.recv()
        {
            positions.add(&expected, logits, text[position + 1]);
        }
    });
    drop(receiver);
    result
}

/// What has been measured so far.
#[derive(Debug, Default)]
struct Positions {
    divergences: Vec<f64>,
    same_top: usize,
    sum_delta: f64,
    sum_delta_squared: f64,
    sum_log_ratio: f64,
}

impl Positions {
    /// Compares the logits of one position; `next` is the token that follows in the text.
    fn add(&mut self, reference: &[f32], candidate: &[f32], next: u32) {
        let shifts = (log_sum_exp(reference), log_sum_exp(candidate));
        let mut divergence = 0.0;
        for (reference, candidate) in reference.iter().zip(candidate) {
            let (p, q) = (f64::from(*reference) - shifts.0, f64::from(*candidate) - shifts.1);
            divergence += f64::from((p as f32).exp()) * (p - q);
        }
        // The rounding of the sums can bring equal distributions a hair below zero.
        self.divergences.push(divergence.max(0.0));
        self.same_top += usize::from(top(reference) == top(candidate));
        let next = next as usize;
        let p = f64::from(reference[next]) - shifts.0;
        let q = f64::from(candidate[next]) - shifts.1;
        let delta = q.exp() - p.exp();
        self.sum_delta += delta;
        self.sum_delta_squared += delta * delta;
        self.sum_log_ratio += p - q;
    }

    fn summary(mut self) -> Option<Divergence> {
        let tokens = self.divergences.len();
        if tokens == 0 {
            return None;
        }
        let count = tokens as f64;
        let mean_kld = self.divergences.iter().sum::<f64>() / count;
        self.divergences.sort_by(f64::total_cmp);
        Some(Divergence {
            mean_kld,
            median: quantile(&self.divergences, 0.5),
            p99_9: quantile(&self.divergences, 0.999),
            max: self.divergences[tokens - 1],
            same_top: self.same_top as f64 / count,
            mean_delta_p: self.sum_delta / count,
            rms_delta_p: (self.sum_delta_squared / count).sqrt(),
            perplexity_ratio: (self.sum_log_ratio / count).exp(),
            tokens,
        })
    }
}

/// Logarithm of the sum of exponentials, summed in `f64`: divergences below 1e-6 are to be told apart.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - largest).exp())).sum();
    f64::from(largest) + sum.ln()
}

/// The first token with the largest logit.
fn top(logits: &[f32]) -> usize {
    let mut top = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[top] {
            top = index;
        }
    }
    top
}

/// Quantile of sorted numbers, between the two nearest.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_do_not_diverge() {
        let mut positions = Positions::default();
        positions.add(&[1.0, 2.0, 3.0], &[2.0, 3.0, 4.0], 0);
        let summary = positions.summary().unwrap();
        assert!(summary.mean_kld < 1e-9, "{}", summary.mean_kld);
        assert_eq!(summary.same_top, 1.0);
        assert!((summary.perplexity_ratio - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_worked_position() {
        // p = (1/2, 1/2), q = (3/4, 1/4): KLD = ln 2 - (ln 3)/2; next token 1: delta = -1/4, ratio 2.
        let mut positions = Positions::default();
        positions.add(&[0.0, 0.0], &[3.0_f32.ln(), 0.0], 1);
        let summary = positions.summary().unwrap();
        assert!((summary.mean_kld - (2.0_f64.ln() - 3.0_f64.ln() / 2.0)).abs() < 1e-6);
        assert!((summary.mean_delta_p + 0.25).abs() < 1e-6);
        assert!((summary.rms_delta_p - 0.25).abs() < 1e-6);
        assert!((summary.perplexity_ratio - 2.0).abs() < 1e-5);
        assert_eq!(summary.tokens, 1);
        assert!(Positions::default().summary().is_none());
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let sorted = [0.0, 1.0, 2.0, 3.0];
        assert_eq!(quantile(&sorted, 0.5), 1.5);
        assert_eq!(quantile(&sorted, 1.0), 3.0);
        assert_eq!(quantile(&sorted[..1], 0.999), 0.0);
    }
}
