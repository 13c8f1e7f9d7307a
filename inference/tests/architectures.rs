//! Small random models of each architecture (tests/assets/architectures, by scripts/golden-architectures.py): our logits beside
//! those of transformers in f32, from the Hugging Face folder and from the GGUF file that llama.cpp's converter makes of it.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use espalier_inference::{EngineOptions, NativeEngine, Prompt, Request, ScoreRequest};
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

/// Texts with long common beginnings, some of them longer than the windows.
fn requests(vocabulary: u32) -> Vec<Request> {
    let token = |text: u32, position: u32| (text * 31 + position * 7 + position * position % 11) % vocabulary;
    let prompt = |text: u32, common: u32, length: u32| {
        Prompt::Tokens((0..length).map(|p| token(if p < common { 0 } else { text }, p)).collect())
    };
    let lengths = [(1, 90, 150), (2, 90, 95), (3, 30, 140), (4, 0, 3), (5, 130, 131), (0, 0, 150)];
    lengths.map(|(text, common, length)| Request::new(prompt(text, common, length), 20)).into()
}

#[test]
fn windows_and_sharing_change_no_text() {
    for name in ["mistral", "gemma3"] {
        let model = Model::open(&asset(name)).unwrap();
        let vocabulary = model.config().vocabulary as u32;
        for precision in [Precision::F32, Precision::Bf16] {
            let run = |max_sequences, max_batch_tokens, sharing| {
                let options = EngineOptions { precision, max_sequences, max_batch_tokens, ..EngineOptions::default() };
                let mut engine = NativeEngine::load(&model, None, &options).unwrap();
                engine.set_prefix_sharing(sharing);
                engine.set_ignore_end(true);
                let requests = requests(vocabulary);
                let mut texts = vec![Vec::new(); requests.len()];
                let each = &mut |index: usize, answer: Result<espalier_inference::Answer, _>| {
                    let bits = |token: &espalier_inference::TokenLogprob| (token.token, token.logprob.to_bits());
                    texts[index] = answer.unwrap().logprobs.iter().map(bits).collect();
                    ControlFlow::Continue(())
                };
                engine.generate(&requests, each).unwrap();
                texts
            };
            let alone = run(1, 512, false);
            assert!(alone.iter().all(|text| text.len() == 20));
            for (sequences, rows) in [(1, 16), (3, 40), (8, 512)] {
                assert_eq!(run(sequences, rows, true), alone, "{name} {precision} {sequences} {rows}");
            }
        }
    }
}

#[test]
fn windows_and_sharing_change_no_score() {
    for name in ["mistral", "gemma3"] {
        let model = Model::open(&asset(name)).unwrap();
        let vocabulary = model.config().vocabulary as u32;
        let mut scored: Vec<ScoreRequest> = Vec::new();
        for request in requests(vocabulary) {
            let Prompt::Tokens(context) = request.prompt else { unreachable!("made of tokens") };
            for length in [1, 70, 3] {
                let continuation = (0..length).map(|at| (at * 5 + length) % vocabulary).collect();
                scored.push(ScoreRequest { context: context.clone(), continuation });
            }
        }
        let run = |max_batch_tokens, sharing| {
            let options = EngineOptions { precision: Precision::F32, max_batch_tokens, ..EngineOptions::default() };
            let mut engine = NativeEngine::load(&model, None, &options).unwrap();
            engine.set_prefix_sharing(sharing);
            let mut sums = vec![0; scored.len()];
            let each = &mut |index: usize, score: espalier_inference::Score| {
                sums[index] = score.logprob.to_bits();
                ControlFlow::Continue(())
            };
            engine.loglikelihood(&scored, each).unwrap();
            sums
        };
        let alone = run(512, false);
        for rows in [16, 100, 512] {
            assert_eq!(run(rows, true), alone, "{name} {rows}");
        }
    }
}
