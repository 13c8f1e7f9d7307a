//! The held-out tests of a skills tree.

use super::{
    EvalArguments, Session, chat_template, comparisons, contamination, contestants, open_other_words, warn_of_lost,
};
use crate::outcome::{Failure, Status};
use crate::stages::contaminated::OF_ONE_TREE;
use crate::stages::evaluate::{Candidate, EvaluateStage, Side, evaluate_leaf};
use crate::stages::generate::read_tree;
use anyhow::Result;
use espalier_eval::Evaluation;
use espalier_eval::results::{self, RunDescription};
use std::path::Path;

pub(super) fn run(arguments: &EvalArguments, tree: &Path, session: Session<'_>) -> Result<Status> {
    let tree = read_tree(tree)?;
    let leaves: Vec<_> = tree.leaves.iter().filter(|leaf| !leaf.test.is_empty()).collect();
    if leaves.is_empty() {
        return Err(Failure::usage("no leaf of this tree has a held-out test")
            .hint("add `test: test.jsonl` to a leaf")
            .into());
    }
    let options = session.engine_options();
    let other_words = open_other_words(arguments, &options, session)?;
    let limit = arguments.limit.map(|limit| limit as usize);
    let config: EvaluateStage = serde_json::from_value(serde_json::json!({"limit": limit}))?;
    let context = session.stage("eval");
    let mut all: Vec<Vec<Evaluation>> = Vec::new();
    for contestant in contestants(arguments, &options, session) {
        let contestant = contestant?;
        let candidate = Candidate {
            label: contestant.label,
            stem: contestant.stem,
            side: Side::Base,
            path: contestant.path,
            adapter: contestant.adapter,
            shots: arguments.num_fewshot.unwrap_or(0),
        };
        let work = arguments.out.join(".work");
        std::fs::create_dir_all(&work)?;
        let mut evaluations = Vec::new();
        for leaf in &leaves {
            let evaluation = evaluate_leaf(&config, &contestant.engine, &candidate, leaf, &work, &context)?;
            session.reporter.line(format!("{}  {}", candidate.label, evaluation.summary()));
            evaluations.push(evaluation);
        }
        let run = RunDescription {
            model: candidate.label,
            model_args: contestant.engine.identity().to_owned(),
            chat_template: chat_template(&contestant.engine),
        };
        let written = results::write(&arguments.out, &candidate.stem, &run, &evaluations, results::Earlier::Kept)?;
        warn_of_lost(&written, &context);
        all.push(evaluations);
    }
    let comparisons = comparisons(&all, session)?;
    let contamination = contamination(arguments, &all, OF_ONE_TREE, other_words, session)?;
    session.reporter.result(serde_json::json!({
        "accuracy": all[0].iter().map(|evaluation| serde_json::json!({"task": evaluation.task, "accuracy": evaluation.accuracy})).collect::<Vec<_>>(),
        "comparisons": comparisons, "contamination": contamination,
    }));
    Ok(Status::Done)
}
