//! Intervals of a mean by resampling the items.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

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
///
/// `BCa` after Efron, JASA 82 (1987) 171, with the jackknife acceleration of Efron and Tibshirani (1993), equation 14.15, and ties
/// counted half, as in scipy. Quantiles interpolate linearly.
pub fn bootstrap_mean(values: &[f64], confidence: f64, options: BootstrapOptions) -> BootstrapIntervals {
    if values.is_empty() || options.draws == 0 {
        let nowhere = Interval { low: f64::NAN, high: f64::NAN };
        return BootstrapIntervals { percentile: nowhere, bca: nowhere };
    }
    let n = values.len();
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut means: Vec<f64> = (0..options.draws)
        .map(|_| {
            let sum: f64 = (0..n)
                // Multiply and shift maps 32 random bits to an index; the bias of n / 2^32 is far below the error of 10,000 draws.
                .map(|_| values[((u64::from(rng.next_u32()) * n as u64) >> 32) as usize])
                .sum();
            sum / n as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let tail = f64::midpoint(0.0, 1.0 - confidence);
    let percentile = Interval { low: sorted_quantile(&means, tail), high: sorted_quantile(&means, 1.0 - tail) };
    let bca = bca_levels(values, &means, tail).map_or(percentile, |(low, high)| Interval {
        low: sorted_quantile(&means, low),
        high: sorted_quantile(&means, high),
    });
    BootstrapIntervals { percentile, bca }
}

/// At which quantiles of the resampled means the `BCa` interval ends.
fn bca_levels(values: &[f64], sorted_means: &[f64], tail: f64) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    let total: f64 = values.iter().sum();
    let mean = total / n;
    // Means that are equal but for rounding count as ties.
    let tolerance = 1e-12 * values.iter().fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let below = sorted_means.partition_point(|&drawn| drawn < mean - tolerance);
    let up_to = sorted_means.partition_point(|&drawn| drawn <= mean + tolerance);
    let bias = normal::quantile(f64::midpoint(below as f64, up_to as f64) / sorted_means.len() as f64);
    // Leaving item i out moves the mean by (mean - x_i) / (n - 1); the common factor cancels in the acceleration.
    let (squares, cubes) = values.iter().fold((0.0, 0.0), |(squares, cubes), value| {
        let distance = value - mean;
        (squares + distance * distance, cubes + distance.powi(3))
    });
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
}
