//! The optimizer steps of a run, a JSON line each: what a peer needs to take the very same.
//!
//! `cargo run --release -p espalier-train --example steps -- MODEL ROWS.jsonl [--set KEY=VALUE]...`

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use espalier_model::Model;
use espalier_train::pack::Plan;
use espalier_train::schedule::learning_rate;
use espalier_train::{DataItem, DataSource, TrainConfig, load};
use serde_json::{Map, Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, rows, settings @ ..] = arguments.as_slice() else {
        return Err("usage: steps MODEL ROWS.jsonl [--set KEY=VALUE]...".into());
    };
    let mut keys = Map::new();
    for setting in settings.iter().filter(|word| *word != "--set") {
        let (key, value) = setting.split_once('=').ok_or("a setting is KEY=VALUE")?;
        keys.insert(key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value)));
    }
    let config: TrainConfig = serde_json::from_value(Value::Object(keys))?;
    let model = Model::open(Path::new(model))?;
    let source = DataSource::new(&DataItem::file(rows.clone()), vec![rows.into()]);
    let data = load(&model, &[source], &config, &AtomicBool::new(false), &mut |_| {})?;
    let plan = Plan::new(&data, &config, espalier_train::memory::MICRO_BATCH_ROWS.max(config.max_sequence));
    let mut out = std::io::stdout().lock();
    for step in 0..plan.steps() {
        let (epoch, place) = plan.place(step);
        let micro_batches = plan.epoch(epoch).swap_remove(place);
        let rows = micro_batches.iter().flatten().map(|&row| &data.rows[row]);
        let sequences: Vec<Value> = rows.map(|row| json!({"tokens": row.tokens, "weights": row.weights})).collect();
        let rate = learning_rate(&config, step, plan.steps());
        writeln!(out, "{}", json!({"learning_rate": rate, "sequences": sequences}))?;
    }
    Ok(())
}
