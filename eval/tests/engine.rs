//! Evaluation with a real model.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

use std::ops::ControlFlow;
use std::path::Path;

use espalier_eval::perplexity::{WINDOW, perplexity};
use espalier_eval::tasks::{Selection, TaskOptions, evaluate_tasks};
use espalier_eval::{Checker, EvaluationOptions, Generation, Normalization, Prompting, Task, evaluate};
use espalier_inference::{Engine, EngineOptions, NativeEngine};
use espalier_model::Model;
use espalier_taxonomy::{Leaf, TestItem};

fn engine() -> Option<Engine> {
    let Ok(path) = std::env::var("ESPALIER_TEST_SMOLLM2") else {
        println!("ESPALIER_TEST_SMOLLM2 is not set: evaluation is not tested with a model");
        return None;
    };
    let model = Model::open(Path::new(&path)).unwrap();
    Some(Engine::Native(NativeEngine::load(&model, None, &EngineOptions::default()).unwrap()))
}

#[test]
fn a_small_model_answers_choices_and_questions() {
    let Some(engine) = engine() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("choices.jsonl"),
        r#"{"query": "Question: What do bees make?\nAnswer:", "choices": ["honey", "granite", "electricity", "paper money"], "gold": 0}
{"query": "The opposite of hot is", "choices": ["purple", "cold", "seven", "walking"], "gold": 1}
{"query": "Question: What falls from clouds?\nAnswer:", "choices": ["furniture", "cars", "rain", "books"], "gold": 2}
"#,
    )
    .unwrap();
    let task = folder.path().join("small.yaml");
    std::fs::write(
        &task,
        "task: small\ndataset_path: json\ndataset_kwargs: {data_files: {test: choices.jsonl}}\ntest_split: test\n\
         output_type: multiple_choice\ndoc_to_text: query\ndoc_to_target: gold\ndoc_to_choice: choices\n",
    )
    .unwrap();
    let selection = Selection::read(&[task.display().to_string()]).unwrap();
    let mut steps = 0;
    let found = evaluate_tasks(&engine, selection, &TaskOptions::default(), None, &mut |_| {
        steps += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    let evaluation = found.tasks[0].evaluation("smollm2").unwrap();
    assert_eq!((evaluation.correct(), steps), (3, 13), "{evaluation:#?}");
    assert!(evaluation.items.iter().all(|item| item.logprobs.len() == 4));
    let options = EvaluationOptions { model: "smollm2", ..EvaluationOptions::default() };

    let leaf = Leaf {
        id: "facts".into(),
        test: vec![
            TestItem {
                question: "What is the capital of France?".into(),
                answer: "Paris".into(),
                ..TestItem::default()
            },
            TestItem {
                question: "What is the capital of France?".into(),
                answer: "Paris.".into(),
                choices: vec!["Banana.".into(), "Paris.".into()],
                ..TestItem::default()
            },
        ],
        ..Leaf::default()
    };
    let generation =
        Generation { max_tokens: 24, checker: Checker::Contains(Normalization::default()), ..Generation::default() };
    let task = Task::from_leaf(&leaf, 0, Prompting::Chat, generation).unwrap();
    let journal = folder.path().join("facts.journal");
    let options = EvaluationOptions { journal: Some(&journal), ..options };
    let first = evaluate(&engine, &task, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(first.correct(), 2, "{first:#?}");
    let again = evaluate(&engine, &task, &options, &mut |_| panic!("nothing is left to ask")).unwrap();
    assert_eq!(again, first);
}

#[test]
fn perplexity_is_that_of_llama_perplexity() {
    let Some(Engine::Native(engine)) = engine() else {
        return;
    };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/text/wiki.test.raw");
    let text = std::fs::read_to_string(path).unwrap();
    let found = perplexity(&engine, &text, WINDOW, Some(4), &mut |_, _| ControlFlow::Continue(())).unwrap();
    println!("{found:?}");
    assert_eq!((found.windows, found.tokens), (4, 1020));
    // `llama-perplexity -c 512 --chunks 4` of llama.cpp on the same file and text; its products round activations to 8 bits.
    assert!((found.perplexity - 22.8855).abs() < 0.5, "{found:?}");
    let error = perplexity(&engine, "short", WINDOW, None, &mut |_, _| ControlFlow::Continue(()));
    assert!(error.unwrap_err().to_string().contains("needs 512"));
}
