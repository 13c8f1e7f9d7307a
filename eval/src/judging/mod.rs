//! Models that judge the answers of models, with a proof of the judge beside every score.
//!
//! # MT-Bench
//! [`Question`]s of two turns ([`shipped_questions`], or any file of their form) are answered ([`answer`]) and each turn is rated
//! from 1 to 10 ([`rate`]), or the answers of two models are set side by side in both orders ([`compare_answers`]). [`run`] and
//! [`run_pairs`] do all of it and write answers and judgments in `FastChat`'s layout. Math, reasoning and coding are judged with a reference.
//! Judges with criteria and levels of one's own: [`Rubric`].
//!
//! # The proof of the judge
//! Before a judge says a word about a model, it rates planted good and bad answers to simple questions ([`calibrate`]): how many
//! pairs does it tell apart, how often can its answer not be read, how often does it change its mind when the two answers change
//! places? Then come its agreement with a second judge and the correlation of its scores with the length of answers. What falls
//! short of the [`Standard`] withholds the score, with the reasons ([`Proof::faults`]). A judgment that cannot be read is never a
//! score: it is left out and counted. No model judges itself unless it is told to.
//!
//! # A taxonomy's own questions
//! [`branch_questions`] makes them of the leaves that hold skills, as `InstructLab`'s MT-Bench-branch does; two branches, or two
//! models, are compared leaf by leaf with [`compare_ratings`].
//!
//! # What is promised
//! The same models, questions and settings give the same bytes. Every text is kept as it is written ([`Transcript`]): a run that
//! was interrupted asks only for what is missing.

mod answers;
mod branch;
mod calibration;
mod mt_bench;
mod pairs;
mod prompts;
mod proof;
mod questions;
mod rater;
mod rating;
mod rubric;
mod single;
mod transcript;
mod versus;

pub use answers::{Answers, answer, read_answers, write_answers};
pub use branch::{Asked, GroupChange, branch_questions, compare_ratings};
pub use calibration::{CalibrationItem, calibrate, shipped_items};
pub use mt_bench::{Judges, MtBench, MtBenchOptions, Scores, answers_file, run};
pub use pairs::{PairJudgment, Pairs, compare_answers, write_pairs};
pub use prompts::{JudgePrompt, JudgePrompts};
pub use proof::{Count, Proof, Standard};
pub use questions::{Question, read_questions, shipped_questions, spread};
pub use rater::Rater;
pub use rating::{Winner, read_rating, read_winner};
pub use rubric::{Criterion, Rubric, RubricItem, RubricJudge, RubricJudgment};
pub use single::{Judgment, rate, write_judgments};
pub use transcript::{OnText, Reply, Transcript, Writer};
pub use versus::{Answered, Versus, run_pairs};
