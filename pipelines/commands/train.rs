//! `pipeline train`: the second stage alone.

use super::Session;
use crate::graph::StageKind;
use crate::models::resolve;
use crate::outcome::{Failure, Status};
use crate::stages::{self, StageConfig, StageContext};
use anyhow::Result;
use espalier_model::Model;
use espalier_train::TrainConfig;
use std::path::PathBuf;

/// Arguments of `pipeline train`.
#[derive(Debug)]
pub struct Arguments {
    /// The base.
    pub model: String,
    /// Rows.
    pub data: Vec<PathBuf>,
    /// Where the adapter goes.
    pub out: PathBuf,
    /// YAML file of values.
    pub config: Option<PathBuf>,
    /// Single values.
    pub set: Vec<String>,
    /// Rank.
    pub rank: Option<usize>,
    /// Limit of steps.
    pub max_steps: Option<usize>,
    /// Print rows with their mask instead.
    pub show_batch: bool,
}

/// `pipeline train`.
pub fn run(arguments: &Arguments, session: Session<'_>) -> Result<Status> {
    let config = config(arguments)?;
    let student = resolve(&arguments.model, session.reporter, session.stop)?;
    if arguments.show_batch {
        let model = Model::open(&student.path)?;
        let mut rows = Vec::new();
        for file in &arguments.data {
            rows.extend(espalier_dataset::read_messages_jsonl(file)?);
        }
        for shown in espalier_train::show_batch(&model, &rows, &config, 4)? {
            session.reporter.line(shown);
        }
        return Ok(Status::Done);
    }
    let context =
        StageContext { stage: "train", reporter: session.reporter, stop: session.stop, precision: session.precision };
    let work = arguments.out.join(".work");
    let summary = stages::train::run(&config, &student, &arguments.data, &work, &arguments.out, &context)?;
    let _ = std::fs::remove_dir_all(&work);
    session.reporter.closing(format!("{summary}\n{}", arguments.out.join("adapter").display()));
    session.reporter.result(serde_json::json!({"summary": summary, "adapter": arguments.out.join("adapter")}));
    Ok(Status::Done)
}

fn config(arguments: &Arguments) -> Result<TrainConfig> {
    let mut config = match &arguments.config {
        None => StageConfig::defaults(StageKind::Train)?,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::usage(format!("cannot read {}: {error}", path.display()))
                    .hint("`--config` is a YAML file of training values, such as `rank: 8`")
            })?;
            StageConfig::parse(StageKind::Train, path, &text)?
        }
    };
    let mut set = |key: &str, value: serde_json::Value| -> Result<()> {
        config = config.with(key, value).map_err(|words| words.failure(""))?;
        Ok(())
    };
    for assignment in &arguments.set {
        let (key, value) = assignment.split_once('=').ok_or_else(|| {
            Failure::usage(format!("cannot understand --set {assignment}")).hint("the form is `--set rank=8`")
        })?;
        let value =
            serde_yaml::from_str(value).map_err(|error| Failure::usage(format!("--set {assignment}: {error}")))?;
        set(key, value)?;
    }
    if let Some(rank) = arguments.rank {
        set("rank", rank.into())?;
    }
    if let Some(steps) = arguments.max_steps {
        set("max_steps", steps.into())?;
    }
    Ok(serde_json::from_value(config.json())?)
}
