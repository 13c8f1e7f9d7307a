//! Training on the 260K model: it learns, it resumes, and nothing but the data changes its result.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use espalier_dataset::Turn;
use espalier_model::{LoraAdapter, Model};
use espalier_nn::transformer::{BaseWeights, Batch, FrozenTransformer, LoraModel, LoraOptions, StepMemory};
use espalier_train::{
    Bytes, Marks, OverLong, Precision, Sequence, TrainConfig, TrainError, TrainEvent, TrainOutcome, TrainPlan,
    Validation, encode, marked_text, train,
};

mod fixtures;
use fixtures::{config, conversations, data, files, model, run_on, turn};

fn run(
    directory: &Path,
    config: &TrainConfig,
    stop_after: Option<usize>,
) -> Result<(TrainOutcome, Vec<f64>), TrainError> {
    run_on(&data(config).into(), directory, config, stop_after)
}

fn network(precision: Precision, rank: usize) -> LoraModel {
    let frozen = Arc::new(FrozenTransformer::load(&model(), precision, BaseWeights::Packed, 128).unwrap());
    let options = LoraOptions { rank, alpha: 8.0, ..LoraOptions::default() };
    LoraModel::new(frozen, &options, 3).unwrap()
}

/// Gives `B` small values too, so that every path of the gradient is used.
fn disturb(network: &mut LoraModel) {
    for (index, value) in network.parameters_mut().iter_mut().enumerate() {
        *value += ((index * 7919 % 1000) as f32 / 1000.0 - 0.5) * 0.2;
    }
}

fn batch(rows: std::ops::Range<usize>, weight: f32) -> Batch {
    let data = encode(&model(), &conversations(), &config()).unwrap();
    Batch::pack(data.rows[rows].iter().map(|row| (row.tokens.as_slice(), row.weights.as_slice())), weight).unwrap()
}

#[test]
fn the_loss_falls_and_the_adapter_is_written() {
    for precision in [Precision::F32, Precision::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig { precision, max_steps: Some(30), ..config() };
        let (outcome, losses) = run(folder.path(), &config, None).unwrap();
        assert!(outcome.finished && losses.len() == 30);
        assert!(losses[29] < 0.5 * losses[0], "{losses:?}");
        let lines = espalier_train::metrics::read_losses(&folder.path().join("loss.jsonl")).unwrap();
        assert_eq!(
            lines.iter().map(|line| line.loss.to_bits()).collect::<Vec<_>>(),
            losses.iter().map(|l| l.to_bits()).collect::<Vec<_>>()
        );
        let model = model();
        let peft = LoraAdapter::load(&outcome.adapter, model.config()).unwrap();
        let gguf = LoraAdapter::load(outcome.adapter_gguf.as_ref().unwrap(), model.config()).unwrap();
        assert_eq!(peft.modules, gguf.modules);
        assert_eq!(peft.modules.len(), 7 * model.config().layers);
    }
}

#[test]
fn an_interrupted_run_ends_with_the_same_bytes() {
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), &config(), None).unwrap();
    let expected = files(whole.path());
    for stop in [1, 5, 7, 11] {
        let folder = tempfile::tempdir().unwrap();
        let (outcome, _) = run(folder.path(), &config(), Some(stop)).unwrap();
        assert!(!outcome.finished && outcome.step == stop);
        // What a kill leaves behind: half a checkpoint, and a loss file that is ahead of the last whole one.
        let part = folder.path().join("checkpoints/step-00000010.part");
        fs::create_dir_all(&part).unwrap();
        fs::write(part.join("state.safetensors"), [0_u8; 100]).unwrap();
        let losses = folder.path().join("loss.jsonl");
        let mut text = fs::read_to_string(&losses).unwrap();
        text.push_str("{\"step\":99,\"loss\":1.0,\"learning_rate\":0.1,\"grad_norm\":1.0,\"tokens\":3,\"target_tokens\":2}\n{\"st");
        fs::write(&losses, text).unwrap();
        let (outcome, steps) = run(folder.path(), &config(), None).unwrap();
        assert!(outcome.finished && steps.len() == 12 - stop);
        let mut found = files(folder.path());
        found.retain(|path, _| !path.to_string_lossy().contains(".part"));
        // The one before the last checkpoint stands where the run was cut.
        let newest = |files: &BTreeMap<PathBuf, Vec<u8>>| {
            files
                .iter()
                .filter(|(path, _)| {
                    !path.starts_with("checkpoints/step-00000010") && !path.starts_with("checkpoints/step-00000011")
                })
                .map(|(p, b)| (p.clone(), b.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        assert_eq!(newest(&found).keys().collect::<Vec<_>>(), newest(&expected).keys().collect::<Vec<_>>());
        assert!(newest(&found) == newest(&expected), "stopped at {stop}");
    }
}

#[test]
fn a_run_that_died_between_checkpoints_ends_with_the_same_bytes() {
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), &config(), None).unwrap();
    let expected = files(whole.path());
    for died in [3, 8, 12] {
        let folder = tempfile::tempdir().unwrap();
        let death = std::panic::catch_unwind(|| {
            let never = AtomicBool::new(false);
            train(&model(), &data(&config()).into(), &config(), folder.path(), &never, &mut |event| {
                assert!(!matches!(event, TrainEvent::Step { step, .. } if step == died), "killed here");
            })
        });
        assert!(death.is_err());
        let (_, steps) = run(folder.path(), &config(), None).unwrap();
        assert_eq!(steps.len(), 12 - died.saturating_sub(1) / 5 * 5);
        assert!(files(folder.path()) == expected, "died at {died}");
    }
}

#[test]
fn a_finished_run_does_nothing_and_another_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &config(), None).unwrap();
    let before = files(folder.path());
    let (outcome, steps) = run(folder.path(), &config(), None).unwrap();
    assert!(outcome.finished && steps.is_empty() && files(folder.path()) == before);
    let error = run(folder.path(), &TrainConfig { rank: 2, ..config() }, None).unwrap_err().to_string();
    assert!(error.contains("rank 4 (now 2)"), "{error}");
    let error =
        run(folder.path(), &TrainConfig { precision: Precision::Bf16, ..config() }, None).unwrap_err().to_string();
    assert!(error.contains("precision f32 (now bf16)"), "{error}");
}

#[test]
fn losses_that_stay_no_number_end_the_run_with_the_rows_of_the_step() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { learning_rate: 1e30, max_rollbacks: 2, ..config() };
    let never = AtomicBool::new(false);
    let mut backs = Vec::new();
    let ended = train(&model(), &data(&config).into(), &config, folder.path(), &never, &mut |event| {
        if let TrainEvent::RolledBack { step, to, learning_rate_factor, .. } = event {
            backs.push((step, to, learning_rate_factor));
        }
    });
    assert_eq!(backs, [(2, 0, 1.0), (3, 0, 0.5)]);
    let error = ended.unwrap_err().to_string();
    assert!(error.starts_with("step 4: the loss is not a finite number, and the run has gone back"), "{error}");
    assert!(error.contains(": conversation:") && error.contains("(loss NaN). If they are"), "{error}");
}

#[test]
fn a_base_with_a_weight_that_is_no_number_is_named_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let assets = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model"));
    let mut bytes = fs::read(assets.join("stories260K.bin")).unwrap();
    // Behind the header of seven numbers come the token vectors, 64 values each.
    let at = 4 * (7 + 3 * 64 + 5);
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let path = folder.path().join("stories260K.bin");
    fs::write(&path, bytes).unwrap();
    fs::copy(assets.join("tok512.bin"), folder.path().join("tok512.bin")).unwrap();
    let never = AtomicBool::new(false);
    let model = Model::open(&path).unwrap();
    let ended = |config: &TrainConfig| {
        let ended = train(&model, &data(config).into(), config, &folder.path().join("run"), &never, &mut |_| {});
        ended.unwrap_err().to_string()
    };
    let error = ended(&config());
    assert!(error.contains("in tensor token_embd.weight, row 3, column 5 is NaN"), "{error}");
    // Memory that is too little is said before the weights are read at all.
    let error = ended(&TrainConfig { memory: Some(Bytes(1_000_000)), ..config() });
    assert!(error.starts_with("memory 1.0 MB is too little"), "{error}");
}

#[test]
fn memory_is_kept_by_smaller_batches_then_by_computing_twice_or_refused() {
    let plan = |memory: Option<usize>| -> Result<TrainPlan, TrainError> {
        let folder = tempfile::tempdir().unwrap();
        let memory = memory.map(Bytes);
        let config = TrainConfig { tokens_per_step: 1400, max_steps: Some(1), memory, ..config() };
        let mut plan = None;
        let stop = AtomicBool::new(false);
        train(&model(), &data(&config).into(), &config, folder.path(), &stop, &mut |event| {
            if let TrainEvent::Plan(found) = event {
                plan = Some(found);
            }
        })?;
        Ok(plan.unwrap())
    };
    let free = plan(None).unwrap().memory;
    assert_eq!((free.micro_batch_rows, free.recomputed_layers, free.limit), (1400, 0, None));
    assert_eq!(free.total, free.parts.iter().map(|part| part.bytes).sum::<usize>());
    assert_eq!(plan(Some(free.total)).unwrap().memory.micro_batch_rows, 1400);
    let half = plan(Some(free.total - 1)).unwrap().memory;
    assert_eq!((half.micro_batch_rows, half.recomputed_layers), (700, 0));
    let twice = plan(Some(half.total - 1)).unwrap().memory;
    assert!(twice.micro_batch_rows == 700 && twice.recomputed_layers > 0, "{twice:?}");
    assert!(twice.total < half.total);
    let error = plan(Some(1_000_000)).unwrap_err();
    assert!(error.to_string().starts_with("memory 1.0 MB is too little: in micro-batches of one row"), "{error}");
    let TrainError::Memory { needed, longest, .. } = error else { panic!("{error}") };
    let least = plan(Some(needed.0)).unwrap().memory;
    assert_eq!((least.micro_batch_rows, least.recomputed_layers, least.total), (longest, 5, needed.0));
}

#[test]
fn held_out_rows_are_scored_and_the_best_checkpoint_gives_the_adapter() {
    let config = TrainConfig { validation: Validation::Share(0.2), checkpoint_every: 3, ..config() };
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), &config, None).unwrap();
    let path = whole.path().join("loss.jsonl");
    let scored = espalier_train::metrics::read_validations(&path).unwrap();
    assert_eq!(scored.iter().map(|line| line.step).collect::<Vec<_>>(), [0, 3, 6, 9, 12]);
    assert!(scored[4].validation_loss < 0.7 * scored[0].validation_loss, "{scored:?}");
    // Six of thirty rows, the same ones each time.
    let targets: Vec<usize> = data(&config).rows.iter().map(Sequence::targets).collect();
    assert!(scored.iter().all(|line| line.target_tokens == scored[0].target_tokens));
    assert!(scored[0].target_tokens * 3 < targets.iter().sum::<usize>());
    for stop in [2, 6, 10] {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &config, Some(stop)).unwrap();
        run(folder.path(), &config, None).unwrap();
        for name in ["loss.jsonl", "adapter.gguf"] {
            assert!(fs::read(folder.path().join(name)).unwrap() == fs::read(whole.path().join(name)).unwrap());
        }
    }
    let (steps, early) = (Some(200), tempfile::tempdir().unwrap());
    // So high a rate leaves what was learned behind.
    let config =
        TrainConfig { patience: Some(2), max_steps: steps, learning_rate: 0.1, spike_threshold: None, ..config };
    let mut best = None;
    let stop = AtomicBool::new(false);
    let outcome = train(&model(), &data(&config).into(), &config, early.path(), &stop, &mut |event| {
        if let TrainEvent::Done { best: found, .. } = event {
            best = found;
        }
    });
    let (outcome, best) = (outcome.unwrap(), best.unwrap());
    assert!(outcome.finished && outcome.step < 200 && outcome.step == best.step + 6, "{outcome:?} {best:?}");
    let scored = espalier_train::metrics::read_validations(&early.path().join("loss.jsonl")).unwrap();
    let lowest = scored[1..].iter().min_by(|one, other| one.validation_loss.total_cmp(&other.validation_loss)).unwrap();
    assert_eq!((lowest.step, lowest.validation_loss.to_bits()), (best.step, best.loss.to_bits()));
}

#[test]
fn threads_change_no_byte() {
    let outputs = [1, 2, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let folder = tempfile::tempdir().unwrap();
            run(folder.path(), &TrainConfig { max_steps: Some(3), precision: Precision::Bf16, ..config() }, None)
                .unwrap();
            files(folder.path())
        })
    });
    assert!(outputs[0] == outputs[1] && outputs[0] == outputs[2]);
}

#[test]
fn where_the_base_stays_changes_no_byte() {
    let outputs = [Precision::F32, Precision::Bf16].map(|precision| {
        let config = TrainConfig { max_steps: Some(4), checkpoint_every: 2, precision, ..config() };
        let stored = TrainConfig { base_weights: BaseWeights::Stored, ..config.clone() };
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        run(folders[0].path(), &config, None).unwrap();
        run(folders[1].path(), &stored, None).unwrap();
        // A run may even change it on the way.
        run(folders[2].path(), &stored, Some(2)).unwrap();
        assert!(run(folders[2].path(), &config, None).unwrap().0.finished);
        folders.map(|folder| files(folder.path()))
    });
    assert!(outputs.iter().all(|[packed, stored, changed]| packed == stored && packed == changed));
}

#[test]
fn packed_sequences_do_not_see_each_other() {
    let mut network = network(Precision::F32, 4);
    disturb(&mut network);
    let together = batch(0..6, 0.01);
    let mut gradient = vec![0.0; network.parameters().len()];
    let packed = network.loss_and_gradient(&together, &mut gradient).unwrap().loss;
    let mut sum = vec![0.0; gradient.len()];
    let alone: f64 =
        (0..6).map(|row| network.loss_and_gradient(&batch(row..row + 1, 0.01), &mut sum).unwrap().loss).sum();
    assert!((packed - alone).abs() < 1e-5 * alone, "{packed} for {alone}");
    let scale = sum.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    for (left, right) in gradient.iter().zip(&sum) {
        assert!((left - right).abs() < 1e-5 * scale, "{left} for {right}");
    }
}

#[test]
fn blocks_that_run_again_change_no_bit_and_take_less_memory() {
    for precision in [Precision::F32, Precision::Bf16] {
        let batch = batch(0..6, 0.01);
        let gradients = [0, 2, 5].map(|layers| {
            let mut network = network(precision, 4).with_recompute(layers);
            disturb(&mut network);
            let mut gradient = vec![0.0; network.parameters().len()];
            let loss = network.loss_and_gradient(&batch, &mut gradient).unwrap();
            (loss, gradient.iter().map(|value| value.to_bits()).collect::<Vec<_>>())
        });
        assert!(gradients[0] == gradients[1] && gradients[0] == gradients[2]);
    }
    let memory = {
        let (model, options) = (model(), LoraOptions { rank: 4, alpha: 8.0, ..LoraOptions::default() });
        let plans = options.modules(model.config()).unwrap();
        StepMemory::of_updates(&model, Precision::F32, BaseWeights::Packed, &plans, false).unwrap()
    };
    let [none, some, all] = [0, 2, 5].map(|layers| memory.of(4096, layers));
    assert!(none.activations > some.activations && some.activations > all.activations);
    assert!(none.total() > some.total() && some.total() > all.total());
    // The input of each of the five blocks is kept in any case: 64 values a row.
    assert_eq!(all.activations, 5 * 4096 * 64 * 4);
    // q, k and v, attention's output, its log-sum-exp, the residual stream at two places, gate and up.
    assert!(memory.kept_per_row() >= 4 * (64 + 2 * 32 + 64 + 8 + 2 * 64 + 2 * 172));
}

/// What the plan is made from before the base is loaded is what is there afterwards.
#[test]
fn what_is_planned_from_the_head_of_a_file_is_what_is_loaded() {
    let tests = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets"));
    for name in ["model/stories260K.bin", "architectures/gemma3.gguf", "architectures/qwen3", "architectures/granite"] {
        let model = Model::open(&tests.join(name)).unwrap();
        for (precision, base_weights) in [
            (Precision::F32, BaseWeights::Packed),
            (Precision::Bf16, BaseWeights::Packed),
            (Precision::Bf16, BaseWeights::Stored),
        ] {
            let planned = FrozenTransformer::planned_bytes(&model, precision, base_weights).unwrap();
            let frozen = Arc::new(FrozenTransformer::load(&model, precision, base_weights, 16).unwrap());
            assert_eq!(planned, frozen.bytes(), "{name}, {precision}, {base_weights}");
            for dora in [false, true] {
                let options = LoraOptions { rank: 2, dora, top_layers: Some(1), ..LoraOptions::default() };
                let plans = options.modules(model.config()).unwrap();
                let parameters: usize = plans.iter().map(|plan| plan.parameters(model.config(), dora)).sum();
                let network = LoraModel::new(Arc::clone(&frozen), &options, 3).unwrap();
                assert_eq!(parameters, network.parameters().len(), "{name}");
            }
        }
    }
}

#[test]
fn the_gradient_of_the_whole_model_agrees_with_differences() {
    let mut network = network(Precision::F32, 4);
    disturb(&mut network);
    let batch = batch(0..4, 0.02);
    let mut gradient = vec![0.0; network.parameters().len()];
    let loss = network.loss_and_gradient(&batch, &mut gradient).unwrap().loss;
    assert!((loss - network.loss(&batch).unwrap().loss).abs() < 1e-6);
    let scale = gradient.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    let count = gradient.len();
    for index in (0..60).map(|i| i * (count / 60)) {
        let step = 2e-2;
        let start = network.parameters()[index];
        let mut at = |value: f32| {
            network.parameters_mut()[index] = value;
            network.loss(&batch).unwrap().loss
        };
        let difference = (at(start + step) - at(start - step)) / (2.0 * f64::from(step));
        at(start);
        let error = (f64::from(gradient[index]) - difference).abs();
        assert!(error < 1e-2 * f64::from(scale), "parameter {index}: {} for {difference}", gradient[index]);
    }
}

#[test]
fn fresh_updates_leave_the_base_as_it_is() {
    let mut network = network(Precision::F32, 4);
    let batch = batch(0..4, 0.02);
    let fresh = network.loss(&batch).unwrap().loss;
    network.parameters_mut().fill(0.0);
    assert!((fresh - network.loss(&batch).unwrap().loss).abs() < 1e-12);
}

#[test]
fn an_adapter_survives_both_formats() {
    let model = model();
    let mut trained = network(Precision::F32, 4);
    disturb(&mut trained);
    let folder = tempfile::tempdir().unwrap();
    let adapter = trained.to_adapter("base");
    adapter.save_peft(&folder.path().join("adapter"), model.config()).unwrap();
    adapter.save_gguf(&folder.path().join("adapter.gguf"), model.config()).unwrap();
    let frozen = Arc::new(FrozenTransformer::load(&model, Precision::F32, BaseWeights::Packed, 128).unwrap());
    for name in ["adapter", "adapter.gguf"] {
        let loaded = LoraAdapter::load(&folder.path().join(name), model.config()).unwrap();
        let loaded = LoraModel::from_adapter(Arc::clone(&frozen), &loaded).unwrap();
        assert_eq!(loaded.parameters(), trained.parameters(), "{name}");
    }
}

#[test]
fn only_answers_and_their_end_are_learned() {
    let model = model();
    let turns =
        vec![vec![turn("user", "Hi"), turn("assistant", "Hello."), turn("user", "And?"), turn("assistant", "Bye.")]];
    let row = &encode(&model, &turns, &config()).unwrap().rows[0];
    let text = marked_text(model.tokenizer(), row, Marks::Brackets);
    let learned: Vec<&str> = text.split('⟧').skip(1).map(|part| part.split('⟦').next().unwrap()).collect();
    assert_eq!(learned.len(), 2, "{text}");
    assert!(learned[0].contains("Hello.") && learned[1].contains("Bye."), "{text}");
    let ends = row
        .tokens
        .iter()
        .zip(&row.weights)
        .filter(|(token, weight)| **weight != 0.0 && model.tokenizer().is_end_of_generation(**token));
    assert_eq!(ends.count(), 2, "{text}");
    assert!(
        !text.split('⟦').any(|part| part.split('⟧').nth(1).is_some_and(|learned| learned.contains("And"))),
        "{text}"
    );
}

#[test]
fn broken_data_is_named_with_its_place() {
    let model = model();
    let good = vec![turn("user", "Hi"), turn("assistant", "Hello.")];
    let error = |turns: Vec<Turn>, config: &TrainConfig| {
        encode(&model, &[good.clone(), turns], config).unwrap_err().to_string()
    };
    assert!(error(vec![turn("user", "Hi")], &config()).starts_with("conversation:2: it has no turn of the assistant"));
    assert!(error(vec![turn("user", "Hi"), turn("assistant", "")], &config()).contains("empty"));
    let long = vec![turn("user", "Hi"), turn("assistant", &"word ".repeat(200))];
    let strict = TrainConfig { over_long: OverLong::Error, ..config() };
    assert!(error(long.clone(), &strict).contains("max_sequence is 128"));
    let dropped = encode(&model, &[good.clone(), long.clone()], &config()).unwrap();
    assert_eq!((dropped.rows.len(), dropped.dropped), (1, 1));
    let cut = TrainConfig { over_long: OverLong::Truncate, ..config() };
    let cut = encode(&model, &[good, long], &cut).unwrap();
    assert_eq!((cut.rows[1].tokens.len(), cut.truncated), (128, 1));
}
