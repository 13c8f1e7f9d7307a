//! `pipeline data`: rows, what became of them, and where each one comes from.

use super::Session;
use crate::cli::DataCommand;
use crate::outcome::{Failure, Status};
use anyhow::Result;
use espalier_dataset::{Row, Verdict, funnel, read_parquet};
use std::path::Path;

/// `pipeline data ...`.
pub fn run(command: DataCommand, session: Session<'_>) -> Result<Status> {
    match command {
        DataCommand::Show { file, limit, rejected } => show(&file, limit, rejected, session),
        DataCommand::Funnel { file } => {
            let lines = funnel(&read_parquet(&file)?)?;
            session.reporter.line(format!("{:44} {:>8} {:>8}  rejected because", "leaf", "written", "kept"));
            for line in &lines {
                let reasons: Vec<String> =
                    line.rejected_by.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
                session.reporter.line(format!(
                    "{:44} {:>8} {:>8}  {}",
                    line.leaf,
                    line.generated,
                    line.accepted,
                    reasons.join(", ")
                ));
            }
            session.reporter.result(serde_json::json!({"funnel": lines}));
            Ok(Status::Done)
        }
        DataCommand::Why { file, id } => why(&file, &id, session),
    }
}

fn show(file: &Path, limit: usize, rejected: bool, session: Session<'_>) -> Result<Status> {
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

fn why(file: &Path, id: &str, session: Session<'_>) -> Result<Status> {
    let rows = read_parquet(file)?;
    let row = rows.iter().find(|row| row.id.starts_with(id)).ok_or_else(|| {
        Failure::usage(format!("no row of {} begins with `{id}`", file.display()))
            .hint("ids are shown by `pipeline data show`")
    })?;
    session.reporter.line(serde_json::to_string_pretty(row)?);
    session.reporter.result(serde_json::json!({"row": row}));
    Ok(Status::Done)
}
