//! `pipeline eval`: models on the held-out tests of a skills tree, and what sets their scores apart.

mod compare;

pub use compare::run as compare;

use super::Session;
use crate::cli::EvalArguments;
use crate::models::resolve;
use crate::outcome::{Failure, Status};
use crate::stages::StageContext;
use crate::stages::evaluate::{Candidate, EvaluateStage, Side, evaluate_leaf};
use crate::stages::generate::read_tree;
use anyhow::Result;
use espalier_eval::results::{self, RunDescription};
use espalier_eval::{ComparisonOptions, Evaluation};
use espalier_inference::{Engine, EngineOptions, NativeEngine};
use espalier_model::{LoraAdapter, Model};

/// `pipeline eval`.
pub fn run(arguments: &EvalArguments, session: Session<'_>) -> Result<Status> {
    let tree = read_tree(&arguments.tasks)?;
    let leaves: Vec<_> = tree.leaves.iter().filter(|leaf| !leaf.test.is_empty()).collect();
    if leaves.is_empty() {
        return Err(Failure::usage("no leaf of this tree has a held-out test")
            .hint("add `test: test.jsonl` to a leaf")
            .into());
    }
    let config: EvaluateStage = serde_json::from_value(serde_json::json!({"limit": arguments.limit}))?;
    let context =
        StageContext { stage: "eval", reporter: session.reporter, stop: session.stop, precision: session.precision };
    let models = std::iter::once((&arguments.model, arguments.adapter.clone()))
        .chain(arguments.compare.iter().map(|model| (model, None)));
    let mut all: Vec<Vec<Evaluation>> = Vec::new();
    for (index, (reference, adapter)) in models.enumerate() {
        let found = resolve(reference, session.reporter, session.stop)?;
        let model = Model::open(&found.path)?;
        let lora = adapter.as_ref().map(|path| LoraAdapter::load(path, model.config())).transpose()?;
        let memory = session.memory.map(|bytes| bytes.0 as u64);
        let options = EngineOptions { precision: session.precision, memory, ..EngineOptions::default() };
        let engine = NativeEngine::load(&model, lora.as_ref(), &options)?;
        let chat_template = engine.chat_template().source().to_owned();
        let engine = Engine::Native(engine);
        let candidate = Candidate {
            label: if adapter.is_some() { format!("{reference} + adapter") } else { reference.clone() },
            stem: format!("model_{index}"),
            side: Side::Base,
            path: found.path,
            adapter,
            shots: arguments.num_fewshot,
        };
        let work = arguments.out.join(".work");
        std::fs::create_dir_all(&work)?;
        let mut evaluations = Vec::new();
        for leaf in &leaves {
            let evaluation = evaluate_leaf(&config, &engine, &candidate, leaf, &work, &context)?;
            session.reporter.line(format!("{}  {}", candidate.label, evaluation.summary()));
            evaluations.push(evaluation);
        }
        let run = RunDescription {
            model: candidate.label,
            model_args: engine.identity().to_owned(),
            chat_template: Some(chat_template),
        };
        results::write(&arguments.out, &candidate.stem, &run, &evaluations)?;
        all.push(evaluations);
    }
    let mut comparisons = Vec::new();
    for other in all.iter().skip(1) {
        for (first, second) in other.iter().zip(&all[0]) {
            let comparison = espalier_eval::compare(first, second, &ComparisonOptions::default())?;
            session.reporter.line(comparison.words());
            comparisons.push(comparison);
        }
    }
    session.reporter.result(serde_json::json!({
        "accuracy": all[0].iter().map(|evaluation| serde_json::json!({"task": evaluation.task, "accuracy": evaluation.accuracy})).collect::<Vec<_>>(),
        "comparisons": comparisons,
    }));
    Ok(Status::Done)
}
