//! Whether a judge can tell good rows from bad ones, found out before it decides about any.

use espalier_dataset::normalized;
use espalier_taxonomy::{Leaf, Seed};

use super::area::{AreaUnderCurve, area_under_curve};
use super::config::{JudgeConfig, OnPoor};
use crate::identity::number;

/// How a planted row was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// A seed as a human wrote it: good.
    Seed,
    /// The answer of another seed of the leaf.
    SwappedAnswer,
    /// The answer of a seed of another leaf.
    OtherLeaf,
    /// The first third of the answer.
    Truncated,
    /// A refusal.
    Refusal,
}

impl Plant {
    /// The word in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::SwappedAnswer => "swapped answer",
            Self::OtherLeaf => "answer of another leaf",
            Self::Truncated => "truncated answer",
            Self::Refusal => "refusal",
        }
    }

    /// Whether a judge should let it pass.
    pub fn is_good(self) -> bool {
        self == Self::Seed
    }
}

/// A row of known quality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planted {
    /// How it was made.
    pub plant: Plant,
    /// The number of the leaf's seed that its question is from.
    pub seed: usize,
    /// The text that the question is about.
    pub context: Option<String>,
    /// The question.
    pub question: String,
    /// The right answer, or a wrong one.
    pub answer: String,
}

/// Up to `most` seeds of a leaf as they stand, each followed by one that is bad in one of four ways, in turn. `elsewhere` are
/// seeds of other leaves. A pure function of its arguments.
pub fn planted(leaf: &Leaf, elsewhere: &[&Seed], random: u64, most: usize) -> Vec<Planted> {
    let key = |what: &[u8], index: usize| {
        number(&[b"planted", what, &random.to_le_bytes(), leaf.id.as_bytes(), &(index as u64).to_le_bytes()])
    };
    let mut order: Vec<usize> = (0..leaf.seeds.len()).collect();
    order.sort_by_key(|index| key(b"order", *index));
    order.truncate(most);
    let mut rows = Vec::with_capacity(2 * order.len());
    for (turn, &index) in order.iter().enumerate() {
        let seed = &leaf.seeds[index];
        let row = |plant, answer: String| Planted {
            plant,
            seed: index,
            context: seed.context.clone(),
            question: seed.question.clone(),
            answer,
        };
        rows.push(row(Plant::Seed, seed.answer.clone()));
        let ways = [Plant::SwappedAnswer, Plant::OtherLeaf, Plant::Truncated, Plant::Refusal];
        let made = ways.iter().cycle().skip(turn % ways.len()).take(ways.len()).find_map(|&plant| {
            let start = key(plant.name().as_bytes(), index) as usize;
            spoiled(plant, index, &leaf.seeds, elsewhere, start).map(|answer| row(plant, answer))
        });
        rows.extend(made);
    }
    rows
}

/// An answer that is wrong in a way; `None` where the seeds give none.
fn spoiled(plant: Plant, index: usize, seeds: &[Seed], elsewhere: &[&Seed], start: usize) -> Option<String> {
    let seed = &seeds[index];
    let right = normalized(&seed.answer);
    match plant {
        Plant::Seed => None,
        Plant::SwappedAnswer => {
            let others = seeds.iter().cycle().skip(start % seeds.len()).take(seeds.len());
            others.map(|other| &other.answer).find(|answer| normalized(answer) != right).cloned()
        }
        Plant::OtherLeaf => {
            let others = elsewhere.iter().cycle().skip(start % elsewhere.len().max(1)).take(elsewhere.len());
            others.map(|other| &other.answer).find(|answer| normalized(answer) != right).cloned()
        }
        Plant::Truncated => {
            let words: Vec<&str> = seed.answer.split_whitespace().collect();
            // A third of a short answer may still be a right one.
            (words.len() >= 6).then(|| words[..words.len() / 3].join(" "))
        }
        Plant::Refusal => Some("I cannot answer this question.".to_owned()),
    }
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
    /// The finding in one sentence, with what follows.
    pub fn sentence(&self) -> String {
        let Some(AreaUnderCurve { area, low, high }) = self.area else {
            return "the judge was not calibrated: no planted rows; its verdicts count as they come".to_owned();
        };
        let (good, bad) = (100.0 * self.good_passed, 100.0 * self.bad_passed);
        let found = format!(
            "area under the curve {area:.2} ({low:.2} to {high:.2}); at {:.2} it passes {good:.0} % of {} good and {bad:.0} % \
             of {} bad planted rows",
            self.threshold, self.good, self.bad
        );
        match (self.quality, self.policy) {
            (Quality::Poor, Policy::Reject) => format!("a poor judge, trusted all the same: {found}"),
            (Quality::Poor, Policy::Stop) => {
                format!("a poor judge: {found}; take a stronger judge, or `on_poor: record`")
            }
            (Quality::Poor, Policy::Record) => {
                format!("a poor judge: {found}; its scores are recorded and reject nothing")
            }
            _ => format!("a good judge: {found}"),
        }
    }
}

/// Compares the scores of planted rows with what they should be. A row without a score counts as scored below all others: it
/// would not pass.
pub fn calibrate(config: &JudgeConfig, results: &[(Plant, Option<f64>)]) -> Calibration {
    let scores = |wanted: bool| -> Vec<f64> {
        let of_kind = results.iter().filter(|(plant, _)| plant.is_good() == wanted);
        of_kind.map(|(_, score)| score.unwrap_or(-1.0)).collect()
    };
    let (good, bad) = (scores(true), scores(false));
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

    fn leaf() -> Leaf {
        let answer = |number: usize| format!("The answer with number {number} is a long one indeed.");
        let seed = |number: usize| Seed {
            question: format!("What is {number}?"),
            answer: answer(number),
            context: None,
            line: 1,
            ..Seed::default()
        };
        Leaf { id: "x".into(), seeds: (0..8).map(seed).collect(), ..Leaf::default() }
    }

    #[test]
    fn bad_rows_are_bad_and_of_every_kind() {
        let leaf = leaf();
        let other = Seed { answer: "Something else".into(), ..Seed::default() };
        let rows = planted(&leaf, &[&other], 3, 6);
        assert_eq!(rows, planted(&leaf, &[&other], 3, 6));
        assert_ne!(rows, planted(&leaf, &[&other], 4, 6));
        assert_eq!(rows.len(), 12);
        for row in &rows {
            let right = &leaf.seeds[row.seed];
            assert_eq!((row.plant.is_good(), &row.question), (row.answer == right.answer, &right.question), "{row:?}");
        }
        let mut kinds: Vec<Plant> = rows.iter().map(|row| row.plant).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), 5);
        assert!(rows.iter().all(|row| row.plant != Plant::Truncated || row.answer == "The answer with"));
    }

    #[test]
    fn seeds_that_all_answer_alike_are_never_swapped() {
        let mut leaf = leaf();
        for seed in &mut leaf.seeds {
            seed.answer = "Yes.".into();
        }
        let rows = planted(&leaf, &[], 0, 8);
        assert!(rows.iter().all(|row| matches!(row.plant, Plant::Seed | Plant::Refusal)), "{rows:?}");
    }

    fn results(good: &[f64], bad: &[f64]) -> Vec<(Plant, Option<f64>)> {
        let good = good.iter().map(|score| (Plant::Seed, Some(*score)));
        good.chain(bad.iter().map(|score| (Plant::Refusal, Some(*score)))).collect()
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
        rows.extend([(Plant::Refusal, None); 5]);
        let found = calibrate(&JudgeConfig::default(), &rows);
        assert_eq!((found.without_score, found.quality, found.bad_passed), (5, Quality::Good, 0.0));
        assert!(found.sentence().starts_with("a good judge: area under the curve 1.00"), "{}", found.sentence());
    }
}
