//! What can be asked of an adapter: which modules, which ranks, magnitudes, the top layers, going on from another one.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use espalier_dataset::Turn;
use espalier_model::LoraAdapter;
use espalier_nn::transformer::{BaseWeights, Batch, FrozenTransformer, LoraModel, LoraOptions, Targets};
use espalier_train::{Precision, TrainConfig, TrainError, TrainOutcome, encode};

mod fixtures;
use fixtures::{conversation, model, run_on};

fn conversations() -> Vec<Vec<Turn>> {
    let things = ["ball", "cat", "tree", "boat", "hat", "dog"];
    things.iter().map(|thing| conversation("What does Lily see?", &format!("A red {thing}."))).collect()
}

fn config() -> TrainConfig {
    TrainConfig { max_steps: Some(10), ..fixtures::config() }
}

fn settings(json: &str) -> TrainConfig {
    let mut all = serde_json::to_value(config()).unwrap();
    let more: serde_json::Value = serde_json::from_str(json).unwrap();
    for (key, value) in more.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

fn run(directory: &Path, config: &TrainConfig) -> Result<(TrainOutcome, Vec<f64>), TrainError> {
    let data = encode(&model(), &conversations(), config)?;
    run_on(&data.into(), directory, config, None)
}

/// The modules and ranks that settings give, as `0.q_proj:4`.
fn chosen(json: &str) -> Vec<String> {
    let plans = settings(json).lora().modules(model().config()).unwrap();
    plans.iter().map(|plan| format!("{}.{}:{}", plan.layer, plan.projection.name(), plan.rank)).collect()
}

#[test]
fn targets_are_ends_of_names_or_a_pattern_on_whole_ones() {
    let layers = model().config().layers;
    assert_eq!(chosen("{}").len(), 7 * layers);
    assert_eq!(chosen(r#"{"targets": ["q_proj", "mlp.up_proj"]}"#).len(), 2 * layers);
    assert_eq!(chosen(r#"{"targets": ["model.layers.3.self_attn.k_proj"]}"#), ["3.k_proj:4"]);
    let pattern = r#"{"targets": "model\\.layers\\.(0\\.mlp\\..*|2\\..*_proj)", "rank_pattern": {"up_proj": 2, "2\\.self_attn\\..*": 3}}"#;
    assert_eq!(
        chosen(pattern),
        [
            "0.gate_proj:4",
            "0.up_proj:2",
            "0.down_proj:4",
            "2.q_proj:3",
            "2.k_proj:3",
            "2.v_proj:3",
            "2.o_proj:3",
            "2.gate_proj:4",
            "2.up_proj:2",
            "2.down_proj:4"
        ]
    );
    let top = chosen(r#"{"targets": ["v_proj"], "top_layers": 2}"#);
    assert_eq!(top, [format!("{}.v_proj:4", layers - 2), format!("{}.v_proj:4", layers - 1)]);
}

#[test]
fn what_fits_no_module_is_said_before_step_one() {
    for (json, words) in [
        (r#"{"targets": ["q_prj"]}"#, "did you mean q_proj"),
        (r#"{"targets": ["mlp.q_proj"]}"#, "unknown target \"mlp.q_proj\""),
        (r#"{"targets": "q_proj"}"#, "write .*q_proj for an end"),
        (
            r#"{"rank_pattern": {"q_proj": 2, "q_proj|x": 3}}"#,
            "rank_pattern: the pattern \"q_proj|x\" matches no adapted",
        ),
        (r#"{"alpha_pattern": {"lm_head": 2}}"#, "alpha_pattern: the pattern \"lm_head\""),
        (r#"{"targets": ["q_proj"], "rank_pattern": {"up_proj": 2}}"#, "\"up_proj\" matches no adapted"),
        (
            r#"{"rank": 40}"#,
            "rank 40 does not fit model.layers.0.self_attn.k_proj (64 inputs, 32 outputs): choose from 1 to 32",
        ),
        (r#"{"top_layers": 6}"#, "top_layers: 6 of the model's 5 layers"),
        (r#"{"targets": ["model.layers.0.mlp.up_proj"], "top_layers": 1}"#, "no module to adapt"),
        (r#"{"continue_from": "nowhere"}"#, "no PEFT folder or adapter GGUF at nowhere"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let message = run(folder.path(), &settings(json)).unwrap_err().to_string();
        assert!(message.contains(words), "{json}: {message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{json}");
    }
}

#[test]
fn every_variant_learns_and_goes_on_from_its_files() {
    for json in [
        r#"{"rslora": true, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"mlp\\..*": 4.5}}"#,
        r#"{"dora": true}"#,
        r#"{"dora": true, "rslora": true, "rank_pattern": {"k_proj": 3}, "top_layers": 2}"#,
        r#"{"targets": ".*layers\\.4\\..*", "alpha": 24}"#,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = settings(json);
        let (outcome, losses) = run(folder.path(), &config).unwrap();
        assert!(losses[9] < 0.7 * losses[0], "{json}: {losses:?}");
        assert_eq!(outcome.adapter_gguf.is_none(), config.dora);
        assert_eq!(folder.path().join("adapter.gguf").exists(), !config.dora);
        let saved = LoraAdapter::load(&outcome.adapter, model().config()).unwrap();
        assert_eq!(saved.base_sha256, Some(model().sha256().unwrap()));
        assert_eq!(saved.modules.len(), config.lora().modules(model().config()).unwrap().len());

        // The next step of the longer run is the first of one that goes on, with a fresh optimizer.
        let longer = tempfile::tempdir().unwrap();
        let schedule = TrainConfig { warmup_ratio: 0.0, final_learning_rate_ratio: 1.0, ..config };
        let (ten, _) = run(longer.path(), &schedule).unwrap();
        let longer = tempfile::tempdir().unwrap();
        let (_, eleven) = run(longer.path(), &TrainConfig { max_steps: Some(11), ..schedule.clone() }).unwrap();
        for path in [Some(ten.adapter), ten.adapter_gguf].into_iter().flatten() {
            let on = tempfile::tempdir().unwrap();
            let from = TrainConfig {
                continue_from: Some(path),
                max_steps: Some(2),
                dora: schedule.dora,
                ..config_of_no_shape()
            };
            let (_, losses) = run(on.path(), &from).unwrap();
            assert!((losses[0] - eleven[10]).abs() < 1e-5, "{json}: {losses:?} after {eleven:?}");
        }
    }
}

/// Settings that leave the shape to an adapter.
fn config_of_no_shape() -> TrainConfig {
    let usual = TrainConfig::default();
    TrainConfig { rank: usual.rank, alpha: usual.alpha, ..config() }
}

#[test]
fn an_adapter_of_another_base_or_shape_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let (outcome, _) = run(&folder.path().join("first"), &config()).unwrap();
    let refused = |config: &TrainConfig, words: &str| {
        let message = run(&folder.path().join("second"), config).unwrap_err().to_string();
        assert!(message.starts_with("training setting continue_from: ") && message.contains(words), "{message}");
    };
    let from = |config: TrainConfig| TrainConfig { continue_from: Some(outcome.adapter.clone()), ..config };
    refused(
        &from(settings(r#"{"rank": 8}"#)),
        "has rank 4 and alpha 8 in model.layers.0.self_attn.q_proj, where the settings say 8 and 8",
    );
    refused(&from(settings(r#"{"targets": ["q_proj"]}"#)), "adapts 35 modules, and the settings ask for 5 of them");
    refused(&from(settings(r#"{"rslora": true}"#)), "is not rsLoRA");
    refused(&from(settings(r#"{"dora": true}"#)), "is not DoRA: leave `dora` out");
    let model = model();
    let mut other = LoraAdapter::load(&outcome.adapter, model.config()).unwrap();
    other.base_sha256 = Some("0123456789abcdef".repeat(4));
    for name in ["other", "other.gguf"] {
        let path = folder.path().join(name);
        if name == "other" {
            other.save_peft(&path, model.config()).unwrap();
        } else {
            other.save_gguf(&path, model.config()).unwrap();
        }
        refused(
            &TrainConfig { continue_from: Some(path), ..config() },
            "another base: stories260K with SHA-256 0123456789ab",
        );
    }
    // The same shape said in the settings is none too many, and another adapter under the same path is another run.
    let second = folder.path().join("second");
    run(&second, &from(config())).unwrap();
    other.base_sha256 = None;
    other.modules.values_mut().next().unwrap().a[0] += 0.5;
    other.save_peft(&outcome.adapter, model.config()).unwrap();
    let message = run(&second, &from(config())).unwrap_err().to_string();
    assert!(message.contains("train into another folder"), "{message}");
}

fn loss_and_gradient(network: &LoraModel) -> (f64, Vec<f32>) {
    let data = encode(&model(), &conversations(), &config()).unwrap();
    let rows = data.rows.iter().map(|row| (row.tokens.as_slice(), row.weights.as_slice()));
    let mut gradient = vec![0.0; network.parameters().len()];
    let loss = network.loss_and_gradient(&Batch::pack(rows, 0.01).unwrap(), &mut gradient).unwrap().loss;
    (loss, gradient)
}

#[test]
fn fresh_magnitudes_leave_the_base_as_it_is() {
    for precision in [Precision::F32, Precision::Bf16] {
        let frozen = Arc::new(FrozenTransformer::load(&model(), precision, BaseWeights::Packed, 128).unwrap());
        let loss = |dora: bool| {
            let options = LoraOptions { rank: 4, alpha: 8.0, dora, ..LoraOptions::default() };
            loss_and_gradient(&LoraModel::new(Arc::clone(&frozen), &options, 3).unwrap()).0
        };
        assert!((loss(true) - loss(false)).abs() < 1e-6 * loss(false), "{precision}");
    }
}

#[test]
fn the_top_layers_have_the_gradient_that_they_have_among_all() {
    let model = model();
    let frozen = Arc::new(FrozenTransformer::load(&model, Precision::F32, BaseWeights::Packed, 128).unwrap());
    let targets = Targets::Names(vec!["q_proj".to_owned(), "down_proj".to_owned()]);
    let all = LoraOptions { rank: 4, alpha: 8.0, targets, ..LoraOptions::default() };
    let top = LoraOptions { top_layers: Some(2), ..all.clone() };
    // Fresh updates of the lower layers change nothing, so the upper ones have the same gradient with and without them.
    let mut all = LoraModel::new(Arc::clone(&frozen), &all, 3).unwrap();
    let mut top = LoraModel::new(frozen, &top, 4).unwrap();
    let upper = all.parameters().len() - top.parameters().len();
    for (index, value) in top.parameters_mut().iter_mut().enumerate() {
        *value += ((index * 7919 % 1000) as f32 / 1000.0 - 0.5) * 0.2;
    }
    all.parameters_mut()[upper..].copy_from_slice(top.parameters());
    let ((loss, gradient), (top_loss, top_gradient)) = (loss_and_gradient(&all), loss_and_gradient(&top));
    assert!((loss - top_loss).abs() < 1e-12);
    assert!(gradient[upper..].iter().zip(&top_gradient).all(|(a, b)| a.to_bits() == b.to_bits()));
    assert!(gradient[..upper].iter().any(|value| *value != 0.0));
}

#[test]
fn a_chat_template_from_a_file_goes_with_the_adapter_and_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.jinja");
    let template = "{% for message in messages %}{{ message.role }}> {{ message.content }}\n{% endfor %}";
    std::fs::write(&path, template).unwrap();
    let config = TrainConfig { chat_template: Some(path), max_steps: Some(2), ..config() };
    let (outcome, _) = run(&folder.path().join("first"), &config).unwrap();
    let forms = [outcome.adapter.clone(), outcome.adapter_gguf.unwrap()];
    for form in &forms {
        assert_eq!(LoraAdapter::load(form, model().config()).unwrap().chat_template.as_deref(), Some(template));
    }
    // What goes on from it has its rows in the same words, and leaves the same template.
    let rows = |config: &TrainConfig| encode(&model(), &conversations(), config).unwrap().rows;
    let on = TrainConfig { chat_template: None, continue_from: Some(outcome.adapter), ..config_of_no_shape() };
    assert_eq!(rows(&on), rows(&config));
    assert_ne!(rows(&on), rows(&config_of_no_shape()));
    let (outcome, _) = run(&folder.path().join("second"), &TrainConfig { max_steps: Some(1), ..on }).unwrap();
    assert_eq!(std::fs::read_to_string(outcome.adapter.join("chat_template.jinja")).unwrap(), template);
    // Another template over the same rows is another run.
    let padded = folder.path().join("padded.jinja");
    std::fs::write(&padded, format!("{template}{{# a remark #}}")).unwrap();
    let other = TrainConfig { chat_template: Some(padded), ..config };
    let message = run(&folder.path().join("first"), &other).unwrap_err().to_string();
    assert!(message.contains("chat_template"), "{message}");
}
