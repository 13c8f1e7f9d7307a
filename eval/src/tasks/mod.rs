//! Tasks as lm-evaluation-harness writes them: YAML files that say where documents are, how they are asked, and what answers are
//! worth. They run here without Python, with the same prompts, the same examples and the same numbers.
//!
//! [`Selection::read`] finds tasks by name or file, [`evaluate_tasks`] asks a model, and [`crate::results::write_tasks`] writes what
//! lm-eval writes. Data comes from files; nothing is loaded from a network.
//!
//! What a file may hold is lm-eval's, but for programs in Python: templates are Jinja with Python's methods, and of the functions
//! that its own tasks name (`!function`) those of `HellaSwag`, `WinoGrande`, COPA, `TruthfulQA` and `WikiText` stand here in Rust. A key that
//! is not known, a function that is not carried, code to be run: refused with file, line and column.

mod aggregate;
mod bbh;
mod build;
mod config;
mod data;
mod filter;
mod function;
mod listing;
mod metric;
mod python;
pub(crate) mod random;
mod score;
mod selection;
mod shape;
mod shipped;
mod source;
mod table;
mod template;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use espalier_dataset::KeyedJournal;
use espalier_inference::Engine;

pub use build::TaskOptions;
pub use listing::{Listed, list};
pub use score::{GroupScores, Score, TaskScores};
pub use selection::Selection;

pub(crate) use metric::Worth;
pub(crate) use score::{Sample, sample_json};

use crate::ask::{Ask, Reply, ask};
use crate::error::EvalError;
use crate::evaluation::sha256;
use build::Benchmark;

/// One model on all tasks of a selection.
#[derive(Clone, Debug)]
pub struct Scores {
    /// The tasks, in the order of the selection.
    pub tasks: Vec<TaskScores>,
    /// The groups that they were named by, inner ones first.
    pub groups: Vec<GroupScores>,
}

/// How far an evaluation of tasks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskProgress {
    /// Questions answered, those of an earlier run included.
    pub done: usize,
    /// Questions of all tasks: one for each choice, one for each text.
    pub total: usize,
}

/// Evaluates one model on tasks. All questions of all tasks go to the engine together, so that whatever prompts share is computed
/// once; equal questions are asked once.
///
/// `responses` is a folder where replies are kept by the model's identity and the hash of the question: an interrupted run goes on
/// there, and a run with other limits or tasks asks only what is new. `on_progress` hears of every reply; `Break` ends the run with
/// [`EvalError::Interrupted`].
///
/// # Errors
/// Data that is missing or does not fit its task, a choice that is empty, a right answer that is none of the choices; what an
/// engine cannot do; probabilities that are not numbers.
pub fn evaluate_tasks(
    engine: &Engine,
    selection: Selection,
    options: &TaskOptions<'_>,
    responses: Option<&Path>,
    on_progress: &mut dyn FnMut(TaskProgress) -> ControlFlow<()>,
) -> Result<Scores, EvalError> {
    let Selection { tasks, groups } = selection;
    let benchmarks: Vec<Benchmark> =
        tasks.into_iter().map(|task| Benchmark::build(task, options)).collect::<Result<_, _>>()?;
    let replies = replies(engine, &benchmarks, responses, on_progress)?;
    let tasks: Vec<TaskScores> = benchmarks
        .iter()
        .zip(&replies)
        .map(|(benchmark, replies)| score::score(benchmark, replies))
        .collect::<Result<_, _>>()?;
    let groups = groups.iter().map(|group| score::group_scores(group, &tasks)).collect();
    Ok(Scores { tasks, groups })
}

/// The replies of each document of each task, in the order of its asks.
fn replies(
    engine: &Engine,
    benchmarks: &[Benchmark],
    responses: Option<&Path>,
    on_progress: &mut dyn FnMut(TaskProgress) -> ControlFlow<()>,
) -> Result<Vec<Vec<Vec<Reply>>>, EvalError> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut asks: Vec<&Ask> = Vec::new();
    let mut numbers: Vec<Vec<Vec<usize>>> = Vec::new();
    for benchmark in benchmarks {
        let mut of_task = Vec::with_capacity(benchmark.documents.len());
        for document in &benchmark.documents {
            let mut of_document = Vec::with_capacity(document.asks.len());
            for ask in &document.asks {
                of_document.push(*places.entry(ask.key()).or_insert_with(|| {
                    asks.push(ask);
                    asks.len() - 1
                }));
            }
            of_task.push(of_document);
        }
        numbers.push(of_task);
    }
    let mut kept = match responses {
        Some(folder) => KeyedJournal::open(&folder.join(format!("{}.jsonl", &sha256(engine.identity())[..16])))?,
        None => KeyedJournal::in_memory(),
    };
    let mut keys: Vec<&str> = vec![""; asks.len()];
    for (key, &place) in &places {
        keys[place] = key;
    }
    let mut found: Vec<Option<Reply>> = keys.iter().map(|key| kept.get(key).cloned()).collect();
    let pending: Vec<usize> = (0..asks.len()).filter(|&place| found[place].is_none()).collect();
    let mut progress = TaskProgress { done: asks.len() - pending.len(), total: asks.len() };
    let mut stopped = on_progress(progress).is_break() && !pending.is_empty();
    let mut failure = None;
    if !pending.is_empty() && !stopped {
        let names: Vec<&str> = benchmarks.iter().map(|benchmark| benchmark.config.task.as_str()).collect();
        let wanted: Vec<&Ask> = pending.iter().map(|&place| asks[place]).collect();
        ask(engine, &names.join(", "), &wanted, &mut |at, reply| {
            let place = pending[at];
            // A refusal costs nothing to hear again, and another window may not refuse.
            if !matches!(reply, Reply::Failed(_))
                && let Err(error) = kept.put(keys[place], reply.clone())
            {
                failure = Some(error);
                return ControlFlow::Break(());
            }
            if found[place].replace(reply).is_none() {
                progress.done += 1;
            }
            let flow = on_progress(progress);
            stopped = flow.is_break() && progress.done < progress.total;
            flow
        })?;
    }
    if let Some(error) = failure {
        return Err(error.into());
    }
    if stopped {
        return Err(EvalError::Interrupted { done: progress.done, total: progress.total });
    }
    if progress.done < progress.total {
        let task = benchmarks.first().map_or_else(String::new, |benchmark| benchmark.config.task.clone());
        return Err(EvalError::Unanswered { task, missing: progress.total - progress.done, total: progress.total });
    }
    let reply = |place: usize| found[place].clone().unwrap_or_else(|| Reply::Failed("no answer".to_owned()));
    Ok(numbers
        .into_iter()
        .map(|task| task.into_iter().map(|document| document.into_iter().map(reply).collect()).collect())
        .collect())
}
