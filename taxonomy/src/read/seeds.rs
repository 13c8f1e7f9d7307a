//! Seed examples: flat ones, and contexts with several questions.

use std::collections::HashMap;

use super::Report;
use super::fields::{Blank, Fields, list, text_or_blank};
use crate::conversation::{ASSISTANT, USER, begins_turn};
use crate::leaf::{Exchange, Place, Seed};
use crate::node::{Node, Value};

/// What a form asks of its examples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Fewest entries of `seed_examples`.
    pub(crate) minimum: usize,
    /// Which equal examples are refused.
    pub(crate) twins: Twins,
    /// Whether texts may be blank.
    pub(crate) blank: Blank,
    /// How an example may look.
    pub(crate) shape: Shape,
    /// Whether an example may have several turns.
    pub(crate) turns: bool,
    /// Fewest entries of `questions_and_answers`.
    pub(crate) minimum_pairs: usize,
    /// Whether other keys beside question and answer are suffered in `questions_and_answers`.
    pub(crate) tolerant_pairs: bool,
}

/// Which equal examples are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twins {
    /// None.
    Suffered,
    /// Items of one list that are equal in all keys, as a JSON schema has it.
    Items,
    /// Questions that have the same answer and context, wherever they stand.
    Questions,
}

/// The keys of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `question`, `answer`, `context?`.
    Flat,
    /// `context`, `questions_and_answers`.
    Grouped,
    /// Either.
    Both,
}

/// Reads `seed_examples`.
pub(crate) fn read(fields: &mut Fields, rules: Rules, report: &mut Report<'_>) -> Vec<Seed> {
    let Some(node) = fields.require("seed_examples", report) else { return Vec::new() };
    let place = node.place;
    let Some(items) = list(node, "seed_examples", report) else { return Vec::new() };
    if items.len() < rules.minimum {
        let missing = rules.minimum - items.len();
        report.error(
            place,
            format!("{}, and the form asks for {} or more", count(items.len(), "seed example"), rules.minimum),
            format!("add {missing} more under `seed_examples`"),
        );
    }
    if rules.twins == Twins::Items {
        refuse_equal_items(&items, "seed example", report);
    }
    let mut seeds = Vec::new();
    for item in items {
        let Some(mut example) = Fields::of(item, "a seed example", report) else { continue };
        let grouped = match rules.shape {
            Shape::Flat => false,
            Shape::Grouped => true,
            Shape::Both => example.has("questions_and_answers"),
        };
        if grouped {
            grouped_example(&mut example, rules, &mut seeds, report);
        } else {
            let context = match example.take("context") {
                Some((_, node)) => text_or_blank(node, "context", rules.blank, report).map(|(text, _)| text),
                None => None,
            };
            match rules.turns.then(|| example.take("turns")).flatten() {
                Some((_, node)) => seeds.extend(turns(node, context, report)),
                None => seeds.extend(pair(&mut example, context, rules.blank, report)),
            }
        }
        example.refuse_the_rest(report);
    }
    if rules.twins == Twins::Questions {
        refuse_twins(&seeds, report);
    }
    seeds
}

fn grouped_example(example: &mut Fields, rules: Rules, seeds: &mut Vec<Seed>, report: &mut Report<'_>) {
    let context = example.text_or_blank("context", rules.blank, report);
    let Some(node) = example.require("questions_and_answers", report) else { return };
    let place = node.place;
    let Some(pairs) = list(node, "questions_and_answers", report) else { return };
    if pairs.len() < rules.minimum_pairs {
        let missing = rules.minimum_pairs - pairs.len();
        report.error(
            place,
            format!("{}, and the form asks for {} or more", count(pairs.len(), "question"), rules.minimum_pairs),
            format!("add {missing} more about this context"),
        );
    }
    if rules.twins == Twins::Items {
        refuse_equal_items(&pairs, "question", report);
    }
    for item in pairs {
        let Some(mut fields) = Fields::of(item, "a question with its answer", report) else { continue };
        seeds.extend(pair(&mut fields, context.clone(), rules.blank, report));
        if !rules.tolerant_pairs {
            fields.refuse_the_rest(report);
        }
    }
}

fn pair(fields: &mut Fields, context: Option<String>, blank: Blank, report: &mut Report<'_>) -> Option<Seed> {
    let question = fields.require("question", report);
    let line = question.as_ref().map_or(0, |node| node.place.line);
    let question = question.and_then(|node| text_or_blank(node, "question", blank, report));
    let answer = fields.text_or_blank("answer", blank, report);
    let ((question, _), answer) = (question?, answer?);
    Some(Seed { question, answer, context, line, ..Seed::default() })
}

/// A conversation: `{user: ...}` and `{assistant: ...}` by turns. Its last exchange is the question and the answer.
fn turns(node: Node, context: Option<String>, report: &mut Report<'_>) -> Option<Seed> {
    let line = node.place.line;
    let place = node.place;
    let mut said = Vec::new();
    for (index, item) in list(node, "turns", report)?.into_iter().enumerate() {
        let start = item.place;
        let mut turn = Fields::of(item, "a turn", report)?;
        let name = if index % 2 == 0 { "user" } else { "assistant" };
        if !turn.has(name) {
            let hint = "turns begin with `- user: ...` and go on with `- assistant: ...` by turns";
            report.error(start, format!("turn {} is the {name}'s", index + 1), hint);
            return None;
        }
        let (text, place) = turn.required_text(name, report)?;
        if begins_turn(&text) {
            report.error(
                place,
                format!(
                    "a line of this turn begins with `{USER}` or `{ASSISTANT}`, as turns do where a prompt shows them"
                ),
                "write who speaks in other words, or as a turn of its own",
            );
        }
        turn.refuse_the_rest(report);
        said.push(text);
    }
    if said.is_empty() || said.len() % 2 == 1 {
        report.error(place, "a conversation ends with the assistant", "add `- assistant: ...` as its last turn");
        return None;
    }
    let answer = said.pop()?;
    let question = said.pop()?;
    let history = said.chunks_exact(2).map(|pair| Exchange { user: pair[0].clone(), assistant: pair[1].clone() });
    Some(Seed { question, answer, context, history: history.collect(), line })
}

fn refuse_equal_items(items: &[Node], what: &str, report: &mut Report<'_>) {
    let mut first = HashMap::new();
    for item in items {
        let mut content = String::new();
        canonical(item, &mut content);
        match first.get(&content) {
            None => {
                first.insert(content, item.place.line);
            }
            Some(line) => report.error(
                item.place,
                format!("this {what} is the same as the one in line {line}"),
                "change or remove one of them",
            ),
        }
    }
}

/// A value as text in which the order of keys does not matter.
fn canonical(node: &Node, out: &mut String) {
    match &node.value {
        Value::Sequence(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Mapping(entries) => {
            let mut entries: Vec<_> = entries.iter().map(|(key, node)| (&key.name, node)).collect();
            entries.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (name, node) in entries {
                out.push_str(&format!("{name:?}:"));
                canonical(node, out);
                out.push(',');
            }
            out.push('}');
        }
        other => out.push_str(&format!("{other:?}")),
    }
}

fn refuse_twins(seeds: &[Seed], report: &mut Report<'_>) {
    let mut first = HashMap::new();
    for seed in seeds {
        let key = (&seed.question, &seed.answer, &seed.context, &seed.history);
        match first.get(&key) {
            None => {
                first.insert(key, seed.line);
            }
            Some(line) => report.error(
                Place { line: seed.line, column: 1 },
                format!("this seed example is the same as the one in line {line}"),
                "change or remove one of them",
            ),
        }
    }
}

/// Texts of a list, for example patterns of file names.
pub(crate) fn texts(node: Node, name: &str, blank: Blank, report: &mut Report<'_>) -> Option<Vec<String>> {
    let items = list(node, name, report)?;
    items.into_iter().map(|item| text_or_blank(item, name, blank, report).map(|(text, _)| text)).collect()
}

/// Values of a list slot: numbers and truth values are taken as they are written.
pub(crate) fn scalar_text(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Integer(value) => Some(value.to_string()),
        Value::Float(value) => Some(value.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// "1 seed example", "3 seed examples".
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
