//! A model as it would be with rounded weights, without a file of it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use espalier_inference::{EngineOptions, NativeEngine};
use espalier_kernels::{BlockType, blocks};
use espalier_model::{LoraAdapter, Model, TensorInfo};

use crate::QuantizeError;
use crate::imatrix::ImportanceMatrix;
use crate::merge::MergedModule;
use crate::write::{Buffers, Encoding, read_rows};

/// A model, and the blocks of its tensors in the types that were asked for last.
pub(super) struct RoundedModel<'a> {
    pub(super) model: &'a Model,
    pub(super) adapter: Option<&'a LoraAdapter>,
    pub(super) importance: Option<&'a ImportanceMatrix>,
    /// Whether the scales of blocks are moved, as in the file that is to be written.
    pub(super) refine: bool,
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
        let failure = Mutex::new(None);
        let change = |info: &TensorInfo, row: usize, values: &mut [f32]| {
            let rounded = types.contains_key(&info.name).then(|| self.encoded.get(&info.name)).flatten();
            if let Some((block_type, blocks)) = rounded {
                let bytes = blocks.len() / info.rows.max(1);
                if let Err(error) = blocks::decode(*block_type, &blocks[row * bytes..(row + 1) * bytes], values)
                    && let Ok(mut failure) = failure.lock()
                {
                    *failure = Some(error);
                }
            } else if let Some(module) = self.adapter.and_then(|adapter| MergedModule::of(adapter, &info.name)) {
                module.merge_into_row(row, values, &mut vec![0.0; values.len()]);
            }
        };
        let engine = NativeEngine::load_changed(self.model, &self.options, "rounded", &change)?;
        match failure.into_inner() {
            Ok(Some(error)) => Err(error.into()),
            _ => Ok(engine),
        }
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
        let weights = self.weights(tensor.info())?;
        let encoding = Encoding { block_type, importance: weights.as_deref(), refine: self.refine };
        let module = self.adapter.and_then(|adapter| MergedModule::of(adapter, name));
        let mut blocks = Vec::new();
        Buffers::default().encode_tensor(&tensor, module, &encoding, &mut |slab| {
            blocks.extend_from_slice(slab);
            Ok(())
        })?;
        Ok(blocks)
    }
}
