//! The command line of `pipeline data`.

use clap::Subcommand;
use std::path::PathBuf;

/// Rows.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Rows as text.
    #[command(after_help = "Example:\n  pipeline data show --rejected runs/quickstart/rows/rows.parquet")]
    Show {
        /// Parquet file of rows.
        file: PathBuf,
        /// How many.
        #[arg(long, default_value_t = 10)]
        limit: usize,
        /// Only rejected rows.
        #[arg(long)]
        rejected: bool,
    },
    /// What became of the rows of each leaf.
    #[command(after_help = "Example:\n  pipeline data funnel runs/quickstart/rows/rows.parquet")]
    Funnel {
        /// Parquet file of rows.
        file: PathBuf,
    },
    /// Where a row comes from: leaf, seeds, slots, prompt, answer, verdict.
    #[command(after_help = "Example:\n  pipeline data why runs/quickstart/rows/rows.parquet 3f9a1c")]
    Why {
        /// Parquet file of rows.
        file: PathBuf,
        /// Row id.
        id: String,
    },
}
