//! MT-Bench from the first answer to the score, with the proof of its judge.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::answers::{answer, write_answers};
use super::calibration::CalibrationItem;
use super::proof::{Count, Proof, Standard};
use super::questions::Question;
use super::rater::Rater;
use super::single::{Judgment, write_judgments};
use super::transcript::{Transcript, Writer};
use crate::error::EvalError;
use crate::statistics::Interval;
use crate::statistics::agreement::{Level, krippendorff_alpha};
use crate::statistics::correlation::spearman;
use crate::statistics::mean::Mean;

/// Who judges.
#[derive(Clone, Copy)]
pub struct Judges<'a> {
    /// The judge, with its name.
    pub judge: (&'a str, &'a dyn Writer),
    /// A second one, whose agreement with the first is measured; it does not count for the score.
    pub second: Option<(&'a str, &'a dyn Writer)>,
}

/// How a model is judged.
#[derive(Clone, Copy)]
pub struct MtBenchOptions<'a> {
    /// What the model is called in the files.
    pub model: &'a str,
    /// What is asked.
    pub questions: &'a [Question],
    /// What the judge rates by.
    pub rater: &'a Rater,
    /// Planted answers for the proof.
    pub items: &'a [CalibrationItem],
    /// What the judge must be.
    pub standard: Standard,
    /// The longest answer in tokens.
    pub max_tokens: usize,
    /// The longest judgment in tokens.
    pub judgment_tokens: usize,
    /// Whether a model may judge itself.
    pub judge_itself: bool,
    /// Where answers, judgments and the texts of an interrupted run are kept.
    pub folder: &'a Path,
}

/// What a judge says about a model, and what is known about the judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MtBench {
    /// The model.
    pub model: String,
    /// The judge.
    pub judge: String,
    /// The second judge.
    pub second_judge: Option<String>,
    /// The scores; `None` where they are withheld.
    pub scores: Option<Scores>,
    /// Why the scores are withheld; empty where they are shown.
    pub withheld: Vec<String>,
    /// Turns without an answer.
    pub unanswered: usize,
    /// What is known about the judge.
    pub proof: Proof,
    /// Every judgment; the folder has them in a file of its own.
    #[serde(skip)]
    pub judgments: Vec<Judgment>,
}

/// Mean ratings from 1 to 10.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Mean of all judgments with a rating.
    pub mean: f64,
    /// Its 95 % interval, the turns of a question hanging together; `None` for a single question.
    pub interval: Option<Interval>,
    /// Questions with a rating.
    pub questions: usize,
    /// Mean of each turn.
    pub turns: BTreeMap<usize, f64>,
    /// Mean of each category, or of each leaf of a taxonomy.
    pub categories: BTreeMap<String, f64>,
}

/// Has a model answer and a judge rate, the judge proven first; writes `model_answer/MODEL.jsonl`,
/// `model_judgment/JUDGE_single.jsonl` and `mt_bench_MODEL.json` under the folder, which several models may share.
///
/// # Errors
/// When a model would judge itself unasked, when a writer fails, and when a file cannot be written. With
/// [`EvalError::Interrupted`] all that was written is kept: the same call goes on.
pub fn run(
    model: &dyn Writer,
    judges: &Judges<'_>,
    options: &MtBenchOptions<'_>,
    on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<MtBench, EvalError> {
    let (judge_name, judge) = judges.judge;
    refuse_oneself(model.identity(), judge.identity(), options.judge_itself)?;
    std::fs::create_dir_all(options.folder).map_err(EvalError::file(options.folder, "make the folder"))?;
    let open = |writer, name: &str| Transcript::open(writer, Some(&options.folder.join(name)));
    let mut of_judge = open(judge, "judge.journal")?;
    let mut proof = options.rater.calibrate(&mut of_judge, options.items, options.judgment_tokens, on_reply)?;
    let answers = answer(&mut open(model, "answers.journal")?, options.questions, options.max_tokens, on_reply)?;
    let mut rated = |judge: &mut Transcript<'_>| {
        options.rater.rate(judge, options.questions, &answers, options.judgment_tokens, on_reply)
    };
    let judgments = rated(&mut of_judge)?;
    if let Some((_, second)) = judges.second {
        let other = rated(&mut open(second, "second-judge.journal")?)?;
        proof.agreement = agreement(&judgments, &other);
    }
    proof.unread = Count { count: judgments.iter().filter(|found| found.score.is_none()).count(), of: judgments.len() };
    proof.length_correlation = length_correlation(&judgments);
    let mut withheld = proof.faults(&options.standard);
    let scores = Scores::new(options.questions, &judgments);
    if scores.is_none() {
        withheld.push("no judgment holds a rating".to_owned());
    }
    let turns: usize = options.questions.iter().map(|question| question.turns.len().min(2)).sum();
    let found = MtBench {
        model: options.model.to_owned(),
        judge: judge_name.to_owned(),
        second_judge: judges.second.map(|(name, _)| name.to_owned()),
        scores: scores.filter(|_| withheld.is_empty()),
        withheld,
        unanswered: turns - judgments.len(),
        proof,
        judgments,
    };
    write_answers(&answers_file(options.folder, options.model), options.model, &answers)?;
    let path = options.folder.join("model_judgment").join([&file_name(judge_name), "_single.jsonl"].concat());
    write_judgments(&path, options.model, judge_name, &found.judgments)?;
    super::answers::write_lines(
        &options.folder.join(["mt_bench_", &file_name(options.model), ".json"].concat()),
        std::iter::once(&found),
    )?;
    Ok(found)
}

pub(super) fn refuse_oneself(model: &str, judge: &str, allowed: bool) -> Result<(), EvalError> {
    if allowed || model != judge {
        return Ok(());
    }
    Err(EvalError::Task {
        task: "mt_bench".to_owned(),
        problem:
            "the judge is the model that is judged; models prefer their own answers: name another judge, or allow it \
                  expressly"
                .to_owned(),
    })
}

/// Where [`run`] writes the answers of a model.
pub fn answers_file(folder: &Path, model: &str) -> PathBuf {
    folder.join("model_answer").join([&file_name(model), ".jsonl"].concat())
}

/// A name of a model as a file name.
pub(super) fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '-' | '.' | '_') { c } else { '_' }).collect()
}

/// Over the turns that both rated.
fn agreement(first: &[Judgment], second: &[Judgment]) -> Option<f64> {
    let units: Vec<Vec<f64>> =
        first.iter().zip(second).map(|(a, b)| a.score.into_iter().chain(b.score).collect()).collect();
    krippendorff_alpha(&units, Level::Interval)
}

fn length_correlation(judgments: &[Judgment]) -> Option<f64> {
    /// Fewer scores say nothing about a correlation.
    const LEAST: usize = 20;
    let rated = judgments.iter().filter_map(|found| Some((found.score?, found.characters as f64)));
    let (scores, lengths): (Vec<f64>, Vec<f64>) = rated.unzip();
    if scores.len() < LEAST {
        return None;
    }
    spearman(&scores, &lengths).map(|found| found.coefficient)
}

impl Scores {
    /// The scores of judgments; `None` where none has a rating.
    pub fn new(questions: &[Question], judgments: &[Judgment]) -> Option<Self> {
        let mut by_question: BTreeMap<u128, Vec<f64>> = BTreeMap::new();
        let mut by_turn: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        let mut by_category: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let categories: BTreeMap<u128, &str> =
            questions.iter().map(|question| (question.question_id, question.group())).collect();
        for judgment in judgments {
            let Some(score) = judgment.score else { continue };
            by_question.entry(judgment.question_id).or_default().push(score);
            by_turn.entry(judgment.turn).or_default().push(score);
            if let Some(category) = categories.get(&judgment.question_id) {
                by_category.entry((*category).to_owned()).or_default().push(score);
            }
        }
        if by_question.is_empty() {
            return None;
        }
        let mean = |scores: &Vec<f64>| scores.iter().sum::<f64>() / scores.len() as f64;
        let of_clusters = by_question.values().enumerate();
        let (all, clusters): (Vec<f64>, Vec<usize>) =
            of_clusters.flat_map(|(cluster, scores)| scores.iter().map(move |score| (*score, cluster))).unzip();
        let clustered = Mean::clustered(&all, &clusters);
        let interval = (by_question.len() > 1).then(|| clustered.interval(0.95));
        Some(Self {
            mean: mean(&all),
            interval: interval.map(|found| Interval { low: found.low.max(1.0), high: found.high.min(10.0) }),
            questions: by_question.len(),
            turns: by_turn.iter().map(|(turn, scores)| (*turn, mean(scores))).collect(),
            categories: by_category.iter().map(|(category, scores)| (category.clone(), mean(scores))).collect(),
        })
    }
}
