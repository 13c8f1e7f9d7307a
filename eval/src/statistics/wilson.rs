//! The score interval of one proportion.

use super::{Interval, normal};

/// Wilson's interval for `successes` out of `trials` at a two-sided `confidence` such as 0.95; (0, 1) without a trial.
///
/// With p = successes / n and z = the normal quantile of (1 + confidence) / 2:
/// (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). Wilson, JASA 22 (1927) 209. Unlike p +- z sqrt(p(1-p)/n) it is right
/// for few items and near 0 and 1.
pub fn wilson(successes: usize, trials: usize, confidence: f64) -> Interval {
    if trials == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = trials as f64;
    let p = successes.min(trials) as f64 / n;
    let z = normal::quantile(f64::midpoint(1.0, confidence));
    let scale = 1.0 / (1.0 + z * z / n);
    let middle = (p + z * z / (2.0 * n)) * scale;
    let half = z * scale * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // At 0 and n the formula gives exactly 0 and 1 but for rounding.
    let low = if successes == 0 { 0.0 } else { middle - half };
    let high = if successes >= trials { 1.0 } else { middle + half };
    Interval { low, high }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_scipy() {
        // scipy.stats.binomtest(k, n).proportion_ci(0.95, "wilson")
        for (k, n, low, high) in [
            (0, 10, 0.0, 0.277_532_799_862_889_3),
            (10, 10, 0.722_467_200_137_111, 1.0),
            (17, 27, 0.442_292_344_121_023_9, 0.784_674_870_390_344),
            (650, 1000, 0.619_914_682_506_809, 0.678_937_289_947_524_2),
        ] {
            let interval = wilson(k, n, 0.95);
            assert!((interval.low - low).abs() < 1e-9, "{k}/{n}: {interval:?}");
            assert!((interval.high - high).abs() < 1e-9, "{k}/{n}: {interval:?}");
        }
        assert_eq!(wilson(0, 0, 0.95), Interval { low: 0.0, high: 1.0 });
    }
}
