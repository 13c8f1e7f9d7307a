//! A weight matrix in the form that its products read.

use espalier_kernels::{
    Accumulate, PackedMatrix, Precision, QuantizedRows, StoredMatrix, Values, ValuesMut, has_block_product,
    matmul_quantized, matmul_values,
};
use espalier_model::Tensor;

use crate::branch::AdaptedRows;

/// What the matrices of an engine are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Packed, and computed in a precision.
    Packed(Precision),
    /// The blocks of the file with activations of 8 bits where its types have such a product, else packed.
    Blocks(Precision),
}

impl Form {
    /// What packed matrices compute in.
    pub(crate) fn precision(self) -> Precision {
        match self {
            Self::Packed(precision) | Self::Blocks(precision) => precision,
        }
    }
}

/// A frozen matrix.
pub(crate) enum Matrix {
    Packed(PackedMatrix),
    /// The blocks of the file, and activations of 8 bits.
    Blocks(StoredMatrix),
}

/// What products work with beside their rows.
#[derive(Debug, Default)]
pub(crate) struct ProductMemory {
    /// The adapters of the rows.
    pub(crate) adapted: AdaptedRows,
    /// The rows as numbers of 8 bits.
    pub(crate) quantized: QuantizedRows,
}

impl Matrix {
    /// The tensors one below the other as the blocks that they are, if every one has a product.
    pub(crate) fn of_blocks(precision: Precision, tensors: &[Tensor<'_>]) -> Option<Self> {
        let has_product = |tensor: &&Tensor<'_>| has_block_product(tensor.info().block_type);
        let parts: Option<Vec<_>> =
            tensors.iter().map(|tensor| Some(tensor).filter(has_product).and_then(Tensor::blocks)).collect();
        parts.map(|parts| Self::Blocks(StoredMatrix::new(precision, parts)))
    }

    /// `y (=|+=) x W^T` for `m` rows.
    pub(crate) fn apply(
        &self,
        x: Values<'_>,
        m: usize,
        y: ValuesMut<'_>,
        quantized: &mut QuantizedRows,
        accumulate: Accumulate,
    ) {
        match self {
            Self::Packed(matrix) => matmul_values(x, m, matrix, y, accumulate),
            Self::Blocks(matrix) => {
                quantized.quantize(x, m, matrix.columns());
                match y {
                    ValuesMut::F32(y) => matmul_quantized(quantized, matrix, y, accumulate),
                    y @ ValuesMut::Bf16(_) => {
                        y.through_f32(|y| matmul_quantized(quantized, matrix, y, accumulate));
                    }
                }
            }
        }
    }

    /// Inputs.
    pub(crate) fn columns(&self) -> usize {
        match self {
            Self::Packed(matrix) => matrix.columns(),
            Self::Blocks(matrix) => matrix.columns(),
        }
    }

    /// Outputs.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Packed(matrix) => matrix.rows(),
            Self::Blocks(matrix) => matrix.rows(),
        }
    }

    /// Memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Packed(matrix) => matrix.bytes(),
            Self::Blocks(matrix) => matrix.bytes(),
        }
    }

    /// Whether it stays in blocks.
    pub(crate) fn is_blocks(&self) -> bool {
        matches!(self, Self::Blocks(_))
    }
}
