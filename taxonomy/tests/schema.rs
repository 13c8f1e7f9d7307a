//! Holds the JSON schema to the form: the keys of docs/taxonomy.md, which another test holds to the reader, and the examples.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use espalier_taxonomy::SCHEMA;
use espalier_taxonomy::yaml;
use jsonschema::Validator;
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/taxonomy.md");

fn schema() -> (Value, Validator) {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    (schema, validator)
}

/// The keys in a table below a heading of the page.
fn documented(heading: &str, table: usize) -> BTreeSet<String> {
    let (_, section) = PAGE.split_once(&format!("\n### {heading}\n")).expect(heading);
    let section = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let rows = section.split("\n|---").nth(table + 1).expect(heading).split("\n\n").next().unwrap().lines();
    rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next()).map(str::to_owned).collect()
}

#[test]
fn the_schema_has_the_keys_of_the_page() {
    let (schema, _) = schema();
    for (part, heading, table) in [
        ("skill", "A skill", 0),
        ("knowledge", "Knowledge", 0),
        ("example", "`seed_examples`", 0),
        ("examples_of_a_text", "`seed_examples`", 1),
        ("questions", "`questions`", 0),
        ("verify", "`verify`", 0),
    ] {
        let properties = schema["$defs"][part]["properties"].as_object().unwrap();
        assert_eq!(properties.keys().cloned().collect::<BTreeSet<_>>(), documented(heading, table), "{part}");
    }
}

fn leaves(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            leaves(&entry, found);
        } else if entry.ends_with("qna.yaml") {
            found.push(entry);
        }
    }
}

fn json(text: &str) -> Value {
    yaml::parse(text).unwrap().to_json()
}

#[test]
fn every_example_conforms_and_mistakes_do_not() {
    let (_, validator) = schema();
    let mut found = Vec::new();
    leaves(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"), &mut found);
    assert!(found.len() >= 4);
    for path in found {
        let leaf = json(&fs::read_to_string(&path).unwrap());
        let errors: Vec<String> = validator.iter_errors(&leaf).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0], "{}", path.display());
    }
    let good = "espalier: 1\ncreated_by: me\ntask_description: t\nseed_examples:\n- {question: q, answer: 1}\n- {question: r, answer: b}\n\
                - {turns: [{user: u}, {assistant: a}]}\n";
    assert!(validator.is_valid(&json(good)));
    for (from, to) in [
        ("task_description: t", "task_description: t\ntaks: 1"),
        ("espalier: 1", "espalier: 2"),
        ("task_description: t", "domain: d"),
        ("- {question: r, answer: b}\n", ""),
        ("{question: r, answer: b}", "{question: r, answer: b, turns: []}"),
        ("task_description: t", "task_description: t\nverify: {exact: a, regex: b}"),
        ("task_description: t", "task_description: t\nsamples: 0"),
    ] {
        assert!(!validator.is_valid(&json(&good.replace(from, to))), "{to}");
    }
}
