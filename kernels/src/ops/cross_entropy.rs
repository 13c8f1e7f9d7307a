//! Cross entropy over a vocabulary, loss and gradient in one visit of the logits.
//!
//! For a row with target `k` and weight `w`: `nll = lse(x) - x_k`, gradient `w (softmax(x)_i - [i = k])`. Each block of
//! [`BLOCK`] logits is replaced by its exponentials relative to its own maximum as it comes from memory; once the maximum
//! and the sum of the row are known, the blocks are scaled while the row lies in the cache.

use rayon::prelude::*;

use super::simd::{Operation, Simd, dispatch, exp};
use super::softmax::{BLOCK, maximum};
use crate::InstructionSet;

/// Overwrites logits `[t, vocabulary]` with the gradient of `sum_t weights[t] * nll_t` and returns that sum.
///
/// `losses[t]` is the unweighted `nll_t`. A row of weight zero is not read: its loss is 0, its gradient zero, and its
/// target may be anything. The sum is taken in row order in double precision.
///
/// # Panics
///
/// When the lengths do not fit together, or the target of a weighted row lies outside the vocabulary.
pub fn cross_entropy_rows(
    logits: &mut [f32],
    vocabulary: usize,
    targets: &[u32],
    weights: &[f32],
    losses: &mut [f32],
) -> f64 {
    cross_entropy_rows_with(InstructionSet::detect(), logits, vocabulary, targets, weights, losses)
}

fn cross_entropy_rows_with(
    isa: InstructionSet,
    logits: &mut [f32],
    vocabulary: usize,
    targets: &[u32],
    weights: &[f32],
    losses: &mut [f32],
) -> f64 {
    let rows = targets.len();
    assert!(vocabulary > 0, "cross_entropy_rows: the vocabulary is empty");
    assert_eq!(logits.len(), rows * vocabulary, "cross_entropy_rows: logits are not one row for each target");
    assert_eq!(weights.len(), rows, "cross_entropy_rows: weights are not one for each target");
    assert_eq!(losses.len(), rows, "cross_entropy_rows: losses are not one for each target");
    for (row, (target, weight)) in targets.iter().zip(weights).enumerate() {
        assert!(
            *weight == 0.0 || (*target as usize) < vocabulary,
            "cross_entropy_rows: target {target} of row {row} is outside the vocabulary of {vocabulary}"
        );
    }
    logits.par_chunks_exact_mut(vocabulary).zip(losses.par_iter_mut()).zip(targets.par_iter().zip(weights)).for_each(
        |((row, loss), (target, weight))| {
            if *weight == 0.0 {
                row.fill(0.0);
                *loss = 0.0;
            } else {
                *loss = dispatch(isa, Row { logits: row, target: *target as usize, weight: *weight });
            }
        },
    );
    losses.iter().zip(weights).map(|(loss, weight)| f64::from(*loss) * f64::from(*weight)).sum()
}

struct Row<'a> {
    logits: &'a mut [f32],
    target: usize,
    weight: f32,
}

impl Operation for Row<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let target_logit = self.logits[self.target];
        let mut blocks = Vec::with_capacity(self.logits.len().div_ceil(BLOCK));
        for block in self.logits.chunks_mut(BLOCK) {
            let largest = maximum(simd, block);
            blocks.push((largest, store_exponentials(simd, block, largest)));
        }
        let largest = blocks.iter().fold(f32::NEG_INFINITY, |largest, block| largest.max(block.0));
        let factor = |block: f32| (f64::from(block) - f64::from(largest)).exp();
        let sum: f64 = blocks.iter().map(|(largest, sum)| f64::from(*sum) * factor(*largest)).sum();
        for (block, (largest, _)) in self.logits.chunks_mut(BLOCK).zip(&blocks) {
            scale(simd, block, (f64::from(self.weight) / sum * factor(*largest)) as f32);
        }
        self.logits[self.target] -= self.weight;
        (f64::from(largest) - f64::from(target_logit) + sum.ln()) as f32
    }
}

/// Replaces a block by `e^(x_i - largest)` and returns the sum.
#[inline(always)]
fn store_exponentials<S: Simd>(simd: S, block: &mut [f32], largest: f32) -> f32 {
    // A block of nothing but negative infinities gives zeros, not their difference.
    let shift = simd.splat(if largest == f32::NEG_INFINITY { 0.0 } else { largest });
    let mut sum = simd.splat(0.0);
    let mut chunks = block.chunks_exact_mut(S::WIDTH);
    for lanes in &mut chunks {
        let value = exp(simd, simd.sub(simd.load(lanes), shift));
        simd.store(lanes, value);
        sum = simd.add(sum, value);
    }
    let rest = chunks.into_remainder();
    let value = exp(simd, simd.sub(simd.load_short(rest, f32::NEG_INFINITY), shift));
    simd.store_short(rest, value);
    simd.sum(simd.add(sum, value))
}

#[inline(always)]
fn scale<S: Simd>(simd: S, row: &mut [f32], factor: f32) {
    let factor = simd.splat(factor);
    let mut chunks = row.chunks_exact_mut(S::WIDTH);
    for lanes in &mut chunks {
        simd.store(lanes, simd.mul(simd.load(lanes), factor));
    }
    let rest = chunks.into_remainder();
    simd.store_short(rest, simd.mul(simd.load_short(rest, 0.0), factor));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "the values are exact")]

    use super::*;
    use crate::ops::testing::{assert_close, gradient, noise, widen, with_threads};

    fn loss(logits: &[f64], vocabulary: usize, targets: &[u32], weights: &[f32]) -> f64 {
        logits
            .chunks(vocabulary)
            .zip(targets.iter().zip(weights))
            .map(|(row, (target, weight))| {
                let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let lse = largest + row.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
                (lse - row[*target as usize]) * f64::from(*weight)
            })
            .sum()
    }

    #[test]
    fn loss_and_gradient_agree_with_double_precision() {
        for vocabulary in [1, 3, 16, 100, 1029] {
            let logits: Vec<f32> = noise(9, 3 * vocabulary).into_iter().map(|x| x * 8.0).collect();
            let targets = [0, vocabulary as u32 / 2, vocabulary as u32 - 1];
            let weights = [0.25, 1.0, 0.5];
            let truth = loss(&widen(&logits), vocabulary, &targets, &weights);
            let gradient = gradient(&logits, |logits| loss(logits, vocabulary, &targets, &weights));
            for isa in InstructionSet::available() {
                let (mut values, mut losses) = (logits.clone(), [0.0; 3]);
                let sum = cross_entropy_rows_with(isa, &mut values, vocabulary, &targets, &weights, &mut losses);
                assert!((sum - truth).abs() <= 2e-6 * truth.abs().max(1.0), "{}: {sum} for {truth}", isa.name());
                if vocabulary > 1 {
                    assert_close(&values, &gradient, 1e-5, isa.name());
                }
            }
        }
    }

    #[test]
    fn rows_of_weight_zero_are_not_read() {
        let mut logits = vec![f32::NAN; 8];
        logits[4..].copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        let mut losses = [5.0; 2];
        let sum = cross_entropy_rows(&mut logits, 4, &[u32::MAX, 3], &[0.0, 1.0], &mut losses);
        assert_eq!(logits[..4], [0.0; 4]);
        assert_eq!(losses[0], 0.0);
        assert!((sum - 0.440_189_7).abs() < 1e-6);
        assert!(logits[4..].iter().sum::<f32>().abs() < 1e-6);
    }

    #[test]
    fn excluded_and_large_logits() {
        let vocabulary = 3 * BLOCK;
        for isa in InstructionSet::available() {
            let mut logits = vec![f32::NEG_INFINITY; vocabulary];
            logits[5] = -1e4;
            logits[BLOCK] = 1e4;
            logits[BLOCK + 1] = 1e4;
            let mut losses = [0.0];
            let target = BLOCK as u32;
            cross_entropy_rows_with(isa, &mut logits, vocabulary, &[target], &[2.0], &mut losses);
            assert!((losses[0] - std::f32::consts::LN_2).abs() < 1e-6, "{}: {losses:?}", isa.name());
            assert_eq!((logits[5], logits[BLOCK], logits[BLOCK + 1]), (0.0, -1.0, 1.0), "{}", isa.name());
            assert_eq!(logits[0], 0.0);
        }
    }

    #[test]
    fn threads_change_nothing() {
        let vocabulary = 5000;
        let logits = noise(10, 20 * vocabulary);
        let targets: Vec<u32> = (0..20).map(|row| row * 200).collect();
        let run = || {
            let (mut values, mut losses) = (logits.clone(), vec![0.0; 20]);
            let sum = cross_entropy_rows(&mut values, vocabulary, &targets, &[0.05; 20], &mut losses);
            (values, losses, sum)
        };
        assert_eq!(with_threads(1, run), with_threads(3, run));
    }
}
