//! `InstructLab`'s leaves in our own form are the same leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

use std::fs;
use std::path::Path;

use espalier_taxonomy::upgrade::upgrade;
use espalier_taxonomy::{LeafVersion, leaf_files, read_tree};

#[test]
fn the_real_tree_says_the_same() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/taxonomy"));
    let target = tempfile::tempdir().unwrap();
    let before = read_tree(root).unwrap();
    let mut refused = Vec::new();
    for file in leaf_files(root) {
        let place = target.path().join(file.strip_prefix(root).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        match upgrade(&file, root, &fs::read_to_string(&file).unwrap()) {
            Ok(text) => fs::write(place, text.unwrap()).unwrap(),
            Err(findings) => refused.push(format!("{}: {}", file.display(), findings[0].message)),
        }
    }
    assert_eq!(refused, [""; 0]);
    let after = read_tree(target.path()).unwrap();
    assert_eq!(after.leaves.len(), 16);
    for leaf in &after.leaves {
        let old = before.leaf(&leaf.id).unwrap();
        assert_eq!(leaf.version, LeafVersion::Espalier1);
        assert_eq!((leaf.kind, &leaf.domain, &leaf.document_outline), (old.kind, &old.domain, &old.document_outline));
        let pairs = |leaf: &espalier_taxonomy::Leaf| {
            leaf.seeds
                .iter()
                .map(|seed| (seed.question.clone(), seed.answer.clone(), seed.context.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(pairs(leaf), pairs(old), "{}", leaf.id);
    }
}

#[test]
fn comments_stay_and_old_knowledge_becomes_readable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("qna.yaml");
    let done = |text: &str| upgrade(&file, folder.path(), text).map_err(|findings| findings[0].message.clone());
    let seeds: String = (0..5).map(|n| format!("  - {{question: Q{n}, answer: A{n}}}  # number {n}\n")).collect();
    let skill =
        format!("# mine\nversion: 2  # the second\ncreated_by: me\ntask_description: t\nseed_examples:\n{seeds}");
    let own = skill.replace("version: 2  #", "espalier: 1  #");
    assert_eq!(done(&skill), Ok(Some(own.clone())));
    assert_eq!(done(&own), Ok(None));
    assert_eq!(done(&skill.replace("version: 2  # the second\n", "")), Ok(Some(own.replace("  # the second", ""))));
    let head = "created_by: me\ndomain: d\n";
    let document = "document: {repo: r, commit: c, patterns: [a.md]}\n";
    let old = format!("version: 1\n{head}task_description: |\n  long\n  text\nseed_examples:\n{seeds}{document}");
    assert_eq!(done(&old), Ok(Some(format!("espalier: 1\n{head}seed_examples:\n{seeds}{document}"))));
    assert_eq!(
        done("created_by: me\ntask_description: t\nseed_examples:\n  - {question: a, answer: b}\n").unwrap_err(),
        "1 seed example, and the form asks for 3 or more"
    );
    assert!(done("created_by: [\n").is_err());
}
