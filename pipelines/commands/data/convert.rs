//! `pipeline data convert`: rows as other tools read them.

use crate::cli::{ConvertArguments, FormArgument};
use crate::commands::Session;
use crate::outcome::{Failure, Status};
use crate::stages::generate::read_tree;
use anyhow::{Context, Result};
use espalier_dataset::{AuxiliaryInstructions, FolderOptions, RowSource, SamplingSize, SeedPair, convert};
use espalier_taxonomy::Seed;
use std::path::Path;

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
        seeds: arguments.taxonomy.as_deref().map(|tree| seeds(tree, arguments.to)).transpose()?,
    };
    let found = convert(source, arguments.to.into(), &options, &arguments.out)?;
    let mut words = format!("{} lines in {}", found.lines, arguments.out.display());
    if found.empty > 0 {
        words.push_str(&format!("; {} left out because a turn says nothing", found.empty));
    }
    if found.unfit > 0 {
        words.push_str(&format!("; {} left out because the form cannot say them", found.unfit));
    }
    if arguments.to == FormArgument::Instructlab && options.seeds.is_none() {
        words.push_str("; no test.jsonl, which holds the seed examples of a tree: name it with --taxonomy");
    }
    session.reporter.closing(words);
    session.reporter.result(serde_json::json!({"converted": found, "out": arguments.out}));
    Ok(Status::Done)
}

/// The seed examples of a tree as ilab tests with them: the question, and below it the text that it is about. The form has room for
/// one question, so that a seed of several turns is the script of its conversation.
fn seeds(tree: &Path, to: FormArgument) -> Result<Vec<SeedPair>> {
    if to != FormArgument::Instructlab {
        return Err(Failure::usage("--taxonomy is for `--to instructlab`")
            .hint("other forms are made of the rows alone; leave it out")
            .into());
    }
    let pair = |seed: &Seed| {
        let below = seed.context.as_ref().map_or_else(String::new, |context| format!("\n{}", context.trim_end()));
        SeedPair { user: seed.script().into_owned() + &below, assistant: seed.answer.clone() }
    };
    Ok(read_tree(tree)?.leaves.iter().flat_map(|leaf| &leaf.seeds).map(pair).collect())
}
