//! A model as it would be with rounded weights, without a file of it.

use std::collections::BTreeMap;

use espalier_inference::{EngineOptions, NativeEngine};
use espalier_kernels::{BlockType, blocks};
use espalier_model::{LoraAdapter, Model, TensorInfo};

use crate::QuantizeError;
use crate::encode::encode_into;
use crate::imatrix::ImportanceMatrix;
use crate::merge::MergedModule;
use crate::write::{in_tensor, read_rows};

/// A model, and the blocks of its tensors in the types that were asked for last.
pub(super) struct RoundedModel<'a> {
    pub(super) model: &'a Model,
    pub(super) adapter: Option<&'a LoraAdapter>,
    pub(super) importance: Option<&'a ImportanceMatrix>,
    pub(super) options: EngineOptions,
    /// By tensor.
    pub(super) encoded: BTreeMap<String, (BlockType, Vec<u8>)>,
}

impl RoundedModel<'_> {
    /// An engine whose tensors have these types; the others are exact.
    ///
    /// # Errors
    ///
    /// When a tensor cannot be read or encoded.
    pub(super) fn engine(&mut self, types: &BTreeMap<String, BlockType>) -> Result<NativeEngine, QuantizeError> {
        for (name, &block_type) in types {
            if self.encoded.get(name).is_none_or(|(known, _)| *known != block_type) {
                let blocks = self.encode(name, block_type)?;
                self.encoded.insert(name.clone(), (block_type, blocks));
            }
        }
        let change = |info: &TensorInfo, row: usize, values: &mut [f32]| {
            let rounded = types.contains_key(&info.name).then(|| self.encoded.get(&info.name)).flatten();
            if let Some((block_type, blocks)) = rounded {
                let bytes = blocks.len() / info.rows.max(1);
                // The length is that of the row's blocks.
                let _ = blocks::decode(*block_type, &blocks[row * bytes..(row + 1) * bytes], values);
            } else if let Some(module) = self.adapter.and_then(|adapter| MergedModule::of(adapter, &info.name)) {
                module.merge_into_row(row, values, &mut vec![0.0; values.len()]);
            }
        };
        Ok(NativeEngine::load_changed(self.model, &self.options, "rounded", &change)?)
    }

    /// The weights that an error in each column of a tensor has; none where all count alike.
    pub(super) fn weights(&self, info: &TensorInfo) -> Result<Option<Vec<f32>>, QuantizeError> {
        let Some(importance) = self.importance else { return Ok(None) };
        let matrices = info.dimensions.iter().skip(2).product();
        Ok(importance.means(&info.name, info.columns, matrices)?.map(std::borrow::Cow::into_owned))
    }

    /// Rows of a tensor, merged.
    pub(super) fn rows(&self, name: &str, first: usize, values: &mut [f32]) -> Result<(), QuantizeError> {
        let module = self.adapter.and_then(|adapter| MergedModule::of(adapter, name));
        Ok(read_rows(&self.model.tensor(name)?, module, first, values)?)
    }

    fn encode(&self, name: &str, block_type: BlockType) -> Result<Vec<u8>, QuantizeError> {
        let tensor = self.model.tensor(name)?;
        let info = tensor.info();
        let weights = self.weights(info)?;
        let mut values = vec![0.0; info.columns];
        values.resize(info.rows * info.columns, 0.0);
        self.rows(name, 0, &mut values)?;
        let mut blocks = vec![0; values.len() / block_type.block_size() * block_type.block_bytes()];
        // Each matrix of a tensor of experts has an importance of its own.
        let matrices = weights.as_ref().map_or(1, |weights| weights.len() / info.columns);
        let (values_each, bytes_each) = (values.len() / matrices, blocks.len() / matrices);
        for (matrix, (values, blocks)) in
            values.chunks_exact(values_each).zip(blocks.chunks_exact_mut(bytes_each)).enumerate()
        {
            let weights = weights.as_ref().map(|weights| &weights[matrix * info.columns..][..info.columns]);
            encode_into(block_type, values, weights, blocks)
                .map_err(|error| in_tensor(name, matrix * values_each / info.columns, info.columns, error))?;
        }
        Ok(blocks)
    }
}
