//! Small random models of each architecture (tests/assets/architectures, by scripts/golden-architectures.py): the loss of two
//! packed sequences and its gradient by an adapter, beside transformers and peft in f32.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use espalier_model::{LoraAdapter, Model};
use espalier_nn::transformer::{BaseWeights, Batch, FrozenTransformer, LoraModel};
use espalier_train::Precision;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    sequences: Vec<Vec<u32>>,
    loss: f64,
}

fn asset(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/architectures")).join(name)
}

fn check(name: &str) {
    let folder = asset(name);
    let golden: Golden = serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let ones: Vec<Vec<f32>> = golden.sequences.iter().map(|tokens| vec![1.0; tokens.len()]).collect();
    let targets: usize = golden.sequences.iter().map(|tokens| tokens.len() - 1).sum();
    let sequences = golden.sequences.iter().zip(&ones).map(|(tokens, learn)| (tokens.as_slice(), learn.as_slice()));
    let batch = Batch::pack(sequences, 1.0 / targets as f32).unwrap();
    let mut forms = vec![folder.clone()];
    // llama.cpp's converter has no place for the window of mistral.
    if name != "mistral" {
        forms.push(asset(&format!("{name}.gguf")));
    }
    for path in forms {
        let model = Model::open(&path).unwrap();
        let load = |part: &str| LoraAdapter::load(&folder.join(part), model.config()).unwrap();
        let frozen = Arc::new(FrozenTransformer::load(&model, Precision::F32, BaseWeights::Packed, 160).unwrap());
        let network = LoraModel::from_adapter(Arc::clone(&frozen), &load("adapter")).unwrap();
        // In the form of an adapter the gradient takes the same way into our order of parameters.
        let expected = LoraModel::from_adapter(frozen, &load("gradient")).unwrap();
        let mut gradient = vec![0.0; network.parameters().len()];
        let loss = network.loss_and_gradient(&batch, &mut gradient).unwrap().loss;
        let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
        let mut differences = gradient.iter().zip(expected.parameters()).map(|(a, b)| a - b);
        let off = (squares(&mut differences) / squares(&mut expected.parameters().iter().copied())).sqrt();
        println!("{name}: loss {loss:.7} for {:.7}, gradient off by {off:.1e}", golden.loss);
        assert!((loss - golden.loss).abs() < 1e-5 * golden.loss, "{name}: loss {loss} for {}", golden.loss);
        assert!(off < 1e-4, "{name}: the gradient differs by {off}");
    }
}

#[test]
fn qwen3_learns_as_with_peft() {
    check("qwen3");
}

#[test]
fn granite_learns_as_with_peft() {
    check("granite");
}

#[test]
fn smollm3_learns_as_with_peft() {
    check("smollm3");
}

#[test]
fn mistral_learns_as_with_peft() {
    check("mistral");
}

#[test]
fn gemma3_learns_as_with_peft() {
    check("gemma3");
}
