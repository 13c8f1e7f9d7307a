//! Whether a judge can tell good texts from bad ones, found out before it decides about any.

use super::area::{AreaUnderCurve, area_under_curve};
use super::config::{JudgeConfig, OnPoor};

/// What a planted row is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A judge should let it pass.
    Good,
    /// A judge should not.
    Bad,
}

/// How good a judge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// Its interval lies above the bound.
    Good,
    /// Its interval reaches below the bound.
    Poor,
    /// There were no planted rows of one kind.
    Unknown,
}

/// What becomes of the verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Rows below the threshold are rejected.
    Reject,
    /// Scores stand beside the rows and reject none.
    Record,
    /// The run stops.
    Stop,
}

/// What planted rows say about a judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// How well its scores tell good from bad; `None` where one kind is missing.
    pub area: Option<AreaUnderCurve>,
    /// The threshold that tells them apart best.
    pub threshold: f64,
    /// Share of the good rows that pass there.
    pub good_passed: f64,
    /// Share of the bad rows that pass there.
    pub bad_passed: f64,
    /// Good rows.
    pub good: usize,
    /// Bad rows.
    pub bad: usize,
    /// Rows without a rating.
    pub without_score: usize,
    /// The verdict.
    pub quality: Quality,
    /// What becomes of the judge's verdicts.
    pub policy: Policy,
}

impl Calibration {
    /// What the judge can, in one sentence without what follows from it.
    pub fn finding(&self) -> String {
        let Some(AreaUnderCurve { area, low, high }) = self.area else {
            return "the judge was not calibrated: no planted rows".to_owned();
        };
        let (good, bad) = (100.0 * self.good_passed, 100.0 * self.bad_passed);
        let quality = match (self.quality, self.policy) {
            (Quality::Poor, Policy::Reject) => "a poor judge, trusted all the same",
            (Quality::Poor, Policy::Stop | Policy::Record) => "a poor judge",
            (Quality::Good | Quality::Unknown, _) => "a good judge",
        };
        format!(
            "{quality}: area under the curve {area:.2} ({low:.2} to {high:.2}); at {:.2} it passes {good:.0} % of {} good and \
             {bad:.0} % of {} bad planted rows",
            self.threshold, self.good, self.bad
        )
    }

    /// The finding in one sentence, with what follows.
    pub fn sentence(&self) -> String {
        let follows = match (self.area, self.quality, self.policy) {
            (None, ..) => "; its verdicts count as they come",
            (Some(_), Quality::Poor, Policy::Stop) => "; take a stronger judge, or `on_poor: record`",
            (Some(_), Quality::Poor, Policy::Record) => "; its scores are recorded and reject nothing",
            _ => "",
        };
        format!("{}{follows}", self.finding())
    }
}

/// Compares the scores of planted rows with what they should be. A row without a score counts as scored below all others: it
/// would not pass.
pub fn calibrate(config: &JudgeConfig, results: &[(Planted, Option<f64>)]) -> Calibration {
    let scores = |wanted: Planted| -> Vec<f64> {
        let of_kind = results.iter().filter(|(planted, _)| *planted == wanted);
        of_kind.map(|(_, score)| score.unwrap_or(-1.0)).collect()
    };
    let (good, bad) = (scores(Planted::Good), scores(Planted::Bad));
    let area = area_under_curve(&good, &bad);
    let quality = match area {
        None => Quality::Unknown,
        Some(found) if found.low > config.least_auc => Quality::Good,
        Some(_) => Quality::Poor,
    };
    let policy = match (quality, config.on_poor) {
        (Quality::Poor, OnPoor::Record) => Policy::Record,
        (Quality::Poor, OnPoor::Stop) => Policy::Stop,
        _ => Policy::Reject,
    };
    let threshold = config.keep.unwrap_or_else(|| best_threshold(&good, &bad));
    let passing = |scores: &[f64]| {
        let passed = scores.iter().filter(|score| **score >= threshold).count();
        if scores.is_empty() { 0.0 } else { passed as f64 / scores.len() as f64 }
    };
    Calibration {
        area,
        threshold,
        good_passed: passing(&good),
        bad_passed: passing(&bad),
        good: good.len(),
        bad: bad.len(),
        without_score: results.iter().filter(|(_, score)| score.is_none()).count(),
        quality,
        policy,
    }
}

/// The middle of the gap between two scores where the share of good rows that pass exceeds that of bad ones most (the index of
/// Youden 1950); the widest such gap among equals, 0.5 where nothing is gained.
fn best_threshold(good: &[f64], bad: &[f64]) -> f64 {
    let mut scores: Vec<f64> = good.iter().chain(bad).copied().map(|score| score.max(0.0)).collect();
    scores.sort_by(f64::total_cmp);
    scores.dedup();
    let share = |scores: &[f64], at: f64| {
        scores.iter().filter(|score| **score >= at).count() as f64 / scores.len().max(1) as f64
    };
    let (mut best, mut gain, mut width) = (0.5, 0.0, 0.0);
    for pair in scores.windows(2) {
        let middle = f64::midpoint(pair[0], pair[1]);
        let here = share(good, middle) - share(bad, middle);
        let gap = pair[1] - pair[0];
        if here > gain + 1e-12 || (here > gain - 1e-12 && gain > 0.0 && gap > width) {
            (best, gain, width) = (middle, here, gap);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(good: &[f64], bad: &[f64]) -> Vec<(Planted, Option<f64>)> {
        let good = good.iter().map(|score| (Planted::Good, Some(*score)));
        good.chain(bad.iter().map(|score| (Planted::Bad, Some(*score)))).collect()
    }

    #[test]
    fn the_best_threshold_lies_in_the_widest_gap() {
        let config = JudgeConfig::default();
        let found = calibrate(&config, &results(&[0.9, 0.8, 0.7, 0.3], &[0.1, 0.2, 0.25, 0.4]));
        // 4/4 - 1/4 between 0.25 and 0.3, 3/4 - 0/4 between 0.4 and 0.7: the second is wider.
        assert!((found.threshold - 0.55).abs() < 1e-9);
        assert_eq!((found.good_passed, found.bad_passed), (0.75, 0.0));
        let named = calibrate(&JudgeConfig { keep: Some(0.28), ..config }, &results(&[0.9, 0.3], &[0.1, 0.4]));
        assert_eq!((named.good_passed, named.bad_passed), (1.0, 0.5));
    }

    #[test]
    fn a_poor_judge_rejects_nothing_unless_it_is_trusted() {
        let good: Vec<f64> = (0..16).map(|index| 0.5 + 0.01 * f64::from(index)).collect();
        let bad: Vec<f64> = (0..16).map(|index| 0.495 + 0.01 * f64::from(index)).collect();
        let policy = |on_poor, good: &[f64]| {
            let found = calibrate(&JudgeConfig { on_poor, ..JudgeConfig::default() }, &results(good, &bad));
            (found.quality, found.policy)
        };
        assert_eq!(policy(OnPoor::Record, &good), (Quality::Poor, Policy::Record));
        assert_eq!(policy(OnPoor::Stop, &good), (Quality::Poor, Policy::Stop));
        assert_eq!(policy(OnPoor::Trust, &good), (Quality::Poor, Policy::Reject));
        assert_eq!(policy(OnPoor::Stop, &[0.9; 16]), (Quality::Good, Policy::Reject));
        assert_eq!(policy(OnPoor::Stop, &[]), (Quality::Unknown, Policy::Reject));
    }

    #[test]
    fn rows_without_a_rating_count_as_rejected() {
        let mut rows = results(&[0.6; 10], &[0.2; 5]);
        rows.extend([(Planted::Bad, None); 5]);
        let found = calibrate(&JudgeConfig::default(), &rows);
        assert_eq!((found.without_score, found.quality, found.bad_passed), (5, Quality::Good, 0.0));
        assert!(found.sentence().starts_with("a good judge: area under the curve 1.00"), "{}", found.sentence());
    }
}
