//! `pipeline data mix`: one file of messages from several sources.

use crate::commands::Session;
use crate::outcome::{Failure, Status};
use anyhow::{Context, Result};
use espalier_dataset::{MixRecipe, Recipe, mix, mix_recipe};
use std::path::Path;

pub(super) fn run(recipe: &Path, out: &Path, legacy: bool, session: Session<'_>) -> Result<Status> {
    let text = std::fs::read_to_string(recipe).with_context(|| format!("cannot read {}", recipe.display()))?;
    let folder = recipe.parent().unwrap_or(Path::new("."));
    let summary = if MixRecipe::is_ours(&text) {
        if legacy {
            return Err(Failure::usage("--legacy is for recipes of InstructLab's")
                .hint("a recipe with `espalier: 1` draws without replacement")
                .into());
        }
        mix(&MixRecipe::read(recipe)?, folder, out)?
    } else {
        mix_recipe(&Recipe::read(recipe)?, folder, legacy, out)?
    };
    session.reporter.line(format!("{:44} {:>8} {:>8} {:>8}", "source", "lines", "taken", "twice"));
    for source in &summary.sources {
        session
            .reporter
            .line(format!("{:44} {:>8} {:>8} {:>8}", source.name, source.lines, source.taken, source.repeated));
    }
    let mut words = format!("{} lines in {}", summary.lines, out.display());
    if summary.empty > 0 {
        words.push_str(&format!("; {} left out because a turn says nothing", summary.empty));
    }
    session.reporter.closing(words);
    session.reporter.result(serde_json::json!({"mix": summary, "out": out}));
    Ok(Status::Done)
}
