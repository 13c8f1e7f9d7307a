//! One sample and where it comes from.

use serde::{Deserialize, Serialize};

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

/// One generated sample with its lineage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Licence of the work that the leaf draws on.
    pub license: Option<String>,
}

impl Row {
    /// The first user turn.
    pub fn question(&self) -> Option<&str> {
        self.turns.iter().find(|turn| turn.role == "user").map(|turn| turn.content.as_str())
    }

    /// The part of the reason before the first `: `: what a funnel counts.
    pub fn reason_category(&self) -> &str {
        self.reason.split_once(": ").map_or(self.reason.as_str(), |(category, _)| category)
    }
}
