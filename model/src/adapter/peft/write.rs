//! An adapter to a PEFT folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};

use super::{BASE_SHA256, CHAT_TEMPLATE, CONFIG, PREFIX, WEIGHTS, row_order};
use crate::adapter::gguf::little_endian;
use crate::adapter::{LoraAdapter, LoraModule};
use crate::atomic_file::AtomicFile;
use crate::huggingface::names::linear_from_gguf;
use crate::{ModelConfig, ModelError};

pub(in crate::adapter) fn save(adapter: &LoraAdapter, folder: &Path, config: &ModelConfig) -> Result<(), ModelError> {
    fs::create_dir_all(folder).map_err(ModelError::file(folder, "create the folder"))?;
    let mut data: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut named: Vec<(String, &LoraModule)> = Vec::new();
    for (module, update) in &adapter.modules {
        // Checked by the caller: every module is a linear layer of a block.
        let Some(name) = linear_from_gguf(module) else {
            continue;
        };
        let order = row_order(config, module);
        let tensor = |part: &str| format!("{PREFIX}{name}.{part}");
        let b = order.to_file(&update.b, update.rank);
        data.push((tensor("lora_A.weight"), vec![update.rank, update.inputs], little_endian(&update.a)));
        data.push((tensor("lora_B.weight"), vec![update.outputs, update.rank], little_endian(&b)));
        if let Some(magnitude) = &update.magnitude {
            let magnitude = little_endian(&order.to_file(magnitude, 1));
            data.push((tensor("lora_magnitude_vector"), vec![update.outputs], magnitude));
        }
        named.push((name, update));
    }
    let config_path = folder.join(CONFIG);
    let weights_path = folder.join(WEIGHTS);
    let unwritable = |error: safetensors::SafeTensorError| {
        ModelError::invalid(
            weights_path.display().to_string(),
            error.to_string(),
            "report this: the shapes were checked before",
        )
    };
    let mut views = Vec::with_capacity(data.len());
    for (name, shape, bytes) in &data {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(unwritable)?;
        views.push((name.as_str(), view));
    }
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut weights = safetensors::serialize(views, Some(format)).map_err(unwritable)?;
    if let Some(sha256) = &adapter.base_sha256 {
        weights = with_metadata(weights, BASE_SHA256, sha256);
    }
    let template_path = folder.join(CHAT_TEMPLATE);
    match &adapter.chat_template {
        Some(template) => write_whole(&template_path, template.as_bytes())?,
        // One of an earlier adapter in this folder would be taken for this adapter's.
        None if template_path.exists() => {
            fs::remove_file(&template_path).map_err(ModelError::file(&template_path, "remove it"))?;
        }
        None => {}
    }
    write_whole(&config_path, format!("{:#}\n", settings(adapter, &named, config.layers)).as_bytes())?;
    write_whole(&weights_path, &weights)
}

/// A safetensors file with one entry more in its metadata: the library takes them in a map that has another order each time.
fn with_metadata(file: Vec<u8>, key: &str, value: &str) -> Vec<u8> {
    // Eight bytes of length, a JSON object that spaces fill up to a multiple of eight, the data.
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return file;
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let Some((header, data)) = rest.split_at_checked(length) else {
        return file;
    };
    let Ok(mut header) = serde_json::from_slice::<Value>(header) else {
        return file;
    };
    header["__metadata__"][key] = json!(value);
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat()
}

/// `adapter_config.json` for the modules under their names in PEFT.
fn settings(adapter: &LoraAdapter, modules: &[(String, &LoraModule)], layers: usize) -> Value {
    let (rank, alpha) = adapter.usual_rank_and_alpha();
    let (target_modules, layers_to_transform) = targets(modules, layers);
    json!({
        "alpha_pattern": pattern(modules, |module| module.alpha, alpha, tidy_number),
        "auto_mapping": null,
        "base_model_name_or_path": adapter.base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": layers_to_transform,
        "lora_alpha": tidy_number(alpha),
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": pattern(modules, |module| module.rank, rank, |rank| json!(rank)),
        "revision": null,
        "target_modules": target_modules,
        "task_type": "CAUSAL_LM",
        "use_dora": adapter.is_dora(),
        "use_rslora": adapter.rslora,
    })
}

/// PEFT writes whole alphas as integers, and some readers want them so.
fn tidy_number(value: f32) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e9 { json!(value as i64) } else { json!(value) }
}

/// The last part of a module's name.
fn leaf(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or_default()
}

/// `target_modules` and `layers_to_transform`: the last parts of the names where these stand in every layer, as PEFT writes
/// them, with the layers where they stand in some; whole names otherwise, so that no other module gets an empty adapter.
fn targets(modules: &[(String, &LoraModule)], layers: usize) -> (Vec<String>, Option<Vec<usize>>) {
    let leaves: BTreeSet<&str> = modules.iter().map(|(name, _)| leaf(name)).collect();
    let adapted: BTreeSet<usize> =
        modules.iter().filter_map(|(name, _)| name.split('.').nth(2)?.parse().ok()).collect();
    if modules.len() == leaves.len() * adapted.len() {
        let some = adapted.len() < layers;
        return (leaves.into_iter().map(str::to_owned).collect(), some.then(|| adapted.into_iter().collect()));
    }
    (modules.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>().into_iter().collect(), None)
}

/// What differs from the usual value: by the last part of the name where all modules of that name share it, by whole names
/// otherwise.
fn pattern<T: Copy + PartialEq>(
    modules: &[(String, &LoraModule)],
    value: impl Fn(&LoraModule) -> T,
    usual: T,
    number: impl Fn(T) -> Value,
) -> Value {
    let mut by_leaf: BTreeMap<&str, Vec<(&str, T)>> = BTreeMap::new();
    for (name, module) in modules {
        by_leaf.entry(leaf(name)).or_default().push((name, value(module)));
    }
    let mut patterns = Map::new();
    for (leaf, members) in by_leaf {
        if members.iter().all(|(_, value)| *value == members[0].1) {
            if members[0].1 != usual {
                patterns.insert(leaf.to_owned(), number(members[0].1));
            }
            continue;
        }
        for (name, value) in members.into_iter().filter(|(_, value)| *value != usual) {
            patterns.insert(name.replace('.', "\\."), number(value));
        }
    }
    Value::Object(patterns)
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.finish()
}
