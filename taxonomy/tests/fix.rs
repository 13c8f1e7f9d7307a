//! Mending: what becomes of the usual mistakes, and that a good file stays and a mended one is not mended again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

use std::fs;
use std::path::Path;

use espalier_taxonomy::fix::mend;
use espalier_taxonomy::{Mode, read_tree_with};
use proptest::prelude::*;

const SKILL: &str = "version: 2
created_by: me
task_description: Add.
seed_examples:
  - question: 1 + 1?
    answer: '2'
  - question: 2 + 2?
    answer: '4'
  - question: 3 + 3?
    answer: '6'
  - question: 4 + 4?
    answer: |
      8
  - question: 5 + 5?
    answer: {a: '10'}
";

fn skill() -> String {
    SKILL.replace("{a: '10'}", "'10'")
}

fn strict(folder: &Path, text: &str) -> bool {
    let file = folder.join("qna.yaml");
    fs::write(&file, text).unwrap();
    read_tree_with(&file, Mode::Strict).is_ok()
}

/// Mends a text, shows the changes and says whether strict reading takes the result.
fn shown(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let Some(mended) = mend(&folder.path().join("qna.yaml"), folder.path(), text.as_bytes()) else {
        return "unchanged".to_owned();
    };
    let mut lines = Vec::new();
    for change in &mended.changes {
        lines.push(format!("{} {}", change.line, change.what));
        lines.extend(change.before.iter().map(|line| format!("- {}", line.replace(' ', "·").replace('\t', "→"))));
        lines.extend(change.after.iter().map(|line| format!("+ {}", line.replace(' ', "·"))));
    }
    lines.push(if strict(folder.path(), &mended.text) { "good" } else { "still wrong" }.to_owned());
    assert_eq!(
        mend(&folder.path().join("qna.yaml"), folder.path(), mended.text.as_bytes()),
        None,
        "mended twice:\n{}",
        mended.text
    );
    lines.join("\n")
}

#[test]
fn usual_mistakes() {
    let good = skill();
    assert_eq!(shown(&good), "unchanged");
    assert_eq!(shown(&good.replace('\n', "\r\n")), "unchanged");
    let twin = "  - question: 1 + 1?\n    answer: '2'\n";
    let texts = [
        good.replace("version: 2", "version: \"2\"  "),
        good.replace("created_by: me\n", "created_by :  me \n\n\n\n"),
        good.replace("\n    answer: '4'", "\n\tanswer: '4'").replace('\n', "\r\n"),
        good.replace("created_by: ", "created_by:\t"),
        format!("{good}{twin}"),
        format!("{}{twin}", good.replace("  - question: 5 + 5?\n    answer: '10'\n", "")),
        good.trim_end().to_owned(),
        format!("\u{feff}{good}\n\n"),
        good.replace("      8\n", "      8  \n"),
        good.replace("      8\n", "      8\n\n\n\n"),
        good.replace("'10'", "'10"),
    ];
    insta::assert_snapshot!(texts.iter().map(|text| shown(text)).collect::<Vec<_>>().join("\n\n"));
}

#[test]
fn knowledge_gets_its_version() {
    let pairs =
        "\n      - {question: a, answer: b}\n      - {question: c, answer: d}\n      - {question: e, answer: f}\n";
    let seeds: String = (0..5).map(|n| format!("  - context: C{n}\n    questions_and_answers:{pairs}")).collect();
    let text = format!(
        "# SPDX\ncreated_by: me\ndomain: d\ndocument_outline: o\nseed_examples:\n{seeds}document:\n  repo: r\n  commit: c\n  patterns:\n    - a.md\n"
    );
    assert_eq!(shown(&text), "2 the version is named\n+ version:·3\ngood");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn mending_twice_is_mending_once(
        places in proptest::collection::vec((0_usize..400, prop_oneof![
            Just(" "), Just("\t"), Just("\n"), Just("\r\n"), Just("  "), Just("\n\n\n"), Just(":"), Just("'"), Just("- "), Just("\u{feff}"),
        ]), 0..6)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("qna.yaml");
        let mut text = skill();
        for (place, put) in places {
            let place = (0..=place.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            text.insert_str(place, put);
        }
        let valid = strict(folder.path(), &text);
        match mend(&file, folder.path(), text.as_bytes()) {
            None => {}
            Some(mended) => {
                prop_assert!(!valid, "a valid file was changed:\n{text}");
                prop_assert_eq!(mend(&file, folder.path(), mended.text.as_bytes()), None, "mended again:\n{}", mended.text);
            }
        }
    }
}
