//! `pipeline imatrix`: how strongly each column of a model is used on some text.

use super::Session;
use crate::cli::ImatrixArguments;
use crate::content::write_atomically;
use crate::models::resolve;
use crate::outcome::{Failure, Interrupted, Status};
use crate::stages::measured;
use anyhow::{Context, Result};
use espalier_inference::NativeEngine;
use espalier_model::{LoraAdapter, Model};
use espalier_quantize::{ImportanceMatrix, QuantizeError, TensorStatistics, importance};
use std::ops::ControlFlow;
use std::path::Path;

/// `pipeline imatrix`.
pub fn run(arguments: ImatrixArguments, session: Session<'_>) -> Result<Status> {
    match arguments.show.clone() {
        Some(file) => show(&file, session),
        None => measure(&arguments, session),
    }
}

fn measure(arguments: &ImatrixArguments, session: Session<'_>) -> Result<Status> {
    // The command line has all three where it does not show a file.
    let (Some(reference), Some(data), Some(out)) = (&arguments.model, &arguments.data, &arguments.out) else {
        return Err(Failure::usage("imatrix needs a model, --data and --out, or --show").into());
    };
    let share = arguments.general_share;
    if !(0.0..1.0).contains(&share) {
        return Err(Failure::usage(format!("--general-share {share} is not between 0 and 1")).into());
    }
    let found = resolve(reference, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let adapter = arguments.adapter.as_ref().map(|path| LoraAdapter::load(path, model.config())).transpose()?;
    let engine = NativeEngine::load(&model, adapter.as_ref(), &session.engine_options())?;
    let context = session.stage("imatrix");
    let mut texts = measured::texts(&model, &engine, data, &context)?;
    texts.truncate(arguments.chunks.unwrap_or(usize::MAX));
    let mut names = vec![name(Path::new(data))];
    if let Some(general) = &arguments.general {
        let slice = measured::general_slice(measured::windows(&engine, general)?, &texts, share);
        if !slice.is_empty() {
            names.push(name(general));
            texts.extend(slice);
        }
    }
    let total = texts.len() as u64;
    let measured = importance(&engine, &texts, names, arguments.process_output, &mut |done| {
        context.progress("", done as u64, total, "texts", "");
        if context.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let matrix = match measured {
        Err(QuantizeError::Interrupted) => return Err(Interrupted.into()),
        measured => measured?,
    };
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    if out.extension().is_some_and(|extension| extension == "dat") {
        write_atomically(out, &matrix.to_legacy())?;
    } else {
        matrix.write(out)?;
    }
    let tokens: usize = texts.iter().map(|text| text.tokens().len()).sum();
    session.reporter.line(format!(
        "{}: {} tensors, {tokens} tokens of {} ({} texts)",
        out.display(),
        matrix.len(),
        matrix.datasets().join(" and "),
        texts.len()
    ));
    session.reporter.result(serde_json::json!({
        "file": out, "tensors": matrix.len(), "tokens": tokens, "texts": texts.len(), "datasets": matrix.datasets(),
    }));
    Ok(Status::Done)
}

/// The name of a file, never its path on this machine.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// `pipeline imatrix --show`.
fn show(path: &Path, session: Session<'_>) -> Result<Status> {
    let matrix = ImportanceMatrix::read(path)?;
    let mut statistics = matrix.statistics();
    session.reporter.line(format!(
        "{}: {} tensors, {} chunks of {} tokens of {}",
        path.display(),
        matrix.len(),
        matrix.chunks(),
        matrix.chunk_tokens(),
        if matrix.datasets().is_empty() { "unnamed texts".to_owned() } else { matrix.datasets().join(" and ") }
    ));
    statistics.sort_by(|left, right| layer(&left.tensor).cmp(&layer(&right.tensor)));
    session.reporter.line(table(&statistics));
    session.reporter.result(serde_json::json!({
        "chunks": matrix.chunks(), "chunk_tokens": matrix.chunk_tokens(), "datasets": matrix.datasets(), "tensors": statistics,
    }));
    Ok(Status::Done)
}

/// By kind, then by layer.
fn layer(tensor: &str) -> (&str, Option<u32>) {
    let parts = tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    parts.map_or((tensor, None), |(layer, kind)| (kind, layer.parse().ok()))
}

fn table(statistics: &[TensorStatistics]) -> String {
    let head =
        format!("{:<28} {:>10} {:>8} {:>8} {:>9} {:>7}", "tensor", "sum", "evenness", "top 1 %", "active", "before");
    let line = |tensor: &TensorStatistics| {
        let before = tensor.cosine_to_layer_before.map_or_else(|| "-".to_owned(), |cosine| format!("{cosine:.4}"));
        let unseen =
            if tensor.unseen > 0.0 { format!("  {:.0} % unseen", 100.0 * tensor.unseen) } else { String::new() };
        format!(
            "{:<28} {:>10.4} {:>8.4} {:>7.1}% {:>8.1}% {before:>7}{unseen}",
            tensor.tensor,
            tensor.sum,
            tensor.evenness,
            100.0 * tensor.top_hundredth,
            100.0 * tensor.active
        )
    };
    std::iter::once(head).chain(statistics.iter().map(line)).collect::<Vec<_>>().join("\n")
}
