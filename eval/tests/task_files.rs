//! What is wrong with a task is said with its place and a remedy.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

use std::ops::ControlFlow;
use std::path::Path;

use espalier_eval::tasks::{Selection, TaskOptions, evaluate_tasks, list};
use espalier_inference::{Engine, EngineOptions, NativeEngine};
use espalier_model::Model;

const GOOD: &str = "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n\
                    output_type: multiple_choice\ndoc_to_text: question\ndoc_to_target: gold\ndoc_to_choice: choices\n";

/// What is said to a task file, with the folder taken out.
fn said(text: &str, rows: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let task = folder.path().join("mine.yaml");
    std::fs::write(&task, text).unwrap();
    std::fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let options = TaskOptions::default();
    let found = Selection::read(&[task.display().to_string()])
        .and_then(|selection| evaluate_tasks(&engine(), selection, &options, None, &mut |_| ControlFlow::Continue(())));
    let words = match found {
        Ok(scores) => scores.tasks[0].warnings.join("; "),
        Err(error) => error.to_string(),
    };
    words.replace(&format!("{}/", folder.path().display()), "")
}

fn engine() -> Engine {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/assets/model/stories260K.bin");
    Engine::Native(NativeEngine::load(&Model::open(&model).unwrap(), None, &EngineOptions::default()).unwrap())
}

#[test]
fn files_that_cannot_be_used() {
    let with = |line: &str| said(&format!("{GOOD}{line}\n"), "");
    for (found, expected) in [
        (with("num_fewshots: 3"), "mine.yaml:9:1: unknown key `num_fewshots`; did you mean `num_fewshot`?"),
        (with("unsafe_code: true"), "mine.yaml:9:1: the task runs code that a model wrote"),
        (
            with("process_docs: !function utils.process_docs"),
            "mine.yaml:9:25: `process_docs` names the function `utils.process_docs` in Python",
        ),
        (with("custom_dataset: !function utils.load"), "mine.yaml:9:1: `custom_dataset` cannot be used"),
        (with("metric_list: [{metric: bleu}]"), "mine.yaml:9:24: there is no metric \"bleu\""),
        (with("metric_list: [{metric: acc, ignore_case: true}]"), "mine.yaml:9:29: unknown key `ignore_case`"),
        (with("metric_list: [{metric: acc, aggregation: maen}]"), "mine.yaml:9:42: there is no aggregation \"maen\""),
        (with("num_fewshot: many"), "mine.yaml:9:14: `num_fewshot` is a whole number, this is text"),
        (with("fewshot_config: {sampler: balanced}"), "mine.yaml:9:27: there is no sampler \"balanced\""),
        (with("include: absent.yaml"), "mine.yaml:9:10: the included file absent.yaml cannot be read"),
        (with("include: mine.yaml"), "mine.yaml:9:10: mine.yaml includes itself"),
        (
            with("filter_list: [{name: x, filter: [{function: regex}]}]"),
            "mine.yaml:9:15: a task without generated answers",
        ),
        (with("a: [1"), "mine.yaml:"),
        (said(&GOOD.replace("doc_to_choice: choices\n", ""), ""), "has no `doc_to_choice`"),
        (said(&GOOD.replace("multiple_choice", "multiple_choices"), ""), "mine.yaml:5:14: there is no output type"),
        (said(&GOOD.replace("test_split: test\n", ""), ""), "neither `test_split` nor `validation_split`"),
        (said(&GOOD.replace("rows.jsonl", "other.jsonl"), ""), "its data file other.jsonl is not there"),
        (
            said(&GOOD.replace("test_split: test", "test_split: train"), "{}"),
            "`data_files` has no split `train`; it has test",
        ),
        (
            said(
                &GOOD.replace(
                    "dataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}",
                    "dataset_path: org/name",
                ),
                "",
            ),
            "nothing is loaded from the network",
        ),
        (said("- a\n", ""), "mine.yaml:1:1: a task is a mapping"),
    ] {
        assert!(found.contains(expected), "{found}\nexpected: {expected}");
    }
}

#[test]
fn data_that_does_not_fit() {
    let row = |row: &str| said(GOOD, row);
    let good = r#"{"question": "Who?", "choices": ["Tom", "Lily"], "gold": 0}"#;
    for (found, expected) in [
        (row(""), "the split `test` of its data set is empty"),
        (row("{\"question\": "), "rows.jsonl:1: this is not JSON"),
        (
            row(&good.replace("\"gold\": 0", "\"gold\": 2")),
            "document 0: the right answer is 2, but there are 2 choices",
        ),
        (row(&good.replace("\"gold\": 0", "\"gold\": -1")), "the right answer is -1"),
        (row(&good.replace("\"gold\": 0", "\"gold\": \"Ben\"")), "the right answer is 'Ben'"),
        (row(&good.replace("Lily", " ")), "document 0: choice 1 is empty"),
        (row(&good.replace("[\"Tom\", \"Lily\"]", "\"Tom\"")), "`doc_to_choice` gives 'Tom', which is no list"),
        (row(&good.replace("Lily", "Tom")), "1 of 1 documents have two equal choices"),
        (
            row(&good.replace("Who?", &"Tom saw a dog. ".repeat(200))),
            "1 of 1 prompts are longer than the model's window",
        ),
        (
            row(&good.replace("Lily", &"Lily saw a dog. ".repeat(200))),
            "1 of 1 documents have no answer and count as wrong",
        ),
        (said(&GOOD.replace("doc_to_text: question", "doc_to_text: \"{{questoin}}\""), good), "document 0: "),
        (said(&format!("{GOOD}num_fewshot: 1\n"), good), "its examples are drawn from the documents that are asked"),
        (said(&format!("{GOOD}num_fewshot: 2\n"), good), "2 examples were asked for, but there are 1"),
    ] {
        assert!(found.contains(expected), "{found}\nexpected: {expected}");
    }
    assert_eq!(row(good), "");
}

#[test]
fn names_that_no_task_has() {
    let error = Selection::read(&["arc_esay".to_owned()]).unwrap_err().to_string();
    assert_eq!(error, "there is no task \"arc_esay\"; did you mean \"arc_easy\"?");
    let error = Selection::read(&["nothing".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("pipeline eval list"), "{error}");
}

#[test]
fn every_task_that_comes_with_the_program_can_be_asked() {
    let all = list().unwrap();
    let of = |name: &str| all.iter().find(|task| task.task == name).unwrap_or_else(|| panic!("{name}"));
    for (name, documents) in [
        ("arc_easy", 2376),
        ("arc_challenge", 1172),
        ("openbookqa", 500),
        ("copa", 100),
        ("gsm8k", 1319),
        ("ifeval", 540),
        ("mmlu_virology", 20),
    ] {
        assert_eq!(of(name).documents, Some(documents), "{name}");
    }
    assert!(all.iter().all(|task| task.documents.is_none() || task.licence.is_some()));
    assert_eq!(all.iter().filter(|task| task.group.as_deref() == Some("mmlu")).count(), 57);
    let names: Vec<String> = all
        .iter()
        .filter(|task| task.documents.is_some() && task.group.is_none())
        .map(|task| task.task.clone())
        .collect();
    let selection = Selection::read(&[names, vec!["mmlu_stem".to_owned()]].concat()).unwrap();
    assert_eq!(selection.names().count(), 6 + 19);
    // No document of any is refused: prompts are made of all of them before the first is asked.
    let found = evaluate_tasks(&engine(), selection, &TaskOptions::default(), None, &mut |_| ControlFlow::Break(()));
    assert!(found.unwrap_err().to_string().contains("interrupted after 0 of"));
}
