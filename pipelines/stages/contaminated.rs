//! Training rows against the tests of a run.

use anyhow::Result;
use espalier_dataset::quality::Sample;
use espalier_dataset::{DatasetError, Records};
use espalier_eval::{Contamination, Evaluation, TestItems};
use std::path::PathBuf;

/// Looks the rows of `files`, of any form that `train` reads, through for the items of `evaluations`: one of each task is enough.
pub fn find<'a>(files: &[PathBuf], evaluations: impl IntoIterator<Item = &'a Evaluation>) -> Result<Contamination> {
    let mut tests = TestItems::of_evaluations(evaluations);
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for record in Records::open(path, None)? {
            let record = record.map_err(DatasetError::Problem)?;
            let line = record.line();
            let example = record.example().map_err(|reason| DatasetError::Line { path: path.clone(), line, reason })?;
            // Whatever id a row has, its place finds it.
            let id =
                if example.id.is_empty() { format!("{name}:{line}") } else { format!("{name}:{line} {}", example.id) };
            tests.look_at(&Sample { id: &id, ..Sample::from(&example) });
        }
    }
    Ok(tests.finish())
}
