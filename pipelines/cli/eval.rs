//! Evaluation: scores, and what sets them apart.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// A model on tests.
#[derive(Debug, Args)]
pub struct EvalArguments {
    /// The model, or the URL of a server that repeats texts with log-probabilities (vLLM, `pipeline serve`).
    #[arg(long, value_name = "MODEL|URL")]
    pub model: String,
    /// Adapter, applied without a merge.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Another model to compare with on the same items; may be repeated.
    #[arg(long, value_name = "MODEL|URL")]
    pub compare: Vec<String>,
    /// Names of tasks (see `pipeline eval list`), .yaml files of lm-evaluation-harness, or a skills tree whose held-out tests are the
    /// tasks.
    #[arg(long, value_name = "NAME|FILE|DIR", value_delimiter = ',', required = true)]
    pub tasks: Vec<String>,
    /// Folder for results and samples; replies are kept in it, so that another run asks only what is new.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Only the first items of each task; below 1 a share of them.
    #[arg(long, value_name = "N", value_parser = limit)]
    pub limit: Option<f64>,
    /// Only these items of each task, counted from 0.
    #[arg(long, value_name = "N", value_delimiter = ',', conflicts_with = "limit")]
    pub samples: Vec<usize>,
    /// Solved examples shown before each question, in place of what the task says.
    #[arg(long, value_name = "N")]
    pub num_fewshot: Option<usize>,
    /// Put questions of tasks as conversation, through the model's chat template (a skills tree always is).
    #[arg(long)]
    pub apply_chat_template: bool,
    /// With the chat template: examples and question in one turn, rather than a turn each.
    #[arg(long, requires = "apply_chat_template")]
    pub fewshot_as_one_turn: bool,
    /// What the prompt begins with.
    #[arg(long, value_name = "TEXT")]
    pub system_instruction: Option<String>,
    /// Folder of benchmark files, in place of what is built in: jsonl, json, csv (also as .gz or .bz2) or parquet, found by the
    /// names of data set and split.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Rows that were trained on, of any form that `train` reads: items that stand in them are listed, and the scores are given
    /// without them too; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub train_data: Vec<PathBuf>,
    /// A model that makes vectors of texts: rows that ask what an item asks, in other words, are listed too.
    #[arg(long, value_name = "MODEL", requires = "train_data")]
    pub embedder: Option<String>,
    /// From which cosine of its vectors two questions ask the same [default: 0.95 of a model that was made for vectors].
    #[arg(long, value_name = "COSINE", requires = "embedder", value_parser = super::clean::cosine)]
    pub same_meaning: Option<f32>,
}

/// Who judges answers, and how.
#[derive(Debug, Args)]
pub struct JudgeArguments {
    /// A model, or the URL of its server, that rates the answers to MT-Bench or to the questions of a skills tree.
    #[arg(long, value_name = "MODEL|URL")]
    pub judge: Option<String>,
    /// A second judge, whose agreement with the first is measured.
    #[arg(long, value_name = "MODEL|URL", requires = "judge")]
    pub second_judge: Option<String>,
    /// What judges are told in place of our own words: a file in the form that MT-Bench came with.
    #[arg(long, value_name = "FILE", requires = "judge")]
    pub judge_prompts: Option<PathBuf>,
    /// Rate by the criteria and levels of this file, each from the probabilities of its levels, in place of prompts.
    #[arg(long, value_name = "FILE", requires = "judge", conflicts_with = "judge_prompts")]
    pub rubric: Option<PathBuf>,
    /// Of a skills tree ask the seeds, as MT-Bench-branch does, in place of the held-out tests.
    #[arg(long, requires = "judge")]
    pub judge_seeds: bool,
    /// Let a model judge its own answers.
    #[arg(long, requires = "judge")]
    pub judge_itself: bool,
}

/// How many items: a number from 1 on, or a share below 1.
fn limit(text: &str) -> Result<f64, String> {
    let limit: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let sound = limit > 0.0 && (limit < 1.0 || limit.fract().abs() < f64::EPSILON);
    if sound { Ok(limit) } else { Err("expected a whole number of items from 1 on, or a share below 1".to_owned()) }
}

/// What is done beside scoring.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Compare the scores of two models item by item: differences with intervals and p-values, flips both ways, what was lost.
    #[command(
        after_help = "Examples:\n  pipeline eval compare scores/base/ scores/tuned/\n  pipeline eval compare eval/results_tuned.json eval/results_Q4_K_M.json --require non-inferior"
    )]
    Compare(EvalCompareArguments),
    /// The tasks that come with the program: their size, metrics and licence, and whether their data is built in.
    #[command(after_help = "Example:\n  pipeline eval list")]
    List,
}

/// Two models whose scores are compared.
#[derive(Debug, Args)]
pub struct EvalCompareArguments {
    /// Scores that are measured against: a folder of `eval --out` or of lm-eval with its samples, or one `results_*.json`.
    #[arg(value_name = "FIRST")]
    pub first: PathBuf,
    /// Scores of the same tasks, prompts and items.
    #[arg(value_name = "SECOND")]
    pub second: PathBuf,
    /// What is compared, with the filter of the answers where there are several: `acc_norm`, `exact_match,strict-match`; `acc`
    /// where there is one, else the first of each task.
    #[arg(long, value_name = "METRIC")]
    pub metric: Option<String>,
    /// How much the second may lose and count as not worse (0.01 is one point); one point otherwise, or what the items can show
    /// where that is more.
    #[arg(long, value_name = "SHARE")]
    pub margin: Option<f64>,
    /// Exit code 3 where this is not shown on every task.
    #[arg(long, value_name = "VERDICT")]
    pub require: Option<Requirement>,
}

/// What must be shown of the second model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Requirement {
    /// It loses less than the margin.
    NonInferior,
    /// It is better beyond chance.
    Better,
}
