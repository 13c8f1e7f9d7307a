//! `pipeline adapter`: convert, merge and show adapters.

mod export;
mod merge;
mod show;

use super::Session;
use crate::cli::AdapterCommand;
use crate::models::resolve;
use crate::outcome::Status;
use anyhow::Result;
use espalier_model::{LoraAdapter, Model};
use std::path::Path;

/// `pipeline adapter ...`.
pub fn run(command: AdapterCommand, session: Session<'_>) -> Result<Status> {
    match command {
        AdapterCommand::Export { adapter, model, out, force } => export::run(&adapter, &model, &out, force, session),
        AdapterCommand::Merge { adapter, model, out, dtype, force } => {
            merge::run(&adapter, &model, &out, dtype, force, session)
        }
        AdapterCommand::Show { adapter, model } => show::run(&adapter, model.as_deref(), session),
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gguf")
}

fn open(adapter: &Path, model: &str, session: Session<'_>) -> Result<(Model, LoraAdapter)> {
    let found = resolve(model, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let adapter = LoraAdapter::load(adapter, model.config())?;
    Ok((model, adapter))
}
