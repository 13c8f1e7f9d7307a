//! The binary `pipeline`.

use clap::Parser;
use espalier::cli::Cli;
use espalier::commands;
use espalier::outcome::{error_code, error_text, status_code};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::run(Cli::parse()) {
        Ok(status) => status_code(status),
        Err(error) => {
            // The exit code counts even where nobody reads the words.
            let _ = writeln!(std::io::stderr(), "error: {}", error_text(&error));
            ExitCode::from(error_code(&error))
        }
    }
}
