//! Intervals of a mean by resampling the items.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::mean::cluster_sums;
use super::{Interval, normal};

/// How many draws and from which seed; the same numbers give the same interval everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapOptions {
    /// Resamples.
    pub draws: usize,
    /// Seed of the generator.
    pub seed: u64,
}

impl Default for BootstrapOptions {
    fn default() -> Self {
        Self { draws: 10_000, seed: 1234 }
    }
}

/// Two intervals of the same mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootstrapIntervals {
    /// Quantiles of the resampled means.
    pub percentile: Interval,
    /// Bias-corrected and accelerated: better where the distribution is skewed. Equal to `percentile` where it is not defined
    /// (fewer than two items, or all values equal).
    pub bca: Interval,
}

/// Intervals of the mean of `values` at a two-sided `confidence`. For two models on the same items, hand over the differences
/// of their scores item by item: that is the paired bootstrap. Without values both ends are NaN.
pub fn bootstrap_mean(values: &[f64], confidence: f64, options: BootstrapOptions) -> BootstrapIntervals {
    bootstrap_strata(&[Stratum::of(values, 1.0)], confidence, options)
}

/// The same where values hang together: whole clusters are drawn, with all that is in them. `clusters` names that of each value.
pub fn bootstrap_clustered(
    values: &[f64],
    clusters: &[usize],
    confidence: f64,
    options: BootstrapOptions,
) -> BootstrapIntervals {
    bootstrap_strata(&[Stratum::clustered(values, clusters, 1.0)], confidence, options)
}

/// A part of a whole that is drawn from by itself: one task of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Stratum {
    /// Sum and count of each unit that is drawn: an item, or a cluster.
    units: Vec<(f64, usize)>,
    weight: f64,
}

impl Stratum {
    /// Items on their own. `weight` is what their mean counts for: their number for the mean over all items, 1 for the plain mean
    /// of the tasks.
    pub fn of(values: &[f64], weight: f64) -> Self {
        Self { units: values.iter().map(|&value| (value, 1)).collect(), weight }
    }

    /// Items in clusters, of which each is drawn as a whole.
    pub fn clustered(values: &[f64], clusters: &[usize], weight: f64) -> Self {
        Self { units: cluster_sums(values, clusters), weight }
    }

    fn mean(&self) -> f64 {
        let (sum, count) = self.units.iter().fold((0.0, 0), |(sum, count), unit| (sum + unit.0, count + unit.1));
        sum / count as f64
    }

    fn drawn_mean(&self, rng: &mut ChaCha8Rng) -> f64 {
        let n = self.units.len() as u64;
        let (sum, count) = (0..n)
            // Multiply and shift maps 32 random bits to an index; the bias of n / 2^32 is far below the error of 10,000 draws.
            .map(|_| self.units[((u64::from(rng.next_u32()) * n) >> 32) as usize])
            .fold((0.0, 0), |(sum, count), unit| (sum + unit.0, count + unit.1));
        sum / count as f64
    }
}

/// Intervals of the weighted mean of the strata's means, each stratum resampled by itself. NaN where one of them is empty.
///
/// `BCa` after Efron, JASA 82 (1987) 171, with the acceleration from the influence of each unit (Efron and Tibshirani (1993),
/// equation 14.15; over strata Davison and Hinkley (1997), equation 5.32), and ties counted half, as in scipy. Quantiles
/// interpolate linearly.
pub fn bootstrap_strata(strata: &[Stratum], confidence: f64, options: BootstrapOptions) -> BootstrapIntervals {
    if strata.is_empty() || strata.iter().any(|stratum| stratum.units.is_empty()) || options.draws == 0 {
        let nowhere = Interval { low: f64::NAN, high: f64::NAN };
        return BootstrapIntervals { percentile: nowhere, bca: nowhere };
    }
    let total: f64 = strata.iter().map(|stratum| stratum.weight).sum();
    let shares: Vec<f64> = strata.iter().map(|stratum| stratum.weight / total).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut means: Vec<f64> = (0..options.draws)
        .map(|_| strata.iter().zip(&shares).map(|(stratum, share)| share * stratum.drawn_mean(&mut rng)).sum())
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let tail = f64::midpoint(0.0, 1.0 - confidence);
    let percentile = Interval { low: sorted_quantile(&means, tail), high: sorted_quantile(&means, 1.0 - tail) };
    let bca = bca_levels(strata, &shares, &means, tail).map_or(percentile, |(low, high)| Interval {
        low: sorted_quantile(&means, low),
        high: sorted_quantile(&means, high),
    });
    BootstrapIntervals { percentile, bca }
}

/// At which quantiles of the resampled means the `BCa` interval ends.
fn bca_levels(strata: &[Stratum], shares: &[f64], sorted_means: &[f64], tail: f64) -> Option<(f64, f64)> {
    let mean: f64 = strata.iter().zip(shares).map(|(stratum, share)| share * stratum.mean()).sum();
    let values = || strata.iter().flat_map(|stratum| &stratum.units).map(|unit| unit.0);
    // Means that are equal but for rounding count as ties.
    let tolerance = 1e-12 * values().fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let below = sorted_means.partition_point(|&drawn| drawn < mean - tolerance);
    let up_to = sorted_means.partition_point(|&drawn| drawn <= mean + tolerance);
    let bias = normal::quantile(f64::midpoint(below as f64, up_to as f64) / sorted_means.len() as f64);
    let (mut squares, mut cubes) = (0.0, 0.0);
    for (stratum, share) in strata.iter().zip(shares) {
        let mean = stratum.mean();
        let count: usize = stratum.units.iter().map(|unit| unit.1).sum();
        for (sum, items) in &stratum.units {
            // By how much one more of this unit would move the mean, but for a factor that all have in common.
            let influence = share * (sum - mean * *items as f64) / count as f64;
            squares += influence * influence;
            cubes += influence.powi(3);
        }
    }
    if squares <= 0.0 || !bias.is_finite() {
        return None;
    }
    let acceleration = cubes / (6.0 * squares.powf(1.5));
    let level = |z: f64| normal::cumulative(bias + (bias + z) / (1.0 - acceleration * (bias + z)));
    let z = normal::quantile(tail);
    Some((level(z), level(-z)))
}

/// The quantile of sorted values by linear interpolation (numpy's default).
fn sorted_quantile(sorted: &[f64], level: f64) -> f64 {
    let at = level.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (at - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_as_in_numpy() {
        // numpy.quantile([1, 2, 4, 8], [0, .1, .5, .975])
        let sorted = [1.0, 2.0, 4.0, 8.0];
        for (level, expected) in [(0.0, 1.0), (0.1, 1.3), (0.5, 3.0), (0.975, 7.7), (1.0, 8.0)] {
            assert!((sorted_quantile(&sorted, level) - expected).abs() < 1e-12, "{level}");
        }
    }

    #[test]
    fn it_is_deterministic_and_the_seed_matters() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i % 7) / 7.0).collect();
        let first = bootstrap_mean(&values, 0.95, BootstrapOptions::default());
        assert_eq!(first, bootstrap_mean(&values, 0.95, BootstrapOptions::default()));
        assert_ne!(first, bootstrap_mean(&values, 0.95, BootstrapOptions { seed: 1, ..BootstrapOptions::default() }));
    }

    #[test]
    fn without_spread_or_values() {
        let all_one = bootstrap_mean(&[1.0; 9], 0.95, BootstrapOptions::default());
        assert_eq!(all_one.bca, Interval { low: 1.0, high: 1.0 });
        assert!(bootstrap_mean(&[], 0.95, BootstrapOptions::default()).bca.low.is_nan());
    }

    #[test]
    fn both_intervals_as_in_scipy() {
        // scipy.stats.bootstrap((values,), numpy.mean, n_resamples=400000, method="percentile" | "BCa")
        let mut values = vec![0.0; 20];
        values.extend([1.0, 2.0, 4.0, 8.0, 16.0]);
        let skewed = bootstrap_mean(&values, 0.95, BootstrapOptions { draws: 100_000, seed: 7 });
        let close =
            |found: Interval, low: f64, high: f64| (found.low - low).abs() < 0.05 && (found.high - high).abs() < 0.09;
        assert!(close(skewed.percentile, 0.16, 2.80), "{skewed:?}");
        assert!(close(skewed.bca, 0.32, 3.64), "{skewed:?}");
        let mut differences = vec![0.0; 80];
        differences.extend([1.0; 14]);
        differences.extend([-1.0; 6]);
        let paired = bootstrap_mean(&differences, 0.95, BootstrapOptions::default());
        assert!(
            (paired.percentile.low + 0.01).abs() < 0.011 && (paired.percentile.high - 0.17).abs() < 0.011,
            "{paired:?}"
        );
        assert!((paired.bca.low - 0.0).abs() < 0.011 && (paired.bca.high - 0.17).abs() < 0.011, "{paired:?}");
    }

    #[test]
    fn clusters_and_strata_have_the_errors_of_theory() {
        let width = |interval: Interval| interval.high - interval.low;
        let options = BootstrapOptions { draws: 40_000, seed: 3 };
        let values: Vec<f64> = (0..400).map(|i| f64::from((i * 37) % 101) / 101.0).collect();
        let clusters: Vec<usize> = (0..400).map(|i| i % 80).collect();
        // Means of many items are nearly normal: 2 * 1.96 errors, of which a bootstrap misses the correction by (G - 1) / G.
        let expected = |error: f64, units: f64| 2.0 * 1.96 * error * ((units - 1.0) / units).sqrt();
        let clustered = bootstrap_clustered(&values, &clusters, 0.95, options);
        let theory = expected(super::super::mean::Mean::clustered(&values, &clusters).standard_error, 80.0);
        assert!((width(clustered.percentile) / theory - 1.0).abs() < 0.03, "{clustered:?} {theory}");
        let single: Vec<usize> = (0..400).collect();
        assert_eq!(bootstrap_clustered(&values, &single, 0.95, options), bootstrap_mean(&values, 0.95, options));
        // A task of 300 and one of 100, weighted alike: half of each mean, their variances a quarter each.
        let (long, short) = values.split_at(300);
        let plain = [Stratum::of(long, 1.0), Stratum::of(short, 1.0)];
        let error = |part: &[f64], n: f64| super::super::mean::Mean::of(part).standard_error * ((n - 1.0) / n).sqrt();
        let theory = 1.96 * (error(long, 300.0).powi(2) + error(short, 100.0).powi(2)).sqrt();
        let found = bootstrap_strata(&plain, 0.95, options);
        assert!((width(found.percentile) / theory - 1.0).abs() < 0.03, "{found:?} {theory}");
        assert!((width(found.bca) / theory - 1.0).abs() < 0.03, "{found:?} {theory}");
        assert!(bootstrap_strata(&[Stratum::of(&[], 1.0)], 0.95, options).bca.low.is_nan());
    }
}
