//! Seed examples: flat ones, and contexts with several questions.

use std::collections::HashMap;

use super::Report;
use super::fields::{Fields, list, text};
use crate::leaf::{Place, Seed};
use crate::node::{Node, Value};

/// What a form asks of its examples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Fewest entries of `seed_examples`.
    pub(crate) minimum: usize,
    /// Whether equal examples are refused.
    pub(crate) unique: bool,
    /// How an example may look.
    pub(crate) shape: Shape,
    /// Fewest entries of `questions_and_answers`.
    pub(crate) minimum_pairs: usize,
    /// Whether other keys beside question and answer are suffered in `questions_and_answers`.
    pub(crate) tolerant_pairs: bool,
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
            let context = example.optional_text("context", report);
            seeds.extend(pair(&mut example, context, report));
        }
        example.refuse_the_rest(report);
    }
    if rules.unique {
        refuse_twins(&seeds, report);
    }
    seeds
}

fn grouped_example(example: &mut Fields, rules: Rules, seeds: &mut Vec<Seed>, report: &mut Report<'_>) {
    let context = example.required_text("context", report);
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
    for item in pairs {
        let Some(mut fields) = Fields::of(item, "a question with its answer", report) else { continue };
        seeds.extend(pair(&mut fields, context.as_ref().map(|(text, _)| text.clone()), report));
        if !rules.tolerant_pairs {
            fields.refuse_the_rest(report);
        }
    }
}

fn pair(fields: &mut Fields, context: Option<String>, report: &mut Report<'_>) -> Option<Seed> {
    let question = fields.required_text("question", report);
    let answer = fields.required_text("answer", report);
    let ((question, Place { line, .. }), (answer, _)) = (question?, answer?);
    Some(Seed { question, answer, context, line })
}

fn refuse_twins(seeds: &[Seed], report: &mut Report<'_>) {
    let mut first = HashMap::new();
    for seed in seeds {
        let key = (&seed.question, &seed.answer, &seed.context);
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
pub(crate) fn texts(node: Node, name: &str, report: &mut Report<'_>) -> Option<Vec<String>> {
    let items = list(node, name, report)?;
    items.into_iter().map(|item| text(item, name, report).map(|(text, _)| text)).collect()
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
