//! A batch of rows of a task: packing, and the order in which blocks of them meet the panels.

use std::ops::Range;

use half::bf16;

use super::drive::{Beside, Product};
use super::integers::{PANEL_FACTOR_LINES, round_panel};
use super::kernel::{Ahead, GROUP, Micro, Order, Right};
use super::pack::{Part, pack_rows, prefetch_row};
use super::round::round_rows;
use super::row_blocks::{Block, Blocks};
use crate::buffer::{Line, Scratch, SharedMut, with_scratch};
use crate::panels::PANEL;
use crate::values::Values;

/// How far ahead a panel that is used once is asked for, in words.
const AHEAD_WORDS: usize = 1024;
/// Rows and outputs of the largest block.
const BLOCK: usize = 32;

/// Where the sums of a panel's blocks go.
#[derive(Clone, Copy)]
pub(super) enum Sums {
    /// Into a row-major result of this stride.
    Result(SharedMut<f32>, usize),
    /// Into memory of their own, with the padding of the blocks, a row of the panel's width after another.
    Apart(SharedMut<f32>),
}

/// The place of a block in a row-major f32 matrix.
#[derive(Clone, Copy)]
struct Tile {
    start: *mut f32,
    stride: usize,
    /// Rows and columns that exist.
    rows: usize,
    columns: usize,
    /// Those that the microkernel writes.
    padded: [usize; 2],
}

impl<P: Fn(Part, &mut [Line]) + Sync> Product<'_, P> {
    /// A batch of rows into f32.
    pub(super) fn batch(&self, blocks: &Blocks, panels: Range<usize>, scratch: &mut [Line], y: Sums, add: bool) {
        if self.reads_panels_whole() {
            self.panel_by_panel(blocks, panels, scratch, y, add, |_| ());
        } else {
            self.chunk_by_chunk(blocks, panels, scratch, y, add);
        }
    }

    /// A batch of rows, chunk by chunk through all panels.
    fn chunk_by_chunk(&self, blocks: &Blocks, panels: Range<usize>, scratch: &mut [Line], y: Sums, add: bool) {
        for groups in self.chunks() {
            let scratch = &mut scratch[..self.chunk_lines(blocks, groups.len())];
            self.pack_batch(blocks, groups.clone(), scratch);
            let add = add || groups.start > self.groups.start;
            let beside = self.beside.as_ref();
            if let Some(beside) = beside {
                self.narrow(beside, blocks, &groups, scratch);
            }
            let last = beside.filter(|_| groups.end == self.groups.end);
            self.with_narrow(last, blocks, |beside| {
                for panel in panels.clone() {
                    self.panel(blocks, groups.clone(), panel, scratch, y, add, beside);
                }
            });
        }
    }

    /// A batch of rows, panel by panel through all chunks; `done` hears of each panel.
    fn panel_by_panel(
        &self,
        blocks: &Blocks,
        panels: Range<usize>,
        scratch: &mut [Line],
        y: Sums,
        add: bool,
        done: impl Fn(usize),
    ) {
        let packed = |groups: &Range<usize>| {
            let before = (groups.start - self.groups.start) / self.chunk() * self.chunk_lines(blocks, self.chunk());
            before..before + self.chunk_lines(blocks, groups.len())
        };
        for groups in self.chunks() {
            self.pack_batch(blocks, groups.clone(), &mut scratch[packed(&groups)]);
            if let Some(beside) = &self.beside {
                self.narrow(beside, blocks, &groups, &scratch[packed(&groups)]);
            }
        }
        let scratch = &*scratch;
        self.with_narrow(self.beside.as_ref(), blocks, |beside| {
            for panel in panels {
                for groups in self.chunks() {
                    let (scratch, add) = (&scratch[packed(&groups)], add || groups.start > self.groups.start);
                    let last = beside.filter(|_| groups.end == self.groups.end);
                    self.panel(blocks, groups, panel, scratch, y, add, last);
                }
                done(panel);
            }
        });
    }

    /// A batch of rows, rounded into `y`.
    pub(super) fn rounded_batch(
        &self,
        blocks: &Blocks,
        panels: Range<usize>,
        scratch: &mut [Line],
        y: SharedMut<bf16>,
        stride: usize,
    ) {
        with_scratch(Scratch::Sums, blocks.padded() * self.kernels.width / GROUP, |lines| {
            let sums = SharedMut::new(bytemuck::cast_slice_mut(lines));
            self.panel_by_panel(blocks, panels, scratch, Sums::Apart(sums), false, |panel| {
                self.round_panel(blocks, panel, sums, y, stride);
            });
        });
    }

    /// Rounds the sums of a panel into the result.
    fn round_panel(&self, blocks: &Blocks, panel: usize, sums: SharedMut<f32>, y: SharedMut<bf16>, stride: usize) {
        let width = self.kernels.width;
        let columns = panel * width..self.n.min((panel + 1) * width);
        for block in blocks.iter() {
            let row = |index: usize| {
                // SAFETY: the sums hold `width` values for each row of the blocks; the row's columns lie inside `y`, and no
                // other task has them.
                unsafe {
                    let sums = sums.at((block.packed_before + index) * width);
                    let rounded = y.at((block.rows.start + index) * stride + columns.start);
                    let rounded = std::slice::from_raw_parts_mut(rounded.cast::<u16>(), columns.len());
                    (std::slice::from_raw_parts(sums, columns.len()), rounded)
                }
            };
            round_rows((0..block.rows.len()).map(row));
        }
    }

    /// Lines of a chunk of a batch.
    fn chunk_lines(&self, blocks: &Blocks, groups: usize) -> usize {
        blocks.padded() * groups + blocks.count * self.kernels.row_factor_lines()
    }

    /// The lines of a block in those of its chunk of a batch.
    fn block_lines(&self, block: &Block, groups: usize) -> Range<usize> {
        let factors = self.kernels.row_factor_lines();
        let start = block.packed_before * groups + block.index * factors;
        start..start + block.padded * groups + factors
    }

    /// Packs a chunk of a batch: block by block where rows lie in one piece, group by group where inputs do.
    fn pack_batch(&self, blocks: &Blocks, groups: Range<usize>, scratch: &mut [Line]) {
        if self.kernels.order == Order::Grouped {
            for block in blocks.iter() {
                let lines = &mut scratch[self.block_lines(&block, groups.len())];
                (self.pack)(Part { rows: block.rows, padded: block.padded, groups: groups.clone() }, lines);
            }
            return;
        }
        for first in groups.clone() {
            for block in blocks.iter() {
                let start = block.packed_before * groups.len() + (first - groups.start) * block.padded;
                let part = Part { rows: block.rows, padded: block.padded, groups: first..first + 1 };
                (self.pack)(part, &mut scratch[start..][..block.padded]);
            }
        }
    }

    /// A chunk of `u`.
    fn narrow(&self, beside: &Beside<'_>, blocks: &Blocks, groups: &Range<usize>, scratch: &[Line]) {
        let down = Product {
            kernels: self.kernels,
            panels: beside.down,
            groups: self.groups.clone(),
            depth: self.depth,
            m: self.m,
            n: beside.rank,
            pack: &self.pack,
            beside: None,
        };
        let (u, add) = (Sums::Result(beside.u, beside.rank), groups.start > self.groups.start);
        for panel in 0..beside.rank.div_ceil(self.kernels.width) {
            down.panel(blocks, groups.clone(), panel, scratch, u, add, None);
        }
    }

    /// Runs `work` with the rows of the whole `u` packed, where there is one.
    fn with_narrow(
        &self,
        beside: Option<&Beside<'_>>,
        blocks: &Blocks,
        work: impl FnOnce(Option<(&Beside<'_>, &[Line])>),
    ) {
        let Some(beside) = beside else { return work(None) };
        let (rank, groups) = (beside.rank, beside.up_groups);
        with_scratch(Scratch::Narrow, blocks.padded() * groups, |narrow| {
            for block in blocks.iter() {
                let lines = &mut narrow[block.packed_before * groups..][..block.padded * groups];
                // SAFETY: the rows of this task, which alone writes and reads them.
                let u = unsafe {
                    std::slice::from_raw_parts(beside.u.at(block.rows.start * rank), block.rows.len() * rank)
                };
                let part = Part { rows: 0..block.rows.len(), padded: block.padded, groups: 0..groups };
                pack_rows(self.kernels.of_floats(), Values::F32(u), rank, &part, lines);
            }
            work(Some((beside, narrow)));
        });
    }

    /// All blocks of a batch by one panel's chunk; the first two ask for the next panel's.
    #[allow(clippy::too_many_arguments)]
    fn panel(
        &self,
        blocks: &Blocks,
        groups: Range<usize>,
        panel: usize,
        scratch: &[Line],
        y: Sums,
        add: bool,
        beside: Option<(&Beside<'_>, &[Line])>,
    ) {
        let group_lines = self.kernels.panel_group_lines();
        let before = panel * self.groups.len() + groups.start - self.groups.start;
        let lines = &self.panels.lines[before * group_lines..][..groups.len() * group_lines];
        let start: *const u32 = lines.as_ptr().cast();
        let whole = matches!(y, Sums::Apart(_)) || self.reads_panels_whole();
        // The chunk behind this one, or that of the next panel.
        let next = start.wrapping_add(if whole { lines.len() } else { self.groups.len() * group_lines } * GROUP);
        // Panels that are rounded before they are multiplied have been read by then.
        let near = match self.kernels.integers {
            Some(_) if !self.reads_panels_whole() => next,
            _ => start.wrapping_add(AHEAD_WORDS),
        };
        self.with_right(lines, (panel, groups.start), blocks, |micro, right| {
            for block in blocks.iter() {
                let ahead = match (blocks.count, block.index) {
                    (1, _) => Ahead { next: near, step: PANEL },
                    (_, 0) => Ahead { next, step: PANEL / 2 },
                    (_, 1) => Ahead { next: next.wrapping_add(lines.len() * GROUP / 2), step: PANEL / 2 },
                    _ => Ahead { next: start, step: 0 },
                };
                let left = &scratch[self.block_lines(&block, groups.len())];
                let tile = self.tile(&block, panel, y);
                let micro = micro[block.padded / self.kernels.row_step - 1];
                multiply_block(micro, left, right, groups.len(), tile, add, ahead);
                if let Some((beside, narrow)) = beside {
                    self.block_beside(beside, &block, narrow, panel, tile);
                }
            }
        });
    }

    /// Runs `work` with a chunk of a panel, and the microkernels that take it.
    fn with_right(
        &self,
        lines: &[Line],
        (panel, first_group): (usize, usize),
        blocks: &Blocks,
        work: impl FnOnce(&[Micro], Right),
    ) {
        let start = lines.as_ptr().cast();
        let Some(integers) = &self.kernels.integers else {
            return work(self.kernels.micro, Right::of_floats(start));
        };
        let chunks = self.groups.len().div_ceil(self.chunk());
        let chunk = panel * chunks + (first_group - self.groups.start) / self.chunk();
        let own = &self.panels.factors[chunk * PANEL_FACTOR_LINES..][..PANEL_FACTOR_LINES];
        let factors = own.as_ptr().cast();
        // Those of the next call: everything waits for them.
        let step = if self.reads_panels_whole() { 1 } else { chunks };
        prefetch_row(own.as_ptr().wrapping_add(step * PANEL_FACTOR_LINES).cast(), PANEL);
        if blocks.padded() <= integers.lone.len() {
            return work(integers.lone, Right { panel: start, factors });
        }
        with_scratch(Scratch::Integers, lines.len(), |rounded| {
            round_panel(lines, own, rounded);
            work(self.kernels.micro, Right { panel: rounded.as_ptr().cast(), factors });
        });
    }

    /// Where the sums of a block and a panel go.
    fn tile(&self, block: &Block, panel: usize, y: Sums) -> Tile {
        let width = self.kernels.width;
        let padded = [block.padded, width];
        match y {
            Sums::Result(values, stride) => {
                let (first, rows) = (panel * width, block.rows.len());
                // SAFETY: rows and columns of the block lie inside the result, and no other task has them.
                let start = unsafe { values.at(block.rows.start * stride + first) };
                Tile { start, stride, rows, columns: width.min(self.n - first), padded }
            }
            Sums::Apart(sums) => {
                // SAFETY: the sums hold `width` values for each row of the blocks.
                let start = unsafe { sums.at(block.packed_before * width) };
                Tile { start, stride: width, rows: block.padded, columns: width, padded }
            }
        }
    }

    /// Adds `u up` to a block, the groups of `u` only that the panel touches.
    fn block_beside(&self, beside: &Beside<'_>, block: &Block, narrow: &[Line], panel: usize, tile: Tile) {
        let kernels = self.kernels.of_floats();
        let (inputs, group_lines) = (kernels.activation.group_inputs(), kernels.panel_group_lines());
        let touched = &beside.touched[panel];
        if touched.is_empty() {
            return;
        }
        let groups = touched.start / inputs..touched.end.div_ceil(inputs);
        let left = &narrow[block.packed_before * beside.up_groups + groups.start * block.padded..];
        let left = &left[..block.padded * groups.len()];
        let right = &beside.up[(panel * beside.up_groups + groups.start) * group_lines..][..groups.len() * group_lines];
        let ahead = Ahead { next: right.as_ptr().cast(), step: 0 };
        let micro = kernels.micro[block.padded / kernels.row_step - 1];
        multiply_block(micro, left, Right::of_floats(right.as_ptr().cast()), groups.len(), tile, true, ahead);
    }
}

/// One microkernel call; a block that reaches beyond the result goes through a copy of full size.
#[allow(clippy::too_many_arguments)]
fn multiply_block(micro: Micro, left: &[Line], right: Right, groups: usize, tile: Tile, add: bool, ahead: Ahead) {
    let Tile { start, stride, rows, columns, padded: [padded_rows, width] } = tile;
    let a = left.as_ptr().cast();
    // SAFETY: the instruction set was detected before its kernels were chosen; `left` and `right` are packed for
    // this kernel with `groups` groups (the slices were cut to that length); the tile is this task's to write.
    unsafe {
        if rows == padded_rows && columns == width {
            micro(a, right, groups, start, stride, add, ahead);
            return;
        }
        let mut copy = [0.0_f32; BLOCK * BLOCK];
        if add {
            for r in 0..rows {
                start.add(r * stride).copy_to_nonoverlapping(copy[r * width..].as_mut_ptr(), columns);
            }
        }
        micro(a, right, groups, copy.as_mut_ptr(), width, add, ahead);
        for r in 0..rows {
            start.add(r * stride).copy_from_nonoverlapping(copy[r * width..].as_ptr(), columns);
        }
    }
}
