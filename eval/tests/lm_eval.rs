//! Tasks give what lm-evaluation-harness gives: prompts, hashes, log-likelihoods, metrics and standard errors, held to golden files of
//! its hf backend on the same weights in f32 (scripts/golden-lm-eval.py).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use espalier_eval::results::{RunDescription, write_tasks};
use espalier_eval::tasks::{Scores, Selection, TaskOptions, evaluate_tasks};
use espalier_inference::serve::{Answered, Limits, ServeOptions, Server};
use espalier_inference::{ChatTemplate, Engine, EngineOptions, NativeEngine, Overflow, ServerOptions, ServerPool};
use espalier_model::Model;
use serde_json::Value;

const NAMES: [&str; 6] =
    ["golden_group", "golden_same_split", "golden_last_word", "golden_pages", "golden_blanks", "golden_sums"];

/// Metrics whose error is a bootstrap, of which the golden files have fewer draws.
const DRAWN: [&str; 2] = ["perplexity_stderr,none", "mcc_stderr,none"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm_eval")
}

fn golden(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

fn engine() -> Engine {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/assets/model/stories260K.bin");
    let options = EngineOptions { precision: "f32".parse().unwrap(), ..EngineOptions::default() };
    Engine::Native(NativeEngine::load(&Model::open(&model).unwrap(), None, &options).unwrap())
}

fn selection() -> Selection {
    let files: Vec<String> =
        NAMES.iter().map(|name| folder().join(name).with_extension("yaml").display().to_string()).collect();
    Selection::read(&files).unwrap()
}

fn evaluate(options: &TaskOptions<'_>, responses: Option<&Path>) -> Scores {
    evaluate_tasks(&engine(), selection(), options, responses, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// The files that are written, by task.
fn written(options: &TaskOptions<'_>, scores: &Scores) -> (Value, Vec<(String, Vec<Value>)>) {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDescription { model: "stories".into(), ..RunDescription::default() };
    let paths = write_tasks(folder.path(), "x", &run, options, scores).unwrap().paths;
    let results = serde_json::from_slice(&std::fs::read(&paths[0]).unwrap()).unwrap();
    let samples = paths[1..].iter().map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let name = name.strip_prefix("samples_").unwrap().strip_suffix("_x").unwrap().to_owned();
        let text = std::fs::read_to_string(path).unwrap();
        (name, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    });
    (results, samples.collect())
}

/// A number that is close, or a text that reads as one.
fn close(found: &Value, expected: &Value, tolerance: f64, what: &str) {
    if let (Value::Array(found), Value::Array(expected)) = (found, expected) {
        assert_eq!(found.len(), expected.len(), "{what}");
        found.iter().zip(expected).for_each(|(found, expected)| close(found, expected, tolerance, what));
        return;
    }
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    if let (Some(found), Some(expected)) = (number(found), number(expected)) {
        let far = (found - expected).abs() > tolerance * expected.abs().max(1.0);
        assert!(!far, "{what}: {found} is not {expected}");
        return;
    }
    // Truth values stand as Python's texts in our files.
    let text = |value: &Value| match value {
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.as_str().map_or_else(|| other.to_string(), str::to_owned),
    };
    assert_eq!(text(found), text(expected), "{what}");
}

fn compare(options: &TaskOptions<'_>, golden: &Value) {
    let (results, samples) = written(options, &evaluate(options, None));
    for (task, rows) in &samples {
        let expected = golden["samples"][task].as_array().unwrap();
        assert_eq!(rows.len(), expected.len(), "{task}");
        for (row, expected) in rows.iter().zip(expected) {
            let what = format!("{task} {} {}", expected["doc_id"], expected["filter"]);
            let arguments: Vec<Value> = row["arguments"]
                .as_object()
                .unwrap()
                .values()
                .map(|arguments| arguments.as_object().unwrap().values().cloned().collect())
                .collect();
            assert_eq!(Value::Array(arguments), expected["arguments"], "{what}");
            for key in ["doc_id", "filter", "doc_hash", "prompt_hash", "target_hash"] {
                assert_eq!(row[key], expected[key], "{what}: {key}");
            }
            close(&row["filtered_resps"], &expected["filtered_resps"], 1e-3, &what);
            for (metric, value) in expected["metrics"].as_object().unwrap() {
                close(&row[metric], value, 1e-3, &format!("{what} {metric}"));
            }
        }
    }
    for (task, expected) in golden["results"].as_object().unwrap() {
        for (key, expected) in expected.as_object().unwrap() {
            if key != "sample_count" && !DRAWN.contains(&key.as_str()) {
                close(&results["results"][task][key], expected, 1e-3, &format!("{task} {key}"));
            }
        }
        assert_eq!(results["versions"][task], golden["versions"][task], "{task}");
        if !golden["n-shot"][task].is_null() && task != "golden_group" {
            assert_eq!(results["n-shot"][task], golden["n-shot"][task], "{task}");
        }
    }
    assert_eq!(samples.len(), 7);
}

#[test]
fn plain_prompts_give_what_lm_eval_gives() {
    compare(&TaskOptions::default(), &golden("plain.json"));
}

#[test]
fn conversations_give_what_lm_eval_gives() {
    let source = "{% for m in messages %}[{{m.role}}]{{m.content}}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let template = ChatTemplate::new(Some(source), "", "").unwrap();
    let options = TaskOptions {
        chat_template: Some(&template),
        system_instruction: Some("You are kind."),
        ..TaskOptions::default()
    };
    compare(&options, &golden("chat.json"));
}

#[test]
fn an_interrupted_run_goes_on_and_other_limits_ask_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let options = TaskOptions { limit: Some(2.0), ..TaskOptions::default() };
    let unbroken = written(&options, &evaluate(&options, None));
    let engine = engine();
    let run = |options: &TaskOptions<'_>, most: usize| {
        let mut first = None;
        let found = evaluate_tasks(&engine, selection(), options, Some(folder.path()), &mut |progress| {
            first.get_or_insert(progress.done);
            if progress.done >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (found, first.unwrap())
    };
    let (stopped, _) = run(&options, 9);
    assert!(stopped.unwrap_err().to_string().contains("interrupted after 9 of"));
    let (resumed, first) = run(&options, usize::MAX);
    assert_eq!(first, 9);
    assert_eq!(written(&options, &resumed.unwrap()), unbroken);
    let (again, first) = run(&options, usize::MAX);
    let all = first;
    assert_eq!(written(&options, &again.unwrap()), unbroken);
    let (more, first) = run(&TaskOptions { limit: Some(3.0), ..TaskOptions::default() }, usize::MAX);
    assert!(more.is_ok() && first == all, "{first} of {all} replies were known");
}

/// The golden tasks that ask for likelihoods after a context.
const OF_SERVERS: [&str; 3] = ["golden_group", "golden_same_split", "golden_last_word"];

#[test]
fn a_server_that_repeats_texts_gives_what_the_engine_gives() {
    let Engine::Native(native) = engine() else { unreachable!() };
    let served = ServeOptions {
        address: "127.0.0.1:0".parse().unwrap(),
        model: "stories".to_owned(),
        other_names: Vec::new(),
        adapters: Vec::new(),
        key: None,
        max_waiting: 1024,
        max_tokens: 32,
        overflow: Overflow::Refuse,
        limits: Limits::default(),
    };
    let server = Server::start(Arc::new(native), served, Box::new(|_: &Answered| {})).unwrap();
    let url = format!("http://{}", server.address());
    let pool = ServerPool::open(&url, &|_| None, ServerOptions::from_environment(&|_| None).unwrap()).unwrap();
    let files: Vec<String> =
        OF_SERVERS.iter().map(|name| folder().join(name).with_extension("yaml").display().to_string()).collect();
    let found = |engine: &Engine| {
        let options = TaskOptions { limit: Some(4.0), ..TaskOptions::default() };
        let selection = Selection::read(&files).unwrap();
        evaluate_tasks(engine, selection, &options, None, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let (expected, by_server) = (found(&engine()), found(&Engine::Servers(pool)));
    let mut compared = 0;
    for (one, other) in expected.tasks.iter().zip(&by_server.tasks) {
        let (Some(one), Some(other)) = (one.evaluation("x"), other.evaluation("x")) else { continue };
        for (one, other) in one.items.iter().zip(&other.items) {
            assert_eq!((&one.prompt_hash, one.correct, &other.error), (&other.prompt_hash, other.correct, &None));
            for (one, other) in one.logprobs.iter().zip(&other.logprobs) {
                assert!((one - other).abs() < 1e-3, "{one} {other}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 24, "{compared}");
    assert!(server.stop(std::time::Duration::from_secs(5)));
}

#[test]
fn two_models_are_compared_on_the_same_items() {
    let scores = evaluate(&TaskOptions { limit: Some(4.0), ..TaskOptions::default() }, None);
    let drawn = scores.tasks.iter().find(|task| task.task == "golden_drawn").unwrap();
    let (first, second) = (drawn.evaluation("a").unwrap(), drawn.evaluation("b").unwrap());
    assert_eq!((first.items.len(), first.metric.as_str(), first.few_shot), (4, "acc", 3));
    let found = espalier_eval::compare(&first, &second, &espalier_eval::ComparisonOptions::default()).unwrap();
    assert!(found.words().contains("4 items"), "{}", found.words());
    // A perplexity has no value for each item between 0 and 1.
    let pages = scores.tasks.iter().find(|task| task.task == "golden_pages").unwrap();
    assert!(pages.evaluation("a").is_none());
}
