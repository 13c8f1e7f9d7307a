//! Architectures llama and qwen2 with `LoRA`: a frozen base that is packed once, and the updates that train beside it.

mod batch;
mod frozen;
mod lora;
mod targets;

pub use batch::{Batch, BatchLoss};
pub use frozen::{FrozenLayer, FrozenTransformer};
pub use lora::{LoraModel, LoraOptions};
pub use targets::{PROJECTIONS, Projection, projections};
