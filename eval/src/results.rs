//! Result files as lm-eval writes them, of leaves and of tasks: `results_STEM.json` and one `samples_TASK_STEM.jsonl` a task.
//!
//! The stem is the caller's: a fixed one makes files that are the same from run to run. Nothing here reads a clock.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use espalier_dataset::write_atomically;
use serde_json::{Map, Value, json};

use crate::error::EvalError;
use crate::evaluation::{Evaluation, ItemResult, sha256};
use crate::statistics::Interval;
use crate::tasks::{GroupScores, Sample, Score, Scores, TaskOptions, TaskScores, Worth, sample_json};

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

/// What becomes of other tasks in a results file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// The file holds this run alone.
    Replaced,
    /// Tasks that the same model was asked with the same settings stay beside those of this run.
    Kept,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The results file, then a samples file for each task of this run.
    pub paths: Vec<PathBuf>,
    /// Tasks and groups that the results file held before and holds no more.
    pub lost: Vec<String>,
}

/// Writes the evaluations of one model on leaves into `directory` (made when it is not there): `results_STEM.json` and a samples
/// file for each task. Files appear whole or not at all.
pub fn write(
    directory: &Path,
    stem: &str,
    run: &RunDescription,
    evaluations: &[Evaluation],
    earlier: Earlier,
) -> Result<Written, EvalError> {
    let tasks: Vec<TaskScores> = evaluations.iter().map(of_leaf).collect();
    let asked = Asked { limit: None, multiturn: run.chat_template.is_some(), system_instruction: None };
    write_all(directory, stem, run, &asked, &Scores { tasks, groups: Vec::new() }, earlier)
}

/// Writes what one model scored on tasks, as [`write()`] does with [`Earlier::Kept`].
pub fn write_tasks(
    directory: &Path,
    stem: &str,
    run: &RunDescription,
    options: &TaskOptions<'_>,
    scores: &Scores,
) -> Result<Written, EvalError> {
    let asked = Asked {
        limit: options.limit,
        multiturn: run.chat_template.is_some() && !options.fewshot_as_one_turn,
        system_instruction: options.system_instruction,
    };
    write_all(directory, stem, run, &asked, scores, Earlier::Kept)
}

/// How the questions were put.
struct Asked<'a> {
    limit: Option<f64>,
    multiturn: bool,
    system_instruction: Option<&'a str>,
}

fn write_all(
    directory: &Path,
    stem: &str,
    run: &RunDescription,
    asked: &Asked<'_>,
    scores: &Scores,
    earlier: Earlier,
) -> Result<Written, EvalError> {
    fs::create_dir_all(directory).map_err(EvalError::file(directory, "make the folder"))?;
    let results = directory.join(format!("results_{stem}.json"));
    let mut content = results_json(run, asked, scores);
    // A file that is no JSON holds nothing that could be kept.
    let before = fs::read(&results).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let lost = match (earlier, before) {
        (Earlier::Kept, Some(before)) => keep_earlier(&mut content, &before),
        _ => Vec::new(),
    };
    let mut text = serde_json::to_string_pretty(&content).unwrap_or_default();
    text.push('\n');
    write_atomically(&results, |file| file.write_all(text.as_bytes()))
        .map_err(EvalError::file(&results, "write it"))?;
    let mut paths = vec![results];
    for task in &scores.tasks {
        let path = directory.join(format!("samples_{}_{stem}.jsonl", task.task));
        write_atomically(&path, |file| {
            for sample in &task.samples {
                serde_json::to_writer(&mut *file, &sample_json(sample))?;
                file.write_all(b"\n")?;
            }
            Ok(())
        })
        .map_err(EvalError::file(&path, "write it"))?;
        paths.push(path);
    }
    Ok(Written { paths, lost })
}

/// Puts the tasks and groups of an earlier results file behind those of `content`, where model and settings are the same. A group
/// of which a member was asked again goes. Gives the names of what is not kept.
fn keep_earlier(content: &mut Value, before: &Value) -> Vec<String> {
    const SETTINGS: [&str; 5] = [
        "/config/model_args",
        "/config/limit",
        "/chat_template_sha",
        "/fewshot_as_multiturn",
        "/system_instruction_sha",
    ];
    const BY_NAME: [&str; 9] = [
        "results",
        "groups",
        "group_subtasks",
        "configs",
        "versions",
        "n-shot",
        "higher_is_better",
        "n-samples",
        "task_hashes",
    ];
    let same = SETTINGS.iter().all(|place| content.pointer(place) == before.pointer(place));
    let names: Vec<&String> = before["results"].as_object().into_iter().flat_map(Map::keys).collect();
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    for name in names {
        if !content["results"][name.as_str()].is_null() {
            continue;
        }
        if same && !asked_again(name, before, content) {
            kept.push(name);
        } else {
            lost.push(name.clone());
        }
    }
    for part in BY_NAME {
        for name in &kept {
            let value = &before[part][name.as_str()];
            if !value.is_null() {
                content[part][name.as_str()] = value.clone();
            }
        }
    }
    lost
}

/// Whether a task of a group, at any depth, is among the results of `content`.
fn asked_again(group: &str, before: &Value, content: &Value) -> bool {
    let members = before["group_subtasks"][group].as_array().into_iter().flatten().filter_map(Value::as_str);
    members.into_iter().any(|member| !content["results"][member].is_null() || asked_again(member, before, content))
}

fn results_json(run: &RunDescription, asked: &Asked<'_>, scores: &Scores) -> Value {
    let by_task = |value: &dyn Fn(&TaskScores) -> Value| -> Map<String, Value> {
        scores.tasks.iter().map(|task| (task.task.clone(), value(task))).collect()
    };
    let by_group = |value: &dyn Fn(&GroupScores) -> Value| -> Map<String, Value> {
        scores.groups.iter().map(|group| (group.group.clone(), value(group))).collect()
    };
    let all = |tasks: &dyn Fn(&TaskScores) -> Value, groups: &dyn Fn(&GroupScores) -> Value| -> Value {
        by_task(tasks).into_iter().chain(by_group(groups)).collect::<Map<_, _>>().into()
    };
    let group_metrics =
        |group: &GroupScores| metrics_json((&group.group, &group.alias), group.documents, &group.scores, None);
    let higher = |scores: &[Score]| -> Value {
        scores.iter().map(|score| (score.metric.clone(), json!(score.higher_is_better))).collect::<Map<_, _>>().into()
    };
    let mut result = json!({
        "results": all(&|task| metrics_json((&task.task, &task.alias), task.documents, &task.scores, task.interval), &group_metrics),
    });
    if !scores.groups.is_empty() {
        result["groups"] = by_group(&group_metrics).into();
    }
    let rest = json!({
        "group_subtasks": all(&|_| json!([]), &|group| json!(group.members)),
        "configs": by_task(&|task| task.config.clone()),
        "versions": all(&|task| task.version.clone(), &|group| json!(group.version)),
        "n-shot": by_task(&|task| json!(task.few_shot)),
        "higher_is_better": all(&|task| higher(&task.scores), &|group| higher(&group.scores)),
        "n-samples": by_task(&|task| json!({"original": task.original, "effective": task.documents})),
        "config": {
            "model": "espalier",
            "model_args": run.model_args,
            "batch_size": null,
            "device": "cpu",
            "limit": asked.limit,
            "bootstrap_iters": 100_000,
            "gen_kwargs": null,
        },
        "task_hashes": by_task(&|task| json!(task_hash(task))),
        "model_source": "espalier",
        "model_name": run.model,
        "model_name_sanitized": sanitized(&run.model),
        "chat_template": run.chat_template,
        "chat_template_sha": run.chat_template.as_deref().map(sha256),
        "fewshot_as_multiturn": asked.multiturn,
        "system_instruction": asked.system_instruction,
        "system_instruction_sha": asked.system_instruction.map(sha256),
        "lm_eval_version": null,
        "espalier_version": env!("CARGO_PKG_VERSION"),
    });
    if let (Value::Object(result), Value::Object(rest)) = (&mut result, rest) {
        result.extend(rest);
    }
    result
}

/// Values and their standard errors under lm-eval's names; and our interval.
fn metrics_json((name, alias): (&str, &str), documents: usize, scores: &[Score], interval: Option<Interval>) -> Value {
    let mut metrics = Map::new();
    metrics.insert("name".to_owned(), json!(name));
    metrics.insert("alias".to_owned(), json!(alias));
    metrics.insert("sample_len".to_owned(), json!(documents));
    for score in scores {
        metrics.insert(format!("{},{}", score.metric, score.filter), json!(score.value));
        let error = score.error.map_or_else(|| json!("N/A"), |error| json!(error));
        metrics.insert(format!("{}_stderr,{}", score.metric, score.filter), error);
    }
    if let Some(interval) = interval {
        metrics.insert("wilson_low,none".to_owned(), json!(interval.low));
        metrics.insert("wilson_high,none".to_owned(), json!(interval.high));
    }
    metrics.into()
}

/// sha256 of the hashes of all samples, as lm-eval makes it.
fn task_hash(task: &TaskScores) -> String {
    let hashes = |sample: &Sample| [sample.document_hash.as_str(), &sample.prompt_hash, &sample.target_hash].concat();
    sha256(&task.samples.iter().map(hashes).collect::<String>())
}

/// The evaluation of a leaf in the form of a task.
fn of_leaf(evaluation: &Evaluation) -> TaskScores {
    let n = evaluation.items.len() as f64;
    let score = |metric: &str, value: f64| Score {
        metric: metric.to_owned(),
        filter: "none".to_owned(),
        value,
        // The sample deviation of ones and zeros over the root of their number.
        error: (n > 1.0).then(|| (value * (1.0 - value) / (n - 1.0)).sqrt()),
        higher_is_better: true,
    };
    let mut scores = vec![score(&evaluation.metric, evaluation.accuracy)];
    scores.extend(evaluation.accuracy_normalized.map(|value| score("acc_norm", value)));
    let metrics: Vec<Value> = scores
        .iter()
        .map(|score| json!({"metric": score.metric, "aggregation": "mean", "higher_is_better": true}))
        .collect();
    TaskScores {
        task: evaluation.task.clone(),
        alias: evaluation.task.clone(),
        version: json!(1),
        few_shot: evaluation.few_shot,
        documents: evaluation.items.len(),
        original: evaluation.items.len(),
        warnings: Vec::new(),
        interval: Some(evaluation.wilson),
        config: json!({
            "task": evaluation.task,
            "output_type": if evaluation.metric == "acc" { "multiple_choice" } else { "generate_until" },
            "num_fewshot": evaluation.few_shot,
            "metric_list": metrics,
            "metadata": {"version": 1},
        }),
        samples: evaluation.items.iter().map(|item| leaf_sample(evaluation, item)).collect(),
        scores,
    }
}

fn leaf_sample(evaluation: &Evaluation, item: &ItemResult) -> Sample {
    let (arguments, responses, filtered) = if item.continuations.is_empty() {
        let settings = json!({"do_sample": false, "temperature": 0.0});
        let arguments = vec![vec![json!(item.prompt), settings]];
        (arguments, vec![vec![json!(item.response)]], vec![json!(item.extracted)])
    } else {
        let arguments = item.continuations.iter().map(|choice| vec![json!(item.prompt), json!(choice)]).collect();
        // lm-eval writes log-likelihood and "is it the greedy text" as strings; the second is not asked for here.
        let pairs: Vec<Value> = item.logprobs.iter().map(|logprob| json!([logprob.to_string(), "False"])).collect();
        (arguments, pairs.iter().map(|pair| vec![pair.clone()]).collect(), pairs)
    };
    let mut metrics = vec![(evaluation.metric.clone(), Worth::Number(item.score))];
    if let Some(normalized) = item.correct_normalized {
        metrics.push(("acc_norm".to_owned(), Worth::Number(f64::from(u8::from(normalized)))));
    }
    Sample {
        id: item.index,
        document: item.doc.clone(),
        target: item.target.clone(),
        arguments,
        responses,
        filtered,
        filter: "none".to_owned(),
        metrics,
        document_hash: item.doc_hash.clone(),
        prompt_hash: item.prompt_hash.clone(),
        target_hash: item.target_hash.clone(),
        error: item.error.clone(),
        choices: Vec::new(),
        logprobs: item.logprobs.clone(),
    }
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
        let paths = write(folder.path(), "fixed", &run, &[evaluation(&["a", "bb"])], Earlier::Replaced).unwrap().paths;
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
        write(folder.path(), "fixed", &run, &[evaluation(&["a", "bb"])], Earlier::Kept).unwrap();
        assert_eq!(fs::read(&paths[0]).unwrap(), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn generated_answers_in_the_form_of_lm_eval() {
        let evaluation = evaluation(&[]);
        let task = of_leaf(&evaluation);
        let sample = sample_json(&task.samples[0]);
        assert_eq!((&sample["resps"], &sample["filtered_resps"]), (&json!([["A."]]), &json!(["a"])));
        assert_eq!((&sample["exact_match"], &sample["metrics"]), (&json!(1.0), &json!(["exact_match"])));
        assert_eq!((task.scores[0].metric.as_str(), task.scores[0].value), ("exact_match", 1.0));
    }

    #[test]
    fn tasks_asked_one_after_another_lie_in_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let run = |args: &str| RunDescription { model_args: args.into(), ..RunDescription::default() };
        let named = |name: &str| Evaluation { task: name.into(), ..evaluation(&["a", "bb"]) };
        let ask = |names: &[&str], args: &str, earlier| {
            let evaluations: Vec<Evaluation> = names.iter().map(|name| named(name)).collect();
            write(folder.path(), "m", &run(args), &evaluations, earlier).unwrap().lost
        };
        let held = |part: &str| -> Vec<String> {
            let text = fs::read(folder.path().join("results_m.json")).unwrap();
            let results: Value = serde_json::from_slice(&text).unwrap();
            results[part].as_object().unwrap().keys().cloned().collect()
        };
        assert!(ask(&["a", "b"], "x", Earlier::Kept).is_empty());
        assert!(ask(&["c", "a"], "x", Earlier::Kept).is_empty());
        for part in ["results", "configs", "n-shot", "n-samples", "task_hashes"] {
            assert_eq!(held(part), ["c", "a", "b"], "{part}");
        }
        assert_eq!(ask(&["a"], "another model", Earlier::Kept), ["c", "b"]);
        assert_eq!(held("results"), ["a"]);
        assert!(ask(&["b"], "another model", Earlier::Replaced).is_empty());
        assert_eq!(held("results"), ["b"]);
    }

    #[test]
    fn a_group_goes_when_a_member_is_asked_again() {
        let before = json!({
            "results": {"g": {"acc": 1}, "h": {"acc": 2}, "t": {"acc": 3}, "u": {"acc": 4}},
            "groups": {"g": {"acc": 1}, "h": {"acc": 2}},
            "group_subtasks": {"g": ["s"], "s": ["t"], "h": ["u"], "t": [], "u": []},
        });
        let mut content = json!({"results": {"t": {"acc": 5}}});
        assert_eq!(keep_earlier(&mut content, &before), ["g"]);
        assert_eq!(content["results"], json!({"t": {"acc": 5}, "h": {"acc": 2}, "u": {"acc": 4}}));
        assert_eq!(content["groups"], json!({"h": {"acc": 2}}));
    }
}
