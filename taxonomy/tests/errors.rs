//! What an author reads after a mistake. The texts are part of the interface: a change here is a change for users.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

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
    (0..count).map(|n| format!("  - question: Q{n}?\n    answer: A{n}.\n")).collect::<Vec<_>>().concat()
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
    ]), @r#"
    bracket/qna.yaml:3:14: error: this is not YAML: illegal placement of ':' indicator
      hint: look at the indentation here and in the line above, and put texts with `:`, `#`, `[` or `{` in quotes
    colon/qna.yaml:2:24: error: this is not YAML: mapping values are not allowed in this context
      hint: a text with `: ` in it must stand in quotes
    empty/qna.yaml:1:1: warning: the file is empty and is skipped
      hint: write a leaf into it, or delete it
    list/qna.yaml:1:1: error: a leaf is a mapping of keys to values, this is a list
      hint: begin with `espalier: 1` and `created_by: YOUR_NAME`
    tab/qna.yaml:3:2: error: this is not YAML: tabs disallowed within this context (block indentation)
      hint: indent with spaces: YAML allows no tabs there
    twice/qna.yaml:1:1: error: `seed_examples` is missing in a leaf
      hint: add `seed_examples: ...`
    twice/qna.yaml:1:1: error: `task_description` is missing in a leaf
      hint: add `task_description: ...`
    twice/qna.yaml:3:1: error: the key `created_by` stands twice in its mapping
      hint: a key may stand once in a mapping: remove or rename the second one
    "#);
}

#[test]
fn keys_and_types() {
    insta::assert_snapshot!(findings(&[
        ("a/qna.yaml", "espalier: 1\ncreatedby: me\ntask_description: 7\nseed_examples: none\ncolour: red\n"),
        ("b/qna.yaml", "espalier: 2\n"),
        ("c/qna.yaml", "version: '3'\n"),
        ("d/qna.yaml", "espalier: 1\nversion: 3\n"),
        ("e/qna.yml", "x"),
    ]), @r#"
    a/qna.yaml:1:1: error: `created_by` is missing in a leaf
      hint: `createdby` is there: write `created_by`
    a/qna.yaml:2:1: error: unknown key `createdby` in a leaf
      hint: did you mean `created_by`?
    a/qna.yaml:3:19: error: `task_description` is a text, this is a number
      hint: put it in quotes, so that YAML reads it as text
    a/qna.yaml:4:16: error: `seed_examples` is a list, this is text
      hint: begin each item with `- `, indented below
    a/qna.yaml:5:1: error: unknown key `colour` in a leaf
      hint: remove it; known here: espalier, version, created_by, task_description, seed_examples, questions, verify, samples, flow, temperature, weight, language, test
    b/qna.yaml:1:11: error: this version of our form is not known
      hint: write `espalier: 1`
    c/qna.yaml:1:10: error: `version` is 1, 2 or 3, a number without quotes
      hint: write `version: 3`, or `espalier: 1` for our own form
    d/qna.yaml:1:1: error: `espalier` and `version` stand together
      hint: keep `espalier: 1` for our own form, or `version: 3` for InstructLab's
    e/qna.yml:1:1: error: a leaf is a mapping of keys to values, this is text
      hint: begin with `espalier: 1` and `created_by: YOUR_NAME`
    e/qna.yml:1:1: warning: qna.yml is not the name of a leaf's file
      hint: rename it to qna.yaml: other tools read no other name
    "#);
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
    ]), @r#"
    compositional_skills/four/qna.yaml:5:3: error: 4 seed examples, and the form asks for 5 or more
      hint: add 1 more under `seed_examples`
    compositional_skills/none/qna.yaml:3:16: error: 0 seed examples, and the form asks for 1 or more
      hint: add 1 more under `seed_examples`
    knowledge/old/qna.yaml:1:1: error: knowledge before version 3 is no longer read
      hint: write `version: 3`, with contexts that have 3 `questions_and_answers` each, or use `espalier: 1`
    knowledge/short/qna.yaml:1:1: error: `document` is missing in a leaf
      hint: add `document: ...`
    knowledge/short/qna.yaml:5:1: error: unknown key `task_description` in a leaf
      hint: remove it; known here: espalier, version, created_by, domain, document_outline, seed_examples, document
    knowledge/short/qna.yaml:7:3: error: 1 seed example, and the form asks for 5 or more
      hint: add 4 more under `seed_examples`
    knowledge/short/qna.yaml:9:7: error: 1 question, and the form asks for 3 or more
      hint: add 2 more about this context
    twins/qna.yaml:11:1: error: this seed example is the same as the one in line 5
      hint: change or remove one of them
    two/qna.yaml:5:1: error: 2 seed examples, and the form asks for 3 or more
      hint: add 1 more under `seed_examples`
    "#);
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
    ]), @r#"
    document/qna.yaml:4:18: error: the document gone.md cannot be read: No such file or directory (os error 2)
      hint: put it at TREE/document/gone.md, or correct `path`
    exact/qna.yaml:11:1: error: this `verify` computes the truth from slots, and this leaf has no `questions`
      hint: add `questions: {template, slots}`, or verify by `regex`, `json_schema` or `expression`
    outside/qna.yaml:4:18: error: the document ../x.md cannot be read: No such file or directory (os error 2)
      hint: put it at TREE/outside/../x.md, or correct `path`
    samples/qna.yaml:11:10: error: `samples` is a whole number from 1 to 1000000
      hint: write how many samples the leaf is to give: `samples: 40`
    slots/qna.yaml:14:8: error: the slot `n` is not a range that can be drawn from
      hint: write a list [a, b], or {from: 1, to: 9}, {from: 0.5, to: 9.5, decimals: 1} or {from: 2001-01-31, to: 2009-12-31}
    slots/qna.yaml:15:5: error: the name `answer` is taken
      hint: give it another name
    slots/qna.yaml:16:8: error: the slot `d` is not a range that can be drawn from
      hint: write a list [a, b], or {from: 1, to: 9}, {from: 0.5, to: 9.5, decimals: 1} or {from: 2001-01-31, to: 2009-12-31}
    slots/qna.yaml:17:12: error: the slot `e` has "a" twice
      hint: remove one of the two
    verify/qna.yaml:11:9: error: `verify` has exactly one check
      hint: write one of {exact: EXPRESSION}, {regex: PATTERN}, {json_schema: SCHEMA}, {expression: EXPRESSION}, {numeric: EXPRESSION}, {any_of: [CHECK, ...]}, {all_of: [CHECK, ...]}
    "#);
}

#[test]
fn rows_of_a_test() {
    let rows = "{\"question\": \"X?\", \"answer\": \"x\"}\nnot json\n{\"question\": \"Y?\"}\n\n{\"question\": \"Z?\", \"answer\": \"z\", \"choices\": [\"a\", \"b\"]}\n{\"question\": \"Q1?\", \"answer\": \"A1.\"}\n{\"question\": \"X?\", \"answer\": \"x\"}\n{\"question\": \"W?\", \"answer\": \"w\", \"colour\": 1}\n";
    insta::assert_snapshot!(findings(&[
        ("a/qna.yaml", &skill("test: test.jsonl\n")),
        ("a/test.jsonl", rows),
        ("b/qna.yaml", &skill("test: gone.jsonl\n")),
    ]), @r#"
    a/test.jsonl:2:2: error: this test row cannot be read: expected ident
      hint: a row is {"question": "...", "answer": "..."}, and may have choices, context and slots
    a/test.jsonl:3:18: error: this test row cannot be read: missing field `answer`
      hint: a row is {"question": "...", "answer": "..."}, and may have choices, context and slots
    a/test.jsonl:5:1: error: the answer "z" is not one of the choices
      hint: write the right choice word by word as `answer`
    a/test.jsonl:6:1: error: this test question is also a seed example
      hint: remove it here or there: a test must be held out
    a/test.jsonl:7:1: error: this test question stands in line 1 too
      hint: remove one of the two
    a/test.jsonl:8:42: error: this test row cannot be read: unknown field `colour`, expected one of `question`, `answer`, `choices`, `context`, `slots`
      hint: a row is {"question": "...", "answer": "..."}, and may have choices, context and slots
    b/qna.yaml:11:7: error: the test gone.jsonl cannot be read: No such file or directory (os error 2)
      hint: put it at TREE/b/gone.jsonl, or correct `test`
    "#);
}

#[test]
fn no_leaf_and_no_path() {
    insta::assert_snapshot!(findings(&[("readme.md", "x")]), @r#"
    :1:1: error: no qna.yaml in this folder or below it
      hint: a tree has one folder for each leaf, with a qna.yaml in it
    "#);
    let error = read_tree(Path::new("/nowhere/at/all")).unwrap_err();
    assert!(error[0].to_string().starts_with("/nowhere/at/all:1:1: error: cannot open: "));
}
