//! `config.json`.

use espalier_kernels::ops::GatedActivation;
use serde::Deserialize;
use serde_json::Value as Json;

use super::{add_token_id, bad_json};
use crate::ModelError;
use crate::config::{Architecture, ModelConfig, Rotation, Scales, SlidingWindow, period};
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
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    attention_bias: bool,
    /// `hidden_activation` is what Gemma 3 goes by.
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    /// Every how many layers of Gemma 3 one has no window, in files without `layer_types`.
    #[serde(alias = "_sliding_window_pattern")]
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
    rope_local_base_freq: Option<f32>,
    no_rope_layers: Option<Vec<u8>>,
    no_rope_layer_interval: Option<usize>,
    query_pre_attn_scalar: Option<f32>,
    attn_logit_softcapping: Option<f32>,
    final_logit_softcapping: Option<f32>,
    use_bidirectional_attention: Option<Json>,
    embedding_multiplier: Option<f32>,
    attention_multiplier: Option<f32>,
    residual_multiplier: Option<f32>,
    logits_scaling: Option<f32>,
    partial_rotary_factor: Option<f32>,
    #[serde(default)]
    quantization_config: Option<Json>,
    #[serde(default)]
    bos_token_id: Option<Json>,
    #[serde(default)]
    eos_token_id: Option<Json>,
    #[serde(default)]
    pad_token_id: Option<Json>,
}

#[derive(Debug, Default, Deserialize)]
struct Rotary {
    /// Of layers without a window, where these have settings of their own.
    full_attention: Option<Box<Rotary>>,
    /// Of layers with a window.
    sliding_attention: Option<Box<Rotary>>,
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
        Some(class) => Architecture::from_class(class),
        None => Err(ModelError::invalid(
            "fields \"architectures\" and \"model_type\"",
            "neither is there",
            "pass the folder of a language model with its complete config.json",
        )),
    }
}

/// What transformers takes for Gemma 3 where the file says nothing.
const GEMMA3_THETA: f32 = 1_000_000.0;
const GEMMA3_LOCAL_THETA: f32 = 10_000.0;
const GEMMA3_FULL_EVERY: usize = 6;

/// Where it is not `hidden_size / num_attention_heads`.
fn default_head_dim(architecture: Architecture) -> Option<usize> {
    match architecture {
        Architecture::Qwen3 => Some(128),
        Architecture::Gemma3 => Some(256),
        _ => None,
    }
}

fn ties_by_default(architecture: Architecture) -> bool {
    matches!(architecture, Architecture::SmolLm3 | Architecture::Gemma3)
}

impl Settings {
    pub(super) fn model_config(&self, name: &str) -> Result<ModelConfig, ModelError> {
        let architecture = architecture(self.architectures.as_deref(), self.model_type.as_deref())?;
        self.refuse_unimplemented(architecture)?;
        let divided = self
            .hidden_size
            .checked_div(self.num_attention_heads)
            .filter(|_| self.hidden_size.is_multiple_of(self.num_attention_heads));
        let Some(head_dim) = self.head_dim.or(default_head_dim(architecture)).or(divided) else {
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
            rotation: self.rotation(architecture),
            unrotated_every: architecture.unrotated_every(),
            window: self.window(architecture)?,
            rotary_dims: head_dim,
            tied_head: self.tie_word_embeddings.unwrap_or(ties_by_default(architecture)),
            attention_bias: architecture == Architecture::Qwen2 || self.attention_bias,
            head_norms: architecture.head_norms(),
            norms: architecture.norms(),
            activation: architecture.activation(),
            scales: self.scales(architecture, head_dim),
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
        let (field, activation, known): (_, _, &[&str]) = match architecture.activation() {
            GatedActivation::SwiGlu => ("hidden_act", &self.hidden_act, &["silu", "swish"]),
            GatedActivation::GeGlu => ("hidden_activation", &self.hidden_activation, &["gelu_pytorch_tanh"]),
        };
        if let Some(activation) = activation
            && !known.contains(&activation.as_str())
        {
            return refuse(field, format!("the activation {activation:?}"));
        }
        // Qwen and SmolLM3 state a window that they use only when told so.
        if let Some(window) = self.sliding_window
            && self.use_sliding_window == Some(true)
            && !self.has_windows(architecture)
            && window < self.max_position_embeddings
        {
            return refuse("sliding_window", format!("a sliding window of {window} tokens"));
        }
        for (field, cap) in [
            ("attn_logit_softcapping", self.attn_logit_softcapping),
            ("final_logit_softcapping", self.final_logit_softcapping),
        ] {
            if let Some(cap) = cap {
                return refuse(field, format!("a soft cap of {cap}"));
            }
        }
        if self
            .use_bidirectional_attention
            .as_ref()
            .is_some_and(|value| !matches!(value, Json::Null | Json::Bool(false)))
        {
            return refuse("use_bidirectional_attention", "attention to later tokens".to_owned());
        }
        if let Some(every) = architecture.unrotated_every() {
            let expected = |(layer, turned): (usize, &u8)| (*turned == 0) == (layer + 1).is_multiple_of(every);
            if let Some(layers) = &self.no_rope_layers
                && !layers.iter().enumerate().all(expected)
            {
                return refuse("no_rope_layers", format!("layers without positions other than every {every}th"));
            }
            if let Some(interval) = self.no_rope_layer_interval
                && interval != every
                && self.no_rope_layers.is_none()
            {
                return refuse("no_rope_layer_interval", format!("an interval other than {every}"));
            }
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

    /// The settings of layers without a window.
    fn rotary(&self) -> Option<&Rotary> {
        let stated = self.rope_scaling.as_ref().or(self.rope_parameters.as_ref())?;
        Some(stated.full_attention.as_deref().unwrap_or(stated))
    }

    fn rotation(&self, architecture: Architecture) -> Rotation {
        let parameters = self.rope_parameters.as_ref();
        let parameters = parameters.map(|stated| stated.full_attention.as_deref().unwrap_or(stated));
        let usual = if architecture == Architecture::Gemma3 { GEMMA3_THETA } else { 10_000.0 };
        let theta = parameters.and_then(|rotary| rotary.rope_theta).or(self.rope_theta).unwrap_or(usual);
        let linear = self.rotary().filter(|rotary| rotary.rope_type.as_deref() == Some("linear"));
        Rotation { theta, factor: linear.and_then(|rotary| rotary.factor).unwrap_or(1.0) }
    }

    /// Mistral and Gemma 3: a plain llama has no window, whatever its file says.
    fn has_windows(&self, architecture: Architecture) -> bool {
        let class = self.architectures.as_deref().and_then(|classes| classes.first()).map(String::as_str);
        let class = class.or(self.model_type.as_deref());
        architecture == Architecture::Gemma3 || matches!(class, Some("MistralForCausalLM" | "mistral"))
    }

    fn window(&self, architecture: Architecture) -> Result<Option<SlidingWindow>, ModelError> {
        let Some(tokens) = self.sliding_window.filter(|_| self.has_windows(architecture)) else {
            return Ok(None);
        };
        if architecture != Architecture::Gemma3 {
            let rotation = self.rotation(architecture);
            return Ok((tokens < self.max_position_embeddings).then_some(SlidingWindow {
                tokens,
                full_every: None,
                rotation,
            }));
        }
        let full_every = match &self.layer_types {
            Some(types) => {
                let windowed: Vec<bool> = types.iter().map(|kind| kind == "sliding_attention").collect();
                period(&windowed).ok_or_else(|| {
                    ModelError::invalid(
                        "field \"layer_types\"",
                        "layers without a window do not stand at regular distances",
                        "serve the model with llama-server, vLLM or Ollama and pass --engine http://HOST:PORT",
                    )
                })?
            }
            None => Some(self.sliding_window_pattern.unwrap_or(GEMMA3_FULL_EVERY)),
        };
        let stated = self.rope_parameters.as_ref().and_then(|stated| stated.sliding_attention.as_deref());
        let theta = stated.and_then(|rotary| rotary.rope_theta).or(self.rope_local_base_freq);
        let rotation = Rotation { theta: theta.unwrap_or(GEMMA3_LOCAL_THETA), factor: 1.0 };
        let full_every = full_every.filter(|every| (1..=self.num_hidden_layers).contains(every));
        Ok(Some(SlidingWindow { tokens, full_every, rotation }))
    }

    fn scales(&self, architecture: Architecture, head_dim: usize) -> Scales {
        let usual = Scales { embedding: 1.0, scores: 1.0 / (head_dim as f32).sqrt(), residual: 1.0, logits: 1.0 };
        match architecture {
            // What transformers takes where the file says nothing.
            Architecture::Granite => Scales {
                embedding: self.embedding_multiplier.unwrap_or(1.0),
                scores: self.attention_multiplier.unwrap_or(1.0),
                residual: self.residual_multiplier.unwrap_or(1.0),
                logits: self.logits_scaling.unwrap_or(1.0),
            },
            Architecture::Gemma3 => Scales {
                embedding: (self.hidden_size as f32).sqrt(),
                scores: 1.0 / self.query_pre_attn_scalar.unwrap_or(256.0).sqrt(),
                ..usual
            },
            _ => usual,
        }
    }

    /// Divisors of the rotary frequencies where the scaling of Llama 3.1 asks for them.
    pub(super) fn frequency_factors(&self, config: &ModelConfig) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(rotary) = self.rotary() else {
            return Ok(None);
        };
        let kind = rotary.rope_type.as_deref().unwrap_or("default");
        match kind {
            // The factor of the second is in the configuration.
            "default" | "none" | "linear" => return Ok(None),
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
        Ok(Some(frequency_factors(scaling, config.rotary_dims, config.rotation.theta)))
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
        add_token_id(metadata, "padding", id(&self.pad_token_id));
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
            (r#","sliding_window":4096,"use_sliding_window":true"#, "4096"),
            (r#","final_logit_softcapping":30.0"#, "soft cap of 30"),
            (r#","quantization_config":{"bits":4}"#, "quantized"),
        ] {
            let message = read(extra).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let message = parse(r#"{"architectures":["MambaForCausalLM"]}"#).unwrap_err().to_string();
        assert!(message.contains("MambaForCausalLM") && message.contains("--engine"));
        assert!(parse("{").is_err() && parse("{}").is_err() && parse("[1]").is_err());
    }

    /// The configuration, which has to come back from the keys of a GGUF file.
    fn of_class(class: &str, extra: &str) -> ModelConfig {
        let text = source(extra).replace("LlamaForCausalLM", class);
        let config = parse(&text).unwrap().model_config("x").unwrap();
        let metadata = config.to_metadata();
        let again =
            ModelConfig::from_metadata(&metadata, "x", 128_256, config.tied_head, config.attention_bias).unwrap();
        assert_eq!(again, config);
        config
    }

    #[test]
    fn graphs_are_read_and_come_back_from_their_keys() {
        let theta = |config: &ModelConfig, layer| config.layer_attention(layer).rotation.map(|turn| turn.theta);
        let window = |config: &ModelConfig, layer| config.layer_attention(layer).window;
        let plain = of_class("LlamaForCausalLM", r#","sliding_window":4096"#);
        assert_eq!((window(&plain, 0), theta(&plain, 1)), (None, Some(500_000.0)));
        let mistral = of_class("MistralForCausalLM", r#","sliding_window":4096"#);
        assert_eq!((window(&mistral, 0), window(&mistral, 1)), (Some(4096), Some(4096)));
        assert_eq!(of_class("MistralForCausalLM", r#","sliding_window":null"#).window, None);
        let linear = of_class("LlamaForCausalLM", r#","rope_scaling":{"type":"linear","factor":2.0}"#);
        assert!((linear.rotation.factor - 2.0).abs() < 1e-9);
        assert!(of_class("Qwen3ForCausalLM", r#","sliding_window":4096"#).head_norms);

        let multipliers = r#","attention_multiplier":0.0078125,"embedding_multiplier":12.0,"residual_multiplier":0.22,
            "logits_scaling":16.0"#;
        let granite = of_class("GraniteForCausalLM", multipliers).scales;
        assert_eq!(granite, Scales { embedding: 12.0, scores: 0.007_812_5, residual: 0.22, logits: 16.0 });

        let smollm3 = source(r#","no_rope_layers":[1,1,1,0,1]"#).replace("LlamaForCausalLM", "SmolLM3ForCausalLM");
        let smollm3 = parse(&smollm3.replace(r#""num_hidden_layers":2"#, r#""num_hidden_layers":5"#)).unwrap();
        let smollm3 = smollm3.model_config("x").unwrap();
        assert_eq!((theta(&smollm3, 2), theta(&smollm3, 3), theta(&smollm3, 4)), (Some(5e5), None, Some(5e5)));
        let other = source(r#","no_rope_layers":[1,0]"#).replace("LlamaForCausalLM", "SmolLM3ForCausalLM");
        assert!(parse(&other).unwrap().model_config("x").unwrap_err().to_string().contains("no_rope_layers"));

        let older = r#","hidden_activation":"gelu_pytorch_tanh","sliding_window":512,"sliding_window_pattern":2,
            "rope_local_base_freq":20000.0,"query_pre_attn_scalar":168,"rope_scaling":{"rope_type":"linear","factor":8.0}"#;
        let gemma3 = of_class("Gemma3ForCausalLM", older);
        assert!(gemma3.tied_head && (gemma3.scales.scores * 168.0_f32.sqrt() - 1.0).abs() < 1e-6);
        assert_eq!((window(&gemma3, 0), window(&gemma3, 1)), (Some(512), None));
        assert_eq!((theta(&gemma3, 0), theta(&gemma3, 1)), (Some(20_000.0), Some(500_000.0)));
        let newer = r#","sliding_window":512,"layer_types":["sliding_attention","sliding_attention"],"rope_parameters":
            {"full_attention":{"rope_type":"default","rope_theta":3e6},"sliding_attention":{"rope_theta":3e4}}"#;
        let gemma3 = of_class("Gemma3ForCausalLM", newer);
        assert_eq!((window(&gemma3, 1), theta(&gemma3, 1), gemma3.rotation.theta), (Some(512), Some(3e4), 3e6));
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
