//! Models to scores: base, tuned and quantized answer the same held-out questions, and the differences are tested.

use super::contaminated::{self, OtherWords};
use super::generate::read_checked_tree;
use super::quantize::Made;
use super::require::Requirement;
use super::{StageContext, StageOutcome, quantize, require};
use crate::content::{hash_bytes, write_atomically};
use crate::models::ResolvedModel;
use crate::outcome::{Failure, Interrupted};
use anyhow::{Context, Result};
use espalier_eval::contamination::CleanScore;
use espalier_eval::items::{item_rows, write_items};
use espalier_eval::results::{self, RunDescription};
use espalier_eval::statistics::power::USUAL_CHANGED;
use espalier_eval::{
    Checker, Comparison, ComparisonOptions, Contamination, EvalError, Evaluation, EvaluationOptions, Generation,
    Prompting, Task, adjust_family, compare, evaluate,
};
use espalier_inference::{Engine, EngineOptions, NativeEngine};
use espalier_model::{LoraAdapter, Model};
use espalier_sdg::Verifier;
use espalier_taxonomy::{Leaf, TestItem};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Raised when the scores that a model gets would come out otherwise.
pub const VERSION: u32 = 4;

/// Configuration of `evaluate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateStage {
    /// Which models: `base`, `tuned`, `quantized`.
    #[serde(default = "default_compare")]
    pub compare: Vec<Side>,
    /// Seed examples for the base's few-shot score; 0 leaves it out.
    #[serde(default = "default_shots")]
    pub shots: usize,
    /// Only the first items of each test.
    #[serde(default)]
    pub limit: Option<usize>,
    /// How much (0.01 is one point) a quantized file may lose and count as not worse; one point otherwise, or what the items can
    /// show where that is more.
    #[serde(default)]
    pub margin: Option<f64>,
    /// Longest answer in tokens.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
    /// What must be shown before the run goes on: `tuned > base on LEAF`, `quantized non-inferior to tuned`; exit code 3 otherwise.
    #[serde(default)]
    pub require: Vec<Requirement>,
    /// A model that makes vectors of texts: rows that ask what an item asks in other words are found too.
    #[serde(default)]
    pub embedder: Option<String>,
    /// Cosine of these vectors from which on two questions ask the same.
    #[serde(default)]
    pub same_meaning: Option<f32>,
}

/// A kind of model in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The student as it was.
    Base,
    /// The student with its adapter.
    Tuned,
    /// Each quantized file.
    Quantized,
}

fn default_compare() -> Vec<Side> {
    vec![Side::Base, Side::Tuned, Side::Quantized]
}
fn default_shots() -> usize {
    4
}
fn default_max_tokens() -> usize {
    32
}

impl Side {
    /// Its name in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Tuned => "tuned",
            Self::Quantized => "quantized",
        }
    }
}

/// One model that is scored.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Name in results and report.
    pub label: String,
    /// File of results: no spaces.
    pub stem: String,
    /// Which kind.
    pub side: Side,
    /// Model file.
    pub path: PathBuf,
    /// Adapter, applied without a merge.
    pub adapter: Option<PathBuf>,
    /// Seed examples before each question.
    pub shots: usize,
}

/// What is evaluated.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// Skills tree with held-out tests.
    pub taxonomy: &'a Path,
    /// The student.
    pub student: &'a ResolvedModel,
    /// Its adapter.
    pub adapter: Option<PathBuf>,
    /// Folder with `quantize.json` and its files.
    pub quantized: Option<PathBuf>,
    /// What was trained on: files of rows that are held against the tests.
    pub rows: Vec<PathBuf>,
    /// What finds questions in other words.
    pub embedder: Option<&'a ResolvedModel>,
}

/// The scores of a run, for the report.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Scores {
    /// One entry a held-out test.
    pub tasks: Vec<TaskScores>,
    /// What the rows of the run and its tests have in common.
    #[serde(default)]
    pub contamination: Contamination,
    /// Requirements that are not shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
}

/// One held-out test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskScores {
    /// The leaf.
    pub leaf: String,
    /// What counts as right.
    pub metric: String,
    /// Number of items.
    pub items: usize,
    /// The smallest difference that so many items can show.
    pub detectable: f64,
    /// One line a model, the zero-shot base first.
    pub scores: Vec<ModelScore>,
}

/// One model on one test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelScore {
    /// Name.
    pub label: String,
    /// Kind.
    pub side: Side,
    /// Seed examples before each question.
    pub shots: usize,
    /// File that was scored, when it is a quantized one.
    pub file: Option<String>,
    /// Share of right answers.
    pub accuracy: f64,
    /// Lower end of its Wilson interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The score without the items that stand in training rows, where there are any.
    pub clean: Option<CleanScore>,
    /// Against the model that this one is measured by: the base for the tuned one, the tuned one for quantized files.
    pub comparison: Option<Comparison>,
}

/// Scores every candidate on every test, item by item resumable in `work`, and writes results to `out`.
pub fn run(
    config: &EvaluateStage,
    inputs: &Inputs<'_>,
    work: &Path,
    out: &Path,
    context: &StageContext<'_>,
) -> Result<StageOutcome> {
    let tree = read_checked_tree(inputs.taxonomy)?;
    let leaves: Vec<&Leaf> = tree.leaves.iter().filter(|leaf| !leaf.test.is_empty()).collect();
    if leaves.is_empty() {
        return Err(Failure::usage("no leaf of this tree has a held-out test: there is nothing to evaluate")
            .hint("add `test: test.jsonl` with {question, answer} lines to a leaf of the form `espalier: 1`")
            .into());
    }
    let candidates = candidates(config, inputs)?;
    let engine = context.engine_options();
    let load = |model| OtherWords::load(model, &engine, config.same_meaning, context.stop);
    let mut other_words = inputs.embedder.map(load).transpose()?;
    std::fs::create_dir_all(work).with_context(|| format!("cannot create {}", work.display()))?;
    let mut evaluations: Vec<Vec<Evaluation>> = Vec::new();
    for candidate in &candidates {
        evaluations.push(score(config, candidate, &leaves, &engine, Places { work, out }, context)?);
    }
    let options = ComparisonOptions { margin: config.margin, ..ComparisonOptions::default() };
    let first = evaluations.first().into_iter().flatten();
    let contamination = contaminated::find(&inputs.rows, first, contaminated::OF_ONE_TREE, other_words.as_mut())?;
    if let Some(message) = other_words.and_then(|other_words| other_words.embedder.warning()) {
        context.warn(message);
    }
    if !contamination.found.is_empty() {
        context.warn(contamination.words());
    }
    let names: Vec<&str> = leaves.iter().map(|leaf| leaf.id.as_str()).collect();
    let run = require::Evaluated { candidates: &candidates, leaves: &names, evaluations: &evaluations };
    let refused = require::missing(&config.require, run, &options)?;
    let scores = Scores { refused, ..compare_all(&candidates, &leaves, &evaluations, contamination, &options)? };
    write_atomically(&out.join("comparisons.json"), serde_json::to_string_pretty(&scores)?.as_bytes())?;
    write_items(&out.join("items.parquet"), &item_rows(evaluations.iter().flatten()))?;
    let refused = (!scores.refused.is_empty()).then(|| scores.refused.join("\n"));
    Ok(StageOutcome { summary: summary(&scores), refused })
}

/// The models of a run, in the order of the report.
fn candidates(config: &EvaluateStage, inputs: &Inputs<'_>) -> Result<Vec<Candidate>> {
    let base = |label: &str, stem: &str, side, adapter: Option<PathBuf>, shots| Candidate {
        label: label.into(),
        stem: stem.into(),
        side,
        path: inputs.student.path.clone(),
        adapter,
        shots,
    };
    let mut found = Vec::new();
    for side in &config.compare {
        match side {
            Side::Base => {
                found.push(base("base", "base", Side::Base, None, 0));
                if config.shots > 0 {
                    found.push(base(
                        &format!("base, {} {}", config.shots, if config.shots == 1 { "shot" } else { "shots" }),
                        "base_few_shot",
                        Side::Base,
                        None,
                        config.shots,
                    ));
                }
            }
            Side::Tuned => {
                let adapter = inputs.adapter.clone().ok_or_else(|| {
                    Failure::usage("`tuned` is to be compared, but no stage before trains").hint("add `needs: [train]`")
                })?;
                found.push(base("tuned", "tuned", Side::Tuned, Some(adapter), 0));
            }
            Side::Quantized => {
                let folder = inputs.quantized.as_ref().ok_or_else(|| {
                    Failure::usage("`quantized` is to be compared, but no stage before quantizes")
                        .hint("add `needs: [quantize]`")
                })?;
                let text =
                    std::fs::read_to_string(folder.join("quantize.json")).context("cannot read quantize.json")?;
                let made: Made = serde_json::from_str(&text).context("quantize.json is damaged")?;
                found.extend(made.files.into_iter().map(|file| Candidate {
                    label: format!("tuned, {}", file.file_type),
                    stem: file.file_type.clone(),
                    side: Side::Quantized,
                    path: folder.join(quantize::file_name(&file.file_type)),
                    adapter: None,
                    shots: 0,
                }));
            }
        }
    }
    Ok(found)
}

/// Where a candidate's answers are kept and its results go.
#[derive(Clone, Copy)]
struct Places<'a> {
    work: &'a Path,
    out: &'a Path,
}

fn score(
    config: &EvaluateStage,
    candidate: &Candidate,
    leaves: &[&Leaf],
    options: &EngineOptions,
    places: Places<'_>,
    context: &StageContext<'_>,
) -> Result<Vec<Evaluation>> {
    context.check_stop()?;
    let model = Model::open(&candidate.path)?;
    let adapter = candidate.adapter.as_ref().map(|path| LoraAdapter::load(path, model.config())).transpose()?;
    let engine = NativeEngine::load(&model, adapter.as_ref(), options)?;
    let chat_template = engine.chat_template().source().to_owned();
    let engine = Engine::Native(engine);
    let mut evaluations = Vec::new();
    for leaf in leaves {
        evaluations.push(evaluate_leaf(config, &engine, candidate, leaf, places.work, context)?);
    }
    let run = RunDescription {
        model: candidate.label.clone(),
        model_args: engine.identity().to_owned(),
        chat_template: Some(chat_template),
    };
    results::write(places.out, &candidate.stem, &run, &evaluations, results::Earlier::Replaced)?;
    Ok(evaluations)
}

/// One engine on the held-out test of one leaf. The leaf's own `verify` says what is right, as it did in generation; without one
/// an answer must equal the test's.
pub fn evaluate_leaf(
    config: &EvaluateStage,
    engine: &Engine,
    candidate: &Candidate,
    leaf: &Leaf,
    work: &Path,
    context: &StageContext<'_>,
) -> Result<Evaluation> {
    let verifier = Verifier::new(leaf)?;
    let checker = if verifier.is_some() { Checker::Verify } else { Checker::default() };
    let generation = Generation { max_tokens: config.max_tokens, stop: Vec::new(), checker };
    let mut task = Task::from_leaf(leaf, candidate.shots, Prompting::Chat, generation)?;
    if let Some(limit) = config.limit {
        task = task.limited(limit);
    }
    // Answers depend on nothing else of the stage: they are kept when what is made of them changes.
    let EvaluateStage { limit, max_tokens, .. } = config;
    let key = format!("{VERSION}\n{}\n{}\n{limit:?}\n{max_tokens}\n{}", leaf.id, leaf.hash, candidate.shots);
    let journal = work.join(format!("{}.jsonl", &hash_bytes(format!("{key}\n{}", engine.identity()).as_bytes())[..24]));
    let broken = RefCell::new(None);
    let verify = |item: &TestItem, response: &str| match verifier.check_test(leaf, item, response) {
        Ok(outcome) => outcome.passed,
        Err(error) => {
            broken.borrow_mut().get_or_insert(error);
            false
        }
    };
    let options = EvaluationOptions { model: &candidate.label, journal: Some(&journal), verify: Some(&verify) };
    let part = format!("{} {}", candidate.label, leaf.id);
    let result = evaluate(engine, &task, &options, &mut |progress| {
        let detail = format!("{} right", progress.correct);
        context.progress(&part, progress.done as u64, progress.total as u64, "items", detail);
        if context.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if let Some(error) = broken.into_inner() {
        // What was scored with a check that fails must not be gone on from.
        let _ = std::fs::remove_file(&journal);
        return Err(Failure::usage(error.to_string()).into());
    }
    match result {
        Err(EvalError::Interrupted { .. }) => Err(Interrupted.into()),
        result => Ok(result?),
    }
}

fn compare_all(
    candidates: &[Candidate],
    leaves: &[&Leaf],
    all: &[Vec<Evaluation>],
    contamination: Contamination,
    options: &ComparisonOptions,
) -> Result<Scores> {
    let find = |side: Side| candidates.iter().position(|candidate| candidate.side == side && candidate.shots == 0);
    let mut tasks = Vec::new();
    for (task, leaf) in leaves.iter().enumerate() {
        let mut scores = Vec::new();
        let items = all.first().map_or(0, |evaluations| evaluations[task].items.len());
        let detectable = espalier_eval::statistics::power::detectable(items, USUAL_CHANGED);
        for (index, candidate) in candidates.iter().enumerate() {
            let evaluation = &all[index][task];
            let against = match candidate.side {
                Side::Base => None,
                Side::Tuned => find(Side::Base),
                Side::Quantized => find(Side::Tuned).or(find(Side::Base)),
            };
            let comparison = against.map(|other| compare(&all[other][task], evaluation, options)).transpose()?;
            scores.push(ModelScore {
                label: candidate.label.clone(),
                side: candidate.side,
                shots: candidate.shots,
                file: (candidate.side == Side::Quantized).then(|| quantize::file_name(&candidate.stem)),
                accuracy: evaluation.accuracy,
                low: evaluation.wilson.low,
                high: evaluation.wilson.high,
                clean: (!contamination.of_task(&evaluation.task).is_empty()).then(|| contamination.clean(evaluation)),
                comparison,
            });
        }
        let metric = all.first().map_or_else(String::new, |evaluations| evaluations[task].metric.clone());
        tasks.push(TaskScores { leaf: leaf.id.clone(), metric, items, detectable, scores });
    }
    // What training gained is claimed on every leaf at once, and so is what each file changed.
    for side in [Side::Tuned, Side::Quantized] {
        let scores = tasks.iter_mut().flat_map(|task: &mut TaskScores| &mut task.scores);
        let family = scores.filter(|score| score.side == side).filter_map(|score| score.comparison.as_mut());
        adjust_family(family, options.alpha);
    }
    Ok(Scores { tasks, contamination, refused: Vec::new() })
}

/// The finding on each test in one line.
fn summary(scores: &Scores) -> String {
    let lines: Vec<String> = scores
        .tasks
        .iter()
        .map(|task| {
            let parts: Vec<String> =
                task.scores.iter().map(|score| format!("{} {:.1} %", score.label, score.accuracy * 100.0)).collect();
            format!("{}: {}", task.leaf, parts.join(", "))
        })
        .collect();
    let mut words = lines.join("; ");
    if !scores.contamination.found.is_empty() {
        words += &format!("; {}", scores.contamination.words());
    }
    words
}
