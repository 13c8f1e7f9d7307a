//! Leaves whose seeds are conversations: what the teacher sees of them, and rows of several turns.

use espalier_dataset::{Row, Verdict};
use espalier_sdg::GenerateConfig;

use crate::teacher::{Outcome, generate, tree_of};

const DIRECTIONS: &str = "espalier: 1
created_by: test
task_description: Give directions.
seed_examples:
  - turns: [{user: Hello there.}, {assistant: Good day.}, {user: How far is the mill?}, {assistant: Two miles.}]
  - {question: How far is the pond?, answer: One mile.}
  - {question: How far is the lake?, answer: Six miles.}
samples: 6
test: test.jsonl
";

const POND: &str = "espalier: 1
created_by: test
domain: ponds
document: {path: pond.md}
seed_examples:
  - context: A green frog lived there.
    turns: [{user: Who lived there?}, {assistant: A frog.}, {user: Of which colour?}, {assistant: Green.}]
  - {context: A white duck came., question: Who came?, answer: A duck.}
  - {context: The pond was little., question: What was little?, answer: The pond.}
samples: 2
";

const SCRIPT: &str = "User: Hello there.\nAssistant: Good day.\nUser: How far is the mill?";

fn made(leaf: &str, script: &dyn Fn(usize) -> String) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let held_out = r#"{"question": "Is there a ferry?", "answer": "No"}"#;
    let document = "# Toads\n\nA brown toad lived in the pond. It was 12 years old.\n";
    let tree = tree_of(folder.path(), leaf, &[("test.jsonl", held_out), ("pond.md", document)]);
    let config = GenerateConfig { retries: 0, ..GenerateConfig::default() };
    generate(&tree, &config, &folder.path().join("rows.jsonl"), usize::MAX, &|number, _| Ok(script(number))).unwrap()
}

fn said(row: &Row) -> Vec<&str> {
    row.turns.iter().map(|turn| turn.content.as_str()).collect()
}

#[test]
fn a_skill_is_shown_its_conversations_and_gives_rows_of_several_turns() {
    let found = made(DIRECTIONS, &|number| match number {
        0 => "Question: User: Is there a bridge?\nAssistant: Yes, one.\nUser: How old?\nAnswer: A century.".into(),
        1 => "Question: How far is the sea?\nAnswer: Ten miles.".into(),
        2 => "Question: User: Is there a bridge?\nAssistant: Yes, one.\nAnswer: A century.".into(),
        3 => format!("Question: {SCRIPT}\nAnswer: Two miles."),
        4 => "Question: User: Is there a ferry?\nAssistant: No.\nUser: And why not?\nAnswer: It sank.".into(),
        _ => "Question: User: What is that?\nAssistant: I cannot say.\nUser: Why is that?\nAnswer: So.".into(),
    });
    assert!(found.read.iter().all(|text| text.contains(&format!("Question: {SCRIPT}\nAnswer: Two miles."))));
    let [conversation, plain, .., refused] = found.rows.as_slice() else { panic!("six rows") };
    assert_eq!(said(conversation), ["Is there a bridge?", "Yes, one.", "How old?", "A century."]);
    let roles: Vec<&str> = conversation.turns.iter().map(|turn| turn.role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert_eq!(said(plain), ["How far is the sea?", "Ten miles."]);
    assert_eq!([conversation.verdict, plain.verdict], [Verdict::Accepted; 2]);
    let reasons: Vec<&str> = found.rows[2..].iter().map(|row| row.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "no conversation: it does not end with a question of the user",
            "copy of a seed",
            "held-out question",
            "refusal"
        ]
    );
    assert_eq!((refused.verdict, refused.turns.len()), (Verdict::Rejected, 4));
}

#[test]
fn a_text_of_a_leaf_without_conversations_is_a_question_whatever_it_looks_like() {
    let plain = DIRECTIONS.replace(
        "turns: [{user: Hello there.}, {assistant: Good day.}, {user: How far is the mill?}, {assistant: Two miles.}]",
        "{question: How far is the mill?, answer: Two miles.}",
    );
    let found = made(&plain, &|_| "Question: User: one?\nUser: two?\nAnswer: Three.".into());
    assert_eq!(said(&found.rows[0]), ["User: one?\nUser: two?", "Three."]);
}

#[test]
fn a_seed_of_knowledge_is_a_row_with_all_its_turns() {
    let found = made(POND, &|number| match number {
        0 => "Question: User: What lived in the pond?\nAssistant: A brown toad.\nUser: How old was the toad?\n\
              Answer: It was 12 years old."
            .into(),
        _ => "Question: User: What lived in the pond?\nAssistant: Seven crocodiles swam.\nUser: How old was it?\n\
              Answer: It was 12 years old."
            .into(),
    });
    let shown = "Question: User: Who lived there?\nAssistant: A frog.\nUser: Of which colour?\nAnswer: Green.";
    assert!(found.read.iter().any(|text| text == shown), "{:?}", found.read);
    let of = |flow: &str| found.rows.iter().filter(|row| row.flow == flow).collect::<Vec<_>>();
    let (seeds, asked) = (of("seed"), of("document"));
    assert_eq!(said(seeds[0]), ["Who lived there?", "A frog.", "Of which colour?", "Green."]);
    assert_eq!((said(seeds[1]), seeds[0].verdict), (vec!["Who came?", "A duck."], Verdict::Accepted));
    let said: Vec<&str> = asked.iter().map(|row| row.reason_category()).collect();
    assert_eq!(said, ["supported by the text", "not supported by the text"], "each answer must rest on the text");
}
