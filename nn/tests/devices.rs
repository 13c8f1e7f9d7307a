//! The way over plain operations of burn, which a GPU takes, beside the kernels of the CPU: the loss of packed sequences and
//! its gradient, on burn's CPU backend.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use espalier_kernels::bf16;
use espalier_model::{LoraAdapter, Model};
use espalier_nn::Device;
use espalier_nn::Precision;
use espalier_nn::ops::self_attention::Layout;
use espalier_nn::ops::teacher_tokens::TeacherTokens;
use espalier_nn::transformer::{
    BaseWeights, Batch, BatchLoss, DeviceModel, DeviceTransformer, FrozenTransformer, LoraModel, LoraOptions, Targets,
};

fn stories() -> Model {
    Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"))).unwrap()
}

fn architecture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/architectures")).join(name)
}

/// Sequences of the given lengths of tokens below 250, of which two thirds are learned with weights of their own.
fn batch(lengths: &[usize]) -> Batch {
    let tokens =
        |sequence: usize, length: usize| (0..length).map(move |i| ((sequence + 1) * 37 + i * i * 11) as u32 % 250);
    let weight = |i: usize| if i % 3 == 1 { 0.0 } else { 0.5 + (i % 4) as f32 / 4.0 };
    let sequences: Vec<(Vec<u32>, Vec<f32>)> = lengths
        .iter()
        .enumerate()
        .map(|(sequence, &length)| (tokens(sequence, length).collect(), (0..length).map(weight).collect()))
        .collect();
    let total: usize = lengths.iter().sum();
    let borrowed = sequences.iter().map(|(tokens, weights)| (tokens.as_slice(), weights.as_slice()));
    Batch::pack(borrowed, 1.0 / total as f32).unwrap()
}

/// Gives `B` small values too, so that every path of the gradient is used.
fn disturb(parameters: &mut [f32]) {
    for (index, value) in parameters.iter_mut().enumerate() {
        *value += ((index * 7919 % 1000) as f32 / 1000.0 - 0.5) * 0.1;
    }
}

struct Found {
    loss: BatchLoss,
    gradient: Vec<f32>,
}

fn on_cpu(network: &LoraModel, batch: &Batch) -> Found {
    let mut gradient = vec![0.0; network.parameters().len()];
    Found { loss: network.loss_and_gradient(batch, &mut gradient).unwrap(), gradient }
}

fn on_device(network: &DeviceModel, batch: &Batch) -> Found {
    let mut gradient = vec![0.0; network.updates().parameters().len()];
    Found { loss: network.loss_and_gradient(batch, &mut gradient).unwrap(), gradient }
}

/// The norm of the difference, by the norm of `other`.
fn off(one: &[f32], other: &[f32]) -> f64 {
    assert_eq!(one.len(), other.len());
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let difference = squares(&mut one.iter().zip(other).map(|(one, other)| one - other));
    (difference / squares(&mut other.iter().copied())).sqrt()
}

fn assert_same(found: &Found, expected: &Found, tolerance: f64, what: &str) {
    let (loss, other) = (found.loss.loss, expected.loss.loss);
    let off = off(&found.gradient, &expected.gradient);
    println!("{what}: loss {loss:.7} for {other:.7}, gradient off by {off:.1e}");
    assert!((loss - other).abs() < tolerance * other, "{what}: loss {loss} for {other}");
    assert!(off < tolerance, "{what}: the gradient is off by {off}");
    for (row, (found, expected)) in found.loss.rows.iter().zip(&expected.loss.rows).enumerate() {
        let same = |one: f32, other: f32| f64::from((one - other).abs()) < 20.0 * tolerance * f64::from(other.max(1.0));
        assert!(
            same(found.nll, expected.nll) && same(found.divergence, expected.divergence),
            "{what}: row {row}: {found:?} for {expected:?}"
        );
    }
}

/// Both ways on the same model and adapter.
fn both(model: &Model, adapter: &LoraAdapter, precision: Precision) -> (LoraModel, DeviceModel) {
    let frozen = FrozenTransformer::load(model, precision, BaseWeights::Packed, 160).unwrap();
    let base = DeviceTransformer::load(model, precision, 160, &Device::flex()).unwrap();
    let mut cpu = LoraModel::from_adapter(frozen.into(), adapter).unwrap();
    let mut device = DeviceModel::from_adapter(base.into(), adapter).unwrap();
    disturb(cpu.parameters_mut());
    disturb(device.updates_mut().parameters_mut());
    assert_eq!(cpu.parameters(), device.updates().parameters());
    assert_eq!(cpu.to_adapter("base").modules, device.to_adapter("base").modules);
    (cpu, device)
}

fn check_architecture(name: &str) {
    let folder = architecture(name);
    let model = Model::open(&folder).unwrap();
    let trained = folder.join("adapter");
    let adapter = if trained.exists() {
        LoraAdapter::load(&trained, model.config()).unwrap()
    } else {
        let frozen = FrozenTransformer::load(&model, Precision::F32, BaseWeights::Packed, 160).unwrap();
        let options = LoraOptions { rank: 4, alpha: 8.0, ..LoraOptions::default() };
        LoraModel::new(frozen.into(), &options, 3).unwrap().to_adapter("base")
    };
    // Longer than the windows of those that have one.
    let batch = batch(&[120, 3, 70]);
    let (cpu, device) = both(&model, &adapter, Precision::F32);
    let exact = on_cpu(&cpu, &batch);
    assert_same(&on_device(&device, &batch), &exact, 1e-4, name);
    // In bf16 it may be as far from f32 as the kernels are, give or take.
    let (cpu, device) = both(&model, &adapter, Precision::Bf16);
    let (kernels, plain) = (on_cpu(&cpu, &batch), on_device(&device, &batch));
    let [kernels_off, plain_off] = [&kernels, &plain].map(|found| off(&found.gradient, &exact.gradient));
    let farther = (plain.loss.loss - exact.loss.loss).abs() / exact.loss.loss;
    println!(
        "{name} in bf16: loss off by {farther:.1e}, gradient by {plain_off:.1e}, that of the kernels by {kernels_off:.1e}"
    );
    assert!(farther < 0.01 && plain_off < 2.0 * kernels_off, "{name}: {plain_off} beside {kernels_off}");
}

#[test]
fn llama_is_the_same_on_a_device() {
    check_architecture("llama");
}

#[test]
fn qwen2_is_the_same_on_a_device() {
    check_architecture("qwen2");
}

#[test]
fn qwen3_is_the_same_on_a_device() {
    check_architecture("qwen3");
}

#[test]
fn granite_is_the_same_on_a_device() {
    check_architecture("granite");
}

#[test]
fn smollm3_is_the_same_on_a_device() {
    check_architecture("smollm3");
}

#[test]
fn mistral_is_the_same_on_a_device() {
    check_architecture("mistral");
}

#[test]
fn gemma3_is_the_same_on_a_device() {
    check_architecture("gemma3");
}

fn base(positions: usize) -> DeviceTransformer {
    DeviceTransformer::load(&stories(), Precision::F32, positions, &Device::flex()).unwrap()
}

fn names(targets: &[&str]) -> Targets {
    Targets::Names(targets.iter().map(|&name| name.to_owned()).collect())
}

#[test]
fn every_kind_of_update_is_the_same_on_a_device() {
    let plain = LoraOptions { rank: 4, alpha: 8.0, ..LoraOptions::default() };
    let frozen = FrozenTransformer::load(&stories(), Precision::F32, BaseWeights::Packed, 128).unwrap();
    let (frozen, base) = (Arc::new(frozen), Arc::new(base(128)));
    let batch = batch(&[60, 2, 33]);
    for (what, options) in [
        ("LoRA", plain.clone()),
        ("rsLoRA", LoraOptions { rslora: true, ..plain.clone() }),
        ("DoRA", LoraOptions { dora: true, ..plain.clone() }),
        ("DoRA of some", LoraOptions { dora: true, targets: names(&["k_proj", "up_proj"]), ..plain.clone() }),
        ("the last layers", LoraOptions { top_layers: Some(2), ..plain.clone() }),
        ("q_proj", LoraOptions { targets: names(&["q_proj"]), top_layers: Some(1), ..plain.clone() }),
        ("down_proj", LoraOptions { targets: names(&["down_proj"]), ..plain }),
    ] {
        let mut cpu = LoraModel::new(Arc::clone(&frozen), &options, 3).unwrap();
        let mut device = DeviceModel::new(Arc::clone(&base), &options, 3).unwrap();
        let first = off(device.updates().parameters(), cpu.parameters());
        assert!(first < 1e-6, "{what}: the first values are off by {first}");
        disturb(cpu.parameters_mut());
        let same = cpu.parameters().to_vec();
        device.updates_mut().parameters_mut().copy_from_slice(&same);
        assert_same(&on_device(&device, &batch), &on_cpu(&cpu, &batch), 1e-4, what);
        let loss = device.loss(&batch).unwrap();
        assert_eq!(loss, on_device(&device, &batch).loss, "{what}: the loss without its gradient");
    }
}

#[test]
fn rows_that_fill_up_blocks_that_run_again_and_micro_batches_change_nothing() {
    let options = LoraOptions { rank: 4, alpha: 8.0, ..LoraOptions::default() };
    let network = |rows: usize, again: usize| {
        let base = base(128).with_row_multiple(rows);
        let mut network = DeviceModel::new(base.into(), &options, 3).unwrap().with_recompute(again);
        disturb(network.updates_mut().parameters_mut());
        network
    };
    let whole = batch(&[60, 2, 33]);
    let expected = on_device(&network(1, 0), &whole);
    assert_same(&on_device(&network(256, 0), &whole), &expected, 1e-5, "filled up to 256 rows");
    for again in [2, 5] {
        let found = on_device(&network(1, again), &whole);
        assert_eq!(found.loss, expected.loss);
        let same = found.gradient.iter().zip(&expected.gradient).all(|(one, other)| one.to_bits() == other.to_bits());
        assert!(same, "{again} blocks that run again have other bits");
    }
    // Each sequence by itself, with the weights of the whole batch.
    let network = network(64, 1);
    let (mut loss, mut gradient) = (0.0, vec![0.0; expected.gradient.len()]);
    let mut first = 0;
    for &length in whole.layout.segments.iter() {
        let tokens: Vec<u32> = whole.tokens[first..first + length].iter().copied().chain([0]).collect();
        let part = |row: usize| (whole.targets.tokens[row], whole.targets.weights[row]);
        let ones = vec![1.0; length + 1];
        let mut micro = Batch::pack([(tokens.as_slice(), ones.as_slice())], 1.0).unwrap();
        let (targets, weights) = (first..first + length).map(part).unzip();
        (micro.targets.tokens, micro.targets.weights) = (Arc::new(targets), Arc::new(weights));
        loss += network.loss_and_gradient(&micro, &mut gradient).unwrap().loss;
        first += length;
    }
    let found = Found { loss: BatchLoss { loss, rows: expected.loss.rows.clone() }, gradient };
    assert_same(&found, &expected, 1e-5, "in micro-batches");
}

#[test]
fn a_teacher_and_the_divergence_from_the_base_are_the_same_on_a_device() {
    let model = stories();
    let options = LoraOptions { rank: 4, alpha: 8.0, ..LoraOptions::default() };
    let frozen = FrozenTransformer::load(&model, Precision::F32, BaseWeights::Packed, 128).unwrap();
    let mut cpu = LoraModel::new(frozen.into(), &options, 3).unwrap();
    let mut device = DeviceModel::new(base(128).into(), &options, 3).unwrap();
    disturb(cpu.parameters_mut());
    disturb(device.updates_mut().parameters_mut());
    let mut teacher = TeacherTokens::default();
    let plain = batch(&[40, 20]);
    for row in 0..plain.tokens.len() {
        match row % 3 {
            0 => teacher.push(&[], &[]),
            1 => teacher.push(&[row as u32, 300, 0], &[-0.9, -1.5, -2.5]),
            _ => teacher.push(&[400], &[-0.01]),
        }
    }
    let taught = plain.clone().with_teacher(teacher, 0.4).unwrap();
    assert_same(&on_device(&device, &taught), &on_cpu(&cpu, &taught), 1e-4, "beside a teacher");

    let (states, same) = (cpu.without_updates().chosen_states(&plain).unwrap(), device.without_updates());
    let own = same.chosen_states(&plain).unwrap();
    assert!(off(&own, &states) < 1e-5);
    let expected = cpu.divergence_from(&states, &plain).unwrap();
    let found = device.divergence_from(&own, &plain).unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-5 + 1e-3 * expected, "{found} for {expected}");
    }
    assert!(same.divergence_from(&own, &plain).unwrap().iter().all(|value| value.abs() < 1e-6));
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let device = DeviceModel::new(base(16).into(), &LoraOptions { rank: 2, ..LoraOptions::default() }, 3).unwrap();
    let message = device.loss(&batch(&[40])).unwrap_err().to_string();
    assert!(message.contains("position 16 lies beyond the 16 positions"), "{message}");
    let message = device.loss_and_gradient(&batch(&[9]), &mut [0.0]).unwrap_err().to_string();
    assert!(message.contains("1 gradients for"), "{message}");
}

#[test]
fn greedy_text_is_the_same_on_a_device() {
    greedy_text(Precision::F32, |value| value);
}

#[test]
fn greedy_text_in_bf16_is_the_same_on_a_device() {
    greedy_text(Precision::Bf16, |value| bf16::from_f32(value).to_f32());
}

fn greedy_text(precision: Precision, rounded: impl Fn(f32) -> f32) {
    let model = stories();
    let options = LoraOptions { rank: 4, alpha: 8.0, ..LoraOptions::default() };
    let frozen = FrozenTransformer::load(&model, precision, BaseWeights::Packed, 64).unwrap();
    let cpu = LoraModel::new(frozen.into(), &options, 3).unwrap();
    let base = DeviceTransformer::load(&model, precision, 64, &Device::flex()).unwrap();
    let device = DeviceModel::new(base.into(), &options, 3).unwrap();
    let head = model.tensor("token_embd.weight").unwrap().to_vec().unwrap();
    let prompts = [vec![1, 403, 407], vec![1], vec![1, 317, 261, 378, 31]];
    let found = device.greedy(&prompts, 12, &[]).unwrap();
    for (prompt, found) in prompts.iter().zip(&found) {
        let mut tokens = prompt.clone();
        for _ in 0..12 {
            let states = cpu.forward(&tokens, &Layout::of_segments(vec![tokens.len()])).unwrap();
            let last = &states[states.len() - model.config().hidden..];
            let logit =
                |row: &[f32]| row.iter().zip(last).map(|(&a, &b)| f64::from(rounded(a) * rounded(b))).sum::<f64>();
            let logits: Vec<f64> = head.chunks_exact(last.len()).map(logit).collect();
            let best = (0..logits.len()).max_by(|&one, &other| logits[one].total_cmp(&logits[other])).unwrap();
            tokens.push(best as u32);
        }
        assert_eq!(found, &tokens[prompt.len()..]);
    }
    // A sequence ends for itself alone.
    let end = found[0][4];
    let ended = device.greedy(&prompts, 12, &[end]).unwrap();
    let until = |tokens: &[u32]| tokens.iter().copied().take_while(|&token| token != end).collect::<Vec<_>>();
    assert_eq!(ended, found.iter().map(|tokens| until(tokens)).collect::<Vec<_>>());
    assert!(device.greedy(&[Vec::new()], 1, &[]).is_err());
}
