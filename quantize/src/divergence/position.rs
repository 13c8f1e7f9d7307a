//! Two distributions at one position of a text.

/// What is measured at one position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Position {
    /// `sum p (ln p - ln q)`.
    pub(super) divergence: f64,
    /// Whether both put the same token first.
    pub(super) same_top: bool,
    /// `q - p` at the token that follows.
    pub(super) delta: f64,
    /// `ln p - ln q` at the token that follows.
    pub(super) log_ratio: f64,
}

impl Position {
    /// Compares the logits of one position; `next` is the token that follows in the text.
    pub(super) fn compare(reference: &[f32], candidate: &[f32], next: u32) -> Self {
        let shifts = (log_sum_exp(reference), log_sum_exp(candidate));
        let mut divergence = 0.0;
        for (reference, candidate) in reference.iter().zip(candidate) {
            let (p, q) = (f64::from(*reference) - shifts.0, f64::from(*candidate) - shifts.1);
            divergence += f64::from((p as f32).exp()) * (p - q);
        }
        let next = next as usize;
        let p = f64::from(reference[next]) - shifts.0;
        let q = f64::from(candidate[next]) - shifts.1;
        Self {
            // The rounding of the sums can bring equal distributions a hair below zero.
            divergence: divergence.max(0.0),
            same_top: top(reference) == top(candidate),
            delta: q.exp() - p.exp(),
            log_ratio: p - q,
        }
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

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "exact values are meant")]
mod tests {
    use super::*;

    #[test]
    fn equal_distributions_do_not_diverge() {
        let found = Position::compare(&[1.0, 2.0, 3.0], &[2.0, 3.0, 4.0], 0);
        assert!(found.divergence < 1e-9 && found.same_top && found.delta.abs() < 1e-9 && found.log_ratio.abs() < 1e-6);
    }

    #[test]
    fn a_worked_position() {
        // p = (1/2, 1/2), q = (3/4, 1/4): KLD = ln 2 - (ln 3)/2; next token 1: delta = -1/4, ratio 2.
        let found = Position::compare(&[0.0, 0.0], &[3.0_f32.ln(), 0.0], 1);
        assert!((found.divergence - (2.0_f64.ln() - 3.0_f64.ln() / 2.0)).abs() < 1e-6);
        assert!((found.delta + 0.25).abs() < 1e-6);
        assert!((found.log_ratio - 2.0_f64.ln()).abs() < 1e-6);
        assert!(found.same_top);
    }
}
