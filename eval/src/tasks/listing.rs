//! What tasks there are.

use serde::Serialize;

use super::config::TaskConfig;
use super::selection::Selection;
use super::{data::Splits, shipped};
use crate::error::EvalError;

/// A task that comes with the program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listed {
    /// Its name.
    pub task: String,
    /// The outermost group that it belongs to.
    pub group: Option<String>,
    /// How a model is asked: `multiple_choice`, `generate_until`.
    pub output_type: &'static str,
    /// Its metrics.
    pub metrics: Vec<String>,
    /// Solved examples before each question.
    pub few_shot: usize,
    /// Documents that are built in; `None` when its data has to be given with `--data-dir`.
    pub documents: Option<usize>,
    /// The licence of its data, where it is known.
    pub licence: Option<&'static str>,
    /// The data set.
    pub data: String,
}

/// The tasks that come with the program.
///
/// # Errors
/// None in a sound build.
pub fn list() -> Result<Vec<Listed>, EvalError> {
    let selection = Selection::read(&["*".to_owned()])?;
    let groups = Selection::read(&["mmlu".to_owned(), "bbh_zeroshot".to_owned()])?.groups;
    let group_of = |task: &str| {
        let of_task = groups.iter().filter(|group| group.tasks.iter().any(|name| name == task));
        of_task.max_by_key(|group| group.tasks.len()).map(|group| group.config.group.clone())
    };
    selection.tasks.iter().map(|task| Ok(Listed { group: group_of(&task.task), ..listed(task)? })).collect()
}

fn listed(task: &TaskConfig) -> Result<Listed, EvalError> {
    let split = task.eval_split().unwrap_or_default();
    let name = task.data.name.as_deref();
    let documents = if shipped::is_embedded(&task.data.path, name, split) {
        Some(Splits::new(task, None).documents(split)?.len())
    } else {
        None
    };
    Ok(Listed {
        task: task.task.clone(),
        group: None,
        output_type: task.output.name(),
        metrics: task.metrics.iter().map(|metric| metric.name.clone()).collect(),
        few_shot: task.num_fewshot.unwrap_or(0),
        documents,
        licence: shipped::licence(&task.data.path, name),
        data: task.data.path.clone(),
    })
}
