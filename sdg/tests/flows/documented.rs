//! Holds docs/flows.md to the reader: an unknown key makes it name the keys that it knows, and these are the keys of the page.

use std::collections::BTreeSet;

use espalier_sdg::flow::read_flow;

const PAGE: &str = include_str!("../../../docs/flows.md");

/// The keys in the first columns of the tables below a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let (_, section) = PAGE.split_once(&format!("\n{heading}\n")).expect(heading);
    let section = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let rows = section.lines().filter_map(|row| row.strip_prefix("| `")?.split_once('|'));
    rows.flat_map(|(keys, _)| keys.split(", ").map(|key| key.trim_matches(['`', ' ']).to_owned())).collect()
}

/// What the reader says about a file.
fn said(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flow.yaml");
    std::fs::write(&path, text).unwrap();
    std::fs::write(folder.path().join("p.jinja"), "{% filter turn('user') %}x{% endfilter %}").unwrap();
    let findings = read_flow(&path).unwrap_err();
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn known(text: &str) -> BTreeSet<String> {
    let said = said(text);
    let (_, list) = said.split_once("known here: ").unwrap_or_else(|| panic!("{said}"));
    list.lines().next().unwrap().split(", ").map(str::to_owned).collect()
}

#[test]
fn the_page_lists_the_keys_of_every_block() {
    assert_eq!(documented("## The file"), known("espalier: 1\nblocks: []\nzzzzzzzz: 1\n"));
    let common = documented("## Blocks");
    let llm = "prompt: p.jinja, output: x";
    for (kind, rest) in [
        ("llm", llm),
        ("judge", "prompt: p.jinja"),
        ("verify", ""),
        ("vote", "by: a, column: b"),
        ("select", "by: a, column: b"),
        ("repair", "of: a, prompt: p.jinja, output: x"),
        ("filter", "keep: a"),
        ("unique", "columns: a"),
        ("map", "columns: {a: b}"),
        ("flatten", "columns: a, name_column: b, value_column: c"),
        ("split", "column: a, output: b"),
        ("combine", "columns: a, output: b"),
        ("copy", "columns: {a: b}"),
        ("rename", "columns: {a: b}"),
        ("drop", "columns: a"),
        ("each", "count: 2, block: {type: drop, columns: a}"),
        ("command", "run: [cat]"),
    ] {
        let text = format!("espalier: 1\nblocks:\n  - {{name: a, type: {kind}, {rest}, zzzzzzzz: 1}}\n");
        let mut wanted: BTreeSet<String> = documented(&format!("### `{kind}`")).union(&common).cloned().collect();
        if kind == "repair" {
            wanted.extend(documented("### `llm`"));
        }
        let mut known = known(&text.replace(", ,", ","));
        // Keys of which one is read: the page has those that are there together.
        for key in ["prompts", "by", "conversation"] {
            if matches!(kind, "llm" | "repair") {
                known.insert(key.to_owned());
            }
        }
        assert_eq!(known, wanted, "{kind}");
    }
    let types = said("espalier: 1\nblocks: [{name: a, type: zzzzzzzz}]\n");
    let (_, list) = types.split_once("known here: ").unwrap();
    for kind in list.lines().next().unwrap().split(", ") {
        assert!(PAGE.contains(&format!("\n### `{kind}`\n")), "{kind}");
    }
}
