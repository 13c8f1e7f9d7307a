//! `pipeline taxonomy show`: the leaves and what they hold.

use super::plural;
use crate::commands::Session;
use crate::outcome::Status;
use crate::stages::generate::read_tree;
use anyhow::Result;
use espalier_taxonomy::LeafKind;
use std::path::Path;

pub(super) fn run(path: &Path, session: Session<'_>) -> Result<Status> {
    let tree = read_tree(path)?;
    for leaf in &tree.leaves {
        let kind = match leaf.kind {
            LeafKind::FreeformSkill => "skill",
            LeafKind::GroundedSkill => "grounded skill",
            LeafKind::Knowledge => "knowledge",
        };
        let mut facts = vec![plural(leaf.seeds.len(), "seed")];
        if !leaf.documents.is_empty() {
            facts.push(plural(leaf.documents.len(), "document"));
        }
        if leaf.questions.is_some() {
            facts.push("a question template".into());
        }
        if leaf.verify.is_some() {
            facts.push("a checker".into());
        }
        if !leaf.test.is_empty() {
            facts.push(format!("{} held-out questions", leaf.test.len()));
        }
        session.reporter.line(format!("{:44} {kind:15} {}", leaf.id, facts.join(", ")));
    }
    for note in &tree.notes {
        session.reporter.line(note.to_string());
    }
    let json: Vec<serde_json::Value> = tree
        .leaves
        .iter()
        .map(|leaf| serde_json::json!({"id": leaf.id, "seeds": leaf.seeds.len(), "test": leaf.test.len(), "hash": leaf.hash}))
        .collect();
    session.reporter.result(serde_json::json!({"leaves": json}));
    Ok(Status::Done)
}
