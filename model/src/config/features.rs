//! Features that the native engine does not compute, found by their keys.

use super::Architecture;
use crate::ModelError;
use crate::gguf::Metadata;

/// Scores and logits bent by `tanh`.
const SOFT_CAPS: [&str; 2] = ["attn_logit_softcapping", "final_logit_softcapping"];

/// Features of these architectures that change the result and that the native engine does not compute.
pub(super) fn refuse_unimplemented(metadata: &Metadata, architecture: Architecture) -> Result<(), ModelError> {
    let name = architecture.name();
    let refuse = |key: String, found: String| {
        Err(ModelError::invalid(
            format!("metadata key {key:?}"),
            format!("the native engine does not implement {found}"),
            "serve the model with llama-server, vLLM or Ollama and pass --engine http://HOST:PORT",
        ))
    };
    let key = format!("{name}.expert_count");
    if let Some(experts) = metadata.get_u32(&key)?
        && experts > 0
    {
        return refuse(key, format!("a mixture of {experts} experts"));
    }
    let key = format!("{name}.rope.scaling.type");
    if let Some(kind) = metadata.get_str(&key)?
        && !matches!(kind, "none" | "linear")
    {
        let factor = metadata.get_f32(&format!("{name}.rope.scaling.factor"))?;
        if factor != Some(1.0) {
            return refuse(key, format!("rotary scaling {kind:?}"));
        }
    }
    let key = format!("{name}.attention.sliding_window");
    let has_windows = matches!(architecture, Architecture::Llama | Architecture::Gemma3);
    if let Some(window) = metadata.get_u32(&key)?
        && !has_windows
    {
        let context = metadata.get_u32(&format!("{name}.context_length"))?.unwrap_or(u32::MAX);
        if window > 0 && window < context {
            return refuse(key, format!("a sliding window of {window} tokens"));
        }
    }
    let known: &[&str] = match architecture {
        Architecture::Granite => &["logit_scale", "embedding_scale", "residual_scale", "attention.scale"],
        Architecture::Gemma3 => &["attention.scale"],
        _ => &[],
    };
    for scale in ["logit_scale", "embedding_scale", "residual_scale", "attention.scale", SOFT_CAPS[0], SOFT_CAPS[1]] {
        let key = format!("{name}.{scale}");
        if let Some(value) = metadata.get_f32(&key)?
            && value != 0.0
            && !known.contains(&scale)
        {
            return refuse(key, format!("the scale {value}"));
        }
    }
    let key = "split.count";
    if let Some(count) = metadata.get_u32(key)?
        && count > 1
    {
        return Err(ModelError::invalid(
            format!("metadata key {key:?}"),
            format!("the file is one of {count} parts"),
            "join them with llama-gguf-split --merge and pass the whole file",
        ));
    }
    Ok(())
}
