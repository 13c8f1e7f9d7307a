//! `pipeline taxonomy`: check, show and preview skills trees.

use super::Session;
use crate::cli::TaxonomyCommand;
use crate::outcome::{Failure, Status};
use crate::stages::generate::read_tree;
use anyhow::Result;
use espalier_taxonomy::{Diagnostic, Leaf, LeafKind, Severity};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// `pipeline taxonomy ...`.
pub fn run(command: TaxonomyCommand, session: Session<'_>) -> Result<Status> {
    match command {
        TaxonomyCommand::Validate { paths, github } => validate(&paths, github, session),
        TaxonomyCommand::Show { path } => show(&path, session),
        TaxonomyCommand::Preview { path, samples, seed } => preview(&path, samples, seed, session),
    }
}

fn validate(paths: &[PathBuf], github: bool, session: Session<'_>) -> Result<Status> {
    let mut leaves = 0;
    let mut found: Vec<Diagnostic> = Vec::new();
    for path in paths {
        match espalier_taxonomy::read_tree(path) {
            Ok(tree) => {
                let lints = espalier_sdg::lint_tree(&tree);
                leaves += tree.leaves.iter().filter(|leaf| !has_error(leaf, &lints)).count();
                found.extend(tree.notes);
                found.extend(lints);
            }
            Err(errors) => found.extend(errors),
        }
    }
    found.sort_by(Diagnostic::by_place);
    for diagnostic in &found {
        session.reporter.line(if github { annotation(diagnostic) } else { diagnostic.to_string() });
    }
    let count = |severity: Severity| found.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let errors = count(Severity::Error);
    session.reporter.result(serde_json::json!({"leaves": leaves, "errors": errors, "diagnostics": found}));
    if errors > 0 {
        let files: BTreeSet<&Path> = found
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .map(|diagnostic| diagnostic.file.as_path())
            .collect();
        return Err(Failure::usage(format!("{} in {}", plural(errors, "error"), plural(files.len(), "file")))
            .hint("each message above has the place and what to do")
            .into());
    }
    session.reporter.line(format!(
        "{} checked: no errors, {}, {}",
        plural(leaves, "leaf").replace("leafs", "leaves"),
        plural(count(Severity::Warning), "warning"),
        plural(count(Severity::Note), "note")
    ));
    Ok(Status::Done)
}

/// Whether an error stands in a leaf's file or in that of its test.
fn has_error(leaf: &Leaf, findings: &[Diagnostic]) -> bool {
    findings.iter().any(|finding| {
        finding.severity == Severity::Error
            && (finding.file == leaf.file || leaf.test_file.as_ref() == Some(&finding.file))
    })
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// The form that GitHub shows beside the line of a change.
fn annotation(diagnostic: &Diagnostic) -> String {
    let level = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let hint = diagnostic.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let text = format!("{}{hint}", diagnostic.message).replace('%', "%25").replace('\n', "%0A");
    format!("::{level} file={},line={},col={}::{text}", diagnostic.file.display(), diagnostic.line, diagnostic.column)
}

fn show(path: &Path, session: Session<'_>) -> Result<Status> {
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

fn preview(path: &Path, samples: usize, seed: u64, session: Session<'_>) -> Result<Status> {
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
