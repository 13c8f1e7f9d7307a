//! Vectors held against transformers; made by scripts/golden-embeddings.py.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use espalier_inference::{EmbeddingEngine, EmbeddingOptions, EngineError, EngineOptions, Pooling};
use espalier_kernels::Precision;
use espalier_model::Model;
use serde::Deserialize;

const DECODERS: [&str; 5] = ["qwen3", "granite", "smollm3", "mistral", "gemma3"];

fn asset(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets")).join(name)
}

fn golden<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(asset(name)).unwrap()).unwrap()
}

fn load(name: &str, options: &EngineOptions) -> EmbeddingEngine {
    EmbeddingEngine::load(&asset(name), options).unwrap()
}

fn exact() -> EngineOptions {
    EngineOptions { precision: Precision::F32, ..EngineOptions::default() }
}

fn embed(engine: &EmbeddingEngine, texts: &[Vec<u32>], pooling: Pooling, normalize: bool) -> Vec<Vec<f32>> {
    let options = EmbeddingOptions { pooling: Some(pooling), normalize: Some(normalize) };
    let mut vectors = vec![Vec::new(); texts.len()];
    let each = &mut |index: usize, vector: Result<Vec<f32>, EngineError>| {
        vectors[index] = vector.unwrap();
        ControlFlow::Continue(())
    };
    engine.embed(texts, options, each).unwrap();
    vectors
}

/// The largest difference, against the size of the values.
fn difference(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().flatten().fold(1.0_f32, |most, value| most.max(value.abs()));
    let pairs = found.iter().zip(expected).flat_map(|(found, expected)| {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected)
    });
    pairs.fold(0.0_f32, |worst, (found, expected)| worst.max((found - expected).abs())) / largest
}

#[derive(Deserialize)]
struct EncoderGolden {
    texts: Vec<String>,
    tokens: Vec<Vec<u32>>,
    mean: Vec<Vec<f32>>,
    first: Vec<Vec<f32>>,
}

#[test]
fn an_encoder_cuts_texts_and_makes_vectors_as_transformers_does() {
    let golden: EncoderGolden = golden("encoders/bert/golden.json");
    let engine = load("encoders/bert", &exact());
    let tokens: Vec<Vec<u32>> = golden.texts.iter().map(|text| engine.encode(text).unwrap().0).collect();
    for (text, (found, expected)) in golden.texts.iter().zip(tokens.iter().zip(&golden.tokens)) {
        assert_eq!(found, expected, "{text:?}");
    }
    let (cut, missing) = engine.encode(&"a pond ".repeat(40)).unwrap();
    assert_eq!((cut.len(), missing, cut.last()), (64, 82 - 64, golden.tokens[0].last()));
    for (pooling, expected) in [(Pooling::Mean, &golden.mean), (Pooling::FirstToken, &golden.first)] {
        let difference = difference(&embed(&engine, &tokens, pooling, true), expected);
        println!("{pooling:?}: {difference:.1e}");
        assert!(difference < 1e-5, "{pooling:?}: {difference}");
    }
}

#[derive(Deserialize)]
struct Sequences {
    sequences: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct DecoderGolden {
    mean: Vec<Vec<f32>>,
    last: Vec<Vec<f32>>,
}

#[test]
fn models_that_write_give_their_last_states() {
    for name in DECODERS {
        let texts: Sequences = golden(&format!("architectures/{name}/golden.json"));
        let expected: DecoderGolden = golden(&format!("architectures/{name}/vectors.json"));
        let engine = load(&format!("architectures/{name}"), &exact());
        for (pooling, expected) in [(Pooling::Mean, &expected.mean), (Pooling::LastToken, &expected.last)] {
            let difference = difference(&embed(&engine, &texts.sequences, pooling, false), expected);
            println!("{name} {pooling:?}: {difference:.1e}");
            assert!(difference < 1e-5, "{name} {pooling:?}: {difference}");
        }
    }
}

/// Texts of several lengths, one of them longer than the rows of some passes.
fn texts() -> Vec<Vec<u32>> {
    let text = |length: u32, seed: u32| (0..length).map(|at| 4 + (at * 7 + seed * 13 + at * at % 5) % 60).collect();
    [3, 60, 1, 17, 33, 64, 5].into_iter().enumerate().map(|(seed, length)| text(length, seed as u32)).collect()
}

#[test]
fn company_and_threads_change_no_bit_of_a_vector() {
    for name in ["encoders/bert", "architectures/qwen3", "architectures/gemma3"] {
        for precision in [Precision::F32, Precision::Bf16] {
            for pooling in [Pooling::Mean, Pooling::LastToken] {
                let run = |threads, max_batch_tokens, memory| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| {
                        let options = EngineOptions { precision, max_batch_tokens, memory, ..EngineOptions::default() };
                        let bits = |vector: Vec<f32>| vector.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                        let vectors = embed(&load(name, &options), &texts(), pooling, true);
                        vectors.into_iter().map(bits).collect::<Vec<_>>()
                    })
                };
                let one = run(1, 1, None);
                assert!(one.iter().all(|vector| vector.len() == one[0].len() && !vector.is_empty()));
                for (threads, rows) in [(2, 7), (1, 64), (2, 512)] {
                    assert_eq!(run(threads, rows, None), one, "{name} {precision} {pooling:?} {threads} {rows}");
                }
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_text_is_its_own_result() {
    for name in ["encoders/bert", "architectures/qwen3"] {
        let engine = load(name, &exact());
        let long = vec![7; engine.context() + 1];
        let texts = [vec![5, 6], Vec::new(), long, vec![1_000_000], vec![6]];
        let mut results: Vec<Option<Result<Vec<f32>, EngineError>>> = (0..5).map(|_| None).collect();
        let each = &mut |index: usize, vector| {
            results[index] = Some(vector);
            ControlFlow::Continue(())
        };
        engine.embed(&texts, EmbeddingOptions::default(), each).unwrap();
        let results: Vec<_> = results.into_iter().map(Option::unwrap).collect();
        for good in [0, 4] {
            let vector = results[good].as_ref().unwrap();
            assert_eq!(vector.len(), engine.dimensions());
            assert!((vector.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-5);
        }
        assert!(matches!(results[1], Err(EngineError::EmptyPrompt)), "{name}");
        assert!(matches!(results[2], Err(EngineError::TextTooLong { .. })), "{name}");
        assert!(matches!(results[3], Err(EngineError::UnknownToken { .. })), "{name}");
        let mut seen = 0;
        let stop = &mut |_, _| {
            seen += 1;
            ControlFlow::Break(())
        };
        engine.embed(&texts, EmbeddingOptions::default(), stop).unwrap();
        assert_eq!(seen, 1);
    }
}

#[test]
fn an_encoder_is_refused_where_a_model_that_writes_is_asked_for() {
    let error = Model::open(&asset("encoders/bert")).err().unwrap().to_string();
    assert!(error.contains("makes vectors") && error.contains("config.json"), "{error}");
}
