//! `pipeline eval`: models on public benchmarks, on tasks of lm-evaluation-harness, or on the held-out tests of a skills tree, and
//! what sets their scores apart.

mod compare;
mod judged;
mod list;
mod tasks;
mod tree;

pub use compare::run as compare;
pub use list::list;

use self::judged::Subject;
use super::Session;
use crate::cli::{EvalArguments, JudgeArguments};
use crate::content::write_atomically;
use crate::events::Event;
use crate::models::resolve;
use crate::outcome::{Failure, Status};
use crate::servers;
use crate::stages::StageContext;
use crate::stages::contaminated::{self, OtherWords};
use anyhow::Result;
use espalier_dataset::Records;
use espalier_eval::results::Written;
use espalier_eval::{ComparisonOptions, Evaluation};
use espalier_inference::{Engine, EngineOptions, NativeEngine};
use espalier_model::{LoraAdapter, Model};
use std::path::{Path, PathBuf};

/// A model that is evaluated.
struct Contestant {
    label: String,
    stem: String,
    path: PathBuf,
    adapter: Option<PathBuf>,
    engine: Engine,
}

/// `pipeline eval`.
pub fn run(arguments: &EvalArguments, judging: &JudgeArguments, session: Session<'_>) -> Result<Status> {
    let trees = arguments.tasks.iter().filter(|task| Path::new(task).is_dir()).count();
    match (trees, arguments.tasks.as_slice()) {
        (0, [name]) if name == judged::NAME => judged::run(arguments, judging, Subject::MtBench, session),
        (0, names) if names.iter().any(|name| name == judged::NAME) => Err(Failure::usage("mt_bench is asked alone")
            .hint("run `pipeline eval` once for it and once for the other tasks")
            .into()),
        (0, _) if judging.judge.is_some() => Err(Failure::usage("these tasks have right answers and need no judge")
            .hint("a judge rates `--tasks mt_bench` or a skills tree")
            .into()),
        (0, _) => tasks::run(arguments, session),
        (1, [tree]) if judging.judge.is_some() => {
            judged::run(arguments, judging, Subject::Tree(Path::new(tree)), session)
        }
        (1, [tree]) => tree::run(arguments, Path::new(tree), session),
        _ => Err(Failure::usage("a skills tree is evaluated alone")
            .hint("run `pipeline eval` once for the tree and once for the tasks")
            .into()),
    }
}

/// Says which results of an earlier run the new file has no place for; their samples stay where they are.
fn warn_of_lost(written: &Written, context: &StageContext<'_>) {
    if let (false, Some(file)) = (written.lost.is_empty(), written.paths.first()) {
        context.warn(format!(
            "{} held {} of another model or with other settings, and holds this run alone now; another --out keeps both",
            file.display(),
            written.lost.join(", ")
        ));
    }
}

/// The models in the order that they were named, each opened when the one before is done with.
fn contestants<'a>(
    arguments: &'a EvalArguments,
    options: &'a EngineOptions,
    session: Session<'a>,
) -> impl Iterator<Item = Result<Contestant>> + 'a {
    let models = std::iter::once((&arguments.model, arguments.adapter.clone()))
        .chain(arguments.compare.iter().map(|model| (model, None)));
    models.enumerate().map(move |(index, (reference, adapter))| {
        if reference.contains("://") {
            return of_server(arguments, reference, index);
        }
        let found = resolve(reference, session.reporter, session.stop)?;
        let model = Model::open(&found.path)?;
        let lora = adapter.as_ref().map(|path| LoraAdapter::load(path, model.config())).transpose()?;
        Ok(Contestant {
            label: if adapter.is_some() { format!("{reference} + adapter") } else { reference.clone() },
            stem: format!("model_{index}"),
            path: found.path,
            engine: Engine::Native(NativeEngine::load(&model, lora.as_ref(), options)?),
            adapter,
        })
    })
}

/// The first model of a server.
fn of_server(arguments: &EvalArguments, url: &str, index: usize) -> Result<Contestant> {
    if index == 0 && arguments.adapter.is_some() {
        return Err(Failure::usage("an adapter cannot be put on a server's model")
            .hint("serve it there, or name a local model with `--model`")
            .into());
    }
    if arguments.apply_chat_template {
        return Err(Failure::usage("a server's chat template is not known here")
            .hint("ask without --apply-chat-template, or name a local model with `--model`")
            .into());
    }
    let engine = servers::open(url, None)?;
    let stem = format!("model_{index}");
    Ok(Contestant { label: url.to_owned(), stem, path: PathBuf::from(url), adapter: None, engine })
}

/// Every other model against the first, task by task.
fn comparisons(all: &[Vec<Evaluation>], session: Session<'_>) -> Result<Vec<serde_json::Value>> {
    let mut found = Vec::new();
    for other in all.iter().skip(1) {
        for (first, second) in other.iter().zip(&all[0]) {
            let comparison = espalier_eval::compare(first, second, &ComparisonOptions::default())?;
            session.reporter.line(comparison.words());
            found.push(serde_json::to_value(comparison)?);
        }
    }
    Ok(found)
}

/// Opens what rows that were trained on are held against the items by: what is wrong with it, or with their files, is said before
/// anything is evaluated.
fn open_other_words<'a>(
    arguments: &EvalArguments,
    options: &EngineOptions,
    session: Session<'a>,
) -> Result<Option<OtherWords<'a>>> {
    for file in &arguments.train_data {
        Records::open(file, None)?;
    }
    let Some(reference) = &arguments.embedder else { return Ok(None) };
    let model = resolve(reference, session.reporter, session.stop)?;
    OtherWords::load(&model, options, arguments.same_meaning, session.stop).map(Some)
}

/// What rows that were trained on have in common with the items, and each model's scores without those; `contamination.json` has
/// every hit.
fn contamination(
    arguments: &EvalArguments,
    all: &[Vec<Evaluation>],
    threshold: f64,
    mut other_words: Option<OtherWords<'_>>,
    session: Session<'_>,
) -> Result<serde_json::Value> {
    if arguments.train_data.is_empty() {
        return Ok(serde_json::Value::Null);
    }
    let first = all.first().into_iter().flatten();
    let found = contaminated::find(&arguments.train_data, first, threshold, other_words.as_mut())?;
    if let Some(message) = other_words.and_then(|other_words| other_words.embedder.warning()) {
        session.reporter.send(&Event::Warning { stage: "eval".into(), message });
    }
    session.reporter.line(found.words());
    for item in &found.found {
        if let Some(hit) = item.hits.first() {
            let rows = if item.rows == 1 { "1 row".to_owned() } else { format!("{} rows", item.rows) };
            session.reporter.line(format!("  {} in {rows}, first {}: {}", item.item, hit.row, hit.text));
        }
    }
    let mut scores = Vec::new();
    for evaluation in all.iter().flatten().filter(|evaluation| !found.of_task(&evaluation.task).is_empty()) {
        let (name, task, clean) = (&evaluation.model, &evaluation.task, found.clean(evaluation));
        session.reporter.line(format!(
            "  {name}, {task}: {:.1} % of {} items, {:.1} % of the {} that no row holds",
            100.0 * evaluation.accuracy,
            evaluation.items.len(),
            100.0 * clean.accuracy,
            clean.items
        ));
        scores.push(serde_json::json!({"model": name, "task": task, "accuracy": evaluation.accuracy, "clean": clean}));
    }
    let result = serde_json::json!({"contamination": found, "scores": scores});
    let path = arguments.out.join("contamination.json");
    write_atomically(&path, serde_json::to_string_pretty(&result)?.as_bytes())?;
    Ok(result)
}

/// The chat template of an engine in this process.
fn chat_template(engine: &Engine) -> Option<String> {
    match engine {
        Engine::Native(engine) => Some(engine.chat_template().source().to_owned()),
        Engine::Servers(_) => None,
    }
}
