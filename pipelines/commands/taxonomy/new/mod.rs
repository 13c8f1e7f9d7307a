//! `pipeline taxonomy new`: a leaf to begin with. Nothing that is there is ever overwritten.

mod confirm;
mod propose;

use crate::cli::{NewArgs, NewKind};
use crate::commands::Session;
use crate::outcome::{Failure, Status};
use anyhow::{Context, Result};
use espalier_taxonomy::Severity;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The leaf's file, and what a person has not read yet.
const LEAF: &str = "qna.yaml";
const PROPOSED: &str = "qna.yaml.proposed";
const DOCUMENT: &str = "document.md";

pub(super) fn run(arguments: &NewArgs, session: Session<'_>) -> Result<Status> {
    let path = &arguments.path;
    if path.join(LEAF).exists() {
        return Err(Failure::usage(format!("{} is there already", path.join(LEAF).display()))
            .hint("choose another folder: a leaf is not overwritten")
            .into());
    }
    if arguments.accept {
        accept(path, session)?;
    } else if let (Some(from), Some(model)) = (&arguments.from, &arguments.model) {
        let count = propose::run(arguments, from, model, session)?;
        let proposed = path.join(PROPOSED);
        session.reporter.line(format!("{count} questions proposed in {}", proposed.display()));
        match confirm::ask(&proposed, session)? {
            confirm::Answer::Accepted => accept(path, session)?,
            confirm::Answer::Later => {
                let next = format!("pipeline taxonomy new {} --accept", path.display());
                session.reporter.line(format!("read and mend it, then: {next}"));
                session.reporter.result(serde_json::json!({"proposed": proposed, "questions": count}));
            }
        }
    } else {
        scaffold(arguments, session)?;
    }
    Ok(Status::Done)
}

fn scaffold(arguments: &NewArgs, session: Session<'_>) -> Result<()> {
    let text = match arguments.kind {
        NewKind::Skill => include_str!("skill.yaml"),
        NewKind::Grounded => include_str!("grounded.yaml"),
        NewKind::Knowledge => include_str!("knowledge.yaml"),
    };
    let path = &arguments.path;
    if arguments.kind == NewKind::Knowledge {
        write_new(&path.join(DOCUMENT), include_str!("document.md"))?;
    }
    let file = path.join(LEAF);
    write_new(&file, &text.replace("AUTHOR", &quoted(&arguments.author)))?;
    session.reporter.line(format!("{} written: put your own texts where REPLACE stands", file.display()));
    session.reporter.result(serde_json::json!({"leaf": file}));
    Ok(())
}

/// Makes a proposal the leaf, if it is one.
fn accept(path: &Path, session: Session<'_>) -> Result<()> {
    let (proposed, file) = (path.join(PROPOSED), path.join(LEAF));
    if !proposed.exists() {
        return Err(Failure::usage(format!("there is no {}", proposed.display()))
            .hint("`pipeline taxonomy new PATH --from DOCUMENTS --model M` writes one")
            .into());
    }
    // Errors have their places in the file that a person mends.
    if let Err(found) = espalier_taxonomy::read_tree(&proposed) {
        let errors: Vec<String> =
            found.iter().filter(|found| found.severity == Severity::Error).map(ToString::to_string).collect();
        return Err(Failure::usage(format!("the proposal is no leaf yet:\n{}", errors.join("\n")))
            .hint("mend what the messages say, and accept it again")
            .into());
    }
    let text = fs::read_to_string(&proposed).with_context(|| format!("cannot read {}", proposed.display()))?;
    write_new(&file, &text)?;
    fs::remove_file(&proposed).with_context(|| format!("cannot remove {}", proposed.display()))?;
    session.reporter.line(format!("{} is a leaf", file.display()));
    session.reporter.result(serde_json::json!({"leaf": file}));
    Ok(())
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Failure::usage(format!("{} is there already", path.display()))
                .hint("move it away, or choose another folder: nothing is overwritten")
                .into())
        }
        Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
}

/// A text as YAML takes it in double quotes.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}
