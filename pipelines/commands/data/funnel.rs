//! `pipeline data funnel`: what became of the rows of each leaf.

use crate::commands::Session;
use crate::outcome::Status;
use anyhow::Result;
use espalier_dataset::{Funnel, RowSource};

pub(super) fn run(source: &RowSource, session: Session<'_>) -> Result<Status> {
    let mut funnel = Funnel::default();
    for row in source.rows() {
        funnel.add(&row?);
    }
    let lines = funnel.lines();
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
