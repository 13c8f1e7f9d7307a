//! Weight matrices as blocks of a file, decoded when they are used.

use std::ops::Range;
use std::sync::Arc;

use crate::blocks::{BlockError, BlockType, K_BLOCK, decode};
use crate::panels::Window;
use crate::{PackedMatrix, Precision};

/// Columns that are decoded at one time: whole blocks of every type, and 32 such rows stay near the core.
const PIECE: usize = 2 * K_BLOCK;

/// Bytes that their users share: a memory map, or a buffer.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Rows of a tensor as its file has them.
#[derive(Clone)]
pub struct BlockRows {
    block_type: BlockType,
    rows: usize,
    columns: usize,
    row_bytes: usize,
    bytes: SharedBytes,
    first_byte: usize,
}

impl std::fmt::Debug for BlockRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockRows({} x {} {})", self.rows, self.columns, self.block_type)
    }
}

impl BlockRows {
    /// The rows of `columns` elements that lie in `range` of `bytes`.
    ///
    /// # Errors
    /// When a row is not a number of whole blocks, or the range not one of whole rows inside the bytes.
    pub fn new(
        block_type: BlockType,
        columns: usize,
        bytes: SharedBytes,
        range: Range<usize>,
    ) -> Result<Self, BlockError> {
        let partial = BlockError::PartialBlock { block_type, bytes: range.len() };
        let row_bytes = block_type.row_bytes(columns).filter(|&row_bytes| row_bytes > 0).ok_or(partial.clone())?;
        if !range.len().is_multiple_of(row_bytes) || range.end > (*bytes).as_ref().len() {
            return Err(partial);
        }
        Ok(Self { block_type, rows: range.len() / row_bytes, columns, row_bytes, bytes, first_byte: range.start })
    }

    /// Type of the blocks.
    pub fn block_type(&self) -> BlockType {
        self.block_type
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of the blocks.
    pub fn bytes(&self) -> usize {
        self.rows * self.row_bytes
    }

    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The blocks, row after row.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &(*self.bytes).as_ref()[self.first_byte..][..self.bytes()]
    }

    /// Decodes row `row`.
    ///
    /// # Panics
    /// If there is no such row, or `values` is not as long as one.
    pub fn row(&self, row: usize, values: &mut [f32]) {
        assert_eq!(values.len(), self.columns, "a row of blocks has another length");
        self.decode(row, 0..self.columns, values);
    }

    /// Decodes whole blocks of a row.
    fn decode(&self, row: usize, columns: Range<usize>, values: &mut [f32]) {
        assert!(row < self.rows, "row {row} of {} rows of blocks", self.rows);
        let byte = |column: usize| column / self.block_type.block_size() * self.block_type.block_bytes();
        let first = self.first_byte + row * self.row_bytes;
        let blocks = &(*self.bytes).as_ref()[first + byte(columns.start)..first + byte(columns.end)];
        let decoded = decode(self.block_type, blocks, values);
        // The columns are whole blocks, as many as the values.
        debug_assert!(decoded.is_ok(), "{decoded:?}");
    }
}

/// A frozen weight `W [rows, columns]` that stays as its file has it: the rows of one tensor, or of several one after
/// another.
///
/// [`matmul_stored`](crate::matmul_stored) and [`matmul_stored_transposed`](crate::matmul_stored_transposed) decode a
/// part of it into cache, use it for all rows of their activations, and go on with the next part. Their results are
/// bit-equal to those of the [`PackedMatrix`] of the decoded values.
#[derive(Clone, Debug)]
pub struct StoredMatrix {
    precision: Precision,
    rows: usize,
    columns: usize,
    /// The tensors with their first rows.
    parts: Vec<(usize, BlockRows)>,
}

impl StoredMatrix {
    /// The rows of `parts`, one after another.
    ///
    /// # Panics
    /// If the parts differ in their columns.
    pub fn new(precision: Precision, parts: Vec<BlockRows>) -> Self {
        let columns = parts.first().map_or(0, BlockRows::columns);
        assert!(parts.iter().all(|part| part.columns == columns), "parts of one matrix have as many columns");
        let mut rows = 0;
        let place = |part: BlockRows| {
            rows += part.rows;
            (rows - part.rows, part)
        };
        let parts = parts.into_iter().map(place).collect();
        Self { precision, rows, columns, parts }
    }

    /// Outputs of `x W^T`.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs of `x W^T`.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// What the products with this matrix compute in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of the blocks; memory maps count as much once they were read.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|(_, part)| part.bytes()).sum()
    }

    /// The decoded matrix, packed for `x W^T`.
    pub fn pack(&self) -> PackedMatrix {
        PackedMatrix::pack(self.precision, self.rows, self.columns, &|row, values| self.row(row, values))
    }

    /// The decoded matrix, packed for `dy W`.
    pub fn pack_transposed(&self) -> PackedMatrix {
        PackedMatrix::pack_transposed(self.precision, self.rows, self.columns, &|row, values| self.row(row, values))
    }

    /// The tensors with their first rows.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (usize, &BlockRows)> {
        self.parts.iter().map(|(first, part)| (*first, part))
    }

    fn row(&self, row: usize, values: &mut [f32]) {
        self.decode(row, 0..self.columns, values);
    }

    /// Decodes columns of a row; they are whole blocks of the part that has it.
    fn decode(&self, row: usize, columns: Range<usize>, values: &mut [f32]) {
        if let Some((first, part)) = self.parts.iter().rfind(|(first, _)| *first <= row) {
            part.decode(row - first, columns, values);
        }
    }

    /// Runs `work` with a part of the matrix to pack. `columns` begin at a multiple of 256 and end at one or at the last.
    pub(crate) fn with_window<T>(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        work: impl FnOnce(&Window<'_>) -> T,
    ) -> T {
        let fill = |row: usize, columns: Range<usize>, values: &mut [f32]| self.decode(row, columns, values);
        work(&Window { precision: self.precision, rows, columns, piece: PIECE, fill: &fill })
    }
}
