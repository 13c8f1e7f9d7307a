//! Student's distribution of t.

use std::f64::consts::PI;

use super::normal;

/// P(T > t) with `degrees` of freedom; NaN without a degree.
///
/// Half of the regularised incomplete beta function of (degrees / 2, 1 / 2) at x = degrees / (degrees + t^2) (Abramowitz and
/// Stegun 26.7.1), by its continued fraction (26.5.8) on the side where that converges fast. Relative error below 1e-10.
pub fn upper_tail(t: f64, degrees: f64) -> f64 {
    if t.is_nan() || degrees.is_nan() || degrees <= 0.0 {
        return f64::NAN;
    }
    if t < 0.0 {
        return 1.0 - upper_tail(-t, degrees);
    }
    if t.is_infinite() {
        return 0.0;
    }
    let (a, b) = (0.5 * degrees, 0.5);
    let ratio = t * t / degrees;
    let (x, rest) = (1.0 / (1.0 + ratio), ratio / (1.0 + ratio));
    // x^a (1 - x)^b / B(a, 1/2), with B(a, 1/2) = sqrt(pi) Gamma(a) / Gamma(a + 1/2)
    let front = (-a * ratio.ln_1p()).exp() * rest.sqrt() * half_step(a) / PI.sqrt();
    if x < (a + 1.0) / (a + b + 2.0) {
        0.5 * front * fraction(x, a, b) / a
    } else {
        0.5 * (1.0 - front * fraction(rest, b, a) / b)
    }
}

/// Two-sided p-value of a t.
pub fn two_sided(t: f64, degrees: f64) -> f64 {
    (2.0 * upper_tail(t.abs(), degrees)).min(1.0)
}

/// The t with P(T <= t) = `p`; infinities at 0 and 1, NaN outside and without a degree.
pub fn quantile(p: f64, degrees: f64) -> f64 {
    if p < 0.5 {
        return -quantile(1.0 - p, degrees);
    }
    let tail = 1.0 - p;
    let start = normal::quantile(p);
    if !start.is_finite() || degrees.is_nan() || degrees <= 0.0 {
        return if degrees > 0.0 { start } else { f64::NAN };
    }
    // The tails of t are heavier than those of the normal distribution: the quantile lies beyond the normal one.
    let (mut low, mut high) = (start, start.max(1.0));
    while upper_tail(high, degrees) > tail {
        low = high;
        high *= 2.0;
    }
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if upper_tail(middle, degrees) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// Gamma(a + 1/2) / Gamma(a), by its asymptotic series beyond 64 and Gamma(x + 1) = x Gamma(x) below.
fn half_step(mut a: f64) -> f64 {
    let mut product = 1.0;
    while a < 64.0 {
        product *= a / (a + 0.5);
        a += 1.0;
    }
    let y = 1.0 / a;
    let series = 1.0
        + y * (-1.0 / 8.0 + y * (1.0 / 128.0 + y * (5.0 / 1024.0 + y * (-21.0 / 32_768.0 + y * (-399.0 / 262_144.0)))));
    product * a.sqrt() * series
}

/// The continued fraction of the incomplete beta function, from the front (Lentz's way).
fn fraction(x: f64, a: f64, b: f64) -> f64 {
    // Nothing may be divided by zero.
    let safe = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut below = 1.0 / safe(1.0 - (a + b) * x / (a + 1.0));
    let (mut above, mut result) = (1.0, below);
    for step in 1..100_000 {
        let m = f64::from(step);
        for term in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            below = 1.0 / safe(1.0 + term * below);
            above = safe(1.0 + term / above);
            result *= below * above;
        }
        if (below * above - 1.0).abs() < 1e-15 {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_one_and_two_degrees_the_tail_is_known() {
        for t in [0.0, 0.3, 1.0, 2.5, 40.0] {
            let (one, two) = (0.5 - f64::atan(t) / PI, 0.5 - 0.5 * t / f64::sqrt(2.0 + t * t));
            assert!((upper_tail(t, 1.0) - one).abs() < 1e-13, "{t}");
            assert!((upper_tail(t, 2.0) - two).abs() < 1e-13, "{t}");
            assert!((upper_tail(-t, 2.0) - (1.0 - two)).abs() < 1e-13, "{t}");
        }
        assert!((quantile(0.75, 1.0) - 1.0).abs() < 1e-12 && (quantile(0.25, 1.0) + 1.0).abs() < 1e-12);
    }

    #[test]
    fn at_the_ends_and_outside() {
        assert!(upper_tail(f64::INFINITY, 3.0) == 0.0 && upper_tail(f64::NEG_INFINITY, 3.0) > 0.999_999);
        assert!(upper_tail(1.0, 0.0).is_nan() && quantile(0.9, 0.0).is_nan() && quantile(1.5, 4.0).is_nan());
        assert!(quantile(1.0, 4.0).is_infinite() && quantile(0.5, 4.0).abs() < 1e-12);
        // Many degrees are the normal distribution.
        assert!((upper_tail(1.96, 1e7) - (1.0 - normal::cumulative(1.96))).abs() < 1e-7);
    }
}
