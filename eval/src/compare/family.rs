//! Many claims of one run, and groups of tasks.

use serde::{Deserialize, Serialize};

use super::sheet::ScoreSheet;
use super::{Comparison, ComparisonOptions, Range, Verdict, alike};
use crate::error::EvalError;
use crate::statistics::bootstrap::{BootstrapIntervals, Stratum, bootstrap_strata};
use crate::statistics::multiple::holm;

/// Makes the verdicts of `comparisons` hold together: with many claims some would be right by chance, so each p-value is raised
/// by Holm's rule before it is held against `alpha`. Whether nothing was lost needs no such rule where it must be shown on every
/// task.
pub fn adjust_family<'a>(comparisons: impl IntoIterator<Item = &'a mut Comparison>, alpha: f64) {
    let mut family: Vec<&mut Comparison> = comparisons.into_iter().collect();
    let p_values: Vec<f64> = family.iter().map(|comparison| comparison.test.p()).collect();
    let size = family.len();
    for (comparison, adjusted) in family.iter_mut().zip(holm(&p_values)) {
        comparison.p_adjusted = adjusted;
        comparison.family = size;
        comparison.verdict = Verdict::of(comparison.difference, adjusted, alpha);
    }
}

/// Two models on a group of tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupComparison {
    /// Name of the group.
    pub group: String,
    /// The first model.
    pub first: String,
    /// The second model.
    pub second: String,
    /// How many tasks.
    pub tasks: usize,
    /// Whether all scores lie between 0 and 1, so that differences are points.
    pub shares: bool,
    /// How many items in all.
    pub items: usize,
    /// Whether each task counts by its number of items; otherwise all count alike.
    pub weight_by_size: bool,
    /// Mean score of the first.
    pub score_first: f64,
    /// Mean score of the second.
    pub score_second: f64,
    /// By how much the second is better.
    pub difference: f64,
    /// 95 % intervals of the difference, the items of each task resampled in pairs.
    pub intervals: BootstrapIntervals,
    /// Better or worse where the interval leaves out zero.
    pub verdict: Verdict,
}

/// Compares two models on all tasks of a group, each pair of sheets being one task. Refused where the sheets of a task are not
/// alike, and without a task.
pub fn compare_group(
    group: &str,
    pairs: &[(&ScoreSheet, &ScoreSheet)],
    weight_by_size: bool,
    options: &ComparisonOptions,
) -> Result<GroupComparison, EvalError> {
    let Some((first, second)) = pairs.first() else {
        return Err(EvalError::Task { task: group.to_owned(), problem: "the group has no task".to_owned() });
    };
    let mut strata = Vec::with_capacity(pairs.len());
    let (mut total, mut of_first, mut of_second) = (0.0, 0.0, 0.0);
    for (a, b) in pairs {
        alike::check(a, b)?;
        let weight = if weight_by_size { a.items.len() as f64 } else { 1.0 };
        let (scores_a, scores_b) = (a.scores(), b.scores());
        let sign = a.sign();
        let differences: Vec<f64> = scores_a.iter().zip(&scores_b).map(|(a, b)| sign * (b - a)).collect();
        strata.push(match a.clusters() {
            Some(clusters) => Stratum::clustered(&differences, &clusters, weight),
            None => Stratum::of(&differences, weight),
        });
        let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
        total += weight;
        of_first += weight * mean(&scores_a);
        of_second += weight * mean(&scores_b);
    }
    let intervals = bootstrap_strata(&strata, 0.95, options.bootstrap);
    let verdict = if intervals.bca.low > 0.0 {
        Verdict::Better
    } else if intervals.bca.high < 0.0 {
        Verdict::Worse
    } else {
        Verdict::NoDifferenceShown
    };
    Ok(GroupComparison {
        group: group.to_owned(),
        first: first.model.clone(),
        second: second.model.clone(),
        tasks: pairs.len(),
        shares: pairs.iter().all(|(a, b)| Range::of(&a.scores(), &b.scores()).shares),
        items: pairs.iter().map(|(sheet, _)| sheet.items.len()).sum(),
        weight_by_size,
        score_first: of_first / total,
        score_second: of_second / total,
        difference: first.sign() * (of_second - of_first) / total,
        intervals,
        verdict,
    })
}
