//! Divergence between engines on a real model.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]

use std::path::Path;

use espalier_inference::{EngineOptions, NativeEngine};
use espalier_kernels::Precision;
use espalier_model::{Model, SpecialTokens};
use espalier_quantize::{Divergence, FileType, QuantizeError, QuantizeOptions, divergence, quantize};

fn stories() -> Model {
    Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"))).unwrap()
}

fn engine(model: &Model) -> NativeEngine {
    let options = EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    NativeEngine::load(model, None, &options).unwrap()
}

fn texts(model: &Model) -> Vec<Vec<u32>> {
    [
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
        "One day, a big dog came to the house. The dog was sad because it had no friends.",
        "Tom and his mom went to the store. They saw a red ball and Tom wanted to play with it.",
    ]
    .into_iter()
    .map(|text| {
        let ids = model.tokenizer().encode(text, SpecialTokens::AsText);
        model.tokenizer().bos().into_iter().chain(ids).collect()
    })
    .collect()
}

#[test]
fn a_model_does_not_diverge_from_itself_and_more_bits_diverge_less() {
    let folder = tempfile::tempdir().unwrap();
    let model = stories();
    let texts = texts(&model);
    let reference = engine(&model);
    let same = divergence(&reference, &engine(&model), &texts).unwrap();
    assert!(same.mean_kld < 1e-9 && same.max < 1e-6, "{same:?}");
    assert_eq!(same.same_top, 1.0);
    assert_eq!(same.tokens, texts.iter().map(|text| text.len() - 1).sum::<usize>());

    let measured: Vec<Divergence> = [FileType::Q8_0, FileType::Q4_0]
        .into_iter()
        .map(|file_type| {
            let out = folder.path().join(format!("{file_type}.gguf"));
            quantize(&model, None, file_type, &out, &QuantizeOptions::default(), &mut |_| {}).unwrap();
            divergence(&reference, &engine(&Model::open(&out).unwrap()), &texts).unwrap()
        })
        .collect();
    let [q8, q4] = measured.as_slice() else { unreachable!() };
    assert!(q8.mean_kld > 0.0 && q8.mean_kld < 0.005 && q8.same_top > 0.95, "{q8:?}");
    assert!(q4.mean_kld > 4.0 * q8.mean_kld && q4.rms_delta_p > q8.rms_delta_p, "{q4:?}");
    assert!(q4.median <= q4.p99_9 && q4.p99_9 <= q4.max);
    assert!((q8.perplexity_ratio - 1.0).abs() < 0.02, "{q8:?}");
}

#[test]
fn products_on_the_blocks_of_the_file_stay_near_the_decoded_weights() {
    let folder = tempfile::tempdir().unwrap();
    let texts = texts(&stories());
    for file_type in [FileType::Q8_0, FileType::Q4_0] {
        let out = folder.path().join(format!("{file_type}.gguf"));
        quantize(&stories(), None, file_type, &out, &QuantizeOptions::default(), &mut |_| {}).unwrap();
        let model = Model::open(&out).unwrap();
        let options = EngineOptions { single_sequence: true, precision: Precision::F32, ..EngineOptions::default() };
        let blocks = NativeEngine::load(&model, None, &options).unwrap();
        let decoded = engine(&model);
        // The projection back from 172 values is no whole number of blocks and stays in floats.
        assert!(blocks.weight_form().starts_with("16 of 21 matrices in the blocks"), "{}", blocks.weight_form());
        assert_ne!(blocks.identity(), decoded.identity());
        assert!(blocks.weight_bytes() < decoded.weight_bytes());
        // Rounding the activations to 8 bits costs less than what Q8_0 does to the weights.
        let found = divergence(&decoded, &blocks, &texts).unwrap();
        assert!(found.mean_kld > 0.0 && found.mean_kld < 0.002 && found.same_top > 0.95, "{file_type}: {found:?}");
        // How many rows are computed together changes nothing here either.
        let one_by_one = EngineOptions { max_batch_tokens: 1, ..options };
        let one_by_one = NativeEngine::load(&model, None, &one_by_one).unwrap();
        assert!(divergence(&blocks, &one_by_one, &texts).unwrap().max.abs() < f64::EPSILON, "{file_type}");
    }
}

#[test]
fn texts_without_a_next_token_are_refused() {
    let model = stories();
    let engine = engine(&model);
    let error = divergence(&engine, &engine, &[vec![1], vec![]]).unwrap_err();
    assert!(matches!(error, QuantizeError::NothingToCompare { texts: 2 }), "{error}");
}

#[test]
fn an_error_of_an_engine_comes_back() {
    let model = stories();
    let engine = engine(&model);
    let too_long = vec![5; 100_000];
    let error = divergence(&engine, &engine, &[too_long]).unwrap_err();
    assert!(matches!(error, QuantizeError::Engine(_)), "{error}");
}
