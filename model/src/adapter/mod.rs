//! Low-rank adapters: `W' = W + scale * B A` for some linear layers of a model.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{ModelConfig, ModelError};

mod gguf;
mod peft;

/// The two factors of one linear layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraPair {
    /// `[rank, inputs]`, row-major.
    pub a: Vec<f32>,
    /// `[outputs, rank]`, row-major, rows in GGUF order.
    pub b: Vec<f32>,
    /// Columns of the layer's weight.
    pub inputs: usize,
    /// Rows of the layer's weight.
    pub outputs: usize,
}

/// A trained adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraAdapter {
    /// Rows of every `a`.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f32,
    /// Whether the scale is `alpha / sqrt(rank)` and not `alpha / rank` (rank-stabilised `LoRA`).
    pub rslora: bool,
    /// The model that it was trained on, as its configuration names it.
    pub base_model: String,
    /// The factors by the name of the module (`blk.0.attn_q`).
    pub modules: BTreeMap<String, LoraPair>,
}

impl LoraAdapter {
    /// What `B A` is multiplied by.
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f32;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Reads a PEFT folder or an adapter GGUF and checks it against the model that it is for.
    ///
    /// # Errors
    ///
    /// A damaged file, a kind of adapter that is not plain `LoRA`, modules or shapes that the model does not have.
    pub fn load(path: &Path, config: &ModelConfig) -> Result<Self, ModelError> {
        let adapter = if path.is_dir() { peft::load(path, config) } else { gguf::load(path, config) };
        let adapter = adapter.map_err(|error| error.in_file(path))?;
        adapter.check(config).map_err(|error| error.in_file(path))?;
        Ok(adapter)
    }

    /// Writes a folder that PEFT, vLLM and [`LoraAdapter::load`] read; its files appear one by one, the weights last.
    pub fn save_peft(&self, directory: &Path, config: &ModelConfig) -> Result<(), ModelError> {
        self.check(config)?;
        peft::save(self, directory, config)
    }

    /// Writes an adapter GGUF for `llama-server --lora` and [`LoraAdapter::load`].
    pub fn save_gguf(&self, path: &Path, config: &ModelConfig) -> Result<(), ModelError> {
        self.check(config)?;
        gguf::save(self, path, config)
    }

    /// Refuses modules, shapes and numbers that do not fit the model.
    fn check(&self, config: &ModelConfig) -> Result<(), ModelError> {
        if self.rank == 0 || self.modules.is_empty() {
            return Err(ModelError::invalid("adapter", "it is empty", "train it again"));
        }
        // An alpha of 0 makes an adapter without effect here, and one of full effect in llama.cpp.
        if !self.scale().is_finite() || self.alpha == 0.0 {
            let problem = format!("its alpha is {}", self.alpha);
            return Err(ModelError::invalid("adapter", problem, "train it again"));
        }
        for (module, pair) in &self.modules {
            let place = || format!("adapter module {module:?}");
            check_shape(module, pair, self.rank, config)?;
            let (inputs, outputs) = (pair.inputs, pair.outputs);
            if Some(pair.a.len()) != self.rank.checked_mul(inputs)
                || Some(pair.b.len()) != self.rank.checked_mul(outputs)
            {
                let problem = format!("its factors do not have rank {} for these shapes", self.rank);
                return Err(ModelError::invalid(place(), problem, "train or export it again"));
            }
            if !pair.a.iter().chain(&pair.b).all(|value| value.is_finite()) {
                let problem = "it holds values that are not finite";
                return Err(ModelError::invalid(place(), problem, "train it again"));
            }
        }
        Ok(())
    }
}

/// Refuses a module that the model does not have in this shape, and ranks above its sizes.
fn check_shape(module: &str, pair: &LoraPair, rank: usize, config: &ModelConfig) -> Result<(), ModelError> {
    let problem = match config.linear_shape(module) {
        None => format!("model {:?} has no such linear layer", config.name),
        Some((inputs, outputs)) if (pair.inputs, pair.outputs) != (inputs, outputs) => format!(
            "it is for {} inputs and {} outputs, but the model has {inputs} and {outputs}",
            pair.inputs, pair.outputs
        ),
        Some(_) if rank > MOST_RANK => format!("its rank is {rank}, above {MOST_RANK}"),
        Some(_) => return Ok(()),
    };
    Err(ModelError::invalid(
        format!("adapter module {module:?}"),
        problem,
        "use the adapter with the model that it was trained on",
    ))
}

/// Beyond any use, and small enough that modules of different ranks cannot ask for more memory than a model has.
const MOST_RANK: usize = 1 << 16;

/// One module as a file holds it, with a rank and a scale of its own.
struct LoosePair {
    pair: LoraPair,
    rank: usize,
    scale: f32,
}

/// Brings modules of different ranks and scales to one: smaller ranks are filled up with zeros, and where a scale is not
/// `scale_of_rank` of the largest rank, the ratio goes into `b`.
fn unify(
    modules: BTreeMap<String, LoosePair>,
    config: &ModelConfig,
    scale_of_rank: impl Fn(usize) -> f32,
) -> Result<(usize, BTreeMap<String, LoraPair>), ModelError> {
    let rank = modules.values().map(|module| module.rank).max().unwrap_or(0);
    let target = scale_of_rank(rank);
    let mut unified = BTreeMap::new();
    for (name, LoosePair { mut pair, rank: own, scale }) in modules {
        check_shape(&name, &pair, rank, config)?;
        pair.a.resize(rank * pair.inputs, 0.0);
        if own < rank && own > 0 {
            let mut wider = vec![0.0; rank * pair.outputs];
            for (to, from) in wider.chunks_exact_mut(rank).zip(pair.b.chunks_exact(own)) {
                to[..own].copy_from_slice(from);
            }
            pair.b = wider;
        }
        // Equal scales leave `b` untouched to the last bit.
        if scale.to_bits() != target.to_bits() {
            let ratio = scale / target;
            pair.b.iter_mut().for_each(|value| *value *= ratio);
        }
        unified.insert(name, pair);
    }
    Ok((rank, unified))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Architecture;

    #[test]
    fn ranks_and_scales_are_unified_without_a_change_of_the_product() {
        let config = ModelConfig {
            architecture: Architecture::Qwen2,
            name: "tiny".to_owned(),
            vocabulary: 8,
            hidden: 2,
            layers: 1,
            heads: 1,
            kv_heads: 1,
            head_dim: 2,
            feed_forward: 2,
            context: 8,
            rms_epsilon: 1e-5,
            rope_theta: 1e4,
            rotary_dims: 2,
            tied_head: true,
            attention_bias: true,
        };
        let loose = |rank: usize, scale: f32| LoosePair {
            pair: LoraPair {
                a: (0..2 * rank).map(|at| at as f32 + 1.0).collect(),
                b: (0..2 * rank).map(|at| at as f32 - 2.0).collect(),
                inputs: 2,
                outputs: 2,
            },
            rank,
            scale,
        };
        let product = |pair: &LoraPair, rank: usize, scale: f32| -> Vec<f32> {
            let entry = |out: usize, input: usize| {
                let sum: f32 = (0..rank).map(|r| pair.b[out * rank + r] * pair.a[r * pair.inputs + input]).sum();
                sum * scale
            };
            (0..2).flat_map(|out| (0..2).map(move |input| (out, input))).map(|(o, i)| entry(o, i)).collect()
        };
        let parts = [("blk.0.attn_q", 1, 8.0), ("blk.0.attn_v", 2, 2.0), ("blk.0.ffn_up", 2, 4.0)];
        let modules = parts.iter().map(|&(name, rank, scale)| (name.to_owned(), loose(rank, scale))).collect();
        let (rank, unified) = unify(modules, &config, |rank| 8.0 / rank as f32).unwrap();
        assert_eq!(rank, 2);
        for (name, own, scale) in parts {
            let before = product(&loose(own, scale).pair, own, scale);
            assert_eq!(product(&unified[name], rank, 4.0), before, "{name}");
        }
        assert_eq!(unified["blk.0.ffn_up"], loose(2, 4.0).pair);
    }
}
