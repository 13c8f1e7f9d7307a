//! Which modules get a low-rank update: the seven projections of each layer, and the words that choose among them.

use std::ops::Range;

use espalier_model::{ModelConfig, matches_whole_module};
use serde::{Deserialize, Serialize};

use crate::error::NnError;

/// One of the seven projections of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Projection {
    /// Name in PEFT and transformers, behind `model.layers.N.`.
    pub path: &'static str,
    /// Name in GGUF, behind `blk.N.`.
    pub gguf: &'static str,
    /// The group that shares an input and one frozen product.
    pub(crate) group: usize,
}

const fn projection(path: &'static str, gguf: &'static str, group: usize) -> Projection {
    Projection { path, gguf, group }
}

/// All projections, in the order of the outputs of their groups.
pub const PROJECTIONS: [Projection; 7] = [
    projection("self_attn.q_proj", "attn_q", 0),
    projection("self_attn.k_proj", "attn_k", 0),
    projection("self_attn.v_proj", "attn_v", 0),
    projection("self_attn.o_proj", "attn_output", 1),
    projection("mlp.gate_proj", "ffn_gate", 2),
    projection("mlp.up_proj", "ffn_up", 2),
    projection("mlp.down_proj", "ffn_down", 3),
];

impl Projection {
    /// The last part of its name in PEFT (`q_proj`).
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// Its whole name in PEFT for a layer.
    pub fn module(&self, layer: usize) -> String {
        format!("model.layers.{layer}.{}", self.path)
    }

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

/// Which modules are adapted, as PEFT's `target_modules` says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMany", into = "OneOrMany")]
pub enum Targets {
    /// All seven projections of every layer.
    #[default]
    AllLinear,
    /// Ends of names, after a dot or whole: `q_proj`, `mlp.up_proj`, `model.layers.0.self_attn.q_proj`.
    Names(Vec<String>),
    /// A regular expression that must match a whole name.
    Pattern(String),
}

/// How targets are written.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "`targets` must be a list such as [q_proj, v_proj], the word all-linear, or a regular expression on whole names"
)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

const ALL_LINEAR: &str = "all-linear";

impl From<OneOrMany> for Targets {
    fn from(written: OneOrMany) -> Self {
        match written {
            OneOrMany::One(word) if word.eq_ignore_ascii_case(ALL_LINEAR) => Self::AllLinear,
            OneOrMany::Many(names) if names == [ALL_LINEAR] => Self::AllLinear,
            OneOrMany::One(pattern) => Self::Pattern(pattern),
            OneOrMany::Many(names) => Self::Names(names),
        }
    }
}

impl From<Targets> for OneOrMany {
    fn from(targets: Targets) -> Self {
        match targets {
            Targets::AllLinear => Self::One(ALL_LINEAR.to_owned()),
            Targets::Names(names) => Self::Many(names),
            Targets::Pattern(pattern) => Self::One(pattern),
        }
    }
}

impl Targets {
    /// What can be said without a model: names that no projection ends in, an empty list, a pattern that is none.
    pub fn check(&self) -> Result<(), NnError> {
        match self {
            Self::AllLinear => Ok(()),
            Self::Names(names) if names.is_empty() => Err(NnError::NoTarget),
            Self::Names(names) => {
                let known = |name: &str| PROJECTIONS.iter().any(|one| name.rsplit('.').next() == Some(one.name()));
                match names.iter().find(|name| !known(name)) {
                    Some(name) => Err(unknown(name)),
                    None => Ok(()),
                }
            }
            Self::Pattern(pattern) => Ok(matches_whole_module(pattern, "").map(|_| ())?),
        }
    }

    /// The adapted modules of a model, layer by layer in the order of [`PROJECTIONS`].
    ///
    /// # Errors
    ///
    /// A name or a pattern that matches nothing.
    pub fn choose(&self, config: &ModelConfig) -> Result<Vec<(usize, Projection)>, NnError> {
        self.check()?;
        let all = || (0..config.layers).flat_map(|layer| PROJECTIONS.iter().map(move |one| (layer, *one)));
        match self {
            Self::AllLinear => Ok(all().collect()),
            Self::Names(names) => {
                let ends = |name: &str, module: &str| module == name || module.ends_with(&format!(".{name}"));
                let nowhere = |name: &&String| !all().any(|(layer, one)| ends(name, &one.module(layer)));
                if let Some(name) = names.iter().find(nowhere) {
                    return Err(unknown(name));
                }
                Ok(all().filter(|(layer, one)| names.iter().any(|name| ends(name, &one.module(*layer)))).collect())
            }
            Self::Pattern(pattern) => {
                let mut chosen = Vec::new();
                for (layer, one) in all() {
                    if matches_whole_module(pattern, &one.module(layer))? {
                        chosen.push((layer, one));
                    }
                }
                if chosen.is_empty() {
                    return Err(NnError::PatternWithoutTarget(pattern.clone()));
                }
                Ok(chosen)
            }
        }
    }
}

/// An error that names the projection nearest to `name`.
fn unknown(name: &str) -> NnError {
    let last = name.rsplit('.').next().unwrap_or(name);
    let shared = |one: &&Projection| {
        let own = one.name();
        let ahead = own.chars().zip(last.chars()).take_while(|(a, b)| a == b).count();
        let behind = own.chars().rev().zip(last.chars().rev()).take_while(|(a, b)| a == b).count();
        (ahead + behind).min(own.len())
    };
    let nearest = PROJECTIONS.iter().rev().max_by_key(shared).map_or("q_proj", Projection::name);
    NnError::UnknownTarget { name: name.to_owned(), nearest }
}
