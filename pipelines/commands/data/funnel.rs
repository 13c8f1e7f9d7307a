//! `pipeline data funnel`: what became of the rows of each leaf.

use crate::commands::Session;
use crate::outcome::Status;
use anyhow::Result;
use espalier_dataset::{Funnel, FunnelLine, RowSource, Statistics};
use std::collections::BTreeMap;

pub(super) fn run(source: &RowSource, session: Session<'_>) -> Result<Status> {
    let mut funnel = Funnel::default();
    let mut leaves: BTreeMap<String, Statistics> = BTreeMap::new();
    for row in source.rows() {
        let row = row?;
        funnel.add(&row);
        leaves.entry(row.leaf.clone()).or_default().add(&row);
    }
    let lines = funnel.lines();
    let weighed = leaves.values().any(Statistics::is_weighed);
    let epoch = |words: String| if weighed { format!(" {words:>8}") } else { String::new() };
    let heading = epoch("an epoch".to_owned());
    session.reporter.line(format!("{:44} {:>8} {:>8}{heading}  rejected because", "leaf", "written", "kept"));
    for line in &lines {
        let reasons: Vec<String> = line.rejected_by.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let FunnelLine { leaf, generated, accepted, .. } = line;
        let epoch = epoch(format!("{:.1}", leaves.get(leaf).map_or(0.0, |of| of.an_epoch)));
        session.reporter.line(format!("{leaf:44} {generated:>8} {accepted:>8}{epoch}  {}", reasons.join(", ")));
    }
    session.reporter.result(serde_json::json!({"funnel": lines}));
    Ok(Status::Done)
}
