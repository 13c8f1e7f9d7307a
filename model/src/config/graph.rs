//! What the graph of a model has besides its sizes: factors, positions, windows; and their keys in GGUF.

use espalier_kernels::ops::RopeTable;

use super::{Architecture, ModelConfig, impossible, invalid_key};
use crate::ModelError;
use crate::gguf::{Array, Metadata, Value};

/// Layers of the one Gemma 3 whose scores are divided by `sqrt(hidden / heads)`: files do not say so, llama.cpp goes by
/// this number too.
const GEMMA3_27B_LAYERS: usize = 62;
/// What Gemma 3 has where its keys say nothing.
const GEMMA3_FULL_EVERY: usize = 6;
const GEMMA3_LOCAL_THETA: f32 = 10_000.0;

/// Factors of parts of the graph; 1 (and for the scores `1 / sqrt(head_dim)`) in most architectures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// Of the token vectors.
    pub embedding: f32,
    /// Of the scores of attention.
    pub scores: f32,
    /// Of what attention and the feed-forward network add to the residual stream.
    pub residual: f32,
    /// What the logits are divided by.
    pub logits: f32,
}

/// How positions turn queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation {
    /// Base of the rotary frequencies.
    pub theta: f32,
    /// What all frequencies are divided by (linear scaling).
    pub factor: f32,
}

/// Layers whose queries see only the last positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlidingWindow {
    /// Positions that a query sees, its own included.
    pub tokens: usize,
    /// Every how many layers one sees all positions; without it none does.
    pub full_every: Option<usize>,
    /// The rotation of layers with a window.
    pub rotation: Rotation,
}

/// The attention of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerAttention {
    /// Positions that a query sees, its own included; without it all.
    pub window: Option<usize>,
    /// How positions turn queries and keys; without it they do not.
    pub rotation: Option<Rotation>,
}

impl Rotation {
    /// Cosines and sines for `positions`; `frequency_factors` divide the frequencies beside [`Self::factor`].
    ///
    /// # Panics
    ///
    /// When the dimensions do not fit the head, or the factors are not one for each pair.
    pub fn table(self, config: &ModelConfig, frequency_factors: Option<&[f32]>, positions: usize) -> RopeTable {
        let scaled = (self.factor.to_bits() != 1.0_f32.to_bits()).then(|| {
            let pairs = config.rotary_dims / 2;
            let own = frequency_factors.map_or_else(|| vec![1.0; pairs], <[f32]>::to_vec);
            own.into_iter().map(|factor| factor * self.factor).collect::<Vec<_>>()
        });
        let factors = scaled.as_deref().or(frequency_factors);
        RopeTable::new(config.head_dim, config.rotary_dims, self.theta, factors, positions)
    }
}

impl SlidingWindow {
    fn applies(&self, layer: usize) -> bool {
        self.full_every.is_none_or(|every| !(layer + 1).is_multiple_of(every))
    }
}

impl ModelConfig {
    /// The attention of a layer.
    pub fn layer_attention(&self, layer: usize) -> LayerAttention {
        let window = self.window.filter(|window| window.applies(layer));
        let turns = self.unrotated_every.is_none_or(|every| !(layer + 1).is_multiple_of(every));
        let rotation = window.map_or(self.rotation, |window| window.rotation);
        LayerAttention { window: window.map(|window| window.tokens), rotation: turns.then_some(rotation) }
    }

    /// Refuses numbers that no model has.
    pub(super) fn check_graph(&self) -> Result<(), ModelError> {
        for Rotation { theta, factor } in
            [Some(self.rotation), self.window.map(|window| window.rotation)].into_iter().flatten()
        {
            if !(theta.is_finite() && theta > 1.0) {
                return Err(impossible(format!("the rotary base is {theta}")));
            }
            if !(factor.is_finite() && factor > 0.0) {
                return Err(impossible(format!("the rotary factor is {factor}")));
            }
        }
        let Scales { embedding, scores, residual, logits } = self.scales;
        for (what, scale) in [("embedding", embedding), ("scores", scores), ("residual", residual), ("logits", logits)]
        {
            if !(scale.is_finite() && scale > 0.0) {
                return Err(impossible(format!("the factor of the {what} is {scale}")));
            }
        }
        if self.window.is_some_and(|window| window.tokens == 0 || window.full_every == Some(0)) {
            return Err(impossible("the sliding window has no tokens or no layers".to_owned()));
        }
        Ok(())
    }

    /// Adds the keys of what this module reads, as a converter writes them.
    pub(super) fn add_graph_metadata(&self, metadata: &mut Metadata) {
        let name = self.architecture.name();
        let mut number = |key: &str, value: f32| metadata.insert(format!("{name}.{key}"), value);
        number("rope.freq_base", self.rotation.theta);
        number("attention.layer_norm_rms_epsilon", self.rms_epsilon);
        let usual = default_scales(self.architecture, self.hidden, self.heads, self.head_dim, self.layers);
        let differs = |a: f32, b: f32| a.to_bits() != b.to_bits();
        if self.architecture == Architecture::Granite {
            number("logit_scale", self.scales.logits);
            number("embedding_scale", self.scales.embedding);
            number("residual_scale", self.scales.residual);
        }
        if differs(self.scales.scores, usual.scores) {
            number("attention.scale", self.scales.scores);
        }
        if differs(self.rotation.factor, 1.0) {
            number("rope.scaling.factor", self.rotation.factor);
        }
        if let Some(window) = self.window
            && differs(window.rotation.theta, self.rotation.theta)
        {
            number("rope.freq_base_swa", window.rotation.theta);
        }
        if differs(self.rotation.factor, 1.0) {
            metadata.insert(format!("{name}.rope.scaling.type"), "linear");
        }
        if let Some(window) = self.window {
            // `check` bounds them by the context and the number of layers.
            metadata.insert(format!("{name}.attention.sliding_window"), window.tokens as u32);
            if self.architecture == Architecture::Gemma3 {
                let every = window.full_every.unwrap_or(0);
                metadata.insert(format!("{name}.attention.sliding_window_pattern"), every as u32);
            }
        }
    }
}

/// The scales of a file that names none.
fn default_scales(architecture: Architecture, hidden: usize, heads: usize, head_dim: usize, layers: usize) -> Scales {
    let is_gemma = architecture == Architecture::Gemma3;
    let divisor = if is_gemma && layers == GEMMA3_27B_LAYERS { hidden / heads.max(1) } else { head_dim };
    let embedding = if is_gemma { (hidden as f32).sqrt() } else { 1.0 };
    Scales { embedding, scores: 1.0 / (divisor as f32).sqrt(), residual: 1.0, logits: 1.0 }
}

/// Factors from the keys; a factor of 0 is none.
pub(super) fn scales(
    metadata: &Metadata,
    architecture: Architecture,
    [hidden, heads, head_dim, layers]: [usize; 4],
) -> Result<Scales, ModelError> {
    let usual = default_scales(architecture, hidden, heads, head_dim, layers);
    let read = |suffix: &str, usual: f32| {
        let value = metadata.get_f32(&format!("{}.{suffix}", architecture.name()))?;
        Ok::<_, ModelError>(value.filter(|value| *value != 0.0).unwrap_or(usual))
    };
    Ok(match architecture {
        Architecture::Granite => Scales {
            embedding: read("embedding_scale", usual.embedding)?,
            scores: read("attention.scale", usual.scores)?,
            residual: read("residual_scale", usual.residual)?,
            logits: read("logit_scale", usual.logits)?,
        },
        Architecture::Gemma3 => Scales { scores: read("attention.scale", usual.scores)?, ..usual },
        _ => usual,
    })
}

/// The rotation of layers that see all positions.
pub(super) fn rotation(metadata: &Metadata, architecture: Architecture) -> Result<Rotation, ModelError> {
    let name = architecture.name();
    let unscaled = metadata.get_str(&format!("{name}.rope.scaling.type"))? == Some("none");
    let factor = metadata.get_f32(&format!("{name}.rope.scaling.factor"))?;
    Ok(Rotation {
        theta: metadata.get_f32(&format!("{name}.rope.freq_base"))?.unwrap_or(10_000.0),
        factor: factor.filter(|factor| !unscaled && *factor != 0.0).unwrap_or(1.0),
    })
}

/// The sliding window, unless it is longer than any sequence.
pub(super) fn window(
    metadata: &Metadata,
    architecture: Architecture,
    rotation: Rotation,
    [layers, context]: [usize; 2],
) -> Result<Option<SlidingWindow>, ModelError> {
    let key = |suffix: &str| format!("{}.{suffix}", architecture.name());
    let tokens = metadata.get_u32(&key("attention.sliding_window"))?.unwrap_or(0) as usize;
    if tokens == 0 || tokens >= context {
        // The layers of Gemma 3 that would have it still turn by their own base.
        if architecture != Architecture::Gemma3 || tokens == 0 {
            return Ok(None);
        }
    }
    if architecture != Architecture::Gemma3 {
        return Ok(Some(SlidingWindow { tokens, full_every: None, rotation }));
    }
    let theta = metadata.get_f32(&key("rope.freq_base_swa"))?.unwrap_or(GEMMA3_LOCAL_THETA);
    let pattern = key("attention.sliding_window_pattern");
    let full_every = match metadata.get(&pattern) {
        Some(Value::Array(Array::Bool(windowed))) => period(windowed).ok_or_else(|| {
            invalid_key(&pattern, "one layer without a window at regular distances", format!("{windowed:?}"))
        })?,
        _ => Some(metadata.get_u32(&pattern)?.map_or(GEMMA3_FULL_EVERY, |every| every as usize)),
    };
    let full_every = full_every.filter(|every| (1..=layers).contains(every));
    Ok(Some(SlidingWindow { tokens, full_every, rotation: Rotation { theta, factor: 1.0 } }))
}

/// Every how many layers one has no window, if these stand at regular distances; the inner `None` where all have one.
#[allow(clippy::option_option, reason = "irregular, or regular with or without such layers")]
pub(crate) fn period(windowed: &[bool]) -> Option<Option<usize>> {
    let every = windowed.iter().position(|windowed| !windowed).map(|first| first + 1);
    let regular = windowed
        .iter()
        .enumerate()
        .all(|(layer, windowed)| *windowed == every.is_none_or(|every| !(layer + 1).is_multiple_of(every)));
    regular.then_some(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_layers_have_a_period() {
        assert_eq!(period(&[true, true, false, true, true, false, true]), Some(Some(3)));
        assert_eq!(period(&[true, true]), Some(None));
        assert_eq!(period(&[false, false]), Some(Some(1)));
        assert_eq!(period(&[true, false, true, true]), None);
    }
}
