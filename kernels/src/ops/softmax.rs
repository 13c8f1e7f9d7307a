//! Log-sum-exp and log-softmax of one row.
//!
//! `lse(x) = m + ln sum_i e^(x_i - m)` with `m = max(x)`. Sums run in `f32` inside blocks of [`BLOCK`] elements and in
//! `f64` over the blocks, so that long rows lose no accuracy.

use super::simd::{Operation, Simd, dispatch, exp};
use crate::InstructionSet;

/// Elements that are summed in single precision.
pub(super) const BLOCK: usize = 1024;

/// `ln sum_i e^(x_i)`; negative infinity for an empty row.
pub fn log_sum_exp(logits: &[f32]) -> f32 {
    log_sum_exp_with(InstructionSet::detect(), logits)
}

fn log_sum_exp_with(isa: InstructionSet, logits: &[f32]) -> f32 {
    if logits.is_empty() {
        return f32::NEG_INFINITY;
    }
    dispatch(isa, LogSumExp(logits)) as f32
}

/// Replaces the logits of one row by the logarithms of their softmax.
pub fn log_softmax_row(logits: &mut [f32]) {
    log_softmax_row_with(InstructionSet::detect(), logits);
}

pub(super) fn log_softmax_row_with(isa: InstructionSet, logits: &mut [f32]) {
    if !logits.is_empty() {
        dispatch(isa, LogSoftmax(logits));
    }
}

struct LogSumExp<'a>(&'a [f32]);

impl Operation for LogSumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let largest = maximum(simd, self.0);
        f64::from(largest) + sum_of_exponentials(simd, self.0, largest).ln()
    }
}

struct LogSoftmax<'a>(&'a mut [f32]);

impl Operation for LogSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let largest = maximum(simd, self.0);
        let log_sum = simd.splat(sum_of_exponentials(simd, self.0, largest).ln() as f32);
        // The maximum goes first: the difference is exact where it matters.
        let largest = simd.splat(largest);
        let mut chunks = self.0.chunks_exact_mut(S::WIDTH);
        for lanes in &mut chunks {
            let shifted = simd.sub(simd.load(lanes), largest);
            simd.store(lanes, simd.sub(shifted, log_sum));
        }
        let rest = chunks.into_remainder();
        let shifted = simd.sub(simd.load_short(rest, 0.0), largest);
        simd.store_short(rest, simd.sub(shifted, log_sum));
    }
}

/// The largest element.
#[inline(always)]
pub(super) fn maximum<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let lowest = simd.splat(f32::NEG_INFINITY);
    let mut largest = [lowest; 4];
    let mut blocks = row.chunks_exact(4 * S::WIDTH);
    for block in &mut blocks {
        for (largest, lanes) in largest.iter_mut().zip(block.chunks_exact(S::WIDTH)) {
            *largest = simd.max(*largest, simd.load(lanes));
        }
    }
    let mut rest = blocks.remainder().chunks_exact(S::WIDTH);
    for lanes in &mut rest {
        largest[0] = simd.max(largest[0], simd.load(lanes));
    }
    largest[1] = simd.max(largest[1], simd.load_short(rest.remainder(), f32::NEG_INFINITY));
    simd.maximum(simd.max(simd.max(largest[0], largest[1]), simd.max(largest[2], largest[3])))
}

/// `sum_i e^(x_i - largest)`.
#[inline(always)]
fn sum_of_exponentials<S: Simd>(simd: S, row: &[f32], largest: f32) -> f64 {
    let shift = simd.splat(largest);
    let mut total = 0.0;
    for block in row.chunks(BLOCK) {
        let mut sum = simd.splat(0.0);
        let mut chunks = block.chunks_exact(S::WIDTH);
        for lanes in &mut chunks {
            sum = simd.add(sum, exp(simd, simd.sub(simd.load(lanes), shift)));
        }
        let rest = simd.load_short(chunks.remainder(), f32::NEG_INFINITY);
        sum = simd.add(sum, exp(simd, simd.sub(rest, shift)));
        total += f64::from(simd.sum(sum));
    }
    total
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "the values are exact")]

    use super::*;
    use crate::ops::testing::{assert_close, noise};

    fn reference(row: &[f32]) -> f64 {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|x| (f64::from(*x) - f64::from(largest)).exp()).sum();
        f64::from(largest) + sum.ln()
    }

    #[test]
    fn agrees_with_double_precision_on_every_instruction_set() {
        for length in [1, 5, 16, 100, 1024, 1025, 49_152] {
            let row: Vec<f32> = noise(length as u64, length).into_iter().map(|x| x * 30.0).collect();
            let truth = reference(&row);
            let log_softmax: Vec<f64> = row.iter().map(|x| f64::from(*x) - truth).collect();
            for isa in InstructionSet::available() {
                let lse = log_sum_exp_with(isa, &row);
                assert!((f64::from(lse) - truth).abs() < 3e-6, "{}: {lse} for {truth}", isa.name());
                let mut out = row.clone();
                log_softmax_row_with(isa, &mut out);
                assert_close(&out, &log_softmax, 1e-6, isa.name());
            }
        }
    }

    #[test]
    fn infinities_and_large_logits() {
        for isa in InstructionSet::available() {
            assert_eq!(log_sum_exp_with(isa, &[]), f32::NEG_INFINITY);
            assert_eq!(log_sum_exp_with(isa, &[f32::NEG_INFINITY, 3.0]), 3.0);
            let mut row = [1e30, f32::NEG_INFINITY, 1e30];
            log_softmax_row_with(isa, &mut row);
            assert_eq!(row[1], f32::NEG_INFINITY);
            assert!((row[0] + std::f32::consts::LN_2).abs() < 1e-6);
            assert!(log_sum_exp_with(isa, &[f32::NAN, 1.0]).is_nan());
        }
    }
}
