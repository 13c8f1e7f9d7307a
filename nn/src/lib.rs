//! Transformer modules with `LoRA` in burn, over the kernels.
//!
//! [`device_list`] names the devices; [`ops`] holds operations with a backward pass of their own; [`transformer`] the frozen model and the low-rank
//! updates that train beside it; [`profile`] says where the time of a step goes.

pub mod device_list;
mod error;
pub mod ops;
pub mod pool;
pub mod profile;
mod storage;
#[cfg(test)]
mod testing;
pub mod transformer;

pub use burn::tensor::Device;
pub use device_list::{DeviceError, DeviceName};
pub use error::NnError;
pub use espalier_kernels::Precision;

/// What the products are computed with ([`espalier_kernels::arithmetic`]): results are bit-equal only under the same name.
pub fn instruction_set() -> &'static str {
    espalier_kernels::arithmetic()
}
