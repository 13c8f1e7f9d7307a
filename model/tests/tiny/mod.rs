//! A small random llama in the two forms that the tests compare.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value as Json, json};

pub(crate) const VOCABULARY: usize = 300;
pub(crate) const HIDDEN: usize = 16;
pub(crate) const LAYERS: usize = 2;
pub(crate) const HEADS: usize = 4;
pub(crate) const KV_HEADS: usize = 2;
pub(crate) const HEAD_DIM: usize = 4;
pub(crate) const FEED_FORWARD: usize = 24;

/// Numbers between -1 and 1 that BF16 holds exactly, fixed by the name.
pub(crate) fn values(name: &str, count: usize) -> Vec<f32> {
    let mut state = name.bytes().fold(0x9E37_79B9_u32, |state, byte| state.wrapping_mul(31) ^ u32::from(byte));
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 24) as f32 - 128.0) / 128.0
    };
    (0..count).map(step).collect()
}

/// Names and shapes of Hugging Face, row length last.
pub(crate) fn tensors() -> Vec<(String, Vec<usize>)> {
    let (queries, keys) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN])];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("self_attn.q_proj", vec![queries, HIDDEN]),
            ("self_attn.k_proj", vec![keys, HIDDEN]),
            ("self_attn.v_proj", vec![keys, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, queries]),
            ("mlp.gate_proj", vec![FEED_FORWARD, HIDDEN]),
            ("mlp.up_proj", vec![FEED_FORWARD, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, FEED_FORWARD]),
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
        ] {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    tensors.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    tensors
}

pub(crate) fn config_json() -> Json {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "intermediate_size": FEED_FORWARD,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 1,
        "torch_dtype": "bfloat16",
    })
}

/// Byte-level, with the characters that stand for bytes as GPT-2 has them.
fn tokenizer_json() -> Json {
    let mut vocab = Map::new();
    vocab.insert("<s>".to_owned(), 0.into());
    vocab.insert("</s>".to_owned(), 1.into());
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut other = 256;
    for byte in 0..256_u32 {
        let code = if printable(byte) {
            byte
        } else {
            other += 1;
            other - 1
        };
        let character = char::from_u32(code).unwrap_or_default();
        vocab.insert(character.to_string(), (byte + 2).into());
    }
    json!({
        "version": "1.0",
        "added_tokens": [
            {"id": 0, "content": "<s>", "special": true, "single_word": false, "lstrip": false,
             "rstrip": false, "normalized": false},
            {"id": 1, "content": "</s>", "special": true, "single_word": false, "lstrip": false,
             "rstrip": false, "normalized": false},
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                          "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

/// The whole folder; with `shards`, the weights in two files and an index, in BF16.
pub(crate) fn write_huggingface(folder: &Path, shards: bool) {
    fs::write(folder.join("config.json"), config_json().to_string()).unwrap();
    fs::write(folder.join("tokenizer.json"), tokenizer_json().to_string()).unwrap();
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
        "chat_template": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    });
    fs::write(folder.join("tokenizer_config.json"), tokenizer_config.to_string()).unwrap();
    let all = tensors();
    if !shards {
        write_safetensors(&folder.join("model.safetensors"), &all, Dtype::F32);
        return;
    }
    let (first, second) = all.split_at(all.len() / 2);
    let mut weight_map = Map::new();
    for (number, part) in [(1, first), (2, second)] {
        let file = format!("model-0000{number}-of-00002.safetensors");
        write_safetensors(&folder.join(&file), part, Dtype::BF16);
        for (name, _) in part {
            weight_map.insert(name.clone(), file.clone().into());
        }
    }
    let index = json!({"metadata": {}, "weight_map": weight_map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn write_safetensors(path: &Path, tensors: &[(String, Vec<usize>)], dtype: Dtype) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(name, shape)| {
            let values = values(name, shape.iter().product());
            // The upper half of an f32 whose lower half is zero is the same number in BF16.
            let keep = if dtype == Dtype::F32 { 0 } else { 2 };
            values.iter().flat_map(|value| value.to_le_bytes()[keep..].to_vec()).collect()
        })
        .collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape), bytes)| (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    fs::write(path, safetensors::serialize(views, Some(format)).unwrap()).unwrap();
}
