//! Result files as lm-eval writes them: `results_STEM.json` and one `samples_TASK_STEM.jsonl` a task.
//!
//! The stem is the caller's: a fixed one makes files that are the same from run to run. Nothing here reads a clock.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use espalier_dataset::write_atomically;
use serde_json::{Map, Value, json};

use crate::error::EvalError;
use crate::evaluation::{Evaluation, ItemResult, sha256};

/// What the files say about the run as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunDescription {
    /// The model: a path or a name.
    pub model: String,
    /// What decides its results: hashes, precision (see `Engine::identity`).
    pub model_args: String,
    /// The chat template, where one was applied.
    pub chat_template: Option<String>,
}

/// Writes the evaluations of one model into `directory` (made when it is not there): `results_STEM.json` and a samples file for
/// each task. Files appear whole or not at all. Gives the paths, the results file first.
pub fn write(
    directory: &Path,
    stem: &str,
    run: &RunDescription,
    evaluations: &[Evaluation],
) -> Result<Vec<PathBuf>, EvalError> {
    fs::create_dir_all(directory).map_err(EvalError::file(directory, "make the folder"))?;
    let results = directory.join(format!("results_{stem}.json"));
    let mut text = serde_json::to_string_pretty(&results_json(run, evaluations)).unwrap_or_default();
    text.push('\n');
    write_atomically(&results, |file| file.write_all(text.as_bytes()))
        .map_err(EvalError::file(&results, "write it"))?;
    let mut paths = vec![results];
    for evaluation in evaluations {
        let path = directory.join(format!("samples_{}_{stem}.jsonl", evaluation.task));
        write_atomically(&path, |file| {
            for item in &evaluation.items {
                serde_json::to_writer(&mut *file, &sample_json(evaluation, item))?;
                file.write_all(b"\n")?;
            }
            Ok(())
        })
        .map_err(EvalError::file(&path, "write it"))?;
        paths.push(path);
    }
    Ok(paths)
}

fn results_json(run: &RunDescription, evaluations: &[Evaluation]) -> Value {
    let by_task = |value: &dyn Fn(&Evaluation) -> Value| -> Value {
        evaluations
            .iter()
            .map(|evaluation| (evaluation.task.clone(), value(evaluation)))
            .collect::<Map<String, Value>>()
            .into()
    };
    json!({
        "results": by_task(&metrics_json),
        "group_subtasks": by_task(&|_| json!([])),
        "configs": by_task(&|evaluation| json!({
            "task": evaluation.task,
            "output_type": if evaluation.metric == "acc" { "multiple_choice" } else { "generate_until" },
            "num_fewshot": evaluation.few_shot,
            "metric_list": metric_names(evaluation).iter().map(|name| json!({"metric": name, "aggregation": "mean", "higher_is_better": true})).collect::<Vec<_>>(),
            "metadata": {"version": 1},
        })),
        "versions": by_task(&|_| json!(1)),
        "n-shot": by_task(&|evaluation| json!(evaluation.few_shot)),
        "higher_is_better": by_task(&|evaluation| {
            metric_names(evaluation).into_iter().map(|name| (name.to_owned(), json!(true))).collect::<Map<String, Value>>().into()
        }),
        "n-samples": by_task(&|evaluation| json!({"original": evaluation.items.len(), "effective": evaluation.items.len()})),
        "config": {
            "model": "espalier",
            "model_args": run.model_args,
            "batch_size": null,
            "device": "cpu",
            "limit": null,
            "bootstrap_iters": 0,
            "gen_kwargs": {"do_sample": false, "temperature": 0.0},
        },
        "task_hashes": by_task(&|evaluation| json!(task_hash(evaluation))),
        "model_source": "espalier",
        "model_name": run.model,
        "model_name_sanitized": sanitized(&run.model),
        "chat_template": run.chat_template,
        "chat_template_sha": run.chat_template.as_deref().map(sha256),
        "fewshot_as_multiturn": run.chat_template.is_some(),
        "system_instruction": null,
        "lm_eval_version": null,
        "espalier_version": env!("CARGO_PKG_VERSION"),
    })
}

fn metric_names(evaluation: &Evaluation) -> Vec<&str> {
    let mut names = vec![evaluation.metric.as_str()];
    if evaluation.accuracy_normalized.is_some() {
        names.push("acc_norm");
    }
    names
}

/// Mean and its standard error, sample standard deviation over the root of n, under lm-eval's names; and our interval.
fn metrics_json(evaluation: &Evaluation) -> Value {
    let n = evaluation.items.len() as f64;
    let standard_error = |share: f64| {
        if n > 1.0 { (share * (1.0 - share) / (n - 1.0)).sqrt() } else { f64::NAN }
    };
    let mut metrics = Map::new();
    metrics.insert("alias".to_owned(), json!(evaluation.task));
    metrics.insert("sample_len".to_owned(), json!(evaluation.items.len()));
    let values =
        [(evaluation.metric.as_str(), Some(evaluation.accuracy)), ("acc_norm", evaluation.accuracy_normalized)];
    for (name, value) in values {
        if let Some(value) = value {
            metrics.insert(format!("{name},none"), json!(value));
            metrics.insert(format!("{name}_stderr,none"), json!(standard_error(value)));
        }
    }
    metrics.insert("wilson_low,none".to_owned(), json!(evaluation.wilson.low));
    metrics.insert("wilson_high,none".to_owned(), json!(evaluation.wilson.high));
    metrics.into()
}

/// sha256 of the hashes of all samples, as lm-eval makes it.
fn task_hash(evaluation: &Evaluation) -> String {
    let all: String = evaluation
        .items
        .iter()
        .map(|item| [item.doc_hash.as_str(), &item.prompt_hash, &item.target_hash].concat())
        .collect();
    sha256(&all)
}

/// Characters that file names cannot hold become `__`, a run of them once.
fn sanitized(name: &str) -> String {
    let mut result = String::new();
    let mut inside = false;
    for character in name.chars() {
        let bad = matches!(character, '"' | '<' | '>' | ':' | '/' | '|' | '\\' | '?' | '*' | '[' | ']');
        if !bad {
            result.push(character);
        } else if !inside {
            result.push_str("__");
        }
        inside = bad;
    }
    result
}

fn sample_json(evaluation: &Evaluation, item: &ItemResult) -> Value {
    let (arguments, responses, filtered) = if item.continuations.is_empty() {
        let arguments = vec![json!({"arg_0": item.prompt, "arg_1": {"do_sample": false, "temperature": 0.0}})];
        (arguments, json!([[item.response]]), json!([item.extracted]))
    } else {
        let arguments =
            item.continuations.iter().map(|choice| json!({"arg_0": item.prompt, "arg_1": choice})).collect();
        // lm-eval writes log-likelihood and "is it the greedy text" as strings; the second is not asked for here.
        let pairs: Vec<Value> = item.logprobs.iter().map(|logprob| json!([logprob.to_string(), "False"])).collect();
        (arguments, pairs.iter().map(|pair| json!([pair])).collect::<Value>(), Value::Array(pairs))
    };
    let arguments: Map<String, Value> =
        arguments.into_iter().enumerate().map(|(index, pair)| (format!("gen_args_{index}"), pair)).collect();
    let mut sample = json!({
        "doc_id": item.index,
        "doc": item.doc,
        "target": item.target,
        "arguments": arguments,
        "resps": responses,
        "filtered_resps": filtered,
        "filter": "none",
        "metrics": metric_names(evaluation),
        "doc_hash": item.doc_hash,
        "prompt_hash": item.prompt_hash,
        "target_hash": item.target_hash,
    });
    sample[evaluation.metric.as_str()] = json!(item.score);
    if let Some(normalized) = item.correct_normalized {
        sample["acc_norm"] = json!(f64::from(u8::from(normalized)));
    }
    if let Some(error) = &item.error {
        sample["error"] = json!(error);
    }
    sample
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::run::{EvaluationOptions, ItemAnswer, evaluate_with};
    use crate::task::{Generation, Item, ItemPrompt, Task};

    fn evaluation(choices: &[&str]) -> Evaluation {
        let item = |index: usize| Item {
            id: format!("t#{index}"),
            prompt: ItemPrompt::Text("Q".into()),
            choices: choices.iter().map(ToString::to_string).collect(),
            gold: 0,
            answer: "a".into(),
            doc: json!({"q": index}),
            test: None,
        };
        let task =
            Task { name: "t".into(), items: vec![item(0), item(1)], generation: Generation::default(), few_shot: 2 };
        let options = EvaluationOptions { model: "m", ..EvaluationOptions::default() };
        let mut answer = |items: &[&Item], on_answer: crate::run::OnAnswer<'_>| {
            for at in 0..items.len() {
                let answer = if choices.is_empty() {
                    ItemAnswer::Text("A.".into())
                } else {
                    ItemAnswer::Logprobs(vec![-1.5, at as f64 - 2.0])
                };
                let _ = on_answer(at, answer);
            }
            Ok(())
        };
        evaluate_with("x", &task, &options, &mut answer, &mut |_| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn multiple_choice_in_the_form_of_lm_eval() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDescription { model: "org/model:1".into(), ..RunDescription::default() };
        let paths = write(folder.path(), "fixed", &run, &[evaluation(&["a", "bb"])]).unwrap();
        assert_eq!(paths[0].file_name().unwrap(), "results_fixed.json");
        assert_eq!(paths[1].file_name().unwrap(), "samples_t_fixed.jsonl");
        let results: Value = serde_json::from_slice(&fs::read(&paths[0]).unwrap()).unwrap();
        assert_eq!(results["results"]["t"]["acc,none"], 0.5);
        assert_eq!(results["results"]["t"]["acc_norm,none"], 0.0);
        // sd of (1, 0) is sqrt(1/2), over sqrt 2: 1/2
        assert_eq!(results["results"]["t"]["acc_stderr,none"], 0.5);
        assert_eq!(results["model_name_sanitized"], "org__model__1");
        assert_eq!(results["n-shot"]["t"], 2);
        let samples = fs::read_to_string(&paths[1]).unwrap();
        let sample: Value = serde_json::from_str(samples.lines().nth(1).unwrap()).unwrap();
        assert_eq!(sample["arguments"]["gen_args_1"], json!({"arg_0": "Q", "arg_1": " bb"}));
        assert_eq!(sample["resps"], json!([[["-1.5", "False"]], [["-1", "False"]]]));
        assert_eq!(sample["filtered_resps"], json!([["-1.5", "False"], ["-1", "False"]]));
        assert_eq!((&sample["acc"], &sample["acc_norm"], &sample["target"]), (&json!(0.0), &json!(0.0), &json!("0")));
        let before = fs::read(&paths[0]).unwrap();
        write(folder.path(), "fixed", &run, &[evaluation(&["a", "bb"])]).unwrap();
        assert_eq!(fs::read(&paths[0]).unwrap(), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn generated_answers_in_the_form_of_lm_eval() {
        let evaluation = evaluation(&[]);
        let sample = sample_json(&evaluation, &evaluation.items[0]);
        assert_eq!((&sample["resps"], &sample["filtered_resps"]), (&json!([["A."]]), &json!(["a"])));
        assert_eq!((&sample["exact_match"], &sample["metrics"]), (&json!(1.0), &json!(["exact_match"])));
        assert_eq!(metrics_json(&evaluation)["exact_match,none"], 1.0);
    }
}
