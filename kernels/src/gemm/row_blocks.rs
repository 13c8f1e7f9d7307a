//! The rows of a task, cut for the microkernels.

use std::ops::Range;

/// A task's rows cut into blocks of nearly one size.
pub(super) struct Blocks {
    rows: Range<usize>,
    /// How many blocks there are.
    pub(super) count: usize,
    row_step: usize,
}

/// The rows of one microkernel call.
pub(super) struct Block {
    /// Its place among the blocks.
    pub(super) index: usize,
    pub(super) rows: Range<usize>,
    pub(super) padded: usize,
    /// Rows, padding included, that are packed before this block.
    pub(super) packed_before: usize,
}

impl Blocks {
    pub(super) fn new(rows: Range<usize>, most_rows: usize, row_step: usize) -> Self {
        Self { count: rows.len().div_ceil(most_rows), rows, row_step }
    }

    /// The first row of block `index`, counted from the task's first, in whole row steps.
    fn start(&self, index: usize) -> usize {
        let steps = self.rows.len().div_ceil(self.row_step);
        steps * index / self.count * self.row_step
    }

    /// All rows, padding included.
    pub(super) fn padded(&self) -> usize {
        self.start(self.count)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Block> + '_ {
        (0..self.count).map(|index| {
            let (start, end) = (self.start(index), self.start(index + 1));
            Block {
                index,
                rows: self.rows.start + start..self.rows.end.min(self.rows.start + end),
                padded: end - start,
                packed_before: start,
            }
        })
    }
}
