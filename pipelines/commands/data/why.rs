//! `pipeline data why`: where a row comes from.

use crate::commands::Session;
use crate::outcome::{Failure, Status};
use anyhow::Result;
use espalier_dataset::read_parquet;
use std::path::Path;

pub(super) fn run(file: &Path, id: &str, session: Session<'_>) -> Result<Status> {
    let rows = read_parquet(file)?;
    let row = rows.iter().find(|row| row.id.starts_with(id)).ok_or_else(|| {
        Failure::usage(format!("no row of {} begins with `{id}`", file.display()))
            .hint("ids are shown by `pipeline data show`")
    })?;
    session.reporter.line(serde_json::to_string_pretty(row)?);
    session.reporter.result(serde_json::json!({"row": row}));
    Ok(Status::Done)
}
