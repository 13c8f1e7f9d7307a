//! A trainable model wherever its frozen weights are: on the kernels of the CPU, or on a device of burn.

use std::sync::Arc;

use espalier_model::LoraAdapter;

use super::batch::{Batch, BatchLoss};
use super::device::{DeviceModel, DeviceTransformer};
use super::frozen::FrozenTransformer;
use super::lora::LoraModel;
use super::lora_options::LoraOptions;
use super::updates::Updates;
use crate::error::NnError;

/// A frozen base.
#[derive(Clone, Debug)]
pub enum Base {
    /// Packed for the kernels, or in its file.
    Cpu(Arc<FrozenTransformer>),
    /// In the memory of a device.
    Device(Arc<DeviceTransformer>),
}

impl Base {
    /// Memory of its weights.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Cpu(base) => base.bytes(),
            Self::Device(base) => base.bytes(),
        }
    }
}

/// A frozen base with trainable low-rank updates. The updates are the same values in the same order for both.
#[derive(Debug)]
pub enum Network {
    /// On the kernels of the CPU.
    Cpu(LoraModel),
    /// Over plain operations of burn.
    Device(DeviceModel),
}

impl Network {
    /// Fresh updates: `A` uniform in `±1/sqrt(inputs)`, `B` zero, magnitudes the lengths of the frozen rows.
    ///
    /// # Errors
    ///
    /// Names and patterns that match nothing, more layers than the model has, a rank above the width of a matrix.
    pub fn new(base: Base, options: &LoraOptions, seed: u64) -> Result<Self, NnError> {
        Ok(match base {
            Base::Cpu(base) => Self::Cpu(LoraModel::new(base, options, seed)?),
            Base::Device(base) => Self::Device(DeviceModel::new(base, options, seed)?),
        })
    }

    /// A model that goes on from `adapter`, with its modules, ranks and scales.
    ///
    /// # Errors
    ///
    /// A module that the model does not have in this shape, a rank above its width.
    pub fn from_adapter(base: Base, adapter: &LoraAdapter) -> Result<Self, NnError> {
        Ok(match base {
            Base::Cpu(base) => Self::Cpu(LoraModel::from_adapter(base, adapter)?),
            Base::Device(base) => Self::Device(DeviceModel::from_adapter(base, adapter)?),
        })
    }

    /// The same with the first `layers` blocks run forward again in the backward pass, in place of keeping what it needs.
    #[must_use]
    pub fn with_recompute(self, layers: usize) -> Self {
        match self {
            Self::Cpu(model) => Self::Cpu(model.with_recompute(layers)),
            Self::Device(model) => Self::Device(model.with_recompute(layers)),
        }
    }

    /// The same with its updates switched off: the base, whose weights it shares.
    #[must_use]
    pub fn without_updates(&self) -> Self {
        match self {
            Self::Cpu(model) => Self::Cpu(model.without_updates()),
            Self::Device(model) => Self::Device(model.without_updates()),
        }
    }

    fn updates(&self) -> &Updates {
        match self {
            Self::Cpu(model) => &model.updates,
            Self::Device(model) => model.updates(),
        }
    }

    /// All trainable values, in a fixed order.
    pub fn parameters(&self) -> &[f32] {
        self.updates().parameters()
    }

    /// All trainable values, to change in place.
    pub fn parameters_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Cpu(model) => model.parameters_mut(),
            Self::Device(model) => model.updates_mut().parameters_mut(),
        }
    }

    /// Whether there are magnitudes among the parameters.
    pub fn is_dora(&self) -> bool {
        self.updates().is_dora()
    }

    /// The updates as an adapter, rows of `B` in GGUF order.
    pub fn to_adapter(&self, base_model: &str) -> LoraAdapter {
        match self {
            Self::Cpu(model) => model.to_adapter(base_model),
            Self::Device(model) => model.to_adapter(base_model),
        }
    }

    /// `sum_t weight_t loss_t`, without gradient.
    ///
    /// # Errors
    ///
    /// Rows that do not fit together, or a device that fails.
    pub fn loss(&self, batch: &Batch) -> Result<BatchLoss, NnError> {
        match self {
            Self::Cpu(model) => model.loss(batch),
            Self::Device(model) => model.loss(batch),
        }
    }

    /// The same, adding its gradient by the parameters to `gradient` (as long as they are).
    ///
    /// # Errors
    ///
    /// Rows that do not fit together, or a device that fails.
    pub fn loss_and_gradient(&self, batch: &Batch, gradient: &mut [f32]) -> Result<BatchLoss, NnError> {
        match self {
            Self::Cpu(model) => model.loss_and_gradient(batch, gradient),
            Self::Device(model) => model.loss_and_gradient(batch, gradient),
        }
    }

    /// Hidden states `[chosen, hidden]` before the head of those rows of `batch` that have a weight.
    ///
    /// # Errors
    ///
    /// Rows that do not fit together, or a device that fails.
    pub fn chosen_states(&self, batch: &Batch) -> Result<Vec<f32>, NnError> {
        match self {
            Self::Cpu(model) => model.chosen_states(batch),
            Self::Device(model) => model.chosen_states(batch),
        }
    }

    /// `KL(p || q)` in nats of each row of `batch` that has a weight: `p` from the states of another network, `q` of this one.
    ///
    /// # Errors
    ///
    /// Another number of states than the batch has chosen rows.
    pub fn divergence_from(&self, reference: &[f32], batch: &Batch) -> Result<Vec<f64>, NnError> {
        match self {
            Self::Cpu(model) => model.divergence_from(reference, batch),
            Self::Device(model) => model.divergence_from(reference, batch),
        }
    }
}
