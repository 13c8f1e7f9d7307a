//! Scores of stored generations beside those of lm-eval.

use super::*;
use crate::tasks::{Selection, TaskOptions};

/// What both filters of gsm8k take from stored generations, right ones in many forms among them (scripts/golden-gsm8k.py).
#[test]
fn gsm8k_takes_answers_as_lm_eval_does() {
    let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/gsm8k.json")).unwrap();
    let generations = golden["generations"].as_array().unwrap();
    let rows = generations.iter().map(|found| found["row"].as_u64().unwrap() as usize).collect();
    let config = Selection::read(&["gsm8k".to_owned()]).unwrap().tasks.remove(0);
    let options = TaskOptions { samples: Some(rows), num_fewshot: Some(0), ..TaskOptions::default() };
    let benchmark = Benchmark::build(config, &options).unwrap();
    let said = |found: &Value| vec![Reply::Text { text: found["response"].as_str().unwrap().to_owned(), cut: 0 }];
    let replies: Vec<Vec<Reply>> = generations.iter().map(said).collect();
    let scores = score(&benchmark, &replies).unwrap();
    assert_eq!(scores.samples.len(), 2 * generations.len());
    for (place, sample) in scores.samples.iter().enumerate() {
        let expected = &generations[place % generations.len()];
        let found = json!([sample.filtered[0], sample.metrics[0].1.number()]);
        assert_eq!(found, expected["filters"][&sample.filter], "{expected} {}", sample.filter);
    }
    for found in &scores.scores {
        let expected = &golden["results"];
        let value = expected[format!("{},{}", found.metric, found.filter)].as_f64().unwrap();
        let error = expected[format!("{}_stderr,{}", found.metric, found.filter)].as_f64().unwrap();
        assert!((found.value - value).abs() < 1e-12 && value > 0.2, "{found:?}");
        assert!((found.error.unwrap() - error).abs() < 1e-12, "{found:?}");
    }
    assert_eq!(scores.scores.len(), 2);
}

/// Prompts of BIG-Bench Hard without examples, and what its filters take from stored generations (scripts/golden-bbh.py).
#[test]
fn bbh_takes_answers_as_lm_eval_does() {
    let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/bbh.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tasks = golden["tasks"].as_object().unwrap();
    let names = tasks.keys().map(|task| format!("bbh_zeroshot_{task}")).collect::<Vec<_>>();
    // As they were published: one object a task.
    for (task, row) in tasks {
        let example = json!({"input": row["input"], "target": row["target"]});
        let examples = vec![example; row["generations"].as_array().unwrap().len()];
        let text = serde_json::to_string_pretty(&json!({"canary": "none", "examples": examples})).unwrap();
        std::fs::write(folder.path().join(format!("{task}.json")), text).unwrap();
    }
    let options = TaskOptions { data_dir: Some(folder.path()), ..TaskOptions::default() };
    let mut compared = 0;
    for (config, row) in Selection::read(&names).unwrap().tasks.into_iter().zip(tasks.values()) {
        let benchmark = Benchmark::build(config, &options).unwrap();
        let generations = row["generations"].as_array().unwrap();
        let said = |found: &Value| vec![Reply::Text { text: found["response"].as_str().unwrap().to_owned(), cut: 0 }];
        let replies: Vec<Vec<Reply>> = generations.iter().map(said).collect();
        let scores = score(&benchmark, &replies).unwrap();
        assert_eq!(scores.samples[0].arguments[0][0], row["prompt"]);
        for (place, sample) in scores.samples.iter().enumerate() {
            let expected = &generations[place % generations.len()];
            let found = json!([sample.filtered[0], sample.metrics[0].1.number()]);
            assert_eq!(found, expected["filters"][&sample.filter], "{} {expected} {}", scores.task, sample.filter);
            compared += 1;
        }
    }
    assert!(compared > 150, "{compared}");
    assert_eq!(Selection::read(&["bbh_zeroshot".to_owned()]).unwrap().tasks.len(), 27);
}
