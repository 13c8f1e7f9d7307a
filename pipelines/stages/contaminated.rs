//! Training rows against the tests of a run.

use anyhow::Result;
use espalier_dataset::quality::Sample;
use espalier_dataset::{DatasetError, Records};
use espalier_eval::{Contamination, Evaluation, TestItems};
use std::path::PathBuf;

/// How much of a benchmark's question must stand in a row.
pub const OF_BENCHMARKS: f64 = 0.5;
/// How much of a question must stand in a row of the tree that the question tests: rows and tests of one template share most of
/// their words, and ask for different things all the same.
pub const OF_ONE_TREE: f64 = 0.8;

/// Looks the rows of `files`, of any form that `train` reads, through for the items of `evaluations`: one of each task is enough.
/// From `threshold` on a part of an item is said to stand in a row.
pub fn find<'a>(
    files: &[PathBuf],
    evaluations: impl IntoIterator<Item = &'a Evaluation>,
    threshold: f64,
) -> Result<Contamination> {
    let mut tests = TestItems::of_evaluations(evaluations).with_threshold(threshold);
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
