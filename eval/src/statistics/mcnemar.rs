//! The test of `McNemar`: do two models differ on the same items?

use serde::{Deserialize, Serialize};

/// How the p-value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum McNemarMethod {
    /// The binomial test, for fewer than 25 changed items.
    Exact,
    /// The binomial test with half the probability of what was seen, which is less timid with many items.
    MidP,
}

/// The result of the test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Two-sided p-value.
    pub p: f64,
    /// How it was found.
    pub method: McNemarMethod,
}

/// From this many changed items on, mid-p is used.
const MANY: usize = 25;

/// The test on `lost` items that only the first model has right and `gained` items that only the second has.
///
/// If the models are equally good, each changed item is a fair coin: with m = min(lost, gained) and n = lost + gained, the exact
/// p-value is min(1, 2 P(X <= m)), X binomial(n, 1/2) (`McNemar`, Psychometrika 12 (1947) 153), mid-p is 2 P(X <= m) - P(X = m)
/// (Fagerland, Lydersen, Laake, BMC Medical Research Methodology 13 (2013) 91).
pub fn mcnemar(lost: usize, gained: usize) -> McNemar {
    let changed = lost + gained;
    let fewer = lost.min(gained);
    let method = if changed < MANY { McNemarMethod::Exact } else { McNemarMethod::MidP };
    let at = fair_coin(fewer, changed);
    let mut up_to = 0.0;
    let mut probability = at;
    for k in (0..=fewer).rev() {
        up_to += probability;
        // P(X = k - 1) = P(X = k) k / (n - k + 1)
        probability *= k as f64 / (changed - k + 1) as f64;
    }
    let p = match method {
        McNemarMethod::Exact => 2.0 * up_to,
        // With equal counts both halves share the middle.
        McNemarMethod::MidP if lost == gained => 1.0 - 0.5 * at,
        McNemarMethod::MidP => 2.0 * up_to - at,
    };
    McNemar { p: p.min(1.0), method }
}

/// P(X = k) for X binomial(n, 1/2), with 2 k <= n.
fn fair_coin(k: usize, n: usize) -> f64 {
    // The sum of logarithms has n/2 terms at most: no table, no special function.
    let ln_choose: f64 = (0..k).map(|i| (((n - i) as f64) / ((i + 1) as f64)).ln()).sum();
    (ln_choose - n as f64 * std::f64::consts::LN_2).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_as_in_statsmodels() {
        // statsmodels.stats.contingency_tables.mcnemar([[0, b], [c, 0]], exact=True).pvalue
        for (b, c, p) in [
            (0, 0, 1.0),
            (0, 6, 0.03125),
            (5, 0, 0.0625),
            (3, 9, 0.145_996_093_75),
            (2, 12, 0.012_939_453_125),
            (7, 7, 1.0),
        ] {
            let result = mcnemar(b, c);
            assert_eq!(result.method, McNemarMethod::Exact);
            assert!((result.p - p).abs() < 1e-12, "{b}, {c}: {result:?}");
            assert_eq!(mcnemar(c, b), result);
        }
    }

    #[test]
    fn mid_p_from_the_binomial_of_scipy() {
        // 2 * binom.cdf(min(b, c), b + c, 0.5) - binom.pmf(min(b, c), b + c, 0.5)
        for (b, c, p) in [
            (10, 20, 0.070_755_545_981_228_43),
            (100, 140, 0.009_831_541_178_608_735),
            (15, 15, 0.927_767_775_952_816_1),
            (1000, 1100, 0.029_110_633_685_909_233),
            (0, 25, 2.980_232_238_769_524_6e-8),
        ] {
            let result = mcnemar(b, c);
            assert_eq!(result.method, McNemarMethod::MidP);
            assert!((result.p - p).abs() < 1e-10 * p, "{b}, {c}: {result:?}");
        }
    }
}
