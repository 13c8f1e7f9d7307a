//! `pipeline taxonomy`: check, show and preview skills trees.

mod fix;
mod preview;
mod show;
mod upgrade;
mod validate;

use super::Session;
use crate::cli::TaxonomyCommand;
use crate::outcome::Status;
use anyhow::Result;

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
        TaxonomyCommand::Preview { path, samples, seed } => preview::run(&path, samples, seed, session),
    }
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}
