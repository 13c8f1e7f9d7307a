//! `pipeline adapter merge`: an adapter folded into its base, as a Hugging Face folder or a GGUF file.

use super::{Session, is_gguf, open};
use crate::cli::FloatTypeArgument;
use crate::commands::folder;
use crate::outcome::Status;
use anyhow::Result;
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
        return crate::commands::quantize::plain(model, file_type, out, Some(adapter), session);
    }
    let (model, adapter) = open(adapter, model, session)?;
    if let Some(trained_on) = &adapter.base_sha256
        && *trained_on != model.sha256()?
    {
        let context = session.stage("merge");
        context.note("the adapter was trained on another file than this one; all of its layers fit");
    }
    folder::write(&model, Some(&adapter), out, float_type, force, session)
}
