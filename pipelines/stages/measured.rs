//! Texts to measure models on: a text in windows, or rows as training reads them.

use super::StageContext;
use anyhow::{Context, Result};
use espalier_eval::perplexity::WINDOW;
use espalier_inference::NativeEngine;
use espalier_model::Model;
use espalier_quantize::MeasuredText;
use espalier_train::TrainConfig;
use std::path::Path;

/// Reads `data`: files of rows (`.jsonl`, `.json`, `.parquet`, as `train --data` takes them) become a text each, of which what
/// the model learns to write counts; every other file is a text, cut into windows as llama-perplexity cuts it.
pub fn texts(
    model: &Model,
    engine: &NativeEngine,
    data: &str,
    context: &StageContext<'_>,
) -> Result<Vec<MeasuredText>> {
    let item = super::data::parse(data)?;
    let file = item.file.clone().unwrap_or_default();
    if !is_rows(&file) {
        return windows(engine, Path::new(&file));
    }
    let config = TrainConfig { max_sequence: engine.context(), ..TrainConfig::default() };
    let read = super::train::read(model, &[super::data::find(&item, None)?], &config, context)?;
    if read.dropped > 0 {
        context.warn(format!("{} rows are longer than the context window: they are left out", read.dropped));
    }
    Ok(read.rows.into_iter().map(|row| MeasuredText::learned(row.tokens, &row.weights)).collect())
}

/// The windows of a text file.
pub fn windows(engine: &NativeEngine, path: &Path) -> Result<Vec<MeasuredText>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {} as UTF-8 text", path.display()))?;
    Ok(MeasuredText::windows(engine, &text, WINDOW.min(engine.context())))
}

/// As much of a general text, from its beginning, as makes `share` of all tokens.
pub fn general_slice(windows: Vec<MeasuredText>, texts: &[MeasuredText], share: f64) -> Vec<MeasuredText> {
    let tokens: usize = texts.iter().map(|text| text.tokens().len()).sum();
    let mut wanted = tokens as f64 * share / (1.0 - share);
    let take = windows.into_iter().take_while(|window| {
        let more = wanted > 0.0;
        wanted -= window.tokens().len() as f64;
        more
    });
    take.collect()
}

fn is_rows(file: &str) -> bool {
    let extension = Path::new(file).extension().map(std::ffi::OsStr::to_ascii_lowercase);
    extension.is_some_and(|extension| ["jsonl", "json", "parquet"].iter().any(|known| extension == *known))
}
