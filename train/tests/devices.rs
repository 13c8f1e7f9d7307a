//! Training over plain operations of burn, as on a GPU, on the device `flex`: the losses of the kernels, step by step.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use espalier_train::{BaseWeights, Bytes, DeviceName, Precision, TrainConfig, TrainError, TrainOutcome};

mod fixtures;
use fixtures::{config, data, files, run_on};

fn run(
    directory: &Path,
    config: &TrainConfig,
    stop_after: Option<usize>,
) -> Result<(TrainOutcome, Vec<f64>), TrainError> {
    run_on(&data(config).into(), directory, config, stop_after)
}

fn on_flex(config: &TrainConfig) -> TrainConfig {
    TrainConfig { device: DeviceName::Flex, ..config.clone() }
}

/// The largest difference of two curves of losses, relative.
fn farthest(one: &[f64], other: &[f64]) -> f64 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| (one - other).abs() / other).fold(0.0, f64::max)
}

#[test]
fn the_curve_is_that_of_the_kernels() {
    for (precision, dora, tolerance) in
        [(Precision::F32, false, 1e-4), (Precision::F32, true, 1e-4), (Precision::Bf16, false, 1e-2)]
    {
        let config = TrainConfig { precision, dora, max_steps: Some(30), ..config() };
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (outcome, kernels) = run(folders[0].path(), &config, None).unwrap();
        let (other, plain) = run(folders[1].path(), &on_flex(&config), None).unwrap();
        let farthest = farthest(&plain, &kernels);
        println!("{precision}, DoRA {dora}: {:.5} to {:.5}, off by at most {farthest:.1e}", plain[0], plain[29]);
        assert!(plain[29] < 0.6 * plain[0] && farthest < tolerance, "{precision}, {dora}: {plain:?} for {kernels:?}");
        assert_eq!((outcome.finished, outcome.steps), (other.finished, other.steps));
        assert!(other.adapter.join("adapter_model.safetensors").exists());
    }
}

#[test]
fn a_run_on_a_device_goes_on_with_the_same_bytes_and_looks_at_what_it_holds_out() {
    let settings = r#"{"validation": 0.2, "validation_every": 5, "device": "flex"}"#;
    let mut all = serde_json::to_value(config()).unwrap();
    let more: serde_json::Value = serde_json::from_str(settings).unwrap();
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config: TrainConfig = serde_json::from_value(all).unwrap();
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(whole.path(), &config, None).unwrap();
    run(broken.path(), &config, Some(7)).unwrap();
    // The number of a device is no part of what a run is; its kind is.
    let message = run(broken.path(), &TrainConfig { device: DeviceName::Cpu, ..config.clone() }, None).unwrap_err();
    assert!(message.to_string().contains("device flex (now cpu)"), "{message}");
    run(broken.path(), &config, None).unwrap();
    let (whole, broken) = (files(whole.path()), files(broken.path()));
    for name in ["loss.jsonl", "adapter.gguf", "adapter/adapter_model.safetensors"] {
        assert!(whole[Path::new(name)] == broken[Path::new(name)], "{name}");
    }
}

#[test]
fn memory_on_a_device_is_an_estimate_that_a_limit_holds() {
    let config = on_flex(&TrainConfig { max_steps: Some(2), ..config() });
    let tight = tempfile::tempdir().unwrap();
    let limit = TrainConfig { memory: Some(Bytes(24_000_000)), ..config.clone() };
    let plans = std::cell::RefCell::new(Vec::new());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let data = data(&limit).into();
    espalier_train::train(&fixtures::model(), &data, &limit, tight.path(), &stop, &mut |event| {
        if let espalier_train::TrainEvent::Plan(plan) = event {
            plans.borrow_mut().push(plan.memory);
        }
    })
    .unwrap();
    let plan = plans.borrow()[0].clone();
    assert!(plan.total <= 24_000_000 && plan.recomputed_layers > 0, "{plan:?}");
    let last = plan.table().pop().unwrap();
    assert!(last.contains("of flex, about (an estimate) of 24.0 MB allowed"), "{last}");
    assert!(!plan.parts.iter().any(|part| part.name.starts_with("program")));
    let little = TrainConfig { memory: Some(Bytes(2_000_000)), ..config };
    let message = run(tempfile::tempdir().unwrap().path(), &little, None).unwrap_err().to_string();
    assert!(message.contains("memory 2.0 MB is too little"), "{message}");
}

#[test]
fn what_a_device_cannot_do_is_said_before_anything_is_written() {
    for (config, words) in [
        (TrainConfig { base_weights: BaseWeights::Stored, ..on_flex(&config()) }, "stored is for the device cpu"),
        (TrainConfig { device: "cuda:4096".parse().unwrap(), ..config() }, "device cuda:4096: "),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let message = run(folder.path(), &config, None).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    let unknown = serde_json::from_str::<TrainConfig>(r#"{"device": "gpu"}"#).unwrap_err().to_string();
    assert!(unknown.contains("unknown device \"gpu\": write cpu"), "{unknown}");
}
