//! What a comparison sees of an evaluation: one score an item, and under which conditions it came about.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::evaluation::Evaluation;

/// The scores of one model on one task, from an [`Evaluation`] or from the files of lm-eval (see [`super::read_sheets`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreSheet {
    /// Name of the task.
    pub task: String,
    /// Name of the model.
    pub model: String,
    /// What the scores measure: `acc`, `exact_match,strict-match`.
    pub metric: String,
    /// Whether a higher score is the worse one, as of perplexity.
    pub lower_is_better: bool,
    /// What else decides the scores.
    pub conditions: Conditions,
    /// Every item, in the order of the task.
    pub items: Vec<ScoredItem>,
}

/// What must be alike in two evaluations besides the items. What a file does not say is left out and taken to be alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Solved examples before each question.
    pub few_shot: Option<usize>,
    /// The chat template, or its hash; empty where none was applied.
    pub chat_template: Option<String>,
    /// The system prompt, or its hash; empty where there was none.
    pub system_prompt: Option<String>,
    /// Whether the examples were turns of the conversation.
    pub few_shot_turns: Option<bool>,
    /// What names the tokenizer: its special tokens.
    pub tokenizer: Option<String>,
}

/// One item with its score.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoredItem {
    /// Names the item within the task.
    pub id: String,
    /// Hash of the question as it stood in its source.
    pub doc_hash: String,
    /// Hash of what the model read.
    pub prompt_hash: String,
    /// Hash of the right answer.
    pub target_hash: String,
    /// What the model read.
    pub prompt: String,
    /// What was compared with the right answer.
    pub response: String,
    /// The score.
    pub score: f64,
    /// Hash of the text that the question is about, where it has one: questions about one text hang together.
    pub cluster: Option<String>,
}

impl From<&Evaluation> for ScoreSheet {
    fn from(evaluation: &Evaluation) -> Self {
        let items = evaluation.items.iter().map(|item| ScoredItem {
            id: item.id.clone(),
            doc_hash: item.doc_hash.clone(),
            prompt_hash: item.prompt_hash.clone(),
            target_hash: item.target_hash.clone(),
            prompt: item.prompt.clone(),
            response: item.extracted.clone(),
            score: item.score,
            cluster: cluster_of(&item.doc),
        });
        Self {
            task: evaluation.task.clone(),
            model: evaluation.model.clone(),
            metric: evaluation.metric.clone(),
            lower_is_better: false,
            conditions: Conditions { few_shot: Some(evaluation.few_shot), ..Conditions::default() },
            items: items.collect(),
        }
    }
}

impl ScoreSheet {
    /// What a higher score counts for: -1 where it is the worse one.
    pub(super) fn sign(&self) -> f64 {
        if self.lower_is_better { -1.0 } else { 1.0 }
    }

    /// The scores in the order of the items.
    pub(super) fn scores(&self) -> Vec<f64> {
        self.items.iter().map(|item| item.score).collect()
    }

    /// The number of each item's cluster, where some items share one. An item without a text is a cluster of its own.
    pub(super) fn clusters(&self) -> Option<Vec<usize>> {
        let mut names: HashMap<&str, usize> = HashMap::new();
        let mut count = 0;
        let clusters: Vec<usize> = self
            .items
            .iter()
            .map(|item| {
                let next = count;
                let number = item.cluster.as_deref().map_or(next, |name| *names.entry(name).or_insert(next));
                count += usize::from(number == next);
                number
            })
            .collect();
        (count < self.items.len()).then_some(clusters)
    }

    /// Without the items of which `ids` holds the name: the scores that contamination leaves.
    #[must_use]
    pub fn without(&self, ids: &HashSet<&str>) -> Self {
        let items = self.items.iter().filter(|item| !ids.contains(item.id.as_str())).cloned().collect();
        Self { items, ..self.clone() }
    }
}

/// Names under which questions keep the text that they are about.
const TEXTS: [&str; 5] = ["passage", "context", "article", "story", "document"];

/// The hash of the text that a question is about.
pub(crate) fn cluster_of(doc: &Value) -> Option<String> {
    let text = TEXTS.iter().find_map(|name| doc.get(*name)?.as_str())?;
    (!text.trim().is_empty()).then(|| crate::evaluation::sha256(text.trim()))
}
