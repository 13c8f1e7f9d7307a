//! Two models on the same items.
//!
//! A comparison is of two [`ScoreSheet`]s: from [`Evaluation`]s of ours, or read from the files of lm-eval ([`read_sheets`]).
//! Sheets whose items, prompts or answers differ are refused by what differs. Where every score is right or wrong and items stand
//! alone, the claim rests on the test of `McNemar`; where scores are graded, or items hang together because they are about one
//! text, on the paired t with clustered errors. [`adjust_family`] makes many claims hold together, [`compare_group`] sums up tasks.

mod alike;
mod family;
mod files;
mod sheet;
mod words;

use serde::{Deserialize, Serialize};

use crate::error::EvalError;
use crate::evaluation::Evaluation;
use crate::statistics::Interval;
use crate::statistics::bootstrap::{BootstrapIntervals, BootstrapOptions, bootstrap_clustered, bootstrap_mean};
use crate::statistics::equivalence::Paired;
use crate::statistics::mcnemar::{McNemarMethod, mcnemar};
use crate::statistics::mean::Mean;
use crate::statistics::power::{USUAL_CHANGED, detectable, detectable_mean, usual_margin};

pub use family::{GroupComparison, adjust_family, compare_group};
pub use files::{SheetGroup, Sheets, read_sheets};
pub use sheet::{Conditions, ScoreSheet, ScoredItem};

/// What counts as shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparisonOptions {
    /// A difference is shown when its p-value is below.
    pub alpha: f64,
    /// How much worse the second model may be and still count as not worse (0.01 is one point); without a value
    /// [`usual_margin`] of the number of items, on the scale of the scores.
    pub margin: Option<f64>,
    /// Draws and seed of the interval.
    pub bootstrap: BootstrapOptions,
}

impl Default for ComparisonOptions {
    fn default() -> Self {
        Self { alpha: 0.05, margin: None, bootstrap: BootstrapOptions::default() }
    }
}

/// Whether the second model is better or worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Better, beyond chance.
    Better,
    /// Worse, beyond chance.
    Worse,
    /// The items show no difference; see [`Comparison::detectable`] for what they could have shown.
    NoDifferenceShown,
}

impl Verdict {
    /// What a gain with this p-value says.
    fn of(gain: f64, p: f64, alpha: f64) -> Self {
        if p >= alpha || gain == 0.0 {
            Self::NoDifferenceShown
        } else if gain > 0.0 {
            Self::Better
        } else {
            Self::Worse
        }
    }
}

/// Whether the second model is at most a margin worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonInferiority {
    /// Shown: it loses less than the margin.
    NonInferior,
    /// Shown: it is worse, and the loss may be the margin or more.
    Worse,
    /// Neither: more questions are needed.
    TooFewQuestions,
}

/// The test that a claim rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum PairedTest {
    /// `McNemar`'s test by the binomial distribution: right and wrong, few changes.
    McNemarExact {
        /// Two-sided p-value.
        p: f64,
    },
    /// The same with mid-p: right and wrong, many changes.
    McNemarMidP {
        /// Two-sided p-value.
        p: f64,
    },
    /// Student's t of the differences, their errors by cluster where items hang together.
    PairedT {
        /// Two-sided p-value.
        p: f64,
        /// Degrees of freedom: items or clusters less one.
        degrees: f64,
    },
}

impl PairedTest {
    /// Its two-sided p-value.
    pub fn p(&self) -> f64 {
        match self {
            Self::McNemarExact { p } | Self::McNemarMidP { p } | Self::PairedT { p, .. } => *p,
        }
    }
}

/// Two models on the same items. Differences are by how much the second is better: second less first, the other way round for
/// scores of which less is better. All shares are fractions, not percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the task.
    pub task: String,
    /// What was measured.
    pub metric: String,
    /// Whether all scores lie between 0 and 1, so that differences are points.
    pub shares: bool,
    /// The first model, which the second is measured against.
    pub first: String,
    /// The second model.
    pub second: String,
    /// How many items.
    pub items: usize,
    /// How many texts they are about, where items share one.
    pub clusters: Option<usize>,
    /// Mean score of the first: its accuracy.
    pub score_first: f64,
    /// Mean score of the second.
    pub score_second: f64,
    /// By how much the second is better in the mean.
    pub difference: f64,
    /// 95 % intervals of the difference, items (or whole clusters) resampled in pairs.
    pub intervals: BootstrapIntervals,
    /// Ids of the items on which the second is better.
    pub gained: Vec<String>,
    /// Ids of the items on which the first is better.
    pub lost: Vec<String>,
    /// Share of items on which both have the same score.
    pub agreement: f64,
    /// Share of items to which both give the same answer.
    pub same_response: f64,
    /// The paired test.
    pub test: PairedTest,
    /// Its p-value, raised by Holm's rule where it is one of many.
    pub p_adjusted: f64,
    /// How many claims are made together.
    pub family: usize,
    /// What `p_adjusted` says at `alpha`.
    pub verdict: Verdict,
    /// The least difference that such items show with a chance of 80 %.
    pub detectable: f64,
    /// The margin that a loss is held against.
    pub margin: f64,
    /// The loss that is ruled out at one-sided `alpha` is anything beyond the lower end; 90 % interval at alpha 0.05, after Tango
    /// where answers are right or wrong, of Student's t otherwise.
    pub margin_interval: Interval,
    /// Whether the second is at most the margin worse.
    pub non_inferiority: NonInferiority,
}

/// Compares two evaluations of the same items. Refused when they are not: other items, another order, other prompts.
pub fn compare(first: &Evaluation, second: &Evaluation, options: &ComparisonOptions) -> Result<Comparison, EvalError> {
    compare_sheets(&first.into(), &second.into(), options)
}

/// Compares two sheets of the same items. Refused when they are not, by what differs.
pub fn compare_sheets(
    first: &ScoreSheet,
    second: &ScoreSheet,
    options: &ComparisonOptions,
) -> Result<Comparison, EvalError> {
    alike::check(first, second)?;
    let items = first.items.len();
    let (scores_first, scores_second) = (first.scores(), second.scores());
    let sign = first.sign();
    let gains: Vec<f64> = scores_first.iter().zip(&scores_second).map(|(a, b)| sign * (b - a)).collect();
    let changed = |kept: fn(f64) -> bool| -> Vec<String> {
        first.items.iter().zip(&gains).filter(|(_, gain)| kept(**gain)).map(|(item, _)| item.id.clone()).collect()
    };
    let (gained, lost) = (changed(|gain| gain > 0.0), changed(|gain| gain < 0.0));
    let range = Range::of(&scores_first, &scores_second);
    let clusters = first.clusters();
    let mean = match &clusters {
        Some(clusters) => Mean::clustered(&gains, clusters),
        None => Mean::of(&gains),
    };
    let share = |count: usize| count as f64 / items as f64;
    let confidence = 1.0 - 2.0 * options.alpha;
    let (test, margin_interval, detectable) = if range.binary && clusters.is_none() {
        let counts = Paired { items, gained: gained.len(), lost: lost.len() };
        let found = mcnemar(counts.lost, counts.gained);
        let test = match found.method {
            McNemarMethod::Exact => PairedTest::McNemarExact { p: found.p },
            McNemarMethod::MidP => PairedTest::McNemarMidP { p: found.p },
        };
        // Where more items changed than usual, more items are needed.
        let least = detectable(items, share(counts.gained + counts.lost).max(USUAL_CHANGED));
        (test, counts.interval(confidence), least)
    } else {
        let test = PairedTest::PairedT { p: mean.p(), degrees: mean.degrees };
        (test, mean.interval(confidence), detectable_mean(1, mean.standard_error))
    };
    let margin = options.margin.unwrap_or_else(|| usual_margin(items) * range.width);
    let non_inferiority = if margin_interval.low > -margin {
        NonInferiority::NonInferior
    } else if margin_interval.high < 0.0 {
        NonInferiority::Worse
    } else {
        NonInferiority::TooFewQuestions
    };
    let intervals = match &clusters {
        Some(clusters) => bootstrap_clustered(&gains, clusters, 0.95, options.bootstrap),
        None => bootstrap_mean(&gains, 0.95, options.bootstrap),
    };
    let average = |scores: &[f64]| scores.iter().sum::<f64>() / items as f64;
    let same = first.items.iter().zip(&second.items).filter(|(a, b)| a.response == b.response).count();
    Ok(Comparison {
        task: first.task.clone(),
        metric: first.metric.clone(),
        shares: range.shares,
        first: first.model.clone(),
        second: second.model.clone(),
        items,
        clusters: clusters.map(|clusters| clusters.iter().max().map_or(0, |last| last + 1)),
        score_first: average(&scores_first),
        score_second: average(&scores_second),
        difference: mean.mean,
        intervals,
        agreement: share(items - gained.len() - lost.len()),
        same_response: share(same),
        gained,
        lost,
        p_adjusted: test.p(),
        family: 1,
        verdict: Verdict::of(mean.mean, test.p(), options.alpha),
        test,
        detectable,
        margin,
        margin_interval,
        non_inferiority,
    })
}

/// The scale of scores.
struct Range {
    /// Only 0 and 1.
    binary: bool,
    /// Nothing below 0 or above 1.
    shares: bool,
    /// What a whole is: 1 of shares, else from the least score to the most.
    width: f64,
}

impl Range {
    fn of(first: &[f64], second: &[f64]) -> Self {
        let all = || first.iter().chain(second).copied();
        let low = all().fold(f64::INFINITY, f64::min);
        let high = all().fold(f64::NEG_INFINITY, f64::max);
        let shares = low >= 0.0 && high <= 1.0;
        let binary = all().all(|score| [0.0, 1.0].iter().any(|whole: &f64| whole.total_cmp(&score).is_eq()));
        Self { binary, shares, width: if shares { 1.0 } else { high - low } }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::evaluation::ItemResult;
    use crate::task::{Generation, Task};

    /// `right` items right, from `from` on, of `n`.
    fn evaluation(model: &str, n: usize, from: usize, right: usize) -> Evaluation {
        let items = (0..n)
            .map(|index| {
                let correct = (from..from + right).contains(&index);
                ItemResult {
                    id: format!("i{index}"),
                    index,
                    doc_hash: format!("d{index}"),
                    prompt_hash: "p".into(),
                    target_hash: "t".into(),
                    target: String::new(),
                    doc: json!({}),
                    prompt: String::new(),
                    response: String::new(),
                    extracted: correct.to_string(),
                    continuations: Vec::new(),
                    logprobs: Vec::new(),
                    correct,
                    correct_normalized: None,
                    score: f64::from(u8::from(correct)),
                    error: None,
                }
            })
            .collect();
        let task = Task { name: "t".into(), items: Vec::new(), generation: Generation::default(), few_shot: 0 };
        Evaluation::new(&task, model, items)
    }

    #[test]
    fn better_and_worse_are_said_in_plain_words() {
        let base = evaluation("base", 200, 0, 100);
        let tuned = evaluation("tuned", 200, 10, 130);
        let comparison = compare(&base, &tuned, &ComparisonOptions::default()).unwrap();
        assert_eq!((comparison.gained.len(), comparison.lost.len(), comparison.verdict), (40, 10, Verdict::Better));
        assert_eq!((comparison.lost[0].as_str(), comparison.gained[39].as_str()), ("i0", "i139"));
        assert!((comparison.difference - 0.15).abs() < 1e-12 && (comparison.agreement - 0.75).abs() < 1e-12);
        assert_eq!(comparison.non_inferiority, NonInferiority::NonInferior);
        let words = comparison.words();
        assert!(words.starts_with("tuned is better than base by 15.0 points (95 %: +"), "{words}");
        assert!(words.contains("p below 0.0001; 40 gained, 10 lost of 200"), "{words}");
        let back = compare(&tuned, &base, &ComparisonOptions::default()).unwrap();
        assert_eq!((back.verdict, back.non_inferiority), (Verdict::Worse, NonInferiority::Worse));
        assert!(back.words().starts_with("base is worse than tuned by 15.0 points (95 %: -"), "{}", back.words());
        assert!((back.test.p() - comparison.test.p()).abs() < 1e-15);
    }

    #[test]
    fn few_items_show_nothing_and_say_so() {
        let comparison =
            compare(&evaluation("base", 20, 0, 10), &evaluation("q4", 20, 1, 10), &ComparisonOptions::default())
                .unwrap();
        assert_eq!(
            (comparison.verdict, comparison.non_inferiority),
            (Verdict::NoDifferenceShown, NonInferiority::TooFewQuestions)
        );
        assert_eq!(
            comparison.words(),
            "no difference shown between q4 and base (0.0 points; p = 1.0000; 1 gained, 1 lost of 20): 20 items can show 34.8 points or more"
        );
        assert!(
            comparison
                .non_inferiority_words()
                .starts_with("20 items are too few to tell whether q4 loses less than 1.0 points")
        );
    }

    #[test]
    fn many_items_show_that_nothing_was_lost() {
        let comparison = compare(
            &evaluation("base", 5000, 0, 2500),
            &evaluation("q8", 5000, 3, 2500),
            &ComparisonOptions::default(),
        )
        .unwrap();
        assert_eq!(comparison.non_inferiority, NonInferiority::NonInferior);
        assert!(
            comparison
                .non_inferiority_words()
                .starts_with("q8 is not worse than base by 1.3 points: it loses 0.1 points")
        );
    }

    #[test]
    fn other_items_are_refused_by_what_differs() {
        let base = evaluation("base", 5, 0, 3);
        let refused = |change: &dyn Fn(&mut Evaluation)| {
            let mut other = evaluation("other", 5, 0, 3);
            change(&mut other);
            compare(&base, &other, &ComparisonOptions::default()).unwrap_err().to_string()
        };
        assert!(
            refused(&|e| e.items[2].doc_hash = "x".into()).contains("item i2 of task \"t\" differs in its question")
        );
        assert!(
            refused(&|e| e.items[2].prompt_hash = "x".into()).contains("item i2 of task \"t\" differs in its prompt")
        );
        assert!(refused(&|e| e.items[2].target_hash = "x".into()).contains("right answer"));
        assert!(refused(&|e| e.items.truncate(4)).contains("5 and 4 items"));
        assert!(refused(&|e| e.task = "u".into()).contains("\"t\" and \"u\""));
        let none = evaluation("none", 0, 0, 0);
        assert!(compare(&none, &none, &ComparisonOptions::default()).is_err());
    }

    fn sheet(model: &str, scores: &[f64]) -> ScoreSheet {
        let item = |(index, score): (usize, &f64)| ScoredItem {
            id: index.to_string(),
            score: *score,
            ..ScoredItem::default()
        };
        let items = scores.iter().enumerate().map(item).collect();
        ScoreSheet { task: "t".into(), model: model.into(), metric: "m".into(), items, ..ScoreSheet::default() }
    }

    #[test]
    fn graded_scores_are_compared_by_the_paired_t() {
        let first: Vec<f64> = (0..60).map(|i| f64::from(i % 7)).collect();
        let second: Vec<f64> = first.iter().enumerate().map(|(i, score)| score + [1.0, 0.5, -0.5][i % 3]).collect();
        let options = ComparisonOptions::default();
        let mut comparison = compare_sheets(&sheet("a", &first), &sheet("b", &second), &options).unwrap();
        let PairedTest::PairedT { p, degrees } = comparison.test else { panic!("{comparison:?}") };
        assert!(p < 1e-3 && (degrees - 59.0).abs() < 1e-12 && !comparison.shares);
        assert_eq!((comparison.gained.len(), comparison.lost.len(), comparison.verdict), (40, 20, Verdict::Better));
        let words = comparison.words();
        assert!(words.starts_with("b is better than a by 0.333 (95 %: +0.1"), "{words}");
        assert!(words.ends_with("40 gained, 20 lost of 60)"), "{words}");
        // The margin of shares, on the scale of these scores.
        assert!((comparison.margin - 7.5 * usual_margin(60)).abs() < 1e-9);
        // What is less where less is better is a gain.
        let (mut worse, mut better) = (sheet("a", &second), sheet("b", &first));
        (worse.lower_is_better, better.lower_is_better) = (true, true);
        let turned = compare_sheets(&worse, &better, &options).unwrap();
        assert_eq!((turned.difference, turned.verdict), (comparison.difference, Verdict::Better));
        // One claim of many is held to more.
        comparison.test = PairedTest::PairedT { p: 0.02, degrees };
        let mut family = vec![comparison.clone(), comparison.clone(), comparison];
        adjust_family(&mut family, 0.05);
        assert_eq!((family[1].family, family[1].verdict), (3, Verdict::NoDifferenceShown));
        assert!(family[1].words().contains("p = 0.0600 by Holm over 3 claims"), "{}", family[1].words());
    }

    #[test]
    fn answers_about_one_text_are_one_witness() {
        // Twenty texts, each with ten questions that are all gained, all lost or all kept.
        let alike = |scores: fn(usize) -> f64| {
            let mut sheet = sheet("m", &(0..200).map(|i| scores(i / 10)).collect::<Vec<_>>());
            sheet.items.iter_mut().enumerate().for_each(|(i, item)| item.cluster = Some((i / 10).to_string()));
            sheet
        };
        let (first, second) =
            (alike(|text| f64::from(u8::from(text < 10))), alike(|text| f64::from(u8::from(text < 12))));
        let clustered = compare_sheets(&first, &second, &ComparisonOptions::default()).unwrap();
        assert_eq!((clustered.clusters, clustered.verdict), (Some(20), Verdict::NoDifferenceShown));
        assert!(clustered.words().contains("200 items about 20 texts can show"), "{}", clustered.words());
        let alone = |sheet: &ScoreSheet| {
            let mut sheet = sheet.clone();
            sheet.items.iter_mut().for_each(|item| item.cluster = None);
            sheet
        };
        let taken_alone = compare_sheets(&alone(&first), &alone(&second), &ComparisonOptions::default()).unwrap();
        assert_eq!((taken_alone.clusters, taken_alone.verdict), (None, Verdict::Better));
        let width = |interval: Interval| interval.high - interval.low;
        assert!(width(clustered.intervals.bca) > 2.0 * width(taken_alone.intervals.bca));
    }

    #[test]
    fn the_part_that_differs_is_named() {
        let base = sheet("a", &[1.0, 0.0]);
        let refused = |change: &dyn Fn(&mut ScoreSheet)| {
            let mut other = base.clone();
            other.items[1].prompt_hash = "x".into();
            let mut base = base.clone();
            base.items[1].prompt = "Is the sky blue?\nAnswer:".into();
            other.items[1].prompt = "Is the sky blue? Answer:".into();
            change(&mut base);
            base.conditions.few_shot = Some(0);
            base.conditions.chat_template = Some(String::new());
            base.conditions.system_prompt = Some(String::new());
            base.conditions.few_shot_turns = Some(false);
            base.conditions.tokenizer = Some("<s>".into());
            other.conditions = base.conditions.clone();
            change(&mut other);
            compare_sheets(&base, &other, &ComparisonOptions::default()).unwrap_err().to_string()
        };
        assert!(
            refused(&|sheet| sheet.conditions.few_shot = Some(4))
                .contains("item 1 of task \"t\" differs in its few-shot examples: 0 and 4")
        );
        assert!(
            refused(&|sheet| sheet.conditions.chat_template = Some("h".into())).contains("chat template: one has none")
        );
        assert!(refused(&|sheet| sheet.conditions.system_prompt = Some("h".into())).contains("system prompt"));
        assert!(refused(&|sheet| sheet.conditions.few_shot_turns = Some(true)).contains("turns of a conversation"));
        assert!(
            refused(&|sheet| sheet.conditions.tokenizer = Some("<bos>".into()))
                .contains("tokenizer: its special tokens are <s> and <bos>")
        );
        assert!(
            refused(&|_| ()).contains(
                r#"from character 17 on it reads "Is the sky blue?\nAnswer:" against "Is the sky blue? Answer:""#
            ),
            "{}",
            refused(&|_| ())
        );
        let mut no_score = base.clone();
        no_score.items[0].score = f64::NAN;
        assert!(
            compare_sheets(&base, &no_score, &ComparisonOptions::default())
                .unwrap_err()
                .to_string()
                .contains("has no score")
        );
        let mut other_metric = base.clone();
        other_metric.metric = "n".into();
        assert!(
            compare_sheets(&base, &other_metric, &ComparisonOptions::default())
                .unwrap_err()
                .to_string()
                .contains("measured by m and by n")
        );
    }

    #[test]
    fn groups_are_summed_up_by_size_or_alike() {
        let (a1, b1) = (sheet("a", &[0.0; 90]), sheet("b", &[1.0; 90]));
        let (a2, b2) = (sheet("a", &[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]), sheet("b", &[0.0; 10]));
        let options = ComparisonOptions::default();
        let by_size = compare_group("g", &[(&a1, &b1), (&a2, &b2)], true, &options).unwrap();
        assert!((by_size.difference - 0.85).abs() < 1e-12 && (by_size.score_second - 0.9).abs() < 1e-12);
        assert_eq!((by_size.verdict, by_size.items, by_size.tasks), (Verdict::Better, 100, 2));
        let alike = compare_group("g", &[(&a1, &b1), (&a2, &b2)], false, &options).unwrap();
        assert!((alike.difference - 0.25).abs() < 1e-12, "{alike:?}");
        assert!(alike.words().starts_with("b is better than a by 25.0 points (95 %: +"), "{}", alike.words());
        assert!(compare_group("g", &[], true, &options).is_err());
    }
}
