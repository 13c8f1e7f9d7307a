//! What an evaluation found: every item, and the accuracy over all.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::statistics::Interval;
use crate::statistics::wilson::wilson;
use crate::task::{Item, Task};

/// One item with its response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemResult {
    /// The item's name within the task.
    pub id: String,
    /// Its place in the task, from 0.
    pub index: usize,
    /// sha256 of the question as it stood in its source, as lm-eval hashes it.
    pub doc_hash: String,
    /// sha256 of what the model read.
    pub prompt_hash: String,
    /// sha256 of the right answer.
    pub target_hash: String,
    /// The right answer; for items with choices the index of the right one.
    pub target: String,
    /// The question as it stood in its source.
    pub doc: Value,
    /// What the model read.
    pub prompt: String,
    /// What the model said, or the choice that it finds likeliest.
    pub response: String,
    /// The part of the response that was compared.
    pub extracted: String,
    /// The texts of the choices with what stands before them.
    pub continuations: Vec<String>,
    /// Sum of the natural log-probabilities of each choice's tokens.
    pub logprobs: Vec<f64>,
    /// Whether the response is right: for choices, whether the likeliest is (lm-eval's `acc`).
    pub correct: bool,
    /// For choices, whether the likeliest per character is right (lm-eval's `acc_norm`).
    pub correct_normalized: Option<bool>,
    /// 1 for right, 0 for wrong.
    pub score: f64,
    /// Why there is no response; the item counts as wrong.
    pub error: Option<String>,
}

/// One model on one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Name of the task.
    pub task: String,
    /// What the caller calls the model: `base`, `tuned`, `Q4_K_M`.
    pub model: String,
    /// Solved examples before each question.
    pub few_shot: usize,
    /// The metric's name: `acc`, `exact_match`, `contains`, `verified`.
    pub metric: String,
    /// Every item, in the order of the task.
    pub items: Vec<ItemResult>,
    /// Share of right items.
    pub accuracy: f64,
    /// Share of items whose likeliest choice per character is right, when every item has choices.
    pub accuracy_normalized: Option<f64>,
    /// 95 % interval of `accuracy`.
    pub wilson: Interval,
}

impl Evaluation {
    /// Counts over items in the order of the task.
    pub(crate) fn new(task: &Task, model: &str, items: Vec<ItemResult>) -> Self {
        let share = |right: usize| {
            if items.is_empty() { 0.0 } else { right as f64 / items.len() as f64 }
        };
        let right = items.iter().filter(|item| item.correct).count();
        let normalized: Option<Vec<bool>> = items.iter().map(|item| item.correct_normalized).collect();
        let all_choices = task.items.iter().all(|item| !item.choices.is_empty());
        Self {
            task: task.name.clone(),
            model: model.to_owned(),
            few_shot: task.few_shot,
            metric: if all_choices { "acc".to_owned() } else { task.generation.checker.metric().to_owned() },
            accuracy: share(right),
            accuracy_normalized: normalized.map(|all| share(all.iter().filter(|&&right| right).count())),
            wilson: wilson(right, items.len(), 0.95),
            items,
        }
    }

    /// How many items are right.
    pub fn correct(&self) -> usize {
        self.items.iter().filter(|item| item.correct).count()
    }

    /// How many items have no response.
    pub fn failed(&self) -> usize {
        self.items.iter().filter(|item| item.error.is_some()).count()
    }

    /// The result in one line: `84.0 % (95 %: 76.2 to 89.6) of 100 items`.
    pub fn summary(&self) -> String {
        format!(
            "{:.1} % (95 %: {:.1} to {:.1}) of {} {}",
            100.0 * self.accuracy,
            100.0 * self.wilson.low,
            100.0 * self.wilson.high,
            self.items.len(),
            if self.items.len() == 1 { "item" } else { "items" },
        )
    }
}

/// Hexadecimal sha256.
pub(crate) fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        hex.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        hex.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        hex
    })
}

/// lm-eval's hash of a question.
pub(crate) fn doc_hash(item: &Item) -> String {
    pretty_hash(&item.doc)
}

/// sha256 of Python's `json.dumps(value, indent=2, ensure_ascii=False)`, which is the pretty form here too.
pub(crate) fn pretty_hash(value: &Value) -> String {
    sha256(&serde_json::to_string_pretty(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_python_makes_them() {
        assert_eq!(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        // hashlib.sha256(json.dumps({"q": "é", "c": ["a", 1], "e": []}, indent=2, ensure_ascii=False).encode()).hexdigest()
        let doc: Value = serde_json::from_str(r#"{"q": "é", "c": ["a", 1], "e": []}"#).unwrap();
        assert_eq!(
            sha256(&serde_json::to_string_pretty(&doc).unwrap()),
            "91e4d8da7843ccd4b97e0ae80d34b680a71f61785334d6f3740db9eeb73e22b0"
        );
    }
}
