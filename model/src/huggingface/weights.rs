//! Safetensors of a folder as tensors in GGUF names and order.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use espalier_kernels::{BlockType, blocks};
use serde::Deserialize;

use super::{bad_json, names, read_text};
use crate::config::ModelConfig;
use crate::error::DOWNLOAD_AGAIN;
use crate::model::{Backing, StoredTensor};
use crate::row_order::RowOrder;
use crate::{ModelError, safetensors_file};

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

pub(super) struct Weights {
    pub(super) backings: Vec<Backing>,
    pub(super) tensors: Vec<StoredTensor>,
    /// `general.file_type` of the same weights in a GGUF file.
    pub(super) file_type: u32,
}

pub(super) fn open(
    folder: &Path,
    config: &ModelConfig,
    frequency_factors: Option<&[f32]>,
    files: &mut Vec<PathBuf>,
) -> Result<Weights, ModelError> {
    let (shards, promised) = shards(folder, files)?;
    let mut backings = Vec::new();
    let mut by_name: HashMap<String, StoredTensor> = HashMap::new();
    let mut present = BTreeSet::new();
    for path in shards {
        let (map, tensors) = safetensors_file::open(&path)?;
        let shard = backings.len();
        backings.push(Backing::Map(map));
        for tensor in tensors {
            let name = tensor.name.clone();
            if !present.insert(name.clone()) {
                return Err(ModelError::invalid(
                    format!("tensor {name:?}"),
                    "it stands in two files of the folder",
                    DOWNLOAD_AGAIN,
                )
                .in_file(&path));
            }
            // Older files keep the rotary table; and a tied head is the embedding, whatever else is in the file.
            let is_copy = name == "lm_head.weight" && config.tied_head;
            if name.ends_with("rotary_emb.inv_freq") || is_copy {
                continue;
            }
            let mut stored = store(config, tensor, shard).map_err(|error| error.in_file(&path))?;
            if config.architecture.norm_offset() != 0.0 && stored.info.name.ends_with("norm.weight") {
                let bytes = shifted(&stored, backings[shard].as_ref(), config.architecture.norm_offset())?;
                (stored.info.block_type, stored.backing, stored.bytes) =
                    (BlockType::F32, backings.len(), 0..bytes.len());
                backings.push(Backing::Owned(bytes));
            }
            by_name.insert(stored.info.name.clone(), stored);
        }
        files.push(path);
    }
    if let Some(missing) = promised.iter().find(|name| !present.contains(*name)) {
        return Err(ModelError::invalid(
            format!("tensor {missing:?}"),
            "the index names it, but no shard has it",
            DOWNLOAD_AGAIN,
        )
        .in_file(&folder.join(INDEX)));
    }

    let mut tensors = Vec::new();
    if let Some(factors) = frequency_factors {
        let bytes: Vec<u8> = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
        tensors.push(StoredTensor::new(
            "rope_freqs.weight".to_owned(),
            vec![factors.len()],
            BlockType::F32,
            backings.len(),
            0..bytes.len(),
            RowOrder::AsStored,
        ));
        backings.push(Backing::Owned(bytes));
    }
    for wanted in config.expected_tensors() {
        let Some(stored) = by_name.remove(&wanted.name) else {
            let expected = format!("{:?}", wanted.dimensions);
            return Err(ModelError::MissingTensor { name: wanted.name, expected });
        };
        // Before anything divides rows by heads.
        if stored.info.dimensions != wanted.dimensions {
            return Err(ModelError::TensorShape {
                name: wanted.name,
                found: stored.info.dimensions,
                expected: wanted.dimensions,
            });
        }
        tensors.push(stored);
    }
    // What is left over is refused by the check that all sources go through.
    let mut rest: Vec<StoredTensor> = by_name.into_values().collect();
    rest.sort_by(|a, b| a.info.name.cmp(&b.info.name));
    tensors.extend(rest);
    let embedding = tensors.iter().find(|tensor| tensor.info.name == "token_embd.weight");
    let file_type = match embedding.map(|tensor| tensor.info.block_type) {
        Some(BlockType::F16) => 1,
        Some(BlockType::Bf16) => 32,
        _ => 0,
    };
    Ok(Weights { backings, tensors, file_type })
}

fn store(
    config: &ModelConfig,
    tensor: safetensors_file::SafeTensor,
    backing: usize,
) -> Result<StoredTensor, ModelError> {
    let Some(name) = names::tensor_to_gguf(&tensor.name, config.norms) else {
        return Err(ModelError::invalid(
            format!("tensor {:?}", tensor.name),
            format!("architecture {} has no use for it", config.architecture.name()),
            "the model has a part that the native engine does not compute: serve it with vLLM and pass \
             --engine http://HOST:PORT",
        ));
    };
    let block_type = tensor.block_type()?;
    let dimensions: Vec<usize> = tensor.shape.iter().rev().copied().collect();
    if dimensions.is_empty() || dimensions.contains(&0) {
        return Err(ModelError::invalid(
            format!("tensor {:?}", tensor.name),
            format!("its shape is {:?}", tensor.shape),
            DOWNLOAD_AGAIN,
        ));
    }
    let module = name.rsplit_once('.').map_or(name.as_str(), |(module, _)| module);
    let order = match config.permuted_heads(module) {
        Some(heads) => RowOrder::Halves { heads },
        None => RowOrder::AsStored,
    };
    Ok(StoredTensor::new(name, dimensions, block_type, backing, tensor.bytes, order))
}

/// The values of a stored tensor plus `offset`, as the bytes of F32.
fn shifted(stored: &StoredTensor, file: &[u8], offset: f32) -> Result<Vec<u8>, ModelError> {
    let mut values = vec![0.0; stored.info.dimensions.iter().product()];
    blocks::decode(stored.info.block_type, &file[stored.bytes.clone()], &mut values).map_err(|error| {
        ModelError::invalid(format!("tensor {:?}", stored.info.name), error.to_string(), DOWNLOAD_AGAIN)
    })?;
    Ok(values.iter().flat_map(|value| (value + offset).to_le_bytes()).collect())
}

/// The weight files and the tensors that an index promises.
fn shards(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(Vec<PathBuf>, Vec<String>), ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let whole = folder.join(WHOLE);
    if whole.exists() {
        return Ok((vec![whole], Vec::new()));
    }
    let Some(source) = read_text(folder, INDEX, files)? else {
        return Err(ModelError::invalid(
            folder.display().to_string(),
            format!("the folder has neither {WHOLE} nor {INDEX}"),
            "download the safetensors of the model (pickled .bin weights are not read)",
        ));
    };
    let in_index = |error: ModelError| error.in_file(&folder.join(INDEX));
    let index: Index = serde_json::from_str(&source).map_err(|error| in_index(bad_json(&error)))?;
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    let mut paths = Vec::new();
    for shard in shards {
        // A plain name: an index must not reach outside of its folder.
        let is_plain = Path::new(shard).file_name().is_some_and(|name| name == shard.as_str());
        if !is_plain || shard.contains('\\') {
            let problem = format!("the shard {shard:?} is no plain file name");
            return Err(in_index(ModelError::invalid("weight_map", problem, DOWNLOAD_AGAIN)));
        }
        paths.push(folder.join(shard));
    }
    let mut promised: Vec<String> = index.weight_map.into_keys().collect();
    promised.sort();
    Ok((paths, promised))
}
