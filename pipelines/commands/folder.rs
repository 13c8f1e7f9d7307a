//! A model as a Hugging Face folder.

use super::Session;
use crate::cli::FloatTypeArgument;
use crate::outcome::Status;
use crate::reporter::size;
use crate::stages::quantize::SAMPLE_TEXT;
use anyhow::Result;
use espalier_model::huggingface::HuggingFaceOptions;
use espalier_model::{Existing, LoraAdapter, Model};
use espalier_quantize::{QuantizeEvent, write_folder};
use std::path::Path;

/// Writes the folder, with an adapter folded in, and says what it holds.
pub fn write(
    model: &Model,
    adapter: Option<&LoraAdapter>,
    out: &Path,
    float_type: Option<FloatTypeArgument>,
    force: bool,
    session: Session<'_>,
) -> Result<Status> {
    let mut options = HuggingFaceOptions::of(model);
    if let Some(float_type) = float_type {
        options.float_type = float_type.into();
    }
    if force {
        options.existing = Existing::Replace;
    }
    let stage = if adapter.is_some() { "merge" } else { "convert" };
    let context = session.stage(stage);
    let mut total = 0;
    let texts = [SAMPLE_TEXT.to_owned()];
    let report = write_folder(model, adapter, out, options, &texts, &mut |event| match event {
        QuantizeEvent::Planned { bytes, .. } => total = bytes,
        QuantizeEvent::Progress { tensor, bytes } => context.progress("", bytes, total, "bytes", tensor),
        QuantizeEvent::Tensor { .. } | QuantizeEvent::Verifying => {}
    })?;
    let merged = report.tensors.iter().filter(|tensor| tensor.merged).count();
    let tensors = report.tensors.len();
    let what = match adapter {
        Some(_) => format!("{merged} of {tensors} tensors merged"),
        None => format!("{tensors} tensors"),
    };
    let float_type = options.float_type.torch_name();
    session.reporter.line(format!(
        "{} {} in {float_type}, {what}, reopened and checked",
        out.display(),
        size(report.bytes)
    ));
    session.reporter.result(serde_json::json!({
        "path": report.path, "bytes": report.bytes, "dtype": float_type, "merged": merged, "tensors": tensors,
        "verification": report.verification,
    }));
    Ok(Status::Done)
}
