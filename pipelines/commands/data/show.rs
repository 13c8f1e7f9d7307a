//! `pipeline data show`: rows as text.

use crate::commands::Session;
use crate::outcome::Status;
use anyhow::Result;
use espalier_dataset::{Row, Verdict, read_parquet};
use std::path::Path;

pub(super) fn run(file: &Path, limit: usize, rejected: bool, session: Session<'_>) -> Result<Status> {
    let rows = read_parquet(file)?;
    let wanted: Vec<&Row> =
        rows.iter().filter(|row| !rejected || row.verdict == Verdict::Rejected).take(limit).collect();
    for row in &wanted {
        let mark = if row.verdict == Verdict::Accepted { "kept" } else { "rejected" };
        session.reporter.line(format!("{}  {}  {mark}: {}", row.id, row.leaf, row.reason));
        for turn in &row.turns {
            session.reporter.line(format!("    {:>9}: {}", turn.role, turn.content.replace('\n', "\n               ")));
        }
    }
    session.reporter.line(format!("{} of {} rows", wanted.len(), rows.len()));
    session.reporter.result(serde_json::json!({"rows": wanted}));
    Ok(Status::Done)
}
