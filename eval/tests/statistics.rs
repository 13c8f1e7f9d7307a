//! The statistics against scipy and statsmodels, on the cases of `golden/statistics.json` (made by scripts/golden-statistics.py).

use espalier_eval::statistics::Interval;
use espalier_eval::statistics::agreement::{Level, Weights, cohen_kappa, krippendorff_alpha};
use espalier_eval::statistics::bootstrap::{BootstrapOptions, bootstrap_mean};
use espalier_eval::statistics::correlation::{Correlation, pearson, spearman};
use espalier_eval::statistics::equivalence::Paired;
use espalier_eval::statistics::mcnemar::{McNemarMethod, mcnemar};
use espalier_eval::statistics::mean::Mean;
use espalier_eval::statistics::multiple::{benjamini_hochberg, holm};
use espalier_eval::statistics::power::{detectable, detectable_mean, detectable_unpaired};
use espalier_eval::statistics::wilson::wilson;
use espalier_eval::statistics::{normal, student};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    wilson: Vec<(usize, usize, f64, f64, f64)>,
    normal: Vec<(f64, f64, f64)>,
    student: Vec<(f64, f64, f64)>,
    student_quantile: Vec<(f64, f64, f64)>,
    mcnemar_exact: Vec<(usize, usize, f64)>,
    mcnemar_mid_p: Vec<(usize, usize, f64)>,
    tango: Vec<(usize, usize, usize, f64, f64)>,
    tango_interval: Vec<(usize, usize, usize, f64, f64, f64)>,
    mean: Vec<MeanCase>,
    multiple: Vec<MultipleCase>,
    detectable: Vec<(usize, f64, f64)>,
    detectable_unpaired: Vec<(usize, usize, f64, f64)>,
    detectable_mean: Vec<(usize, f64, f64)>,
    correlation: Vec<CorrelationCase>,
    kappa: Vec<KappaCase>,
    alpha: Vec<AlphaCase>,
    bootstrap: Vec<BootstrapCase>,
}

#[derive(Deserialize)]
struct MeanCase {
    values: Vec<f64>,
    clusters: Vec<usize>,
    margin: f64,
    mean: f64,
    standard_error: f64,
    p: f64,
    interval: (f64, f64),
    non_inferiority_p: f64,
    equivalence_p: f64,
    cluster_error: f64,
    cluster_degrees: f64,
    cluster_p: f64,
    cluster_interval: (f64, f64),
}

#[derive(Deserialize)]
struct MultipleCase {
    p: Vec<f64>,
    holm: Vec<f64>,
    benjamini_hochberg: Vec<f64>,
}

#[derive(Deserialize)]
struct CorrelationCase {
    x: Vec<f64>,
    y: Vec<f64>,
    pearson: (f64, f64),
    spearman: (f64, f64),
}

#[derive(Deserialize)]
struct KappaCase {
    first: Vec<usize>,
    second: Vec<usize>,
    categories: usize,
    equal: (f64, f64),
    linear: (f64, f64),
    quadratic: (f64, f64),
}

#[derive(Deserialize)]
struct AlphaCase {
    units: Vec<Vec<f64>>,
    nominal: f64,
    ordinal: f64,
    interval: f64,
}

#[derive(Deserialize)]
struct BootstrapCase {
    values: Vec<f64>,
    percentile: (f64, f64),
    bca: (f64, f64),
    standard_error: f64,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/statistics.json")).expect("the golden file")
}

/// Equal to 1e-9, of the figure where that is small.
#[track_caller]
fn same(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs().min(1.0) + 1e-18, "{what}: {found:e}, not {expected:e}");
}

#[track_caller]
fn same_interval(found: Interval, (low, high): (f64, f64), what: &str) {
    // An end near zero has digits of the other.
    let scale = 1e-9 * low.abs().max(high.abs());
    assert!(
        (found.low - low).abs() <= scale && (found.high - high).abs() <= scale,
        "{what}: {found:?}, not {low}, {high}"
    );
}

#[test]
fn distributions() {
    let golden = golden();
    for (x, p, back) in golden.normal {
        same(normal::cumulative(x), p, "normal");
        assert!((normal::quantile(p) - back).abs() < 1e-9, "normal quantile of {p}");
    }
    for (t, degrees, tail) in golden.student {
        same(student::upper_tail(t, degrees), tail, &format!("t {t} with {degrees} degrees"));
    }
    for (p, degrees, t) in golden.student_quantile {
        let found = student::quantile(p, degrees);
        assert!(
            (found - t).abs() <= 1e-9 * t.abs().max(1.0),
            "t quantile {p} with {degrees} degrees: {found}, not {t}"
        );
    }
}

#[test]
fn one_model() {
    for (right, items, confidence, low, high) in golden().wilson {
        let found = wilson(right, items, confidence);
        assert!((found.low - low).abs() < 1e-9 && (found.high - high).abs() < 1e-9, "{right}/{items}: {found:?}");
    }
}

#[test]
fn two_models_right_and_wrong() {
    let golden = golden();
    for (cases, method) in [(golden.mcnemar_exact, McNemarMethod::Exact), (golden.mcnemar_mid_p, McNemarMethod::MidP)] {
        for (lost, gained, p) in cases {
            let found = mcnemar(lost, gained);
            assert_eq!(found.method, method, "{lost} {gained}");
            same(found.p, p, &format!("mcnemar {lost} {gained}"));
            assert_eq!(mcnemar(gained, lost), found);
        }
    }
    for (items, gained, lost, difference, z) in golden.tango {
        same(Paired { items, gained, lost }.score(difference), z, &format!("score of {gained} {lost} at {difference}"));
    }
    for (items, gained, lost, confidence, low, high) in golden.tango_interval {
        same_interval(Paired { items, gained, lost }.interval(confidence), (low, high), &format!("{gained} {lost}"));
    }
}

#[test]
fn means_of_scores() {
    for case in golden().mean {
        let what = format!("{} values", case.values.len());
        let mean = Mean::of(&case.values);
        same(mean.mean, case.mean, &what);
        same(mean.standard_error, case.standard_error, &what);
        same(mean.p(), case.p, &what);
        same_interval(mean.interval(0.95), case.interval, &what);
        same(mean.non_inferiority_p(case.margin), case.non_inferiority_p, &what);
        same(mean.equivalence_p(case.margin), case.equivalence_p, &what);
        let clustered = Mean::clustered(&case.values, &case.clusters);
        same(clustered.mean, case.mean, &what);
        same(clustered.standard_error, case.cluster_error, &what);
        same(clustered.degrees, case.cluster_degrees, &what);
        same(clustered.p(), case.cluster_p, &what);
        same_interval(clustered.interval(0.95), case.cluster_interval, &what);
    }
}

#[test]
fn many_claims() {
    for case in golden().multiple {
        for (adjusted, expected) in [(holm(&case.p), case.holm), (benjamini_hochberg(&case.p), case.benjamini_hochberg)]
        {
            assert_eq!(adjusted.len(), expected.len());
            for (found, expected) in adjusted.iter().zip(&expected) {
                same(*found, *expected, "adjusted");
            }
        }
    }
}

#[test]
fn what_can_be_shown() {
    let golden = golden();
    for (items, changed, least) in golden.detectable {
        same(detectable(items, changed), least, &format!("{items} items"));
    }
    for (first, second, accuracy, least) in golden.detectable_unpaired {
        same(detectable_unpaired(first, second, accuracy), least, &format!("{first} and {second} items"));
    }
    for (items, deviation, least) in golden.detectable_mean {
        same(detectable_mean(items, deviation), least, &format!("{items} scores"));
    }
}

#[test]
fn correlations() {
    #[track_caller]
    fn check(found: Option<Correlation>, (coefficient, p): (f64, f64)) {
        let found = found.expect("there is spread");
        same(found.coefficient, coefficient, "coefficient");
        same(found.p, p, "its p");
    }
    for case in golden().correlation {
        check(pearson(&case.x, &case.y), case.pearson);
        check(spearman(&case.x, &case.y), case.spearman);
    }
}

#[test]
fn judges() {
    let golden = golden();
    for case in golden.kappa {
        for (weights, (kappa, error)) in
            [(Weights::Equal, case.equal), (Weights::Linear, case.linear), (Weights::Quadratic, case.quadratic)]
        {
            let found = cohen_kappa(&case.first, &case.second, case.categories, weights).expect("they differ");
            same(found.kappa, kappa, &format!("{weights:?} kappa"));
            same(found.standard_error, error, &format!("error of {weights:?} kappa"));
        }
    }
    for case in golden.alpha {
        for (level, alpha) in
            [(Level::Nominal, case.nominal), (Level::Ordinal, case.ordinal), (Level::Interval, case.interval)]
        {
            same(krippendorff_alpha(&case.units, level).expect("they differ"), alpha, &format!("{level:?} alpha"));
        }
    }
}

#[test]
fn intervals_by_resampling() {
    for case in golden().bootstrap {
        let found = bootstrap_mean(&case.values, 0.95, BootstrapOptions { draws: 100_000, seed: 7 });
        // The error of a quantile found by 100,000 draws is near 1 % of the standard error; six of them, and one step of a
        // distribution that has steps.
        let step = 1.0 / case.values.len() as f64;
        let close = |found: Interval, (low, high): (f64, f64)| {
            let tolerance = 0.06 * case.standard_error + if step > 0.02 { 0.0 } else { 1.01 * step };
            (found.low - low).abs() <= tolerance && (found.high - high).abs() <= tolerance
        };
        assert!(close(found.percentile, case.percentile), "{found:?}, not {:?}", case.percentile);
        assert!(close(found.bca, case.bca), "{found:?}, not {:?}", case.bca);
    }
}
