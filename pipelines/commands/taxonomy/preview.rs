//! `pipeline taxonomy preview`: what a template draws.

use crate::commands::Session;
use crate::outcome::{Failure, Status};
use crate::stages::generate::read_tree;
use anyhow::Result;
use std::path::Path;

pub(super) fn run(path: &Path, samples: usize, seed: u64, session: Session<'_>) -> Result<Status> {
    let tree = read_tree(path)?;
    let mut shown = Vec::new();
    for leaf in &tree.leaves {
        let Some(template) = &leaf.questions else { continue };
        session.reporter.line(&leaf.id);
        for index in 0..samples as u64 {
            let drawn = espalier_sdg::draw(leaf, template, seed, index)?;
            session.reporter.line(format!(
                "  {}\n    -> {}",
                drawn.question,
                drawn.truth.as_deref().unwrap_or("(no exact truth)")
            ));
            shown.push(serde_json::json!({"leaf": leaf.id, "question": drawn.question, "truth": drawn.truth}));
        }
    }
    if shown.is_empty() {
        return Err(Failure::usage(format!("no leaf of {} has a question template", path.display()))
            .hint("a leaf of the form `espalier: 1` may hold `questions: {template: ..., slots: ...}`")
            .into());
    }
    session.reporter.result(serde_json::json!({"preview": shown}));
    Ok(Status::Done)
}
