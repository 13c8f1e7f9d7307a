//! Hugging Face folders: written, read, and written again.

#![allow(clippy::unwrap_used)]

mod tiny;

use std::fs;
use std::path::Path;

use espalier_kernels::BlockType;
use espalier_model::gguf::{GgufWriter, TensorHeader};
use espalier_model::huggingface::{FloatType, HuggingFaceOptions, HuggingFaceWriter};
use espalier_model::{AtomicFolder, Existing, Model, ModelError};

const STORIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin");

/// Writes a model as it is.
fn write(model: &Model, out: &Path, options: HuggingFaceOptions) -> Result<AtomicFolder, ModelError> {
    let mut writer = HuggingFaceWriter::create(model, out, options)?;
    for tensor in writer.tensors().to_vec() {
        let source = model.tensor(&tensor.gguf_name)?;
        for row in 0..tensor.rows {
            let mut values = vec![0.0_f32; tensor.columns];
            source.row(tensor.gguf_row(row), &mut values)?;
            tensor.shift(&mut values);
            let bytes: Vec<u8> = match options.float_type {
                // Numbers of these models have eight bits.
                FloatType::Bf16 => values.iter().flat_map(|value| value.to_le_bytes()[2..].to_vec()).collect(),
                _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            };
            writer.write_tensor_data(&bytes)?;
        }
    }
    writer.finish()
}

fn assert_same_weights(left: &Model, right: &Model) {
    assert_eq!(left.tensors().count(), right.tensors().count());
    for info in left.tensors() {
        let (a, b) = (left.tensor(&info.name).unwrap(), right.tensor(&info.name).unwrap());
        assert_eq!(a.to_vec().unwrap(), b.to_vec().unwrap(), "{}", info.name);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_folder_is_carried_along_byte_for_byte() {
    let place = tempfile::tempdir().unwrap();
    let (source, out) = (place.path().join("source"), place.path().join("out"));
    fs::create_dir(&source).unwrap();
    tiny::write_huggingface(&source, true);
    fs::write(source.join("generation_config.json"), "{\"eos_token_id\": [1, 0], \"temperature\": 0.2}").unwrap();
    fs::write(source.join("LICENSE"), "as it is").unwrap();
    fs::write(source.join("README.md"), "of the base").unwrap();
    let model = Model::open(&source).unwrap();
    let options = HuggingFaceOptions::of(&model);
    assert_eq!(options.float_type, FloatType::Bf16);
    write(&model, &out, options).unwrap().finish().unwrap();

    let carried = ["LICENSE", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];
    let mut expected = carried.to_vec();
    expected.insert(3, "model.safetensors");
    assert_eq!(names(&out), expected);
    for name in carried {
        assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(source.join(name)).unwrap(), "{name}");
    }
    assert_same_weights(&model, &Model::open(&out).unwrap());

    let options = HuggingFaceOptions { float_type: FloatType::F32, existing: Existing::Replace, ..options };
    write(&model, &out, options).unwrap().finish().unwrap();
    let settings: serde_json::Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    let mut wanted = tiny::config_json();
    wanted["torch_dtype"] = "float32".into();
    assert_eq!(settings, wanted);
    assert_same_weights(&model, &Model::open(&out).unwrap());
}

#[test]
fn large_models_are_divided_with_an_index() {
    let place = tempfile::tempdir().unwrap();
    let (source, out) = (place.path().join("source"), place.path().join("out"));
    fs::create_dir(&source).unwrap();
    tiny::write_huggingface(&source, false);
    let model = Model::open(&source).unwrap();
    let options = HuggingFaceOptions { shard_bytes: 8_000, ..HuggingFaceOptions::of(&model) };
    assert_eq!(options.float_type, FloatType::F32);
    write(&model, &out, options).unwrap().finish().unwrap();
    let index = fs::read(out.join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let parameters: usize = tiny::tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    assert_eq!(index["metadata"]["total_size"], 4 * parameters);
    let files: Vec<String> = names(&out).into_iter().filter(|name| name.ends_with(".safetensors")).collect();
    assert!(files.len() > 2, "{files:?}");
    assert_eq!(files[1], format!("model-00002-of-{:05}.safetensors", files.len()));
    for (name, shape) in tiny::tensors() {
        let file = fs::read(out.join(index["weight_map"][&name].as_str().unwrap())).unwrap();
        let view = safetensors::SafeTensors::deserialize(&file).unwrap();
        let view = view.tensor(&name).unwrap();
        assert_eq!(view.shape(), shape, "{name}");
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
        assert_eq!(values, tiny::values(&name, values.len()), "{name}");
    }
    assert_same_weights(&model, &Model::open(&out).unwrap());
}

#[test]
fn a_folder_is_made_from_metadata() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let model = Model::open(Path::new(STORIES)).unwrap();
    let options = HuggingFaceOptions { float_type: FloatType::F32, ..HuggingFaceOptions::of(&model) };
    write(&model, &out, options).unwrap().finish().unwrap();
    let read =
        |name: &str| -> serde_json::Value { serde_json::from_slice(&fs::read(out.join(name)).unwrap()).unwrap() };
    let config = read("config.json");
    assert_eq!(config["architectures"], serde_json::json!(["LlamaForCausalLM"]));
    assert_eq!((&config["rms_norm_eps"], &config["rope_theta"]), (&1e-5.into(), &10_000.0.into()));
    assert_eq!(read("generation_config.json"), serde_json::json!({"bos_token_id": 1, "eos_token_id": 2}));
    let special = serde_json::json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"});
    assert_eq!(read("special_tokens_map.json"), special);
    let again = Model::open(&out).unwrap();
    assert_same_weights(&model, &again);
    assert_eq!(again.chat_template().source(), model.chat_template().source());
    assert_eq!(again.config().vocabulary, model.config().vocabulary);
    assert!(again.tokenizer().adds_bos());
}

/// A GGUF file of the tiny model with its `config.json` changed.
fn as_gguf(place: &Path, change: &dyn Fn(&mut serde_json::Value)) -> std::path::PathBuf {
    let (source, file) = (place.join("source"), place.join("model.gguf"));
    fs::create_dir(&source).unwrap();
    tiny::write_huggingface(&source, false);
    let mut config = tiny::config_json();
    change(&mut config);
    fs::write(source.join("config.json"), config.to_string()).unwrap();
    let model = Model::open(&source).unwrap();
    let header = |info: &espalier_model::TensorInfo| TensorHeader {
        name: info.name.clone(),
        dimensions: info.dimensions.clone(),
        block_type: BlockType::F32,
    };
    let headers: Vec<TensorHeader> = model.tensors().map(header).collect();
    let mut writer = GgufWriter::create(&file, model.metadata(), &headers).unwrap();
    for header in &headers {
        let values = model.tensor(&header.name).unwrap().to_vec().unwrap();
        writer.write_tensor_data(bytemuck::cast_slice(&values)).unwrap();
    }
    writer.finish().unwrap();
    file
}

#[test]
fn rotary_factors_become_the_settings_that_they_came_from() {
    let place = tempfile::tempdir().unwrap();
    let scaling = serde_json::json!({
        "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 4096,
        "rope_type": "llama3",
    });
    let file = as_gguf(place.path(), &|config| {
        config["rope_theta"] = 1e9.into();
        config["rope_scaling"] = scaling.clone();
    });
    let model = Model::open(&file).unwrap();
    let factors = model.rope_frequency_factors().unwrap().unwrap();
    assert!(factors.iter().any(|factor| *factor > 31.0), "{factors:?}");
    let out = place.path().join("out");
    let options = HuggingFaceOptions { float_type: FloatType::F32, ..HuggingFaceOptions::of(&model) };
    write(&model, &out, options).unwrap().finish().unwrap();
    let again = Model::open(&out).unwrap();
    assert_eq!(again.rope_frequency_factors().unwrap().unwrap(), factors);
    let config: serde_json::Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["rope_scaling"]["factor"], 32.0);
}

#[test]
fn every_architecture_comes_back_from_its_folder() {
    let place = tempfile::tempdir().unwrap();
    let assets = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/architectures"));
    for name in ["qwen3.gguf", "granite.gguf", "smollm3.gguf", "gemma3.gguf", "mistral", "gemma3"] {
        let model = Model::open(&assets.join(name)).unwrap();
        let out = place.path().join(name);
        let options = HuggingFaceOptions { float_type: FloatType::F32, ..HuggingFaceOptions::of(&model) };
        write(&model, &out, options).unwrap().finish().unwrap();
        let again = Model::open(&out).unwrap();
        assert_same_weights(&model, &again);
        let config = espalier_model::ModelConfig { name: model.config().name.clone(), ..again.config().clone() };
        assert_eq!(&config, model.config(), "{name}");
        // The file of the folder and that of the converter say the same.
        let source = Model::open(&assets.join(name.trim_end_matches(".gguf"))).unwrap();
        let config = espalier_model::ModelConfig { name: source.config().name.clone(), ..config };
        assert_eq!(&config, source.config(), "{name}");
        assert_same_weights(&source, &again);
    }
}

#[test]
fn a_model_without_a_class_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let file = as_gguf(place.path(), &|_| {});
    let bytes = fs::read(&file).unwrap();
    // Two of the four elements of a head are rotated.
    let key = b"llama.rope.dimension_count";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    let mut changed = bytes;
    assert_eq!(changed[at], 4);
    changed[at] = 2;
    fs::write(&file, changed).unwrap();
    let model = Model::open(&file).unwrap();
    let out = place.path().join("out");
    let message = HuggingFaceWriter::create(&model, &out, HuggingFaceOptions::of(&model)).err().unwrap().to_string();
    assert!(message.contains("rotates 2 of the 4") && message.contains(".gguf"), "{message}");
    assert!(!out.exists());
}

#[test]
fn an_unfinished_folder_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let model = Model::open(Path::new(STORIES)).unwrap();
    let options = HuggingFaceOptions { float_type: FloatType::F32, ..HuggingFaceOptions::of(&model) };
    let mut writer = HuggingFaceWriter::create(&model, &out, options).unwrap();
    writer.write_tensor_data(&[0; 8]).unwrap();
    assert!(writer.write_tensor_data(&vec![0; 1 << 20]).unwrap_err().to_string().contains("which lacks"));
    assert!(writer.finish().err().unwrap().to_string().contains("not all of its data"));
    drop(write(&model, &out, options).unwrap());
    assert!(names(place.path()).is_empty());
}
