//! What a leaf holds, whatever form it was written in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::attribution::Work;

/// What a leaf teaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeafKind {
    /// Questions that need nothing but themselves.
    #[default]
    FreeformSkill,
    /// Questions about a context that comes with them.
    GroundedSkill,
    /// Questions about a document.
    Knowledge,
}

impl LeafKind {
    /// `freeform_skill`, `grounded_skill` or `knowledge`.
    pub fn name(self) -> &'static str {
        match self {
            Self::FreeformSkill => "freeform_skill",
            Self::GroundedSkill => "grounded_skill",
            Self::Knowledge => "knowledge",
        }
    }
}

impl fmt::Display for LeafKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The form that a leaf is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeafVersion {
    /// `InstructLab`, `version: 1` or no version.
    V1,
    /// `InstructLab`, `version: 2`.
    V2,
    /// `InstructLab`, `version: 3`.
    V3,
    /// Ours, `espalier: 1`.
    #[default]
    Espalier1,
}

/// An example written by a human.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The question.
    pub question: String,
    /// The answer that a good model gives.
    pub answer: String,
    /// The text that the question is about. Seeds of one context stand one after another.
    pub context: Option<String>,
    /// What was said before the question, in a seed of several turns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Exchange>,
    /// Line of the question in the leaf's file, from 1.
    pub line: usize,
}

/// What a user said and what was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exchange {
    /// The user's words.
    pub user: String,
    /// The answer to them.
    pub assistant: String,
}

/// A held-out question: it never reaches a prompt of generation nor a training row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestItem {
    /// The question.
    pub question: String,
    /// The right answer; with choices, one of them word by word.
    pub answer: String,
    /// The choices of a multiple-choice item; empty when the answer is to be generated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// The text that the question is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Values of slots that no generated question may have together: what makes test and training disjoint in substance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<BTreeMap<String, serde_json::Value>>,
    /// Line of the row in its file, from 1.
    #[serde(skip)]
    pub line: usize,
}

/// A text that knowledge questions are about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The file, as reached from the path that was given.
    pub path: PathBuf,
    /// Its text, with `\n` as line end.
    pub text: String,
}

/// How questions are made without a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QuestionTemplate {
    /// The question as a jinja template over slots and derived values.
    pub template: String,
    /// What is drawn by seed.
    pub slots: BTreeMap<String, Slot>,
    /// Jinja expressions over slots and other derived values; evaluated in the order that they need each other in.
    pub derive: BTreeMap<String, String>,
}

/// The values that a slot may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// One of these texts.
    List(Vec<String>),
    /// `from`, `from + step`, ... up to `to`, both ends included.
    IntegerRange {
        /// Lowest value.
        from: i64,
        /// Highest value.
        to: i64,
        /// Distance of neighbours, 1 or more.
        step: i64,
    },
    /// A day between two, both included; written YYYY-MM-DD.
    DateRange {
        /// First day.
        from: String,
        /// Last day.
        to: String,
    },
    /// A decimal number with a fixed number of digits after the point, both ends included.
    DecimalRange {
        /// Lowest value.
        from: f64,
        /// Highest value.
        to: f64,
        /// Digits after the point.
        decimals: u32,
    },
}

/// How an answer is checked by a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// The answer must equal the value of a jinja expression over slots and derived values.
    Exact {
        /// Gives the truth.
        expression: String,
        /// Whether upper and lower case are the same.
        ignore_case: bool,
    },
    /// The answer must match a regular expression somewhere.
    Regex {
        /// In the syntax of the `regex` crate.
        pattern: String,
    },
    /// The answer must be JSON that conforms to a schema.
    JsonSchema {
        /// A JSON Schema, draft 2020-12 unless it says another.
        schema: serde_json::Value,
    },
    /// A jinja expression over slots, derived values, `question`, `answer` and `context` must be true.
    Expression {
        /// Gives true or false.
        expression: String,
    },
    /// The answer's last number must be near the value of a jinja expression over slots and derived values.
    Numeric {
        /// Gives the truth: a number, with its unit where it has one.
        expression: String,
        /// How far the answer may lie from it.
        tolerance: f64,
    },
    /// The answer must pass one of these.
    AnyOf(Vec<Verify>),
    /// The answer must pass each of these.
    AllOf(Vec<Verify>),
}

impl Verify {
    /// The expression that gives the truth, where the check (or the first part of it that has one) compares with a truth.
    pub fn truth(&self) -> Option<&str> {
        match self {
            Self::Exact { expression, .. } | Self::Numeric { expression, .. } => Some(expression),
            Self::AnyOf(parts) | Self::AllOf(parts) => parts.iter().find_map(Self::truth),
            Self::Regex { .. } | Self::JsonSchema { .. } | Self::Expression { .. } => None,
        }
    }

    /// Every expression in it.
    pub fn expressions(&self) -> Vec<&str> {
        match self {
            Self::Exact { expression, .. } | Self::Numeric { expression, .. } | Self::Expression { expression } => {
                vec![expression]
            }
            Self::AnyOf(parts) | Self::AllOf(parts) => parts.iter().flat_map(Self::expressions).collect(),
            Self::Regex { .. } | Self::JsonSchema { .. } => Vec::new(),
        }
    }
}

/// A place in a leaf's file; zero when the leaf does not have the thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// Where the parts that other crates check stand, so that their findings have a place too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The value of `questions.template`.
    pub template: Place,
    /// The value of `verify`.
    pub verify: Place,
    /// Each slot's value.
    pub slots: BTreeMap<String, Place>,
    /// Each derived value's expression.
    pub derive: BTreeMap<String, Place>,
}

/// One thing that a model is to learn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Leaf {
    /// Path of the folder below the root of the tree, with `/`; the folder's own name when the root itself is the leaf.
    pub id: String,
    /// The `qna.yaml`, as reached from the path that was given.
    pub file: PathBuf,
    /// The form that it is written in.
    pub version: LeafVersion,
    /// What it teaches.
    pub kind: LeafKind,
    /// Who wrote it.
    pub created_by: String,
    /// What the skill is; empty in knowledge leaves.
    pub task_description: String,
    /// What field the knowledge is from.
    pub domain: Option<String>,
    /// What the document is about, in a few words.
    pub document_outline: Option<String>,
    /// The examples, in the order of the file.
    pub seeds: Vec<Seed>,
    /// The local documents.
    pub documents: Vec<Document>,
    /// How questions are made without a model.
    pub questions: Option<QuestionTemplate>,
    /// How answers are checked.
    pub verify: Option<Verify>,
    /// The held-out questions.
    pub test: Vec<TestItem>,
    /// The file that they stand in, as reached from the path that was given.
    pub test_file: Option<PathBuf>,
    /// How many samples the leaf wants.
    pub samples: Option<usize>,
    /// The flow that makes them: the name of a shipped one, or a YAML file in the leaf's folder.
    pub flow: Option<String>,
    /// The temperature that the teacher writes at, 0 to 2.
    pub temperature: Option<f64>,
    /// How often training takes each of the leaf's rows in an epoch, against once for a leaf that does not say.
    pub weight: Option<f64>,
    /// The language of its questions and answers, as a BCP 47 tag such as `en` or `pt-BR`.
    pub language: Option<String>,
    /// The works that `attribution.txt` beside the leaf names.
    pub works: Vec<Work>,
    /// Their licences as an SPDX expression; what is stated in place of an identifier that is not known.
    pub license: Option<String>,
    /// Hexadecimal sha256 of the leaf's content, documents and test included; names of files and folders do not matter.
    pub hash: String,
    /// Where parts of it stand in the file.
    pub places: Places,
}
