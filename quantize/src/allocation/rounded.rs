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

/// A model, the blocks of its tensors in the types that were asked for last, and its engine.
pub(super) struct RoundedModel<'a> {
    pub(super) model: &'a Model,
    adapter: Option<&'a LoraAdapter>,
    importance: Option<&'a ImportanceMatrix>,
    /// Whether the scales of blocks are moved, as in the file that is to be written.
    pub(super) refine: bool,
    options: EngineOptions,
    /// By tensor.
    encoded: BTreeMap<String, (BlockType, Vec<u8>)>,
    /// With the types that it has: the next one differs in a few tensors only, and packing takes as long as measuring.
    engine: Option<(NativeEngine, BTreeMap<String, BlockType>)>,
}

impl<'a> RoundedModel<'a> {
    /// Nothing is encoded yet.
    pub(super) fn new(
        model: &'a Model,
        adapter: Option<&'a LoraAdapter>,
        importance: Option<&'a ImportanceMatrix>,
        refine: bool,
        options: EngineOptions,
    ) -> Self {
        Self { model, adapter, importance, refine, options, encoded: BTreeMap::new(), engine: None }
    }

    /// An engine whose tensors have these types; the others are exact.
    ///
    /// # Errors
    ///
    /// When a tensor cannot be read or encoded.
    pub(super) fn engine(&mut self, types: &BTreeMap<String, BlockType>) -> Result<&NativeEngine, QuantizeError> {
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
        let engine = match self.engine.take() {
            Some((mut engine, before)) => {
                engine.change(self.model, &|name| before.get(name) != types.get(name), &change)?;
                engine
            }
            None => NativeEngine::load_changed(self.model, &self.options, "rounded", &change)?,
        };
        if let Ok(Some(error)) = failure.into_inner() {
            return Err(error.into());
        }
        Ok(&self.engine.insert((engine, types.clone())).0)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn logits(engine: &NativeEngine) -> Vec<u32> {
        let mut bits = Vec::new();
        let mut keep = |_, row: &[f32]| bits.extend(row.iter().map(|logit| logit.to_bits()));
        engine.logits(&[1, 50, 60, 70], &mut keep).expect("a text of the model");
        bits
    }

    #[test]
    fn an_engine_that_was_changed_is_as_one_that_was_made() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"));
        let model = Model::open(path).expect("the model");
        let new = || RoundedModel::new(&model, None, None, false, EngineOptions::default());
        let types = |pairs: &[(&str, BlockType)]| -> BTreeMap<String, BlockType> {
            pairs.iter().map(|&(name, block_type)| (format!("{name}.weight"), block_type)).collect()
        };
        let (q4, q8) = (BlockType::Q4_0, BlockType::Q8_0);
        let all = [
            types(&[("blk.0.attn_q", q4), ("blk.1.ffn_up", q4), ("blk.2.attn_output", q4)]),
            // One tensor more in a matrix of three, one in another type, one that is exact again, and head and embedding.
            types(&[("blk.0.attn_q", q4), ("blk.0.attn_v", q4), ("blk.1.ffn_up", q8), ("token_embd", q4)]),
            types(&[]),
            types(&[("token_embd", q8)]),
        ];
        let mut changed = new();
        let mut before = Vec::new();
        for types in &all {
            let found = logits(changed.engine(types).expect("an engine"));
            assert_eq!(found, logits(new().engine(types).expect("an engine")), "{types:?}");
            assert_ne!(found, before, "{types:?}");
            before = found;
        }
    }
}
