//! The engine against a plain forward pass in f64, with and without an adapter.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::ops::ControlFlow;

use common::{adapter, options, stories};
use espalier_inference::{EngineError, EngineOptions, NativeEngine, ScoreRequest};
use espalier_kernels::Precision;
use espalier_model::{LoraAdapter, Model};

type Matrix = Vec<Vec<f64>>;

/// A llama in f64: every formula written out, nothing fast, nothing shared with the engine but the tensors.
struct Reference<'a> {
    model: &'a Model,
    adapter: Option<&'a LoraAdapter>,
}

impl Reference<'_> {
    fn matrix(&self, name: &str) -> Matrix {
        let tensor = self.model.tensor(&format!("{name}.weight")).unwrap();
        let values = tensor.to_vec().unwrap();
        let mut matrix: Matrix =
            values.chunks(tensor.info().columns).map(|row| row.iter().map(|&v| f64::from(v)).collect()).collect();
        // W + s B A: the explicit merge that the side branch must equal.
        if let Some((adapter, module)) = self.adapter.and_then(|adapter| Some((adapter, adapter.modules.get(name)?))) {
            let rank = module.rank;
            for (output, (row, b)) in matrix.iter_mut().zip(module.b.chunks(rank)).enumerate() {
                for (column, value) in row.iter_mut().enumerate() {
                    let product: f64 =
                        (0..rank).map(|r| f64::from(b[r]) * f64::from(module.a[r * module.inputs + column])).sum();
                    *value += f64::from(adapter.scale(module)) * product;
                }
                if let Some(magnitude) = &module.magnitude {
                    let factor = f64::from(magnitude[output]) / dot(row, row).sqrt();
                    for value in row.iter_mut() {
                        *value *= factor;
                    }
                }
            }
        }
        matrix
    }

    fn vector(&self, name: &str) -> Vec<f64> {
        self.matrix(name).concat()
    }

    /// Logits after every position.
    fn logits(&self, tokens: &[u32]) -> Matrix {
        let config = self.model.config();
        let (d, group) = (config.head_dim, config.heads / config.kv_heads);
        let embedding = self.matrix("token_embd");
        let mut hidden: Matrix = tokens.iter().map(|&token| embedding[token as usize].clone()).collect();
        for layer in 0..config.layers {
            let name = |module: &str| format!("blk.{layer}.{module}");
            let normed = self.norm(&hidden, &name("attn_norm"));
            let turn = |x: Matrix| -> Matrix {
                x.into_iter()
                    .enumerate()
                    .map(|(position, row)| turn(row, d, position, f64::from(config.rotation.theta)))
                    .collect()
            };
            let q = turn(times(&normed, &self.matrix(&name("attn_q"))));
            let k = turn(times(&normed, &self.matrix(&name("attn_k"))));
            let v = times(&normed, &self.matrix(&name("attn_v")));
            let attended: Matrix = (0..tokens.len())
                .map(|t| {
                    (0..config.heads)
                        .flat_map(|head| {
                            let at = head / group * d;
                            let scores: Vec<f64> = (0..=t)
                                .map(|s| dot(&q[t][head * d..(head + 1) * d], &k[s][at..at + d]) / (d as f64).sqrt())
                                .collect();
                            let weights = softmax(&scores);
                            (0..d).map(|i| (0..=t).map(|s| weights[s] * v[s][at + i]).sum()).collect::<Vec<f64>>()
                        })
                        .collect()
                })
                .collect();
            add(&mut hidden, &times(&attended, &self.matrix(&name("attn_output"))));
            let normed = self.norm(&hidden, &name("ffn_norm"));
            let mut gate = times(&normed, &self.matrix(&name("ffn_gate")));
            let up = times(&normed, &self.matrix(&name("ffn_up")));
            for (gate, up) in gate.iter_mut().flatten().zip(up.iter().flatten()) {
                *gate = *gate / (1.0 + (-*gate).exp()) * up;
            }
            add(&mut hidden, &times(&gate, &self.matrix(&name("ffn_down"))));
        }
        times(&self.norm(&hidden, "output_norm"), &embedding)
    }

    fn norm(&self, x: &Matrix, name: &str) -> Matrix {
        let gamma = self.vector(name);
        let epsilon = f64::from(self.model.config().rms_epsilon);
        x.iter()
            .map(|row| {
                let scale = (dot(row, row) / row.len() as f64 + epsilon).sqrt().recip();
                row.iter().zip(&gamma).map(|(v, g)| v * scale * g).collect()
            })
            .collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn times(x: &Matrix, w: &Matrix) -> Matrix {
    x.iter().map(|x| w.iter().map(|w| dot(x, w)).collect()).collect()
}

fn add(x: &mut Matrix, y: &Matrix) {
    for (x, y) in x.iter_mut().flatten().zip(y.iter().flatten()) {
        *x += y;
    }
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let highest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = x.iter().map(|x| (x - highest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// Rotary embedding of neighbouring pairs.
fn turn(mut row: Vec<f64>, d: usize, position: usize, theta: f64) -> Vec<f64> {
    for head in row.chunks_mut(d) {
        for (i, pair) in head.chunks_mut(2).enumerate() {
            let (sine, cosine) = (position as f64 * theta.powf(-2.0 * i as f64 / d as f64)).sin_cos();
            (pair[0], pair[1]) = (pair[0] * cosine - pair[1] * sine, pair[0] * sine + pair[1] * cosine);
        }
    }
    row
}

fn engine_logits(engine: &NativeEngine, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    engine
        .logits(tokens, &mut |position, logits| {
            assert_eq!(position, rows.len());
            rows.push(logits.to_vec());
        })
        .unwrap();
    rows
}

fn largest_difference(found: &[Vec<f32>], expected: &Matrix) -> f64 {
    assert_eq!((found.len(), found[0].len()), (expected.len(), expected[0].len()));
    found.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

/// BOS and a story that the model likes.
fn story(engine: &NativeEngine) -> Vec<u32> {
    let prompt =
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw";
    engine.prompt_tokens(&espalier_inference::Prompt::Text(prompt.to_owned())).unwrap()
}

#[test]
fn f32_logits_agree_with_the_reference() {
    let model = stories();
    let engine = NativeEngine::load(&model, None, &options(Precision::F32)).unwrap();
    let tokens = story(&engine);
    let expected = Reference { model: &model, adapter: None }.logits(&tokens);
    let difference = largest_difference(&engine_logits(&engine, &tokens), &expected);
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn bf16_logits_are_near_the_reference() {
    let model = stories();
    let engine = NativeEngine::load(&model, None, &options(Precision::Bf16)).unwrap();
    let tokens = story(&engine);
    let expected = Reference { model: &model, adapter: None }.logits(&tokens);
    let found = engine_logits(&engine, &tokens);
    let mut divergence = 0.0;
    for (found, expected) in found.iter().zip(&expected) {
        let p = softmax(expected);
        let q = softmax(&found.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
        divergence += p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
    }
    let mean = divergence / found.len() as f64;
    assert!(mean < 1e-3, "mean divergence {mean}");
}

#[test]
fn a_side_branch_equals_the_merge() {
    let model = stories();
    let lora = adapter(&model, 4, 1);
    let mut mixed = lora.clone();
    mixed.rslora = true;
    for (module, alpha) in mixed.modules.values_mut().zip([3.0, 7.0, 5.0].into_iter().cycle()) {
        module.alpha = alpha;
        if alpha > 6.0 {
            // Rank 1: the first row of A, the first column of B.
            module.a.truncate(module.inputs);
            module.b = module.b.iter().copied().step_by(module.rank).collect();
            module.rank = 1;
        }
    }
    let mut dora = mixed.clone();
    for (at, module) in dora.modules.values_mut().enumerate() {
        module.magnitude = Some((0..module.outputs).map(|output| 0.5 + (output * 7 + at) as f32 % 5.0 * 0.2).collect());
    }
    for adapter in [lora, mixed, dora] {
        check_against_the_merge(&model, &adapter);
    }
}

fn check_against_the_merge(model: &Model, adapter: &LoraAdapter) {
    let engine = NativeEngine::load(model, Some(adapter), &options(Precision::F32)).unwrap();
    let base = NativeEngine::load(model, None, &options(Precision::F32)).unwrap();
    let tokens = story(&engine);
    let found = engine_logits(&engine, &tokens);
    let merged = Reference { model, adapter: Some(adapter) }.logits(&tokens);
    let difference = largest_difference(&found, &merged);
    assert!(difference < 1e-4, "{difference}");
    let unmerged = Reference { model, adapter: None }.logits(&tokens);
    assert!(largest_difference(&found, &unmerged) > 1.0, "the adapter must matter");
    assert_ne!(engine.identity(), base.identity());
    assert_eq!(engine.identity().split('+').next(), base.identity().split('-').next());
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let model = stories();
    let mut wrong = adapter(&model, 4, 1);
    let pair = wrong.modules.remove("blk.0.attn_q").unwrap();
    wrong.modules.insert("blk.9.attn_q".to_owned(), pair);
    let refused =
        |adapter: &LoraAdapter| NativeEngine::load(&model, Some(adapter), &EngineOptions::default()).unwrap_err();
    assert!(refused(&wrong).to_string().contains("blk.9.attn_q"));
    let mut wrong = adapter(&model, 4, 1);
    wrong.modules.get_mut("blk.2.ffn_down").unwrap().inputs += 1;
    assert!(matches!(refused(&wrong), EngineError::Adapter { module, .. } if module == "blk.2.ffn_down"));
}

#[test]
fn one_token_at_a_time_gives_the_same_bits() {
    let model = stories();
    for precision in [Precision::F32, Precision::Bf16] {
        let at_once = NativeEngine::load(&model, None, &options(precision)).unwrap();
        let tokens = story(&at_once);
        let expected = engine_logits(&at_once, &tokens);
        for max_batch_tokens in [1, 7, 16] {
            let options = EngineOptions { max_batch_tokens, ..options(precision) };
            let found = engine_logits(&NativeEngine::load(&model, None, &options).unwrap(), &tokens);
            let bits = |rows: &[Vec<f32>]| rows.iter().flatten().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(&found) == bits(&expected), "{precision}, {max_batch_tokens} rows a step");
        }
    }
}

#[test]
fn scores_agree_with_the_reference() {
    let model = stories();
    let engine = NativeEngine::load(&model, None, &options(Precision::F32)).unwrap();
    let tokens = story(&engine);
    let logits = Reference { model: &model, adapter: None }.logits(&tokens);
    let expected: f64 = (20..tokens.len()).map(|at| softmax(&logits[at - 1])[tokens[at] as usize].ln()).sum();
    let request = ScoreRequest { context: tokens[..20].to_vec(), continuation: tokens[20..].to_vec() };
    engine
        .loglikelihood(&[request], &mut |_, score| {
            assert!((score.logprob - expected).abs() < 1e-4, "{} {expected}", score.logprob);
            assert_eq!(score.tokens, tokens.len() - 20);
            ControlFlow::Continue(())
        })
        .unwrap();
}
