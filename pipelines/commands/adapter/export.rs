//! `pipeline adapter export`: an adapter in its other form.

use super::{Session, is_gguf, open};
use crate::outcome::Status;
use anyhow::Result;
use espalier_model::{AtomicFolder, Existing};
use std::path::Path;

/// Writes a GGUF file where the name ends so, a PEFT folder otherwise.
pub fn run(adapter: &Path, model: &str, out: &Path, force: bool, session: Session<'_>) -> Result<Status> {
    let (model, adapter) = open(adapter, model, session)?;
    if is_gguf(out) {
        adapter.save_gguf(out, model.config())?;
    } else {
        let folder = AtomicFolder::create(out, if force { Existing::Replace } else { Existing::Keep })?;
        adapter.save_peft(folder.path(), model.config())?;
        folder.finish()?;
    }
    session.reporter.closing(format!("wrote {}", out.display()));
    session.reporter.result(serde_json::json!({"adapter": out}));
    Ok(Status::Done)
}
