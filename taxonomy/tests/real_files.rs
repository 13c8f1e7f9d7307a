//! The real leaves of the public taxonomy, as they are.

use std::path::Path;

use espalier_taxonomy::{LeafKind, LeafVersion, Severity, read_tree};

#[test]
fn all_sixteen_are_read() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/taxonomy"));
    let tree = read_tree(path).unwrap_or_else(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"));
    });
    assert_eq!(tree.leaves.len(), 16);
    let count = |version| tree.leaves.iter().filter(|leaf| leaf.version == version).count();
    assert_eq!((count(LeafVersion::V1), count(LeafVersion::V3)), (11, 5));
    let of_kind = |kind| tree.leaves.iter().filter(|leaf| leaf.kind == kind).count();
    assert_eq!(of_kind(LeafKind::Knowledge), 2);
    assert_eq!(of_kind(LeafKind::GroundedSkill), 2);
    let notes: Vec<_> = tree.notes.iter().filter(|note| note.severity == Severity::Note).collect();
    assert_eq!(notes.len(), 2, "{:?}", tree.notes);
    assert!(notes[0].message.contains("nothing is fetched"), "{}", notes[0]);
    let leaf = tree.leaf("knowledge/arts/music/fandom/swifties").unwrap();
    assert!(leaf.license.is_some());
    assert!(leaf.seeds.len() >= 15 && leaf.seeds.iter().all(|seed| seed.context.is_some()));
    let synonyms = tree.leaf("compositional_skills/linguistics/synonyms").unwrap();
    assert_eq!(synonyms.seeds[0].question, "List a synonym for the word attend.");
}

#[test]
fn one_file_is_a_tree_too() {
    let path = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/assets/taxonomy/compositional_skills/linguistics/synonyms/qna.yaml"
    ));
    let tree = read_tree(path).unwrap();
    assert_eq!(tree.leaves[0].id, "synonyms");
    let whole = read_tree(path.parent().unwrap()).unwrap();
    assert_eq!(whole.leaves[0].hash, tree.leaves[0].hash);
}
