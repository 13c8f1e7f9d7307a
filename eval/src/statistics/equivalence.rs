//! Whether one model is at most a margin worse than another on the same items, by the counts of what changed.

use serde::{Deserialize, Serialize};

use super::power::usual_margin;
use super::{Interval, normal};

/// Counts of two models on the same items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    /// Items.
    pub items: usize,
    /// Items that only the second model has right.
    pub gained: usize,
    /// Items that only the first model has right.
    pub lost: usize,
}

impl Paired {
    /// Accuracy of the second model less that of the first.
    pub fn difference(self) -> f64 {
        (self.gained as f64 - self.lost as f64) / self.items.max(1) as f64
    }

    /// The score statistic of the hypothesis that the true difference is `difference`: standard normal if so.
    ///
    /// z = (b - c - n d) / sqrt(n (2 q + d (1 - d))) with b = gained, c = lost and q the likeliest probability of a loss under the
    /// hypothesis, the larger root of 2 n q^2 + ((2 n - b + c) d - b - c) q - c d (1 - d) = 0.
    /// Tango, Statistics in Medicine 17 (1998) 891. Unlike the interval of Wald it is right for few changed items.
    pub fn score(self, difference: f64) -> f64 {
        let (n, b, c, d) = (self.items as f64, self.gained as f64, self.lost as f64, difference);
        let linear = (2.0 * n - b + c) * d - b - c;
        let constant = -c * d * (1.0 - d);
        let q = ((linear * linear - 8.0 * n * constant).max(0.0).sqrt() - linear) / (4.0 * n);
        let variance = n * (2.0 * q + d * (1.0 - d));
        let distance = b - c - n * d;
        if distance == 0.0 {
            0.0
        } else if variance > 0.0 {
            distance / variance.sqrt()
        } else {
            distance.signum() * f64::INFINITY
        }
    }

    /// The differences that the score test does not reject at a two-sided `confidence`; (-1, 1) without items.
    pub fn interval(self, confidence: f64) -> Interval {
        if self.items == 0 {
            return Interval { low: -1.0, high: 1.0 };
        }
        let z = normal::quantile(f64::midpoint(1.0, confidence));
        let estimate = self.difference();
        // The score falls as the hypothesis rises: it crosses z below the estimate and -z above it.
        Interval {
            low: bisect(-1.0, estimate, |d| self.score(d) > z),
            high: bisect(estimate, 1.0, |d| self.score(d) > -z),
        }
    }

    /// One-sided p-value of "the second model is worse by `margin` or more"; small values show that it is not.
    pub fn non_inferiority_p(self, margin: f64) -> f64 {
        1.0 - normal::cumulative(self.score(-margin))
    }

    /// The fewest items, from as many as these on, that tell at the one-sided level `alpha` whether the second model is at most
    /// `margin` worse ([`usual_margin`] of their number where none is given), if the same shares of them are gained and lost. None
    /// where not even a million tell.
    pub fn items_that_tell(self, alpha: f64, margin: Option<f64>) -> Option<usize> {
        const MOST: usize = 1_000_000;
        let z = normal::quantile(1.0 - alpha);
        let all = self.items.max(1);
        let tells = |items: usize| {
            let scaled = |count: usize| (count as f64 * items as f64 / all as f64).round() as usize;
            let more = Self { items, gained: scaled(self.gained), lost: scaled(self.lost) };
            let margin = margin.unwrap_or_else(|| usual_margin(items));
            // Either the margin is ruled out, or that nothing was lost.
            more.score(-margin) > z || more.score(0.0) < -z
        };
        // Steps of one in a hundred, then one by one behind the last that did not tell.
        let (mut below, mut at) = (all, all);
        while !tells(at) {
            if at >= MOST {
                return None;
            }
            below = at + 1;
            at += at.div_ceil(100);
        }
        (below..=at).find(|items| tells(*items))
    }

    /// Two one-sided tests (Schuirmann 1987): p-value of "the models differ by `margin` or more"; small values show that they are
    /// equivalent within the margin.
    pub fn equivalence_p(self, margin: f64) -> f64 {
        self.non_inferiority_p(margin).max(normal::cumulative(self.score(margin)))
    }
}

/// Where `holds` turns from true to false between `low` and `high`.
fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_zero_the_score_is_that_of_mcnemar() {
        // (b - c) / sqrt(b + c)
        let paired = Paired { items: 100, gained: 9, lost: 3 };
        assert!((paired.score(0.0) - 6.0 / 12.0_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn the_score_and_its_interval_equal_a_likelihood_maximised_numerically() {
        let paired = |items, gained, lost| Paired { items, gained, lost };
        // q found by scipy.optimize.minimize_scalar over the trinomial likelihood.
        for (counts, difference, expected) in [
            (paired(100, 9, 3), -0.02, 2.216_443_7),
            (paired(100, 9, 3), 0.1, -1.087_559_3),
            (paired(50, 0, 1), -0.05, 0.973_328_5),
            (paired(1000, 40, 52), -0.01, -0.208_853_0),
            (paired(1000, 40, 52), 0.01, -2.268_889_0),
        ] {
            assert!((counts.score(difference) - expected).abs() < 1e-5, "{counts:?}: {}", counts.score(difference));
        }
        for (counts, low, high) in [
            (paired(44, 0, 1), -0.118_077_10, 0.059_393_23),
            (paired(100, 9, 3), -0.009_115_60, 0.137_693_01),
            (paired(1000, 40, 52), -0.031_268_31, 0.006_924_21),
        ] {
            let interval = counts.interval(0.95);
            assert!(
                (interval.low - low).abs() < 1e-6 && (interval.high - high).abs() < 1e-6,
                "{counts:?}: {interval:?}"
            );
        }
    }

    #[test]
    fn so_many_items_tell_and_one_less_does_not() {
        let tells = |paired: Paired, items: usize, margin: f64| {
            let scaled = |count: usize| (count as f64 * items as f64 / paired.items as f64).round() as usize;
            let interval = Paired { items, gained: scaled(paired.gained), lost: scaled(paired.lost) }.interval(0.9);
            interval.low > -margin || interval.high < 0.0
        };
        for (items, gained, lost, margin) in
            [(4, 0, 0, Some(0.01)), (20, 0, 0, None), (30, 1, 2, Some(0.05)), (40, 14, 14, None), (20, 1, 4, None)]
        {
            let paired = Paired { items, gained, lost };
            let needed = paired.items_that_tell(0.05, margin).unwrap();
            let margin = |items: usize| margin.unwrap_or_else(|| usual_margin(items));
            assert!(needed > items && tells(paired, needed, margin(needed)), "{paired:?}: {needed}");
            assert!(!tells(paired, needed - 1, margin(needed - 1)), "{paired:?}: {needed}");
        }
        // Nothing changed: 2.71 (1 - m) / m items rule out a loss of m.
        assert_eq!(Paired { items: 4, gained: 0, lost: 0 }.items_that_tell(0.05, Some(0.01)), Some(268));
        let enough = Paired { items: 300, gained: 3, lost: 3 };
        assert_eq!(enough.items_that_tell(0.05, None), Some(300));
        // A loss of exactly the margin is told by no number, and nothing is told of a margin of nothing.
        assert_eq!(Paired { items: 10, gained: 0, lost: 0 }.items_that_tell(0.05, Some(0.0)), None);
    }

    #[test]
    fn margins() {
        let same = Paired { items: 10_000, gained: 50, lost: 50 };
        assert!(same.equivalence_p(0.01) < 1e-6 && same.equivalence_p(0.0001) > 0.4);
        let few = Paired { items: 30, gained: 1, lost: 1 };
        assert!(few.equivalence_p(0.01) > 0.3);
        let worse = Paired { items: 1000, gained: 10, lost: 60 };
        assert!(worse.non_inferiority_p(0.01) > 0.99);
        // Without a single change the items themselves bound what may be hidden: 3.84 / (n + 3.84).
        let unchanged = Paired { items: 100, gained: 0, lost: 0 }.interval(0.95);
        assert!((unchanged.low + 0.037_0).abs() < 1e-3 && (unchanged.high - 0.037_0).abs() < 1e-3, "{unchanged:?}");
        assert_eq!(Paired { items: 0, gained: 0, lost: 0 }.interval(0.95), Interval { low: -1.0, high: 1.0 });
        let all = Paired { items: 5, gained: 5, lost: 0 };
        assert!(all.interval(0.95).high > 0.999 && all.interval(0.95).low > 0.0);
    }
}
