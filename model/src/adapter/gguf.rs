//! Adapters in GGUF, as `llama-server --lora` loads them: `adapter.lora.alpha`, and for each module
//! `NAME.weight.lora_a` with dimensions `[inputs, rank]` and `NAME.weight.lora_b` with `[rank, outputs]`.
//!
//! llama.cpp multiplies by `alpha / rank` with the rank of each module and one alpha for all: what rank-stabilised `LoRA`
//! divides by, `sqrt(rank)`, goes into alpha, and what a module's own alpha differs by goes into its `B`. There is no place
//! for the magnitudes of `DoRA`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use espalier_kernels::{BlockType, blocks};

use super::{LoraAdapter, LoraModule, most};
use crate::gguf::{GgufFile, GgufWriter, Metadata, TensorEntry, TensorHeader};
use crate::{ModelConfig, ModelError};

const ALPHA: &str = "adapter.lora.alpha";
const BASE_NAME: &str = "general.base_model.0.name";
const BASE_SHA256: &str = "espalier.base_model.sha256";
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

pub(super) fn load(path: &Path, config: Option<&ModelConfig>) -> Result<LoraAdapter, ModelError> {
    let file = GgufFile::open(path)?;
    let metadata = file.metadata();
    let expect = |key: &str, wanted: &str| match metadata.get_str(key)? {
        Some(found) if found == wanted => Ok(()),
        found => Err(ModelError::KeyType {
            key: key.to_owned(),
            expected: format!("{wanted:?}"),
            found: found.map_or("nothing".to_owned(), |found| format!("{found:?}")),
        }),
    };
    expect("general.type", "adapter")?;
    expect("adapter.type", "lora")?;
    if let Some(config) = config {
        expect("general.architecture", config.architecture.name())?;
    }
    let alpha = metadata.require_f32(ALPHA)?;

    let mut modules = BTreeMap::new();
    for entry in file.tensors() {
        if let Some(module) = entry.name.strip_suffix(".weight.lora_a") {
            modules.insert(module.to_owned(), read_module(&file, module, entry, alpha)?);
        } else if let Some(module) = entry.name.strip_suffix(".weight.lora_b") {
            let partner = format!("{module}.weight.lora_a");
            if file.tensor(&partner).is_none() {
                return Err(ModelError::MissingTensor { name: partner, expected: "any".to_owned() });
            }
        } else {
            return Err(ModelError::invalid(
                format!("tensor {:?}", entry.name),
                "it is neither lora_a nor lora_b of a weight",
                "export the adapter as plain LoRA",
            ));
        }
    }
    let base_model = metadata.get_str(BASE_NAME)?.unwrap_or_default().to_owned();
    let base_sha256 = metadata.get_str(BASE_SHA256)?.map(str::to_owned);
    let chat_template = metadata.get_str(CHAT_TEMPLATE)?.map(str::to_owned);
    Ok(LoraAdapter { rslora: false, base_model, base_sha256, chat_template, modules })
}

fn read_module(file: &GgufFile, module: &str, a: &TensorEntry, alpha: f32) -> Result<LoraModule, ModelError> {
    let name = format!("{module}.weight.lora_b");
    let Some(b) = file.tensor(&name) else {
        return Err(ModelError::MissingTensor { name, expected: "any".to_owned() });
    };
    let matrix = |entry: &TensorEntry| match entry.dimensions.as_slice() {
        [columns] => Ok((*columns, 1)),
        [columns, rows] => Ok((*columns, *rows)),
        other => Err(ModelError::invalid(
            format!("tensor {:?}", entry.name),
            format!("it has dimensions {other:?} and is no matrix"),
            "export the adapter again",
        )),
    };
    let ((inputs, rank), (rank_of_b, outputs)) = (matrix(a)?, matrix(b)?);
    if rank != rank_of_b {
        return Err(ModelError::invalid(
            format!("adapter module {module:?}"),
            format!("lora_a has rank {rank}, lora_b has {rank_of_b}"),
            "export the adapter again",
        ));
    }
    // llama.cpp takes an alpha of 0 for a scale of 1.
    let alpha = if alpha == 0.0 { rank as f32 } else { alpha };
    Ok(LoraModule { a: values(file, a)?, b: values(file, b)?, inputs, outputs, rank, alpha, magnitude: None })
}

fn values(file: &GgufFile, entry: &TensorEntry) -> Result<Vec<f32>, ModelError> {
    // The reader has checked that the product is that of the bytes in the file.
    let mut values = vec![0.0; entry.dimensions.iter().product()];
    blocks::decode(entry.block_type, file.data(entry), &mut values).map_err(|error| {
        ModelError::invalid(format!("tensor {:?}", entry.name), error.to_string(), "export the adapter again")
    })?;
    Ok(values)
}

pub(super) fn save(adapter: &LoraAdapter, path: &Path, config: &ModelConfig) -> Result<(), ModelError> {
    if adapter.is_dora() {
        return Err(ModelError::invalid(
            path.display().to_string(),
            "an adapter in GGUF has no place for the magnitudes of DoRA",
            "merge it with `pipeline adapter merge`, or keep the PEFT folder",
        ));
    }
    // That of most modules, so that few `b` change.
    let alphas = adapter.modules.values().map(|module| alpha_of_rank(adapter, module));
    let alpha = most(alphas, f32::total_cmp).unwrap_or(1.0);
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", config.architecture.name());
    metadata.insert("general.type", "adapter");
    metadata.insert("adapter.type", "lora");
    metadata.insert(ALPHA, alpha);
    metadata.insert("general.base_model.count", 1_u32);
    metadata.insert(BASE_NAME, adapter.base_model.as_str());
    if let Some(sha256) = &adapter.base_sha256 {
        metadata.insert(BASE_SHA256, sha256.as_str());
    }
    // llama.cpp passes over it: `llama-server --chat-template-file` takes it from the PEFT folder.
    if let Some(template) = &adapter.chat_template {
        metadata.insert(CHAT_TEMPLATE, template.as_str());
    }
    // All F32.
    metadata.insert("general.file_type", 0_u32);
    metadata.insert("general.quantization_version", 2_u32);
    let mut headers = Vec::new();
    for (name, module) in &adapter.modules {
        for (factor, dimensions) in
            [("lora_a", [module.inputs, module.rank]), ("lora_b", [module.rank, module.outputs])]
        {
            headers.push(TensorHeader {
                name: format!("{name}.weight.{factor}"),
                dimensions: dimensions.to_vec(),
                block_type: BlockType::F32,
            });
        }
    }
    let mut writer = GgufWriter::create(path, &metadata, &headers)?;
    for module in adapter.modules.values() {
        let own = alpha_of_rank(adapter, module);
        // Equal alphas leave `b` untouched to the last bit.
        let b = if own.to_bits() == alpha.to_bits() {
            Cow::Borrowed(&module.b)
        } else {
            Cow::Owned(module.b.iter().map(|value| value * (own / alpha)).collect::<Vec<f32>>())
        };
        writer.write_tensor_data(&little_endian(&module.a))?;
        writer.write_tensor_data(&little_endian(&b))?;
    }
    writer.finish()
}

/// The alpha whose `alpha / rank` is the module's scale.
fn alpha_of_rank(adapter: &LoraAdapter, module: &LoraModule) -> f32 {
    if adapter.rslora { module.alpha * (module.rank as f32).sqrt() } else { module.alpha }
}

/// The bytes of f32 values in a file.
pub(super) fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
