//! Writes the files of the parity check with PEFT:
//! `cargo run --release -p espalier-train --example parity_files -- MODEL OUT [ROWS]`.
//!
//! `OUT/VARIANT/` holds the updates to start from (`B` not zero, so that every gradient counts), `OUT/batch.json` the tokens
//! of the first rows and 50 learning rates; for a llama2.c model `OUT/model/` too: the same weights as a Hugging Face folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use espalier_dataset::Turn;
use espalier_model::Model;
use espalier_nn::transformer::{BaseWeights, FrozenTransformer};
use espalier_train::{Precision, TrainConfig, encode};
use serde_json::json;

#[path = "../tests/parity_start/mod.rs"]
mod parity_start;

fn conversations() -> Vec<Vec<Turn>> {
    let rows = [
        ("Write 3 May 2021 as an ISO date.", "2021-05-03"),
        ("What does Lily see?", "Lily sees a red ball near the big house. She is happy."),
        ("Write 12 December 1999 as an ISO date.", "1999-12-12"),
        ("Name two animals.", "A cat and a dog."),
    ];
    let turn = |role: &str, content: &str| Turn { role: role.to_owned(), content: content.to_owned() };
    rows.iter().map(|(question, answer)| vec![turn("user", question), turn("assistant", answer)]).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, out, count) = match arguments.as_slice() {
        [path, out] => (Path::new(path), Path::new(out), usize::MAX),
        [path, out, count] => (Path::new(path), Path::new(out), count.parse()?),
        _ => return Err("usage: parity_files MODEL OUT [ROWS]".into()),
    };
    std::fs::create_dir_all(out)?;
    let model = Model::open(path)?;
    let config = TrainConfig { max_sequence: 128, ..TrainConfig::default() };
    let mut rows = encode(&model, &conversations(), &config)?.rows;
    rows.truncate(count);
    let learn = |weights: &[f32]| weights.iter().map(|&weight| weight != 0.0).collect::<Vec<_>>();
    let sequences: Vec<_> =
        rows.iter().map(|row| json!({"tokens": row.tokens, "learn": learn(&row.weights)})).collect();
    let rates: Vec<f64> = (0..50).map(|step| 5e-4 * (1.0 - 0.016 * f64::from(step))).collect();
    let batch = json!({"sequences": sequences, "learning_rates": rates, "max_grad_norm": 1.0});
    std::fs::write(out.join("batch.json"), serde_json::to_string(&batch)?)?;
    let frozen = Arc::new(FrozenTransformer::load(&model, Precision::F32, BaseWeights::Packed, 128)?);
    for variant in parity_start::VARIANTS {
        let network = parity_start::network(Arc::clone(&frozen), variant)?;
        network.to_adapter("base").save_peft(&out.join(variant), model.config())?;
    }
    if path.extension().is_some_and(|extension| extension == "bin") {
        write_folder(&model, &out.join("model"))?;
    }
    Ok(())
}

/// The weights of a llama model as a Hugging Face folder: q and k rows go back to halves.
fn write_folder(model: &Model, folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let config = model.config();
    std::fs::create_dir_all(folder)?;
    let description = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": config.vocabulary, "hidden_size": config.hidden, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads, "head_dim": config.head_dim,
        "intermediate_size": config.feed_forward, "max_position_embeddings": config.context,
        "rms_norm_eps": config.rms_epsilon, "rope_theta": config.rotation.theta,
        "tie_word_embeddings": config.tied_head, "attention_bias": false, "mlp_bias": false, "dtype": "float32",
    });
    std::fs::write(folder.join("config.json"), serde_json::to_string_pretty(&description)?)?;
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for info in model.tensors() {
        let (name, heads) = match info.name.split('.').collect::<Vec<_>>().as_slice() {
            ["token_embd", _] => ("model.embed_tokens.weight".to_owned(), 0),
            ["output_norm", _] => ("model.norm.weight".to_owned(), 0),
            ["output", _] => ("lm_head.weight".to_owned(), 0),
            ["blk", layer, part, _] => {
                let (part, heads) = match *part {
                    "attn_q" => ("self_attn.q_proj", config.heads),
                    "attn_k" => ("self_attn.k_proj", config.kv_heads),
                    "attn_v" => ("self_attn.v_proj", 0),
                    "attn_output" => ("self_attn.o_proj", 0),
                    "ffn_gate" => ("mlp.gate_proj", 0),
                    "ffn_up" => ("mlp.up_proj", 0),
                    "ffn_down" => ("mlp.down_proj", 0),
                    "attn_norm" => ("input_layernorm", 0),
                    "ffn_norm" => ("post_attention_layernorm", 0),
                    other => return Err(format!("unknown tensor {other}").into()),
                };
                (format!("model.layers.{layer}.{part}.weight"), heads)
            }
            _ => continue,
        };
        let values = model.tensor(&info.name)?.to_vec()?;
        let mut ordered = values.clone();
        if heads > 0 {
            let half = config.head_dim / 2;
            for head in 0..heads {
                for (pair, part) in (0..half).flat_map(|pair| [(pair, 0), (pair, 1)]) {
                    let from = (head * config.head_dim + 2 * pair + part) * info.columns;
                    let to = (head * config.head_dim + part * half + pair) * info.columns;
                    ordered[to..to + info.columns].copy_from_slice(&values[from..from + info.columns]);
                }
            }
        }
        let shape = if info.dimensions.len() == 1 { vec![info.columns] } else { vec![info.rows, info.columns] };
        tensors.insert(name, (shape, ordered.iter().flat_map(|value| value.to_le_bytes()).collect()));
    }
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| {
            Ok((name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), &folder.join("model.safetensors"))?;
    Ok(())
}
