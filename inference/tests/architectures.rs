//! Small random models of each architecture (tests/assets/architectures, by scripts/golden-architectures.py): our logits beside
//! those of transformers in f32, from the Hugging Face folder and from the GGUF file that llama.cpp's converter makes of it.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

use std::path::{Path, PathBuf};

use espalier_inference::{EngineOptions, NativeEngine};
use espalier_kernels::Precision;
use espalier_model::Model;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    sequences: Vec<Vec<u32>>,
    positions: Vec<Vec<usize>>,
    logits: Vec<Vec<Vec<f32>>>,
}

fn asset(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/architectures")).join(name)
}

/// The largest difference, against the size of the logits.
fn difference(path: &Path, golden: &Golden) -> f32 {
    let model = Model::open(path).unwrap();
    let options = EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    let engine = NativeEngine::load(&model, None, &options).unwrap();
    let mut worst = 0.0_f32;
    let largest = golden.logits.iter().flatten().flatten().fold(1.0_f32, |most, value| most.max(value.abs()));
    for ((tokens, positions), expected) in golden.sequences.iter().zip(&golden.positions).zip(&golden.logits) {
        let mut compared = 0;
        engine
            .logits(tokens, &mut |position, logits| {
                if let Some(at) = positions.iter().position(|wanted| *wanted == position) {
                    assert_eq!(logits.len(), expected[at].len());
                    worst = logits.iter().zip(&expected[at]).fold(worst, |worst, (a, b)| worst.max((a - b).abs()));
                    compared += 1;
                }
            })
            .unwrap();
        assert_eq!(compared, positions.len());
    }
    worst / largest
}

fn check(name: &str) {
    let golden: Golden = serde_json::from_slice(&std::fs::read(asset(name).join("golden.json")).unwrap()).unwrap();
    let mut forms = vec![asset(name)];
    // llama.cpp's converter has no place for the window of mistral.
    if name != "mistral" {
        forms.push(asset(&format!("{name}.gguf")));
    }
    for path in forms {
        let difference = difference(&path, &golden);
        println!("{name}: {difference:.1e}");
        assert!(difference < 1e-5, "{}: {difference}", path.display());
    }
}

#[test]
fn qwen3_normalises_the_heads_of_queries_and_keys() {
    check("qwen3");
}

#[test]
fn granite_has_factors() {
    check("granite");
}

#[test]
fn smollm3_has_layers_without_positions() {
    check("smollm3");
}

#[test]
fn mistral_has_a_window_and_heads_of_their_own_length() {
    check("mistral");
}

#[test]
fn gemma3_has_norms_on_both_sides_and_two_kinds_of_layers() {
    check("gemma3");
}
