//! Fifty steps in f32 beside transformers and peft, from the same adapters and the same tokens: `LoRA`, `rsLoRA`, `DoRA`,
//! and `LoRA` with ranks and alphas of its own in the top layers.
//!
//! The golden losses were made by
//!
//! ```text
//! cargo run --release -p espalier-train --example parity_files -- MODEL OUT [ROWS]
//! scripts/peft-parity.py MODEL OUT
//! ```
//!
//! for `tests/assets/model/stories260K.bin` (the script then takes `OUT/model`, the same weights as a folder), for the folder
//! that `scripts/tiny-qwen2.py` writes, which lies beside its golden. Those of `SmolLM2-135M-Instruct.Q4_1.gguf` and
//! `Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf` are of two rows, the first without the mix, the
//! second of `LoRA` alone. Adapters are made again, as PEFT got them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use espalier_model::Model;
use espalier_nn::transformer::{BaseWeights, Batch, FrozenTransformer, LoraModel};
use espalier_train::optimizer::{AdamW, clip};
use espalier_train::{Precision, TrainConfig};
use serde::{Deserialize, Deserializer};

mod parity_start;
use parity_start::{VARIANTS, network};

#[derive(Deserialize)]
struct Sequence {
    tokens: Vec<u32>,
    #[serde(deserialize_with = "weights")]
    learn: Vec<f32>,
}

fn weights<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    let learn = Vec::<bool>::deserialize(deserializer)?;
    Ok(learn.into_iter().map(|learn| if learn { 1.0 } else { 0.0 }).collect())
}

#[derive(Deserialize)]
struct BatchFile {
    sequences: Vec<Sequence>,
    learning_rates: Vec<f64>,
    max_grad_norm: f64,
}

#[derive(Deserialize)]
struct Golden {
    losses: Vec<f64>,
    grad_norms: Vec<f64>,
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The largest differences along a curve.
#[derive(Debug, Default)]
struct Largest {
    /// Of a loss.
    loss: f64,
    /// Of a loss as a part of it.
    relative: f64,
    /// Of a gradient's norm as a part of it.
    norm: f64,
}

fn train(mut network: LoraModel, batch: &BatchFile, golden: &Golden) -> Largest {
    let targets = batch.sequences.iter().flat_map(|s| &s.learn[1..]).filter(|&&weight| weight != 0.0).count();
    let packed =
        Batch::pack(batch.sequences.iter().map(|s| (s.tokens.as_slice(), s.learn.as_slice())), 1.0 / targets as f32)
            .unwrap();
    let config = TrainConfig::default();
    let mut optimizer = AdamW::new(network.parameters().len());
    let mut gradient = vec![0.0; network.parameters().len()];
    let mut largest = Largest::default();
    for (step, rate) in batch.learning_rates.iter().enumerate() {
        gradient.fill(0.0);
        let loss = network.loss_and_gradient(&packed, &mut gradient).unwrap().loss;
        let norm = clip(&mut gradient, batch.max_grad_norm);
        optimizer.update(network.parameters_mut(), &gradient, *rate, &config);
        let difference = (loss - golden.losses[step]).abs();
        largest.loss = largest.loss.max(difference);
        largest.relative = largest.relative.max(difference / golden.losses[step]);
        largest.norm = largest.norm.max((norm / golden.grad_norms[step] - 1.0).abs());
    }
    largest
}

/// The variants that were held against their goldens; gradients may differ by `norms` as a part of their norm.
fn check(model: &Model, name: &str, norms: f64) -> usize {
    let folder = golden(name);
    let batch: BatchFile = read(&folder.join("batch.json"));
    let goldens: BTreeMap<String, Golden> = read(&folder.join("golden.json"));
    let frozen = Arc::new(FrozenTransformer::load(model, Precision::F32, BaseWeights::Packed, 128).unwrap());
    assert!(!goldens.is_empty());
    for (variant, golden) in &goldens {
        assert!(VARIANTS.contains(&variant.as_str()) && golden.losses.len() == batch.learning_rates.len());
        let largest = train(network(Arc::clone(&frozen), variant).unwrap(), &batch, golden);
        let (first, last) = (golden.losses[0], golden.losses[golden.losses.len() - 1]);
        println!("{name}, {variant}: loss {first:.4} to {last:.4}; {largest:?}");
        assert!(largest.loss < 1e-4, "{variant}: {largest:?}");
        assert!(largest.norm < norms, "{variant}: {largest:?}");
    }
    goldens.len()
}

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(name)
}

#[test]
fn fifty_steps_of_the_260k_model_agree_with_peft() {
    let model =
        Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"))).unwrap();
    assert_eq!(check(&model, "stories260K", 1e-3), VARIANTS.len());
}

#[test]
fn fifty_steps_of_a_tiny_qwen2_agree_with_peft() {
    assert_eq!(check(&Model::open(&golden("tiny-qwen2/model")).unwrap(), "tiny-qwen2", 1e-3), VARIANTS.len());
}

fn check_if_given(variable: &str, name: &str) {
    match std::env::var_os(variable) {
        Some(path) => {
            // A loss that is nearly zero has a gradient of few digits.
            assert!(check(&Model::open(Path::new(&path)).unwrap(), name, 1e-2) > 0);
        }
        None => println!("skipped: {variable} names no model"),
    }
}

#[test]
fn fifty_steps_of_smollm2_agree_with_peft() {
    check_if_given("ESPALIER_TEST_SMOLLM2", "smollm2");
}

#[test]
fn fifty_steps_of_qwen2_agree_with_peft() {
    check_if_given("ESPALIER_TEST_QWEN2", "qwen2");
}

/// Loss and gradient of the 260K model with an adapter away from its start, over the golden sequences, by calls of so many.
fn loss_and_gradient(precision: Precision, sequences_a_call: usize, repeats: usize) -> (f64, Vec<f64>) {
    let model =
        Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"))).unwrap();
    let folder = golden("stories260K");
    let frozen = Arc::new(FrozenTransformer::load(&model, precision, BaseWeights::Packed, 128).unwrap());
    let mut network = network(frozen, "lora").unwrap();
    // B begins near zero: away from it, every gradient counts.
    for (index, value) in network.parameters_mut().iter_mut().enumerate() {
        *value += ((index * 7919 % 1009) as f32 / 1009.0 - 0.5) * 0.2;
    }
    let batch: BatchFile = read(&folder.join("batch.json"));
    let sequences: Vec<_> = std::iter::repeat_n(&batch.sequences, repeats).flatten().collect();
    let targets = sequences.iter().flat_map(|s| &s.learn[1..]).filter(|&&weight| weight != 0.0).count();
    let (mut loss, mut sum) = (0.0, vec![0.0_f64; network.parameters().len()]);
    for part in sequences.chunks(sequences_a_call) {
        let part = part.iter().map(|s| (s.tokens.as_slice(), s.learn.as_slice()));
        let packed = Batch::pack(part, 1.0 / targets as f32).unwrap();
        let mut gradient = vec![0.0; sum.len()];
        loss += network.loss_and_gradient(&packed, &mut gradient).unwrap().loss;
        for (sum, value) in sum.iter_mut().zip(gradient) {
            *sum += f64::from(value);
        }
    }
    (loss, sum)
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn distance(one: &[f64], other: &[f64]) -> f64 {
    norm(&one.iter().zip(other).map(|(a, b)| a - b).collect::<Vec<_>>())
}

#[test]
fn packed_sequences_are_sequences_one_by_one() {
    let (loss, gradient) = loss_and_gradient(Precision::F32, usize::MAX, 1);
    for sequences_a_call in [1, 2] {
        let (other, parts) = loss_and_gradient(Precision::F32, sequences_a_call, 1);
        assert!((loss - other).abs() < 1e-6 * loss.abs(), "loss {loss} packed, {other} in parts");
        let difference = distance(&gradient, &parts) / norm(&gradient);
        assert!(difference < 1e-6, "the gradients differ by {difference} of their norm");
    }
}

/// What rounding to bf16 between the products may cost: 0.2 % of the loss, and a gradient within 2.5 % of the f32 one.
#[test]
fn bf16_stays_near_f32() {
    let (loss, gradient) = loss_and_gradient(Precision::F32, usize::MAX, 1);
    let (rounded, other) = loss_and_gradient(Precision::Bf16, usize::MAX, 1);
    let difference = distance(&gradient, &other) / norm(&gradient);
    println!("loss {loss} and {rounded}, gradients {difference} of the norm apart");
    assert!((loss - rounded).abs() < 2e-3 * loss, "loss {loss} in f32, {rounded} in bf16");
    assert!(difference < 2.5e-2, "the gradients differ by {difference} of their norm");
}

#[test]
fn threads_change_no_bit_of_loss_and_gradient() {
    // Enough rows that the products are shared out.
    for precision in [Precision::F32, Precision::Bf16] {
        let [one, two] = [1, 2].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| loss_and_gradient(precision, usize::MAX, 8))
        });
        assert_eq!(one.0.to_bits(), two.0.to_bits(), "{precision}: loss");
        assert!(one.1.iter().zip(&two.1).all(|(a, b)| a.to_bits() == b.to_bits()), "{precision}: gradient");
    }
}
