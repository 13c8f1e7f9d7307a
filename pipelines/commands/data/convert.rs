//! `pipeline data convert`: rows as other tools read them.

use crate::cli::ConvertArguments;
use crate::commands::Session;
use crate::outcome::{Failure, Status};
use anyhow::{Context, Result};
use espalier_dataset::{AuxiliaryInstructions, FolderOptions, RowSource, SamplingSize, convert};

pub(super) fn run(source: &RowSource, arguments: &ConvertArguments, session: Session<'_>) -> Result<Status> {
    let instructions = match &arguments.auxiliary {
        None => AuxiliaryInstructions::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            AuxiliaryInstructions::read(&text).map_err(|what| Failure::usage(format!("{}: {what}", path.display())))?
        }
    };
    let options = FolderOptions {
        seed: arguments.seed,
        system_prompt: arguments.system.clone(),
        instructions,
        skill_lines: arguments.per_skill.map_or(SamplingSize::Share(1.0), SamplingSize::Lines),
        legacy: arguments.legacy,
    };
    let found = convert(source, arguments.to.into(), &options, &arguments.out)?;
    let mut words = format!("{} lines in {}", found.lines, arguments.out.display());
    if found.empty > 0 {
        words.push_str(&format!("; {} left out because a turn says nothing", found.empty));
    }
    if found.unfit > 0 {
        words.push_str(&format!("; {} left out because the form cannot say them", found.unfit));
    }
    session.reporter.closing(words);
    session.reporter.result(serde_json::json!({"converted": found, "out": arguments.out}));
    Ok(Status::Done)
}
