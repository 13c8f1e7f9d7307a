//! What happens when the teacher cannot, or does not, give what is wanted.

use crate::teacher::{generate, tree_of};
use espalier_dataset::Verdict;
use espalier_inference::{EngineError, Prompt, Request};
use espalier_sdg::{GenerateConfig, GenerateEvent, SdgError};

const SKILL: &str = "espalier: 1
created_by: test
task_description: Count.
seed_examples:
  - {question: 'What is 100 + 1?', answer: '101'}
  - {question: 'What is 200 + 1?', answer: '201'}
  - {question: 'What is 300 + 1?', answer: '301'}
questions: {template: 'What is {{ n }} + 1?', slots: {n: {from: 1, to: 9}}}
verify: {exact: n + 1}
samples: 9
";

const KNOWLEDGE: &str = "espalier: 1
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
samples: 4
";

/// The number in the question.
fn asked(request: &Request) -> u32 {
    let Prompt::Chat(turns) = &request.prompt else { panic!("the teacher is asked in turns") };
    turns.last().unwrap().content.rsplit(' ').nth(2).unwrap().parse().unwrap()
}

fn too_long() -> EngineError {
    EngineError::PromptTooLong { prompt: 300, context: 256 }
}

#[test]
fn a_prompt_that_is_too_long_costs_its_own_row_only() {
    let folder = tempfile::tempdir().unwrap();
    let tree = tree_of(folder.path(), SKILL, &[]);
    let journal = folder.path().join("rows.jsonl");
    let script = |_: usize, request: &Request| if asked(request) == 5 { Err(too_long()) } else { Ok("2".into()) };
    let outcome = generate(&tree, &GenerateConfig::default(), &journal, usize::MAX, &script).unwrap();
    assert_eq!(outcome.rows.len(), 9);
    let too_long: Vec<_> = outcome.rows.iter().filter(|row| row.reason_category() == "prompt too long").collect();
    assert_eq!(too_long.len(), 1);
    assert_eq!(too_long[0].verdict, Verdict::Rejected);
    assert!(too_long[0].reason.contains("300 tokens"), "{}", too_long[0].reason);
    assert!(too_long[0].question().unwrap().starts_with("What is 5"));
    assert_eq!(outcome.rows.iter().filter(|row| row.verdict == Verdict::Accepted).count(), 1);
}

#[test]
fn other_errors_of_the_engine_stop_the_run_and_keep_what_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let tree = tree_of(folder.path(), SKILL, &[]);
    let journal = folder.path().join("rows.jsonl");
    let script = |index: usize, request: &Request| match index {
        4 => Err(EngineError::GivenUp { attempts: 3, reasons: vec!["http://x: refused".into()] }),
        // The right answer, so that rows before the failure are finished.
        _ => Ok((asked(request) + 1).to_string()),
    };
    let Err(error) = generate(&tree, &GenerateConfig::default(), &journal, usize::MAX, &script) else {
        panic!("the run goes on without its server")
    };
    assert!(matches!(error, SdgError::Engine(EngineError::GivenUp { .. })), "{error}");
    assert_eq!(std::fs::read_to_string(&journal).unwrap().lines().count(), 4);
}

#[test]
fn a_leaf_with_given_rows_alone_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let tree = tree_of(folder.path(), KNOWLEDGE, &[("pond.md", "# The pond\n\nA green frog lived in the pond.\n")]);
    let run = |text: &'static str| {
        generate(&tree, &GenerateConfig::default(), &folder.path().join(text), usize::MAX, &|_, _| Ok(text.into()))
            .unwrap()
    };
    let silent = run("nothing");
    assert!(silent.rows.iter().any(|row| row.flow == "seed" && row.verdict == Verdict::Accepted));
    let Some(GenerateEvent::Empty { leaf, message }) = silent.events.last() else { panic!("{:?}", silent.events) };
    assert_eq!(leaf, &tree.leaves[0].id);
    assert!(message.starts_with("none of the teacher's 4 answers passed (4 no question and answer)"), "{message}");
    let talking = run("Question: Who lived in the pond?\nAnswer: A green frog.");
    assert!(!talking.events.iter().any(|event| matches!(event, GenerateEvent::Empty { .. })));
}

#[test]
fn too_few_questions_are_said_beforehand() {
    let folder = tempfile::tempdir().unwrap();
    let tree = tree_of(folder.path(), &SKILL.replace("samples: 9", "samples: 12"), &[]);
    let journal = folder.path().join("rows.jsonl");
    let outcome = generate(&tree, &GenerateConfig::default(), &journal, usize::MAX, &|_, _| Ok("2".into())).unwrap();
    let Some(GenerateEvent::Note { message, .. }) = outcome.events.first() else { panic!("{:?}", outcome.events) };
    assert!(message.starts_with("9 of 12 samples"), "{message}");
}
