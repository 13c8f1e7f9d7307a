//! Evaluation: scores, and what sets them apart.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// A model on tests.
#[derive(Debug, Args)]
pub struct EvalArguments {
    /// The model.
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// Adapter, applied without a merge.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Another model to compare with on the same items; may be repeated.
    #[arg(long, value_name = "MODEL")]
    pub compare: Vec<String>,
    /// Skills tree whose held-out tests are the tasks.
    #[arg(long, value_name = "PATH")]
    pub tasks: PathBuf,
    /// Folder for results and samples.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Only the first items of each test.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Seed examples shown before each question.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub num_fewshot: usize,
}

/// What is done with scores that are there.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Compare the scores of two models item by item: differences with intervals and p-values, flips both ways, what was lost.
    #[command(
        after_help = "Examples:\n  pipeline eval compare scores/base/ scores/tuned/\n  pipeline eval compare eval/results_tuned.json eval/results_Q4_K_M.json --require non-inferior"
    )]
    Compare(EvalCompareArguments),
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
