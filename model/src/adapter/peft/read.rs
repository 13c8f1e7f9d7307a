//! A PEFT folder to an adapter.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::Deserialize;

use super::{BASE_SHA256, CHAT_TEMPLATE, CONFIG, PREFIX, WEIGHTS, row_order};
use crate::adapter::{LoraAdapter, LoraModule, ModulePatterns};
use crate::error::DOWNLOAD_AGAIN;
use crate::huggingface::bad_json;
use crate::huggingface::names::linear_to_gguf;
use crate::safetensors_file::{self, SafeTensor};
use crate::{ModelConfig, ModelError};

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
    rank_pattern: Option<ModulePatterns<usize>>,
    #[serde(default)]
    alpha_pattern: Option<ModulePatterns<f32>>,
    #[serde(default)]
    alora_invocation_tokens: Option<Vec<i64>>,
    #[serde(default)]
    layer_replication: Option<serde_json::Value>,
    base_model_name_or_path: Option<String>,
}

fn parse_config(source: &str) -> Result<PeftConfig, ModelError> {
    let config: PeftConfig = serde_json::from_str(source).map_err(|error| bad_json(&error))?;
    let refuse = |field: &str, found: String| {
        Err(ModelError::invalid(
            format!("field {field:?}"),
            format!("{found} is not supported"),
            "train or export the adapter as LoRA or DoRA, or merge it into its model",
        ))
    };
    if config.peft_type != "LORA" {
        return refuse("peft_type", format!("{:?}", config.peft_type));
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
    if config.alora_invocation_tokens.is_some() {
        return refuse("alora_invocation_tokens", "activated LoRA".to_owned());
    }
    if config.layer_replication.is_some() {
        return refuse("layer_replication", "a model with layers that stand twice".to_owned());
    }
    if config.r == 0 {
        return refuse("r", "a rank of 0".to_owned());
    }
    Ok(config)
}

impl PeftConfig {
    /// Rank and alpha of a module (`model.layers.0.self_attn.q_proj`), after the patterns.
    fn of_module(&self, module: &str) -> Result<(usize, f32), ModelError> {
        let rank = find(self.rank_pattern.as_ref(), module)?.unwrap_or(self.r);
        let alpha = find(self.alpha_pattern.as_ref(), module)?.unwrap_or(self.lora_alpha);
        Ok((rank, alpha))
    }
}

fn find<T: Copy>(patterns: Option<&ModulePatterns<T>>, module: &str) -> Result<Option<T>, ModelError> {
    let Some(patterns) = patterns else {
        return Ok(None);
    };
    Ok(patterns.find(module)?.map(|(_, value)| *value))
}

pub(in crate::adapter) fn load(folder: &Path, config: Option<&ModelConfig>) -> Result<LoraAdapter, ModelError> {
    let path = folder.join(CONFIG);
    if !path.exists()
        && let Some(inner) = adapter_below(folder)
    {
        return Err(ModelError::invalid(
            CONFIG,
            format!(
                "it is not in this folder, but in \"{}\" below it",
                inner.file_name().unwrap_or_default().display()
            ),
            format!("name {}", inner.display()),
        ));
    }
    let source = fs::read_to_string(&path).map_err(ModelError::file(&path, "read the adapter's settings"))?;
    let settings = parse_config(&source).map_err(|error| error.in_file(&path))?;
    let path = folder.join(WEIGHTS);
    let (map, tensors) = safetensors_file::open(&path)?;
    let mut adapter = read_weights(&settings, &tensors, &map, config).map_err(|error| error.in_file(&path))?;
    let metadata = SafeTensors::read_metadata(&map).ok().and_then(|(_, header)| header.metadata().clone());
    adapter.base_sha256 = metadata.and_then(|mut metadata| metadata.remove(BASE_SHA256));
    let path = folder.join(CHAT_TEMPLATE);
    if path.exists() {
        let template =
            fs::read_to_string(&path).map_err(ModelError::file(&path, "read the adapter's chat template"))?;
        adapter.chat_template = Some(template);
    }
    Ok(adapter)
}

/// An adapter in a folder of this folder, as a training leaves it: the one named `adapter`, else the last by name.
fn adapter_below(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    entries.filter(|inner| inner.join(CONFIG).exists()).max_by_key(|inner| (inner.ends_with("adapter"), inner.clone()))
}

/// The tensors of one module.
#[derive(Default)]
struct Parts<'a> {
    a: Option<&'a SafeTensor>,
    b: Option<&'a SafeTensor>,
    magnitude: Option<&'a SafeTensor>,
}

/// Which tensor of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    A,
    B,
    Magnitude,
}

fn read_weights(
    settings: &PeftConfig,
    tensors: &[SafeTensor],
    file: &[u8],
    config: Option<&ModelConfig>,
) -> Result<LoraAdapter, ModelError> {
    let mut parts: BTreeMap<String, Parts<'_>> = BTreeMap::new();
    for tensor in tensors {
        let Some((module, part)) = split_name(&tensor.name) else {
            return Err(ModelError::invalid(
                format!("tensor {:?}", tensor.name),
                "it is no lora_A, lora_B or lora_magnitude_vector of a linear layer of llama or qwen2",
                "train or export the adapter as LoRA or DoRA on the linear layers of the blocks",
            ));
        };
        let entry = parts.entry(module).or_default();
        let place = match part {
            Part::A => &mut entry.a,
            Part::B => &mut entry.b,
            Part::Magnitude => &mut entry.magnitude,
        };
        if place.replace(tensor).is_some() {
            return Err(ModelError::invalid(
                format!("tensor {:?}", tensor.name),
                "the same factor stands twice under two names",
                "keep one adapter in the file",
            ));
        }
    }
    let mut modules = BTreeMap::new();
    for (module, parts) in parts {
        // The parts of the name are those of a block's linear layer.
        let name = linear_to_gguf(&module).unwrap_or_else(|| module.clone());
        let read = read_module(settings, &module, &name, &parts, file, config)?;
        modules.insert(name, read);
    }
    Ok(LoraAdapter {
        rslora: settings.use_rslora,
        base_model: settings.base_model_name_or_path.clone().unwrap_or_default(),
        base_sha256: None,
        chat_template: None,
        modules,
    })
}

fn read_module(
    settings: &PeftConfig,
    module: &str,
    gguf_name: &str,
    parts: &Parts<'_>,
    file: &[u8],
    config: Option<&ModelConfig>,
) -> Result<LoraModule, ModelError> {
    let refuse =
        |problem: String, remedy: &str| ModelError::invalid(format!("adapter module {module:?}"), problem, remedy);
    let missing =
        |name: &str| ModelError::MissingTensor { name: format!("{PREFIX}{module}.{name}"), expected: "any".to_owned() };
    let a = parts.a.ok_or_else(|| missing("lora_A.weight"))?;
    let b = parts.b.ok_or_else(|| missing("lora_B.weight"))?;
    let (rank, alpha) = settings.of_module(module)?;
    let (&[rank_of_a, inputs], &[outputs, rank_of_b]) = (a.shape.as_slice(), b.shape.as_slice()) else {
        return Err(refuse(format!("lora_A has shape {:?}, lora_B {:?}", a.shape, b.shape), DOWNLOAD_AGAIN));
    };
    if (rank_of_a, rank_of_b) != (rank, rank) {
        return Err(refuse(
            format!("adapter_config.json says rank {rank}, lora_A has {rank_of_a}, lora_B {rank_of_b}"),
            "the two files are of different adapters: export the adapter again",
        ));
    }
    let magnitude = match (settings.use_dora, parts.magnitude) {
        (false, None) => None,
        (true, Some(magnitude)) if magnitude.shape == [outputs] => Some(safetensors_file::decode(magnitude, file)?),
        (true, Some(magnitude)) => {
            let problem = format!("its magnitudes have shape {:?} for {outputs} outputs", magnitude.shape);
            return Err(refuse(problem, DOWNLOAD_AGAIN));
        }
        (true, None) => return Err(missing("lora_magnitude_vector")),
        (false, Some(_)) => {
            return Err(refuse(
                "it has magnitudes, but adapter_config.json says no use_dora".to_owned(),
                "the two files are of different adapters: export the adapter again",
            ));
        }
    };
    // Rows that do not divide are refused with the other shapes.
    let config = config.filter(|config| config.linear_shape(gguf_name) == Some((inputs, outputs)));
    let in_gguf_order = |values: Vec<f32>, columns: usize| match config {
        Some(config) => row_order(config, gguf_name).to_gguf(&values, columns),
        None => values,
    };
    Ok(LoraModule {
        a: safetensors_file::decode(a, file)?,
        b: in_gguf_order(safetensors_file::decode(b, file)?, rank),
        inputs,
        outputs,
        rank,
        alpha,
        magnitude: magnitude.map(|values| in_gguf_order(values, 1)),
    })
}

/// The module and which of its tensors this is; the adapter's name "default" may stand behind it.
fn split_name(name: &str) -> Option<(String, Part)> {
    let rest = name.strip_prefix(PREFIX)?;
    let rest = rest.strip_suffix(".weight").unwrap_or(rest);
    let rest = rest.strip_suffix(".default").unwrap_or(rest);
    let (module, part) = rest.rsplit_once('.')?;
    let part = match part {
        "lora_A" => Part::A,
        "lora_B" => Part::B,
        "lora_magnitude_vector" => Part::Magnitude,
        _ => return None,
    };
    linear_to_gguf(module)?;
    Some((module.to_owned(), part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &str = r#"{"peft_type":"LORA","r":8,"lora_alpha":16"#;

    #[test]
    fn kinds_other_than_lora_and_dora_are_refused_by_name() {
        assert!(parse_config(&format!("{PLAIN}}}")).is_ok());
        for (extra, expected) in [
            (r#","alora_invocation_tokens":[1]"#, "activated"),
            (r#","layer_replication":[[0,4],[2,5]]"#, "twice"),
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
        assert_eq!(split_name(name), Some(("model.layers.3.mlp.up_proj".to_owned(), Part::A)));
        let name = "base_model.model.model.layers.3.mlp.up_proj.lora_B.default.weight";
        assert_eq!(split_name(name), Some(("model.layers.3.mlp.up_proj".to_owned(), Part::B)));
        for ending in ["", ".weight", ".default.weight"] {
            let name = format!("base_model.model.model.layers.3.mlp.up_proj.lora_magnitude_vector{ending}");
            assert_eq!(split_name(&name), Some(("model.layers.3.mlp.up_proj".to_owned(), Part::Magnitude)));
        }
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
