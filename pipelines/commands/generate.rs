//! `pipeline generate`: the first stage alone.

use super::{Session, servers};
use crate::models::resolve;
use crate::outcome::Status;
use crate::stages::generate::{GenerateStage, Places};
use crate::stages::{self, StageContext};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// `pipeline generate`.
pub fn run(
    taxonomy: PathBuf,
    model: &str,
    out: &Path,
    samples: Option<usize>,
    seed: Option<u64>,
    engine: &str,
    session: Session<'_>,
) -> Result<Status> {
    let urls = servers(engine)?;
    let teacher = resolve(model, session.reporter, session.stop)?;
    let mut config = GenerateStage::over(taxonomy);
    config.samples = samples.unwrap_or(config.samples);
    config.seed = seed.unwrap_or(config.seed);
    let places = Places { rows: out.to_path_buf(), work: out.join(".work") };
    let context = StageContext {
        stage: "generate",
        reporter: session.reporter,
        stop: session.stop,
        precision: session.precision,
    };
    let summary = stages::generate::run(&config, &teacher, urls.as_deref().into(), &places, &context)?;
    session.reporter.closing(format!("{summary}\n{}", out.join("rows.parquet").display()));
    session.reporter.result(serde_json::json!({"summary": summary, "rows": out.join("rows.parquet")}));
    Ok(Status::Done)
}
