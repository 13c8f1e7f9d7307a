//! The architectures of `espalier-model` with `LoRA`: a frozen base that is packed once or stays in its file, and the updates
//! that train beside it.

mod adapter;
mod batch;
mod device;
mod divergence;
mod frozen;
mod lora;
mod lora_options;
mod memory;
mod network;
mod targets;
mod updates;

pub use batch::{Batch, BatchLoss};
pub use device::{DeviceModel, DeviceTransformer};
pub use espalier_kernels::ops::RowLoss;
pub use frozen::{BaseWeights, FrozenLayer, FrozenTransformer, TokenVectors};
pub use lora::LoraModel;
pub use lora_options::{LoraOptions, ModulePlan};
pub use memory::{MemoryParts, StepMemory};
pub use network::{Base, Network};
pub use targets::{PROJECTIONS, Projection, Targets};
pub use updates::Updates;
