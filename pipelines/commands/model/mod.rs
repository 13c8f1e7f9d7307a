//! `pipeline model`: the cache, and what a model file is.

mod convert;
mod show;

use super::Session;
use crate::cli::ModelCommand;
use crate::models::{CachedModel, ModelCache, resolve};
use crate::outcome::{Failure, Status};
use crate::reporter::size;
use anyhow::{Context, Result};
use espalier_model::Model;
use std::path::Path;

/// `pipeline model ...`.
pub fn run(command: ModelCommand, session: Session<'_>) -> Result<Status> {
    match command {
        ModelCommand::List => list(session),
        ModelCommand::Get { model } => get(&model, session),
        ModelCommand::Show { model, tensors, template, tokens } => {
            show::run(&model, &show::Parts { tensors, template, tokens }, session)
        }
        ModelCommand::Convert { model, out, dtype, force } => convert::run(&model, &out, dtype, force, session),
        ModelCommand::Verify { model } => verify(&model, session),
        ModelCommand::Rm { model } => {
            let cache = ModelCache::open()?;
            let cached = cache.find(&model)?.ok_or_else(|| missing(&model))?;
            cache.remove(&cached)?;
            session.reporter.line(format!("removed {model} ({})", size(cached.bytes)));
            session.reporter.result(serde_json::json!({"removed": model, "bytes": cached.bytes}));
            Ok(Status::Done)
        }
    }
}

fn missing(model: &str) -> Failure {
    Failure::usage(format!("{model} is not in the cache")).hint("see what is: `pipeline model list`")
}

fn get(reference: &str, session: Session<'_>) -> Result<Status> {
    let found = resolve(reference, session.reporter, session.stop)?;
    session.reporter.line(format!("{}\n  sha256   {}", found.path.display(), found.sha256));
    if let Some(license) = &found.license {
        session.reporter.line(format!("  licence  {license}"));
    }
    session.reporter.result(serde_json::json!({"path": found.path, "sha256": found.sha256, "license": found.license}));
    Ok(Status::Done)
}

fn list(session: Session<'_>) -> Result<Status> {
    let cache = ModelCache::open()?;
    let models = cache.list()?;
    if models.is_empty() {
        session.reporter.line(format!("no models in {}", cache.root().display()));
    }
    let width = models.iter().map(|model| model.reference.chars().count()).max().unwrap_or_default();
    for model in &models {
        let license = model.license.as_deref().unwrap_or("licence not stated");
        let (reference, bytes) = (&model.reference, size(model.bytes));
        session.reporter.line(format!("{reference:width$} {bytes:>10}  {license}  {}", &model.sha256[..12]));
    }
    session.reporter.result(serde_json::json!({"models": models}));
    Ok(Status::Done)
}

/// Hashes what the cache holds under a reference, and opens it; a path has no hash to hold to and is opened only.
fn verify(reference: &str, session: Session<'_>) -> Result<Status> {
    let cache = ModelCache::open()?;
    let path = Path::new(reference);
    let cached = cache.find(reference)?;
    let place = match &cached {
        Some(cached) => {
            check_hash(&cache, cached, session)?;
            cached.path.as_path()
        }
        None if path.exists() => path,
        None => return Err(missing(reference).into()),
    };
    let model = Model::open(place).with_context(|| format!("{reference} does not open as a model"))?;
    show::conversation(&model).with_context(|| format!("the chat template of {reference} does not work"))?;
    session.reporter.line(match &cached {
        Some(_) => format!("{reference}: unchanged since it was fetched, and opens"),
        None => format!("{reference}: opens (a path: there is no hash that it must have)"),
    });
    session.reporter.result(serde_json::json!({"reference": reference, "good": true, "hashed": cached.is_some()}));
    Ok(Status::Done)
}

fn check_hash(cache: &ModelCache, cached: &CachedModel, session: Session<'_>) -> Result<()> {
    if cache.verify(cached)? {
        return Ok(());
    }
    let reference = &cached.reference;
    session.reporter.result(serde_json::json!({"reference": reference, "good": false}));
    Err(Failure::try_again(format!("{} is not what was fetched", cached.path.display()))
        .hint(format!("`pipeline model rm {reference}`, then `pipeline model get {reference}`"))
        .into())
}
