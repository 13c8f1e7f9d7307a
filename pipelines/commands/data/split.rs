//! `pipeline data split`: rows held out for evaluation.

use crate::commands::Session;
use crate::outcome::Status;
use anyhow::Result;
use espalier_dataset::{RowSource, SplitBy, split};
use std::path::Path;

pub(super) fn run(
    source: &RowSource,
    share: f64,
    by: SplitBy,
    seed: u64,
    out: &Path,
    session: Session<'_>,
) -> Result<Status> {
    let found = split(source, by, share, seed, out)?;
    session.reporter.closing(format!(
        "{} rows to train on and {} held out, in {}; {} groups hang together, the largest of {} rows",
        found.train,
        found.held_out,
        out.display(),
        found.groups,
        found.largest_group
    ));
    session.reporter.result(serde_json::json!({"split": found, "out": out}));
    Ok(Status::Done)
}
