//! Score sheets from what lm-eval writes, which is what we write too: `results_STEM.json` with `samples_TASK_STEM.jsonl` beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::sheet::{Conditions, ScoreSheet, ScoredItem, cluster_of};
use crate::error::EvalError;
use crate::evaluation::{pretty_hash, sha256};

/// The scores of one model as found in files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sheets {
    /// One sheet a task, by name.
    pub tasks: BTreeMap<String, ScoreSheet>,
    /// Groups of two tasks and more.
    pub groups: Vec<SheetGroup>,
}

/// A group of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SheetGroup {
    /// Its name.
    pub name: String,
    /// Names of its tasks, those of groups within it too.
    pub tasks: Vec<String>,
}

/// Reads the scores of one model: from a `results_*.json`, or from all of them in a folder or in the one folder below it. `metric`
/// chooses what is compared (`acc_norm`; `exact_match,flexible-extract` with the filter); without it `acc` where there is one, else
/// the first of each task, by its first filter.
///
/// # Errors
/// No results, no samples beside them, the same task twice, a line that is no sample, a metric that an item has no number for.
pub fn read_sheets(path: &Path, metric: Option<&str>) -> Result<Sheets, EvalError> {
    let mut sheets = Sheets::default();
    let mut found_in: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut members = Map::new();
    for file in results_files(path)? {
        let text = std::fs::read_to_string(&file).map_err(EvalError::file(&file, "read it"))?;
        let results: Value = serde_json::from_str(&text)
            .map_err(|error| EvalError::results(&file, format!("this is not the JSON of results: {error}")))?;
        for (task, samples) in samples_files(&file, &results) {
            if let Some(other) = found_in.insert(task.clone(), file.clone()) {
                let problem = format!(
                    "task {task:?} is in {} too; name one of the two files instead of the folder",
                    other.file_name().unwrap_or_default().display()
                );
                return Err(EvalError::results(&file, problem));
            }
            let sheet = read_sheet(&samples, &task, metric, &results)?;
            sheets.tasks.insert(task, sheet);
        }
        members.extend(results.get("group_subtasks").and_then(Value::as_object).cloned().unwrap_or_default());
    }
    sheets.groups = groups(&members, &sheets.tasks);
    if sheets.tasks.is_empty() {
        let problem = "no samples_*.jsonl lies beside the results; lm-eval writes them with --log_samples".to_owned();
        return Err(EvalError::results(path, problem));
    }
    Ok(sheets)
}

/// The results files that a path stands for, sorted.
fn results_files(path: &Path) -> Result<Vec<PathBuf>, EvalError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let inside = |folder: &Path, kept: &dyn Fn(&Path) -> bool| -> Result<Vec<PathBuf>, EvalError> {
        let entries = std::fs::read_dir(folder).map_err(EvalError::file(folder, "list the folder"))?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(EvalError::file(folder, "list the folder"))?.path();
            if kept(&path) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    };
    let is_results = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("results_") && name.ends_with(".json")
    };
    let here = inside(path, &is_results)?;
    if !here.is_empty() {
        return Ok(here);
    }
    // lm-eval makes a folder for each model.
    let mut folders = Vec::new();
    for folder in inside(path, &|path| path.is_dir())? {
        let files = inside(&folder, &is_results)?;
        if !files.is_empty() {
            folders.push(files);
        }
    }
    match <[Vec<PathBuf>; 1]>::try_from(folders) {
        Ok([files]) => Ok(files),
        Err(folders) if folders.is_empty() => {
            let problem =
                "no results_*.json is here; `pipeline eval --out` and lm-eval's --output_path write them".to_owned();
            Err(EvalError::results(path, problem))
        }
        Err(folders) => {
            let names: Vec<String> =
                folders.iter().filter_map(|files| Some(files.first()?.parent()?.display().to_string())).collect();
            Err(EvalError::results(
                path,
                format!("results of several models are here; name one of {}", names.join(", ")),
            ))
        }
    }
}

/// Each task of a results file that has its samples beside it.
fn samples_files(results_file: &Path, results: &Value) -> Vec<(String, PathBuf)> {
    let name = results_file.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_prefix("results_").and_then(|rest| rest.strip_suffix(".json")).unwrap_or_default();
    let tasks = results.get("results").and_then(Value::as_object).into_iter().flatten();
    tasks
        .map(|(task, _)| (task.clone(), results_file.with_file_name(format!("samples_{task}_{stem}.jsonl"))))
        .filter(|(_, samples)| samples.is_file())
        .collect()
}

/// The groups of which two tasks and more are here.
fn groups(members: &Map<String, Value>, tasks: &BTreeMap<String, ScoreSheet>) -> Vec<SheetGroup> {
    let mut groups = Vec::new();
    for name in members.keys() {
        // Groups may hold groups; a name is looked up once, whatever the file says.
        let (mut open, mut seen, mut found) = (vec![name.as_str()], Vec::new(), Vec::new());
        while let Some(member) = open.pop() {
            if seen.contains(&member) {
                continue;
            }
            seen.push(member);
            if tasks.contains_key(member) {
                found.push(member.to_owned());
            }
            let inner = members.get(member).and_then(Value::as_array).into_iter().flatten();
            open.extend(inner.filter_map(Value::as_str));
        }
        found.sort();
        if found.len() > 1 {
            groups.push(SheetGroup { name: name.clone(), tasks: found });
        }
    }
    groups
}

fn read_sheet(path: &Path, task: &str, wanted: Option<&str>, results: &Value) -> Result<ScoreSheet, EvalError> {
    let file = File::open(path).map_err(EvalError::file(path, "read the samples"))?;
    let (wanted_name, wanted_filter) = match wanted.map(|wanted| wanted.split_once(',').ok_or(wanted)) {
        None => (None, None),
        Some(Ok((name, filter))) => (Some(name), Some(filter)),
        Some(Err(name)) => (Some(name), None),
    };
    let mut chosen: Option<Measure> = None;
    let mut items: Vec<(u64, ScoredItem)> = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(EvalError::file(path, "read the samples"))?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |problem: String| EvalError::Line { path: path.to_owned(), line: index + 1, problem };
        let sample: Value =
            serde_json::from_str(&line).map_err(|error| wrong(format!("this is not a sample of lm-eval: {error}")))?;
        let filter = text(&sample, "filter").unwrap_or("none");
        if wanted_filter.is_some_and(|wanted| wanted != filter) {
            continue;
        }
        let measure = match &chosen {
            Some(measure) => measure,
            None => chosen.insert(Measure::choose(&sample, wanted_name, filter).map_err(wrong)?),
        };
        // Each item has a line for each filter.
        if measure.filter == filter {
            let item = scored(&sample, &measure.name).map_err(wrong)?;
            items.push((sample.get("doc_id").and_then(Value::as_u64).unwrap_or(index as u64), item));
        }
    }
    let Some(measure) = chosen else {
        let problem = match wanted_filter {
            Some(filter) => format!("no sample has the filter {filter:?}"),
            None => "no sample is in it".to_owned(),
        };
        return Err(EvalError::results(path, problem));
    };
    // Repeats of an item stay in the order in which they came.
    items.sort_by_key(|(id, _)| *id);
    let higher_is_better =
        results.get("higher_is_better").and_then(|tasks| tasks.get(task)?.get(&measure.name)?.as_bool());
    Ok(ScoreSheet {
        task: task.to_owned(),
        model: text(results, "model_name").unwrap_or_default().to_owned(),
        lower_is_better: higher_is_better == Some(false) && !is_log_likelihood(&measure.name),
        metric: if measure.filter == "none" { measure.name } else { format!("{},{}", measure.name, measure.filter) },
        conditions: conditions(results, task),
        items: items.into_iter().map(|(_, item)| item).collect(),
    })
}

/// A metric and the filter of the answers that it is taken of.
struct Measure {
    name: String,
    filter: String,
}

impl Measure {
    /// The metric asked for, else `acc`, else the first.
    fn choose(sample: &Value, wanted: Option<&str>, filter: &str) -> Result<Self, String> {
        let listed = sample.get("metrics").and_then(Value::as_array).into_iter().flatten();
        let names: Vec<&str> = listed.filter_map(Value::as_str).collect();
        let name = match wanted {
            Some(wanted) => names
                .iter()
                .find(|name| **name == wanted)
                .ok_or_else(|| format!("the metric {wanted:?} is not measured here; there is {}", names.join(", ")))?,
            None => names
                .iter()
                .find(|name| **name == "acc")
                .or(names.first())
                .ok_or("no metric is listed under `metrics`: this is not a sample of lm-eval")?,
        };
        Ok(Self { name: (*name).to_owned(), filter: filter.to_owned() })
    }
}

/// Metrics whose samples hold a log-likelihood, of which more is better, whatever becomes of their mean.
fn is_log_likelihood(metric: &str) -> bool {
    matches!(metric, "perplexity" | "word_perplexity" | "byte_perplexity" | "bits_per_byte")
}

fn scored(sample: &Value, metric: &str) -> Result<ScoredItem, String> {
    let score = sample.get(metric).and_then(number).ok_or_else(|| format!("there is no number for {metric:?} here"))?;
    let doc = sample.get("doc").unwrap_or(&Value::Null);
    let prompt = sample.pointer("/arguments/gen_args_0/arg_0").and_then(Value::as_str).unwrap_or_default();
    let hash = |key: &str, otherwise: &dyn Fn() -> String| text(sample, key).map_or_else(otherwise, str::to_owned);
    Ok(ScoredItem {
        id: sample.get("doc_id").map(Value::to_string).unwrap_or_default(),
        doc_hash: hash("doc_hash", &|| pretty_hash(doc)),
        prompt_hash: hash("prompt_hash", &|| sha256(prompt)),
        target_hash: hash("target_hash", &|| sha256(text(sample, "target").unwrap_or_default())),
        prompt: prompt.to_owned(),
        response: response(sample.get("filtered_resps").unwrap_or(&Value::Null)),
        score,
        cluster: cluster_of(doc),
    })
}

/// The score of a sample; of a text `[log-likelihood, units]`, the log-likelihood a unit.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(right) => Some(f64::from(u8::from(*right))),
        Value::Number(number) => number.as_f64(),
        Value::Array(pair) => match pair.as_slice() {
            [sum, units] => Some(sum.as_f64()? / units.as_f64()?).filter(|mean| mean.is_finite()),
            _ => None,
        },
        _ => None,
    }
}

/// What was answered: of choices with their log-likelihoods the number of the likeliest, else the text itself.
fn response(filtered: &Value) -> String {
    let choices = filtered.as_array().map(Vec::as_slice).unwrap_or_default();
    let likelihoods: Option<Vec<f64>> = choices.iter().map(|choice| as_float(choice.get(0)?)).collect();
    match likelihoods.filter(|likelihoods| likelihoods.len() > 1) {
        // The first of equals, as in lm-eval.
        Some(likelihoods) => likelihoods
            .iter()
            .enumerate()
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .map(|(index, _)| index.to_string())
            .unwrap_or_default(),
        None => match choices {
            [Value::String(text)] => text.clone(),
            _ => filtered.to_string(),
        },
    }
}

/// lm-eval writes numbers of answers as texts.
fn as_float(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

fn conditions(results: &Value, task: &str) -> Conditions {
    // A key that is there and null says that there was none.
    let hash = |key: &str| results.get(key).map(|value| value.as_str().unwrap_or_default().to_owned());
    let special: Vec<String> = ["tokenizer_bos_token", "tokenizer_eos_token", "tokenizer_pad_token"]
        .iter()
        .filter_map(|key| results.get(*key).map(Value::to_string))
        .collect();
    Conditions {
        few_shot: results.get("n-shot").and_then(|shots| shots.get(task)?.as_u64()).map(|shots| shots as usize),
        chat_template: hash("chat_template_sha"),
        system_prompt: hash("system_instruction_sha"),
        few_shot_turns: results.get("fewshot_as_multiturn").and_then(Value::as_bool),
        tokenizer: (!special.is_empty()).then(|| special.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Results and samples of one task, as lm-eval lays them down.
    fn write(folder: &Path, stem: &str, task: &str, samples: &[Value], more: &Value) {
        let mut results = json!({
            "results": {task: {"alias": task}}, "model_name": stem, "n-shot": {task: 5},
            "higher_is_better": {task: {"acc": true, "brier_score": false, "word_perplexity": false}},
            "chat_template_sha": null, "system_instruction_sha": null, "fewshot_as_multiturn": false,
        });
        for (key, value) in more.as_object().unwrap() {
            results[key] = value.clone();
        }
        std::fs::write(folder.join(format!("results_{stem}.json")), results.to_string()).unwrap();
        let lines: String = samples.iter().map(|sample| format!("{sample}\n")).collect();
        std::fs::write(folder.join(format!("samples_{task}_{stem}.jsonl")), lines).unwrap();
    }

    fn choice(id: usize, right: bool) -> Value {
        let resps =
            if right { json!([["-1.5", "False"], ["-2", "False"]]) } else { json!([["-2", "False"], ["-1", "True"]]) };
        json!({
            "doc_id": id, "doc": {"question": format!("Q{id}"), "passage": format!("P{}", id / 2)}, "target": "0",
            "arguments": {"gen_args_0": {"arg_0": format!("Q{id}?"), "arg_1": " a"}}, "filtered_resps": resps,
            "filter": "none", "metrics": ["acc_norm", "acc", "brier_score"], "prompt_hash": format!("p{id}"),
            "acc": f64::from(u8::from(right)), "acc_norm": 0.0, "brier_score": 0.5,
        })
    }

    #[test]
    fn sheets_are_read_from_a_folder_of_a_model() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("org__model");
        std::fs::create_dir(&inner).unwrap();
        let groups = json!({"group_subtasks": {"all": ["b", "half"], "half": ["a", "all"], "alone": ["a"], "a": []}});
        write(&inner, "1", "a", &[choice(1, true), choice(0, false), choice(2, true)], &groups);
        let other = json!({"filter": "strict", "metrics": ["exact_match"], "exact_match": 0.0, "doc_id": 0, "filtered_resps": ["no"]});
        let flexible = json!({"filter": "flexible", "metrics": ["exact_match"], "exact_match": 1.0, "doc_id": 0, "filtered_resps": ["7"]});
        write(&inner, "2", "b", &[other, flexible], &groups);
        let sheets = read_sheets(folder.path(), None).unwrap();
        let sheet = &sheets.tasks["a"];
        assert_eq!((sheet.model.as_str(), sheet.metric.as_str(), sheet.lower_is_better), ("1", "acc", false));
        let items: Vec<_> =
            sheet.items.iter().map(|item| (item.id.as_str(), item.score, item.response.as_str())).collect();
        assert_eq!(items, [("0", 0.0, "1"), ("1", 1.0, "0"), ("2", 1.0, "0")]);
        assert_eq!((sheet.items[0].prompt.as_str(), sheet.items[0].prompt_hash.as_str()), ("Q0?", "p0"));
        assert_eq!(sheet.items[0].doc_hash, pretty_hash(&json!({"question": "Q0", "passage": "P0"})));
        assert_eq!(sheet.clusters(), Some(vec![0, 0, 1]));
        let expected = Conditions {
            few_shot: Some(5),
            chat_template: Some(String::new()),
            system_prompt: Some(String::new()),
            few_shot_turns: Some(false),
            tokenizer: None,
        };
        assert_eq!(sheet.conditions, expected);
        assert_eq!(
            (sheets.tasks["b"].metric.as_str(), sheets.tasks["b"].items[0].response.as_str()),
            ("exact_match,strict", "no")
        );
        let names: Vec<_> = sheets.groups.iter().map(|group| (group.name.as_str(), group.tasks.join(" "))).collect();
        assert!(names.contains(&("all", "a b".to_owned())) && names.contains(&("half", "a b".to_owned())), "{names:?}");
    }

    #[test]
    fn the_metric_is_chosen_and_its_direction_known() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "x", "a", &[choice(0, true)], &json!({}));
        let read = |metric| read_sheets(folder.path(), Some(metric)).map(|sheets| sheets.tasks["a"].clone());
        assert!(read("brier_score").unwrap().lower_is_better && !read("acc_norm").unwrap().lower_is_better);
        let error = read("f1").unwrap_err().to_string();
        assert!(error.contains("samples_a_x.jsonl:1: the metric \"f1\"") && error.contains("acc_norm, acc"), "{error}");
        assert!(read("acc,strict").unwrap_err().to_string().contains("no sample has the filter \"strict\""));
        let page = json!({"metrics": ["word_perplexity"], "word_perplexity": [-60.0, 20], "doc_id": 0});
        write(folder.path(), "x", "a", &[page], &json!({}));
        let sheet = read("word_perplexity").unwrap();
        assert!(!sheet.lower_is_better && (sheet.items[0].score + 3.0).abs() < 1e-12);
    }

    #[test]
    fn folders_that_hold_no_scores_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = || read_sheets(folder.path(), None).unwrap_err().to_string();
        assert!(refused().contains("no results_*.json is here"));
        std::fs::write(folder.path().join("results_x.json"), "{}").unwrap();
        assert!(refused().contains("--log_samples"));
        std::fs::write(folder.path().join("results_x.json"), "{").unwrap();
        assert!(refused().contains("results_x.json: this is not the JSON"));
        write(folder.path(), "x", "a", &[choice(0, true)], &json!({}));
        write(folder.path(), "y", "a", &[choice(0, true)], &json!({}));
        assert!(refused().contains("task \"a\" is in results_x.json too; name one"), "{}", refused());
        assert_eq!(read_sheets(&folder.path().join("results_y.json"), None).unwrap().tasks.len(), 1);
        for name in ["one", "two"] {
            let inner = folder.path().join("several").join(name);
            std::fs::create_dir_all(&inner).unwrap();
            write(&inner, name, "a", &[choice(0, true)], &json!({}));
        }
        let error = read_sheets(&folder.path().join("several"), None).unwrap_err().to_string();
        assert!(error.contains("several models") && error.contains("one") && error.contains("two"), "{error}");
    }
}
