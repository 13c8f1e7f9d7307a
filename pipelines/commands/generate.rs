//! `pipeline generate`: the first stage alone.

use super::{Session, assignment, servers};
use crate::cli::GenerateArguments;
use crate::graph::StageKind;
use crate::models::resolve;
use crate::outcome::Status;
use crate::stages::generate::{Engines, GenerateStage, Places, words};
use crate::stages::{self, StageConfig};
use anyhow::Result;
use espalier_sdg::estimate::{Estimate, Range};

/// `pipeline generate`.
pub fn run(arguments: &GenerateArguments, session: Session<'_>) -> Result<Status> {
    let config = config(arguments)?;
    let urls = servers(&arguments.engine)?;
    let teacher = resolve(&arguments.model, session.reporter, session.stop)?;
    let named = |reference: Option<&str>| {
        reference.map(|reference| resolve(reference, session.reporter, session.stop)).transpose()
    };
    let (judge, embedder) = (named(config.judge_model())?, named(config.embedder.as_deref())?);
    let engines = Engines {
        teacher: urls.as_deref().into(),
        judge: config.judged_by(&teacher, judge.as_ref()),
        embedder: embedder.as_ref(),
    };
    if let Some(file) = &arguments.sources {
        let count = stages::generate::write_sources(&config, &teacher, file)?;
        session.reporter.closing(format!("{count} rows that flows start from\n{}", file.display()));
        session.reporter.result(serde_json::json!({"sources": count, "file": file}));
        return Ok(Status::Done);
    }
    let out = &arguments.out;
    let places = Places { rows: out.clone(), work: out.join(".work") };
    let context = session.stage("generate");
    if arguments.probe {
        let found = stages::generate::probe(&config, &teacher, engines, &places, &context)?;
        session.reporter.closing(words(&found.rest));
        if found.without_flow > 0 {
            session.reporter.closing(format!("{} leaves have no flow and were not probed", found.without_flow));
        }
        session.reporter.result(rest(&found.rest));
        return Ok(Status::Done);
    }
    let summary = stages::generate::run(&config, &teacher, engines, &places, &context)?;
    session.reporter.closing(format!("{summary}\n{}", out.join("rows.parquet").display()));
    session.reporter.result(serde_json::json!({"summary": summary, "rows": out.join("rows.parquet")}));
    Ok(Status::Done)
}

fn rest(rest: &Estimate) -> serde_json::Value {
    let range = |range: Range| serde_json::json!({"low": range.low, "likely": range.likely, "high": range.high});
    serde_json::json!({
        "sources": rest.sources, "answers": range(rest.calls), "prompt_tokens": range(rest.prompt_tokens),
        "answer_tokens": range(rest.answer_tokens), "rows": range(rest.kept), "bytes": range(rest.bytes),
        "seconds": rest.seconds.map(range),
    })
}

fn config(arguments: &GenerateArguments) -> Result<GenerateStage> {
    let defaults = serde_json::to_value(GenerateStage::over(&arguments.taxonomy))?;
    let mut config = StageConfig::read(StageKind::Generate, defaults)?;
    let flags = [
        ("flow", arguments.flow.as_ref().map(|flow| flow.as_str().into())),
        ("judge", arguments.judge.as_ref().map(|judge| judge.as_str().into())),
        ("embedder", arguments.embedder.as_ref().map(|embedder| embedder.as_str().into())),
        ("samples", arguments.samples.map(serde_json::Value::from)),
        ("seed", arguments.seed.map(serde_json::Value::from)),
    ];
    let set = arguments.set.iter().map(|text| assignment(text)).collect::<Result<Vec<_>>>()?;
    let flags = flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    for (key, value) in set.into_iter().chain(flags) {
        config = config.with(&key, value).map_err(|words| words.failure(""))?;
    }
    Ok(serde_json::from_value(config.json())?)
}
