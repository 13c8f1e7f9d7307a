//! One test a flow: lineage, duplicates, and equal rows after interruptions.

use espalier_dataset::{Row, Verdict, drop_duplicates};
use espalier_inference::{Prompt, Request};
use espalier_sdg::GenerateConfig;
use espalier_taxonomy::Tree;

use crate::teacher::{generate, tree_of};

const DATES: &str = "espalier: 1
created_by: test
task_description: Write a date in ISO 8601.
seed_examples:
  - {question: 'Write 5 March 2009', answer: 2009-03-05}
  - {question: 'Write 6 March 2009', answer: 2009-03-06}
  - {question: 'Write Aug 7, 2009', answer: 2009-08-07}
questions:
  template: Write {{ shown }}
  slots: {day: {from: 1990-01-01, to: 1999-12-31}}
  derive: {shown: \"day | format_date('%-d %B %Y')\"}
verify: {exact: day}
samples: 20
test: test.jsonl
";

const RHYMES: &str = "espalier: 1
created_by: test
task_description: Rhyme.
seed_examples:
  - {question: What rhymes with cat?, answer: A hat.}
  - {question: What rhymes with sea?, answer: A tree.}
  - {question: What rhymes with moon?, answer: A spoon.}
samples: 12
test: test.jsonl
";

const EXTRACTION: &str = "espalier: 1
created_by: test
task_description: Find the name.
seed_examples:
  - {context: Anna sat down., question: Who sat down?, answer: Anna}
  - {context: Bert got up., question: Who got up?, answer: Bert}
  - {context: Carl went out., question: Who went out?, answer: Carl}
samples: 12
test: test.jsonl
";

const POND: &str = "espalier: 1
created_by: test
domain: ponds
document: {path: pond.md}
seed_examples:
  - context: A green frog lived there.
    questions_and_answers: [{question: Who lived there?, answer: A frog.}]
  - context: A white duck came.
    questions_and_answers: [{question: Who came?, answer: A duck.}]
  - context: The pond was little.
    questions_and_answers: [{question: What was little?, answer: The pond.}]
samples: 12
test: test.jsonl
";

const DOCUMENT: &str = "# The pond\n\nA brown toad lived in the pond. It was 12 years old.\n";

fn last_turn(request: &Request) -> &str {
    let Prompt::Chat(turns) = &request.prompt else { panic!("the teacher is asked in turns") };
    &turns.last().unwrap().content
}

/// Runs to the end, checks what holds for every flow, and gives the rows with duplicates rejected.
fn rows(leaf: &str, test: &str, script: &dyn Fn(&Request) -> String) -> (Tree, Vec<Row>) {
    let folder = tempfile::tempdir().unwrap();
    let tree = tree_of(folder.path(), leaf, &[("test.jsonl", test), ("pond.md", DOCUMENT)]);
    let config = GenerateConfig { retries: 2, ..GenerateConfig::default() };
    let run = |journal: &str, stop_after: usize| {
        generate(&tree, &config, &folder.path().join(journal), stop_after, &|_, request| Ok(script(request)))
    };
    let whole = run("whole.jsonl", usize::MAX).unwrap();
    for stop_after in [1, 3, 7, 11] {
        let _ = run("cut.jsonl", stop_after);
    }
    assert_eq!(run("cut.jsonl", usize::MAX).unwrap().rows, whole.rows, "after interruptions");
    let held_out = &tree.leaves[0].test[0].question;
    assert!(!whole.read.iter().any(|text| text.contains(held_out)), "a test question reached a prompt");
    let mut rows = whole.rows;
    drop_duplicates(&mut rows);
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row.index, index as u64);
        assert_eq!((row.leaf.as_str(), row.turns.len()), (tree.leaves[0].id.as_str(), 2));
        assert_eq!((row.id.len(), row.prompt_hash.len()), (16, 64));
        assert!(!row.reason.is_empty() && !row.kind.is_empty(), "{row:?}");
        assert!(row.verdict == Verdict::Rejected || row.question().unwrap() != held_out);
        if row.model == "scripted" {
            assert!(!row.answer.is_empty() && !row.seed_ids.is_empty(), "{row:?}");
        }
    }
    (tree, rows)
}

fn accepted(rows: &[Row]) -> Vec<&Row> {
    rows.iter().filter(|row| row.verdict == Verdict::Accepted).collect()
}

#[test]
fn template() {
    let test = r#"{"question": "Write 1 May 1995", "answer": "1995-05-01", "slots": {"day": "1995-05-01"}}"#;
    let (_, rows) = rows(DATES, test, &|request| {
        let shown = last_turn(request).rsplit("Write ").next().unwrap();
        let values = [("shown".to_owned(), shown.into())].into();
        // Right about days of one digit at once, about every fourth seed of the others.
        if shown.split(' ').next().unwrap().len() == 1 || request.seed.is_multiple_of(4) {
            espalier_sdg::evaluate_expression("shown | parse_date('%d %B %Y')", &values).unwrap() + "."
        } else {
            "no idea".into()
        }
    });
    assert_eq!(rows.len(), 20);
    let kept = accepted(&rows);
    assert!(!kept.is_empty() && kept.len() < 20, "{}", kept.len());
    for row in &kept {
        let slots: serde_json::Value = serde_json::from_str(&row.slots).unwrap();
        assert_eq!((row.flow.as_str(), row.reason.as_str()), ("template", "exact"));
        assert_eq!(row.turns[1].content, slots["day"].as_str().unwrap(), "the answer without its full stop");
        assert_eq!(row.answer, format!("{}.", row.turns[1].content), "what was written stays");
    }
    assert!(
        rows.iter().filter(|row| row.verdict == Verdict::Rejected).all(|row| row.reason_category() == "wrong answer")
    );
}

#[test]
fn invented() {
    let test = r#"{"question": "What rhymes with held out?", "answer": "Scout"}"#;
    let (_, rows) = rows(RHYMES, test, &|request| {
        let (word, answer) = [("light", "Night."), ("held out", "Scout"), ("cat", "Rat."), ("dark", "Bark.")]
            [usize::try_from(request.seed % 4).unwrap()];
        format!("Question: What rhymes with {word}?\nAnswer: {answer}\n\nQuestion: more")
    });
    assert_eq!(rows.len(), 12);
    let kept = accepted(&rows);
    let questions: Vec<&str> = kept.iter().map(|row| row.question().unwrap()).collect();
    assert!((1..=2).contains(&kept.len()), "only two different questions are good: {questions:?}");
    let reasons: Vec<&str> = rows.iter().map(Row::reason_category).collect();
    assert!(reasons.contains(&"duplicate"), "{reasons:?}");
    assert!(
        kept.iter()
            .all(|row| row.flow == "invented" && row.turns[1].content.ends_with("k.")
                || row.turns[1].content == "Night.")
    );
}

#[test]
fn grounded() {
    let test = r#"{"context": "Zoe ran.", "question": "Who ran?", "answer": "Zoe"}"#;
    let (_, rows) = rows(EXTRACTION, test, &|request| match request.seed % 6 {
        0 => "Question: Dora sang.\n\nWho sang?\nAnswer: Dora".into(),
        1 => format!("Question: Nr. {} slept.\n\nWho slept?\nAnswer: The number", request.seed % 1000),
        _ => "Question: Zoe ran.\n\nWho ran?\nAnswer: Zoe".into(),
    });
    assert_eq!(rows.len(), 12);
    for row in accepted(&rows) {
        assert_eq!((row.flow.as_str(), row.kind.as_str()), ("grounded", "grounded_skill"));
        assert!(row.question().unwrap().contains("\n\nWho s"), "the text stands above its question");
    }
    assert!(accepted(&rows).len() > 1);
    assert!(rows.iter().any(|row| row.reason_category() == "held-out question"));
}

#[test]
fn document() {
    let test = r#"{"question": "How old was the toad?", "answer": "12 years"}"#;
    let (tree, rows) = rows(POND, test, &|request| {
        assert!(last_turn(request).contains("brown toad"));
        match request.seed % 4 {
            0 => "Question: Who lived in the pond?\nAnswer: A brown toad lived in the pond.".into(),
            1 => "Question: What lived in the pond?\nAnswer: Seven crocodiles swam around.".into(),
            2 => "Question: How old was the toad?\nAnswer: The toad was 12 years old.".into(),
            _ => "I like ponds.".into(),
        }
    });
    let of_flow = |flow: &str| rows.iter().filter(|row| row.flow == flow).collect::<Vec<_>>();
    let (seeds, passages, asked) = (of_flow("seed"), of_flow("passage"), of_flow("document"));
    assert_eq!((seeds.len(), passages.len(), asked.len()), (3, 1, 12));
    for row in seeds.iter().chain(&passages) {
        assert_eq!((row.model.as_str(), row.reason.as_str(), row.verdict), ("none", "given", Verdict::Accepted));
    }
    assert_eq!(seeds[1].seed_ids, ["1"]);
    assert_eq!(passages[0].turns[1].content.trim(), tree.leaves[0].documents[0].text.lines().last().unwrap());
    for row in asked {
        assert_eq!((row.document.as_deref(), row.seed_ids.len()), (Some("pond.md"), 3));
        let found = (row.verdict, row.reason_category());
        assert!(
            matches!(
                found,
                (Verdict::Accepted, "supported by the text")
                    | (
                        Verdict::Rejected,
                        "not supported by the text" | "held-out question" | "no question and answer" | "duplicate"
                    )
            ),
            "{found:?}"
        );
    }
}
