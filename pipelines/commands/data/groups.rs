//! `pipeline data stats --by`: rows counted by whatever stands in their columns.

use super::filter::Filter;
use crate::commands::Session;
use crate::outcome::{Failure, Status};
use anyhow::Result;
use espalier_dataset::{GroupColumn, RowSource, grouped};
use serde_json::json;

pub(super) fn run(source: &RowSource, filter: &Filter, by: &[String], session: Session<'_>) -> Result<Status> {
    let by = columns(by)?;
    let groups = grouped(filter.rows(source), &by)?;
    let value = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let widths: Vec<usize> = by
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let values = groups.iter().map(|group| group.values[at].chars().count());
            values.chain([column.name().len()]).max().unwrap_or_default()
        })
        .collect();
    let line = |values: &mut dyn Iterator<Item = String>, figures: [String; 4]| {
        let cells: Vec<String> = values.zip(&widths).map(|(text, width)| format!("{text:width$}")).collect();
        let [rows, kept, prompts, answers] = figures;
        session.reporter.line(format!("{}  {rows:>8} {kept:>8} {prompts:>14} {answers:>14}", cells.join("  ")));
    };
    line(
        &mut by.iter().map(|column| column.name().to_owned()),
        ["rows", "kept", "prompt tokens", "answer tokens"].map(str::to_owned),
    );
    for group in &groups {
        let figures = [group.rows, group.accepted, group.prompt_tokens, group.answer_tokens].map(|n| n.to_string());
        line(&mut group.values.iter().map(|text| value(text)), figures);
    }
    session.reporter.result(json!({"by": by, "groups": groups}));
    Ok(Status::Done)
}

fn columns(names: &[String]) -> Result<Vec<GroupColumn>> {
    let mut columns = Vec::new();
    for name in names {
        let column = GroupColumn::from_name(name.trim()).ok_or_else(|| {
            let known: Vec<&str> = GroupColumn::ALL.iter().map(|column| column.name()).collect();
            Failure::usage(format!("rows have no column `{name}` to count by"))
                .hint(format!("choose of {}", known.join(", ")))
        })?;
        if columns.contains(&column) {
            return Err(Failure::usage(format!("`{name}` stands twice in --by")).hint("name each column once").into());
        }
        columns.push(column);
    }
    Ok(columns)
}
