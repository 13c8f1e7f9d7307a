//! One sample and where it comes from.

use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};

/// One turn of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Turn {
    /// A turn.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// Whether a row may be trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It passed every check.
    Accepted,
    /// It failed one; the reason says which.
    #[default]
    Rejected,
}

impl Verdict {
    /// `accepted` or `rejected`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }

    /// The verdict of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "accepted" => Some(Self::Accepted),
            "rejected" => Some(Self::Rejected),
            _ => None,
        }
    }
}

/// Which half of a data set a row belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// It may be trained on.
    #[default]
    Train,
    /// It is kept for evaluation.
    HeldOut,
}

impl Split {
    /// `train` or `held_out`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::HeldOut => "held_out",
        }
    }

    /// The half of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "train" => Some(Self::Train),
            "held_out" => Some(Self::HeldOut),
            _ => None,
        }
    }
}

/// What a judge or a reward gave a row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// The block that gave it.
    pub block: String,
    /// Finite: what cannot be compared is no score, and a journal refuses it.
    #[serde(serialize_with = "finite")]
    pub score: f64,
}

/// JSON has no word for infinity, and what is written as `null` does not come back.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn finite<S: Serializer>(score: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if score.is_finite() {
        serializer.serialize_f64(*score)
    } else {
        Err(S::Error::custom(format!("the score {score} is not a finite number")))
    }
}

/// One generated sample with its lineage. What the columns of a table of rows mean stands with [`crate::COLUMNS`].
///
/// Fields with a default may lack in the lines of an older journal and in the columns of an older table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// 16 hexadecimal digits of the sha256 over leaf, flow, index and seed.
    pub id: String,
    /// Id of the leaf.
    pub leaf: String,
    /// Kind of the leaf: `freeform_skill`, `grounded_skill`, `knowledge`.
    pub kind: String,
    /// Place among the rows of the leaf.
    pub index: u64,
    /// What is trained on: user and assistant in turn.
    pub turns: Vec<Turn>,
    /// The slots' values, a JSON object; `{}` without slots.
    pub slots: String,
    /// The seeds that stood in the prompt, as numbers from 0 in the leaf.
    pub seed_ids: Vec<String>,
    /// The document that the row is about.
    pub document: Option<String>,
    /// Which flow made it.
    pub flow: String,
    /// Hexadecimal sha256 of the prompt.
    pub prompt_hash: String,
    /// What identifies the teacher.
    pub model: String,
    /// The seed that its tokens were drawn with.
    pub sampling_seed: u64,
    /// What the teacher wrote, untouched.
    pub answer: String,
    /// Whether it may be trained on.
    pub verdict: Verdict,
    /// `category: detail` of a rejection, or the check that it passed.
    pub reason: String,
    /// Licence of the work that the leaf draws on, as its attribution says it.
    pub license: Option<String>,
    /// Hexadecimal sha256 of the chunk of the document that the row is about.
    #[serde(default)]
    pub chunk_hash: Option<String>,
    /// The text of that chunk.
    #[serde(default)]
    pub chunk: Option<String>,
    /// What the flow made of the chunk and then asked about: a summary, a list of facts. Where it asked about the chunk
    /// itself, nothing.
    #[serde(default)]
    pub context: Option<String>,
    /// What kind of text the context is, in the words of the flow: `summary`, `facts` and so on.
    #[serde(default)]
    pub context_kind: Option<String>,
    /// The field that the leaf belongs to, as it says itself.
    #[serde(default)]
    pub domain: Option<String>,
    /// Version of the flow: a hash of its file and prompts.
    #[serde(default)]
    pub flow_version: String,
    /// The block of the flow that wrote the row, or that refused it.
    #[serde(default)]
    pub block: String,
    /// How the teacher was asked (temperature, limit of tokens and so on), a JSON object.
    #[serde(default)]
    pub parameters: String,
    /// What judges and rewards gave, in the order of the flow.
    #[serde(default)]
    pub scores: Vec<Score>,
    /// The checker that looked at the answer, and what it found.
    #[serde(default)]
    pub verifier: Option<String>,
    /// Tokens of the prompt, by the teacher's tokenizer.
    #[serde(default)]
    pub prompt_tokens: u32,
    /// Tokens that the teacher wrote.
    #[serde(default)]
    pub answer_tokens: u32,
    /// What the teacher thought before it answered.
    #[serde(default)]
    pub reasoning: Option<String>,
    /// Whether the row is for training or kept for evaluation.
    #[serde(default)]
    pub split: Split,
    /// SPDX identifiers of the licences of the works that the row draws on.
    #[serde(default)]
    pub licenses: Vec<String>,
    /// How often training takes the row in an epoch, as its leaf says; once where that says nothing.
    #[serde(default)]
    pub leaf_weight: Option<f64>,
}

impl Row {
    /// The first user turn.
    pub fn question(&self) -> Option<&str> {
        self.turns.iter().find(|turn| turn.role == "user").map(|turn| turn.content.as_str())
    }

    /// Whether it is trained on.
    pub fn is_learned(&self) -> bool {
        self.verdict == Verdict::Accepted && self.split == Split::Train
    }

    /// How often an epoch of training takes it, on the average.
    pub fn times_an_epoch(&self) -> f64 {
        if self.is_learned() { self.leaf_weight.unwrap_or(1.0) } else { 0.0 }
    }

    /// The part of the reason before the first `: `: what a funnel counts.
    pub fn reason_category(&self) -> &str {
        self.reason.split_once(": ").map_or(self.reason.as_str(), |(category, _)| category)
    }
}
