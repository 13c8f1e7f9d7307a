//! `pipeline data funnel`: what became of the rows of each leaf.

use crate::commands::Session;
use crate::outcome::Status;
use anyhow::Result;
use espalier_dataset::{funnel, read_parquet};
use std::path::Path;

pub(super) fn run(file: &Path, session: Session<'_>) -> Result<Status> {
    let lines = funnel(&read_parquet(file)?);
    session.reporter.line(format!("{:44} {:>8} {:>8}  rejected because", "leaf", "written", "kept"));
    for line in &lines {
        let reasons: Vec<String> = line.rejected_by.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
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
