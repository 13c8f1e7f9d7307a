//! How well scores tell good from bad: the area under the receiver operating characteristic, with an interval.

/// The probability that a good row scores above a bad one (ties count half), with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AreaUnderCurve {
    /// The area.
    pub area: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// The area of these scores; `None` where one kind is missing.
///
/// The interval holds the areas whose distance to the estimate is within 1.96 standard errors *at that area*, with the variance
/// of Hanley and `McNeil` (1982) in the form of method 5 of Newcombe (2006, Statistics in Medicine 25): with N = (m + n) / 2,
/// V(A) = A (1 - A) (1 + (N - 1) ((1 - A) / (2 - A) + A / (1 + A))) / (m n).
/// So it has a width for a perfect judge of few rows too.
pub fn area_under_curve(good: &[f64], bad: &[f64]) -> Option<AreaUnderCurve> {
    if good.is_empty() || bad.is_empty() {
        return None;
    }
    let wins: f64 = good.iter().map(|better| bad.iter().map(|worse| win(*better, *worse)).sum::<f64>()).sum();
    let pairs = good.len() as f64 * bad.len() as f64;
    let area = wins / pairs;
    let half = (good.len() + bad.len()) as f64 / 2.0;
    let variance = |area: f64| {
        let terms = (1.0 - area) / (2.0 - area) + area / (1.0 + area);
        area * (1.0 - area) * (1.0 + (half - 1.0) * terms) / pairs
    };
    const Z: f64 = 1.959_963_985;
    let outside = |at: f64| (at - area).abs() > Z * variance(at).sqrt();
    Some(AreaUnderCurve { area, low: border(0.0, area, outside), high: border(1.0, area, outside) })
}

fn win(better: f64, worse: f64) -> f64 {
    if better > worse {
        1.0
    } else if better < worse {
        0.0
    } else {
        0.5
    }
}

/// The border between what lies outside of the interval and the estimate within, by halving.
fn border(end: f64, estimate: f64, outside: impl Fn(f64) -> bool) -> f64 {
    // At 0 and 1 the variance is zero: a nearby point says whether anything there is outside.
    if (end - estimate).abs() < 1e-12 {
        return end;
    }
    let (mut far, mut near) = (end, estimate);
    for _ in 0..60 {
        let middle = f64::midpoint(far, near);
        if outside(middle) {
            far = middle;
        } else {
            near = middle;
        }
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    }

    #[test]
    fn pairs_are_counted_with_ties_as_halves() {
        // 0.9 wins 3 of 3, 0.5 wins 1, ties 1 and loses 1: 4.5 of 6.
        let found = area_under_curve(&[0.9, 0.5], &[0.1, 0.5, 0.7]).unwrap();
        close(found.area, 4.5 / 6.0);
        assert_eq!(area_under_curve(&[], &[0.1]), None);
    }

    #[test]
    fn the_ends_of_the_interval_solve_its_equation() {
        let good: Vec<f64> = (0..10).map(f64::from).collect();
        let bad: Vec<f64> = (0..10).map(|value| f64::from(value) - 3.5).collect();
        let found = area_under_curve(&good, &bad).unwrap();
        // 10 values against the same shifted by 3.5: 100 - (6 + 5 + 4 + 3 + 2 + 1) = 79 pairs are won.
        close(found.area, 0.79);
        for end in [found.low, found.high] {
            let variance = end * (1.0 - end) * (1.0 + 9.0 * ((1.0 - end) / (2.0 - end) + end / (1.0 + end))) / 100.0;
            close((end - 0.79).abs(), 1.959_963_985 * variance.sqrt());
        }
        assert!(found.low > 0.5 && found.high < 0.93, "{found:?}");
    }

    #[test]
    fn a_perfect_judge_of_few_rows_is_not_certain() {
        let found = area_under_curve(&[1.0; 5], &[0.0; 5]).unwrap();
        assert!((found.area, found.high) == (1.0, 1.0) && (0.55..0.75).contains(&found.low), "{found:?}");
        let more = area_under_curve(&[1.0; 50], &[0.0; 50]).unwrap();
        assert!(more.low > 0.93, "{more:?}");
        let chance = area_under_curve(&[0.5; 20], &[0.5; 20]).unwrap();
        close(chance.low + chance.high, 1.0);
        assert!(chance.low < 0.4);
    }
}
