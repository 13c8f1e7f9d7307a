//! `pipeline train`: the second stage alone.

use super::{Session, assignment, show_batch};
use crate::graph::StageKind;
use crate::models::resolve;
use crate::outcome::{Failure, Status};
use crate::stages::{self, StageConfig};
use anyhow::Result;
use espalier_model::Model;
use espalier_train::{DataItem, DataSource, DeviceName, RunSources, TrainConfig};
use std::path::PathBuf;

/// Arguments of `pipeline train`.
#[derive(Debug)]
pub struct Arguments {
    /// The base.
    pub model: String,
    /// Entries of data.
    pub data: Vec<String>,
    /// Table of `pipeline teach`.
    pub teacher_logprobs: Option<PathBuf>,
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
    /// Where it computes.
    pub device: Option<DeviceName>,
    /// Print rows with their mask instead.
    pub show_batch: bool,
}

/// `pipeline train`.
pub fn run(arguments: &Arguments, session: Session<'_>) -> Result<Status> {
    let config = config(arguments)?;
    let config = TrainConfig { memory: session.memory.or(config.memory), ..config };
    let student = resolve(&arguments.model, session.reporter, session.stop)?;
    let context = session.stage("train");
    let sources = sources(&config)?;
    if arguments.show_batch {
        let model = Model::open(&student.path)?;
        let data = stages::train::read(&model, &sources.rows, &config, &context)?;
        show_batch::run(&model, &data, &config, session)?;
        return Ok(Status::Done);
    }
    let work = arguments.out.join(".work");
    let teacher = arguments.teacher_logprobs.as_deref();
    let summary = stages::train::run(&config, &student, &sources, teacher, &work, &arguments.out, &context)?;
    let _ = std::fs::remove_dir_all(&work);
    session.reporter.closing(format!("{summary}\n{}", arguments.out.join("adapter").display()));
    session.reporter.result(serde_json::json!({"summary": summary, "adapter": arguments.out.join("adapter")}));
    Ok(Status::Done)
}

/// The files of every entry of `data`, and of what is looked at on the way.
fn sources(config: &TrainConfig) -> Result<RunSources> {
    if config.data.is_empty() {
        return Err(Failure::usage("there is no data to train on")
            .hint("name files with `--data FILE`, or as `data: [FILE]` in the file of `--config`")
            .into());
    }
    config.validate()?;
    let find = |key: &str, items: &[DataItem]| -> Result<Vec<DataSource>> {
        let source = |item: &DataItem| match &item.stage {
            Some(stage) => Err(Failure::usage(format!("{key}: there is no stage `{stage}` here"))
                .hint("`stage:` is for pipeline files; name the file of rows")
                .into()),
            None => stages::data::find(item, None),
        };
        items.iter().map(source).collect()
    };
    Ok(RunSources {
        rows: find("data", &config.data)?,
        validation: find("validation", config.validation.items())?,
        forgetting: find("forgetting", &config.forgetting)?,
    })
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
    for text in &arguments.set {
        let (key, value) = assignment(text)?;
        set(&key, value)?;
    }
    if !arguments.data.is_empty() {
        let items = arguments.data.iter().map(|text| stages::data::parse(text)).collect::<Result<Vec<_>>>()?;
        set("data", serde_json::to_value(items)?)?;
    }
    if let Some(rank) = arguments.rank {
        set("rank", rank.into())?;
    }
    if let Some(steps) = arguments.max_steps {
        set("max_steps", steps.into())?;
    }
    if let Some(device) = arguments.device {
        set("device", device.to_string().into())?;
    }
    Ok(serde_json::from_value(config.json())?)
}
