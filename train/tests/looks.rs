//! What a run looks at on the way: loss and accuracy of held-out rows, divergence from the base on general text. Each is held
//! against a plain computation, and none of them changes a byte of what is learned.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use espalier_dataset::Turn;
use espalier_model::{LoraAdapter, Model};
use espalier_nn::transformer::{BaseWeights, Batch, FrozenTransformer, LoraModel};
use espalier_train::metrics::{ForgettingLine, ValidationLine, read_forgetting, read_validations};
use espalier_train::{
    DataItem, DataSource, Metric, Precision, RunData, RunSources, Sequence, Sequences, TrainConfig, TrainError,
    TrainEvent, Validation, encode, train,
};

mod fixtures;
use fixtures::{config, conversation, files, model, run_on};

const GENERAL: &str = "Once upon a time there was a little girl named Lily. She loved to play outside in the park with \
    her friends. One day she saw a big dog near the tree. The dog was sad because it had lost its ball. Lily wanted to \
    help, so she looked under the bench and behind the house. There it was! The dog was happy and they played all day.";

fn source(file: &Path) -> DataSource {
    DataSource::new(&DataItem::file(file.display().to_string()), vec![file.to_owned()])
}

/// Everybody sees a red ball; the last two of the held-out rows say otherwise, and one of them stands in the data as well.
fn run_data(folder: &Path, config: &TrainConfig) -> RunData {
    let general = folder.join("general.txt");
    fs::write(&general, GENERAL).unwrap();
    let seen = [("Lily", "ball"), ("Tom", "ball"), ("Ben", "ball"), ("Mia", "ball"), ("Max", "king"), ("Lucy", "frog")];
    let row = |way: &str, (name, thing): (&str, &str)| {
        conversation(&way.replace('X', name), &format!("It is a red {thing}."))
    };
    let ways = ["What does X see?", "Can X see?", "X looks. What is there?"];
    let rows: Vec<_> = seen[..4].iter().flat_map(|&seen| ways.map(|way| row(way, seen))).collect();
    let mut held_out: Vec<_> = seen.iter().map(|&seen| row("What can X see?", seen)).collect();
    held_out.push(row(ways[0], seen[0]));
    let sources = RunSources { rows: vec![source(&general)], ..RunSources::default() };
    let general = RunData::load(&model(), &sources, config, &AtomicBool::new(false), &mut |_| {}).unwrap().rows;
    // This model has hardly seen an end of text and learns it late: without it some rows come out right.
    let encode = |rows: &[Vec<Turn>]| {
        let mut data = encode(&model(), rows, config).unwrap();
        for row in &mut data.rows {
            row.tokens.pop();
            row.weights.pop();
        }
        data
    };
    RunData { rows: encode(&rows), validation: Some(encode(&held_out)), general: Some(general) }
}

fn looking() -> TrainConfig {
    TrainConfig {
        validation: Validation::Rows(vec![DataItem::file("held-out.jsonl")]),
        validation_every: Some(2),
        checkpoint_every: 4,
        learning_rate: 2e-2,
        max_sequence: 64,
        forgetting_tokens: 10_000,
        ..config()
    }
}

fn lines(folder: &Path) -> (Vec<ValidationLine>, Vec<ForgettingLine>) {
    let path = folder.join("loss.jsonl");
    (read_validations(&path).unwrap(), read_forgetting(&path).unwrap())
}

/// Logarithms of the probabilities at every place of a row in double precision, from the states before the head.
fn log_probabilities(model: &Model, network: &LoraModel, row: &Sequence) -> Vec<Vec<f64>> {
    let config = model.config();
    let head = model.tensor(if config.tied_head { "token_embd.weight" } else { "output.weight" }).unwrap();
    let head = head.to_vec().unwrap();
    let batch = Batch::pack([(row.tokens.as_slice(), row.weights.as_slice())], 1.0).unwrap();
    let states = network.forward(&batch.tokens, &batch.layout).unwrap();
    let of_place = |state: &[f32]| {
        let product = |row: &[f32]| row.iter().zip(state).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
        let logits: Vec<f64> = head.chunks(config.hidden).map(product).collect();
        let log_sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        logits.iter().map(|logit| logit - log_sum).collect()
    };
    states.chunks(config.hidden).map(of_place).collect()
}

/// Loss, right rows, right tokens of `rows` under `network`, and the mean divergence from `base`.
fn plain(model: &Model, network: &LoraModel, base: &LoraModel, rows: &Sequences) -> (f64, usize, f64, f64) {
    let (mut nll, mut right, mut likeliest, mut divergence, mut targets) = (0.0, 0, 0, 0.0, 0);
    for row in &rows.rows {
        let (own, base) = (log_probabilities(model, network, row), log_probabilities(model, base, row));
        let mut whole = true;
        for at in (1..row.tokens.len()).filter(|&at| row.weights[at] != 0.0) {
            let (q, p, target) = (&own[at - 1], &base[at - 1], row.tokens[at] as usize);
            nll -= q[target];
            let best = (0..q.len()).max_by(|&one, &other| q[one].total_cmp(&q[other])).unwrap();
            whole &= best == target;
            likeliest += usize::from(best == target);
            divergence += p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            targets += 1;
        }
        right += usize::from(whole);
    }
    let targets = f64::from(targets);
    (nll / targets, right, f64::from(likeliest as u32) / targets, divergence / targets)
}

#[test]
fn figures_equal_a_plain_computation_from_the_exported_adapter() {
    for dora in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig { dora, max_steps: Some(32), ..looking() };
        let mut data = run_data(folder.path(), &config);
        // The adapter is that of the last step: nothing is chosen among checkpoints.
        let held_out = data.validation.take().unwrap();
        let (outcome, _) =
            run_on(&data, folder.path(), &TrainConfig { validation: Validation::Share(0.0), ..config.clone() }, None)
                .unwrap();
        let (_, forgetting) = lines(folder.path());
        assert_eq!(
            forgetting.iter().map(|line| line.step).collect::<Vec<_>>(),
            (0..=32).step_by(2).collect::<Vec<_>>()
        );
        assert!(forgetting[0].forgetting.abs() < 1e-6, "{:?}", forgetting[0]);

        let model = model();
        let frozen = Arc::new(FrozenTransformer::load(&model, Precision::F32, BaseWeights::Packed, 64).unwrap());
        let adapter = LoraAdapter::load(&outcome.adapter, model.config()).unwrap();
        let network = LoraModel::from_adapter(Arc::clone(&frozen), &adapter).unwrap();
        let mut silent = adapter.clone();
        for module in silent.modules.values_mut() {
            module.b.fill(0.0);
        }
        // Of DoRA the magnitudes too would have to go back; the base of LoRA is the adapter at scale 0.
        let base = if dora {
            network.without_updates()
        } else {
            LoraModel::from_adapter(Arc::clone(&frozen), &silent).unwrap()
        };
        let general = data.general.as_ref().unwrap();
        let (_, _, _, divergence) = plain(&model, &network, &base, general);
        let last = forgetting.last().unwrap();
        assert_eq!(last.tokens, general.rows.iter().map(Sequence::targets).sum::<usize>());
        assert!(
            divergence > 0.01 && (last.forgetting - divergence).abs() < 1e-5 * divergence,
            "{last:?}, {divergence}"
        );

        // Held-out rows: scored on the way, held against the checkpoint that was chosen.
        let chosen = tempfile::tempdir().unwrap();
        data.validation = Some(held_out);
        let config = TrainConfig { metric_for_best_model: Metric::Accuracy, ..config };
        let mut best = None;
        let outcome = train(&model, &data, &config, chosen.path(), &AtomicBool::new(false), &mut |event| {
            if let TrainEvent::Done { best: found, .. } = event {
                best = found;
            }
        });
        let (outcome, best, (scored, _)) = (outcome.unwrap(), best.unwrap(), lines(chosen.path()));
        let judged = scored.iter().filter(|line| line.step > 0 && line.step % 4 == 0);
        let expected = judged.max_by(|one, other| {
            let by_loss = other.validation_loss.total_cmp(&one.validation_loss);
            one.accuracy.total_cmp(&other.accuracy).then(by_loss)
        });
        let expected = expected.unwrap();
        assert_eq!((best.step, best.accuracy.to_bits()), (expected.step, expected.accuracy.to_bits()));
        let adapter = LoraAdapter::load(&outcome.adapter, model.config()).unwrap();
        let frozen =
            Arc::clone(&Arc::new(FrozenTransformer::load(&model, Precision::F32, BaseWeights::Packed, 64).unwrap()));
        let network = LoraModel::from_adapter(frozen, &adapter).unwrap();
        let rows = data.validation.as_ref().unwrap();
        let (loss, right, tokens, _) = plain(&model, &network, &network.without_updates(), rows);
        assert!(right > 0 && right < rows.rows.len(), "nothing to tell apart: {expected:?}");
        assert_eq!((expected.right(), expected.rows), (right, rows.rows.len()));
        assert!((expected.token_accuracy - tokens).abs() < 1e-12, "{expected:?}, {tokens}");
        assert!((expected.validation_loss - loss).abs() < 1e-5 * loss, "{expected:?}, {loss}");
    }
}

#[test]
fn looking_changes_nothing_of_what_is_learned_and_a_resumed_run_ends_with_the_same_bytes() {
    let (whole, blind, inputs) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = TrainConfig { precision: Precision::Bf16, metric_for_best_model: Metric::Accuracy, ..looking() };
    let mut data = run_data(inputs.path(), &config);
    // One row of the training data is held out as well.
    data.rows.rows.remove(0);
    let (_, losses) = run_on(&data, whole.path(), &config, None).unwrap();
    let only = RunData::from(data.rows.clone());
    let without =
        TrainConfig { validation: Validation::Share(0.0), metric_for_best_model: Metric::Loss, ..config.clone() };
    assert_eq!(run_on(&only, blind.path(), &without, None).unwrap().1, losses);
    let expected = files(whole.path());
    for stop in [1, 4, 6, 11] {
        let folder = tempfile::tempdir().unwrap();
        run_on(&data, folder.path(), &config, Some(stop)).unwrap();
        run_on(&data, folder.path(), &config, None).unwrap();
        let found = files(folder.path());
        for name in ["loss.jsonl", "adapter.gguf", "adapter/adapter_model.safetensors"] {
            assert!(found[Path::new(name)] == expected[Path::new(name)], "stopped at {stop}: {name}");
        }
    }
    let died = tempfile::tempdir().unwrap();
    let death = std::panic::catch_unwind(|| {
        train(&model(), &data, &config, died.path(), &AtomicBool::new(false), &mut |event| {
            assert!(!matches!(event, TrainEvent::Forgetting { line } if line.step == 6), "killed here");
        })
    });
    assert!(death.is_err());
    run_on(&data, died.path(), &config, None).unwrap();
    assert!(files(died.path()) == expected);
    // Other general text is another run.
    data.general.as_mut().unwrap().rows[0].tokens[3] += 1;
    let error = run_on(&data, died.path(), &config, None).unwrap_err().to_string();
    assert!(error.contains("other data"), "{error}");
}

#[test]
fn a_row_that_is_held_out_is_not_trained_on_and_the_plan_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { max_steps: Some(1), ..looking() };
    let data = run_data(folder.path(), &config);
    let mut plan = None;
    train(&model(), &data, &config, &folder.path().join("run"), &AtomicBool::new(false), &mut |event| {
        if let TrainEvent::Plan(found) = event {
            plan = Some(found);
        }
    })
    .unwrap();
    let plan = plan.unwrap();
    assert_eq!((plan.conversations, plan.held_out), (11, 7));
    assert!(plan.repeated.unwrap().starts_with("1 row is not trained on, because a held-out row says the same"));
    let named = |name: &str| plan.derived.iter().find(|value| value.name == name).unwrap();
    assert!(named("validation_every").reason.starts_with("as the settings say; looking at "));
    assert!(named("forgetting_tokens").reason.contains("tokens of general text"));
    assert!(plan.memory.parts.iter().any(|part| part.name.contains("general text") && part.bytes > 0));
}

#[test]
fn what_cannot_be_looked_at_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let rows = file("rows.jsonl", "{\"prompt\": \"One and\", \"completion\": \" two\"}\n");
    let load = |validation: Option<&Path>, general: Option<&Path>| {
        let list = |path: Option<&Path>| path.map(source).into_iter().collect();
        let sources = RunSources { rows: vec![source(&rows)], validation: list(validation), forgetting: list(general) };
        RunData::load(&model(), &sources, &looking(), &AtomicBool::new(false), &mut |_| {})
    };
    let words = |error: TrainError| error.to_string().replace(&format!("{}/", folder.path().display()), "");
    let unlearned = file("no-target.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}\n");
    let message = words(load(Some(&unlearned), None).unwrap_err());
    assert!(message.starts_with("no-target.jsonl:1: it has no turn of the assistant"), "{message}");
    let empty = file("empty.jsonl", "");
    let message = words(load(Some(&empty), None).unwrap_err());
    assert!(message.contains("empty.jsonl") || message.contains("setting validation: no row is left"), "{message}");
    let short = file("short.txt", "Once upon a time.");
    let data = load(None, Some(&short)).unwrap();
    let run = run_on(
        &data,
        &folder.path().join("run"),
        &TrainConfig { validation: Validation::Share(0.0), ..looking() },
        None,
    );
    let message = words(run.unwrap_err());
    assert!(
        message.starts_with("training setting forgetting: short.txt has ") && message.contains("at least 64"),
        "{message}"
    );
    assert!(!folder.path().join("run/checkpoints").exists());

    for (json, words) in [
        (r#"{"validation": 1.5}"#, "validation: must lie in 0 to 1"),
        (r#"{"metric_for_best_model": "accuracy"}"#, "metric_for_best_model: needs rows that are held out"),
        (r#"{"validation": [{"file": "a.jsonl", "weight": 2}]}"#, "validation: a `weight` says how often"),
        (r#"{"forgetting": {"file": "a.txt", "limit": 0}}"#, "forgetting: a limit of 0 rows"),
        (r#"{"validation": 0.1, "validation_every": 30}"#, "validation_every: must divide checkpoint_every"),
        (r#"{"forgetting": "a.txt", "forgetting_tokens": 0}"#, "forgetting_tokens: must be at least 1"),
    ] {
        let config: TrainConfig = serde_json::from_str(json).unwrap();
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(words), "{json}: {message}");
    }
    let error = |json: &str| serde_json::from_str::<TrainConfig>(json).unwrap_err().to_string();
    assert!(
        error(r#"{"metric_for_best_model": "bleu"}"#).contains("unknown variant `bleu`, expected `loss` or `accuracy`")
    );
    assert!(error(r#"{"validation": true}"#).contains("a share of the rows such as 0.05, or files"));
    let files: TrainConfig = serde_json::from_str(r#"{"validation": "held-out.jsonl"}"#).unwrap();
    assert_eq!(files.validation, Validation::Rows(vec![DataItem::file("held-out.jsonl")]));
}
