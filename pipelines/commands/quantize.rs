//! `pipeline quantize`: one file, merged and checked.

use super::Session;
use crate::models::resolve;
use crate::outcome::{Failure, Status};
use crate::reporter::size;
use crate::stages::{self, StageContext};
use anyhow::Result;
use espalier_model::{LoraAdapter, Model};
use espalier_quantize::{MixOptions, QuantizeOptions, TypeOverride};
use std::path::Path;

/// `pipeline quantize`.
pub fn run(
    model: &str,
    file_type: &str,
    out: &Path,
    adapter: Option<&Path>,
    pure: bool,
    rules: &[String],
    session: Session<'_>,
) -> Result<Status> {
    let file_type = stages::quantize::parse_type(file_type)?;
    let tensor_types = rules
        .iter()
        .map(|rule| rule.parse::<TypeOverride>().map_err(|error| Failure::usage(error.to_string())))
        .collect::<Result<Vec<_>, _>>()?;
    let found = resolve(model, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let adapter = adapter.map(|path| LoraAdapter::load(path, model.config())).transpose()?;
    let options = QuantizeOptions {
        mix: MixOptions { pure, tensor_types, ..MixOptions::default() },
        ..QuantizeOptions::default()
    };
    let context = StageContext {
        stage: "quantize",
        reporter: session.reporter,
        stop: session.stop,
        precision: session.precision,
    };
    let made = stages::quantize::write_one(&model, adapter.as_ref(), file_type, out, &options, &context)?;
    let note = if made.fallback.is_empty() { String::new() } else { format!("\n{}", made.fallback) };
    session.reporter.line(format!(
        "{} {}, {:.2} bits a weight, reopened and checked{note}",
        out.display(),
        size(made.bytes),
        made.bits_per_weight
    ));
    session.reporter.result(serde_json::to_value(&made)?);
    Ok(Status::Done)
}
