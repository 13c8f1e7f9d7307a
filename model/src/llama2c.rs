//! Legacy llama2.c files: seven `i32` (hidden, feed-forward, layers, heads, key and value heads, vocabulary, context; a
//! negative vocabulary means a head of its own), then f32: the embedding; for all layers each of attention norm, q, k, v,
//! output, feed-forward norm, gate, down, up; the last norm; the rotary tables (skipped); the head unless it is tied.
//!
//! Rotary pairs are neighbours, as in GGUF's llama: nothing is permuted.

use std::fs;
use std::path::Path;

use espalier_kernels::BlockType;
use espalier_kernels::ops::GatedActivation;

use crate::config::{Architecture, ModelConfig, NormPlacement, Rotation, Scales};
use crate::error::DOWNLOAD_AGAIN;
use crate::mapped_file::map_file;
use crate::model::{Backing, Parts, StoredTensor};
use crate::row_order::RowOrder;
use crate::{ModelError, Tokenizer};

/// Seven numbers of four bytes.
const HEADER_BYTES: usize = 28;
/// The tokenizer of the small models, looked for beside them.
const TOKENIZER_FILE: &str = "tok512.bin";

pub(crate) fn open(path: &Path) -> Result<Parts, ModelError> {
    let map = map_file(path)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let config = read_header(&map, &name)?;
    let tensors = place_tensors(&config, map.len())?;
    let beside = path.with_file_name(TOKENIZER_FILE);
    let bytes = fs::read(&beside).map_err(ModelError::file(&beside, "read the tokenizer"))?;
    let tokenizer = Tokenizer::from_llama2c(&bytes).map_err(|error| error.in_file(&beside))?;
    let mut metadata = config.to_metadata();
    // All F32.
    metadata.insert("general.file_type", 0_u32);
    metadata.extend(tokenizer.to_gguf_metadata());
    let mut files = vec![path.to_owned(), beside];
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    Ok(Parts { metadata, backings: vec![Backing::Map(map)], tensors, tokenizer, files })
}

fn read_header(bytes: &[u8], name: &str) -> Result<ModelConfig, ModelError> {
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Err(ModelError::format(
            0,
            format!("a llama2.c header of {HEADER_BYTES} bytes"),
            format!("{} bytes", bytes.len()),
        ));
    };
    let (numbers, _) = header.as_chunks::<4>();
    let number = |at: usize| i32::from_le_bytes(numbers[at]);
    let size = |at: usize, what: &str| {
        usize::try_from(number(at)).ok().filter(|&size| size > 0).ok_or_else(|| ModelError::Format {
            offset: at as u64 * 4,
            expected: format!("{what} above zero in a llama2.c header"),
            found: number(at).to_string(),
            remedy: "pass a legacy llama2.c file, a .gguf file or a Hugging Face folder".to_owned(),
        })
    };
    let hidden = size(0, "the width")?;
    let heads = size(3, "the number of heads")?;
    if !hidden.is_multiple_of(heads) {
        return Err(ModelError::format(
            12,
            format!("a number of heads that divides the width {hidden}"),
            heads.to_string(),
        ));
    }
    let config = ModelConfig {
        architecture: Architecture::Llama,
        name: name.to_owned(),
        vocabulary: number(5).unsigned_abs() as usize,
        hidden,
        layers: size(2, "the number of layers")?,
        heads,
        kv_heads: size(4, "the number of key and value heads")?,
        head_dim: hidden / heads,
        feed_forward: size(1, "the feed-forward width")?,
        context: size(6, "the context length")?,
        rms_epsilon: 1e-5,
        rotation: Rotation { theta: 10_000.0, factor: 1.0 },
        unrotated_every: None,
        window: None,
        rotary_dims: hidden / heads,
        tied_head: number(5) > 0,
        attention_bias: false,
        head_norms: false,
        norms: NormPlacement::Before,
        activation: GatedActivation::SwiGlu,
        scales: Scales { embedding: 1.0, scores: 1.0 / ((hidden / heads) as f32).sqrt(), residual: 1.0, logits: 1.0 },
    };
    config.check()?;
    Ok(config)
}

fn place_tensors(config: &ModelConfig, file: usize) -> Result<Vec<StoredTensor>, ModelError> {
    // In `u64`, which holds every size that `ModelConfig::check` lets through.
    let mut at = HEADER_BYTES as u64;
    let mut places = std::collections::HashMap::new();
    let mut place = |name: String, elements: usize| {
        places.insert(name, at);
        at = at.saturating_add(elements as u64 * 4);
    };
    let (hidden, queries, keys) = (config.hidden, config.query_width(), config.key_value_width());
    place("token_embd.weight".to_owned(), hidden * config.vocabulary);
    let each_layer = [
        ("attn_norm", hidden),
        ("attn_q", hidden * queries),
        ("attn_k", hidden * keys),
        ("attn_v", hidden * keys),
        ("attn_output", queries * hidden),
        ("ffn_norm", hidden),
        ("ffn_gate", hidden * config.feed_forward),
        ("ffn_down", hidden * config.feed_forward),
        ("ffn_up", hidden * config.feed_forward),
    ];
    for (part, elements) in each_layer {
        for layer in 0..config.layers {
            place(format!("blk.{layer}.{part}.weight"), elements);
        }
    }
    place("output_norm.weight".to_owned(), hidden);
    place("rotary tables".to_owned(), config.context * config.head_dim);
    if !config.tied_head {
        place("output.weight".to_owned(), hidden * config.vocabulary);
    }
    if at != file as u64 {
        return Err(ModelError::Format {
            offset: file as u64,
            expected: format!("{at} bytes in all, as the header implies"),
            found: format!("{file}"),
            remedy: DOWNLOAD_AGAIN.to_owned(),
        });
    }
    let tensors = config.expected_tensors().into_iter().map(|tensor| {
        // Every expected tensor has its place above, and all places lie within the file.
        let start = places.get(&tensor.name).map_or(HEADER_BYTES, |&at| at as usize);
        let length = 4 * tensor.dimensions.iter().product::<usize>();
        let bytes = start..start + length;
        let (kind, order) = (BlockType::F32, RowOrder::AsStored);
        StoredTensor::new(tensor.name, tensor.dimensions, kind, 0, bytes, order)
    });
    Ok(tensors.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_cannot_be_are_refused() {
        let good = [64_i32, 172, 5, 8, 4, 512, 512];
        let bytes = |numbers: [i32; 7]| numbers.map(i32::to_le_bytes).concat();
        assert_eq!(read_header(&bytes(good), "x").unwrap().head_dim, 8);
        assert!(read_header(&bytes(good)[..27], "x").is_err());
        for (at, value) in [(0, -1), (0, 63), (1, 0), (2, i32::MAX), (3, 0), (4, 3), (5, i32::MIN), (6, -5)] {
            let mut numbers = good;
            numbers[at] = value;
            assert!(read_header(&bytes(numbers), "x").is_err(), "{at} = {value}");
        }
        let config = read_header(&bytes(good), "x").unwrap();
        let message = place_tensors(&config, 1000).err().unwrap().to_string();
        assert!(message.contains("download"), "{message}");
    }
}
