//! `pipeline taxonomy`: check, show, preview, compare, lint and begin skills trees.

mod diff;
mod fix;
mod lint;
mod new;
mod preview;
mod show;
mod upgrade;
mod validate;

use super::Session;
use crate::cli::TaxonomyCommand;
use crate::models::resolve;
use crate::outcome::Status;
use anyhow::Result;
use espalier_model::{Model, SpecialTokens};

/// `pipeline taxonomy ...`.
pub fn run(command: TaxonomyCommand, session: Session<'_>) -> Result<Status> {
    match command {
        TaxonomyCommand::Validate { mut paths, strict, fix, dry_run, licenses, github } => {
            if fix {
                fix::run(&mut paths, dry_run, session)?;
            }
            validate::run(&paths, strict, &licenses, github, session)
        }
        TaxonomyCommand::Upgrade { path, out, in_place, dry_run: _ } => {
            upgrade::run(&path, out.as_deref(), in_place, session)
        }
        TaxonomyCommand::Show { path } => show::run(&path, session),
        TaxonomyCommand::Schema => {
            session.reporter.line(espalier_taxonomy::SCHEMA.trim_end());
            session.reporter.result(serde_json::from_str(espalier_taxonomy::SCHEMA)?);
            Ok(Status::Done)
        }
        TaxonomyCommand::Preview(arguments) => preview::run(&arguments, session),
        TaxonomyCommand::Diff(arguments) => diff::run(&arguments, session),
        TaxonomyCommand::Lint(arguments) => lint::run(&arguments, session),
        TaxonomyCommand::New(arguments) => new::run(&arguments, session),
    }
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// How long a text is for a reader.
type Counter = Box<dyn Fn(&str) -> usize>;

/// Counts tokens of a model, or words where there is none; with the name of what is counted.
fn counter(model: Option<&str>, session: Session<'_>) -> Result<(Counter, &'static str)> {
    let Some(model) = model else {
        return Ok((Box::new(|text| text.split_whitespace().count()), "words"));
    };
    let found = resolve(model, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    Ok((Box::new(move |text| model.tokenizer().encode(text, SpecialTokens::AsText).len()), "tokens"))
}
