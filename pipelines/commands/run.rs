//! `pipeline run` and `pipeline plan`.

use super::{Session, servers};
use crate::cli::RunArguments;
use crate::folder::RunFolder;
use crate::graph::PipelineFile;
use crate::outcome::{Failure, Status};
use crate::runner::{Bound, Decision, Runner, Selection, numerics_words};
use crate::stages::weight_form_of_texts;
use anyhow::Result;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The pipeline file of a command: the one given, the one here, or the quickstart.
pub fn pipeline_file(arguments: &RunArguments) -> Result<PipelineFile> {
    let path = match &arguments.file {
        Some(path) => path.clone(),
        None => ["pipeline.yaml", "pipelines/quickstart.yaml"]
            .into_iter()
            .map(PathBuf::from)
            .find(|path| path.is_file())
            .ok_or_else(|| {
                Failure::usage("there is no pipeline.yaml here").hint("write a starter project with `pipeline init`")
            })?,
    };
    let mut file = PipelineFile::read(&path)?;
    for assignment in &arguments.set {
        file.set(assignment)?;
    }
    Ok(file)
}

/// The run folder of a command.
pub fn run_folder(arguments: &RunArguments, file: &PipelineFile) -> RunFolder {
    RunFolder::new(arguments.run_dir.clone().unwrap_or_else(|| Path::new("runs").join(&file.name)))
}

/// A runner over the command's file and folder.
pub fn runner<'a>(
    arguments: &RunArguments,
    engine: Option<String>,
    selection: Selection,
    session: Session<'a>,
) -> Result<Runner<'a>> {
    let file = pipeline_file(arguments)?;
    let folder = run_folder(arguments, &file);
    Ok(Runner {
        file,
        folder,
        reporter: session.reporter,
        stop: session.stop,
        precision: session.precision,
        int8_texts: session.int8_texts,
        memory: session.memory,
        engine,
        selection,
    })
}

/// `pipeline run`.
pub fn run(
    arguments: &RunArguments,
    selection: Selection,
    dry_run: bool,
    engine: &str,
    session: Session<'_>,
) -> Result<Status> {
    let runner = runner(arguments, servers(engine)?, selection, session)?;
    if dry_run {
        return show_plan(&runner, session);
    }
    let status = runner.execute()?;
    if status == Status::Done {
        let summary = super::status::summary(&runner)?;
        session.reporter.closing(summary.text);
        session.reporter.result(summary.json);
    }
    Ok(status)
}

/// `pipeline plan`.
pub fn plan(arguments: &RunArguments, session: Session<'_>) -> Result<Status> {
    show_plan(&runner(arguments, None, Selection::default(), session)?, session)
}

fn show_plan(runner: &Runner<'_>, session: Session<'_>) -> Result<Status> {
    let models = runner.models()?;
    let mut text = format!(
        "{} in {}\n  student {} ({})\n  teacher {}\n  numerics {}\n",
        runner.file.path.display(),
        runner.folder.root().display(),
        models.student.reference,
        &models.student.sha256[..12],
        models.teacher.reference,
        numerics_words(runner.precision, weight_form_of_texts(runner.int8_texts)),
    );
    let mut json = Vec::new();
    for (stage, decision) in runner.plan(&models)? {
        let (word, reasons) = match &decision {
            Decision::UpToDate(reason) => ("up to date", vec![reason.clone()]),
            Decision::Run(reasons) => ("runs", reasons.clone()),
            Decision::Depends(above) => ("runs if its input changes", vec![format!("after {}", above.join(", "))]),
            Decision::NotSelected => ("not asked for", Vec::new()),
        };
        let _ = writeln!(text, "\n{} ({}): {word}{}", stage.name, stage.kind.name(), prefix(": ", &reasons.join("; ")));
        if let Some(minutes) = budget(stage.kind) {
            let _ = writeln!(text, "    time: about {minutes} on 2 cores for the quickstart");
        }
        let gate = Bound::new(runner, stage).gate()?;
        if let Some(gate) = &gate {
            let _ = writeln!(text, "    gate: {gate}");
        }
        let config = stage.config.json();
        if let Some(object) = config.as_object() {
            for (key, value) in object {
                let set = stage.given.contains(&format!("{key} (--set)"));
                let origin = if set {
                    "--set"
                } else if stage.given.contains(key) {
                    "file"
                } else {
                    "default"
                };
                let _ = writeln!(text, "    {key} = {}  ({origin})", value_text(value));
            }
        }
        json.push(serde_json::json!({"stage": stage.name, "kind": stage.kind, "decision": word, "reasons": reasons, "gate": gate, "config": config}));
    }
    session.reporter.line(text.trim_end());
    session.reporter.result(serde_json::json!({"stages": json}));
    Ok(Status::Done)
}

/// A value as a person would write it.
fn value_text(value: &serde_json::Value) -> String {
    if value.is_null() { "not set".into() } else { value.to_string() }
}

fn prefix(before: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{before}{text}") }
}

/// What the quickstart's stages are allowed on the reference machine.
fn budget(kind: crate::graph::StageKind) -> Option<&'static str> {
    use crate::graph::StageKind;
    match kind {
        StageKind::Generate | StageKind::Train | StageKind::Evaluate => {
            Some("3 min (with AMX; about twice that without)")
        }
        StageKind::Quantize => Some("30 s"),
        StageKind::Teach | StageKind::Report => None,
    }
}
