//! Greedy continuations on the device that trains, to hold it against the engine of the CPU.

use espalier_model::Model;
use espalier_nn::transformer::{DeviceModel, DeviceTransformer, LoraOptions};
use espalier_nn::{DeviceName, NnError, Precision};

use crate::TrainError;

/// The `new` most probable next tokens of each prompt, one after another, by the base alone on a device of burn. Tokens that
/// end a text are tokens as others.
///
/// # Errors
///
/// A device that cannot be had, a model that cannot be read, an empty prompt.
pub fn greedy(
    model: &Model,
    prompts: &[Vec<u32>],
    new: usize,
    device: DeviceName,
    precision: Precision,
) -> Result<Vec<Vec<u32>>, TrainError> {
    let device = device.open().map_err(NnError::from)?;
    let positions = prompts.iter().map(Vec::len).max().unwrap_or_default() + new;
    let base = DeviceTransformer::load(model, precision, positions, &device)?;
    let network = DeviceModel::new(base.into(), &LoraOptions::default(), 0)?.without_updates();
    Ok(network.greedy(prompts, new, &[])?)
}
