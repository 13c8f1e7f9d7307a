//! A weight matrix in the form that its products read.

use espalier_kernels::{
    Accumulate, Int8Matrix, Int8Rows, PackedMatrix, Precision, QuantizedRows, StoredMatrix, Values, ValuesMut,
    has_block_product, matmul_int8, matmul_quantized, matmul_values,
};
use espalier_model::Tensor;

use crate::branch::AdaptedRows;

/// What the matrices of an engine are kept as, where their file has blocks of a type that has products of 8 bits
/// ([`has_block_product`]). Other matrices, and those that `DoRA` changes, are packed in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightForm {
    /// Decoded, and packed in the precision of the engine.
    #[default]
    Packed,
    /// The blocks of the file, for one text at a time, whose rate is that of reading the weights: they are three times smaller
    /// than bf16. Activations are rounded to 8 bits in each product. Batches are slower.
    Blocks,
    /// Bytes with the scales of the blocks, for batches, whose rate is that of arithmetic, where [`int8_is_fast`]. Activations
    /// are rounded to 8 bits in each product.
    ///
    /// [`int8_is_fast`]: espalier_kernels::int8_is_fast
    Int8,
}

/// A frozen matrix.
pub(crate) enum Matrix {
    Packed(PackedMatrix),
    /// The blocks of the file, and activations of 8 bits.
    Blocks(StoredMatrix),
    /// The numbers of the blocks as bytes, and activations of 8 bits.
    Int8(Int8Matrix),
}

/// Rows rounded to 8 bits, in the order that a form of matrices reads.
#[derive(Debug, Default)]
pub(crate) struct RoundedRows {
    blocks: QuantizedRows,
    int8: Int8Rows,
}

/// What products work with beside their rows.
#[derive(Debug, Default)]
pub(crate) struct ProductMemory {
    /// The adapters of the rows.
    pub(crate) adapted: AdaptedRows,
    /// The rows as numbers of 8 bits.
    pub(crate) rounded: RoundedRows,
}

impl Matrix {
    /// The tensors one below the other in a form that keeps the numbers of their blocks, if every one has a product.
    pub(crate) fn of_blocks(form: WeightForm, precision: Precision, tensors: &[Tensor<'_>]) -> Option<Self> {
        let has_product = |tensor: &&Tensor<'_>| has_block_product(tensor.info().block_type);
        let parts: Option<Vec<_>> =
            tensors.iter().map(|tensor| Some(tensor).filter(has_product).and_then(Tensor::blocks)).collect();
        let stored = StoredMatrix::new(precision, parts?);
        match form {
            WeightForm::Packed => None,
            WeightForm::Blocks => Some(Self::Blocks(stored)),
            WeightForm::Int8 => Some(Self::Int8(Int8Matrix::pack(&stored))),
        }
    }

    /// `y (=|+=) x W^T` for `m` rows.
    pub(crate) fn apply(
        &self,
        x: Values<'_>,
        m: usize,
        y: ValuesMut<'_>,
        rounded: &mut RoundedRows,
        accumulate: Accumulate,
    ) {
        match self {
            Self::Packed(matrix) => matmul_values(x, m, matrix, y, accumulate),
            Self::Blocks(matrix) => {
                rounded.blocks.quantize(x, m, matrix.columns());
                y.through_f32(|y| matmul_quantized(&rounded.blocks, matrix, y, accumulate));
            }
            Self::Int8(matrix) => {
                rounded.int8.quantize(x, m, matrix.columns());
                y.through_f32(|y| matmul_int8(&rounded.int8, matrix, y, accumulate));
            }
        }
    }

    /// Inputs.
    pub(crate) fn columns(&self) -> usize {
        match self {
            Self::Packed(matrix) => matrix.columns(),
            Self::Blocks(matrix) => matrix.columns(),
            Self::Int8(matrix) => matrix.columns(),
        }
    }

    /// Outputs.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Packed(matrix) => matrix.rows(),
            Self::Blocks(matrix) => matrix.rows(),
            Self::Int8(matrix) => matrix.rows(),
        }
    }

    /// Memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Packed(matrix) => matrix.bytes(),
            Self::Blocks(matrix) => matrix.bytes(),
            Self::Int8(matrix) => matrix.bytes(),
        }
    }

    /// What it is kept as.
    pub(crate) fn form(&self) -> WeightForm {
        match self {
            Self::Packed(_) => WeightForm::Packed,
            Self::Blocks(_) => WeightForm::Blocks,
            Self::Int8(_) => WeightForm::Int8,
        }
    }
}
