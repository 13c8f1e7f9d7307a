//! Whole trees: speed, hashes, robustness.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

use std::fs;
use std::path::Path;
use std::time::Instant;

use espalier_taxonomy::{LeafKind, Slot, Verify, read_tree};
use proptest::prelude::*;

const SKILL: &str = "espalier: 1
created_by: me
task_description: Add.
seed_examples:
  - {question: 1 + 1?, answer: '2'}
  - {question: 2 + 2?, answer: '4'}
  - {question: 3 + 3?, answer: '6'}
questions:
  template: '{{ a }} + {{ b }}?'
  slots:
    a: {from: 1, to: 99}
    b: {from: 0.5, to: 9.5, decimals: 1}
    day: {from: 2001-01-01, to: 2001-12-31}
    word: [one, 2, true]
  derive: {c: a + 1}
verify: {exact: {expression: a + b, ignore_case: true}}
test: test.jsonl
samples: 12
";

fn write(folder: &Path, text: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("qna.yaml"), text).unwrap();
    fs::write(folder.join("test.jsonl"), "{\"question\": \"5 + 5?\", \"answer\": \"10\", \"slots\": {\"a\": 5}}\n")
        .unwrap();
}

#[test]
fn our_own_form_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), SKILL);
    let tree = read_tree(folder.path()).unwrap();
    let leaf = &tree.leaves[0];
    let questions = leaf.questions.as_ref().unwrap();
    assert_eq!(leaf.kind, LeafKind::FreeformSkill);
    assert_eq!(questions.slots["a"], Slot::IntegerRange { from: 1, to: 99, step: 1 });
    assert_eq!(questions.slots["b"], Slot::DecimalRange { from: 0.5, to: 9.5, decimals: 1 });
    assert_eq!(questions.slots["day"], Slot::DateRange { from: "2001-01-01".into(), to: "2001-12-31".into() });
    assert_eq!(questions.slots["word"], Slot::List(vec!["one".into(), "2".into(), "true".into()]));
    assert_eq!(leaf.verify, Some(Verify::Exact { expression: "a + b".into(), ignore_case: true }));
    assert_eq!((leaf.samples, leaf.test.len(), leaf.seeds[1].line), (Some(12), 1, 6));
    assert_eq!(leaf.test[0].slots.as_ref().unwrap()["a"], 5);
    assert_eq!(leaf.places.template.line, 9);
}

#[test]
fn the_hash_is_of_content_alone() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a"), SKILL);
    write(
        &folder.path().join("b/c"),
        &format!("# a comment\n{}", SKILL.replace("created_by: me", "created_by:   you")),
    );
    write(&folder.path().join("d"), &SKILL.replace("Add.", "Add!"));
    let tree = read_tree(folder.path()).unwrap();
    let hash = |id| &tree.leaf(id).unwrap().hash;
    assert_eq!(hash("a"), hash("b/c"));
    assert_ne!(hash("a"), hash("d"));
    fs::write(folder.path().join("a/test.jsonl"), "{\"question\": \"6 + 5?\", \"answer\": \"11\"}\n").unwrap();
    let changed = read_tree(folder.path()).unwrap();
    assert_ne!(&changed.leaf("a").unwrap().hash, hash("a"));
}

#[test]
fn a_thousand_leaves_are_read_in_a_second() {
    let folder = tempfile::tempdir().unwrap();
    for leaf in 0..1000 {
        write(&folder.path().join(format!("{}/{leaf}", leaf % 10)), SKILL);
    }
    let start = Instant::now();
    let tree = read_tree(folder.path()).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!("1000 leaves in {seconds:.3} s");
    assert_eq!(tree.leaves.len(), 1000);
    // Ten times what it takes on a quiet machine: this guards against something quadratic, not against a busy neighbour.
    assert!(seconds < 5.0, "{seconds}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..600, at in 0_usize..600) {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), SKILL);
        let mut mutated = SKILL.as_bytes()[..cut.min(SKILL.len())].to_vec();
        let at = at.min(mutated.len());
        mutated.splice(at..at, bytes.iter().copied().take(20));
        for text in [&bytes, &mutated] {
            fs::write(folder.path().join("qna.yaml"), text).unwrap();
            let _ = read_tree(folder.path());
        }
    }
}
