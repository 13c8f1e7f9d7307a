//! The command lines of `pipeline taxonomy preview|diff|lint|new`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What is to be shown.
#[derive(Debug, Args)]
pub struct PreviewArgs {
    /// Leaf, tree or document.
    pub path: PathBuf,
    /// How many questions a template draws.
    #[arg(long, default_value_t = 8)]
    pub samples: usize,
    /// Seed of the draws.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Model whose tokens are counted; without it, words are.
    #[arg(long)]
    pub model: Option<String>,
    /// Longest chunk in tokens.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub chunk_tokens: u32,
    /// How many tokens of the chunk before it a chunk repeats, in whole sentences.
    #[arg(long, default_value_t = 0)]
    pub chunk_overlap: u32,
    /// Print the whole text of each document too.
    #[arg(long)]
    pub text: bool,
}

/// What is to be compared.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The older state, a folder or a file that --save wrote, and the newer tree; with --git or --save the tree alone.
    #[arg(required = true, num_args = 1..=2)]
    pub paths: Vec<PathBuf>,
    /// Compare with what the tree was at this commit, branch or tag.
    #[arg(long, value_name = "REF", conflicts_with = "save")]
    pub git: Option<String>,
    /// Keep the state of the tree in this file, to compare with later.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}

/// What is looked for.
#[derive(Debug, Args)]
pub struct LintArgs {
    /// Trees or leaves.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Questions that the model will be measured by, a JSON object a line; may be given several times.
    #[arg(long, value_name = "FILE.jsonl")]
    pub against: Vec<PathBuf>,
    /// Model whose tokens are counted; without it, words are.
    #[arg(long)]
    pub model: Option<String>,
    /// Longest seed with its context, in tokens.
    #[arg(long, default_value_t = 750)]
    pub seed_tokens: usize,
    /// Share of words in a row from which on two seeds are nearly the same, 0.1 to 1.
    #[arg(long, default_value_t = 0.8, value_parser = share)]
    pub near: f64,
    /// End with exit code 2 when anything is found.
    #[arg(long)]
    pub deny: bool,
    /// Print messages as GitHub annotations.
    #[arg(long)]
    pub github: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text} is not a number"))?;
    if (0.1..=1.0).contains(&value) { Ok(value) } else { Err(format!("{text} is not from 0.1 to 1")) }
}

/// What is to be made.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Folder of the leaf; made when it is not there.
    pub path: PathBuf,
    /// What the leaf is to teach.
    #[arg(long, value_enum, default_value_t = NewKind::Skill)]
    pub kind: NewKind,
    /// Who writes the leaf.
    #[arg(long, env = "USER", default_value = "somebody", hide_env = true)]
    pub author: String,
    /// Propose a knowledge leaf on this document, or on the documents of this folder.
    #[arg(long, value_name = "DOCUMENTS", requires = "model")]
    pub from: Option<PathBuf>,
    /// Model that proposes questions and answers.
    #[arg(long)]
    pub model: Option<String>,
    /// Propose with OpenAI-compatible servers instead of the native engine (see docs/servers.md).
    #[arg(long, value_name = "native|URL,...", default_value = "native")]
    pub engine: String,
    /// Seed of the proposals.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Make a proposal that was read and mended the leaf.
    #[arg(long, conflicts_with = "from")]
    pub accept: bool,
}

/// A form of leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NewKind {
    /// Questions that need nothing but themselves.
    Skill,
    /// Questions about a text that comes with them.
    Grounded,
    /// Questions about a document.
    Knowledge,
}
