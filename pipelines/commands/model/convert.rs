//! `pipeline model convert`: between GGUF files and Hugging Face folders.

use crate::cli::FloatTypeArgument;
use crate::commands::{Session, folder};
use crate::models::resolve;
use crate::outcome::Status;
use anyhow::Result;
use espalier_model::Model;
use std::path::Path;

/// Writes a GGUF file where the name ends so, and a folder otherwise.
pub fn run(
    model: &str,
    out: &Path,
    float_type: Option<FloatTypeArgument>,
    force: bool,
    session: Session<'_>,
) -> Result<Status> {
    if out.extension().is_some_and(|extension| extension == "gguf") {
        let file_type = float_type.unwrap_or(FloatTypeArgument::Bf16).file_type();
        return crate::commands::quantize::plain(model, file_type, out, None, session);
    }
    let found = resolve(model, session.reporter, session.stop)?;
    folder::write(&Model::open(&found.path)?, None, out, float_type, force, session)
}
