//! The updates that the parity check with PEFT starts from, made the same way for both sides.

use std::sync::Arc;

use espalier_model::ModulePatterns;
use espalier_nn::NnError;
use espalier_nn::transformer::{FrozenTransformer, LoraModel, LoraOptions, Targets};

/// What is held against PEFT; `mixed` has ranks and alphas of its own in the two top layers, and not in all modules.
pub const VARIANTS: [&str; 4] = ["lora", "rslora", "dora", "mixed"];

/// Disturbed updates of a variant, so that no gradient is zero.
pub fn network(frozen: Arc<FrozenTransformer>, variant: &str) -> Result<LoraModel, NnError> {
    let usual = LoraOptions { rank: 4, alpha: 8.0, ..LoraOptions::default() };
    let options = match variant {
        "rslora" => LoraOptions { rslora: true, ..usual },
        "dora" => LoraOptions { dora: true, ..usual },
        "mixed" => LoraOptions {
            targets: Targets::Pattern(r"model\.layers\.\d+\.(self_attn\.[qv]_proj|mlp\..*)".to_owned()),
            rank_pattern: ModulePatterns(vec![("up_proj".to_owned(), 7), (r"mlp\..*".to_owned(), 2)]),
            alpha_pattern: ModulePatterns(vec![("v_proj".to_owned(), 5.5)]),
            top_layers: Some(2),
            ..usual
        },
        _ => usual,
    };
    let mut network = LoraModel::new(frozen, &options, 5)?;
    for (index, value) in network.parameters_mut().iter_mut().enumerate() {
        *value += ((index * 7919 % 1009) as f32 / 1009.0 - 0.5) * 0.02;
    }
    Ok(network)
}
