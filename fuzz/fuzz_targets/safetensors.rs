//! safetensors of any bytes: as an adapter, and, for one in sixteen, as the weights of a folder whose configuration and
//! tokenizer are good (reading the tokenizer costs a hundred times what the weights do).
#![no_main]

use espalier_model::{LoraAdapter, Model, ModelConfig};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

#[path = "../scratch.rs"]
mod scratch;

static CONFIG: OnceLock<ModelConfig> = OnceLock::new();

fn folder(weights: &[u8]) -> Option<Model> {
    scratch::file("folder/config.json", include_bytes!("../seeds/folder/config.json"));
    scratch::file("folder/tokenizer.json", include_bytes!("../seeds/folder/tokenizer.json"));
    Model::open(scratch::file("folder/model.safetensors", weights).parent()?).ok()
}

fuzz_target!(|data: &[u8]| {
    let config = CONFIG.get_or_init(|| {
        folder(include_bytes!("../seeds/folder/model.safetensors")).expect("a good folder").config().clone()
    });
    let settings = br#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "target_modules": ["q_proj"]}"#;
    scratch::file("adapter/adapter_config.json", settings);
    let weights = scratch::file("adapter/adapter_model.safetensors", data);
    if let Some(adapter) = weights.parent() {
        let _ = LoraAdapter::load(adapter, config);
    }
    if data.len() % 16 == 0 {
        let _ = folder(data);
    }
});
