//! `pipeline adapter merge`: an adapter folded into its base, as a Hugging Face folder or a GGUF file.

use super::{Session, is_gguf, open};
use crate::cli::FloatTypeArgument;
use crate::outcome::Status;
use crate::reporter::size;
use crate::stages::StageContext;
use crate::stages::quantize::SAMPLE_TEXT;
use anyhow::Result;
use espalier_model::Existing;
use espalier_model::huggingface::HuggingFaceOptions;
use espalier_quantize::{QuantizeEvent, merge_into_folder};
use std::path::Path;

/// Writes the merged model.
pub fn run(
    adapter: &Path,
    model: &str,
    out: &Path,
    float_type: Option<FloatTypeArgument>,
    force: bool,
    session: Session<'_>,
) -> Result<Status> {
    if is_gguf(out) {
        let file_type = float_type.unwrap_or(FloatTypeArgument::F32).file_type();
        return crate::commands::quantize::run(model, file_type, out, Some(adapter), false, &[], session);
    }
    let (model, adapter) = open(adapter, model, session)?;
    let mut options = HuggingFaceOptions::of(&model);
    if let Some(float_type) = float_type {
        options.float_type = float_type.into();
    }
    if force {
        options.existing = Existing::Replace;
    }
    let context =
        StageContext { stage: "merge", reporter: session.reporter, stop: session.stop, precision: session.precision };
    if let Some(trained_on) = &adapter.base_sha256
        && *trained_on != model.sha256()?
    {
        context.note("the adapter was trained on another file than this one; all of its layers fit");
    }
    let mut total = 0;
    let texts = [SAMPLE_TEXT.to_owned()];
    let report = merge_into_folder(&model, &adapter, out, options, &texts, &mut |event| match event {
        QuantizeEvent::Planned { bytes, .. } => total = bytes,
        QuantizeEvent::Progress { tensor, bytes } => context.progress("", bytes, total, "bytes", tensor),
        QuantizeEvent::Tensor { .. } | QuantizeEvent::Verifying => {}
    })?;
    let merged = report.tensors.iter().filter(|tensor| tensor.merged).count();
    session.reporter.line(format!(
        "{} {} in {}, {merged} of {} tensors merged, reopened and checked",
        out.display(),
        size(report.bytes),
        options.float_type.torch_name(),
        report.tensors.len(),
    ));
    session.reporter.result(serde_json::json!({
        "path": report.path, "bytes": report.bytes, "dtype": options.float_type.torch_name(), "merged": merged,
        "tensors": report.tensors.len(), "verification": report.verification,
    }));
    Ok(Status::Done)
}
