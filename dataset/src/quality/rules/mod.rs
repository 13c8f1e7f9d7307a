//! Rules that a question and its answer must keep, without a model.
//!
//! The rules are made for answers of one to some hundred words, not for pages of the web: each looks for a fault that teachers
//! have, and lets pass what only looks unusual (a list, a table, code, a single word).

mod asking;
mod language;
mod leak;
mod length;
mod prose;
mod refusal;
mod repetition;
mod seeds;
mod truncation;

use regex::Regex;
use serde::{Deserialize, Serialize};

pub use language::Language;
pub use length::Bounds;
pub use seeds::Seeds;

use super::sample::Sample;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Question and answer are there, and not longer than [`Bounds`] allow.
    Length,
    /// The question asks something.
    NoQuestion,
    /// The answer says more than the question.
    Echo,
    /// The answer is no refusal.
    Refusal,
    /// No mark of a chat template or prompt stands in the row.
    Leak,
    /// The answer does not go round in circles.
    Repetition,
    /// The answer has an end.
    Truncated,
    /// The answer is in the language that was asked for.
    Language,
    /// The row is not a seed again.
    SeedCopy,
}

impl Rule {
    /// Every rule, in the order in which they are looked at.
    pub const ALL: [Self; 9] = [
        Self::Length,
        Self::NoQuestion,
        Self::Echo,
        Self::Refusal,
        Self::Leak,
        Self::Repetition,
        Self::Truncated,
        Self::Language,
        Self::SeedCopy,
    ];

    /// The word used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::NoQuestion => "no_question",
            Self::Echo => "echo",
            Self::Refusal => "refusal",
            Self::Leak => "leak",
            Self::Repetition => "repetition",
            Self::Truncated => "truncated",
            Self::Language => "language",
            Self::SeedCopy => "seed_copy",
        }
    }

    /// The rule of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// What a funnel counts a row under that breaks the rule.
    pub fn category(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::NoQuestion => "no question",
            Self::Echo => "answer repeats the question",
            Self::Refusal => "refusal",
            Self::Leak => "template leak",
            Self::Repetition => "repetition",
            Self::Truncated => "cut off",
            Self::Language => "wrong language",
            Self::SeedCopy => "copy of a seed",
        }
    }
}

/// A rule that a row breaks, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The rule.
    pub rule: Rule,
    /// What was found.
    pub detail: String,
}

impl Breach {
    /// The reason of the rejection.
    pub fn reason(&self) -> String {
        format!("{}: {}", self.rule.category(), self.detail)
    }
}

/// What is known of a row besides its text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The language that answers are to be in; without one every language is right.
    pub language: Option<Language>,
    /// The seeds that the teacher saw.
    pub seeds: Option<&'a Seeds>,
    /// The instructions that the teacher had, besides the turns of the row.
    pub instructions: Option<&'a str>,
    /// Whether the teacher stopped because it had no tokens left.
    pub out_of_tokens: bool,
    /// Whether a question has to have a question mark: an order is none here.
    pub question_mark: bool,
}

/// The rules that are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Rule>,
    bounds: Bounds,
}

impl Default for Rules {
    fn default() -> Self {
        Self { rules: Rule::ALL.to_vec(), bounds: Bounds::default() }
    }
}

impl Rules {
    /// These rules, looked at in the order of [`Rule::ALL`].
    pub fn new(mut rules: Vec<Rule>, bounds: Bounds) -> Self {
        rules.sort_unstable();
        rules.dedup();
        Self { rules, bounds }
    }

    /// The first rule that a row breaks.
    pub fn check(&self, sample: &Sample<'_>, known: &Known<'_>) -> Option<Breach> {
        let (question, answer) = (sample.question(), sample.answer());
        let broken = |rule: &Rule| -> Option<Breach> {
            let asked = !question.is_empty();
            let detail = match rule {
                Rule::Length => self.bounds.broken(&question, &answer, asked),
                Rule::NoQuestion if asked => asking::asks_nothing(sample, known.question_mark),
                Rule::Echo if asked => asking::echo(&question, &answer),
                Rule::NoQuestion | Rule::Echo => None,
                Rule::Refusal => refusal::refusal(&answer),
                Rule::Leak => leak::leak(sample, known.instructions),
                Rule::Repetition => repetition::repetition(&answer),
                Rule::Truncated => truncation::truncated(&answer, known.out_of_tokens),
                Rule::Language => known.language.and_then(|language| language.contradicted(&answer)),
                Rule::SeedCopy => known.seeds.and_then(|seeds| seeds.copied(&question, &answer)),
            };
            detail.map(|detail| Breach { rule: *rule, detail })
        };
        self.rules.iter().find_map(broken)
    }
}

/// A pattern of ours: tests compile every one.
fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|error| unreachable!("{text}: {error}"))
}

/// The beginning of a text for a reason: one line, not long.
fn excerpt(text: &str) -> String {
    const LETTERS: usize = 60;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LETTERS { line } else { line.chars().take(LETTERS - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests;
