//! Merged Hugging Face folders: the model that transformers found in one, and what the base with its adapter computes.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use espalier_inference::{EngineOptions, NativeEngine};
use espalier_kernels::Precision;
use espalier_model::huggingface::{FloatType, HuggingFaceOptions};
use espalier_model::{Existing, LoraAdapter, Message, Model, SpecialTokens};
use espalier_quantize::{FileType, FolderReport, QuantizeError, QuantizeOptions, quantize, write_folder};
use serde_json::Value;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests")
}

fn stories() -> (Model, LoraAdapter) {
    let model = Model::open(&tests().join("assets/model/stories260K.bin")).unwrap();
    let adapter = LoraAdapter::load(&tests().join("golden/adapter-260k/adapter"), model.config()).unwrap();
    (model, adapter)
}

fn merge(
    model: &Model,
    adapter: &LoraAdapter,
    out: &Path,
    float_type: FloatType,
) -> Result<FolderReport, QuantizeError> {
    let options = HuggingFaceOptions { float_type, ..HuggingFaceOptions::of(model) };
    write_folder(model, Some(adapter), out, options, &[], &mut |_| {})
}

/// All logits of a text in f32.
fn logits(model: &Model, adapter: Option<&LoraAdapter>, ids: &[u32]) -> Vec<Vec<f32>> {
    let options = EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    let engine = NativeEngine::load(model, adapter, &options).unwrap();
    let mut rows = Vec::new();
    engine.logits(ids, &mut |_, logits| rows.push(logits.to_vec())).unwrap();
    rows
}

fn log_probability(logits: &[f32], id: usize) -> f64 {
    let highest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    f64::from(logits[id] - highest) - sum.ln()
}

/// tests/golden/merged-260k.json: scripts/check-merged.py on the folder that this test writes.
#[test]
fn the_folder_is_the_model_that_transformers_found_in_it() {
    let golden: Value = serde_json::from_slice(&fs::read(tests().join("golden/merged-260k.json")).unwrap()).unwrap();
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("merged");
    let (base, adapter) = stories();
    let report = merge(&base, &adapter, &out, FloatType::F32).unwrap();
    assert_eq!(report.verification.tensors, 5 * 9 + 2);
    let merged = Model::open(&out).unwrap();

    let mut largest = 0.0_f64;
    for prompt in golden["prompts"].as_array().unwrap() {
        let ids: Vec<u32> = serde_json::from_value(prompt["ids"].clone()).unwrap();
        let first = prompt["first"].as_u64().unwrap() as usize;
        let rows = logits(&merged, None, &ids);
        for (row, top) in rows[first..].iter().zip(prompt["top"].as_array().unwrap()) {
            let ids: Vec<usize> = serde_json::from_value(top["ids"].clone()).unwrap();
            let theirs: Vec<f64> = serde_json::from_value(top["logprobs"].clone()).unwrap();
            for (id, millionths) in ids.into_iter().zip(theirs) {
                largest = largest.max((log_probability(row, id) - millionths / 1e6).abs());
            }
        }
    }
    println!("log-probabilities differ by {largest:.2e} at most");
    assert!(largest < 1e-4, "{largest}");

    let tokenizer = merged.tokenizer();
    let texts = golden["texts"].as_array().unwrap();
    assert!(texts.len() > 200);
    for text in texts {
        let ids: Vec<u32> = serde_json::from_value(text["ids"].clone()).unwrap();
        let text = text["text"].as_str().unwrap();
        let ours: Vec<u32> = tokenizer.bos().into_iter().chain(tokenizer.encode(text, SpecialTokens::Parse)).collect();
        assert_eq!(ours, ids, "{text:?}");
    }
    for chat in golden["chats"].as_array().unwrap() {
        let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
        assert_eq!(merged.chat_template().render(&messages, true).unwrap(), chat["text"].as_str().unwrap());
    }
}

#[test]
fn a_folder_holds_the_weights_of_the_merged_gguf() {
    let place = tempfile::tempdir().unwrap();
    let (base, adapter) = stories();
    let (folder, file) = (place.path().join("folder"), place.path().join("file.gguf"));
    merge(&base, &adapter, &folder, FloatType::F32).unwrap();
    quantize(&base, Some(&adapter), FileType::F32, &file, &QuantizeOptions::default(), &mut |_| {}).unwrap();
    let (folder, file) = (Model::open(&folder).unwrap(), Model::open(&file).unwrap());
    for info in file.tensors() {
        let (one, two) = (file.tensor(&info.name).unwrap(), folder.tensor(&info.name).unwrap());
        assert_eq!(one.to_vec().unwrap(), two.to_vec().unwrap(), "{}", info.name);
    }
    let ids = [1, 403, 407, 261, 378];
    for (with_adapter, merged) in logits(&base, Some(&adapter), &ids).iter().zip(logits(&folder, None, &ids)) {
        for (one, two) in with_adapter.iter().zip(&merged) {
            assert!((one - two).abs() < 1e-3, "{one} {two}");
        }
    }
}

#[test]
fn a_folder_as_base_keeps_its_files() {
    let place = tempfile::tempdir().unwrap();
    let (base, adapter) = stories();
    let [first, second, third] = ["first", "second", "third"].map(|name| place.path().join(name));
    merge(&base, &adapter, &first, FloatType::F16).unwrap();
    let once = Model::open(&first).unwrap();
    assert_eq!(HuggingFaceOptions::of(&once).float_type, FloatType::F16);
    let adapter = LoraAdapter::load(&tests().join("golden/adapter-260k/adapter"), once.config()).unwrap();
    merge(&once, &adapter, &second, FloatType::F16).unwrap();
    merge(&once, &adapter, &third, FloatType::Bf16).unwrap();
    let files = |folder: &Path| -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect()
    };
    let (first, second, third) = (files(&first), files(&second), files(&third));
    assert_eq!(first.len(), 6);
    for (name, bytes) in &first {
        assert_eq!(bytes == &second[name], name != "model.safetensors", "{name}");
        assert_eq!(bytes == &third[name], name != "model.safetensors" && name != "config.json", "{name}");
    }
    let config = String::from_utf8(first["config.json"].clone()).unwrap();
    assert_eq!(config.replace("float16", "bfloat16").into_bytes(), third["config.json"]);
}

#[test]
fn a_folder_that_is_there_is_replaced_only_when_asked() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("merged");
    let (base, adapter) = stories();
    merge(&base, &adapter, &out, FloatType::F32).unwrap();
    let refused = merge(&base, &adapter, &out, FloatType::Bf16).unwrap_err().to_string();
    assert!(refused.contains("already there"), "{refused}");
    assert_eq!(FloatType::of(&Model::open(&out).unwrap()), FloatType::F32);
    let options = HuggingFaceOptions { existing: Existing::Replace, ..HuggingFaceOptions::of(&base) };
    write_folder(&base, Some(&adapter), &out, options, &[], &mut |_| {}).unwrap();
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    let model = Model::open(&out).unwrap();
    assert_eq!(model.tensor("blk.0.attn_q.weight").unwrap().info().block_type.name(), "BF16");
}

#[test]
fn the_template_that_an_adapter_was_trained_with_goes_into_what_it_is_merged_into() {
    let place = tempfile::tempdir().unwrap();
    let (base, adapter) = stories();
    let template = "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}";
    let adapter = LoraAdapter { chat_template: Some(template.to_owned()), ..adapter };
    let (first, gguf, again) =
        (place.path().join("first"), place.path().join("merged.gguf"), place.path().join("again"));
    merge(&base, &adapter, &first, FloatType::F32).unwrap();
    quantize(&base, Some(&adapter), FileType::F32, &gguf, &QuantizeOptions::default(), &mut |_| {}).unwrap();
    for path in [&first, &gguf] {
        assert_eq!(Model::open(path).unwrap().chat_template().source(), template);
    }
    // transformers finds one place for it, and a folder as base has that of its adapter too.
    let settings = |folder: &Path| fs::read_to_string(folder.join("tokenizer_config.json")).unwrap();
    assert!(!settings(&first).contains("chat_template"));
    let folder = Model::open(&first).unwrap();
    let other = LoraAdapter { chat_template: Some("{{ messages[0].content }}".to_owned()), ..adapter };
    merge(&folder, &other, &again, FloatType::F32).unwrap();
    assert_eq!(Model::open(&again).unwrap().chat_template().source(), "{{ messages[0].content }}");
    // The engine speaks by it before it is merged, and is another engine for caches.
    let options = EngineOptions::default();
    let plain = LoraAdapter { chat_template: None, ..other.clone() };
    let [own, plain] = [&other, &plain].map(|adapter| NativeEngine::load(&base, Some(adapter), &options).unwrap());
    assert_eq!(own.chat_template().render(&[Message::new("user", "Hi")], true).unwrap(), "Hi");
    assert_ne!(own.identity(), plain.identity());
}
