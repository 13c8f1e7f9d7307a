//! Rows in the forms of other tools, tasks of multiple choice, and the data card.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use espalier_dataset::{
    AuxiliaryInstructions, FolderOptions, MultipleChoice, OutputForm, Records, Row, RowSource, SamplingSize, Score,
    Split, Turn, Verdict, convert, data_card, write_branch_tasks, write_parquet,
};

fn row(id: &str, leaf: &str, turns: &[(&str, &str)]) -> Row {
    Row {
        id: id.into(),
        leaf: leaf.into(),
        kind: "freeform_skill".into(),
        turns: turns.iter().map(|(role, content)| Turn::new(*role, *content)).collect(),
        verdict: Verdict::Accepted,
        model: "tiny".into(),
        flow: "invented".into(),
        ..Row::default()
    }
}

fn rows() -> Vec<Row> {
    vec![
        row("1", "a", &[("user", "Q1"), ("assistant", "A1")]),
        row("2", "a", &[("system", "S"), ("user", "Q2"), ("assistant", "A2"), ("user", "Q3"), ("assistant", "A3")]),
        row("3", "b", &[("user", "Q4"), ("assistant", " ")]),
        row("4", "b", &[("assistant", "A5"), ("user", "Q5")]),
        Row {
            split: Split::HeldOut,
            license: Some("CC-BY | 4".into()),
            ..row("5", "b", &[("user", "Q6"), ("assistant", "A6")])
        },
        Row {
            verdict: Verdict::Rejected,
            reason: "empty: nothing was said".into(),
            scores: vec![Score { block: "judge".into(), score: 0.5 }],
            answer_tokens: 7,
            ..row("6", "b", &[])
        },
    ]
}

fn source(folder: &Path, rows: &[Row]) -> RowSource {
    let path = folder.join("rows.parquet");
    write_parquet(&path, rows).unwrap();
    RowSource::find(&path, None).unwrap()
}

fn options(system: &str) -> FolderOptions {
    FolderOptions {
        seed: 7,
        system_prompt: system.into(),
        instructions: AuxiliaryInstructions::default(),
        skill_lines: SamplingSize::Share(1.0),
        legacy: false,
        seeds: None,
    }
}

#[test]
fn each_form_is_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let rows = source(folder.path(), &rows());
    let mut words = String::new();
    for (form, name) in [
        (OutputForm::Messages, "messages.jsonl"),
        (OutputForm::Alpaca, "alpaca.jsonl"),
        (OutputForm::ShareGpt, "sharegpt.jsonl"),
        (OutputForm::SkillsTrainMsgs, "skills.jsonl"),
    ] {
        for system in ["", "Be kind."] {
            let out = folder.path().join(name);
            let found = convert(&rows, form, &options(system), &out).unwrap();
            words += &format!("{name}: {} lines, {} empty, {} unfit\n", found.lines, found.empty, found.unfit);
            words += &std::fs::read_to_string(&out).unwrap();
            assert!(Records::open(&out, None).unwrap().all(|record| record.unwrap().example().is_ok()), "{name}");
        }
    }
    let out = folder.path().join("parts");
    let found = convert(&rows, OutputForm::TrainTest, &options(""), &out).unwrap();
    words += &format!("train and test: {} lines\n", found.lines);
    words += &["train.jsonl", "test.jsonl"].map(|name| std::fs::read_to_string(out.join(name)).unwrap()).concat();
    insta::assert_snapshot!(words);
    let out = folder.path().join("knowledge.jsonl");
    let error = convert(&rows, OutputForm::KnowledgeTrainMsgs, &options(""), &out).unwrap_err().to_string();
    assert!(error.contains("no row is left to write") && !out.exists(), "{error}");
}

#[test]
fn questions_of_multiple_choice_are_known_by_their_letters() {
    let ask = |question: &str, reply: &str| {
        MultipleChoice::of_row(&row("1", "a", &[("user", question), ("assistant", reply)]))
    };
    let four = "How deep?\nA) one\nB) two\nC) three\nD) four";
    for reply in ["B", "B) two", "(B) two", "B.", "Answer: B)", "The answer is B", "two"] {
        let found = ask(four, reply).unwrap();
        assert_eq!(
            (found.question.as_str(), found.answer, found.choices[1].as_str()),
            ("How deep?", 1, "two"),
            "{reply}"
        );
    }
    assert!(ask("How\ndeep?\n(A) one\n(B) two\n(C) three\n(D) four", "D").is_some());
    for (question, reply) in [
        (four, "E"),
        (four, "A pond is deep"),
        (four, "five"),
        ("How deep?\nA) one\nB) two\nC) three", "A"),
        ("A) one\nB) two\nC) three\nD) four", "A"),
        ("How?\nA) one\nB) one\nC) three\nD) four", "A"),
        ("How?\nB) one\nA) two\nC) three\nD) four", "A"),
        ("How deep?", "B"),
    ] {
        assert_eq!(ask(question, reply), None, "{question} {reply}");
    }
}

#[test]
fn tasks_are_those_of_instructlab() {
    let folder = tempfile::tempdir().unwrap();
    let four = "How deep is it?\nA) one\nB) two\nC) three\nD) four";
    let rows = [row("1", "knowledge/ponds", &[("user", four), ("assistant", "C) three")]), rows()[0].clone()];
    let rows = source(folder.path(), &rows);
    let tasks = write_branch_tasks(&rows, &folder.path().join("tasks")).unwrap();
    assert_eq!((tasks.len(), tasks[0].questions, tasks[0].name.as_str()), (1, 1, "knowledge_ponds"));
    let text = |name: &str| {
        let text = std::fs::read_to_string(folder.path().join("tasks").join(name)).unwrap();
        text.replace(&format!("{}/", folder.path().display()), "")
    };
    insta::assert_snapshot!(text("knowledge_ponds_task.yaml") + &text("mmlubench_knowledge_ponds.jsonl"));
    let none = folder.path().join("none");
    std::fs::create_dir(&none).unwrap();
    let rows = source(&none, &self::rows());
    assert!(write_branch_tasks(&rows, &none.join("tasks")).unwrap_err().to_string().contains("no accepted row"));
}

#[test]
fn the_card_says_what_the_rows_are() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(data_card("ponds", &source(folder.path(), &rows())).unwrap());
}
