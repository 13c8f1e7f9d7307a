//! Evaluation: questions that a model answers, answers that are scored, and scores that are compared with honest error bars.
//!
//! # The path
//! 1. A [`Task`] is a list of [`Item`]s: a leaf's held-out test ([`Task::from_leaf`]). Items with choices are decided by
//!    log-likelihood, items without by a generated answer and a [`Checker`]. Public benchmarks are [`tasks`], in the YAML of
//!    lm-evaluation-harness.
//! 2. [`evaluate`] asks an engine, item by item, with a journal from which an interrupted run goes on. The result is an
//!    [`Evaluation`]: every item with its response, and the accuracy with its Wilson interval.
//! 3. [`results::write`] writes what lm-eval writes, so that its tools and readers work on our runs.
//! 4. [`mod@compare`] sets two evaluations of the same items side by side: paired test, paired interval, flips in both directions,
//!    and a verdict in plain words. Two evaluations of different items are refused.
//! 5. [`contamination`] looks training rows through for what is measured, and gives the scores without what it finds.
//!
//! # What is promised
//! The same engine on the same task gives the same bytes, whatever the order in which answers arrive and however often the run
//! was interrupted. Nothing here reads a clock; random draws have a fixed seed.

mod ask;
pub mod compare;
pub mod contamination;
mod echo;
mod error;
mod evaluation;
pub mod ifeval;
pub mod items;
mod journal;
pub mod judging;
pub mod perplexity;
pub mod results;
mod run;
pub mod scoring;
pub mod statistics;
mod task;
pub mod tasks;

pub use compare::{
    Comparison, ComparisonOptions, GroupComparison, NonInferiority, PairedTest, ScoreSheet, Verdict, adjust_family,
    compare, compare_group, compare_sheets, read_sheets,
};
pub use contamination::{Contamination, TestItems};
pub use error::EvalError;
pub use evaluation::{Evaluation, ItemResult};
pub use run::{Answerer, EvaluationOptions, ItemAnswer, OnAnswer, Progress, Verifier, evaluate, evaluate_with};
pub use scoring::{Checker, Normalization};
pub use task::{Generation, Item, ItemPrompt, Prompting, Task};
