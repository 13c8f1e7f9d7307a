//! What `pipeline eval` makes of a benchmark with choices, for scripts that compare it:
//! `choices MODEL TASK.yaml ITEMS [f32|bf16] > FOUND.json`.
//!
//! FOUND has `accuracy` and for each item `logprobs`, one for each choice.

use std::error::Error;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;

use espalier_eval::tasks::{Selection, TaskOptions, evaluate_tasks};
use espalier_inference::{Engine, EngineOptions, NativeEngine};
use espalier_model::Model;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, task, items, precision @ ..] = arguments.as_slice() else {
        return Err("usage: choices MODEL TASK.yaml ITEMS [f32|bf16] > FOUND.json".into());
    };
    let precision = precision.first().map_or("bf16", String::as_str).parse()?;
    let options = EngineOptions { precision, ..EngineOptions::default() };
    let engine = Engine::Native(NativeEngine::load(&Model::open(Path::new(model))?, None, &options)?);
    let options = TaskOptions { limit: Some(items.parse()?), ..TaskOptions::default() };
    let selection = Selection::read(std::slice::from_ref(task))?;
    let found = evaluate_tasks(&engine, selection, &options, None, &mut |_| ControlFlow::Continue(()))?;
    let found =
        found.tasks.first().and_then(|task| task.evaluation("model")).ok_or("the task has no items to compare")?;
    let items: Vec<Value> = found.items.iter().map(|item| json!({"logprobs": item.logprobs})).collect();
    io::stdout().write_all(json!({"accuracy": found.accuracy, "items": items}).to_string().as_bytes())?;
    Ok(())
}
