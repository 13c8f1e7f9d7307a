//! Adapters as PEFT stores them: `adapter_config.json` and `adapter_model.safetensors` with
//! `base_model.model.model.layers.{i}.self_attn.q_proj.lora_A.weight` `[rank, inputs]`, `lora_B` `[outputs, rank]` and for
//! `DoRA` `lora_magnitude_vector` `[outputs]` (no `.weight`).
//!
//! For llama the rows of q and k in `lora_B` and the magnitudes have the order of Hugging Face in these files and that of
//! GGUF in memory. The hash of the base stands in the metadata of the weights: PEFT warns of settings that it does not know.
//! A chat template of its own lies beside them in `chat_template.jinja`, where transformers and TRL put it.

mod read;
mod write;

pub(super) use read::load;
pub(super) use write::save;

use crate::ModelConfig;
use crate::row_order::RowOrder;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// As transformers keeps the template of a tokenizer.
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const PREFIX: &str = "base_model.model.";
const BASE_SHA256: &str = "espalier.base_model.sha256";

fn row_order(config: &ModelConfig, module: &str) -> RowOrder {
    config.permuted_heads(module).map_or(RowOrder::AsStored, |heads| RowOrder::Halves { heads })
}
