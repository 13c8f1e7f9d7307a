//! `pipeline taxonomy validate`: every finding with its place.

use super::plural;
use crate::commands::Session;
use crate::outcome::{Failure, Status};
use anyhow::Result;
use espalier_taxonomy::license::{self, ACCEPTED};
use espalier_taxonomy::{Diagnostic, Leaf, Mode, Severity, check_licenses};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) fn run(
    paths: &[PathBuf],
    strict: bool,
    licenses: &[String],
    github: bool,
    session: Session<'_>,
) -> Result<Status> {
    let (accepted, severity) = accepted(licenses)?;
    let mode = if strict { Mode::Strict } else { Mode::Lenient };
    let mut leaves = 0;
    let mut found: Vec<Diagnostic> = Vec::new();
    for path in paths {
        match espalier_taxonomy::read_tree_with(path, mode) {
            Ok(tree) => {
                let mut lints = espalier_sdg::lint_tree(&tree);
                lints.extend(check_licenses(&tree, &accepted, severity));
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

/// The licences that works may have, and how much another one matters.
fn accepted(licenses: &[String]) -> Result<(Vec<String>, Severity)> {
    let usual = || ACCEPTED.map(str::to_owned);
    if licenses.is_empty() {
        return Ok((usual().into(), Severity::Warning));
    }
    let mut accepted = Vec::new();
    for name in licenses {
        match license::spdx(name) {
            _ if name == "accepted" => accepted.extend(usual()),
            Some(identifier) => accepted.push(identifier),
            None => {
                return Err(Failure::usage(format!("the licence {name:?} of --licenses is not known"))
                    .hint("give SPDX identifiers with commas between them: --licenses accepted,CC-BY-3.0")
                    .into());
            }
        }
    }
    Ok((accepted, Severity::Error))
}

/// Whether an error stands in a leaf's file or in that of its test.
fn has_error(leaf: &Leaf, findings: &[Diagnostic]) -> bool {
    findings.iter().any(|finding| {
        finding.severity == Severity::Error
            && (finding.file.parent() == leaf.file.parent() || leaf.test_file.as_ref() == Some(&finding.file))
    })
}

/// The form that GitHub shows beside the line of a change.
pub(super) fn annotation(diagnostic: &Diagnostic) -> String {
    let level = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let hint = diagnostic.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let text = format!("{}{hint}", diagnostic.message).replace('%', "%25").replace('\n', "%0A");
    format!("::{level} file={},line={},col={}::{text}", diagnostic.file.display(), diagnostic.line, diagnostic.column)
}
