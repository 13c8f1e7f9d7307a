//! A mean with its standard error, of items on their own or in clusters.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Interval, student};

/// A mean and what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// The mean of all values.
    pub mean: f64,
    /// Its standard error; NaN where there are fewer than two items or clusters.
    pub standard_error: f64,
    /// Degrees of freedom: items, or clusters, less one.
    pub degrees: f64,
}

impl Mean {
    /// The mean of values that know nothing of each other: its error is the sample deviation over the root of n.
    pub fn of(values: &[f64]) -> Self {
        Self::from_sums(values, values.iter().map(|&value| (value, 1)))
    }

    /// The mean of values of which some hang together: questions about one passage, answers about one document. `clusters` names
    /// the cluster of each value.
    ///
    /// With e the sum of (value - mean) over a cluster, the error is sqrt(G / (G - 1) sum e^2) / n for G clusters: Liang and
    /// Zeger, Biometrika 73 (1986) 13, with the usual correction for few clusters. With one item a cluster it is that of
    /// [`Self::of`].
    pub fn clustered(values: &[f64], clusters: &[usize]) -> Self {
        Self::from_sums(values, cluster_sums(values, clusters).into_iter())
    }

    fn from_sums(values: &[f64], sums: impl Iterator<Item = (f64, usize)>) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let (groups, squares) = sums.fold((0.0, 0.0), |(groups, squares), (sum, count)| {
            let distance = sum - mean * count as f64;
            (groups + 1.0, squares + distance * distance)
        });
        let standard_error = if groups > 1.0 { (groups / (groups - 1.0) * squares).sqrt() / n } else { f64::NAN };
        Self { mean, standard_error, degrees: (groups - 1.0_f64).max(0.0) }
    }

    /// Mean less and plus Student's quantile times the error; everything where the error is not known.
    pub fn interval(&self, confidence: f64) -> Interval {
        if self.standard_error.is_nan() {
            return Interval { low: f64::NEG_INFINITY, high: f64::INFINITY };
        }
        let half = student::quantile(f64::midpoint(1.0, confidence), self.degrees) * self.standard_error;
        Interval { low: self.mean - half, high: self.mean + half }
    }

    /// Two-sided p-value of "the true mean is zero", by Student's t. For differences of two models on the same items this is the
    /// paired t-test. 1 where nothing is known.
    pub fn p(&self) -> f64 {
        match self.tails(0.0) {
            Some((below, above)) => (2.0 * below.min(above)).min(1.0),
            None => 1.0,
        }
    }

    /// One-sided p-value of "the true mean is `-margin` or less"; small values show that it is not.
    pub fn non_inferiority_p(&self, margin: f64) -> f64 {
        self.tails(-margin).map_or(1.0, |(_, above)| above)
    }

    /// Two one-sided tests (Schuirmann 1987): p-value of "the true mean is `margin` or more from zero"; small values show that
    /// it is within.
    pub fn equivalence_p(&self, margin: f64) -> f64 {
        let below = self.tails(margin).map_or(1.0, |(below, _)| below);
        self.non_inferiority_p(margin).max(below)
    }

    /// P(T <= t) and P(T >= t) for the t of "the true mean is `truth`".
    fn tails(&self, truth: f64) -> Option<(f64, f64)> {
        let distance = self.mean - truth;
        if !self.standard_error.is_finite() || !distance.is_finite() {
            return None;
        }
        if self.standard_error == 0.0 {
            // All values are the same: what is left is the sign test, for which so many tosses all fall on one side.
            let tail = |holds: bool| if holds { 1.0 } else { 0.5_f64.powf(self.degrees + 1.0) };
            return Some((tail(distance >= 0.0), tail(distance <= 0.0)));
        }
        let t = distance / self.standard_error;
        Some((student::upper_tail(-t, self.degrees), student::upper_tail(t, self.degrees)))
    }
}

/// Sum and count of each cluster, in the order in which clusters first appear. A value without a cluster is one of its own.
pub(super) fn cluster_sums(values: &[f64], clusters: &[usize]) -> Vec<(f64, usize)> {
    let mut places: HashMap<usize, usize> = HashMap::new();
    let mut sums: Vec<(f64, usize)> = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let place = match clusters.get(index) {
            Some(cluster) => *places.entry(*cluster).or_insert(sums.len()),
            None => sums.len(),
        };
        if place == sums.len() {
            sums.push((0.0, 0));
        }
        sums[place].0 += value;
        sums[place].1 += 1;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_of_one_are_no_clusters() {
        let values = [0.2, 0.9, 0.4, 0.4, 0.7];
        assert_eq!(Mean::of(&values), Mean::clustered(&values, &[4, 3, 9, 1, 0]));
        // Every answer twice is no more than every answer once.
        let twice: Vec<f64> = values.iter().flat_map(|&value| [value, value]).collect();
        let paired = Mean::clustered(&twice, &[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        assert!((paired.standard_error - Mean::of(&values).standard_error).abs() < 1e-15);
        assert!(Mean::of(&twice).standard_error < 0.75 * paired.standard_error);
    }

    #[test]
    fn without_spread_or_values() {
        let same = Mean::of(&[0.25; 4]);
        assert_eq!(same.interval(0.95), Interval { low: 0.25, high: 0.25 });
        assert!((same.p() - 0.125).abs() < 1e-15 && Mean::of(&[0.0; 4]).p() > 0.999);
        assert!((same.non_inferiority_p(0.1) - 0.0625).abs() < 1e-15 && same.equivalence_p(0.1) > 0.999);
        for unknown in [Mean::of(&[]), Mean::of(&[1.0])] {
            assert!(unknown.p() > 0.999 && unknown.non_inferiority_p(1.0) > 0.999);
            assert!(unknown.interval(0.95).low.is_infinite());
        }
    }
}
