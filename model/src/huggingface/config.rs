//! `config.json`.

use serde::Deserialize;
use serde_json::Value as Json;

use super::{add_token_id, bad_json};
use crate::ModelError;
use crate::config::{Architecture, ModelConfig};
use crate::gguf::Metadata;

/// The fields that matter here; others are left alone.
#[derive(Debug, Deserialize)]
pub(super) struct Settings {
    #[serde(default)]
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    rope_theta: Option<f32>,
    #[serde(default)]
    rope_scaling: Option<Rotary>,
    /// What newer files have in place of `rope_theta` and `rope_scaling`.
    #[serde(default)]
    rope_parameters: Option<Rotary>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    hidden_act: Option<String>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    partial_rotary_factor: Option<f32>,
    #[serde(default)]
    quantization_config: Option<Json>,
    #[serde(default)]
    bos_token_id: Option<Json>,
    #[serde(default)]
    eos_token_id: Option<Json>,
}

#[derive(Debug, Deserialize)]
struct Rotary {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
}

/// The numbers of Llama 3.1's context extension, as `rope_scaling` has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Llama3Scaling {
    pub(super) factor: f32,
    pub(super) low: f32,
    pub(super) high: f32,
    pub(super) original: f32,
}

impl Llama3Scaling {
    pub(super) fn to_json(self) -> Json {
        serde_json::json!({
            "factor": self.factor,
            "high_freq_factor": self.high,
            "low_freq_factor": self.low,
            "original_max_position_embeddings": self.original as u64,
            "rope_type": "llama3",
        })
    }
}

/// Divisors of the rotary frequencies for the scaling of Llama 3.1 (its paper's context extension): wavelengths beyond
/// `original / low` are divided by `factor`, those below `original / high` stay, between them the two are blended.
pub(super) fn frequency_factors(scaling: Llama3Scaling, dims: usize, theta: f32) -> Vec<f32> {
    let Llama3Scaling { factor, low, high, original } = scaling;
    let (scale, low, high, original) = (f64::from(factor), f64::from(low), f64::from(high), f64::from(original));
    let of_pair = |pair: usize| {
        let exponent = (2 * pair) as f64 / dims as f64;
        let wavelength = 2.0 * std::f64::consts::PI * f64::from(theta).powf(exponent);
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 / ((1.0 - smooth) / scale + smooth)) as f32
        }
    };
    (0..dims / 2).map(of_pair).collect()
}

/// Reads the architecture before anything else, so that other models are refused by name and not by a missing field.
pub(super) fn parse(source: &str) -> Result<Settings, ModelError> {
    #[derive(Deserialize)]
    struct Class {
        #[serde(default)]
        architectures: Option<Vec<String>>,
        model_type: Option<String>,
    }
    let class: Class = serde_json::from_str(source).map_err(|error| bad_json(&error))?;
    architecture(class.architectures.as_deref(), class.model_type.as_deref())?;
    serde_json::from_str(source).map_err(|error| bad_json(&error))
}

fn architecture(classes: Option<&[String]>, model_type: Option<&str>) -> Result<Architecture, ModelError> {
    let class = classes.and_then(|classes| classes.first()).map(String::as_str);
    match class.or(model_type) {
        Some("LlamaForCausalLM" | "MistralForCausalLM" | "llama" | "mistral") => Ok(Architecture::Llama),
        Some("Qwen2ForCausalLM" | "qwen2") => Ok(Architecture::Qwen2),
        Some(other) => Err(ModelError::UnsupportedArchitecture { architecture: other.to_owned() }),
        None => Err(ModelError::invalid(
            "fields \"architectures\" and \"model_type\"",
            "neither is there",
            "pass the folder of a language model with its complete config.json",
        )),
    }
}

impl Settings {
    pub(super) fn model_config(&self, name: &str) -> Result<ModelConfig, ModelError> {
        let architecture = architecture(self.architectures.as_deref(), self.model_type.as_deref())?;
        self.refuse_unimplemented(architecture)?;
        let rotary = self.rope_parameters.as_ref();
        let divided = self
            .hidden_size
            .checked_div(self.num_attention_heads)
            .filter(|_| self.hidden_size.is_multiple_of(self.num_attention_heads));
        let Some(head_dim) = self.head_dim.or(divided) else {
            return Err(ModelError::invalid(
                "field \"num_attention_heads\"",
                format!("{} does not divide the hidden size {}", self.num_attention_heads, self.hidden_size),
                "correct config.json or download it again",
            ));
        };
        let config = ModelConfig {
            architecture,
            name: name.to_owned(),
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim,
            feed_forward: self.intermediate_size,
            context: self.max_position_embeddings,
            rms_epsilon: self.rms_norm_eps,
            rope_theta: rotary.and_then(|rotary| rotary.rope_theta).or(self.rope_theta).unwrap_or(10_000.0),
            rotary_dims: head_dim,
            tied_head: self.tie_word_embeddings,
            attention_bias: architecture == Architecture::Qwen2 || self.attention_bias,
        };
        config.check()?;
        Ok(config)
    }

    fn refuse_unimplemented(&self, architecture: Architecture) -> Result<(), ModelError> {
        let refuse = |field: &str, found: String| {
            Err(ModelError::invalid(
                format!("field {field:?}"),
                format!("the native engine does not implement {found}"),
                "serve the model with llama-server, vLLM or Ollama and pass --engine http://HOST:PORT",
            ))
        };
        if let Some(activation) = &self.hidden_act
            && !matches!(activation.as_str(), "silu" | "swish")
        {
            return refuse("hidden_act", format!("the activation {activation:?}"));
        }
        // Qwen2 states a window that it uses only when told so.
        let uses_window = self.use_sliding_window.unwrap_or(architecture == Architecture::Llama);
        if let Some(window) = self.sliding_window
            && uses_window
            && window < self.max_position_embeddings
        {
            return refuse("sliding_window", format!("a sliding window of {window} tokens"));
        }
        if let Some(part) = self.partial_rotary_factor
            && part.to_bits() != 1.0_f32.to_bits()
        {
            return refuse("partial_rotary_factor", format!("rotation of a part ({part})"));
        }
        if self.quantization_config.as_ref().is_some_and(|config| !config.is_null()) {
            return refuse("quantization_config", "quantized safetensors".to_owned());
        }
        Ok(())
    }

    /// Divisors of the rotary frequencies where the scaling of Llama 3.1 asks for them.
    pub(super) fn frequency_factors(&self, config: &ModelConfig) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(rotary) = self.rope_scaling.as_ref().or(self.rope_parameters.as_ref()) else {
            return Ok(None);
        };
        let kind = rotary.rope_type.as_deref().unwrap_or("default");
        match kind {
            "default" | "none" => return Ok(None),
            "linear" if rotary.factor == Some(1.0) => return Ok(None),
            "llama3" => {}
            other => {
                return Err(ModelError::invalid(
                    "field \"rope_scaling\"",
                    format!("the native engine does not implement rotary scaling {other:?}"),
                    "serve the model with llama-server, vLLM or Ollama and pass --engine http://HOST:PORT",
                ));
            }
        }
        let scaling = Llama3Scaling {
            factor: rotary.factor.unwrap_or(8.0),
            low: rotary.low_freq_factor.unwrap_or(1.0),
            high: rotary.high_freq_factor.unwrap_or(4.0),
            original: rotary.original_max_position_embeddings.unwrap_or(8192.0),
        };
        let Llama3Scaling { factor, low, high, original } = scaling;
        let sound = [factor, low, high, original].iter().all(|v| v.is_finite() && *v > 0.0);
        if !sound || low >= high {
            return Err(ModelError::invalid(
                "field \"rope_scaling\"",
                format!("factor {factor}, low {low}, high {high}, original {original} cannot be"),
                "correct config.json or download it again",
            ));
        }
        Ok(Some(frequency_factors(scaling, config.rotary_dims, config.rope_theta)))
    }

    /// Special tokens that only `config.json` names; of a list the first.
    pub(super) fn add_token_ids(&self, metadata: &mut Metadata) {
        let id = |field: &Option<Json>| {
            let field = field.as_ref()?;
            let number = field.as_u64().or_else(|| field.as_array()?.first()?.as_u64())?;
            u32::try_from(number).ok().filter(|&id| (id as usize) < self.vocab_size)
        };
        add_token_id(metadata, "bos", id(&self.bos_token_id));
        add_token_id(metadata, "eos", id(&self.eos_token_id));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(extra: &str) -> String {
        format!(
            r#"{{"architectures":["LlamaForCausalLM"],"vocab_size":128256,"hidden_size":2048,
            "num_hidden_layers":2,"num_attention_heads":32,"num_key_value_heads":8,"head_dim":64,
            "intermediate_size":8192,"max_position_embeddings":131072,"rms_norm_eps":1e-5,
            "rope_theta":500000.0{extra}}}"#
        )
    }

    fn read(extra: &str) -> Result<Option<Vec<f32>>, ModelError> {
        let settings = parse(&source(extra))?;
        let config = settings.model_config("x")?;
        settings.frequency_factors(&config)
    }

    #[test]
    fn llama3_scaling_gives_the_known_ends() {
        let factors = read(
            r#","rope_scaling":{"rope_type":"llama3","factor":32.0,"low_freq_factor":1.0,
            "high_freq_factor":4.0,"original_max_position_embeddings":8192}"#,
        )
        .unwrap()
        .unwrap();
        assert_eq!(factors.len(), 32);
        assert!((factors[0] - 1.0).abs() < 1e-6 && (factors[31] - 32.0).abs() < 1e-6);
        assert!(factors.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(read("").unwrap(), None);
    }

    #[test]
    fn features_without_an_implementation_are_refused_by_name() {
        for (extra, expected) in [
            (r#","rope_scaling":{"type":"yarn","factor":4.0}"#, "yarn"),
            (r#","hidden_act":"gelu""#, "gelu"),
            (r#","sliding_window":4096"#, "4096"),
            (r#","quantization_config":{"bits":4}"#, "quantized"),
        ] {
            let message = read(extra).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let message = parse(r#"{"architectures":["GraniteForCausalLM"]}"#).unwrap_err().to_string();
        assert!(message.contains("GraniteForCausalLM") && message.contains("--engine"));
        assert!(parse("{").is_err() && parse("{}").is_err() && parse("[1]").is_err());
    }

    proptest! {
        #[test]
        fn random_numbers_never_panic(
            heads in 0_usize..5, kv in 0_usize..5, hidden in any::<u64>(), vocabulary in any::<u64>(),
        ) {
            let text = format!(
                r#"{{"model_type":"qwen2","vocab_size":{vocabulary},"hidden_size":{hidden},
                "num_hidden_layers":2,"num_attention_heads":{heads},"num_key_value_heads":{kv},
                "intermediate_size":8,"max_position_embeddings":16,"rms_norm_eps":1e-5}}"#
            );
            if let Ok(settings) = parse(&text) {
                let _ = settings.model_config("x");
            }
        }
    }
}
