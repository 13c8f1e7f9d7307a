//! What a file must keep of the model's answers: held-out questions, put as evaluation puts them.

use super::gate::Source;
use crate::outcome::Failure;
use crate::stages::StageContext;
use crate::stages::evaluate::{Candidate, EvaluateStage, Side, evaluate_leaf};
use crate::stages::generate::read_checked_tree;
use anyhow::{Context, Result};
use espalier_eval::statistics::equivalence::Paired;
use espalier_eval::statistics::power::usual_margin;
use espalier_eval::{
    Comparison, ComparisonOptions, Evaluation, NonInferiority, ScoreSheet, Verdict, adjust_family, compare,
    compare_sheets,
};
use espalier_inference::{Engine, NativeEngine};
use espalier_taxonomy::{Leaf, Tree};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the model is called beside its files.
const UNQUANTIZED: &str = "the unquantized model";

/// Questions that a file must answer as well as the model.
#[derive(Debug, Clone)]
pub struct Questions {
    /// Skills tree with held-out tests.
    pub taxonomy: PathBuf,
    /// How they are asked.
    pub asked: EvaluateStage,
    /// Where answers are kept. A stage that asks the same questions there finds them answered.
    pub work: PathBuf,
}

/// The leaves of a tree that have held-out questions, each with how many of them are asked.
pub fn tested<'a>(tree: &'a Tree, asked: &EvaluateStage) -> Vec<(&'a Leaf, usize)> {
    let count = |leaf: &Leaf| leaf.test.len().min(asked.limit.unwrap_or(usize::MAX));
    tree.leaves.iter().map(|leaf| (leaf, count(leaf))).filter(|(_, count)| *count > 0).collect()
}

/// The margin of so many questions, and how many it takes to rule out a loss as large where no answer changes: so many or more.
/// None where no number is enough.
pub fn least_questions(count: usize, asked: &EvaluateStage) -> (f64, Option<usize>) {
    let unchanged = Paired { items: count, gained: 0, lost: 0 };
    let needed = unchanged.items_that_tell(options(asked).alpha, asked.margin);
    (asked.margin.unwrap_or_else(|| usual_margin(count)), needed)
}

fn options(asked: &EvaluateStage) -> ComparisonOptions {
    ComparisonOptions { margin: asked.margin, ..ComparisonOptions::default() }
}

/// What a file answers beside the model that it was made of, all questions of the tree being one test. Shares are fractions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// Number of questions.
    pub questions: usize,
    /// Share that the model answers right.
    pub unquantized: f64,
    /// Share that the file answers right.
    pub quantized: f64,
    /// What it may lose.
    pub margin: f64,
    /// A larger loss is ruled out.
    pub loses_at_most: f64,
    /// Whether it loses less than it may.
    pub verdict: NonInferiority,
    /// Questions that only the file answers right.
    pub gained: Vec<String>,
    /// Questions that only the model answers right.
    pub lost: Vec<String>,
    /// The same leaf by leaf.
    pub leaves: Vec<LeafAnswers>,
}

/// What a file answers on one leaf.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeafAnswers {
    /// The leaf.
    pub leaf: String,
    /// Number of questions.
    pub questions: usize,
    /// Share that the model answers right.
    pub unquantized: f64,
    /// Share that the file answers right.
    pub quantized: f64,
}

impl Answers {
    fn new(all: Comparison, leaves: Vec<LeafAnswers>) -> Self {
        Self {
            questions: all.items,
            unquantized: all.score_first,
            quantized: all.score_second,
            margin: all.margin,
            loses_at_most: (-all.margin_interval.low).max(0.0),
            verdict: all.non_inferiority,
            gained: all.gained,
            lost: all.lost,
            leaves,
        }
    }

    /// The finding in words.
    pub fn words(&self) -> String {
        format!(
            "loses {:.1} points at most on {} questions, {:.1} are allowed",
            100.0 * self.loses_at_most,
            self.questions,
            100.0 * self.margin
        )
    }
}

/// The questions with the model's own answers.
pub(super) struct Exam<'a> {
    questions: &'a Questions,
    leaves: Vec<Leaf>,
    answered: Vec<Evaluation>,
}

impl<'a> Exam<'a> {
    /// Asks the model itself. Refused where its answers cannot show what a file loses.
    pub(super) fn begin(questions: &'a Questions, source: &Source<'_>) -> Result<Self> {
        let tree = read_checked_tree(&questions.taxonomy)?;
        std::fs::create_dir_all(&questions.work)
            .with_context(|| format!("cannot create {}", questions.work.display()))?;
        let leaves: Vec<Leaf> = tree.leaves.into_iter().filter(|leaf| !leaf.test.is_empty()).collect();
        let side = if source.adapter.is_some() { Side::Tuned } else { Side::Base };
        let mut exam = Self { questions, leaves, answered: Vec::new() };
        exam.answered = exam.answers(UNQUANTIZED, side, &Engine::Native(source.engine()?), source.context)?;
        exam.check_score()?;
        Ok(exam)
    }

    /// A model that has no more right than a file may lose says nothing about its files: none could fail.
    fn check_score(&self) -> Result<()> {
        let all = together(&self.answered);
        let count = all.items.len();
        let right = all.items.iter().filter(|item| item.score > 0.0).count();
        let margin = least_questions(count, &self.questions.asked).0;
        if right as f64 > margin * count as f64 {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "{UNQUANTIZED} has {right} of {count} held-out questions right, and a file may lose {:.1} points: even one that \
             answers nothing would be accepted",
            100.0 * margin
        ))
        .hint("ask what the model was taught, ask more questions, or accept by `kld`, which needs no right answers")
        .into())
    }

    /// Asks a file the same; with what it is refused for, if it is.
    pub(super) fn ask(
        &self,
        label: &str,
        file: NativeEngine,
        context: &StageContext<'_>,
    ) -> Result<(Answers, Option<String>)> {
        let options = options(&self.questions.asked);
        let answered = self.answers(label, Side::Quantized, &Engine::Native(file), context)?;
        let all = compare_sheets(&together(&self.answered), &together(&answered), &options)?;
        let pairs = self.answered.iter().zip(&answered);
        let mut leaves = pairs.map(|(model, file)| Ok(compare(model, file, &options)?)).collect::<Result<Vec<_>>>()?;
        adjust_family(&mut leaves, options.alpha);
        let refused = refusal(&all, leaves.iter().zip(&self.leaves), &options);
        let of_leaf = |(leaf, found): (&Leaf, &Comparison)| LeafAnswers {
            leaf: leaf.id.clone(),
            questions: found.items,
            unquantized: found.score_first,
            quantized: found.score_second,
        };
        let leaves = self.leaves.iter().zip(&leaves).map(of_leaf).collect();
        Ok((Answers::new(all, leaves), refused))
    }

    fn answers(&self, label: &str, side: Side, engine: &Engine, context: &StageContext<'_>) -> Result<Vec<Evaluation>> {
        let candidate =
            Candidate { label: label.into(), stem: label.into(), side, path: PathBuf::new(), adapter: None, shots: 0 };
        let Questions { asked, work, .. } = self.questions;
        let ask = |leaf| evaluate_leaf(asked, engine, &candidate, leaf, work, context);
        self.leaves.iter().map(ask).collect()
    }
}

/// The questions of all leaves as one test.
fn together(evaluations: &[Evaluation]) -> ScoreSheet {
    let mut sheets = evaluations.iter().map(ScoreSheet::from);
    let mut all = sheets.next().unwrap_or_default();
    all.items.extend(sheets.flat_map(|sheet| sheet.items));
    ScoreSheet { task: "held-out questions".into(), ..all }
}

/// Why a file is refused: it is not shown to lose less than the margin in all, or it is shown to be worse on a leaf.
fn refusal<'a>(
    all: &Comparison,
    mut leaves: impl Iterator<Item = (&'a Comparison, &'a Leaf)>,
    options: &ComparisonOptions,
) -> Option<String> {
    let words = all.non_inferiority_words();
    match all.non_inferiority {
        NonInferiority::NonInferior => {
            let (worse, leaf) = leaves.find(|(found, _)| found.verdict == Verdict::Worse)?;
            Some(format!("on {} {}", leaf.id, worse.words()))
        }
        NonInferiority::Worse => Some(format!("on {} held-out questions {words}", all.items)),
        NonInferiority::TooFewQuestions => {
            let counts = Paired { items: all.items, gained: all.gained.len(), lost: all.lost.len() };
            let needed = counts.items_that_tell(options.alpha, options.margin).filter(|_| all.clusters.is_none());
            let needed =
                needed.map(|needed| format!("; {needed} would tell, if as large a part of the answers changes"));
            Some(format!("held-out questions: {words}{}", needed.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_eval::compare::ScoredItem;

    fn sheet(model: &str, right: impl Fn(usize) -> bool, count: usize) -> ScoreSheet {
        let items = (0..count).map(|index| ScoredItem {
            id: index.to_string(),
            score: f64::from(u8::from(right(index))),
            ..ScoredItem::default()
        });
        ScoreSheet { task: "t".into(), model: model.into(), items: items.collect(), ..ScoreSheet::default() }
    }

    /// Of `count` questions the model answers all, the file none below `lost`.
    fn compared(count: usize, lost: usize) -> Comparison {
        let sheets = (sheet(UNQUANTIZED, |_| true, count), sheet("Q4_0", |index| index >= lost, count));
        compare_sheets(&sheets.0, &sheets.1, &ComparisonOptions::default()).expect("alike")
    }

    #[test]
    fn a_file_is_refused_in_words_that_name_what_would_tell() {
        let options = ComparisonOptions::default();
        let refused = |all: &Comparison| refusal(all, [].into_iter(), &options);
        assert_eq!(refused(&compared(300, 0)), None);
        assert_eq!(refused(&compared(300, 2)), None);
        let worse = refused(&compared(300, 100)).expect("a third is lost");
        assert!(
            worse.starts_with("on 300 held-out questions Q4_0 is worse than the unquantized model, and may lose"),
            "{worse}"
        );
        let few = refused(&compared(20, 1)).expect("20 questions show nothing");
        assert!(few.starts_with("held-out questions: 20 items are too few to tell whether Q4_0 loses less"), "{few}");
        let needed = few.split("; ").nth(1).and_then(|words| words.split(' ').next()).expect("a number");
        let needed: usize = needed.parse().expect("a number");
        assert!(needed > 20 && needed < 100, "{few}");
        assert_eq!(refused(&compared(needed, needed / 20)), None, "{few}");
    }

    #[test]
    fn a_leaf_that_is_ruined_is_not_hidden_by_the_others() {
        let options = ComparisonOptions::default();
        let (all, leaf) = (compared(2000, 12), Leaf { id: "skills/small".into(), ..Leaf::default() });
        assert_eq!(all.non_inferiority, NonInferiority::NonInferior);
        let mut leaves = [compared(1988, 0), compared(12, 12)];
        adjust_family(&mut leaves, options.alpha);
        let found = refusal(&all, leaves.iter().zip([&Leaf::default(), &leaf]), &options).expect("a leaf is lost");
        assert!(
            found.starts_with("on skills/small Q4_0 is worse than the unquantized model by 100.0 points"),
            "{found}"
        );
    }

    #[test]
    fn few_questions_are_known_before_any_is_asked() {
        let asked: EvaluateStage = serde_json::from_str("{}").expect("defaults");
        let (margin, needed) = least_questions(4, &asked);
        assert!((margin - 0.01).abs() < 1e-12 && needed.is_some_and(|needed| (20..40).contains(&needed)), "{needed:?}");
        assert_eq!(least_questions(300, &asked).1, Some(300));
        let strict = EvaluateStage { margin: Some(0.01), ..asked };
        assert_eq!(least_questions(100, &strict), (0.01, Some(268)));
    }
}
