//! Holds docs/taxonomy.md to the reader: an unknown key makes the reader name the keys that it knows, and these are the
//! keys of the page.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use espalier_taxonomy::read_tree;

const PAGE: &str = include_str!("../../docs/taxonomy.md");

/// The first column of the tables below a heading; `tables` says which of them.
fn documented(heading: &str, tables: std::ops::Range<usize>) -> BTreeSet<String> {
    let (_, section) = PAGE.split_once(&format!("\n### {heading}\n")).expect(heading);
    let section = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let mut found = BTreeSet::new();
    for table in section.split("\n|---").skip(1).skip(tables.start).take(tables.len()) {
        let rows = table.split("\n\n").next().unwrap().lines();
        found.extend(rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next()).map(str::to_owned));
    }
    assert!(!found.is_empty(), "{heading} has no table");
    found
}

/// The keys that the reader names when it meets `zzzzzzzz`, which is near to none.
fn known(leaf: &str, test: &str) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("qna.yaml"), leaf).unwrap();
    fs::write(folder.path().join("test.jsonl"), test).unwrap();
    let findings: Vec<String> = read_tree(folder.path()).unwrap_err().iter().map(ToString::to_string).collect();
    let finding = findings.iter().find(|text| text.contains("zzzzzzzz")).unwrap_or_else(|| panic!("{findings:?}"));
    let list =
        ["known here: ", "expected one of "].iter().find_map(|words| finding.split_once(words)).expect(finding).1;
    list.lines().next().unwrap().split(", ").map(|key| key.trim_matches(['`', ' ']).to_owned()).collect()
}

#[test]
fn the_page_lists_the_keys_of_every_mapping() {
    let skill = "espalier: 1\ncreated_by: me\ntask_description: t\nseed_examples:\n  - {question: q, answer: a}\n";
    let knowledge = "espalier: 1\ncreated_by: me\ndomain: d\nseed_examples:\n";
    for (heading, tables, leaf) in [
        ("A skill", 0..1, format!("{skill}zzzzzzzz: 1\n")),
        ("Knowledge", 0..1, format!("{knowledge}  - {{question: q, answer: a}}\nzzzzzzzz: 1\n")),
        ("`seed_examples`", 0..1, skill.replace("answer: a", "answer: a, zzzzzzzz: 1")),
        ("`seed_examples`", 1..2, format!("{knowledge}  - {{context: c, questions_and_answers: [], zzzzzzzz: 1}}\n")),
        ("`questions`", 0..1, format!("{skill}questions: {{zzzzzzzz: 1}}\n")),
        ("`verify`", 0..1, format!("{skill}verify: {{zzzzzzzz: 1}}\n")),
        ("The test file", 0..1, format!("{skill}test: test.jsonl\n")),
        ("Version 1, 2 or 3: a skill", 0..1, skill.replace("espalier: 1", "version: 2") + "zzzzzzzz: 1\n"),
        ("Version 3: knowledge", 0..1, knowledge.replace("espalier: 1", "version: 3") + "zzzzzzzz: 1\n"),
    ] {
        let mut known = known(&leaf, "{\"zzzzzzzz\": 1}\n");
        // The two marks of a form, and keys that are taken only to be refused.
        let other = if leaf.starts_with("espalier") { "version" } else { "espalier" };
        known.remove(other);
        if heading == "Knowledge" {
            known.remove("task_description");
            known.remove("questions");
        }
        assert_eq!(documented(heading, tables), known, "{heading}");
    }
}
