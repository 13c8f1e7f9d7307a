//! Training rows against the tests of a run.

use crate::embedder::Embedder;
use crate::models::ResolvedModel;
use anyhow::Result;
use espalier_dataset::quality::Sample;
use espalier_dataset::{DatasetError, Example, Records};
use espalier_eval::{Contamination, Evaluation, TestItems};
use espalier_inference::EngineOptions;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// How much of a benchmark's question must stand in a row.
pub const OF_BENCHMARKS: f64 = 0.5;
/// How much of a question must stand in a row of the tree that the question tests: rows and tests of one template share most of
/// their words, and ask for different things all the same.
pub const OF_ONE_TREE: f64 = 0.8;

/// Rows that are compared by what they say at the same time.
const AT_ONCE: usize = 1024;

/// What finds questions in other words.
#[derive(Debug)]
pub struct OtherWords<'a> {
    /// Makes the vectors.
    pub embedder: Embedder<'a>,
    /// From which cosine on two questions ask the same.
    pub threshold: f32,
}

impl<'a> OtherWords<'a> {
    /// Loads an embedder; one that writes needs the cosine to be `wanted`.
    pub fn load(
        model: &ResolvedModel,
        options: &EngineOptions,
        wanted: Option<f32>,
        stop: &'a AtomicBool,
    ) -> Result<Self> {
        let embedder = Embedder::load(model, options, stop)?;
        let threshold = embedder.required_threshold(wanted)?;
        Ok(Self { embedder, threshold })
    }
}

/// Looks the rows of `files`, of any form that `train` reads, through for the items of `evaluations`: one of each task is enough.
/// From `threshold` on a part of an item is said to stand in a row; `other_words` finds those asked in other words too.
pub fn find<'a>(
    files: &[PathBuf],
    evaluations: impl IntoIterator<Item = &'a Evaluation>,
    threshold: f64,
    mut other_words: Option<&mut OtherWords<'_>>,
) -> Result<Contamination> {
    let mut tests = TestItems::of_evaluations(evaluations).with_threshold(threshold);
    let mut look = |portion: &[(String, Example)]| -> Result<()> {
        let samples: Vec<Sample<'_>> =
            portion.iter().map(|(id, example)| Sample { id, ..Sample::from(example) }).collect();
        if let Some(OtherWords { embedder, threshold }) = other_words.as_deref_mut() {
            return tests.look_at_meaning(&samples, *threshold, |texts| embedder.vectors(texts));
        }
        for sample in &samples {
            tests.look_at(sample);
        }
        Ok(())
    };
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut portion = Vec::with_capacity(AT_ONCE);
        for record in Records::open(path, None)? {
            let record = record.map_err(DatasetError::Problem)?;
            let line = record.line();
            let example = record.example().map_err(|reason| DatasetError::Line { path: path.clone(), line, reason })?;
            // Whatever id a row has, its place finds it.
            let id =
                if example.id.is_empty() { format!("{name}:{line}") } else { format!("{name}:{line} {}", example.id) };
            portion.push((id, example));
            if portion.len() == AT_ONCE {
                look(&portion)?;
                portion.clear();
            }
        }
        look(&portion)?;
    }
    Ok(tests.finish())
}
