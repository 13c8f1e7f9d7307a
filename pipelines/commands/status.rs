//! `pipeline status`, `why` and `report`: what a run folder holds.

use super::Session;
use super::run::runner;
use crate::cli::RunArguments;
use crate::graph::PipelineLock;
use crate::outcome::{Failure, Status};
use crate::reporter::size;
use crate::runner::{Decision, Runner, Selection};
use crate::stages::report::{read_scores, verdict};
use anyhow::Result;
use std::fmt::Write as _;

/// What a finished run says in the terminal, and to scripts.
#[derive(Debug)]
pub struct Summary {
    /// For a person.
    pub text: String,
    /// For a script.
    pub json: serde_json::Value,
}

/// The findings of a run and how to use its result.
pub fn summary(runner: &Runner<'_>) -> Result<Summary> {
    let root = runner.folder.root();
    let mut text = String::new();
    let mut json = serde_json::json!({"run": root});
    let scores = root.join("eval/comparisons.json");
    if scores.exists() {
        let scores = read_scores(&scores)?;
        let (words, gained) = verdict(&scores);
        let _ = writeln!(text, "\n{words}");
        json["gained"] = gained.into();
        json["scores"] = serde_json::to_value(&scores)?;
    }
    let report = root.join("report.html");
    if report.exists() {
        let _ = writeln!(text, "\nreport      {}", report.display());
        json["report"] = serde_json::json!(report);
    }
    if let Ok(modelfile) = std::fs::read_to_string(root.join("Modelfile"))
        && let Some(name) = modelfile.lines().find_map(|line| line.strip_prefix("FROM ./"))
    {
        let _ =
            writeln!(text, "ollama      ollama create {} -f {}", runner.file.name, root.join("Modelfile").display());
        let _ = writeln!(text, "llama.cpp   llama-server -m {} --port 8080", root.join(name).display());
        let _ = writeln!(text, "here        pipeline chat --model {}", root.join(name).display());
    }
    Ok(Summary { text: text.trim_end().to_owned(), json })
}

/// `pipeline status`.
pub fn status(arguments: &RunArguments, session: Session<'_>) -> Result<Status> {
    let runner = runner(arguments, None, Selection::default(), session)?;
    let lock = PipelineLock::read(&runner.folder.lock())?;
    for stage in runner.stages()? {
        let line = lock
            .stages
            .get(&stage.name)
            .map_or_else(|| "not done".to_owned(), |locked| format!("done: {}", locked.summary));
        session.reporter.line(format!("{:>12}  {line}", stage.name));
        for output in lock.stages.get(&stage.name).iter().flat_map(|locked| locked.outputs.keys()) {
            let path = runner.folder.root().join(output);
            let bytes = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file).map(|data| size(data.len()));
            let line = format!("              {output} {}", bytes.unwrap_or_default());
            session.reporter.line(line.trim_end());
        }
    }
    session.reporter.result(serde_json::json!({"run": runner.folder.root(), "stages": lock.stages}));
    Ok(Status::Done)
}

/// `pipeline why`.
pub fn why(stage: &str, arguments: &RunArguments, session: Session<'_>) -> Result<Status> {
    let runner = runner(arguments, None, Selection::default(), session)?;
    let models = runner.models()?;
    let planned = runner.plan(&models)?;
    let (spec, decision) = planned.iter().find(|(spec, _)| spec.name == stage).ok_or_else(|| {
        let names: Vec<&str> = planned.iter().map(|(spec, _)| spec.name.as_str()).collect();
        Failure::usage(format!("there is no stage `{stage}`")).hint(format!("stages here: {}", names.join(", ")))
    })?;
    let text = match decision {
        Decision::UpToDate(reason) => format!("{} does not run: {reason}", spec.name),
        Decision::Run(reasons) => format!("{} runs: {}", spec.name, reasons.join("; ")),
        Decision::Depends(above) => format!("{} runs if {} makes something new", spec.name, above.join(" or ")),
        Decision::NotSelected => format!("{} was not asked for", spec.name),
    };
    session.reporter.line(&text);
    session.reporter.result(serde_json::json!({"stage": stage, "why": text}));
    Ok(Status::Done)
}

/// `pipeline report`.
pub fn report(arguments: &RunArguments, session: Session<'_>) -> Result<Status> {
    let runner = runner(arguments, None, Selection::default(), session)?;
    if !runner.folder.root().join("report.html").exists() {
        return Err(Failure::usage(format!("{} holds no report yet", runner.folder.root().display()))
            .hint("`pipeline run` makes it")
            .into());
    }
    let summary = summary(&runner)?;
    session.reporter.line(summary.text.trim_start());
    session.reporter.result(summary.json);
    Ok(Status::Done)
}
