//! `config.json` and `generation_config.json` of a model that came in another form.

use espalier_kernels::ops::GatedActivation;
use serde_json::{Map, Value as Json, json};

use super::config::{Llama3Scaling, frequency_factors};
use crate::config::{Architecture, ModelConfig};
use crate::{Model, ModelError, Tokenizer};

/// The configuration of a class of transformers that computes what this model computes.
///
/// # Errors
///
/// What no class has: biases of q, k and v alone in a llama, rotation of a part of each head, rotary factors of a kind
/// that `rope_scaling` does not name.
pub(super) fn config_json(model: &Model, dtype: &str) -> Result<Json, ModelError> {
    let config = model.config();
    if config.rotary_dims != config.head_dim {
        return Err(no_form(format!(
            "it rotates {} of the {} elements of a head",
            config.rotary_dims, config.head_dim
        )));
    }
    let (class, model_type) = match config.architecture {
        Architecture::Llama if config.attention_bias => {
            return Err(no_form("it has biases on q, k and v, and none on the attention's output"));
        }
        Architecture::Llama if config.window.is_some() => ("MistralForCausalLM", "mistral"),
        Architecture::Llama => ("LlamaForCausalLM", "llama"),
        Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        Architecture::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        Architecture::Granite => ("GraniteForCausalLM", "granite"),
        Architecture::SmolLm3 => ("SmolLM3ForCausalLM", "smollm3"),
        Architecture::Gemma3 => ("Gemma3ForCausalLM", "gemma3_text"),
    };
    let scaling = match model.rope_frequency_factors()? {
        Some(factors) => llama3_scaling(config, &factors)?.to_json(),
        None if config.rotation.factor.to_bits() == 1.0_f32.to_bits() => Json::Null,
        None => json!({"rope_type": "linear", "factor": shortest(config.rotation.factor)}),
    };
    let mut settings = Map::new();
    let mut set = |key: &str, value: Json| {
        settings.insert(key.to_owned(), value);
    };
    set("architectures", json!([class]));
    set("attention_dropout", json!(0.0));
    if config.architecture != Architecture::Qwen2 {
        set("attention_bias", json!(false));
    }
    set("bos_token_id", json!(model.tokenizer().bos()));
    set("eos_token_id", json!(model.tokenizer().eos()));
    set("head_dim", json!(config.head_dim));
    match config.activation {
        GatedActivation::SwiGlu => set("hidden_act", json!("silu")),
        GatedActivation::GeGlu => set("hidden_activation", json!("gelu_pytorch_tanh")),
    }
    set("hidden_size", json!(config.hidden));
    set("initializer_range", json!(0.02));
    set("intermediate_size", json!(config.feed_forward));
    set("max_position_embeddings", json!(config.context));
    if matches!(config.architecture, Architecture::Llama | Architecture::Granite | Architecture::SmolLm3) {
        set("mlp_bias", json!(false));
    }
    set("model_type", json!(model_type));
    set("num_attention_heads", json!(config.heads));
    set("num_hidden_layers", json!(config.layers));
    set("num_key_value_heads", json!(config.kv_heads));
    set("pad_token_id", json!(model.tokenizer().padding()));
    set("rms_norm_eps", shortest(config.rms_epsilon));
    set("rope_scaling", scaling);
    set("rope_theta", shortest(config.rotation.theta));
    set("tie_word_embeddings", json!(config.tied_head));
    set("torch_dtype", json!(dtype));
    set("use_cache", json!(true));
    set("vocab_size", json!(config.vocabulary));
    add_graph(config, &mut set);
    Ok(Json::Object(settings))
}

/// What an architecture has besides its sizes.
fn add_graph(config: &ModelConfig, set: &mut dyn FnMut(&str, Json)) {
    match config.architecture {
        Architecture::Llama => {
            if let Some(window) = config.window {
                set("sliding_window", json!(window.tokens));
            }
        }
        Architecture::Qwen2 | Architecture::Qwen3 | Architecture::SmolLm3 => set("use_sliding_window", json!(false)),
        Architecture::Granite => {
            set("attention_multiplier", shortest(config.scales.scores));
            set("embedding_multiplier", shortest(config.scales.embedding));
            set("logits_scaling", shortest(config.scales.logits));
            set("residual_multiplier", shortest(config.scales.residual));
        }
        Architecture::Gemma3 => {
            set("query_pre_attn_scalar", json!(config.scales.scores.powi(-2).round() as u64));
            if let Some(window) = config.window {
                set("rope_local_base_freq", shortest(window.rotation.theta));
                set("sliding_window", json!(window.tokens));
            }
            let kind = |layer| match config.layer_attention(layer).window {
                Some(_) => "sliding_attention",
                None => "full_attention",
            };
            set("layer_types", (0..config.layers).map(kind).collect());
        }
    }
    if let Some(every) = config.unrotated_every {
        set("no_rope_layer_interval", json!(every));
        let rotated = |layer| u8::from(config.layer_attention(layer).rotation.is_some());
        set("no_rope_layers", (0..config.layers).map(rotated).collect());
    }
}

/// Where generation begins and ends: one end as a number, several as a list with the end of sequence first.
pub(super) fn generation_config_json(tokenizer: &Tokenizer) -> Json {
    let mut ends: Vec<u32> = tokenizer.eos().into_iter().collect();
    ends.extend(tokenizer.end_of_generation().iter().filter(|&&id| Some(id) != tokenizer.eos()));
    let eos = match ends.as_slice() {
        [] => Json::Null,
        [one] => json!(one),
        several => json!(several),
    };
    let mut settings = Map::new();
    for (key, value) in
        [("bos_token_id", json!(tokenizer.bos())), ("eos_token_id", eos), ("pad_token_id", json!(tokenizer.padding()))]
    {
        if !value.is_null() {
            settings.insert(key.to_owned(), value);
        }
    }
    Json::Object(settings)
}

/// GGUF keeps the rotary factors of Llama 3.1, not the numbers they came from: the numbers are found by trying the
/// contexts that models were extended from, with the bounds 1 and 4 that all of them have.
fn llama3_scaling(config: &ModelConfig, factors: &[f32]) -> Result<Llama3Scaling, ModelError> {
    let factor = factors.iter().copied().fold(1.0, f32::max);
    let candidates = (10..20).map(|power| Llama3Scaling { factor, low: 1.0, high: 4.0, original: (1 << power) as f32 });
    for scaling in candidates {
        let made = frequency_factors(scaling, config.rotary_dims, config.rotation.theta);
        if made.iter().zip(factors).all(|(made, stored)| (made - stored).abs() <= 1e-5 * stored.abs()) {
            return Ok(scaling);
        }
    }
    Err(no_form("its rotary factors are not those of Llama 3.1's scaling"))
}

fn no_form(problem: impl Into<String>) -> ModelError {
    ModelError::invalid(
        "Hugging Face folder",
        format!("transformers has no class for this model: {}", problem.into()),
        "write a GGUF file instead: --out NAME.gguf",
    )
}

/// An f32 as the shortest decimal that gives it: 1e-5 and not 9.99999974e-6.
fn shortest(value: f32) -> Json {
    value.to_string().parse::<f64>().map_or_else(|_| json!(value), |value| json!(value))
}
