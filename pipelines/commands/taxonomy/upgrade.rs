//! `pipeline taxonomy upgrade`: leaves of `InstructLab`'s forms in our own.

use super::plural;
use crate::commands::Session;
use crate::content::{files_below, write_atomically};
use crate::outcome::{Failure, Status};
use anyhow::{Context, Result};
use espalier_taxonomy::upgrade::upgrade;
use espalier_taxonomy::{leaf_files, tree_root};
use std::fs;
use std::path::Path;

/// Writes into `out`, a copy of the whole tree, or in place; with neither it tells what it would do.
pub(super) fn run(path: &Path, out: Option<&Path>, in_place: bool, session: Session<'_>) -> Result<Status> {
    let root = tree_root(path);
    if let Some(out) = out {
        if out.exists() {
            return Err(Failure::usage(format!("{} is already there", out.display()))
                .hint("name a folder that is not")
                .into());
        }
        for file in files_below(&root)? {
            let target = out.join(file.strip_prefix(&root).unwrap_or(&file));
            write_atomically(&target, &fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?)?;
        }
    }
    let (mut upgraded, mut kept, mut refused) = (0, 0, 0);
    for file in leaf_files(path) {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        match upgrade(&file, &root, &text) {
            Ok(None) => kept += 1,
            Ok(Some(text)) => {
                upgraded += 1;
                session.reporter.line(file.display().to_string());
                let target = match out {
                    Some(out) => Some(out.join(file.strip_prefix(&root).unwrap_or(&file))),
                    None => in_place.then(|| file.clone()),
                };
                if let Some(target) = target {
                    write_atomically(&target, text.as_bytes())?;
                }
            }
            Err(findings) => {
                refused += 1;
                for finding in findings {
                    session.reporter.line(finding.to_string());
                }
            }
        }
    }
    session.reporter.result(serde_json::json!({"upgraded": upgraded, "kept": kept, "refused": refused}));
    let leaves = |count: usize| plural(count, "leaf").replace("leafs", "leaves");
    let done = if out.is_some() || in_place { "upgraded" } else { "can be upgraded" };
    session.reporter.line(format!("{} {done}, {} in our form already", leaves(upgraded), leaves(kept)));
    if refused > 0 {
        return Err(Failure::usage(format!("{} cannot be upgraded", leaves(refused)))
            .hint("each message above has the place and what to do")
            .into());
    }
    Ok(Status::Done)
}
