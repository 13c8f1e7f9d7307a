//! The held-out test of a leaf: one JSON object a line.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::Report;
use super::document::stays_inside;
use super::fields::text;
use crate::diagnostic::{Diagnostic, Severity};
use crate::leaf::{Seed, TestItem};
use crate::node::Node;

/// Reads the file that `test` names; each bad row is a finding about that file and line.
pub(crate) fn read(node: Node, seeds: &[Seed], report: &mut Report<'_>) -> Option<(PathBuf, Vec<TestItem>)> {
    let (name, place) = text(node, "test", report)?;
    if !stays_inside(Path::new(&name)) {
        report.error(
            place,
            format!("the test {name} lies outside the folder of its leaf"),
            "copy it into the folder and give its name there",
        );
        return None;
    }
    let file = report.file.with_file_name(&name);
    let content = match fs::read_to_string(&file) {
        Ok(content) => content,
        Err(error) => {
            report.error(
                place,
                format!("the test {name} cannot be read: {error}"),
                format!("put it at {}, or correct `test`", file.display()),
            );
            return None;
        }
    };
    let seeds: HashSet<(&str, Option<&str>)> =
        seeds.iter().map(|seed| (seed.question.trim(), seed.context.as_deref())).collect();
    let mut items: Vec<TestItem> = Vec::new();
    let mut first: HashMap<(String, Option<String>), usize> = HashMap::new();
    for (index, line) in content.trim_start_matches('\u{feff}').lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let line_number = index + 1;
        let mut refuse = |column: usize, message: String, hint: &str| {
            report.failed = true;
            let finding = Diagnostic::new(Severity::Error, &file, line_number, column, message);
            report.findings.push(finding.with_hint(hint));
        };
        match serde_json::from_str::<TestItem>(line) {
            Err(error) => {
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or("not JSON");
                refuse(
                    error.column().max(1),
                    format!("this test row cannot be read: {message}"),
                    "a row is {\"question\": \"...\", \"answer\": \"...\"}, and may have choices, context and slots",
                );
            }
            Ok(mut item) => {
                item.line = line_number;
                if let Some((message, hint)) = flaw(&item) {
                    refuse(1, message, hint);
                }
                if seeds.contains(&(item.question.trim(), item.context.as_deref())) {
                    refuse(
                        1,
                        "this test question is also a seed example".to_owned(),
                        "remove it here or there: a test must be held out",
                    );
                }
                let key = (item.question.trim().to_owned(), item.context.clone());
                if let Some(line) = first.get(&key) {
                    refuse(1, format!("this test question stands in line {line} too"), "remove one of the two");
                } else {
                    first.insert(key, line_number);
                }
                items.push(item);
            }
        }
    }
    if items.is_empty() && !report.failed {
        report.error(place, format!("the test {name} has no rows"), "add rows, or remove `test`");
    }
    Some((file, items))
}

/// What is wrong with a row that can be read.
fn flaw(item: &TestItem) -> Option<(String, &'static str)> {
    if item.question.trim().is_empty() {
        return Some(("the question is empty".to_owned(), "write it"));
    }
    if item.answer.trim().is_empty() {
        return Some(("the answer is empty".to_owned(), "write it"));
    }
    if item.choices.is_empty() {
        return None;
    }
    if item.choices.len() < 2 {
        return Some(("one choice is no choice".to_owned(), "give two or more, or none"));
    }
    if !item.choices.contains(&item.answer) {
        return Some((
            format!("the answer {:?} is not one of the choices", item.answer),
            "write the right choice word by word as `answer`",
        ));
    }
    let distinct: HashSet<&String> = item.choices.iter().collect();
    if distinct.len() < item.choices.len() {
        return Some(("two choices are the same".to_owned(), "change one of them"));
    }
    None
}
