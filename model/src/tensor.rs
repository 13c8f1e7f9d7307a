//! Tensors of an open model and the decoding of their rows.

use std::sync::Arc;

use espalier_kernels::{BlockRows, BlockType, blocks};
use rayon::prelude::*;

use crate::ModelError;
use crate::model::Backing;
use crate::row_order::RowOrder;

/// What a tensor is.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// GGUF name (`blk.0.attn_q.weight`).
    pub name: String,
    /// Rows; 1 for a vector. Dimensions beyond the second are counted into the rows.
    pub rows: usize,
    /// Elements of a row.
    pub columns: usize,
    /// Type of its blocks.
    pub block_type: BlockType,
    /// Dimensions in ggml order: the row length first.
    pub dimensions: Vec<usize>,
}

/// A tensor of an open model.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    pub(crate) info: &'a TensorInfo,
    pub(crate) bytes: &'a [u8],
    pub(crate) order: RowOrder,
    /// What the bytes lie in, and where.
    pub(crate) backing: &'a Arc<Backing>,
    pub(crate) first_byte: usize,
}

impl<'a> Tensor<'a> {
    /// Name, shape and type.
    pub fn info(&self) -> &'a TensorInfo {
        self.info
    }

    /// Decodes one row in GGUF order into `out`, which has `columns` elements.
    ///
    /// # Errors
    ///
    /// A row that the tensor does not have, or a buffer of another length.
    pub fn row(&self, index: usize, out: &mut [f32]) -> Result<(), ModelError> {
        let TensorInfo { rows, columns, .. } = *self.info;
        if index >= rows || out.len() != columns {
            return Err(ModelError::TensorAccess {
                name: self.info.name.clone(),
                problem: format!(
                    "row {index} into {} elements was asked for; there are {rows} rows of {columns}",
                    out.len()
                ),
            });
        }
        // A vector is one row, whose elements are what the permutation moves.
        let is_vector = self.info.dimensions.len() == 1;
        let stored = if is_vector { index } else { self.order.stored(index, rows) };
        let length = self.bytes.len() / rows;
        let bytes = &self.bytes[stored * length..(stored + 1) * length];
        blocks::decode(self.info.block_type, bytes, out).map_err(|error| {
            ModelError::invalid(
                format!("tensor {:?}", self.info.name),
                error.to_string(),
                "report this: the sizes were checked when the model was opened",
            )
        })?;
        if is_vector && self.order != RowOrder::AsStored {
            let values = out.to_vec();
            for (at, value) in out.iter_mut().enumerate() {
                *value = values[self.order.stored(at, columns)];
            }
        }
        Ok(())
    }

    /// All rows in GGUF order, decoded in parallel.
    pub fn to_vec(&self) -> Result<Vec<f32>, ModelError> {
        let mut values = vec![0.0; self.info.rows * self.info.columns];
        values.par_chunks_exact_mut(self.info.columns).enumerate().try_for_each(|(index, out)| self.row(index, out))?;
        Ok(values)
    }

    /// The blocks as they lie in the file; `None` where the file has the rows in another order than GGUF.
    pub fn raw(&self) -> Option<&'a [u8]> {
        (self.order == RowOrder::AsStored).then_some(self.bytes)
    }

    /// The rows as blocks that outlive the model; `None` where the file has the rows in another order than GGUF.
    pub fn blocks(&self) -> Option<BlockRows> {
        let range = self.first_byte..self.first_byte + self.raw()?.len();
        let backing: Arc<Backing> = Arc::clone(self.backing);
        BlockRows::new(self.info.block_type, self.info.columns, backing, range).ok()
    }

    /// Tells the system that the tensor is not needed soon: its pages of a memory map leave this process. They are still
    /// in the system's cache, and come back when they are read again.
    pub fn release(&self) {
        self.backing.release(self.first_byte..self.first_byte + self.bytes.len());
    }
}
