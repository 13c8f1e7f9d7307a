//! Cross entropy over a vocabulary and divergence from a teacher, loss and gradient in one visit of the logits.
//!
//! For a row with target `k` and weight `w`: `nll = lse(x) - x_k`, gradient `w (q_i - [i = k])` with `q = softmax(x)`.
//! Each block of [`BLOCK`] logits is replaced by its exponentials relative to its own maximum as it comes from memory; once
//! the maximum and the sum of the row are known, the blocks are scaled while the row lies in the cache.
//!
//! A teacher gives the probabilities `p` of a few tokens `K`; everything else is one more outcome, the tail, with
//! `P = 1 - sum_K p` and `Q = 1 - sum_K q`. The divergence is that of these two distributions over `|K| + 1` outcomes:
//! `KL = sum_K p (ln p - ln q) + P (ln P - ln Q)`, with `dKL/dx_i = q_i - p_i` in `K` and `q_i - P q_i / Q` in the tail. It
//! is exact for the outcomes that it tells apart and a lower bound of the divergence over the whole vocabulary. The logits of
//! `K` are taken out of the row before the sums, so that `Q` is a sum and not the difference of two nearly equal numbers.
//!
//! There is no temperature: `softmax(x / T)` of a tail needs each of its logits, which the teacher's top tokens do not tell.

use rayon::prelude::*;

use super::simd::{Operation, Simd, dispatch, exp};
use super::softmax::{BLOCK, maximum};
use crate::InstructionSet;

/// The teacher's most probable tokens for each row.
#[derive(Clone, Copy, Debug)]
pub struct TeacherRows<'a> {
    /// Row `t` holds the entries from `offsets[t]` up to `offsets[t + 1]`; a row without entries has no teacher.
    pub offsets: &'a [usize],
    /// Tokens; different ones within a row.
    pub tokens: &'a [u32],
    /// Natural logarithms of their probabilities under the teacher's whole vocabulary.
    pub log_probabilities: &'a [f32],
    /// Share of the divergence in the loss of a row with a teacher, 0 to 1; the rest is the `nll`.
    pub share: f32,
}

/// What a row costs, without its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowLoss {
    /// `lse(x) - x_k`.
    pub nll: f32,
    /// Divergence from the teacher; 0 where there is none.
    pub divergence: f32,
    /// Whether no token is more probable than the target.
    pub is_likeliest: bool,
}

/// Overwrites logits `[t, vocabulary]` with the gradient of `sum_t weights[t] * nll_t` and returns that sum.
///
/// `losses[t]` is what row `t` costs. A row of weight zero is not read: it costs nothing, its gradient is zero, and its
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
    losses: &mut [RowLoss],
) -> f64 {
    let rows = Rows { vocabulary, targets, weights, teacher: None };
    rows.visit(InstructionSet::detect(), logits, losses)
}

/// Overwrites logits `[t, vocabulary]` with the gradient of `sum_t weights[t] * loss_t` and returns that sum, where `loss_t`
/// is `(1 - share) nll_t + share KL_t` for a row with a teacher and `nll_t` for a row without.
///
/// `losses[t]` is what row `t` costs; rows of weight zero as in [`cross_entropy_rows`].
///
/// # Panics
///
/// When the lengths do not fit together, or a token of a weighted row lies outside the vocabulary.
pub fn distillation_rows(
    logits: &mut [f32],
    vocabulary: usize,
    targets: &[u32],
    weights: &[f32],
    teacher: TeacherRows<'_>,
    losses: &mut [RowLoss],
) -> f64 {
    let rows = Rows { vocabulary, targets, weights, teacher: Some(teacher) };
    rows.visit(InstructionSet::detect(), logits, losses)
}

/// What rows of logits should have been.
#[derive(Clone, Copy)]
struct Rows<'a> {
    vocabulary: usize,
    targets: &'a [u32],
    weights: &'a [f32],
    teacher: Option<TeacherRows<'a>>,
}

impl Rows<'_> {
    fn visit(self, isa: InstructionSet, logits: &mut [f32], losses: &mut [RowLoss]) -> f64 {
        self.check(logits.len(), losses.len());
        let visit = |(row, (logits, loss)): (usize, (&mut [f32], &mut RowLoss))| {
            let weight = self.weights[row];
            *loss = if weight == 0.0 {
                logits.fill(0.0);
                RowLoss::default()
            } else {
                let (tokens, log_probabilities, share) = self.teacher(row);
                let target = self.targets[row] as usize;
                dispatch(isa, Row { logits, target, weight, tokens, log_probabilities, share })
            };
        };
        logits.par_chunks_exact_mut(self.vocabulary).zip(losses.par_iter_mut()).enumerate().for_each(visit);
        let weighted = |(row, loss): (usize, &RowLoss)| {
            let share = f64::from(self.teacher(row).2);
            let mixed = (1.0 - share) * f64::from(loss.nll) + share * f64::from(loss.divergence);
            mixed * f64::from(self.weights[row])
        };
        losses.iter().enumerate().map(weighted).sum()
    }

    /// Tokens, logarithms of their probabilities, and the share of the divergence in the loss of a row.
    fn teacher(&self, row: usize) -> (&[u32], &[f32], f32) {
        match self.teacher {
            Some(teacher) if teacher.offsets[row] < teacher.offsets[row + 1] => {
                let entries = teacher.offsets[row]..teacher.offsets[row + 1];
                (&teacher.tokens[entries.clone()], &teacher.log_probabilities[entries], teacher.share)
            }
            _ => (&[], &[], 0.0),
        }
    }

    fn check(&self, logits: usize, losses: usize) {
        let rows = self.targets.len();
        assert!(self.vocabulary > 0, "cross entropy: the vocabulary is empty");
        assert_eq!(logits, rows * self.vocabulary, "cross entropy: logits are not one row for each target");
        assert_eq!(self.weights.len(), rows, "cross entropy: weights are not one for each target");
        assert_eq!(losses, rows, "cross entropy: losses are not one for each target");
        if let Some(teacher) = self.teacher {
            assert_eq!(teacher.offsets.len(), rows + 1, "cross entropy: teacher rows are not one for each target");
            let (tokens, log_probabilities) = (teacher.tokens.len(), teacher.log_probabilities.len());
            assert_eq!(tokens, log_probabilities, "cross entropy: a probability belongs to each token of the teacher");
        }
        for row in (0..rows).filter(|&row| self.weights[row] != 0.0) {
            for &token in self.teacher(row).0.iter().chain([&self.targets[row]]) {
                assert!(
                    (token as usize) < self.vocabulary,
                    "cross entropy: token {token} of row {row} is outside the vocabulary of {}",
                    self.vocabulary
                );
            }
        }
    }
}

struct Row<'a> {
    logits: &'a mut [f32],
    target: usize,
    weight: f32,
    tokens: &'a [u32],
    log_probabilities: &'a [f32],
    share: f32,
}

impl Operation for Row<'_> {
    type Output = RowLoss;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> RowLoss {
        let target_logit = self.logits[self.target];
        let logit = |&token: &u32| f64::from(std::mem::replace(&mut self.logits[token as usize], f32::NEG_INFINITY));
        let top: Vec<f64> = self.tokens.iter().map(logit).collect();
        let mut blocks = Vec::with_capacity(self.logits.len().div_ceil(BLOCK));
        for block in self.logits.chunks_mut(BLOCK) {
            let largest = maximum(simd, block);
            blocks.push((f64::from(largest), store_exponentials(simd, block, largest)));
        }
        let tail_largest = blocks.iter().fold(f64::NEG_INFINITY, |largest, block| largest.max(block.0));
        let largest = top.iter().fold(tail_largest, |largest, logit| largest.max(*logit));
        // e^(x - y), where nothing at all is no more than nothing.
        let relative = |x: f64, y: f64| if x == f64::NEG_INFINITY { 0.0 } else { (x - y).exp() };
        let sum: f64 = blocks.iter().map(|(block, sum)| f64::from(*sum) * relative(*block, largest)).sum::<f64>()
            + top.iter().map(|logit| relative(*logit, largest)).sum::<f64>();
        let tail_sum: f64 = blocks.iter().map(|(block, sum)| f64::from(*sum) * relative(*block, tail_largest)).sum();

        let (weight, share) = (f64::from(self.weight), f64::from(self.share));
        let (mut divergence, mut rest) = (0.0, 1.0);
        for (logit, log_p) in top.iter().zip(self.log_probabilities) {
            let (log_p, p) = (f64::from(*log_p), f64::from(*log_p).exp());
            rest -= p;
            divergence += if p > 0.0 { p * (log_p - (logit - largest - sum.ln())) } else { 0.0 };
        }
        // Rounding may leave less than nothing for the tail, and a vocabulary that is all top tokens has none.
        let tail = if self.tokens.is_empty() || tail_sum == 0.0 { 0.0 } else { rest.max(0.0) };
        if tail > 0.0 {
            divergence += tail * (tail.ln() - (tail_largest + tail_sum.ln() - largest - sum.ln()));
        }
        for (block, (block_largest, _)) in self.logits.chunks_mut(BLOCK).zip(&blocks) {
            let mut factor = weight / sum * relative(*block_largest, largest);
            if tail > 0.0 {
                factor -= weight * share * tail / tail_sum * relative(*block_largest, tail_largest);
            }
            scale(simd, block, factor as f32);
        }
        for ((token, logit), log_p) in self.tokens.iter().zip(&top).zip(self.log_probabilities) {
            let difference = relative(*logit, largest) / sum - share * f64::from(*log_p).exp();
            self.logits[*token as usize] = (weight * difference) as f32;
        }
        self.logits[self.target] -= (weight * (1.0 - share)) as f32;
        let target_logit = f64::from(target_logit);
        RowLoss {
            nll: (largest - target_logit + sum.ln()) as f32,
            divergence: divergence as f32,
            is_likeliest: target_logit >= largest,
        }
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

    fn cross_entropy_rows_with(
        isa: InstructionSet,
        logits: &mut [f32],
        vocabulary: usize,
        targets: &[u32],
        weights: &[f32],
        losses: &mut [RowLoss],
    ) -> f64 {
        let rows = Rows { vocabulary, targets, weights, teacher: None };
        rows.visit(isa, logits, losses)
    }

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
                let (mut values, mut losses) = (logits.clone(), [RowLoss::default(); 3]);
                let sum = cross_entropy_rows_with(isa, &mut values, vocabulary, &targets, &weights, &mut losses);
                assert!((sum - truth).abs() <= 2e-6 * truth.abs().max(1.0), "{}: {sum} for {truth}", isa.name());
                if vocabulary > 1 {
                    assert_close(&values, &gradient, 1e-5, isa.name());
                }
                for ((loss, row), &target) in losses.iter().zip(logits.chunks(vocabulary)).zip(&targets) {
                    let likelier = row.iter().any(|&logit| logit > row[target as usize]);
                    assert_eq!(loss.is_likeliest, !likelier, "{}", isa.name());
                }
            }
        }
    }

    #[test]
    fn rows_of_weight_zero_are_not_read() {
        let mut logits = vec![f32::NAN; 8];
        logits[4..].copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        let mut losses = [RowLoss { nll: 5.0, divergence: 5.0, is_likeliest: true }; 2];
        let sum = cross_entropy_rows(&mut logits, 4, &[u32::MAX, 3], &[0.0, 1.0], &mut losses);
        assert_eq!(logits[..4], [0.0; 4]);
        assert_eq!(losses, [RowLoss::default(), RowLoss { nll: sum as f32, divergence: 0.0, is_likeliest: true }]);
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
            let mut losses = [RowLoss::default()];
            let target = BLOCK as u32;
            cross_entropy_rows_with(isa, &mut logits, vocabulary, &[target], &[2.0], &mut losses);
            assert!((losses[0].nll - std::f32::consts::LN_2).abs() < 1e-6, "{}: {losses:?}", isa.name());
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
            let (mut values, mut losses) = (logits.clone(), vec![RowLoss::default(); 20]);
            let sum = cross_entropy_rows(&mut values, vocabulary, &targets, &[0.05; 20], &mut losses);
            (values, losses, sum)
        };
        assert_eq!(with_threads(1, run), with_threads(3, run));
    }

    /// Offsets, tokens and probabilities of teachers with their top `k` of softmax(noise), for rows `0..rows`, none for row 1.
    fn teacher(rows: usize, vocabulary: usize, k: usize, spread: f32) -> (Vec<usize>, Vec<u32>, Vec<f32>) {
        let (mut offsets, mut tokens, mut log_probabilities) = (vec![0], Vec::new(), Vec::new());
        for row in 0..rows {
            if row != 1 {
                let logits: Vec<f64> =
                    noise(77 + row as u64, vocabulary).iter().map(|x| f64::from(x * spread)).collect();
                let lse = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
                let mut order: Vec<usize> = (0..vocabulary).collect();
                order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
                tokens.extend(order[..k].iter().map(|&token| token as u32));
                log_probabilities.extend(order[..k].iter().map(|&token| (logits[token] - lse) as f32));
            }
            offsets.push(tokens.len());
        }
        (offsets, tokens, log_probabilities)
    }

    /// `KL` of one row by its definition, the student's tail as a sum over the tail.
    fn divergence(row: &[f64], tokens: &[u32], log_probabilities: &[f32]) -> f64 {
        let lse = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        let tail: f64 = (0..row.len()).filter(|i| !tokens.contains(&(*i as u32))).map(|i| (row[i] - lse).exp()).sum();
        let p = |log_p: &f32| f64::from(*log_p).exp();
        let top: f64 = tokens
            .iter()
            .zip(log_probabilities)
            .map(|(token, log_p)| p(log_p) * (f64::from(*log_p) - (row[*token as usize] - lse)))
            .sum();
        let rest = 1.0 - log_probabilities.iter().map(p).sum::<f64>();
        if tokens.is_empty() || tail == 0.0 { top } else { top + rest * (rest.ln() - tail.ln()) }
    }

    #[test]
    fn divergence_and_gradient_agree_with_double_precision() {
        let (targets, weights) = ([0, 1, 2, 0], [0.25, 1.0, 0.5, 0.0]);
        for (vocabulary, k, share) in [(3, 1, 0.5), (16, 16, 0.3), (100, 8, 1.0), (1029, 32, 0.5), (1029, 1, 0.0)] {
            let logits: Vec<f32> = noise(19, 4 * vocabulary).into_iter().map(|x| x * 6.0).collect();
            let (offsets, tokens, log_probabilities) = teacher(4, vocabulary, k, 5.0);
            let rows = TeacherRows { offsets: &offsets, tokens: &tokens, log_probabilities: &log_probabilities, share };
            let entries = |row: usize| offsets[row]..offsets[row + 1];
            let kl = |logits: &[f64], row: usize| {
                let row_logits = &logits[row * vocabulary..(row + 1) * vocabulary];
                divergence(row_logits, &tokens[entries(row)], &log_probabilities[entries(row)])
            };
            let truth = |logits: &[f64]| {
                let of = |row: usize| {
                    let share = if entries(row).is_empty() { 0.0 } else { f64::from(share) };
                    let row_logits = &logits[row * vocabulary..(row + 1) * vocabulary];
                    let nll = loss(row_logits, vocabulary, &targets[row..=row], &[1.0]);
                    f64::from(weights[row]) * ((1.0 - share) * nll + share * kl(logits, row))
                };
                (0..4).map(of).sum::<f64>()
            };
            let (expected, differences) = (truth(&widen(&logits)), gradient(&logits, truth));
            for isa in InstructionSet::available() {
                let (mut values, mut losses) = (logits.clone(), [RowLoss::default(); 4]);
                let all = Rows { vocabulary, targets: &targets, weights: &weights, teacher: Some(rows) };
                let sum = all.visit(isa, &mut values, &mut losses);
                assert!(
                    (sum - expected).abs() <= 3e-6 * expected.abs().max(1.0),
                    "{}: {sum} for {expected}",
                    isa.name()
                );
                assert_close(&values, &differences, 1e-5, isa.name());
                let kls = [kl(&widen(&logits), 0), 0.0, kl(&widen(&logits), 2), 0.0];
                assert_close(&losses.map(|loss| loss.divergence), &kls, 1e-5, isa.name());
                assert!(kls[0] > 0.0 && losses[1].nll > 0.0 && losses[3] == RowLoss::default());
                let first = &logits[..vocabulary];
                assert_eq!(losses[0].is_likeliest, first.iter().all(|&logit| logit <= first[0]), "{}", isa.name());
            }
        }
    }

    #[test]
    fn a_teacher_that_is_the_student_asks_for_nothing() {
        let vocabulary = 2000;
        let (offsets, tokens, log_probabilities) = teacher(1, vocabulary, 20, 9.0);
        let rows =
            TeacherRows { offsets: &offsets, tokens: &tokens, log_probabilities: &log_probabilities, share: 1.0 };
        let mut logits: Vec<f32> = noise(77, vocabulary).iter().map(|x| x * 9.0).collect();
        let mut losses = [RowLoss::default()];
        distillation_rows(&mut logits, vocabulary, &[3], &[1.0], rows, &mut losses);
        assert!(losses[0].divergence.abs() < 1e-6, "{losses:?}");
        assert!(logits.iter().all(|gradient| gradient.abs() < 1e-6));
    }

    #[test]
    fn a_tail_of_nearly_nothing_keeps_its_digits() {
        // Outside its top token the student has 1e-13 and the teacher 1e-6: a tail by subtraction would be noise.
        let (vocabulary, excess) = (100, -(1e-6_f64).ln());
        let mut logits = vec![0.0_f32; vocabulary];
        logits[7] = 34.5;
        let log_probabilities = [(1.0 - (-excess).exp()).ln() as f32];
        let truth = divergence(&widen(&logits), &[7], &log_probabilities);
        let rows = TeacherRows { offsets: &[0, 1], tokens: &[7], log_probabilities: &log_probabilities, share: 1.0 };
        let mut losses = [RowLoss::default()];
        distillation_rows(&mut logits, vocabulary, &[7], &[1.0], rows, &mut losses);
        assert!((f64::from(losses[0].divergence) - truth).abs() < 1e-6 * truth, "{losses:?} for {truth}");
        assert!((logits[0] + 1e-6 / 99.0).abs() < 1e-9, "{}", logits[0]);
    }

    #[test]
    fn threads_change_nothing_of_a_divergence() {
        let (vocabulary, count) = (5000, 20);
        let logits = noise(10, count * vocabulary);
        let (offsets, tokens, log_probabilities) = teacher(count, vocabulary, 32, 8.0);
        let targets: Vec<u32> = (0..count as u32).map(|row| row * 200).collect();
        let run = || {
            let rows =
                TeacherRows { offsets: &offsets, tokens: &tokens, log_probabilities: &log_probabilities, share: 0.5 };
            let (mut values, mut losses) = (logits.clone(), vec![RowLoss::default(); count]);
            let weights = vec![0.05; count];
            let sum = distillation_rows(&mut values, vocabulary, &targets, &weights, rows, &mut losses);
            (values, losses, sum)
        };
        assert_eq!(with_threads(1, run), with_threads(3, run));
    }
}
