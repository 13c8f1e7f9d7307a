//! The example trees that come with the program.

use std::collections::HashSet;
use std::path::Path;

use espalier_taxonomy::{LeafKind, Slot, Tree, read_tree};

fn example(name: &str) -> Tree {
    read_tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)).unwrap_or_else(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}

#[test]
fn both_are_valid_and_have_tests() {
    for name in ["quickstart", "tiny"] {
        let tree = example(name);
        assert_eq!(tree.notes, []);
        assert!(tree.leaves.len() >= 2);
        assert!(tree.leaves.iter().all(|leaf| !leaf.test.is_empty()));
    }
}

#[test]
fn the_days_of_the_date_test_are_outside_of_training() {
    let tree = example("quickstart");
    let leaf = tree.leaf("skills/dates_to_iso").unwrap();
    assert_eq!((leaf.kind, leaf.test.len(), leaf.samples), (LeafKind::FreeformSkill, 300, Some(600)));
    let Slot::DateRange { from, to } = &leaf.questions.as_ref().unwrap().slots["day"] else { panic!("not a range") };
    for item in &leaf.test {
        assert!(item.answer > *to && item.answer > *from, "{}", item.answer);
        assert_eq!(item.slots.as_ref().unwrap()["day"], item.answer.as_str());
    }
    let days: HashSet<&String> = leaf.test.iter().map(|item| &item.answer).collect();
    assert_eq!(days.len(), 300);
}

#[test]
fn the_choices_about_the_document_are_in_it() {
    let tree = example("quickstart");
    let leaf = tree.leaf("knowledge/espalier_pruning").unwrap();
    assert_eq!((leaf.kind, leaf.test.len(), leaf.seeds.len()), (LeafKind::Knowledge, 30, 15));
    let document = leaf.documents[0].text.to_lowercase();
    for item in &leaf.test {
        assert_eq!(item.choices.len(), 4);
        // The last word or number of the right choice: answers are worded for the question, not copied.
        let word = item.answer.to_lowercase();
        let word = word.rsplit(' ').next().unwrap();
        assert!(document.contains(word.trim_end_matches('s')), "{}", item.answer);
    }
    let paragraphs: String = document.split_whitespace().collect::<Vec<_>>().join(" ");
    for seed in &leaf.seeds {
        let context = seed.context.as_ref().unwrap().to_lowercase();
        assert!(paragraphs.contains(&context.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
}
