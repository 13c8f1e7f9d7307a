//! Training beside a teacher on the 260K model: its table is joined to the rows, both parts of the loss are learned and told.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use espalier_dataset::{TeacherOrigin, TeacherRow};
use espalier_nn::ops::teacher_tokens::TeacherTokens;
use espalier_nn::transformer::{Batch, FrozenTransformer, LoraModel};
use espalier_train::metrics::{LossLine, read_losses};
use espalier_train::{BaseWeights, Precision, Sequences, TrainConfig, attach_teacher, encode};

mod fixtures;
use fixtures::{config, conversations, model, run_on};

fn data() -> Sequences {
    encode(&model(), &conversations()[..6], &config()).unwrap()
}

/// A teacher that is nearly sure of another token than the text's, for the first `rows` rows.
fn table(data: &Sequences, rows: usize) -> (TeacherOrigin, Vec<TeacherRow>) {
    let origin =
        TeacherOrigin { teacher: "made up".to_owned(), vocabulary: model().tokenizer().vocabulary_sha256(), top_k: 2 };
    let of_row = |row: &espalier_train::Sequence| {
        let positions = row.learned();
        let tokens = positions.iter().flat_map(|&at| [(row.tokens[at as usize] + 7) % 512, row.tokens[at as usize]]);
        let log_probabilities = positions.iter().flat_map(|_| [-0.2, -2.0]).collect();
        TeacherRow { row: row.teacher_key(), tokens: tokens.collect(), log_probabilities, positions }
    };
    (origin, data.rows[..rows].iter().map(of_row).collect())
}

fn taught(rows: usize) -> Sequences {
    let mut data = data();
    let (origin, table) = table(&data, rows);
    assert_eq!(attach_teacher(&mut data, &model(), &origin, &table).unwrap(), rows);
    data
}

fn run(data: &Sequences, config: &TrainConfig, folder: &Path, stop_after: usize) -> Vec<LossLine> {
    run_on(&data.clone().into(), folder, config, Some(stop_after)).unwrap();
    read_losses(&folder.join("loss.jsonl")).unwrap()
}

#[test]
fn both_parts_of_the_loss_are_told_and_the_student_goes_where_the_teacher_is() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { distill_weight: 0.75, max_steps: Some(30), learning_rate: 2e-2, ..config() };
    let losses = run(&taught(6), &config, folder.path(), usize::MAX);
    for line in &losses {
        let (nll, divergence) = (line.nll.unwrap(), line.divergence.unwrap());
        assert!((line.loss - (0.25 * nll + 0.75 * divergence)).abs() < 1e-5 * line.loss, "{line:?}");
    }
    let (first, last) = (&losses[0], losses.last().unwrap());
    assert!(last.divergence.unwrap() < 0.5 * first.divergence.unwrap(), "{first:?}, {last:?}");
    let alone = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(alone.path().join("loss.jsonl"));
    assert!(text.is_err());
    run(&data(), &config, alone.path(), usize::MAX);
    assert!(!fs::read_to_string(alone.path().join("loss.jsonl")).unwrap().contains("divergence"));
}

#[test]
fn a_resumed_run_ends_with_the_same_bytes_and_another_table_is_another_run() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(&taught(4), &config(), whole.path(), usize::MAX);
    run(&taught(4), &config(), broken.path(), 7);
    run(&taught(4), &config(), broken.path(), usize::MAX);
    for name in ["loss.jsonl", "adapter/adapter_model.safetensors"] {
        assert_eq!(fs::read(whole.path().join(name)).unwrap(), fs::read(broken.path().join(name)).unwrap(), "{name}");
    }
    let error = run_on(&taught(6).into(), broken.path(), &config(), None).unwrap_err().to_string();
    assert!(error.contains("other data") || error.contains("data"), "{error}");
}

#[test]
fn the_gradient_beside_a_teacher_agrees_with_differences() {
    let data = taught(3);
    let frozen = FrozenTransformer::load(&model(), Precision::F32, BaseWeights::Packed, 128).unwrap();
    let mut network = LoraModel::new(frozen.into(), &config().lora(), 1).unwrap();
    for (index, value) in network.parameters_mut().iter_mut().enumerate() {
        *value += 0.02 * ((index * 37 % 101) as f32 / 50.0 - 1.0);
    }
    // Two rows with a teacher and one without.
    let rows = &data.rows[1..4];
    let mut teacher = TeacherTokens::default();
    for row in rows {
        match &row.teacher {
            Some(tokens) => teacher.extend(tokens),
            None => teacher.extend_empty(row.tokens.len() - 1),
        }
    }
    let batch = Batch::pack(rows.iter().map(|row| (row.tokens.as_slice(), row.weights.as_slice())), 0.02).unwrap();
    let batch = batch.with_teacher(teacher, 0.6).unwrap();
    let mut gradient = vec![0.0; network.parameters().len()];
    let found = network.loss_and_gradient(&batch, &mut gradient).unwrap();
    assert!(found.rows.iter().any(|row| row.divergence > 0.0));
    assert!((found.loss - network.loss(&batch).unwrap().loss).abs() < 1e-6);
    let (scale, count) = (gradient.iter().fold(0.0_f32, |most, value| most.max(value.abs())), gradient.len());
    for index in (0..40).map(|i| i * (count / 40)) {
        let (start, step) = (network.parameters()[index], 1e-2);
        let mut at = |value: f32| {
            network.parameters_mut()[index] = value;
            network.loss(&batch).unwrap().loss
        };
        let difference = (at(start + step) - at(start - step)) / (2.0 * f64::from(step));
        at(start);
        let error = (difference - f64::from(gradient[index])).abs();
        assert!(error < 2e-2 * f64::from(scale), "{index}: {} for {difference}", gradient[index]);
    }
}

#[test]
fn a_table_that_is_not_about_these_rows_is_refused_in_words() {
    let (origin, table) = table(&data(), 6);
    let refused = |origin: &TeacherOrigin, table: &[TeacherRow]| {
        attach_teacher(&mut data(), &model(), origin, table).unwrap_err().to_string()
    };
    let other = TeacherOrigin { vocabulary: "another".to_owned(), ..origin.clone() };
    assert!(refused(&other, &table).contains("another vocabulary than the student's"));
    let foreign: Vec<TeacherRow> = table.iter().map(|row| TeacherRow { row: "x".to_owned(), ..row.clone() }).collect();
    assert!(refused(&origin, &foreign).contains("none of the 6 rows to train on is among its 6"));
    let mut far = table.clone();
    far[0].tokens[0] = 512;
    assert!(refused(&origin, &far).contains("beyond the vocabulary"));
    let mut mixed = table;
    mixed[0].positions.swap(0, 1);
    assert!(refused(&origin, &mixed).contains("not in order"));
}
