//! The transformer families that have a native forward pass.

use espalier_kernels::ops::{GatedActivation, RopeStyle};

use crate::ModelError;

/// Transformer families with a native forward pass.
///
/// What follows from the family alone stands here; the rest of the graph is read into
/// [`ModelConfig`](super::ModelConfig), which is all that the forward passes look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama and what shares its graph (Mistral with its sliding window, `SmolLM2`, `TinyLlama`).
    Llama,
    /// Qwen 2 and 2.5: biases on q, k and v, the other pairing of rotary dimensions.
    Qwen2,
    /// Qwen 3 (dense): the heads of q and k are normalised, no biases.
    Qwen3,
    /// Granite 3 (dense): factors on embedding, scores, residual branches and logits.
    Granite,
    /// `SmolLM3`: every fourth layer knows no positions.
    SmolLm3,
    /// Gemma 3 (text): norms on both sides, `GeGlu`, five layers with a window to one without.
    Gemma3,
}

/// All of them by the value of `general.architecture`.
const NAMES: [(Architecture, &str); 6] = [
    (Architecture::Llama, "llama"),
    (Architecture::Qwen2, "qwen2"),
    (Architecture::Qwen3, "qwen3"),
    (Architecture::Granite, "granite"),
    (Architecture::SmolLm3, "smollm3"),
    (Architecture::Gemma3, "gemma3"),
];

/// Where a block normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// In front of attention and of the feed-forward network.
    Before,
    /// In front of both, and behind both before the residual stream is added.
    BeforeAndAfter,
}

impl Architecture {
    /// From the value of `general.architecture`.
    ///
    /// # Errors
    ///
    /// Any other architecture, by its name.
    pub fn from_name(name: &str) -> Result<Self, ModelError> {
        let found = NAMES.iter().find(|(_, known)| *known == name);
        found
            .map(|(architecture, _)| *architecture)
            .ok_or_else(|| ModelError::UnsupportedArchitecture { architecture: name.to_owned() })
    }

    /// From the class in `config.json`, or its `model_type` where there is no class.
    ///
    /// # Errors
    ///
    /// Any other class, by its name.
    pub(crate) fn from_class(class: &str) -> Result<Self, ModelError> {
        Ok(match class {
            "LlamaForCausalLM" | "MistralForCausalLM" | "llama" | "mistral" => Self::Llama,
            "Qwen2ForCausalLM" | "qwen2" => Self::Qwen2,
            "Qwen3ForCausalLM" | "qwen3" => Self::Qwen3,
            "GraniteForCausalLM" | "granite" => Self::Granite,
            "SmolLM3ForCausalLM" | "smollm3" => Self::SmolLm3,
            "Gemma3ForCausalLM" | "gemma3_text" => Self::Gemma3,
            other => return Err(ModelError::UnsupportedArchitecture { architecture: other.to_owned() }),
        })
    }

    /// The value of `general.architecture`, which also begins the names of its keys.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(architecture, _)| *architecture == self).map_or("", |(_, name)| name)
    }

    /// How rotary dimensions are paired: neighbours where GGUF permutes the rows of q and k, else halves.
    pub(super) fn rope_style(self) -> RopeStyle {
        match self {
            Self::Llama | Self::Granite | Self::SmolLm3 => RopeStyle::Interleaved,
            Self::Qwen2 | Self::Qwen3 | Self::Gemma3 => RopeStyle::Halves,
        }
    }

    /// Whether each head of q and k is normalised before it is rotated.
    pub(crate) fn head_norms(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Gemma3)
    }

    pub(crate) fn norms(self) -> NormPlacement {
        if self == Self::Gemma3 { NormPlacement::BeforeAndAfter } else { NormPlacement::Before }
    }

    pub(crate) fn activation(self) -> GatedActivation {
        if self == Self::Gemma3 { GatedActivation::GeGlu } else { GatedActivation::SwiGlu }
    }

    /// Every how many layers one is not rotated.
    pub(crate) fn unrotated_every(self) -> Option<usize> {
        (self == Self::SmolLm3).then_some(4)
    }

    /// What the norms in safetensors lack: GGUF stores `1 + w` where those hold `w`.
    pub(crate) fn norm_offset(self) -> f32 {
        if self == Self::Gemma3 { 1.0 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_both_ways_and_the_refusal_names_all() {
        let refusal = Architecture::from_name("mamba").unwrap_err().to_string();
        for (architecture, name) in NAMES {
            assert_eq!(Architecture::from_name(name).unwrap(), architecture);
            assert_eq!(architecture.name(), name);
            assert!(refusal.contains(name), "{refusal}");
        }
    }
}
