//! Adapters as PEFT stores them: `adapter_config.json` and `adapter_model.safetensors` with
//! `base_model.model.model.layers.{i}.self_attn.q_proj.lora_A.weight` `[rank, inputs]` and `lora_B` `[outputs, rank]`.
//!
//! For llama the rows of q and k in `lora_B` have the order of Hugging Face in these files and that of GGUF in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use fancy_regex::Regex;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use serde_json::json;

use super::gguf::little_endian;
use super::{LoosePair, LoraAdapter, LoraPair, unify};
use crate::atomic_file::AtomicFile;
use crate::error::DOWNLOAD_AGAIN;
use crate::huggingface::bad_json;
use crate::huggingface::names::{linear_from_gguf, linear_to_gguf};
use crate::row_order::RowOrder;
use crate::safetensors_file::{self, SafeTensor};
use crate::{ModelConfig, ModelError};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// The fields that change what the weights mean; others are left alone.
#[derive(Debug, Deserialize)]
struct PeftConfig {
    peft_type: String,
    r: usize,
    lora_alpha: f32,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    bias: Option<String>,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    rank_pattern: Option<BTreeMap<String, usize>>,
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, f32>>,
    base_model_name_or_path: Option<String>,
}

fn parse_config(source: &str) -> Result<PeftConfig, ModelError> {
    let config: PeftConfig = serde_json::from_str(source).map_err(|error| bad_json(&error))?;
    let refuse = |field: &str, found: String| {
        Err(ModelError::invalid(
            format!("field {field:?}"),
            format!("{found} is not supported"),
            "train or export the adapter as plain LoRA, or merge it into its model",
        ))
    };
    if config.peft_type != "LORA" {
        return refuse("peft_type", format!("{:?}", config.peft_type));
    }
    if config.use_dora {
        return refuse("use_dora", "DoRA".to_owned());
    }
    if config.fan_in_fan_out {
        return refuse("fan_in_fan_out", "a transposed weight".to_owned());
    }
    if let Some(bias) = &config.bias
        && bias != "none"
    {
        return refuse("bias", format!("training biases ({bias:?})"));
    }
    if let Some(modules) = &config.modules_to_save
        && !modules.is_empty()
    {
        return refuse("modules_to_save", format!("fully trained modules ({})", modules.join(", ")));
    }
    if config.r == 0 {
        return refuse("r", "a rank of 0".to_owned());
    }
    Ok(config)
}

impl PeftConfig {
    fn scale(&self, alpha: f32, rank: usize) -> f32 {
        let rank = rank as f32;
        alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Rank and alpha of a module (`model.layers.0.self_attn.q_proj`), after the patterns.
    fn of_module(&self, module: &str) -> Result<(usize, f32), ModelError> {
        let rank = match_pattern(self.rank_pattern.as_ref(), module)?.unwrap_or(self.r);
        let alpha = match_pattern(self.alpha_pattern.as_ref(), module)?.unwrap_or(self.lora_alpha);
        Ok((rank, alpha))
    }
}

/// The value of the first pattern that matches the end of a module's name, after a dot or whole, as PEFT matches them.
fn match_pattern<T: Copy>(patterns: Option<&BTreeMap<String, T>>, module: &str) -> Result<Option<T>, ModelError> {
    for (pattern, &value) in patterns.into_iter().flatten() {
        let bad = |error: fancy_regex::Error| {
            ModelError::invalid(
                format!("pattern {pattern:?}"),
                error.to_string(),
                "correct rank_pattern and alpha_pattern in adapter_config.json",
            )
        };
        let whole = Regex::new(&format!("^(?:.*\\.)?(?:{pattern})$")).map_err(bad)?;
        if whole.is_match(module).map_err(bad)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

pub(super) fn load(folder: &Path, config: &ModelConfig) -> Result<LoraAdapter, ModelError> {
    let path = folder.join(CONFIG);
    let source = fs::read_to_string(&path).map_err(ModelError::file(&path, "read the adapter's settings"))?;
    let settings = parse_config(&source).map_err(|error| error.in_file(&path))?;
    let path = folder.join(WEIGHTS);
    let (map, tensors) = safetensors_file::open(&path)?;
    read_weights(&settings, &tensors, &map, config).map_err(|error| error.in_file(&path))
}

#[derive(Default)]
struct Factors<'a> {
    a: Option<&'a SafeTensor>,
    b: Option<&'a SafeTensor>,
}

fn read_weights(
    settings: &PeftConfig,
    tensors: &[SafeTensor],
    file: &[u8],
    config: &ModelConfig,
) -> Result<LoraAdapter, ModelError> {
    let mut factors: BTreeMap<String, Factors<'_>> = BTreeMap::new();
    for tensor in tensors {
        let Some((module, is_a)) = split_name(&tensor.name) else {
            return Err(ModelError::invalid(
                format!("tensor {:?}", tensor.name),
                "it is neither lora_A nor lora_B of a linear layer of llama or qwen2",
                "train or export the adapter as plain LoRA on the linear layers of the blocks",
            ));
        };
        let entry = factors.entry(module).or_default();
        let place = if is_a { &mut entry.a } else { &mut entry.b };
        if place.replace(tensor).is_some() {
            return Err(ModelError::invalid(
                format!("tensor {:?}", tensor.name),
                "the same factor stands twice under two names",
                "keep one adapter in the file",
            ));
        }
    }
    let mut modules = BTreeMap::new();
    for (module, Factors { a, b }) in factors {
        let (Some(a), Some(b)) = (a, b) else {
            let which = if a.is_none() { "lora_A" } else { "lora_B" };
            let name = format!("{PREFIX}{module}.{which}.weight");
            return Err(ModelError::MissingTensor { name, expected: "any".to_owned() });
        };
        let (rank, alpha) = settings.of_module(&module)?;
        let (&[rank_of_a, inputs], &[outputs, rank_of_b]) = (a.shape.as_slice(), b.shape.as_slice()) else {
            return Err(ModelError::invalid(
                format!("adapter module {module:?}"),
                format!("lora_A has shape {:?}, lora_B {:?}", a.shape, b.shape),
                DOWNLOAD_AGAIN,
            ));
        };
        if (rank_of_a, rank_of_b) != (rank, rank) {
            return Err(ModelError::invalid(
                format!("adapter module {module:?}"),
                format!("adapter_config.json says rank {rank}, lora_A has {rank_of_a}, lora_B {rank_of_b}"),
                "the two files are of different adapters: export the adapter again",
            ));
        }
        // The parts of the name are those of a block's linear layer.
        let name = linear_to_gguf(&module).unwrap_or_else(|| module.clone());
        let b = safetensors_file::decode(b, file)?;
        let b = match row_order(config, &name) {
            // Rows that do not divide are refused with the other shapes.
            order if config.linear_shape(&name) == Some((inputs, outputs)) => order.to_gguf(&b, rank),
            _ => b,
        };
        let pair = LoraPair { a: safetensors_file::decode(a, file)?, b, inputs, outputs };
        modules.insert(name, LoosePair { pair, rank, scale: settings.scale(alpha, rank) });
    }
    let (rank, modules) = unify(modules, config, |rank| settings.scale(settings.lora_alpha, rank))?;
    Ok(LoraAdapter {
        rank,
        alpha: settings.lora_alpha,
        rslora: settings.use_rslora,
        base_model: settings.base_model_name_or_path.clone().unwrap_or_default(),
        modules,
    })
}

/// The module and whether the tensor is `lora_A`; the adapter's name "default" may stand before "weight".
fn split_name(name: &str) -> Option<(String, bool)> {
    let rest = name.strip_prefix(PREFIX)?.strip_suffix(".weight")?;
    let rest = rest.strip_suffix(".default").unwrap_or(rest);
    let (module, factor) = rest.rsplit_once('.')?;
    let is_a = match factor {
        "lora_A" => true,
        "lora_B" => false,
        _ => return None,
    };
    linear_to_gguf(module)?;
    Some((module.to_owned(), is_a))
}

fn row_order(config: &ModelConfig, module: &str) -> RowOrder {
    config.permuted_heads(module).map_or(RowOrder::AsStored, |heads| RowOrder::Halves { heads })
}

pub(super) fn save(adapter: &LoraAdapter, folder: &Path, config: &ModelConfig) -> Result<(), ModelError> {
    fs::create_dir_all(folder).map_err(ModelError::file(folder, "create the folder"))?;
    let mut data: Vec<(String, [usize; 2], Vec<u8>)> = Vec::new();
    let mut targets: Vec<String> = Vec::new();
    for (module, pair) in &adapter.modules {
        // Checked by the caller: every module is a linear layer of a block.
        let Some(name) = linear_from_gguf(module) else {
            continue;
        };
        let b = row_order(config, module).to_file(&pair.b, adapter.rank);
        let tensor = |factor: &str| format!("{PREFIX}{name}.{factor}.weight");
        data.push((tensor("lora_A"), [adapter.rank, pair.inputs], little_endian(&pair.a)));
        data.push((tensor("lora_B"), [pair.outputs, adapter.rank], little_endian(&b)));
        targets.push(name);
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
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).map_err(unwritable)?;
        views.push((name.as_str(), view));
    }
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let weights = safetensors::serialize(views, Some(format)).map_err(unwritable)?;

    let settings = json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": adapter.base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": tidy_number(adapter.alpha),
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": adapter.rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": target_modules(&targets, config.layers),
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": adapter.rslora,
    });
    write_whole(&config_path, format!("{settings:#}\n").as_bytes())?;
    write_whole(&weights_path, &weights)
}

/// PEFT writes whole alphas as integers, and some readers want them so.
fn tidy_number(value: f32) -> serde_json::Value {
    if value.fract() == 0.0 && value.abs() < 1e9 { json!(value as i64) } else { json!(value) }
}

/// The last parts of the names where these stand in every layer, as PEFT writes them; whole names otherwise, so that
/// no other layer gets an empty adapter.
fn target_modules(modules: &[String], layers: usize) -> Vec<String> {
    let short = |module: &String| module.rsplit('.').next().unwrap_or_default().to_owned();
    let parts: BTreeSet<String> = modules.iter().map(short).collect();
    if modules.len() == parts.len() * layers {
        return parts.into_iter().collect();
    }
    modules.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &str = r#"{"peft_type":"LORA","r":8,"lora_alpha":16"#;

    #[test]
    fn kinds_other_than_plain_lora_are_refused_by_name() {
        assert!(parse_config(&format!("{PLAIN}}}")).is_ok());
        for (extra, expected) in [
            (r#","use_dora":true"#, "DoRA"),
            (r#","bias":"all""#, "biases"),
            (r#","modules_to_save":["lm_head"]"#, "lm_head"),
            (r#","fan_in_fan_out":true"#, "transposed"),
        ] {
            let message = parse_config(&format!("{PLAIN}{extra}}}")).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(parse_config(r#"{"peft_type":"IA3","r":8,"lora_alpha":1}"#).is_err());
        assert!(parse_config("[]").is_err() && parse_config("").is_err());
    }

    #[test]
    fn patterns_match_ends_of_names() {
        let source =
            format!(r#"{PLAIN},"rank_pattern":{{"q_proj":4,"layers.1.mlp.*":2}},"alpha_pattern":{{"_proj":1}}}}"#);
        let config = parse_config(&source).unwrap();
        assert_eq!(config.of_module("model.layers.0.self_attn.q_proj").unwrap(), (4, 16.0));
        assert_eq!(config.of_module("model.layers.1.mlp.up_proj").unwrap(), (2, 16.0));
        assert_eq!(config.of_module("model.layers.11.mlp.up_proj").unwrap(), (8, 16.0));
    }

    #[test]
    fn names_are_taken_apart() {
        let name = "base_model.model.model.layers.3.mlp.up_proj.lora_A.weight";
        assert_eq!(split_name(name), Some(("model.layers.3.mlp.up_proj".to_owned(), true)));
        let name = "base_model.model.model.layers.3.mlp.up_proj.lora_B.default.weight";
        assert_eq!(split_name(name), Some(("model.layers.3.mlp.up_proj".to_owned(), false)));
        assert_eq!(split_name("base_model.model.lm_head.weight"), None);
    }

    proptest! {
        #[test]
        fn random_settings_never_panic(text in ".{0,200}", extra in ".{0,40}") {
            let _ = parse_config(&text);
            let _ = parse_config(&format!("{PLAIN},{extra:?}:1}}"));
            if let Ok(config) = parse_config(&format!(r#"{PLAIN},"rank_pattern":{{{extra:?}:3}}}}"#)) {
                let _ = config.of_module("model.layers.0.self_attn.q_proj");
            }
        }
    }
}
