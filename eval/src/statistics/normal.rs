//! The standard normal distribution.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// P(Z <= x).
///
/// Below 3 standard deviations by Taylor's series around zero, phi(x) (x + x^3/3 + x^5/15 + ...) (Abramowitz and Stegun 26.2.11),
/// beyond by the continued fraction of the tail (26.2.14). Absolute error below 1e-14, tails keep 12 digits.
pub fn cumulative(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let distance = x.abs();
    if distance < 3.0 {
        let (mut term, mut sum, mut odd) = (x, x, 1.0);
        while term.abs() > 1e-18 * sum.abs() {
            odd += 2.0;
            term *= x * x / odd;
            sum += term;
        }
        return 0.5 + density(x) * sum;
    }
    // x + 1/(x + 2/(x + 3/(...))), from the inside out
    let fraction = (1..=60).rev().fold(distance, |inner, step| distance + f64::from(step) / inner);
    let tail = density(distance) / fraction;
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// The density at `x`.
pub fn density(x: f64) -> f64 {
    (-0.5 * x * x).exp() * FRAC_1_SQRT_2 / PI.sqrt()
}

/// The `x` with P(Z <= x) = `p`; minus and plus infinity at 0 and 1, NaN outside.
///
/// A rough start (Abramowitz and Stegun 26.2.23, error below 4.5e-4) and Halley's steps on [`cumulative`].
pub fn quantile(p: f64) -> f64 {
    if p.is_nan() || !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let tail = p.min(1.0 - p);
    if tail == 0.0 {
        return if p < 0.5 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let t = (-2.0 * tail.ln()).sqrt();
    let mut x =
        t - (2.515_517 + t * (0.802_853 + t * 0.010_328)) / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)));
    for _ in 0..4 {
        // x is the distance from the middle, so that the small tail is compared and no digit is lost.
        let error = (cumulative(-x) - tail) / density(x);
        x += error / (1.0 - 0.5 * x * error);
    }
    if p < 0.5 { -x } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cumulative_and_quantile_as_in_scipy() {
        // scipy.stats.norm.cdf and .ppf
        for (x, p) in [
            (-8.0, 6.220_960_574_271_74e-16),
            (-3.5, 0.000_232_629_079_035_525_02),
            (-1.959_963_984_540_054, 0.025),
            (-0.5, 0.308_537_538_725_986_9),
            (0.0, 0.5),
            (1.281_551_565_544_600_4, 0.9),
            (2.999, 0.998_645_663_466_272_9),
            (3.001, 0.998_654_527_174_915),
        ] {
            assert!((cumulative(x) - p).abs() <= 1e-12 * p, "cdf({x}) = {:e}, not {p:e}", cumulative(x));
            assert!((quantile(p) - x).abs() < 1e-9, "ppf({p}) = {}, not {x}", quantile(p));
        }
        assert!(quantile(0.5).abs() < 1e-15);
        assert!(quantile(0.0).is_infinite() && quantile(0.0) < 0.0);
        assert!(quantile(1.0).is_infinite() && quantile(1.0) > 0.0);
        assert!(quantile(1.5).is_nan());
    }
}
