//! What an author reads after a mistake. The texts are part of the interface: a change here is a change for users.

use std::fs;
use std::path::Path;

use espalier_taxonomy::{Diagnostic, read_tree};

/// The findings of a tree of these files, with paths below the folder.
fn findings(files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let found = match read_tree(folder.path()) {
        Ok(tree) => tree.notes,
        Err(found) => found,
    };
    let show = |finding: &Diagnostic| {
        let file = finding.file.strip_prefix(folder.path()).unwrap_or(Path::new("?")).to_path_buf();
        let text = Diagnostic { file, ..finding.clone() }.to_string();
        text.replace(&folder.path().display().to_string(), "TREE")
    };
    found.iter().map(show).collect::<Vec<_>>().join("\n")
}

fn seeds(count: usize) -> String {
    (0..count).map(|n| format!("  - question: Q{n}?\n    answer: A{n}.\n")).collect()
}

fn skill(rest: &str) -> String {
    format!("espalier: 1\ncreated_by: me\ntask_description: T\nseed_examples:\n{}{rest}", seeds(3))
}

#[test]
fn yaml_that_cannot_be_read() {
    insta::assert_snapshot!(findings(&[
        ("bracket/qna.yaml", "espalier: 1\ncreated_by: [me\nseed_examples: []\n"),
        ("colon/qna.yaml", "espalier: 1\ntask_description: Dates: how to write them\n"),
        ("tab/qna.yaml", "espalier: 1\nseed_examples:\n\t- question: x\n"),
        ("twice/qna.yaml", "espalier: 1\ncreated_by: me\ncreated_by: you\n"),
        ("list/qna.yaml", "- espalier: 1\n"),
        ("empty/qna.yaml", "# nothing yet\n"),
    ]), @"");
}

#[test]
fn keys_and_types() {
    insta::assert_snapshot!(findings(&[
        ("a/qna.yaml", "espalier: 1\ncreatedby: me\ntask_description: 7\nseed_examples: none\ncolour: red\n"),
        ("b/qna.yaml", "espalier: 2\n"),
        ("c/qna.yaml", "version: '3'\n"),
        ("d/qna.yaml", "espalier: 1\nversion: 3\n"),
        ("e/qna.yml", "x"),
    ]), @"");
}

#[test]
fn seed_examples_of_each_form() {
    let four = format!("version: 2\ncreated_by: me\ntask_description: T\nseed_examples:\n{}", seeds(4));
    let twins = format!("{}  - question: Q0?\n    answer: A0.\n", skill(""));
    let knowledge = "version: 3\ncreated_by: me\ndomain: d\ndocument_outline: o\ntask_description: no\nseed_examples:\n  - context: C\n    questions_and_answers:\n      - question: Q?\n        answer: A\n";
    insta::assert_snapshot!(findings(&[
        ("compositional_skills/four/qna.yaml", &four),
        ("compositional_skills/none/qna.yaml", "created_by: me\ntask_description: T\nseed_examples: []\n"),
        ("knowledge/old/qna.yaml", "version: 2\ncreated_by: me\ndomain: d\n"),
        ("knowledge/short/qna.yaml", knowledge),
        ("twins/qna.yaml", &twins),
        ("two/qna.yaml", &skill("").replace("  - question: Q2?\n    answer: A2.\n", "")),
    ]), @"");
}

#[test]
fn parts_of_our_own_form() {
    insta::assert_snapshot!(findings(&[
        ("document/qna.yaml", &skill("").replace("task_description: T", "domain: D\ndocument: {path: gone.md}")),
        ("outside/qna.yaml", &skill("").replace("task_description: T", "domain: D\ndocument: {path: ../x.md}")),
        ("slots/qna.yaml", &skill("questions:\n  template: '{{ n }}'\n  slots:\n    n: {from: 9, to: 1}\n    answer: [a]\n    d: {from: 2001-02-30, to: 2002-01-01}\n    e: [a, a]\n")),
        ("verify/qna.yaml", &skill("verify: {exact: n, regex: x}\n")),
        ("exact/qna.yaml", &skill("verify: {exact: n}\n")),
        ("samples/qna.yaml", &skill("samples: many\n")),
    ]), @"");
}

#[test]
fn rows_of_a_test() {
    let rows = "{\"question\": \"X?\", \"answer\": \"x\"}\nnot json\n{\"question\": \"Y?\"}\n\n{\"question\": \"Z?\", \"answer\": \"z\", \"choices\": [\"a\", \"b\"]}\n{\"question\": \"Q1?\", \"answer\": \"A1.\"}\n{\"question\": \"X?\", \"answer\": \"x\"}\n{\"question\": \"W?\", \"answer\": \"w\", \"colour\": 1}\n";
    insta::assert_snapshot!(findings(&[
        ("a/qna.yaml", &skill("test: test.jsonl\n")),
        ("a/test.jsonl", rows),
        ("b/qna.yaml", &skill("test: gone.jsonl\n")),
    ]), @"");
}

#[test]
fn no_leaf_and_no_path() {
    insta::assert_snapshot!(findings(&[("readme.md", "x")]), @"");
    let error = read_tree(Path::new("/nowhere/at/all")).unwrap_err();
    assert!(error[0].to_string().starts_with("/nowhere/at/all:1:1: error: cannot open: "));
}
