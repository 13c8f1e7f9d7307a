//! Adapters in GGUF, as `llama-server --lora` loads them: `adapter.lora.alpha`, and for each module
//! `NAME.weight.lora_a` with dimensions `[inputs, rank]` and `NAME.weight.lora_b` with `[rank, outputs]`.
//!
//! llama.cpp multiplies by `alpha / rank`; what rank-stabilised `LoRA` divides by, `sqrt(rank)`, goes into alpha.

use std::collections::BTreeMap;
use std::path::Path;

use espalier_kernels::{BlockType, blocks};

use super::{LoosePair, LoraAdapter, LoraPair, unify};
use crate::gguf::{GgufFile, GgufWriter, Metadata, TensorEntry, TensorHeader};
use crate::{ModelConfig, ModelError};

const ALPHA: &str = "adapter.lora.alpha";
const BASE_NAME: &str = "general.base_model.0.name";

pub(super) fn load(path: &Path, config: &ModelConfig) -> Result<LoraAdapter, ModelError> {
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
    expect("general.architecture", config.architecture.name())?;
    let alpha = metadata.require_f32(ALPHA)?;

    let mut modules = BTreeMap::new();
    for entry in file.tensors() {
        if let Some(module) = entry.name.strip_suffix(".weight.lora_a") {
            modules.insert(module.to_owned(), read_pair(&file, module, entry, alpha)?);
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
    let (rank, modules) = unify(modules, config, |rank| scale(alpha, rank))?;
    // llama.cpp takes an alpha of 0 for a scale of 1.
    let alpha = if alpha == 0.0 { rank as f32 } else { alpha };
    let base_model = metadata.get_str(BASE_NAME)?.unwrap_or_default().to_owned();
    Ok(LoraAdapter { rank, alpha, rslora: false, base_model, modules })
}

fn scale(alpha: f32, rank: usize) -> f32 {
    if alpha == 0.0 { 1.0 } else { alpha / rank as f32 }
}

fn read_pair(file: &GgufFile, module: &str, a: &TensorEntry, alpha: f32) -> Result<LoosePair, ModelError> {
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
    let pair = LoraPair { a: values(file, a)?, b: values(file, b)?, inputs, outputs };
    Ok(LoosePair { pair, rank, scale: scale(alpha, rank) })
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
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", config.architecture.name());
    metadata.insert("general.type", "adapter");
    metadata.insert("adapter.type", "lora");
    let alpha = if adapter.rslora { adapter.alpha * (adapter.rank as f32).sqrt() } else { adapter.alpha };
    metadata.insert(ALPHA, alpha);
    metadata.insert("general.base_model.count", 1_u32);
    metadata.insert(BASE_NAME, adapter.base_model.as_str());
    // All F32.
    metadata.insert("general.file_type", 0_u32);
    metadata.insert("general.quantization_version", 2_u32);
    let mut headers = Vec::new();
    for (module, pair) in &adapter.modules {
        for (factor, dimensions) in [("lora_a", [pair.inputs, adapter.rank]), ("lora_b", [adapter.rank, pair.outputs])]
        {
            headers.push(TensorHeader {
                name: format!("{module}.weight.{factor}"),
                dimensions: dimensions.to_vec(),
                block_type: BlockType::F32,
            });
        }
    }
    let mut writer = GgufWriter::create(path, &metadata, &headers)?;
    for pair in adapter.modules.values() {
        writer.write_tensor_data(&little_endian(&pair.a))?;
        writer.write_tensor_data(&little_endian(&pair.b))?;
    }
    writer.finish()
}

/// The bytes of f32 values in a file.
pub(super) fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
