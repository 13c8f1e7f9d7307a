//! Files that are made to cost much: refused with few findings, whatever their size.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

use std::fs;

use espalier_taxonomy::fix::mend;
use espalier_taxonomy::{Mode, read_tree_with};

#[test]
fn they_are_refused_with_few_findings() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("qna.yaml");
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb = format!("{bomb}a{level}: &a{level} [{inner}]\n");
    }
    let merged: String = (1..40).map(|n| format!("m{n}: &m{n}\n  <<: [*m{0}, *m{0}]\n  k{n}: x\n", n - 1)).collect();
    let keys: String = (0..200_000).map(|n| format!("k{n}: 1\n")).collect();
    let seeds = "  - {question: q, answer: a}\n".repeat(50_000);
    for (name, text) in [
        ("aliases", bomb),
        ("merged mappings", format!("m0: &m0 {{x: y}}\n{merged}")),
        ("brackets", "[".repeat(1 << 20)),
        ("lists", "- ".repeat(1 << 20)),
        ("keys", format!("version: 3\n{keys}")),
        ("one key again and again", format!("version: 3\n{}", "k: 1\n".repeat(200_000))),
        ("equal seeds", format!("version: 3\ncreated_by: me\ntask_description: t\nseed_examples:\n{seeds}")),
        ("one long line", format!("created_by: {}\n", "x".repeat(8 << 20))),
        ("blanks", format!("version: 3\n{}", " \n".repeat(200_000))),
        ("a file that is too large", " ".repeat(17 << 20)),
    ] {
        fs::write(&file, &text).unwrap();
        for mode in [Mode::Lenient, Mode::Strict] {
            let findings = read_tree_with(&file, mode).expect_err(name);
            assert!(findings.len() <= 201, "{name}: {} findings", findings.len());
        }
    }
    // Mending stops where it would take long.
    let text = format!(
        "version: 2\ncreated_by: me\ntask_description: t\nseed_examples:\n{}",
        "  -  {question: q,answer: a}\n".repeat(40)
    );
    let mended = mend(&file, folder.path(), text.as_bytes()).unwrap();
    assert!(mended.changes.len() < 200);
}
