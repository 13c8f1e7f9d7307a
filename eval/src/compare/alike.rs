//! Whether two sheets may be compared, and which part differs where they may not.

use super::sheet::{Conditions, ScoreSheet, ScoredItem};
use crate::error::EvalError;

/// Refuses sheets of other tasks, items, answers, prompts or metrics.
pub(super) fn check(first: &ScoreSheet, second: &ScoreSheet) -> Result<(), EvalError> {
    match difference(first, second) {
        None => Ok(()),
        Some(problem) => {
            Err(EvalError::NotComparable { first: first.model.clone(), second: second.model.clone(), problem })
        }
    }
}

fn difference(first: &ScoreSheet, second: &ScoreSheet) -> Option<String> {
    if first.task != second.task {
        return Some(format!("the tasks are {:?} and {:?}", first.task, second.task));
    }
    let task = &first.task;
    if first.metric != second.metric {
        return Some(format!("task {task:?} was measured by {} and by {}", first.metric, second.metric));
    }
    if first.items.is_empty() || first.items.len() != second.items.len() {
        return Some(format!("of task {task:?} they have {} and {} items", first.items.len(), second.items.len()));
    }
    for (a, b) in first.items.iter().zip(&second.items) {
        if a.doc_hash != b.doc_hash {
            return Some(format!("item {} of task {task:?} differs in its question", a.id));
        }
        if a.target_hash != b.target_hash {
            return Some(format!("item {} of task {task:?} differs in its right answer", a.id));
        }
        if a.prompt_hash != b.prompt_hash {
            let part = prompt_part(&first.conditions, &second.conditions)
                .unwrap_or_else(|| format!("prompt: {}", first_difference(a, b)));
            return Some(format!("item {} of task {task:?} differs in its {part}", a.id));
        }
    }
    let nan = |sheet: &ScoreSheet| {
        let item = sheet.items.iter().find(|item| item.score.is_nan())?;
        Some(format!("item {} of task {task:?} has no score of {}", item.id, sheet.model))
    };
    nan(first).or_else(|| nan(second))
}

/// Which condition made the prompts unlike.
fn prompt_part(first: &Conditions, second: &Conditions) -> Option<String> {
    fn unlike<'a, T: PartialEq>(a: Option<&'a T>, b: Option<&'a T>) -> Option<(&'a T, &'a T)> {
        a.zip(b).filter(|(a, b)| a != b)
    }
    if let Some((a, b)) = unlike(first.few_shot.as_ref(), second.few_shot.as_ref()) {
        return Some(format!("few-shot examples: {a} and {b}"));
    }
    if unlike(first.system_prompt.as_ref(), second.system_prompt.as_ref()).is_some() {
        return Some("system prompt".to_owned());
    }
    if let Some((a, b)) = unlike(first.chat_template.as_ref(), second.chat_template.as_ref()) {
        let what = if a.is_empty() || b.is_empty() { ": one has none" } else { "" };
        return Some(format!("chat template{what}"));
    }
    if unlike(first.few_shot_turns.as_ref(), second.few_shot_turns.as_ref()).is_some() {
        return Some("few-shot examples: turns of a conversation in one, a text in the other".to_owned());
    }
    unlike(first.tokenizer.as_ref(), second.tokenizer.as_ref())
        .map(|(a, b)| format!("tokenizer: its special tokens are {a} and {b}"))
}

/// Where two prompts part: `"...the sky?\nA" against "...the sky? A"`.
fn first_difference(a: &ScoredItem, b: &ScoredItem) -> String {
    const BEFORE: usize = 16;
    const AFTER: usize = 24;
    let same = a.prompt.chars().zip(b.prompt.chars()).take_while(|(a, b)| a == b).count();
    let piece = |text: &str| {
        let piece: String = text.chars().skip(same.saturating_sub(BEFORE)).take(BEFORE + AFTER).collect();
        format!("{piece:?}")
    };
    if a.prompt == b.prompt {
        return "its hashes differ, though the texts in the files are the same".to_owned();
    }
    format!("from character {} on it reads {} against {}", same + 1, piece(&a.prompt), piece(&b.prompt))
}
