//! `pipeline data`: rows, what became of them, and where each one comes from.

mod funnel;
mod show;
mod why;

use super::Session;
use crate::cli::DataCommand;
use crate::outcome::Status;
use anyhow::Result;

/// `pipeline data ...`.
pub fn run(command: DataCommand, session: Session<'_>) -> Result<Status> {
    match command {
        DataCommand::Show { file, limit, rejected } => show::run(&file, limit, rejected, session),
        DataCommand::Funnel { file } => funnel::run(&file, session),
        DataCommand::Why { file, id } => why::run(&file, &id, session),
    }
}
