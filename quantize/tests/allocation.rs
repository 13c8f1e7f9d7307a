//! Types chosen by measurement, on a real model.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::ops::ControlFlow;
use std::path::Path;

use espalier_inference::{EngineOptions, NativeEngine};
use espalier_kernels::Precision;
use espalier_model::{LoraAdapter, Model};
use espalier_quantize::{
    Allocation, AllocationEvent, AllocationInputs, FileType, ImportanceMatrix, ImportanceSource, MeasuredText,
    QuantizeError, QuantizeOptions, Target, allocate, divergence, importance, quantize,
};

fn stories() -> Model {
    Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"))).unwrap()
}

fn options() -> EngineOptions {
    EngineOptions { precision: Precision::F32, ..EngineOptions::default() }
}

fn engine(model: &Model) -> NativeEngine {
    NativeEngine::load(model, None, &options()).unwrap()
}

fn windows(engine: &NativeEngine) -> Vec<MeasuredText> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/text/wiki.test.raw");
    MeasuredText::windows(engine, &std::fs::read_to_string(path).unwrap(), 256)
}

fn go_on(_: AllocationEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn measured(model: &Model, target: Target, importance: Option<&ImportanceMatrix>) -> Result<Allocation, QuantizeError> {
    let texts = windows(&engine(model))[..4].to_vec();
    allocate(
        AllocationInputs { model, adapter: None, importance, refine: false, texts, engine: options() },
        target,
        &mut go_on,
    )
}

#[test]
fn at_the_size_of_a_fixed_mix_the_measured_types_diverge_less() {
    let folder = tempfile::tempdir().unwrap();
    let model = stories();
    let reference = engine(&model);
    let texts = windows(&reference);
    let matrix = importance(&reference, &texts[..8], Vec::new(), false, &mut |_| ControlFlow::Continue(())).unwrap();
    let fixed = folder.path().join("fixed.gguf");
    let report = quantize(&model, None, FileType::Q4_K_M, &fixed, &QuantizeOptions::default(), &mut |_| {}).unwrap();
    let size: u64 = report.tensors.iter().map(|tensor| tensor.bytes).sum();
    let allocation = measured(&model, Target::Bytes(size), Some(&matrix)).unwrap();
    assert!(allocation.bytes <= size, "{} above {size}", allocation.bytes);

    let out = folder.path().join("measured.gguf");
    let source = ImportanceSource { matrix: matrix.clone(), file: "imatrix.gguf".to_owned() };
    let importance = Some(source);
    let options = QuantizeOptions { mix: allocation.mix().unwrap(), importance, ..QuantizeOptions::default() };
    let report = quantize(&model, None, FileType::Q4_K_M, &out, &options, &mut |_| {}).unwrap();
    assert_eq!(report.tensors.iter().map(|tensor| tensor.bytes).sum::<u64>(), allocation.bytes);
    for tensor in &report.tensors {
        assert!(allocation.types.get(&tensor.name).is_none_or(|expected| *expected == tensor.to), "{}", tensor.name);
    }
    // What was measured without a file is what the file does, but for the half precision of rows that no block divides.
    let written = engine(&Model::open(&out).unwrap());
    let found = divergence(&reference, &written, &texts[..4], &mut |_| ControlFlow::Continue(())).unwrap();
    let [found, expected] = [found, allocation.divergence].map(|divergence| divergence.mean_kld.value);
    assert!((found - expected).abs() < expected * 1e-3, "{found} for {expected}");

    let held_out = &texts[20..40];
    let [fixed, ours] = [fixed, out].map(|path| {
        let candidate = engine(&Model::open(&path).unwrap());
        divergence(&reference, &candidate, held_out, &mut |_| ControlFlow::Continue(())).unwrap().mean_kld.value
    });
    assert!(ours < fixed, "measured {ours}, fixed {fixed}");
}

#[test]
fn the_same_inputs_give_the_same_types_and_more_bytes_diverge_less() {
    let model = stories();
    let small = measured(&model, Target::BitsPerWeight(7.5), None).unwrap();
    assert!(small.bits_per_weight <= 7.5 && small.time.is_none());
    let again = measured(&model, Target::BitsPerWeight(7.5), None).unwrap();
    assert_eq!((small.types, small.divergence), (again.types, again.divergence));
    let large = measured(&model, Target::BitsPerWeight(9.0), None).unwrap();
    assert!(large.divergence.mean_kld.value < small.divergence.mean_kld.value);
}

#[test]
fn types_for_speed_keep_to_the_time_of_the_fastest() {
    let found = measured(&stories(), Target::Speed(1.1), None).unwrap();
    let time = found.time.unwrap();
    assert!(time.fastest > 0.0 && time.seconds >= time.fastest && time.seconds <= 1.100_001 * time.fastest, "{time:?}");
    assert!(!found.types.is_empty());
}

#[test]
fn a_size_that_no_types_reach_is_refused_with_the_smallest() {
    let error = measured(&stories(), Target::BitsPerWeight(3.0), None).unwrap_err();
    let QuantizeError::Target { bits_per_weight, .. } = error else { panic!("{error}") };
    assert!(bits_per_weight > 4.5 && error.to_string().contains("smallest possible"), "{error}");
    // Exactly the smallest is possible.
    let QuantizeError::Target { smallest, .. } = error else { unreachable!() };
    assert_eq!(measured(&stories(), Target::Bytes(smallest), None).unwrap().bytes, smallest);
}

#[test]
fn an_adapter_is_folded_in_before_anything_is_measured() {
    let model = stories();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/adapter-260k/adapter");
    let adapter = LoraAdapter::load(Path::new(path), model.config()).unwrap();
    let base = engine(&model);
    let tuned = NativeEngine::load(&model, Some(&adapter), &options()).unwrap();
    let texts = windows(&base)[..4].to_vec();
    let changed = divergence(&base, &tuned, &texts, &mut |_| ControlFlow::Continue(())).unwrap().mean_kld.value;
    let inputs = AllocationInputs {
        model: &model,
        adapter: Some(&adapter),
        importance: None,
        refine: false,
        texts,
        engine: options(),
    };
    let found = allocate(inputs, Target::BitsPerWeight(10.0), &mut go_on).unwrap().divergence.mean_kld.value;
    // Without the adapter it would be as much and more.
    assert!(found < changed / 2.0, "rounded {found}, by the adapter {changed}");
}

#[test]
fn types_that_will_be_refined_are_measured_refined() {
    let folder = tempfile::tempdir().unwrap();
    let model = stories();
    let reference = engine(&model);
    let texts = windows(&reference)[..4].to_vec();
    let inputs = AllocationInputs {
        model: &model,
        adapter: None,
        importance: None,
        refine: true,
        texts: texts.clone(),
        engine: options(),
    };
    let allocation = allocate(inputs, Target::BitsPerWeight(7.5), &mut go_on).unwrap();
    let divergence_of = |refine: bool| {
        let out = folder.path().join("refined.gguf");
        let options = QuantizeOptions { mix: allocation.mix().unwrap(), refine, ..QuantizeOptions::default() };
        quantize(&model, None, FileType::Q4_K_M, &out, &options, &mut |_| {}).unwrap();
        let written = engine(&Model::open(&out).unwrap());
        divergence(&reference, &written, &texts, &mut |_| ControlFlow::Continue(())).unwrap().mean_kld.value
    };
    let (expected, refined, plain) = (allocation.divergence.mean_kld.value, divergence_of(true), divergence_of(false));
    assert!((refined - expected).abs() < expected * 1e-3, "{refined} for {expected}");
    assert!((plain - expected).abs() > expected * 1e-2, "{plain} unrefined, {expected} refined");
}
