//! `pipeline adapter`: convert, merge and show adapters.

use super::Session;
use crate::cli::AdapterCommand;
use crate::models::resolve;
use crate::outcome::Status;
use anyhow::Result;
use espalier_model::{LoraAdapter, Model};
use std::path::Path;

/// `pipeline adapter ...`.
pub fn run(command: AdapterCommand, session: Session<'_>) -> Result<Status> {
    match command {
        AdapterCommand::Export { adapter, model, out } => {
            let (model, adapter) = open(&adapter, &model, session)?;
            if out.extension().is_some_and(|extension| extension == "gguf") {
                adapter.save_gguf(&out, model.config())?;
            } else {
                adapter.save_peft(&out, model.config())?;
            }
            session.reporter.closing(format!("wrote {}", out.display()));
            session.reporter.result(serde_json::json!({"adapter": out}));
            Ok(Status::Done)
        }
        AdapterCommand::Merge { adapter, model, out } => {
            super::quantize::run(&model, "F32", &out, Some(&adapter), false, &[], session)
        }
        AdapterCommand::Show { adapter, model } => {
            let (_, adapter) = open(&adapter, &model, session)?;
            let (rank, alpha) = adapter.usual_rank_and_alpha();
            let kind = match (adapter.is_dora(), adapter.rslora) {
                (false, false) => "LoRA",
                (false, true) => "rsLoRA",
                (true, false) => "DoRA",
                (true, true) => "rank-stabilised DoRA",
            };
            session.reporter.line(format!("{kind}, rank {rank}, alpha {alpha}, base {}", adapter.base_model));
            for (name, module) in &adapter.modules {
                let size = |values: &[f32]| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
                session.reporter.line(format!(
                    "  {name:24} {} -> {}  rank {}  scale {:.4}  |A| {:.4}  |B| {:.4}",
                    module.inputs,
                    module.outputs,
                    module.rank,
                    adapter.scale(module),
                    size(&module.a),
                    size(&module.b)
                ));
            }
            session.reporter.result(serde_json::json!({"rank": rank, "alpha": alpha, "rslora": adapter.rslora, "dora": adapter.is_dora(), "modules": adapter.modules.keys().collect::<Vec<_>>()}));
            Ok(Status::Done)
        }
    }
}

fn open(adapter: &Path, model: &str, session: Session<'_>) -> Result<(Model, LoraAdapter)> {
    let found = resolve(model, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let adapter = LoraAdapter::load(adapter, model.config())?;
    Ok((model, adapter))
}
