//! Names of Hugging Face modules and tensors in GGUF.

use crate::config::NormPlacement;

/// Linear layers of a block: Hugging Face, GGUF.
const LINEAR: [(&str, &str); 7] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// `model.layers.3.mlp.up_proj` to `blk.3.ffn_up`; `None` for anything that is no linear layer of a block.
pub(crate) fn linear_to_gguf(module: &str) -> Option<String> {
    let (layer, part) = split_layer(module)?;
    let (_, gguf) = LINEAR.iter().find(|(name, _)| *name == part)?;
    Some(format!("blk.{layer}.{gguf}"))
}

/// `blk.3.ffn_up` to `model.layers.3.mlp.up_proj`.
pub(crate) fn linear_from_gguf(module: &str) -> Option<String> {
    let (layer, part) = module.strip_prefix("blk.")?.split_once('.')?;
    let (name, _) = LINEAR.iter().find(|(_, gguf)| *gguf == part)?;
    Some(format!("model.layers.{layer}.{name}"))
}

/// Norms of a block with a norm before each part: Hugging Face, GGUF.
const NORMS_BEFORE: [(&str, &str); 4] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
];

/// Norms of a block with norms before and behind each part: Hugging Face, GGUF.
const NORMS_BEFORE_AND_AFTER: [(&str, &str); 6] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

fn block_norms(norms: NormPlacement) -> &'static [(&'static str, &'static str)] {
    match norms {
        NormPlacement::Before => &NORMS_BEFORE,
        NormPlacement::BeforeAndAfter => &NORMS_BEFORE_AND_AFTER,
    }
}

/// The GGUF name of a tensor; `None` for names that no supported model has.
pub(crate) fn tensor_to_gguf(name: &str, norms: NormPlacement) -> Option<String> {
    let whole = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(gguf) = whole {
        return Some(gguf.to_owned());
    }
    let (module, suffix) = name.rsplit_once('.')?;
    if !matches!(suffix, "weight" | "bias") {
        return None;
    }
    if let Some(gguf) = linear_to_gguf(module) {
        return Some(format!("{gguf}.{suffix}"));
    }
    let (layer, part) = split_layer(module)?;
    let (_, gguf) = block_norms(norms).iter().find(|(name, _)| *name == part)?;
    Some(format!("blk.{layer}.{gguf}.{suffix}"))
}

/// The Hugging Face name of a tensor; `None` for names that [`tensor_to_gguf`] does not give.
pub(crate) fn tensor_from_gguf(name: &str, norms: NormPlacement) -> Option<String> {
    let whole = match name {
        "token_embd.weight" => Some("model.embed_tokens.weight"),
        "output_norm.weight" => Some("model.norm.weight"),
        "output.weight" => Some("lm_head.weight"),
        _ => None,
    };
    if let Some(huggingface) = whole {
        return Some(huggingface.to_owned());
    }
    let (module, suffix) = name.rsplit_once('.')?;
    if !matches!(suffix, "weight" | "bias") {
        return None;
    }
    if let Some(huggingface) = linear_from_gguf(module) {
        return Some(format!("{huggingface}.{suffix}"));
    }
    let (layer, part) = module.strip_prefix("blk.")?.split_once('.')?;
    let (huggingface, _) = block_norms(norms).iter().find(|(_, gguf)| *gguf == part)?;
    Some(format!("model.layers.{layer}.{huggingface}.{suffix}"))
}

/// `model.layers.3.mlp.up_proj` to `3` and `mlp.up_proj`.
fn split_layer(module: &str) -> Option<(&str, &str)> {
    let (layer, part) = module.strip_prefix("model.layers.")?.split_once('.')?;
    let is_number = !layer.is_empty() && layer.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((layer, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_both_ways() {
        for (huggingface, gguf) in LINEAR {
            let (module, target) = (format!("model.layers.12.{huggingface}"), format!("blk.12.{gguf}"));
            assert_eq!(linear_to_gguf(&module).as_deref(), Some(target.as_str()));
            assert_eq!(linear_from_gguf(&target).as_deref(), Some(module.as_str()));
        }
        let norm = "model.layers.0.post_attention_layernorm.weight";
        for (norms, gguf) in
            [(NormPlacement::Before, "ffn_norm"), (NormPlacement::BeforeAndAfter, "post_attention_norm")]
        {
            assert_eq!(tensor_to_gguf(norm, norms), Some(format!("blk.0.{gguf}.weight")));
        }
        let bias = tensor_to_gguf("model.layers.0.self_attn.k_proj.bias", NormPlacement::Before);
        assert_eq!(bias.as_deref(), Some("blk.0.attn_k.bias"));
        for name in ["token_embd.weight", "output.weight", "blk.7.ffn_norm.weight", "blk.7.attn_q.bias"] {
            for norms in [NormPlacement::Before, NormPlacement::BeforeAndAfter] {
                let huggingface = tensor_from_gguf(name, norms).unwrap();
                assert_eq!(tensor_to_gguf(&huggingface, norms).as_deref(), Some(name));
            }
        }
        assert_eq!(tensor_from_gguf("rope_freqs.weight", NormPlacement::Before), None);
        for unknown in ["model.layers.x.mlp.up_proj.weight", "lm_head", "model.layers.0.mlp.weight"] {
            assert_eq!(tensor_to_gguf(unknown, NormPlacement::Before), None);
        }
    }
}
