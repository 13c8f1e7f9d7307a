//! `pipeline data card`: the data card.

use super::source;
use crate::cli::RowsArgument;
use crate::commands::Session;
use crate::outcome::Status;
use anyhow::{Context, Result};
use espalier_dataset::{data_card, write_atomically};
use std::io::Write;
use std::path::Path;

pub(super) fn run(
    rows: &RowsArgument,
    name: Option<String>,
    out: Option<&Path>,
    session: Session<'_>,
) -> Result<Status> {
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = name.or_else(|| stem(&rows.rows)).unwrap_or_else(|| "rows".to_owned());
    let card = data_card(&name, &source(rows)?)?;
    match out {
        Some(out) => {
            write_atomically(out, |file| file.write_all(card.as_bytes()))
                .with_context(|| format!("cannot write {}", out.display()))?;
            session.reporter.closing(format!("the card is in {}", out.display()));
        }
        None => session.reporter.line(card.trim_end()),
    }
    session.reporter.result(serde_json::json!({"card": card}));
    Ok(Status::Done)
}
