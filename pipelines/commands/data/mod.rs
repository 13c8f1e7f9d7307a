//! `pipeline data`: rows, what became of them, and where each one comes from.

mod card;
mod clean;
mod convert;
mod diff;
mod filter;
mod funnel;
mod groups;
mod mix;
mod sample;
mod show;
mod split;
mod stats;
mod versions;
mod why;

use super::Session;
use crate::cli::{DataCommand, RowsArgument};
use crate::outcome::Status;
use anyhow::Result;
use espalier_dataset::RowSource;
use filter::Filter;

/// `pipeline data ...`.
pub fn run(command: DataCommand, session: Session<'_>) -> Result<Status> {
    match command {
        DataCommand::Show { rows, filter, limit } => show::run(&source(&rows)?, &Filter::new(filter), limit, session),
        DataCommand::Sample { rows, filter, count, seed } => {
            sample::run(&source(&rows)?, &Filter::new(filter), count, seed, session)
        }
        DataCommand::Stats { rows, filter, by } if by.is_empty() => {
            stats::run(&source(&rows)?, &Filter::new(filter), session)
        }
        DataCommand::Stats { rows, filter, by } => groups::run(&source(&rows)?, &Filter::new(filter), &by, session),
        DataCommand::Funnel { rows } => funnel::run(&source(&rows)?, session),
        DataCommand::Diff { before, after, from, to, limit } => {
            diff::run(&before, after.as_deref(), [from, to], limit, session)
        }
        DataCommand::Why { rows, id } => why::run(&source(&rows)?, &rows.rows, &id, session),
        DataCommand::Card { rows, name, out } => card::run(&rows, name, out.as_deref(), session),
        DataCommand::Versions { folder, verify } => versions::run(&folder, verify, session),
        DataCommand::Convert { rows, options } => convert::run(&source(&rows)?, &options, session),
        DataCommand::Clean(arguments) => clean::run(&arguments, session),
        DataCommand::Mix { recipe, out, legacy } => mix::run(&recipe, &out, legacy, session),
        DataCommand::Split { rows, held_out, by, seed, out } => {
            split::run(&source(&rows)?, held_out, by.into(), seed, &out, session)
        }
    }
}

fn source(rows: &RowsArgument) -> Result<RowSource> {
    Ok(RowSource::find(&rows.rows, rows.version)?)
}
