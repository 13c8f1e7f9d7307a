//! `pipeline eval compare`: the scores of two models, item by item.

use super::tasks::aligned;
use crate::cli::{EvalCompareArguments, Requirement};
use crate::commands::Session;
use crate::outcome::{Failure, Status};
use anyhow::Result;
use espalier_eval::compare::Sheets;
use espalier_eval::{
    Comparison, ComparisonOptions, GroupComparison, NonInferiority, Verdict, adjust_family, compare_group,
    compare_sheets, read_sheets,
};
use std::path::Path;

/// Ids of changed items that a line shows; `--json` has all of them.
const SHOWN: usize = 12;

/// `pipeline eval compare`.
pub fn run(arguments: &EvalCompareArguments, session: Session<'_>) -> Result<Status> {
    if arguments.margin.is_some_and(|margin| !(margin > 0.0 && margin < 1.0)) {
        return Err(Failure::usage("--margin is a share between 0 and 1").hint("one point is 0.01").into());
    }
    let metric = arguments.metric.as_deref();
    let (mut first, mut second) = (read_sheets(&arguments.first, metric)?, read_sheets(&arguments.second, metric)?);
    name_apart(&mut first, &mut second, &arguments.first, &arguments.second);
    let options = ComparisonOptions { margin: arguments.margin, ..ComparisonOptions::default() };
    let mut comparisons = Vec::new();
    for (task, sheet) in &first.tasks {
        if let Some(other) = second.tasks.get(task) {
            comparisons.push(compare_sheets(sheet, other, &options)?);
        }
    }
    if comparisons.is_empty() {
        let names = |sheets: &Sheets| sheets.tasks.keys().cloned().collect::<Vec<_>>().join(", ");
        let message = format!("no task is in both: {} against {}", names(&first), names(&second));
        return Err(Failure::usage(message).hint("evaluate both models on the same tasks").into());
    }
    adjust_family(&mut comparisons, options.alpha);
    let groups = groups(&first, &second, &options)?;
    let mut left_out = alone(&first, &second);
    left_out.extend(alone(&second, &first));
    for line in lines(&comparisons, &groups) {
        session.reporter.line(line);
    }
    if !left_out.is_empty() {
        session.reporter.line(format!("left out, being on one side alone: {}", left_out.join(", ")));
    }
    let refused = arguments.require.map(|required| refused(&comparisons, required)).unwrap_or_default();
    for words in &refused {
        session.reporter.line(format!("refused: {words}"));
    }
    let status = if refused.is_empty() { Status::Done } else { Status::Refused };
    session.reporter.result(serde_json::json!({
        "comparisons": comparisons, "groups": groups, "left_out": left_out, "refused": refused,
    }));
    Ok(status)
}

/// Two models of one name are told apart by where their scores lie.
fn name_apart(first: &mut Sheets, second: &mut Sheets, first_path: &Path, second_path: &Path) {
    let name = |sheets: &Sheets| sheets.tasks.values().next().map(|sheet| sheet.model.clone()).unwrap_or_default();
    let (one, other) = (name(first), name(second));
    if one != other && !one.is_empty() && !other.is_empty() {
        return;
    }
    for (sheets, path) in [(first, first_path), (second, second_path)] {
        for sheet in sheets.tasks.values_mut() {
            sheet.model = path.display().to_string();
        }
    }
}

/// Groups that both sides have whole.
fn groups(first: &Sheets, second: &Sheets, options: &ComparisonOptions) -> Result<Vec<GroupComparison>> {
    let mut found = Vec::new();
    for group in &first.groups {
        let pairs: Option<Vec<_>> =
            group.tasks.iter().map(|task| Some((first.tasks.get(task)?, second.tasks.get(task)?))).collect();
        if let Some(pairs) = pairs {
            found.push(compare_group(&group.name, &pairs, true, options)?);
        }
    }
    Ok(found)
}

/// Tasks that only the first side has.
fn alone(sheets: &Sheets, others: &Sheets) -> Vec<String> {
    sheets.tasks.keys().filter(|task| !others.tasks.contains_key(*task)).cloned().collect()
}

/// What the required verdict is not shown for, with the figures.
fn refused(comparisons: &[Comparison], required: Requirement) -> Vec<String> {
    let missing = comparisons.iter().filter(|comparison| match required {
        Requirement::NonInferior => comparison.non_inferiority != NonInferiority::NonInferior,
        Requirement::Better => comparison.verdict != Verdict::Better,
    });
    missing
        .map(|comparison| {
            let words = match required {
                Requirement::NonInferior => comparison.non_inferiority_words(),
                Requirement::Better => comparison.words(),
            };
            format!("{}: {words}", comparison.task)
        })
        .collect()
}

/// The table, then each task's finding with what changed.
fn lines(comparisons: &[Comparison], groups: &[GroupComparison]) -> Vec<String> {
    let mut rows =
        vec![["task", "items", "first", "second", "difference, 95 %", "p", "gained", "lost"].map(String::from)];
    rows.extend(comparisons.iter().map(|comparison| {
        let (unit, digits) = if comparison.shares { (100.0, 1) } else { (1.0, 3) };
        let ends = comparison.intervals.bca;
        [
            comparison.task.clone(),
            comparison.items.to_string(),
            format!("{:.digits$}", unit * comparison.score_first),
            format!("{:.digits$}", unit * comparison.score_second),
            format!(
                "{:+.digits$} ({:+.digits$} to {:+.digits$})",
                unit * comparison.difference,
                unit * ends.low,
                unit * ends.high
            ),
            format!("{:.4}", comparison.p_adjusted),
            comparison.gained.len().to_string(),
            comparison.lost.len().to_string(),
        ]
    }));
    let mut lines = aligned(&rows);
    if let Some(comparison) = comparisons.first().filter(|comparison| comparison.family > 1) {
        lines.push(format!("p after Holm's rule over {} tasks", comparison.family));
    }
    for comparison in comparisons {
        lines.push(format!("{}: {}", comparison.task, comparison.words()));
        lines.push(format!("  {}", comparison.non_inferiority_words()));
        for (what, ids) in [("gained", &comparison.gained), ("lost", &comparison.lost)] {
            if !ids.is_empty() {
                lines.push(format!("  {what}: {}", some_of(ids)));
            }
        }
    }
    lines.extend(groups.iter().map(|group| format!("{}: {}", group.group, group.words())));
    lines
}

fn some_of(ids: &[String]) -> String {
    let shown = ids[..ids.len().min(SHOWN)].join(", ");
    if ids.len() > SHOWN { format!("{shown} and {} more", ids.len() - SHOWN) } else { shown }
}
