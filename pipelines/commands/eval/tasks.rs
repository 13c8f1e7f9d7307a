//! Tasks of lm-evaluation-harness.

use super::{
    Contestant, EvalArguments, Session, comparisons, contamination, contestants, open_other_words, warn_of_lost,
};
use crate::outcome::{Interrupted, Status};
use crate::stages::contaminated::OF_BENCHMARKS;
use anyhow::Result;
use espalier_eval::results::{self, RunDescription};
use espalier_eval::tasks::{Score, Scores, Selection, TaskOptions, evaluate_tasks};
use espalier_eval::{EvalError, Evaluation};
use espalier_inference::Engine;
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;

pub(super) fn run(arguments: &EvalArguments, session: Session<'_>) -> Result<Status> {
    // What is wrong with a task is said before a model is loaded.
    Selection::read(&arguments.tasks)?;
    let options = session.engine_options();
    let other_words = open_other_words(arguments, &options, session)?;
    let mut all: Vec<Vec<Evaluation>> = Vec::new();
    let mut found = Vec::new();
    for contestant in contestants(arguments, &options, session) {
        let contestant = contestant?;
        let scores = evaluate(arguments, &contestant, session)?;
        table(&contestant.label, &scores, session);
        found.push(json!({"model": contestant.label, "results": figures(&scores)}));
        all.push(scores.tasks.iter().filter_map(|task| task.evaluation(&contestant.label)).collect());
    }
    let comparisons = comparisons(&all, session)?;
    let contamination = contamination(arguments, &all, OF_BENCHMARKS, other_words, session)?;
    session.reporter.result(json!({"models": found, "comparisons": comparisons, "contamination": contamination}));
    Ok(Status::Done)
}

fn evaluate(arguments: &EvalArguments, contestant: &Contestant, session: Session<'_>) -> Result<Scores> {
    let template = match &contestant.engine {
        Engine::Native(engine) if arguments.apply_chat_template => Some(engine.chat_template()),
        _ => None,
    };
    let options = TaskOptions {
        limit: arguments.limit,
        samples: (!arguments.samples.is_empty()).then(|| arguments.samples.clone()),
        num_fewshot: arguments.num_fewshot,
        chat_template: template,
        fewshot_as_one_turn: arguments.fewshot_as_one_turn,
        system_instruction: arguments.system_instruction.as_deref(),
        data_dir: arguments.data_dir.as_deref(),
        fewshot_seed: None,
    };
    let context = session.stage("eval");
    let responses = arguments.out.join(".work").join("responses");
    let selection = Selection::read(&arguments.tasks)?;
    let scores = evaluate_tasks(&contestant.engine, selection, &options, Some(&responses), &mut |progress| {
        context.progress(&contestant.label, progress.done as u64, progress.total as u64, "questions", "");
        if context.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let scores = match scores {
        Err(EvalError::Interrupted { .. }) => return Err(Interrupted.into()),
        scores => scores?,
    };
    for task in &scores.tasks {
        for warning in &task.warnings {
            context.warn(format!("{}: {warning}", task.task));
        }
    }
    let run = RunDescription {
        model: contestant.label.clone(),
        model_args: contestant.engine.identity().to_owned(),
        chat_template: template.map(|template| template.source().to_owned()),
    };
    let written = results::write_tasks(&arguments.out, &contestant.stem, &run, &options, &scores)?;
    warn_of_lost(&written, &context);
    Ok(scores)
}

/// One line for each metric, groups first.
fn table(label: &str, scores: &Scores, session: Session<'_>) {
    let mut rows: Vec<[String; 6]> = Vec::new();
    let mut add = |name: &str, shots: String, documents: usize, scores: &[Score]| {
        for (at, score) in scores.iter().enumerate() {
            let first = |text: &str| if at == 0 { text.to_owned() } else { String::new() };
            let filter = if score.filter == "none" { String::new() } else { format!(", {}", score.filter) };
            let error = score.error.map_or_else(String::new, |error| format!("\u{b1} {error:.4}"));
            let count = documents.to_string();
            rows.push([
                first(name),
                first(&count),
                first(&shots),
                format!("{}{filter}", score.metric),
                format!("{:.4}", score.value),
                error,
            ]);
        }
    };
    for group in scores.groups.iter().rev() {
        add(&group.group, String::new(), group.documents, &group.scores);
    }
    for task in &scores.tasks {
        add(&task.task, format!("{}-shot", task.few_shot), task.documents, &task.scores);
    }
    session.reporter.line(label);
    for line in aligned(&rows) {
        session.reporter.line(line);
    }
}

/// Rows as lines with columns below each other.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("  {}", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// The scores for scripts, under lm-eval's names.
fn figures(scores: &Scores) -> Value {
    let metrics = |scores: &[Score]| -> Value {
        let each = scores.iter().flat_map(|score| {
            let error = score.error.map_or_else(|| json!("N/A"), |error| json!(error));
            [
                (format!("{},{}", score.metric, score.filter), json!(score.value)),
                (format!("{}_stderr,{}", score.metric, score.filter), error),
            ]
        });
        each.collect::<Map<String, Value>>().into()
    };
    let tasks = scores.tasks.iter().map(|task| (task.task.clone(), metrics(&task.scores)));
    let groups = scores.groups.iter().map(|group| (group.group.clone(), metrics(&group.scores)));
    tasks.chain(groups).collect::<Map<String, Value>>().into()
}
