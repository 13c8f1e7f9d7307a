//! The command line of `pipeline data clean`.

use clap::{Args, ValueEnum};
use espalier_dataset::quality::{Compared, Language, Rule};
use std::path::PathBuf;

/// What of a row is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ComparedArgument {
    /// Questions and answers.
    Conversation,
    /// Questions: another answer to the same one is a near-duplicate.
    Question,
}

impl From<ComparedArgument> for Compared {
    fn from(compared: ComparedArgument) -> Self {
        match compared {
            ComparedArgument::Conversation => Self::Conversation,
            ComparedArgument::Question => Self::Question,
        }
    }
}

/// How rows are cleaned.
#[derive(Debug, Clone, Args)]
pub struct CleanArguments {
    /// Rows: a table of ours (.parquet), or lines of JSON in any form that training reads.
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// File to write: a table of a table, with its rejected rows; lines of lines, only the kept ones.
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    /// Reject near-duplicates from this similarity on.
    #[arg(long, value_name = "SIMILARITY", num_args = 0..=1, default_missing_value = "0.8", value_parser = similarity)]
    pub minhash: Option<f64>,
    /// What near-duplicates are compared by.
    #[arg(long, value_enum, value_name = "WHAT", default_value = "conversation")]
    pub compare: ComparedArgument,
    /// A model that makes vectors of texts: rows that say the same in other words are rejected, and with --decontaminate rows that
    /// ask what an item asks.
    #[arg(long, value_name = "MODEL")]
    pub embedder: Option<String>,
    /// From which cosine of its vectors two texts say the same [default: 0.95 of a model that was made for vectors].
    #[arg(long, value_name = "COSINE", requires = "embedder", value_parser = cosine)]
    pub same_meaning: Option<f32>,
    /// Rows that count as kept: seeds, tests.
    #[arg(long, value_name = "FILE")]
    pub against: Vec<PathBuf>,
    /// Index of the rows that earlier runs kept; it is made where there is none, and those kept here are added.
    #[arg(long, value_name = "FILE")]
    pub index: Option<PathBuf>,
    /// Reject rows that break one of these rules, without names any of all; docs/rows.md says what they are.
    #[arg(long, value_name = "NAME,...", num_args = 0..=1, default_missing_value = "all", value_parser = rules)]
    pub rules: Option<RuleList>,
    /// Language that answers must be in, as `en` or `German`.
    #[arg(long, value_name = "LANGUAGE", value_parser = language)]
    pub language: Option<Language>,
    /// Put what they are in the place of e-mail addresses, telephone numbers, cards, accounts, host addresses and keys.
    #[arg(long)]
    pub mask_pii: bool,
    /// Reject rows that hold an item of this benchmark: lines of JSON with question, choices and answer.
    #[arg(long, value_name = "FILE")]
    pub decontaminate: Vec<PathBuf>,
    /// Write what became of the rows, with both sides of each hit.
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
    /// Write rejected rows with their reasons, one a line.
    #[arg(long, value_name = "FILE.jsonl")]
    pub rejected: Option<PathBuf>,
    /// Say what would be rejected and write no rows.
    #[arg(long)]
    pub dry_run: bool,
}

/// Rules by name.
#[derive(Debug, Clone)]
pub struct RuleList(pub Vec<Rule>);

fn similarity(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if value > 0.0 && value <= 1.0 { Ok(value) } else { Err(format!("{text} is not between 0 and 1")) }
}

/// A cosine from which two texts are said to say the same.
pub(super) fn cosine(text: &str) -> Result<f32, String> {
    similarity(text).map(|value| value as f32)
}

fn rules(text: &str) -> Result<RuleList, String> {
    if text == "all" {
        return Ok(RuleList(Rule::ALL.to_vec()));
    }
    let known = || Rule::ALL.map(Rule::name).join(", ");
    let rule = |name: &str| {
        Rule::from_name(name.trim())
            .ok_or_else(|| format!("there is no rule `{name}`; there are {}, and `all`", known()))
    };
    text.split(',').map(rule).collect::<Result<_, _>>().map(RuleList)
}

fn language(name: &str) -> Result<Language, String> {
    Language::from_name(name).ok_or_else(|| {
        format!("`{name}` is no language that can be told from others; say its code or its English name, as `en` or `German`")
    })
}
