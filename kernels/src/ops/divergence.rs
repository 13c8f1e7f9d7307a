//! Kullback-Leibler divergence between two distributions over a whole vocabulary, given as logits.
//!
//! `KL(p || q) = sum_i p_i (ln p_i - ln q_i)` with `p = softmax(x)` and `q = softmax(y)`. Sums run in `f32` inside blocks of
//! [`BLOCK`] elements and in `f64` over the blocks. Equal logits give exactly zero.

use rayon::prelude::*;

use super::simd::{Operation, Simd, dispatch, exp};
use super::softmax::{BLOCK, log_softmax_row_with};
use crate::InstructionSet;

/// Below this a log-probability is that of nothing: an excluded token of both rows must not give infinity minus infinity.
const LOWEST: f32 = -1e30;

/// `KL(softmax(reference_t) || softmax(logits_t))` in nats of each row `t` of two matrices `[t, vocabulary]`, both of which
/// are overwritten with log-probabilities.
///
/// # Panics
///
/// When the lengths do not fit together.
pub fn divergence_rows(reference: &mut [f32], logits: &mut [f32], vocabulary: usize) -> Vec<f64> {
    divergence_rows_with(InstructionSet::detect(), reference, logits, vocabulary)
}

fn divergence_rows_with(isa: InstructionSet, reference: &mut [f32], logits: &mut [f32], vocabulary: usize) -> Vec<f64> {
    assert!(vocabulary > 0, "divergence: the vocabulary is empty");
    assert_eq!(reference.len(), logits.len(), "divergence: the matrices differ in size");
    assert_eq!(logits.len() % vocabulary, 0, "divergence: the logits are not whole rows");
    let of_row = |(reference, logits): (&mut [f32], &mut [f32])| {
        log_softmax_row_with(isa, reference);
        log_softmax_row_with(isa, logits);
        dispatch(isa, Divergence { p: reference, q: logits })
    };
    reference.par_chunks_exact_mut(vocabulary).zip(logits.par_chunks_exact_mut(vocabulary)).map(of_row).collect()
}

/// Logarithms of two distributions.
struct Divergence<'a> {
    p: &'a [f32],
    q: &'a [f32],
}

impl Operation for Divergence<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let mut total = 0.0;
        for (p, q) in self.p.chunks(BLOCK).zip(self.q.chunks(BLOCK)) {
            let mut sum = simd.splat(0.0);
            let (mut p, mut q) = (p.chunks_exact(S::WIDTH), q.chunks_exact(S::WIDTH));
            for (p, q) in (&mut p).zip(&mut q) {
                sum = add_terms(simd, simd.load(p), simd.load(q), sum);
            }
            let (p, q) = (p.remainder(), q.remainder());
            let excluded = f32::NEG_INFINITY;
            sum = add_terms(simd, simd.load_short(p, excluded), simd.load_short(q, excluded), sum);
            total += f64::from(simd.sum(sum));
        }
        total
    }
}

/// `sum + p (ln p - ln q)`.
#[inline(always)]
fn add_terms<S: Simd>(simd: S, log_p: S::Vector, log_q: S::Vector, sum: S::Vector) -> S::Vector {
    // The larger of the two comes second, so that what is no number stays none.
    let lowest = simd.splat(LOWEST);
    let difference = simd.sub(simd.max(lowest, log_p), simd.max(lowest, log_q));
    simd.mul_add(exp(simd, log_p), difference, sum)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "the values are exact")]

    use super::*;
    use crate::ops::testing::{noise, with_threads};

    fn reference(p: &[f32], q: &[f32]) -> f64 {
        let lse = |row: &[f32]| row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        let (of_p, of_q) = (lse(p), lse(q));
        let term = |(p, q): (&f32, &f32)| {
            let (log_p, log_q) = (f64::from(*p) - of_p, f64::from(*q) - of_q);
            if log_p == f64::NEG_INFINITY { 0.0 } else { log_p.exp() * (log_p - log_q) }
        };
        p.iter().zip(q).map(term).sum()
    }

    #[test]
    fn agrees_with_double_precision_on_every_instruction_set() {
        for vocabulary in [1, 5, 16, 1024, 1029, 49_152] {
            let one: Vec<f32> = noise(3, 2 * vocabulary).iter().map(|x| x * 12.0).collect();
            let other: Vec<f32> = one.iter().zip(noise(4, 2 * vocabulary)).map(|(x, by)| x + by).collect();
            let rows = one.chunks(vocabulary).zip(other.chunks(vocabulary));
            let truth: Vec<f64> = rows.map(|(p, q)| reference(p, q)).collect();
            for isa in InstructionSet::available() {
                let found = divergence_rows_with(isa, &mut one.clone(), &mut other.clone(), vocabulary);
                for (found, truth) in found.iter().zip(&truth) {
                    assert!((found - truth).abs() < 1e-6, "{}: {found} for {truth}", isa.name());
                }
            }
        }
    }

    #[test]
    fn equal_rows_do_not_diverge_and_excluded_tokens_count_nothing() {
        let mut row: Vec<f32> = noise(5, 2000).iter().map(|x| x * 20.0).collect();
        row[7] = f32::NEG_INFINITY;
        for isa in InstructionSet::available() {
            assert_eq!(divergence_rows_with(isa, &mut row.clone(), &mut row.clone(), 1000), [0.0, 0.0]);
        }
        let found = divergence_rows(&mut [0.0, f32::NEG_INFINITY], &mut [0.0, 0.0], 2)[0];
        assert!((found - std::f64::consts::LN_2).abs() < 1e-6, "{found}");
        assert!(divergence_rows(&mut [0.0, 0.0], &mut [0.0, f32::NEG_INFINITY], 2)[0] > 1e20);
        assert!(divergence_rows(&mut [0.0, 1.0], &mut [0.0, f32::NAN], 2)[0].is_nan());
    }

    #[test]
    fn threads_change_nothing() {
        let (one, other) = (noise(6, 30 * 700), noise(7, 30 * 700));
        let run = || divergence_rows(&mut one.clone(), &mut other.clone(), 700);
        assert_eq!(with_threads(1, run), with_threads(3, run));
    }
}
