//! Loops over a whole vocabulary: maximum, the highest few, softmax weights.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Accumulators side by side in the loops over a vocabulary, so that the compiler can use vector registers.
const LANES: usize = 16;

/// The index of the highest logit, the lowest index among equals; NaN is never chosen unless there is nothing else.
#[allow(clippy::float_cmp, reason = "the maximum is one of the values")]
pub(crate) fn argmax(logits: &[f32]) -> usize {
    let highest = maximum(logits);
    logits.iter().position(|&logit| logit == highest).unwrap_or(0)
}

/// Sets the logits of all tokens that `allowed` does not name to negative infinity: bit `i % 32` of word `i / 32` stands for
/// token `i`, and tokens beyond the last word are not named.
pub(super) fn forbid(logits: &mut [f32], allowed: &[u32]) {
    let mut words = allowed.iter();
    for chunk in logits.chunks_mut(32) {
        match words.next().copied().unwrap_or(0) {
            u32::MAX => {}
            0 => chunk.fill(f32::NEG_INFINITY),
            word => {
                for (bit, logit) in chunk.iter_mut().enumerate() {
                    *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                }
            }
        }
    }
}

fn maximum(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// A token with its logit or weight. The greater is the more probable; among equals the lower id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) token: u32,
    pub(super) value: f32,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.total_cmp(&other.value).then(other.token.cmp(&self.token))
    }
}
impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Candidate {}

/// The `count` highest values, best first.
pub(super) fn highest(values: &[f32], count: usize) -> Vec<Candidate> {
    let count = count.min(values.len());
    if count == 0 {
        return Vec::new();
    }
    // The heap's top is the worst of the best so far: most chunks are dismissed by one comparison of their maximum.
    let mut heap = BinaryHeap::with_capacity(count + 1);
    let mut bar = f32::NEG_INFINITY;
    for (chunk_index, chunk) in values.chunks(LANES).enumerate() {
        if heap.len() == count && maximum(chunk) <= bar {
            continue;
        }
        for (offset, &value) in chunk.iter().enumerate() {
            if value.is_nan() {
                continue;
            }
            let candidate = Candidate { token: (chunk_index * LANES + offset) as u32, value };
            heap.push(std::cmp::Reverse(candidate));
            if heap.len() > count {
                heap.pop();
            }
        }
        if heap.len() == count {
            bar = heap.peek().map_or(f32::NEG_INFINITY, |worst| worst.0.value);
        }
    }
    // Ascending order of `Reverse` is descending order of candidates.
    heap.into_sorted_vec().into_iter().map(|candidate| candidate.0).collect()
}

/// `e^x` for `x <= 0`, within 2 units in the last place down to -87, 0 below. Plain arithmetic that vectorises.
fn exp_nonpositive(x: f32) -> f32 {
    /// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts (Cody and Waite), so that the difference keeps its low bits.
    let r = (clamped - n * 0.693_359_4) - n * -2.121_944_4e-4;
    // Taylor coefficients 1/k! suffice for |r| <= ln 2 / 2.
    let mut p = 1.388_889e-3;
    for coefficient in [8.333_333e-3, 4.166_666_6e-2, 0.166_666_67, 0.5, 1.0, 1.0] {
        p = p * r + coefficient;
    }
    let scale = f32::from_bits((((n as i32) + 127) << 23) as u32);
    if x > -87.0 { p * scale } else { 0.0 }
}

/// Sets `weights` to `e^((logit - maximum) / temperature)`; gives their sum.
pub(super) fn weigh(logits: &[f32], temperature: f32, weights: &mut Vec<f32>) -> f64 {
    let highest = maximum(logits);
    let factor = 1.0 / temperature;
    weights.resize(logits.len(), 0.0);
    let mut sums = [0.0_f64; LANES];
    for (weights, logits) in weights.chunks_mut(LANES).zip(logits.chunks(LANES)) {
        for (weight, logit) in weights.iter_mut().zip(logits) {
            *weight = exp_nonpositive((logit - highest) * factor);
        }
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum += f64::from(*weight);
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_prefers_the_first_of_equals_and_ignores_nan() {
        let mut logits = vec![0.0; 100];
        logits[37] = 5.0;
        logits[80] = 5.0;
        logits[3] = f32::NAN;
        assert_eq!(argmax(&logits), 37);
        logits[99] = 6.0;
        assert_eq!(argmax(&logits), 99);
        assert_eq!(argmax(&[f32::NAN; 3]), 0);
    }

    #[test]
    fn tokens_that_are_not_named_are_forbidden() {
        let mut logits = vec![1.0; 130];
        forbid(&mut logits, &[u32::MAX, 0, 0b1001]);
        let kept: Vec<usize> = (0..130).filter(|&token| logits[token] > 0.0).collect();
        assert_eq!(kept, (0..32).chain([64, 67]).collect::<Vec<_>>());
        assert!(logits.iter().all(|logit| *logit > 0.0 || logit.is_infinite()));
    }

    #[test]
    fn the_highest_are_sorted_with_ties_by_id() {
        let values: Vec<f32> = (0..1000_u32).map(|i| (i * 7919 % 101) as f32).collect();
        let mut expected: Vec<(u32, f32)> = values.iter().enumerate().map(|(i, &v)| (i as u32, v)).collect();
        expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let found: Vec<(u32, f32)> = highest(&values, 25).iter().map(|c| (c.token, c.value)).collect();
        assert_eq!(found, expected[..25]);
    }

    #[test]
    fn the_exponential_is_accurate() {
        for i in 0..8700 {
            let x = -(i as f32) / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp_nonpositive(x)) - expected).abs() / expected;
            assert!(error < 2.5e-7, "x {x}: relative error {error}");
        }
        assert_eq!(exp_nonpositive(0.0).to_bits(), 1.0_f32.to_bits());
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY).to_bits(), 0.0_f32.to_bits());
    }
}
