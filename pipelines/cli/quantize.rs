//! Quantization: files, importance matrices, and how far files lie from their model.

use clap::Args;
use std::path::PathBuf;

/// One file to write.
#[derive(Debug, Args)]
pub struct QuantizeArguments {
    /// The base.
    pub model: String,
    /// File type: F32, F16, BF16, `Q8_0`, `Q4_0`, `Q4_K_M` and so on.
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "target", conflicts_with = "target")]
    pub file_type: Option<String>,
    /// Choose the type of each tensor by measurement, for a size: bits a weight (4.6bpw), bytes (3.2GB, 900MB), or ram: what this machine holds beside its context; or for speed: as fast as this machine gets, within a tenth.
    #[arg(long, value_name = "TARGET", requires = "data", conflicts_with_all = ["pure", "tensor_type", "token_embedding_type", "output_tensor_type", "leave_output_tensor"])]
    pub target: Option<String>,
    /// Rows or a text that `--target` measures divergence on.
    #[arg(long, value_name = "FILE", requires = "target")]
    pub data: Option<String>,
    /// The file to write.
    #[arg(long, value_name = "FILE.gguf", required_unless_present = "dry_run")]
    pub out: Option<PathBuf>,
    /// Adapter to merge: a PEFT folder or a GGUF adapter.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Importance matrix of `pipeline imatrix` or llama-imatrix: errors are weighed by it.
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Move the scales of the blocks while that lowers their error: a better file of the same format, in more time.
    #[arg(long)]
    pub refine: bool,
    /// Changes of the mix.
    #[command(flatten)]
    pub mix: MixArguments,
    /// Say what each tensor would become, the size and what falls back, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// How the types of a mix are changed.
#[derive(Debug, Args)]
pub struct MixArguments {
    /// One type for every matrix, no mix.
    #[arg(long)]
    pub pure: bool,
    /// Type for tensors whose name matches; the first match wins; may be repeated.
    #[arg(long, value_name = "REGEX=TYPE")]
    pub tensor_type: Vec<String>,
    /// Type of the token embedding.
    #[arg(long, value_name = "TYPE")]
    pub token_embedding_type: Option<String>,
    /// Type of the head, where it is not the token embedding.
    #[arg(long, value_name = "TYPE")]
    pub output_tensor_type: Option<String>,
    /// The head keeps the type that it has.
    #[arg(long, conflicts_with = "output_tensor_type")]
    pub leave_output_tensor: bool,
}

/// A matrix to measure, or one to show.
#[derive(Debug, Args)]
pub struct ImatrixArguments {
    /// The base.
    #[arg(required_unless_present = "show")]
    pub model: Option<String>,
    /// Rows (.jsonl, .json, .parquet), each with the chat template, or a text in windows of 512 tokens.
    #[arg(long, value_name = "FILE", required_unless_present = "show")]
    pub data: Option<String>,
    /// The file to write: GGUF, or the older form where it ends in .dat.
    #[arg(long, value_name = "FILE", required_unless_present = "show")]
    pub out: Option<PathBuf>,
    /// Adapter, applied without a merge.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// A general text beside the data, so that the model does not forget what the rows do not hold.
    #[arg(long, value_name = "FILE")]
    pub general: Option<PathBuf>,
    /// Part of all tokens that comes from the general text.
    #[arg(long, value_name = "PART", default_value_t = 0.2)]
    pub general_share: f64,
    /// Only the first rows or windows of the data.
    #[arg(long, value_name = "N")]
    pub chunks: Option<usize>,
    /// Measure the head too, as `output.weight`.
    #[arg(long)]
    pub process_output: bool,
    /// Show what a file of importance holds, and measure nothing.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "data", "out"])]
    pub show: Option<PathBuf>,
}

/// Files to compare.
#[derive(Debug, Args)]
pub struct CompareArguments {
    /// The files.
    #[arg(value_name = "MODEL", required = true)]
    pub models: Vec<String>,
    /// A text, in windows as llama-perplexity cuts it.
    #[arg(long, value_name = "FILE", required_unless_present = "data", conflicts_with = "data")]
    pub text: Option<String>,
    /// Rows as `train` reads them: only what the model learns to write counts.
    #[arg(long, value_name = "FILE")]
    pub data: Option<String>,
    /// What they are held against (default: the largest of them).
    #[arg(long, value_name = "MODEL")]
    pub reference: Option<String>,
    /// Only the first windows or rows.
    #[arg(long, value_name = "N")]
    pub chunks: Option<usize>,
    /// Draw size against divergence.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}
