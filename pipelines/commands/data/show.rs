//! `pipeline data show`: rows as text.

use super::filter::Filter;
use crate::commands::Session;
use crate::outcome::Status;
use anyhow::Result;
use espalier_dataset::{Row, RowSource, Verdict};

pub(super) fn run(source: &RowSource, filter: &Filter, limit: usize, session: Session<'_>) -> Result<Status> {
    let mut wanted = Vec::new();
    let mut fitting = 0;
    for row in filter.rows(source) {
        let row = row?;
        fitting += 1;
        if wanted.len() < limit {
            wanted.push(row);
        }
    }
    print(&wanted, fitting, session);
    Ok(Status::Done)
}

/// Rows with how many they are of.
pub(super) fn print(rows: &[Row], of: usize, session: Session<'_>) {
    for row in rows {
        let mark = if row.verdict == Verdict::Accepted { "kept" } else { "rejected" };
        session.reporter.line(format!("{}  {}  {mark}: {}", row.id, row.leaf, row.reason));
        for (role, text) in said(row) {
            session.reporter.line(format!("    {role:>9}: {}", text.replace('\n', "\n               ")));
        }
    }
    session.reporter.line(format!("{} of {of} rows", rows.len()));
    session.reporter.result(serde_json::json!({"rows": rows, "of": of}));
}

/// The turns of a row; of one that was rejected before it had any, what its block wrote.
fn said(row: &Row) -> Vec<(&str, &str)> {
    let turns: Vec<_> =
        row.turns.iter().filter(|turn| !turn.content.is_empty()).map(|turn| (&*turn.role, &*turn.content)).collect();
    if turns.is_empty() && !row.answer.is_empty() { vec![("wrote", &row.answer)] } else { turns }
}
