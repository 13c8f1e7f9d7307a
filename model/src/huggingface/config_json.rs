//! `config.json` and `generation_config.json` of a model that came in another form.

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
        Architecture::Llama => ("LlamaForCausalLM", "llama"),
        Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
    };
    let scaling = model.rope_frequency_factors()?.map(|factors| llama3_scaling(config, &factors)).transpose()?;
    let mut settings = Map::new();
    let mut set = |key: &str, value: Json| {
        settings.insert(key.to_owned(), value);
    };
    set("architectures", json!([class]));
    set("attention_dropout", json!(0.0));
    if config.architecture == Architecture::Llama {
        set("attention_bias", json!(false));
    }
    set("bos_token_id", json!(model.tokenizer().bos()));
    set("eos_token_id", json!(model.tokenizer().eos()));
    set("head_dim", json!(config.head_dim));
    set("hidden_act", json!("silu"));
    set("hidden_size", json!(config.hidden));
    set("initializer_range", json!(0.02));
    set("intermediate_size", json!(config.feed_forward));
    set("max_position_embeddings", json!(config.context));
    if config.architecture == Architecture::Llama {
        set("mlp_bias", json!(false));
    }
    set("model_type", json!(model_type));
    set("num_attention_heads", json!(config.heads));
    set("num_hidden_layers", json!(config.layers));
    set("num_key_value_heads", json!(config.kv_heads));
    set("pad_token_id", json!(model.tokenizer().padding()));
    set("rms_norm_eps", shortest(config.rms_epsilon));
    set("rope_scaling", scaling.map_or(Json::Null, Llama3Scaling::to_json));
    set("rope_theta", shortest(config.rope_theta));
    set("tie_word_embeddings", json!(config.tied_head));
    set("torch_dtype", json!(dtype));
    set("use_cache", json!(true));
    if config.architecture == Architecture::Qwen2 {
        set("use_sliding_window", json!(false));
    }
    set("vocab_size", json!(config.vocabulary));
    Ok(Json::Object(settings))
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
        let made = frequency_factors(scaling, config.rotary_dims, config.rope_theta);
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
