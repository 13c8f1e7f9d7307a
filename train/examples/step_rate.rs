//! Rate of a `LoRA` step: `cargo run --release -p espalier-train --example step_rate -- MODEL [sequences] [tokens] [rank] [precision]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use espalier_model::Model;
use espalier_nn::transformer::{BaseWeights, Batch, FrozenTransformer, LoraModel, LoraOptions};
use espalier_train::optimizer::{AdamW, clip};
use espalier_train::profile::{Operation, enable, totals};
use espalier_train::{Precision, TrainConfig};

fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments.first().cloned().or_else(|| std::env::var("ESPALIER_TEST_SMOLLM2").ok()).map(PathBuf::from);
    let path = path.ok_or("name a model, or set ESPALIER_TEST_SMOLLM2")?;
    let number = |at: usize, default: usize| arguments.get(at).map_or(Ok(default), |text| text.parse::<usize>());
    let (sequences, length, rank) = (number(1, 4)?, number(2, 512)?, number(3, 16)?);
    let precision: Precision = arguments.get(4).map_or(Ok(Precision::Bf16), |text| text.parse())?;
    let started = Instant::now();
    let model = Model::open(&path)?;
    let frozen = Arc::new(FrozenTransformer::load(&model, precision, BaseWeights::Packed, length)?);
    println!("packed {} MB in {:.2} s", frozen.bytes() >> 20, started.elapsed().as_secs_f64());
    let options = LoraOptions { rank, alpha: 2.0 * rank as f32, ..LoraOptions::default() };
    let mut network = LoraModel::new(frozen, &options, 0)?;
    let vocabulary = model.config().vocabulary as u32;
    let rows: Vec<Vec<u32>> = (0..sequences as u32)
        .map(|row| (0..=length as u32).map(|at| (row * 7919 + at * 104_729) % vocabulary).collect())
        .collect();
    let learn = vec![1.0; length + 1];
    let batch =
        Batch::pack(rows.iter().map(|row| (row.as_slice(), learn.as_slice())), 1.0 / (sequences * length) as f32)?;
    let config = TrainConfig { learning_rate: 1e-3, ..TrainConfig::default() };
    let mut optimizer = AdamW::new(network.parameters().len());
    let mut gradient = vec![0.0; network.parameters().len()];
    enable(true);
    for step in 0..6 {
        let before = totals();
        let started = Instant::now();
        gradient.fill(0.0);
        let loss = network.loss_and_gradient(&batch, &mut gradient)?.loss;
        let computed = started.elapsed().as_secs_f64();
        let norm = clip(&mut gradient, 1.0);
        optimizer.update(network.parameters_mut(), &gradient, config.learning_rate, &config);
        let seconds = started.elapsed().as_secs_f64();
        let tokens = (sequences * length) as f64;
        println!(
            "step {step}: loss {loss:.5} norm {norm:.4}  {seconds:.3} s ({:.3} s of it the optimizer)  {:.0} tokens/s",
            seconds - computed,
            tokens / seconds
        );
        if step == 5 {
            for (operation, (now, before)) in Operation::ALL.iter().zip(totals().iter().zip(&before)) {
                println!("  {:<26}{:>8.3} s", operation.name(), (now.nanoseconds - before.nanoseconds) as f64 / 1e9);
            }
        }
    }
    if let Some(bytes) = peak_bytes() {
        println!("peak memory {} MB", bytes >> 20);
    }
    Ok(())
}
