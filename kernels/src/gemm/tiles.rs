//! Products of tiles that the caller packs and that stay in the caches: bf16 values, f32 sums, on the microkernels of the
//! products with a bf16 weight. Attention in bf16 is built from them.
//!
//! A left tile holds rows by their inputs, cut into blocks of one size: `[block][group of inputs][row of the block]`, a
//! line each, as the microkernels read them. A right tile is panels of 32 columns: `[panel][pair of inputs][column]`. Inputs
//! and columns are multiples of 32, padded with zeros by whoever packs. Every element is one chain of additions in the
//! order of the inputs.

#![allow(clippy::inline_always, reason = "addresses in the inner loops of bodies compiled for an instruction set")]

use half::bf16;

use super::kernel::{Activation, Ahead, GROUP, Kernels, Right, floats};
use super::pack::{pack_rounded_row, pack_row};
use crate::buffer::Line;
use crate::panels::{INPUT_BLOCK, PANEL, panel_lines};
use crate::{InstructionSet, Precision};

/// The microkernels, and how they want their tiles.
#[derive(Clone, Copy)]
pub(crate) struct TileKernels(&'static Kernels);

/// One product: the first `rows` of a left tile by the first `columns` of a right one.
pub(crate) struct TileProduct<'a> {
    /// The left tile.
    pub(crate) left: &'a [Line],
    /// Rows that it was packed with.
    pub(crate) left_rows: usize,
    /// Inputs that it was packed with.
    pub(crate) left_inputs: usize,
    /// The right tile.
    pub(crate) right: &'a [Line],
    /// Inputs that it was packed with.
    pub(crate) right_inputs: usize,
    /// Rows that are wanted; [`TileKernels::reach`] of them are written.
    pub(crate) rows: usize,
    /// Inputs that take part.
    pub(crate) inputs: usize,
    /// Columns that take part.
    pub(crate) columns: usize,
    /// The result.
    pub(crate) c: &'a mut [f32],
    /// Elements between its rows.
    pub(crate) c_stride: usize,
    /// Whether it is added to what is there.
    pub(crate) add: bool,
}

impl TileKernels {
    /// Those of an instruction set, lowered to what this CPU has.
    pub(crate) fn of(isa: InstructionSet) -> Self {
        Self(floats(isa.usable(), Precision::Bf16))
    }

    /// Those with `VDPBF16PS`, if this CPU has it.
    #[cfg(all(test, target_arch = "x86_64"))]
    pub(crate) fn bf16_pairs() -> Option<Self> {
        InstructionSet::available().contains(&InstructionSet::Avx512Bf16).then_some(Self(&super::avx512bf16::PAIRS))
    }

    /// Those of the model of AMX.
    #[cfg(all(test, target_arch = "x86_64"))]
    pub(crate) fn amx_model() -> Self {
        Self(&super::amx::model::MODEL)
    }

    /// Whether a left line holds 32 bf16; otherwise it holds 16 f32 that were rounded to bf16.
    #[inline(always)]
    pub(crate) fn pairs(self) -> bool {
        self.0.activation == Activation::Pairs
    }

    /// Rows of a block.
    #[inline(always)]
    fn block(self, rows: usize) -> usize {
        rows.div_ceil(rows.div_ceil(self.0.most_rows()).max(1)).next_multiple_of(self.0.row_step)
    }

    /// Rows that a product writes when it is to have the first `rows` of a tile of `all`.
    #[inline(always)]
    pub(crate) fn reach(self, all: usize, rows: usize) -> usize {
        rows.next_multiple_of(self.block(all)).min(all.next_multiple_of(self.0.row_step))
    }

    /// Lines of a left tile.
    pub(crate) fn left_lines(self, rows: usize, inputs: usize) -> usize {
        rows.next_multiple_of(self.0.row_step) * (inputs / self.0.activation.group_inputs())
    }

    /// The first line of a row of a left tile, and the distance of its lines.
    #[inline(always)]
    pub(crate) fn left_row(self, rows: usize, inputs: usize, row: usize) -> (usize, usize) {
        let (block, padded) = (self.block(rows), rows.next_multiple_of(self.0.row_step));
        let start = row / block * block;
        let groups = inputs / self.0.activation.group_inputs();
        (start * groups + row - start, block.min(padded - start))
    }

    /// Packs a row of a left tile, zeros after its last value.
    pub(crate) fn pack_left(self, values: &[bf16], left: &mut [Line], rows: usize, inputs: usize, row: usize) {
        let (first, step) = self.left_row(rows, inputs, row);
        let groups = inputs / self.0.activation.group_inputs();
        pack_rounded_row(self.0.activation, values, &mut left[first..], step, groups);
    }

    /// Rounds and packs a row of a left tile, zeros after its last value.
    pub(crate) fn round_left(self, values: &[f32], left: &mut [Line], rows: usize, inputs: usize, row: usize) {
        let (first, step) = self.left_row(rows, inputs, row);
        let groups = inputs / self.0.activation.group_inputs();
        pack_row(self.0.activation, values, &mut left[first..], step, groups);
    }

    /// Runs `work`, which multiplies on this thread only.
    pub(crate) fn session<T>(self, work: impl FnOnce() -> T) -> T {
        let Some(session) = &self.0.session else { return work() };
        // SAFETY: the instruction set was detected before its kernels were chosen.
        unsafe { (session.enter)() };
        let result = work();
        // SAFETY: entered above.
        unsafe { (session.leave)() };
        result
    }

    /// Multiplies; inside a [`Self::session`].
    pub(crate) fn multiply(self, product: TileProduct<'_>) {
        let TileProduct { left, left_rows, left_inputs, right, right_inputs, rows, inputs, columns, c, c_stride, add } =
            product;
        let (block, reach) = (self.block(left_rows), self.reach(left_rows, rows));
        let padded = left_rows.next_multiple_of(self.0.row_step);
        let group = self.0.activation.group_inputs();
        assert!(inputs.is_multiple_of(INPUT_BLOCK) && columns.is_multiple_of(PANEL), "tiles of whole panels");
        assert!(rows <= left_rows && inputs <= left_inputs && inputs <= right_inputs, "a product beyond its tiles");
        assert!(left.len() >= self.left_lines(left_rows, left_inputs), "a left tile that is too short");
        assert!(right.len() >= right_lines(right_inputs, columns), "a right tile that is too short");
        if rows == 0 || columns == 0 {
            return;
        }
        assert!(columns <= c_stride && c.len() >= (reach - 1) * c_stride + columns, "a result that is too short");
        let right: &[u32] = bytemuck::cast_slice(right);
        for column in (0..columns).step_by(PANEL) {
            let right = right[column * right_inputs / 2..].as_ptr();
            for first in (0..reach).step_by(block) {
                let rows = block.min(padded - first);
                let micro = self.0.micro[rows / self.0.row_step - 1];
                let left: *const Line = left[first * (left_inputs / group)..].as_ptr();
                let ahead = Ahead { next: right, step: 0 };
                // SAFETY: the instruction set was detected before its kernels were chosen; by the assertions above the
                // block and the panel hold `inputs`, and the result all of the block's rows.
                unsafe {
                    let c = c.as_mut_ptr().add(first * c_stride + column);
                    micro(left.cast::<u32>(), Right::of_floats(right), inputs / group, c, c_stride, add, ahead);
                }
            }
        }
    }
}

/// Lines of a right tile, whatever the kernels.
pub(crate) fn right_lines(inputs: usize, columns: usize) -> usize {
    panel_lines(Precision::Bf16, columns, inputs)
}

/// Words of a line, for the addresses of tiles.
pub(crate) const LINE_WORDS: usize = GROUP;
