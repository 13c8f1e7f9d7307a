//! `pipeline init`: a commented starter project that runs as it stands.

use super::Session;
use crate::content::write_atomically;
use crate::outcome::{Failure, Status};
use anyhow::Result;
use std::path::Path;

/// What a starter project holds: the quickstart, to be changed step by step.
const FILES: &[(&str, &str)] = &[
    ("pipeline.yaml", include_str!("../starter.yaml")),
    (
        "taxonomy/skills/dates_to_iso/qna.yaml",
        include_str!("../../taxonomy/examples/quickstart/skills/dates_to_iso/qna.yaml"),
    ),
    (
        "taxonomy/skills/dates_to_iso/test.jsonl",
        include_str!("../../taxonomy/examples/quickstart/skills/dates_to_iso/test.jsonl"),
    ),
    (
        "taxonomy/knowledge/espalier_pruning/qna.yaml",
        include_str!("../../taxonomy/examples/quickstart/knowledge/espalier_pruning/qna.yaml"),
    ),
    (
        "taxonomy/knowledge/espalier_pruning/espalier.md",
        include_str!("../../taxonomy/examples/quickstart/knowledge/espalier_pruning/espalier.md"),
    ),
    (
        "taxonomy/knowledge/espalier_pruning/test.jsonl",
        include_str!("../../taxonomy/examples/quickstart/knowledge/espalier_pruning/test.jsonl"),
    ),
];

/// `pipeline init`.
pub fn run(folder: &Path, session: Session<'_>) -> Result<Status> {
    if let Some((name, _)) = FILES.iter().find(|(name, _)| folder.join(name).exists()) {
        return Err(Failure::usage(format!("{} is already there", folder.join(name).display()))
            .hint("nothing was written; choose an empty folder")
            .into());
    }
    for (name, text) in FILES {
        write_atomically(&folder.join(name), text.as_bytes())?;
        session.reporter.closing(format!("wrote {}", folder.join(name).display()));
    }
    session.reporter.closing("\nnext:\n  pipeline taxonomy validate taxonomy   check the tree\n  pipeline plan                         what will run\n  pipeline run                          tree to measured, quantized model");
    session
        .reporter
        .result(serde_json::json!({"folder": folder, "files": FILES.iter().map(|file| file.0).collect::<Vec<_>>()}));
    Ok(Status::Done)
}
