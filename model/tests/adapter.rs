//! Adapters on their way through PEFT folders and GGUF files.

#![allow(clippy::unwrap_used)]

mod tiny;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use espalier_model::gguf::GgufFile;
use espalier_model::{LoraAdapter, LoraModule, Model, ModelConfig};
use safetensors::SafeTensors;

const PARTS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

fn config() -> ModelConfig {
    let folder = tempfile::tempdir().unwrap();
    tiny::write_huggingface(folder.path(), false);
    Model::open(folder.path()).unwrap().config().clone()
}

fn adapter(config: &ModelConfig, rank: usize, rslora: bool) -> LoraAdapter {
    let mut modules = BTreeMap::new();
    for layer in 0..config.layers {
        for part in PARTS {
            let name = format!("blk.{layer}.{part}");
            let (inputs, outputs) = config.linear_shape(&name).unwrap();
            let a = tiny::values(&format!("{name}.a"), rank * inputs);
            let b = tiny::values(&format!("{name}.b"), outputs * rank);
            modules.insert(name, LoraModule { a, b, inputs, outputs, rank, alpha: 16.0, magnitude: None });
        }
    }
    LoraAdapter {
        rslora,
        base_model: "tiny".to_owned(),
        base_sha256: Some("ab".repeat(32)),
        chat_template: None,
        modules,
    }
}

#[test]
fn peft_round_trip_is_exact() {
    let config = config();
    for rslora in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let written = adapter(&config, 3, rslora);
        let mut files = Vec::new();
        for _ in 0..4 {
            written.save_peft(folder.path(), &config).unwrap();
            assert_eq!(LoraAdapter::load(folder.path(), &config).unwrap(), written);
            files.push(fs::read(folder.path().join("adapter_model.safetensors")).unwrap());
        }
        assert!(files.iter().all(|file| *file == files[0]), "the same adapter, other bytes");
    }
}

#[test]
fn a_chat_template_of_its_own_goes_with_either_form() {
    let config = config();
    let folder = tempfile::tempdir().unwrap();
    let template = "{% for message in messages %}\n<{{ message.role }}> {{ message.content }}\n{% endfor %}\n";
    let written = LoraAdapter { chat_template: Some(template.to_owned()), ..adapter(&config, 2, false) };
    let (peft, gguf) = (folder.path().join("peft"), folder.path().join("adapter.gguf"));
    written.save_peft(&peft, &config).unwrap();
    written.save_gguf(&gguf, &config).unwrap();
    assert_eq!(fs::read_to_string(peft.join("chat_template.jinja")).unwrap(), template);
    for path in [&peft, &gguf] {
        assert_eq!(LoraAdapter::load(path, &config).unwrap(), written);
    }
    fs::write(peft.join("chat_template.jinja"), "{{ messages\n{% endfor %}").unwrap();
    let message = LoraAdapter::load(&peft, &config).unwrap_err().to_string();
    assert!(message.contains("chat template in line 2"), "{message}");
    // An adapter with the model's own in the same place leaves none behind.
    adapter(&config, 2, false).save_peft(&peft, &config).unwrap();
    assert_eq!(LoraAdapter::load(&peft, &config).unwrap().chat_template, None);
}

#[test]
fn gguf_round_trip_keeps_factors_and_scale() {
    let config = config();
    for rslora in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter.gguf");
        let written = adapter(&config, 3, rslora);
        written.save_gguf(&path, &config).unwrap();
        let read = LoraAdapter::load(&path, &config).unwrap();
        for (name, module) in &written.modules {
            assert_eq!((&read.modules[name].a, &read.modules[name].b), (&module.a, &module.b));
        }
        assert_eq!((read.base_model.as_str(), &read.base_sha256), ("tiny", &written.base_sha256));
        for (name, module) in &read.modules {
            assert!((read.scale(module) / written.scale(&written.modules[name]) - 1.0).abs() < 1e-6);
        }
        assert!(!read.rslora);
        if !rslora {
            assert_eq!(read, written);
        }
        assert!(Model::open(&path).err().unwrap().to_string().contains("adapter"));
    }
}

#[test]
fn peft_files_have_the_names_and_the_row_order_of_hugging_face() {
    let config = config();
    let folder = tempfile::tempdir().unwrap();
    let written = adapter(&config, 2, false);
    written.save_peft(folder.path(), &config).unwrap();
    let bytes = fs::read(folder.path().join("adapter_model.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 2 * 7 * 2);
    let name = "base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight";
    let view = tensors.tensor(name).unwrap();
    assert_eq!(view.shape(), [8, 2]);
    let stored: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
    let ours = &written.modules["blk.1.attn_k"].b;
    for head in 0..2 {
        for (gguf, file) in [(0, 0), (1, 2), (2, 1), (3, 3)] {
            let (gguf, file) = ((head * 4 + gguf) * 2, (head * 4 + file) * 2);
            assert_eq!(ours[gguf..gguf + 2], stored[file..file + 2]);
        }
    }
    let source = fs::read_to_string(folder.path().join("adapter_config.json")).unwrap();
    let settings: serde_json::Value = serde_json::from_str(&source).unwrap();
    assert_eq!(settings["r"], 2);
    assert_eq!(settings["lora_alpha"], 16);
    assert_eq!(settings["target_modules"].as_array().unwrap().len(), 7);
}

#[test]
fn an_adapter_of_some_layers_names_them() {
    let config = config();
    let folder = tempfile::tempdir().unwrap();
    let mut written = adapter(&config, 2, false);
    written.modules.retain(|name, _| name == "blk.1.attn_q");
    written.save_peft(folder.path(), &config).unwrap();
    let source = fs::read_to_string(folder.path().join("adapter_config.json")).unwrap();
    let settings: serde_json::Value = serde_json::from_str(&source).unwrap();
    assert_eq!(settings["target_modules"], serde_json::json!(["q_proj"]));
    assert_eq!(settings["layers_to_transform"], serde_json::json!([1]));
    assert_eq!(LoraAdapter::load(folder.path(), &config).unwrap(), written);
    // Different modules in different layers go by whole names.
    let mut written = adapter(&config, 2, false);
    written.modules.retain(|name, _| name == "blk.1.attn_q" || name == "blk.0.ffn_up");
    written.save_peft(folder.path(), &config).unwrap();
    let targets = serde_json::json!(["model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj"]);
    let settings = settings_of(folder.path());
    assert_eq!((&settings["target_modules"], &settings["layers_to_transform"]), (&targets, &serde_json::Value::Null));
    assert_eq!(LoraAdapter::load(folder.path(), &config).unwrap(), written);
}

fn settings_of(folder: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(folder.join("adapter_config.json")).unwrap()).unwrap()
}

/// Every `v_proj` of rank 2, one `q_proj` of rank 4, every module of a block's feed-forward part with an alpha of its own.
fn mixed(config: &ModelConfig) -> LoraAdapter {
    let mut mixed = adapter(config, 3, false);
    for (name, module) in &mut mixed.modules {
        let rank = if name.ends_with("attn_v") {
            2
        } else if name == "blk.1.attn_q" {
            4
        } else {
            3
        };
        module.a.resize(rank * module.inputs, 0.25);
        module.b.resize(rank * module.outputs, 0.5);
        module.rank = rank;
        if name.contains("ffn") {
            module.alpha = 5.5;
        }
    }
    mixed
}

#[test]
fn ranks_and_alphas_of_their_own_become_patterns() {
    let config = config();
    let folder = tempfile::tempdir().unwrap();
    for rslora in [false, true] {
        let written = LoraAdapter { rslora, ..mixed(&config) };
        written.save_peft(folder.path(), &config).unwrap();
        assert_eq!(LoraAdapter::load(folder.path(), &config).unwrap(), written);
        let settings = settings_of(folder.path());
        let ranks = serde_json::json!({"v_proj": 2, "model\\.layers\\.1\\.self_attn\\.q_proj": 4});
        assert_eq!((&settings["r"], &settings["rank_pattern"]), (&serde_json::json!(3), &ranks));
        let alphas = serde_json::json!({"gate_proj": 5.5, "up_proj": 5.5, "down_proj": 5.5});
        assert_eq!((&settings["lora_alpha"], &settings["alpha_pattern"]), (&serde_json::json!(16), &alphas));

        // GGUF has one alpha: the products stay, the factors of the others change.
        let path = folder.path().join("adapter.gguf");
        written.save_gguf(&path, &config).unwrap();
        let read = LoraAdapter::load(&path, &config).unwrap();
        for (name, module) in &written.modules {
            let found = &read.modules[name];
            assert_eq!((found.rank, &found.a), (module.rank, &module.a));
            let (scale, own) = (read.scale(found), written.scale(module));
            for (x, y) in found.b.iter().zip(&module.b) {
                assert!((x * scale - y * own).abs() <= 1e-6 * (y * own).abs(), "{name}");
            }
        }
        let untouched = written.modules.iter().filter(|(name, module)| read.modules[*name].b == module.b).count();
        assert_eq!(untouched, if rslora { 6 } else { 8 });
    }
}

#[test]
fn magnitudes_go_through_peft_and_are_refused_in_gguf() {
    let config = config();
    let folder = tempfile::tempdir().unwrap();
    let mut written = mixed(&config);
    for (name, module) in &mut written.modules {
        module.magnitude = Some(tiny::values(&format!("{name}.m"), module.outputs));
    }
    written.save_peft(folder.path(), &config).unwrap();
    assert_eq!(LoraAdapter::load(folder.path(), &config).unwrap(), written);
    assert_eq!(settings_of(folder.path())["use_dora"], true);
    let bytes = fs::read(folder.path().join("adapter_model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let name = "base_model.model.model.layers.1.self_attn.k_proj.lora_magnitude_vector";
    assert_eq!(tensors.tensor(name).unwrap().shape(), [8]);
    let message = written.save_gguf(&folder.path().join("adapter.gguf"), &config).unwrap_err().to_string();
    assert!(message.contains("DoRA") && message.contains("pipeline adapter merge"), "{message}");
    written.modules.values_mut().next().unwrap().magnitude = None;
    assert!(written.save_peft(folder.path(), &config).unwrap_err().to_string().contains("magnitude"));
}

#[test]
fn gguf_files_have_the_shapes_of_llama_cpp() {
    let config = config();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.gguf");
    adapter(&config, 4, true).save_gguf(&path, &config).unwrap();
    let file = GgufFile::open(&path).unwrap();
    assert_eq!(file.metadata().require_str("general.type").unwrap(), "adapter");
    let alpha = file.metadata().require_f32("adapter.lora.alpha").unwrap();
    assert!((alpha - 32.0).abs() < 1e-6);
    assert_eq!(file.tensor("blk.0.ffn_down.weight.lora_a").unwrap().dimensions, [24, 4]);
    assert_eq!(file.tensor("blk.0.ffn_down.weight.lora_b").unwrap().dimensions, [4, 16]);
}

#[test]
fn a_training_folder_names_the_adapter_in_it() {
    let config = config();
    let folder = tempfile::tempdir().unwrap();
    let message = || LoraAdapter::load(folder.path(), &config).unwrap_err().to_string();
    assert!(message().contains("cannot read the adapter's settings"), "{}", message());
    for name in ["adapter", "step-40"] {
        adapter(&config, 2, false).save_peft(&folder.path().join(name), &config).unwrap();
    }
    let at = folder.path().display();
    let expected = "adapter_config.json: it is not in this folder, but in \"adapter\" below it";
    assert_eq!(message(), format!("{at}: {expected}; name {at}/adapter"));
}

#[test]
fn adapters_of_other_models_and_damaged_ones_are_refused() {
    let config = config();
    let mut other = config.clone();
    other.feed_forward = 32;
    let folder = tempfile::tempdir().unwrap();
    let (peft, gguf) = (folder.path().join("peft"), folder.path().join("adapter.gguf"));
    let written = adapter(&config, 2, false);
    written.save_peft(&peft, &config).unwrap();
    written.save_gguf(&gguf, &config).unwrap();
    let message = |path: &Path, config: &ModelConfig| LoraAdapter::load(path, config).unwrap_err().to_string();
    for path in [&peft, &gguf] {
        let message = message(path, &other);
        assert!(message.contains("blk.0.ffn_down"), "{message}");
    }
    other.layers = 1;
    assert!(message(&gguf, &other).contains("ffn"));
    let mut broken = written.clone();
    broken.modules.values_mut().next().unwrap().alpha = 0.0;
    assert!(broken.save_gguf(&gguf, &config).unwrap_err().to_string().contains("alpha"));
    broken = written.clone();
    broken.modules.values_mut().next().unwrap().b[0] = f32::NAN;
    assert!(broken.save_peft(&peft, &config).unwrap_err().to_string().contains("not finite"));

    for path in [peft.join("adapter_model.safetensors"), gguf.clone()] {
        let bytes = fs::read(&path).unwrap();
        for part in 0..50 {
            fs::write(&path, &bytes[..bytes.len() * part / 50]).unwrap();
            let target = if path == gguf { &gguf } else { &peft };
            assert!(message(target, &config).contains(path.file_name().unwrap().to_str().unwrap()));
        }
    }
    fs::remove_file(peft.join("adapter_model.safetensors")).unwrap();
    assert!(message(&peft, &config).contains("adapter_model.safetensors"));
    assert!(message(&folder.path().join("none.gguf"), &config).contains("none.gguf"));
}
