//! `pipeline teach`: a teacher's probabilities for rows, the stage alone.

use super::Session;
use crate::models::resolve;
use crate::outcome::Status;
use crate::stages::data;
use crate::stages::teach::{self, Inputs, TeachStage};
use anyhow::Result;
use std::path::Path;

/// `pipeline teach`.
pub fn run(
    model: &str,
    student: &str,
    rows: &[String],
    out: &Path,
    config: &TeachStage,
    session: Session<'_>,
) -> Result<Status> {
    let teacher = resolve(model, session.reporter, session.stop)?;
    let student = resolve(student, session.reporter, session.stop)?;
    let context = session.stage("teach");
    let mut work = out.as_os_str().to_owned();
    work.push(".work");
    let sources = rows.iter().map(|text| data::find(&data::parse(text)?, None)).collect::<Result<Vec<_>>>()?;
    let inputs = Inputs { student: &student, teacher: &teacher, sources: &sources };
    let taught = teach::run(config, inputs, Path::new(&work), out, &context)?;
    let _ = std::fs::remove_dir_all(&work);
    session.reporter.closing(format!("{}\n{}", taught.summary(), out.display()));
    session.reporter.result(serde_json::json!({"summary": taught.summary(), "taught": taught, "table": out}));
    Ok(Status::Done)
}
