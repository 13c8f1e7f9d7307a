//! `pipeline bench eval`: items of tasks a second, with nothing kept from earlier runs.

use super::super::Session;
use super::super::chat::open_engine;
use super::peak_bytes;
use crate::outcome::Status;
use anyhow::Result;
use espalier_eval::tasks::{Selection, TaskOptions, evaluate_tasks};
use espalier_inference::Engine;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// What is asked.
pub(super) struct Asked<'a> {
    pub(super) tasks: &'a [String],
    pub(super) limit: Option<usize>,
    pub(super) num_fewshot: Option<usize>,
    pub(super) data_dir: Option<&'a Path>,
}

/// Asks the tasks once; reading the model is not counted, reading the data and making the prompts is.
pub(super) fn rate(reference: &str, asked: &Asked<'_>, session: Session<'_>) -> Result<Status> {
    let engine = Engine::Native(open_engine(reference, None, session)?);
    let options = TaskOptions {
        limit: asked.limit.map(|items| items as f64),
        num_fewshot: asked.num_fewshot,
        data_dir: asked.data_dir,
        ..TaskOptions::default()
    };
    let start = Instant::now();
    let selection = Selection::read(asked.tasks)?;
    let mut questions = 0;
    let scores = evaluate_tasks(&engine, selection, &options, None, &mut |progress| {
        questions = progress.total;
        ControlFlow::Continue(())
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let items: usize = scores.tasks.iter().map(|task| task.documents).sum();
    let rate = items as f64 / seconds;
    let peak = peak_bytes();
    let names = asked.tasks.join(", ");
    session.reporter.line(format!(
        "{items} items of {names} ({questions} questions) in {seconds:.2} s: {rate:.1} items/s; {:.2} GB at most",
        peak as f64 / 1e9
    ));
    session.reporter.result(serde_json::json!({
        "tasks": asked.tasks, "num_fewshot": scores.tasks.first().map(|task| task.few_shot), "items": items, "questions": questions,
        "seconds": seconds, "items_per_second": rate, "peak_bytes": peak, "precision": session.precision.to_string(),
        "instruction_set": espalier_kernels::arithmetic(),
    }));
    Ok(Status::Done)
}
