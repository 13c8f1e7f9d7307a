//! Whether two figures of the same items go together: a judge's scores and the length of what it judged.

use serde::{Deserialize, Serialize};

use super::student;

/// A correlation and what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// From -1 to 1.
    pub coefficient: f64,
    /// Two-sided p-value of "they do not go together", by Student's t with n - 2 degrees; 1 for fewer than three pairs.
    pub p: f64,
    /// Pairs.
    pub pairs: usize,
}

/// How far two figures follow a straight line; None where one of them never changes, or for fewer than two pairs.
pub fn pearson(first: &[f64], second: &[f64]) -> Option<Correlation> {
    let pairs = first.len().min(second.len());
    let (first, second) = (&first[..pairs], &second[..pairs]);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / pairs as f64;
    let (mean_first, mean_second) = (mean(first), mean(second));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in first.iter().zip(second) {
        let (x, y) = (x - mean_first, y - mean_second);
        xx += x * x;
        yy += y * y;
        xy += x * y;
    }
    let spread = (xx * yy).sqrt();
    if spread.is_nan() || spread <= 0.0 {
        return None;
    }
    let coefficient = (xy / spread).clamp(-1.0, 1.0);
    let degrees = pairs as f64 - 2.0;
    let p = if degrees > 0.0 {
        // At exactly one, t is infinite and p zero.
        student::two_sided(coefficient * (degrees / (1.0 - coefficient * coefficient)).sqrt(), degrees)
    } else {
        1.0
    };
    Some(Correlation { coefficient, p, pairs })
}

/// How far one figure rises with the other, however fast: [`pearson`] of the ranks, ties having the mean of theirs.
/// Spearman, American Journal of Psychology 15 (1904) 72.
pub fn spearman(first: &[f64], second: &[f64]) -> Option<Correlation> {
    let pairs = first.len().min(second.len());
    pearson(&ranks(&first[..pairs]), &ranks(&second[..pairs]))
}

/// Ranks from 1, equal values sharing the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut done = 0;
    // In order, what is not below the next is equal to it.
    for same in order.chunk_by(|&a, &b| values[a] >= values[b]) {
        let mean = done as f64 + f64::midpoint(1.0, same.len() as f64);
        for &index in same {
            ranks[index] = mean;
        }
        done += same.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
    }

    #[test]
    fn what_never_changes_goes_with_nothing() {
        assert_eq!(pearson(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!((pearson(&[], &[]), spearman(&[1.0], &[1.0])), (None, None));
        let line = pearson(&[1.0, 2.0, 3.0], &[-2.0, -4.0, -6.0]).unwrap();
        assert!((line.coefficient + 1.0).abs() < 1e-15 && line.p < 1e-6 && line.pairs == 3);
        let rises = spearman(&[1.0, 2.0, 3.0, 4.0], &[1.0, 10.0, 100.0, 1000.0]).unwrap();
        assert!((rises.coefficient - 1.0).abs() < 1e-15);
        assert!(pearson(&[1.0, 2.0], &[1.0, 2.0]).unwrap().p > 0.999);
    }
}
