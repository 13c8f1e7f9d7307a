//! The command line of `pipeline data`.

use super::clean::CleanArguments;
use clap::{Args, Subcommand, ValueEnum};
use espalier_dataset::{OutputForm, SplitBy};
use std::path::PathBuf;

/// Where rows lie.
#[derive(Debug, Clone, Args)]
pub struct RowsArgument {
    /// Table of rows, or the folder of a data set.
    pub rows: PathBuf,
    /// Version of the data set; its newest otherwise.
    #[arg(long, value_name = "N")]
    pub version: Option<u32>,
}

/// Which rows are meant.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArguments {
    /// Only rows of this leaf or branch.
    #[arg(long, value_name = "PATH")]
    pub leaf: Option<String>,
    /// Only rows of this flow.
    #[arg(long, value_name = "NAME")]
    pub flow: Option<String>,
    /// Only rows whose reason has these words.
    #[arg(long, value_name = "WORDS")]
    pub reason: Option<String>,
    /// Only rows in whose turns these words stand, in any case.
    #[arg(long, value_name = "WORDS")]
    pub text: Option<String>,
    /// Only accepted rows.
    #[arg(long, conflicts_with = "rejected")]
    pub accepted: bool,
    /// Only rejected rows.
    #[arg(long)]
    pub rejected: bool,
    /// Only rows that are held out for evaluation.
    #[arg(long)]
    pub held_out: bool,
}

/// Forms of other tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum FormArgument {
    /// ilab's phase 0.7: knowledge with its documents, all of it learned.
    KnowledgeTrainMsgs,
    /// ilab's phase 1.0: knowledge behind documents, and skills.
    SkillsTrainMsgs,
    /// Messages with metadata.
    Messages,
    /// A folder with train.jsonl and test.jsonl of system, user and assistant.
    TrainTest,
    /// instruction, input and output.
    Alpaca,
    /// conversations of from and value.
    Sharegpt,
    /// The folder that `ilab data generate` leaves behind: leaves, recipes, mixtures.
    Instructlab,
    /// A folder of tasks of multiple choice for lm-evaluation-harness.
    LmEval,
}

impl From<FormArgument> for OutputForm {
    fn from(form: FormArgument) -> Self {
        match form {
            FormArgument::KnowledgeTrainMsgs => Self::KnowledgeTrainMsgs,
            FormArgument::SkillsTrainMsgs => Self::SkillsTrainMsgs,
            FormArgument::Messages => Self::Messages,
            FormArgument::TrainTest => Self::TrainTest,
            FormArgument::Alpaca => Self::Alpaca,
            FormArgument::Sharegpt => Self::ShareGpt,
            FormArgument::Instructlab => Self::Instructlab,
            FormArgument::LmEval => Self::LmEval,
        }
    }
}

/// What rows on different sides may not share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitArgument {
    /// A chunk of a document.
    Chunk,
    /// A document.
    Document,
    /// A document, or a seed example.
    Seed,
}

impl From<SplitArgument> for SplitBy {
    fn from(by: SplitArgument) -> Self {
        match by {
            SplitArgument::Chunk => Self::Chunk,
            SplitArgument::Document => Self::Document,
            SplitArgument::Seed => Self::Seed,
        }
    }
}

/// How rows are converted.
#[derive(Debug, Clone, Args)]
pub struct ConvertArguments {
    /// What to write.
    #[arg(long, value_enum, value_name = "FORM")]
    pub to: FormArgument,
    /// File or folder to write.
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// System prompt of every line, in place of its own.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub system: String,
    /// Seed of the documents that questions stand behind.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Instructions of the tasks beside the questions: a pipeline of ilab's, or a mapping from kinds to lists.
    #[arg(long, value_name = "FILE")]
    pub auxiliary: Option<PathBuf>,
    /// Mix so many lines of each skill (of `instructlab`; all otherwise, ilab takes 30).
    #[arg(long, value_name = "N")]
    pub per_skill: Option<u64>,
    /// Draw lines with replacement, as ilab does (of `instructlab`).
    #[arg(long)]
    pub legacy: bool,
    /// Skills tree whose seed examples become test.jsonl, as with ilab (of `instructlab`).
    #[arg(long, value_name = "PATH")]
    pub taxonomy: Option<PathBuf>,
}

/// Rows.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Rows as text, the first that fit.
    #[command(
        after_help = "Examples:\n  pipeline data show --rejected runs/quickstart/rows/rows.parquet\n  pipeline data show rows/ --version 2 --leaf knowledge/ponds --text carp"
    )]
    Show {
        /// Where the rows lie.
        #[command(flatten)]
        rows: RowsArgument,
        /// Which of them.
        #[command(flatten)]
        filter: FilterArguments,
        /// How many.
        #[arg(long, default_value_t = 10)]
        limit: usize,
    },
    /// Rows as text, drawn from all that fit.
    #[command(after_help = "Example:\n  pipeline data sample runs/quickstart/rows/rows.parquet --count 3 --rejected")]
    Sample {
        /// Where the rows lie.
        #[command(flatten)]
        rows: RowsArgument,
        /// Which of them.
        #[command(flatten)]
        filter: FilterArguments,
        /// How many.
        #[arg(long, default_value_t = 5)]
        count: usize,
        /// Seed of the draw.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Counts and lengths, of all and by leaf.
    #[command(
        after_help = "Examples:\n  pipeline data stats runs/quickstart/rows/rows.parquet\n  pipeline data stats rows/ --by leaf,reason --rejected"
    )]
    Stats {
        /// Where the rows lie.
        #[command(flatten)]
        rows: RowsArgument,
        /// Which of them.
        #[command(flatten)]
        filter: FilterArguments,
        /// Count by these columns: leaf, kind, flow, block, reason, verdict, split, document, model, license.
        #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
        by: Vec<String>,
    },
    /// What became of the rows of each leaf.
    #[command(after_help = "Example:\n  pipeline data funnel runs/quickstart/rows/rows.parquet")]
    Funnel {
        /// Where the rows lie.
        #[command(flatten)]
        rows: RowsArgument,
    },
    /// What differs between two tables, or two versions of a data set.
    #[command(
        after_help = "Examples:\n  pipeline data diff before/rows.parquet after/rows.parquet\n  pipeline data diff rows/ --from 1 --to 2"
    )]
    Diff {
        /// Table of rows, or the folder of a data set.
        before: PathBuf,
        /// What it is compared with; the same data set otherwise.
        after: Option<PathBuf>,
        /// Version of the first.
        #[arg(long, value_name = "N")]
        from: Option<u32>,
        /// Version of the second.
        #[arg(long, value_name = "N")]
        to: Option<u32>,
        /// How many rows of each kind are named.
        #[arg(long, default_value_t = 10)]
        limit: usize,
    },
    /// Where a row comes from: leaf, seeds, chunk, prompt, answer, judges, verdict.
    #[command(after_help = "Example:\n  pipeline data why runs/quickstart/rows/rows.parquet 3f9a1c")]
    Why {
        /// Where the rows lie.
        #[command(flatten)]
        rows: RowsArgument,
        /// Row id, or how it begins.
        id: String,
    },
    /// The data card: leaves, licences, sources, teacher, what was left out.
    #[command(after_help = "Example:\n  pipeline data card runs/quickstart/rows/rows.parquet --out CARD.md")]
    Card {
        /// Where the rows lie.
        #[command(flatten)]
        rows: RowsArgument,
        /// Name of the data set; that of its folder otherwise.
        #[arg(long)]
        name: Option<String>,
        /// File to write; standard output otherwise.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// The versions of a data set.
    #[command(after_help = "Example:\n  pipeline data versions rows/ --verify")]
    Versions {
        /// Folder of the data set.
        folder: PathBuf,
        /// Read every part of the newest version and compare its hash.
        #[arg(long)]
        verify: bool,
    },
    /// Write accepted rows as other tools read them.
    #[command(
        after_help = "Examples:\n  pipeline data convert rows.parquet --to skills_train_msgs --out skills_train_msgs.jsonl\n  pipeline data convert rows.parquet --to instructlab --out generated/ --taxonomy taxonomy/ --system 'You answer shortly.'\n  pipeline data convert rows.parquet --to lm_eval --out tasks/"
    )]
    Convert {
        /// Where the rows lie.
        #[command(flatten)]
        rows: RowsArgument,
        /// What is written.
        #[command(flatten)]
        options: ConvertArguments,
    },
    /// Reject near-duplicates, faults and items of benchmarks, and mask what is personal, in one pass over a file of any size. Without
    /// a check named: near-duplicates from 0.8 on, and every rule.
    #[command(
        after_help = "Examples:\n  pipeline data clean --input rows.jsonl --output clean.jsonl\n  pipeline data clean --input rows.parquet --output clean.parquet --minhash 0.8 --rules --mask-pii --decontaminate mmlu.jsonl --report funnel.json\n  pipeline data clean --input rows.jsonl --dry-run --rules repetition,refusal"
    )]
    Clean(CleanArguments),
    /// Mix sources by a recipe, ours or ilab's, into one file of messages.
    #[command(after_help = "Example:\n  pipeline data mix recipe.yaml --out train.jsonl")]
    Mix {
        /// The recipe.
        recipe: PathBuf,
        /// File to write.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Draw with replacement, as ilab does with its recipes.
        #[arg(long)]
        legacy: bool,
    },
    /// Hold rows out for evaluation, so that none shares a chunk with what is trained on.
    #[command(after_help = "Example:\n  pipeline data split rows.parquet --held-out 0.1 --out split.parquet")]
    Split {
        /// Where the rows lie.
        #[command(flatten)]
        rows: RowsArgument,
        /// Share of the rows that is held out.
        #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
        held_out: f64,
        /// What both sides may not share.
        #[arg(long, value_enum, default_value_t = SplitArgument::Document)]
        by: SplitArgument,
        /// Seed of the draw.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Table to write.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}
