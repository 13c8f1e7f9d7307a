//! Adapters that we trained, as peft and llama-server compute them (scripts/golden-adapter.py) against ours, from each form
//! that they have: `DoRA` has none in GGUF, and what llama-server says is of the merged model. Adapters of the 260K llama and
//! of a small qwen2 lie beside their goldens; `ESPALIER_TEST_ADAPTER` may name a folder of the same layout (`adapter/`,
//! `adapter.gguf`, `golden.json`) for the model in `ESPALIER_TEST_SMOLLM2`.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

use espalier_inference::{EngineOptions, NativeEngine, Prompt, Request};
use espalier_kernels::Precision;
use espalier_model::{LoraAdapter, Model};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The largest difference of a log-probability among peft's top 64, and equal greedy texts.
fn agreement(model: &Model, adapter: &Path, golden: &serde_json::Value) -> (f64, usize) {
    let adapter = LoraAdapter::load(adapter, model.config()).unwrap();
    let options = EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    let engine = NativeEngine::load(model, Some(&adapter), &options).unwrap();
    let list = |value: &serde_json::Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let (mut largest, mut greedy) = (0.0_f64, 0);
    let (mut requests, mut texts) = (Vec::new(), Vec::new());
    for prompt in golden["prompts"].as_array().unwrap() {
        let ids = list(&prompt["ids"]);
        let first = prompt["first"].as_u64().unwrap() as usize;
        engine
            .logits(&ids, &mut |position, logits| {
                let Some(top) = position.checked_sub(first).map(|index| &prompt["top"][index]) else { return };
                let highest = logits.iter().fold(f32::MIN, |a, b| a.max(*b));
                let sum: f64 = logits.iter().map(|value| f64::from(value - highest).exp()).sum();
                let theirs: Vec<f64> = serde_json::from_value(top["logprobs"].clone()).unwrap();
                for (id, millionths) in list(&top["ids"]).into_iter().zip(theirs) {
                    let ours = f64::from(logits[id as usize] - highest) - sum.ln();
                    largest = largest.max((ours - millionths / 1e6).abs());
                }
            })
            .unwrap();
        requests.push(Request::new(Prompt::Tokens(ids), 32));
        texts.push(list(&prompt["greedy"]));
    }
    let ends = |token: &u32| engine.tokenizer().is_end_of_generation(*token);
    engine
        .generate(&requests, &mut |index, answer| {
            let ours: Vec<u32> = answer.unwrap().tokens.into_iter().take_while(|token| !ends(token)).collect();
            let theirs: Vec<u32> = texts[index].iter().copied().take_while(|token| !ends(token)).collect();
            greedy += usize::from(ours == theirs);
            ControlFlow::Continue(())
        })
        .unwrap();
    (largest, greedy)
}

fn check(model: &Model, folder: &Path) {
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("golden.json")).unwrap()).unwrap();
    let prompts = golden["prompts"].as_array().unwrap().len();
    let forms = ["adapter", "adapter.gguf"].into_iter().filter(|form| folder.join(form).exists());
    for form in forms {
        let (largest, greedy) = agreement(model, &folder.join(form), &golden);
        println!("{form}: log-probabilities differ by {largest:.2e} at most, {greedy} of {prompts} greedy texts equal");
        assert!(largest < 2e-4, "{form}: {largest}");
        assert_eq!(greedy, prompts, "{form}");
    }
}

#[test]
fn the_260k_model_with_its_adapter_is_what_peft_and_llama_server_compute() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let model = Model::open(&tests.join("assets/model/stories260K.bin")).unwrap();
    check(&model, &tests.join("golden/adapter-260k"));
}

/// Twenty steps each on the rows of a list: `DoRA` on every matrix; rank-stabilised `DoRA` on some by a pattern, with ranks and an
/// alpha of their own in the top layers, gone on from; rank-stabilised `LoRA` with ranks and an alpha of their own.
#[test]
fn every_variant_on_a_llama_and_a_qwen2_is_what_peft_and_llama_server_compute() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (name, model) in
        [("llama", "tests/assets/model/stories260K.bin"), ("qwen2", "train/tests/golden/tiny-qwen2/model")]
    {
        let model = Model::open(&root.join(model)).unwrap();
        for variant in ["dora", "dora-continued", "rslora-patterns"] {
            let folder = root.join(format!("tests/golden/adapters/{name}-{variant}"));
            assert_eq!(folder.join("adapter.gguf").exists(), variant == "rslora-patterns");
            println!("{name}, {variant}");
            check(&model, &folder);
        }
    }
}

#[test]
fn smollm2_with_its_adapter_is_what_peft_and_llama_server_compute() {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (Some(model), Some(folder)) = (variable("ESPALIER_TEST_SMOLLM2"), variable("ESPALIER_TEST_ADAPTER")) else {
        println!("ESPALIER_TEST_SMOLLM2 and ESPALIER_TEST_ADAPTER are not both set: not compared");
        return;
    };
    check(&Model::open(&model).unwrap(), &folder);
}
