//! `pipeline taxonomy lint`: what the form allows and its author hardly meant.

use super::validate::annotation;
use super::{counter, plural};
use crate::cli::LintArgs;
use crate::commands::Session;
use crate::outcome::{Failure, Status};
use crate::stages::generate::read_tree;
use anyhow::{Context, Result};
use espalier_taxonomy::Diagnostic;
use espalier_taxonomy::lint::{BenchmarkItem, LintSettings, lint};
use serde_json::Value;
use std::fs;
use std::path::Path;

pub(super) fn run(arguments: &LintArgs, session: Session<'_>) -> Result<Status> {
    let (count, _) = counter(arguments.model.as_deref(), session)?;
    let mut benchmarks = Vec::new();
    for file in &arguments.against {
        benchmarks.extend(benchmark(file)?);
    }
    let settings = LintSettings {
        near: arguments.near,
        seed_tokens: arguments.seed_tokens,
        count_tokens: &*count,
        benchmarks: &benchmarks,
    };
    let (mut leaves, mut found) = (0, Vec::new());
    for path in &arguments.paths {
        let tree = read_tree(path)?;
        leaves += tree.leaves.len();
        found.extend(lint(&tree, &settings));
    }
    found.sort_by(Diagnostic::by_place);
    for finding in &found {
        session.reporter.line(if arguments.github { annotation(finding) } else { finding.to_string() });
    }
    session.reporter.result(serde_json::json!({"leaves": leaves, "diagnostics": found}));
    let summary =
        format!("{} in {}", plural(found.len(), "finding"), plural(leaves, "leaf").replace("leafs", "leaves"));
    if arguments.deny && !found.is_empty() {
        return Err(Failure::usage(summary).hint("each message above has the place and what to do").into());
    }
    session.reporter.line(summary);
    Ok(Status::Done)
}

/// The rows of a benchmark, each text of a row by itself.
fn benchmark(file: &Path) -> Result<Vec<BenchmarkItem>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut items = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row: Value = serde_json::from_str(line).map_err(|error| {
            Failure::usage(format!("{}:{}: not JSON: {error}", file.display(), index + 1))
                .hint("a benchmark is a JSON object a line, with its question in any field")
        })?;
        let mut texts = Vec::new();
        collect(&row, &mut texts);
        items.push(BenchmarkItem { file: file.to_path_buf(), line: index + 1, texts });
    }
    Ok(items)
}

/// Texts of some words: shorter ones stand in any seed.
fn collect(value: &Value, texts: &mut Vec<String>) {
    const FEWEST_WORDS: usize = 4;
    match value {
        Value::String(text) if text.split_whitespace().count() >= FEWEST_WORDS => texts.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect(value, texts)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, texts)),
        _ => {}
    }
}
