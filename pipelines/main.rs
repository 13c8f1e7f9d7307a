//! The binary `pipeline`.

use clap::Parser;
use espalier::cli::Cli;
use espalier::commands;
use espalier::outcome::{error_code, status_code};
use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::run(Cli::parse()) {
        Ok(status) => status_code(status),
        Err(error) => {
            // Each cause on its own line: what failed first, why last.
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::from(error_code(&error))
        }
    }
}
