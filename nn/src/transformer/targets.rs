//! Which projections get a low-rank update, and how they are grouped.

use std::ops::Range;

use espalier_model::ModelConfig;

use crate::error::NnError;

/// One of the seven projections of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Projection {
    /// Name in PEFT and transformers.
    pub name: &'static str,
    /// Name in GGUF, behind `blk.N.`.
    pub gguf: &'static str,
    /// The group that shares an input and one frozen product.
    pub(crate) group: usize,
}

const fn projection(name: &'static str, gguf: &'static str, group: usize) -> Projection {
    Projection { name, gguf, group }
}

/// All projections, in the order of the outputs of their groups.
pub const PROJECTIONS: [Projection; 7] = [
    projection("q_proj", "attn_q", 0),
    projection("k_proj", "attn_k", 0),
    projection("v_proj", "attn_v", 0),
    projection("o_proj", "attn_output", 1),
    projection("gate_proj", "ffn_gate", 2),
    projection("up_proj", "ffn_up", 2),
    projection("down_proj", "ffn_down", 3),
];

impl Projection {
    /// `(inputs, outputs)` of its matrix.
    pub fn size(&self, config: &ModelConfig) -> (usize, usize) {
        let (query, key) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        match self.gguf {
            "attn_q" => (config.hidden, query),
            "attn_k" | "attn_v" => (config.hidden, key),
            "attn_output" => (query, config.hidden),
            "ffn_down" => (config.feed_forward, config.hidden),
            _ => (config.hidden, config.feed_forward),
        }
    }

    /// Its outputs in the product of its group.
    pub(crate) fn range(&self, config: &ModelConfig) -> Range<usize> {
        let before = PROJECTIONS.iter().take_while(|other| *other != self).filter(|other| other.group == self.group);
        let first = before.map(|other| other.size(config).1).sum();
        first..first + self.size(config).1
    }
}

/// The projections named by `names` (PEFT names; empty or `all-linear` means all seven), in the order of
/// [`PROJECTIONS`].
pub fn projections(names: &[String]) -> Result<Vec<Projection>, NnError> {
    if names.is_empty() || names == ["all-linear"] {
        return Ok(PROJECTIONS.to_vec());
    }
    if let Some(unknown) = names.iter().find(|name| !PROJECTIONS.iter().any(|known| known.name == **name)) {
        return Err(NnError::UnknownTarget(unknown.clone()));
    }
    Ok(PROJECTIONS.iter().filter(|known| names.iter().any(|name| name == known.name)).copied().collect())
}
