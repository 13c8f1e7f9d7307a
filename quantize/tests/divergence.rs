//! Divergence between engines on a real model.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]

use std::ops::ControlFlow;
use std::path::Path;

use espalier_inference::{EngineOptions, NativeEngine, Prompt, Request, Sampling, WeightForm};
use espalier_kernels::Precision;
use espalier_model::{Model, SpecialTokens};
use espalier_quantize::{
    Divergence, FileType, MeasuredText, QuantizeError, QuantizeOptions, ReferenceLogits, divergence, quantize,
};

fn stories() -> Model {
    Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"))).unwrap()
}

fn engine(model: &Model) -> NativeEngine {
    let options = EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    NativeEngine::load(model, None, &options).unwrap()
}

fn compare(
    reference: &NativeEngine,
    candidate: &NativeEngine,
    texts: &[MeasuredText],
) -> Result<Divergence, QuantizeError> {
    divergence(reference, candidate, texts, &mut |_| ControlFlow::Continue(()))
}

fn texts(model: &Model) -> Vec<MeasuredText> {
    [
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
        "One day, a big dog came to the house. The dog was sad because it had no friends.",
        "Tom and his mom went to the store. They saw a red ball and Tom wanted to play with it.",
    ]
    .into_iter()
    .map(|text| {
        let ids = model.tokenizer().encode(text, SpecialTokens::AsText);
        MeasuredText::whole(model.tokenizer().bos().into_iter().chain(ids).collect())
    })
    .collect()
}

#[test]
fn a_model_does_not_diverge_from_itself_and_more_bits_diverge_less() {
    let folder = tempfile::tempdir().unwrap();
    let model = stories();
    let texts = texts(&model);
    let reference = engine(&model);
    let same = compare(&reference, &engine(&model), &texts).unwrap();
    assert!(same.mean_kld.value < 1e-9 && same.max < 1e-6, "{same:?}");
    assert_eq!(same.same_top.value, 1.0);
    assert_eq!(same.tokens, texts.iter().map(MeasuredText::scored).sum::<usize>());

    let measured: Vec<Divergence> = [FileType::Q8_0, FileType::Q4_0]
        .into_iter()
        .map(|file_type| {
            let out = folder.path().join(format!("{file_type}.gguf"));
            quantize(&model, None, file_type, &out, &QuantizeOptions::default(), &mut |_| {}).unwrap();
            compare(&reference, &engine(&Model::open(&out).unwrap()), &texts).unwrap()
        })
        .collect();
    let [q8, q4] = measured.as_slice() else { unreachable!() };
    assert!(q8.mean_kld.value > 0.0 && q8.mean_kld.value < 0.005 && q8.same_top.value > 0.95, "{q8:?}");
    assert!(q4.mean_kld.value > 4.0 * q8.mean_kld.value && q4.rms_delta_p.value > q8.rms_delta_p.value, "{q4:?}");
    assert!(q4.median.value <= q4.p99_9.value && q4.p99_9.value <= q4.max);
    assert!((q8.perplexity_ratio.value - 1.0).abs() < 0.02, "{q8:?}");
}

#[test]
fn products_with_the_numbers_of_the_blocks_stay_near_the_decoded_weights() {
    let folder = tempfile::tempdir().unwrap();
    let texts = texts(&stories());
    for file_type in [FileType::Q8_0, FileType::Q4_0, FileType::Q4_1] {
        let out = folder.path().join(format!("{file_type}.gguf"));
        quantize(&stories(), None, file_type, &out, &QuantizeOptions::default(), &mut |_| {}).unwrap();
        let model = Model::open(&out).unwrap();
        let decoded = engine(&model);
        for (weight_form, words) in [
            (WeightForm::Blocks, "16 of 21 matrices in the blocks of the file with activations of 8 bits"),
            (WeightForm::Int8, "16 of 21 matrices as the bytes of the file's blocks with activations of 8 bits"),
        ] {
            let options = EngineOptions { weight_form, precision: Precision::F32, ..EngineOptions::default() };
            let rounded = NativeEngine::load(&model, None, &options).unwrap();
            // The projection back from 172 values is no whole number of blocks and stays in floats.
            assert!(rounded.weight_words().starts_with(words), "{}", rounded.weight_words());
            assert_ne!(rounded.identity(), decoded.identity());
            assert!(rounded.weight_bytes() < decoded.weight_bytes());
            // Rounding the activations to 8 bits costs less than what Q8_0 does to the weights.
            let found = compare(&decoded, &rounded, &texts).unwrap();
            assert!(
                found.mean_kld.value > 0.0 && found.mean_kld.value < 0.002 && found.same_top.value > 0.95,
                "{file_type}: {found:?}"
            );
            // How many rows are computed together changes nothing here either.
            let one_by_one = EngineOptions { max_batch_tokens: 1, ..options };
            let one_by_one = NativeEngine::load(&model, None, &one_by_one).unwrap();
            assert!(compare(&rounded, &one_by_one, &texts).unwrap().max.abs() < f64::EPSILON, "{file_type}");
        }
    }
}

#[test]
fn texts_written_with_8_bits_depend_on_their_requests_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("q4_1.gguf");
    quantize(&stories(), None, FileType::Q4_1, &out, &QuantizeOptions::default(), &mut |_| {}).unwrap();
    let model = Model::open(&out).unwrap();
    let requests: Vec<Request> = (0..40)
        .map(|seed| Request {
            seed,
            sampling: Sampling::at_temperature(1.0),
            ..Request::new(
                Prompt::Text(["Once upon a time", "One day, a big dog", "Tom"][seed as usize % 3].to_owned()),
                30,
            )
        })
        .collect();
    let texts = |max_sequences: usize, threads: usize| -> Vec<Option<String>> {
        let options = EngineOptions { weight_form: WeightForm::Int8, max_sequences, ..EngineOptions::default() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut texts = vec![None; requests.len()];
            NativeEngine::load(&model, None, &options)
                .unwrap()
                .generate(&requests, &mut |index, answer| {
                    texts[index] = Some(answer.unwrap().text);
                    ControlFlow::Continue(())
                })
                .unwrap();
            texts
        })
    };
    let expected = texts(1, 1);
    assert!(expected.iter().all(Option::is_some) && expected[0] != expected[3]);
    for (max_sequences, threads) in [(7, 1), (64, 1), (1, 2), (7, 2), (64, 2)] {
        assert_eq!(texts(max_sequences, threads), expected, "{max_sequences} sequences, {threads} threads");
    }
}

#[test]
fn texts_without_a_next_token_are_refused() {
    let model = stories();
    let engine = engine(&model);
    let error = compare(&engine, &engine, &[MeasuredText::whole(vec![1]), MeasuredText::whole(vec![])]).unwrap_err();
    assert!(matches!(error, QuantizeError::NothingToCompare { texts: 2 }), "{error}");
}

#[test]
fn an_error_of_an_engine_comes_back() {
    let model = stories();
    let engine = engine(&model);
    let too_long = vec![5; 100_000];
    let error = compare(&engine, &engine, &[MeasuredText::whole(too_long)]).unwrap_err();
    assert!(matches!(error, QuantizeError::Engine(_)), "{error}");
}

#[test]
fn figures_are_those_of_llama_perplexity_within_the_rounding_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let model = stories();
    let out = folder.path().join("Q4_0.gguf");
    quantize(&model, None, FileType::Q4_0, &out, &QuantizeOptions::default(), &mut |_| {}).unwrap();
    let (reference, candidate) = (engine(&model), engine(&Model::open(&out).unwrap()));
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/text/wiki.test.raw")).unwrap();
    let mut windows = MeasuredText::windows(&reference, &text, 512);
    windows.truncate(16);
    let found = compare(&reference, &candidate, &windows).unwrap();
    assert_eq!((found.tokens, found.texts), (16 * 255, 16));
    let golden = include_str!("golden/stories260K.divergence.txt");
    let expect = |name: &str, found: f64, tolerance: f64| {
        let line = golden.lines().find(|line| line.starts_with(name)).unwrap();
        let expected: f64 = line.split_once(':').unwrap().1.split(['±', '%']).next().unwrap().trim().parse().unwrap();
        assert!((found - expected).abs() <= tolerance * expected.abs(), "{name}: {found} for {expected}");
    };
    expect("Mean    KLD", found.mean_kld.value, 2e-3);
    expect("Median  KLD", found.median.value, 2e-3);
    expect("90.0%   KLD", found.p90.value, 2e-3);
    expect("99.0%   KLD", found.p99.value, 2e-3);
    expect("99.9%   KLD", found.p99_9.value, 1e-2);
    expect("Maximum KLD", found.max, 1e-2);
    expect("Mean    Δp", 100.0 * found.mean_delta_p.value, 1e-2);
    expect("RMS Δp", 100.0 * found.rms_delta_p.value, 2e-3);
    expect("Same top p", 100.0 * found.same_top.value, 1e-3);
    // Theirs is one standard error by single positions; texts vary more than that.
    let [low, high] = found.mean_kld.interval.unwrap();
    assert!(low < found.mean_kld.value && found.mean_kld.value < high && high - low > 2.0 * 0.004_7, "{low} {high}");

    let kept = ReferenceLogits::new(&reference, windows).unwrap();
    assert_eq!(kept.divergence(&candidate).unwrap(), found, "kept logits are those of the run in step");
}
