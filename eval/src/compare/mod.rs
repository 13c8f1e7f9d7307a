//! Two models on the same items.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::EvalError;
use crate::evaluation::Evaluation;
use crate::statistics::Interval;
use crate::statistics::bootstrap::{BootstrapIntervals, BootstrapOptions, bootstrap_mean};
use crate::statistics::equivalence::Paired;
use crate::statistics::mcnemar::{McNemar, mcnemar};
use crate::statistics::power::{USUAL_CHANGED, detectable};

/// What counts as shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparisonOptions {
    /// A difference is shown when its p-value is below.
    pub alpha: f64,
    /// How much worse the second model may be and still count as not worse (0.01 is one point).
    pub margin: f64,
    /// Draws and seed of the interval.
    pub bootstrap: BootstrapOptions,
}

impl Default for ComparisonOptions {
    fn default() -> Self {
        Self { alpha: 0.05, margin: 0.01, bootstrap: BootstrapOptions::default() }
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

/// Two models on the same items. Differences are second less first; all shares are fractions, not percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the task.
    pub task: String,
    /// The first model, which the second is measured against.
    pub first: String,
    /// The second model.
    pub second: String,
    /// How many items.
    pub items: usize,
    /// Accuracy of the first.
    pub accuracy_first: f64,
    /// Accuracy of the second.
    pub accuracy_second: f64,
    /// Accuracy of the second less that of the first.
    pub difference: f64,
    /// 95 % intervals of the difference, items resampled in pairs.
    pub intervals: BootstrapIntervals,
    /// Items that only the second has right.
    pub gained: usize,
    /// Items that only the first has right.
    pub lost: usize,
    /// Share of items on which both are right or both wrong.
    pub agreement: f64,
    /// Share of items to which both give the same answer.
    pub same_response: f64,
    /// The paired test.
    pub mcnemar: McNemar,
    /// What the test says at `alpha`.
    pub verdict: Verdict,
    /// The smallest difference that so many items can show.
    pub detectable: f64,
    /// The margin asked about.
    pub margin: f64,
    /// The loss that is ruled out at one-sided `alpha` is anything beyond the lower end; 90 % score interval at alpha 0.05.
    pub margin_interval: Interval,
    /// Whether the second is at most the margin worse.
    pub non_inferiority: NonInferiority,
}

/// Compares two evaluations of the same items. Refused when they are not: other items, another order, other prompts.
pub fn compare(first: &Evaluation, second: &Evaluation, options: &ComparisonOptions) -> Result<Comparison, EvalError> {
    check(first, second)?;
    let pairs = || first.items.iter().zip(&second.items);
    let count = |first_right: bool, second_right: bool| {
        pairs().filter(|(a, b)| a.correct == first_right && b.correct == second_right).count()
    };
    let counts = Paired { items: first.items.len(), gained: count(false, true), lost: count(true, false) };
    let changed = counts.gained + counts.lost;
    let share = |count: usize| count as f64 / counts.items as f64;
    let differences: Vec<f64> = pairs().map(|(a, b)| b.score - a.score).collect();
    let mcnemar = mcnemar(counts.lost, counts.gained);
    let verdict = match counts.gained.cmp(&counts.lost) {
        _ if mcnemar.p >= options.alpha => Verdict::NoDifferenceShown,
        std::cmp::Ordering::Greater => Verdict::Better,
        std::cmp::Ordering::Less => Verdict::Worse,
        std::cmp::Ordering::Equal => Verdict::NoDifferenceShown,
    };
    let margin_interval = counts.interval(1.0 - 2.0 * options.alpha);
    let non_inferiority = if margin_interval.low > -options.margin {
        NonInferiority::NonInferior
    } else if margin_interval.high < 0.0 {
        NonInferiority::Worse
    } else {
        NonInferiority::TooFewQuestions
    };
    Ok(Comparison {
        task: first.task.clone(),
        first: first.model.clone(),
        second: second.model.clone(),
        items: counts.items,
        accuracy_first: first.accuracy,
        accuracy_second: second.accuracy,
        difference: counts.difference(),
        intervals: bootstrap_mean(&differences, 0.95, options.bootstrap),
        gained: counts.gained,
        lost: counts.lost,
        agreement: share(counts.items - changed),
        same_response: share(pairs().filter(|(a, b)| a.extracted == b.extracted).count()),
        mcnemar,
        verdict,
        // Where more items changed than usual, more items are needed.
        detectable: detectable(counts.items, share(changed).max(USUAL_CHANGED)),
        margin: options.margin,
        margin_interval,
        non_inferiority,
    })
}

fn check(first: &Evaluation, second: &Evaluation) -> Result<(), EvalError> {
    let refuse = |problem: String| {
        Err(EvalError::NotComparable { first: first.model.clone(), second: second.model.clone(), problem })
    };
    if first.task != second.task {
        return refuse(format!("the tasks are {:?} and {:?}", first.task, second.task));
    }
    if first.items.is_empty() || first.items.len() != second.items.len() {
        return refuse(format!("they have {} and {} items", first.items.len(), second.items.len()));
    }
    for (a, b) in first.items.iter().zip(&second.items) {
        let part = if a.doc_hash != b.doc_hash {
            "question"
        } else if a.target_hash != b.target_hash {
            "right answer"
        } else if a.prompt_hash != b.prompt_hash {
            "prompt"
        } else {
            continue;
        };
        return refuse(format!("item {} differs in its {part}", a.id));
    }
    Ok(())
}

impl Comparison {
    /// The verdict in plain words, with what it rests on.
    pub fn words(&self) -> String {
        let (first, second, n) = (&self.first, &self.second, self.items);
        let flips = format!("{} gained, {} lost of {n}", self.gained, self.lost);
        match self.verdict {
            Verdict::Better => format!(
                "{second} is better than {first} by {} (95 %: {} to {}; p {}; {flips})",
                Points(self.difference),
                Signed(self.intervals.bca.low),
                Signed(self.intervals.bca.high),
                PValue(self.mcnemar.p)
            ),
            Verdict::Worse => format!(
                "{second} is worse than {first} by {} (95 %: {} to {}; p {}; {flips})",
                Points(-self.difference),
                Signed(self.intervals.bca.low),
                Signed(self.intervals.bca.high),
                PValue(self.mcnemar.p)
            ),
            Verdict::NoDifferenceShown => format!(
                "no difference shown between {second} and {first} ({} points; p {}; {flips}): {n} items can show {} or more",
                Signed(self.difference),
                PValue(self.mcnemar.p),
                Points(self.detectable)
            ),
        }
    }

    /// The answer to "is the second at most the margin worse?" in plain words.
    pub fn non_inferiority_words(&self) -> String {
        let (first, second) = (&self.first, &self.second);
        let margin = Points(self.margin);
        let most = Points((-self.margin_interval.low).max(0.0));
        match self.non_inferiority {
            NonInferiority::NonInferior => {
                format!("{second} is not worse than {first} by {margin}: it loses {most} at most")
            }
            NonInferiority::Worse => {
                format!("{second} is worse than {first}, and may lose up to {most} (allowed: {margin})")
            }
            NonInferiority::TooFewQuestions => format!(
                "{} items are too few to tell whether {second} loses less than {margin} against {first}: it may lose up to {most}",
                self.items
            ),
        }
    }
}

/// A share as percentage points.
struct Points(f64);

impl fmt::Display for Points {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.1} points", 100.0 * self.0)
    }
}

/// A share as percentage points with its sign.
struct Signed(f64);

impl fmt::Display for Signed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounded = (1000.0 * self.0).round() / 10.0;
        // Zero has no sign.
        if rounded == 0.0 { formatter.write_str("0.0") } else { write!(formatter, "{rounded:+.1}") }
    }
}

/// `= 0.0312`, or `below 0.0001`.
struct PValue(f64);

impl fmt::Display for PValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0.0001 { formatter.write_str("below 0.0001") } else { write!(formatter, "= {:.4}", self.0) }
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
        assert_eq!((comparison.gained, comparison.lost, comparison.verdict), (40, 10, Verdict::Better));
        assert!((comparison.difference - 0.15).abs() < 1e-12 && (comparison.agreement - 0.75).abs() < 1e-12);
        assert_eq!(comparison.non_inferiority, NonInferiority::NonInferior);
        let words = comparison.words();
        assert!(words.starts_with("tuned is better than base by 15.0 points (95 %: +"), "{words}");
        assert!(words.contains("p below 0.0001; 40 gained, 10 lost of 200"), "{words}");
        let back = compare(&tuned, &base, &ComparisonOptions::default()).unwrap();
        assert_eq!((back.verdict, back.non_inferiority), (Verdict::Worse, NonInferiority::Worse));
        assert!(back.words().starts_with("base is worse than tuned by 15.0 points (95 %: -"), "{}", back.words());
        assert!((back.mcnemar.p - comparison.mcnemar.p).abs() < 1e-15);
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
                .starts_with("q8 is not worse than base by 1.0 points: it loses 0.1 points")
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
        assert!(refused(&|e| e.items[2].doc_hash = "x".into()).contains("item i2 differs in its question"));
        assert!(refused(&|e| e.items[2].prompt_hash = "x".into()).contains("item i2 differs in its prompt"));
        assert!(refused(&|e| e.items[2].target_hash = "x".into()).contains("right answer"));
        assert!(refused(&|e| e.items.truncate(4)).contains("5 and 4 items"));
        assert!(refused(&|e| e.task = "u".into()).contains("\"t\" and \"u\""));
        let none = evaluation("none", 0, 0, 0);
        assert!(compare(&none, &none, &ComparisonOptions::default()).is_err());
    }
}
