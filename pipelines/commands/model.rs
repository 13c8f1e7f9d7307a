//! `pipeline model`: the cache, and what a model file is.

use super::Session;
use crate::cli::ModelCommand;
use crate::models::{ModelCache, resolve};
use crate::outcome::{Failure, Status};
use crate::reporter::size;
use anyhow::Result;
use espalier_model::Model;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// `pipeline model ...`.
pub fn run(command: ModelCommand, session: Session<'_>) -> Result<Status> {
    match command {
        ModelCommand::List => list(session),
        ModelCommand::Get { model } => {
            let found = resolve(&model, session.reporter, session.stop)?;
            session.reporter.line(format!("{}\n  sha256 {}", found.path.display(), found.sha256));
            session
                .reporter
                .result(serde_json::json!({"path": found.path, "sha256": found.sha256, "license": found.license}));
            Ok(Status::Done)
        }
        ModelCommand::Show { model, tensors } => show(&model, tensors, session),
        ModelCommand::Verify { model } => {
            let cache = ModelCache::open()?;
            let cached = cache.find(&model)?.ok_or_else(|| missing(&model))?;
            let good = cache.verify(&cached)?;
            session.reporter.result(serde_json::json!({"reference": model, "good": good}));
            if !good {
                return Err(Failure::try_again(format!("{} is not what was fetched", cached.path.display()))
                    .hint(format!("`pipeline model rm {model}`, then fetch it again"))
                    .into());
            }
            session.reporter.line(format!("{model}: unchanged since it was fetched"));
            Ok(Status::Done)
        }
        ModelCommand::Rm { model } => {
            let cache = ModelCache::open()?;
            let cached = cache.find(&model)?.ok_or_else(|| missing(&model))?;
            cache.remove(&cached)?;
            session.reporter.line(format!("removed {model} ({})", size(cached.bytes)));
            session.reporter.result(serde_json::json!({"removed": model}));
            Ok(Status::Done)
        }
    }
}

fn missing(model: &str) -> Failure {
    Failure::usage(format!("{model} is not in the cache")).hint("see what is: `pipeline model list`")
}

fn list(session: Session<'_>) -> Result<Status> {
    let cache = ModelCache::open()?;
    let models = cache.list()?;
    if models.is_empty() {
        session.reporter.line(format!("no models in {}", cache.root().display()));
    }
    for model in &models {
        let license = model.license.as_deref().unwrap_or("licence not stated");
        session.reporter.line(format!(
            "{:36} {:>10}  {license}  {}",
            model.reference,
            size(model.bytes),
            &model.sha256[..12]
        ));
    }
    session.reporter.result(serde_json::json!({"models": models}));
    Ok(Status::Done)
}

fn show(reference: &str, tensors: bool, session: Session<'_>) -> Result<Status> {
    let found = resolve(reference, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let config = model.config();
    let mut types: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    let mut parameters = 0_u64;
    for tensor in model.tensors() {
        let count = tensor.dimensions.iter().map(|dimension| *dimension as u64).product::<u64>();
        parameters += count;
        let entry = types.entry(tensor.block_type.name()).or_default();
        entry.0 += 1;
        entry.1 += count;
    }
    let mut text = format!(
        "{}\n  sha256        {}\n  architecture  {:?}, {} layers of {}, {} heads over {} key-value heads of {}\n  feed forward  {}\n  context       {} tokens\n  vocabulary    {}{}\n  parameters    {:.1} M\n  chat template {}\n",
        config.name,
        found.sha256,
        config.architecture,
        config.layers,
        config.hidden,
        config.heads,
        config.kv_heads,
        config.head_dim,
        config.feed_forward,
        config.context,
        config.vocabulary,
        if config.tied_head { ", tied head" } else { "" },
        parameters as f64 / 1e6,
        if model.chat_template().is_builtin() { "none (a plain one is used)" } else { "its own" },
    );
    for (name, (count, elements)) in &types {
        let _ = writeln!(text, "  {name:13} {count} tensors, {:.1} M parameters", *elements as f64 / 1e6);
    }
    if tensors {
        for tensor in model.tensors() {
            let _ = writeln!(text, "  {:40} {:6} {:?}", tensor.name, tensor.block_type.name(), tensor.dimensions);
        }
    }
    session.reporter.line(text.trim_end());
    session.reporter.result(serde_json::json!({
        "path": found.path, "sha256": found.sha256, "name": config.name, "layers": config.layers, "hidden": config.hidden,
        "heads": config.heads, "kv_heads": config.kv_heads, "vocabulary": config.vocabulary, "context": config.context,
        "parameters": parameters,
    }));
    Ok(Status::Done)
}
