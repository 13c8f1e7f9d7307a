use super::*;
use crate::leaf::{Exchange, LeafKind, TestItem};

fn seed(line: usize, question: &str, answer: &str, context: Option<&str>) -> Seed {
    Seed { question: question.into(), answer: answer.into(), context: context.map(Into::into), line, ..Seed::default() }
}

fn leaf(id: &str, kind: LeafKind, seeds: Vec<Seed>) -> Leaf {
    Leaf { id: id.into(), file: format!("{id}/qna.yaml").into(), kind, seeds, ..Leaf::default() }
}

/// Seeds enough that no leaf is thin.
fn others() -> Vec<Seed> {
    let words = ["apple tree", "stone wall", "green frog", "deep water", "old road"];
    (100..).zip(words).map(|(line, word)| seed(line, &format!("{word} of which kind"), word, None)).collect()
}

fn messages(leaves: Vec<Leaf>, settings: &LintSettings<'_>) -> Vec<String> {
    let tree = Tree { leaves, ..Tree::default() };
    lint(&tree, settings)
        .iter()
        .map(|found| format!("{}:{}: {}", found.file.display(), found.line, found.message))
        .collect()
}

#[test]
fn a_good_leaf_gives_no_finding() {
    let found = messages(vec![leaf("a", LeafKind::FreeformSkill, others())], &LintSettings::default());
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn duplicates_are_found_within_and_between_leaves() {
    let mut first = others();
    first.push(seed(1, "What is the tallest tree that grows in the north?", "The spruce.", None));
    first.push(seed(2, "What is the tallest tree that grows in the north", "the spruce", None));
    first.push(seed(3, "What is the tallest tree that now grows in the north?", "The spruce is.", None));
    let mut second: Vec<Seed> = others();
    for seed in &mut second {
        seed.question += " in the second of these leaves";
    }
    second.push(seed(9, "What is the tallest tree that grows in the north?", "The birch.", None));
    let leaves = vec![leaf("a", LeafKind::FreeformSkill, first), leaf("b", LeafKind::FreeformSkill, second)];
    assert_eq!(
        messages(leaves, &LintSettings { near: 0.7, ..LintSettings::default() }),
        [
            "a/qna.yaml:2: this seed stands twice, first at a/qna.yaml:1",
            "a/qna.yaml:3: this seed is nearly that at a/qna.yaml:1 (73 % of the words in a row)",
            "b/qna.yaml:9: this question has two answers, first at a/qna.yaml:1",
        ]
    );
}

#[test]
fn answers_that_the_context_does_not_hold_and_seeds_that_are_long_are_found() {
    let context = "Espaliers are trees that are trained flat against a wall, pruned in late winter.";
    let mut seeds = others();
    for other in &mut seeds {
        other.context = Some(other.answer.clone());
    }
    seeds.push(seed(
        1,
        "When are they pruned?",
        "They are pruned in the late winter, when trained trees rest.",
        Some(context),
    ));
    seeds.push(seed(2, "Who made them first?", "Roman gardeners invented espaliers around Pompeii.", Some(context)));
    seeds.push(seed(3, "Why?", &"pruned ".repeat(40), Some(context)));
    seeds.push(seed(4, "REPLACE: a question", "trees", Some(context)));
    let settings = LintSettings { seed_tokens: 50, ..LintSettings::default() };
    assert_eq!(
        messages(vec![leaf("a", LeafKind::Knowledge, seeds.clone())], &settings),
        [
            "a/qna.yaml:2: 5 of 6 words of the answer stand neither in its context nor in its question: roman, gardeners, invented, around, pompeii",
            "a/qna.yaml:3: this seed with its context has 55 tokens, more than 50",
            "a/qna.yaml:4: a text of the scaffold was never filled in",
        ]
    );
    let skill = messages(vec![leaf("a", LeafKind::GroundedSkill, seeds)], &settings);
    assert_eq!(skill.len(), 2, "a skill may say what its context does not: {skill:?}");
}

#[test]
fn thin_leaves_are_found() {
    let thin = vec![
        seed(4, "What is that?", "Yes.", Some("One.")),
        seed(6, "Or is it this?", "yes", Some("One.")),
        seed(8, "Or none at all?", "Yes", Some("One.")),
    ];
    assert_eq!(
        messages(vec![leaf("a", LeafKind::GroundedSkill, thin)], &LintSettings::default()),
        [
            "a/qna.yaml:4: all seeds of the leaf are about one context",
            "a/qna.yaml:4: all seeds of the leaf have the same answer",
            "a/qna.yaml:4: the leaf has 3 seeds, fewer than 5",
        ]
    );
}

#[test]
fn what_is_measured_is_not_taught() {
    let mut seeds = others();
    seeds.push(seed(1, "How many frogs live in the old pond?", "Seven.", None));
    seeds.push(seed(2, "Tell me more.", "The quick brown fox jumps over the lazy dog near the river.", None));
    let mut first = leaf("a", LeafKind::FreeformSkill, seeds);
    let item = |question: &str, line| TestItem { question: question.into(), line, ..TestItem::default() };
    first.test = vec![item("How many frogs live in the old pond today?", 3), item("How many apples are there?", 4)];
    first.test_file = Some("a/test.jsonl".into());
    let texts = vec!["the quick brown fox jumps over the lazy dog".to_owned(), "B".to_owned()];
    let benchmarks = [BenchmarkItem { file: "mmlu.jsonl".into(), line: 7, texts }];
    let settings = LintSettings { benchmarks: &benchmarks, ..LintSettings::default() };
    assert_eq!(
        messages(vec![first], &settings),
        [
            "a/qna.yaml:1: this seed gives away a held-out question at a/test.jsonl:3 (88 % of it)",
            "a/qna.yaml:2: this seed gives away a benchmark at mmlu.jsonl:7 (100 % of it)",
        ]
    );
}

#[test]
fn conversations_are_looked_at_whole() {
    let conversation = |line: usize, user: &str, assistant: &str| Seed {
        history: vec![Exchange { user: user.into(), assistant: assistant.into() }],
        ..seed(line, "And why is that so?", &format!("Because of line {line}."), None)
    };
    let mut seeds = others();
    seeds.push(conversation(1, "Which of the trees is the tallest one?", "The spruce is."));
    // The same last question after other words has another answer, and rightly.
    seeds.push(conversation(2, "How many frogs live in the old pond?", "Seven of them do."));
    seeds.push(conversation(3, "What does the smith make?", "REPLACE: an answer"));
    seeds.push(conversation(4, "Who came to the mill?", &"the miller ".repeat(30)));
    let mut skill = leaf("a", LeafKind::FreeformSkill, seeds);
    let question = "How many frogs live in the old pond?".into();
    skill.test = vec![TestItem { question, line: 3, ..TestItem::default() }];
    skill.test_file = Some("a/test.jsonl".into());
    let settings = LintSettings { seed_tokens: 50, ..LintSettings::default() };
    assert_eq!(
        messages(vec![skill], &settings),
        [
            "a/qna.yaml:2: this seed gives away a held-out question at a/test.jsonl:3 (100 % of it)",
            "a/qna.yaml:3: a text of the scaffold was never filled in",
            "a/qna.yaml:4: this seed with its context has 74 tokens, more than 50",
        ]
    );
}
