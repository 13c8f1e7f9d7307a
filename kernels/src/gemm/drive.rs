//! Blocking and threads: how a whole product becomes microkernel calls.
//!
//! Threads share out (rows x panels) as a grid of tasks. A task packs its rows of activations chunk by chunk along the
//! inputs, so that a chunk of its rows stays in the second-level cache and a chunk of a panel close to the first while
//! all rows meet it. The chunks depend on the number of inputs alone: with the fixed order inside a microkernel every
//! output element has one order of additions, whatever the rows and the threads.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::kernel::{Activation, Ahead, GROUP, Kernels, Order};
use super::round::{pack_rounded_row, pack_row, round_row};
use crate::buffer::{Line, Scratch, SharedMut, with_scratch};
use crate::panels::PANEL;
use crate::values::{SharedValues, Values, ValuesMut};

/// Packed activations of a task's rows and chunk: half of a second-level cache of 1 MiB.
const ACTIVATION_BYTES: usize = 512 * 1024;
/// Most rows that are packed together.
const MOST_BATCH_ROWS: usize = 384;
/// Least rows that are worth a pass over a chunk of the right side.
const LEAST_BATCH_ROWS: usize = 96;
/// Batches of rows for each thread that make up for one that is held up.
const ROW_TASKS_A_THREAD: usize = 4;
/// A chunk of the right side below this stays in the caches near the core.
const NEAR_BYTES: usize = 128 * 1024;
/// How far ahead a panel that is used once is asked for, in words.
const AHEAD_WORDS: usize = 1024;
/// Estimated cycles below which another thread is not worth waking.
const TASK_CYCLES: usize = 20_000;
/// Tasks for each thread when there is work enough, so that a thread that is held up does not hold up the call.
const TASKS_A_THREAD: usize = 4;
/// Rows and outputs of the largest block.
const BLOCK: usize = 32;

/// One product `y[m, n] (=|+=) a b` over packed panels, or over some chunks of its inputs.
pub(super) struct Product<'a, P> {
    /// The microkernels.
    pub(super) kernels: &'static Kernels,
    /// Panels of the right side, one after another.
    pub(super) panels: &'a [Line],
    /// Groups of inputs that the panels hold, padding included.
    pub(super) groups: Range<usize>,
    /// Groups in a chunk: [`chunk_depth`] of all groups of the product. `groups` begins where a chunk does.
    pub(super) depth: usize,
    /// Rows.
    pub(super) m: usize,
    /// Outputs.
    pub(super) n: usize,
    /// Packs `rows`, `groups` into lines for a block of so many rows (the padded count).
    pub(super) pack: P,
    /// A product of low rank beside it, from the same left side.
    pub(super) beside: Option<Beside<'a>>,
}

/// `u = a down`, and `y += u up` before a block of the result leaves the caches.
///
/// Both right sides are packed as that of the product; `down` has its inputs and no window of them.
#[derive(Clone, Copy)]
pub(super) struct Beside<'a> {
    /// Panels of `rank` outputs over all inputs of the product.
    pub(super) down: &'a [Line],
    /// Columns of `u`.
    pub(super) rank: usize,
    /// Panels of the product's outputs over the columns of `u`, padded to `up_groups` groups.
    pub(super) up: &'a [Line],
    /// Groups of the columns of `u`.
    pub(super) up_groups: usize,
    /// For each panel of `up`, the columns of `u` that it does not multiply by zero.
    pub(super) touched: &'a [Range<usize>],
    /// `u [m, rank]`.
    pub(super) u: SharedMut<f32>,
}

/// Groups in a chunk: about the kernels' depth, equal shares of all groups of a product.
pub(super) fn chunk_depth(kernels: &Kernels, groups: usize) -> usize {
    groups.div_ceil(groups.div_ceil(kernels.depth).max(1))
}

/// Where a product is written: some columns of a row-major matrix.
pub(super) struct Target<'a> {
    /// The whole matrix.
    pub(super) values: ValuesMut<'a>,
    /// Its columns.
    pub(super) stride: usize,
    /// The product's first column.
    pub(super) first: usize,
}

/// A [`Target`] that tasks share.
#[derive(Clone, Copy)]
struct Place {
    values: SharedValues,
    stride: usize,
}

/// The place of a block in a row-major f32 matrix.
#[derive(Clone, Copy)]
struct Tile {
    start: *mut f32,
    stride: usize,
    /// Rows and columns that exist.
    rows: usize,
    columns: usize,
}

/// What of the left side to pack, and for how many rows of a block.
pub(super) struct Part {
    /// Rows of the left side.
    pub(super) rows: Range<usize>,
    /// Rows that the block has with its padding.
    pub(super) padded: usize,
    /// Groups of inputs.
    pub(super) groups: Range<usize>,
}

impl<P: Fn(Part, &mut [Line]) + Sync> Product<'_, P> {
    /// Computes the product into `y`, with `add` on top of what is there; sums that end as bf16 need all groups in one chunk
    /// and are not added.
    pub(super) fn run(&self, y: Target<'_>, add: bool) {
        let Target { values, stride, first } = y;
        if let ValuesMut::Bf16(_) = &values {
            assert!(!add && self.depth >= self.groups.len(), "bf16 results are made in one go");
        }
        assert_eq!(values.len(), self.m * stride, "the result has the wrong length for {} x {stride}", self.m);
        assert!(first + self.n <= stride, "the product reaches beyond the columns of the result");
        if self.m == 0 || self.n == 0 {
            return;
        }
        if self.groups.is_empty() {
            match values {
                _ if add => {}
                ValuesMut::F32(values) => {
                    values.chunks_exact_mut(stride).for_each(|row| row[first..first + self.n].fill(0.0));
                }
                ValuesMut::Bf16(values) => {
                    values.chunks_exact_mut(stride).for_each(|row| row[first..first + self.n].fill(bf16::ZERO));
                }
            }
            return;
        }
        let panels = self.n.div_ceil(self.kernels.width);
        let place = Place { values: SharedValues::new(values, first), stride };
        let batch = self.batch_rows(panels);
        let wanted = self.wanted_tasks(panels);
        // Rows are shared out first, in whole batches: each batch is packed once then.
        let row_tasks = self.m.div_ceil(batch).min(wanted);
        let task_rows = self.m.div_ceil(row_tasks).next_multiple_of(self.kernels.most_rows());
        let row_tasks = self.m.div_ceil(task_rows);
        // Every part packs its rows anew: where rows alone keep the threads busy there is but one. `u` has one writer.
        let parts = if row_tasks >= ROW_TASKS_A_THREAD * rayon::current_num_threads() || self.beside.is_some() {
            1
        } else {
            wanted.div_ceil(row_tasks).min(panels)
        };
        let task = |index: usize| {
            let (row_task, part) = (index / parts, index % parts);
            let rows = row_task * task_rows..self.m.min((row_task + 1) * task_rows);
            self.task(rows, batch, part * panels / parts..(part + 1) * panels / parts, place, add);
        };
        if wanted == 1 {
            (0..row_tasks * parts).for_each(task);
        } else {
            (0..row_tasks * parts).into_par_iter().with_max_len(1).for_each(task);
        }
    }

    /// How many tasks are worth having: 1 for a product too small to share.
    fn wanted_tasks(&self, panels: usize) -> usize {
        let threads = rayon::current_num_threads();
        if threads == 1 {
            return 1;
        }
        // A panel's line takes at least 4 cycles from memory, and a cycle for each row that multiplies it.
        let cycles = panels * self.groups.len() * self.panel_group_lines() * self.m.max(4);
        (cycles / TASK_CYCLES).clamp(1, TASKS_A_THREAD * threads)
    }

    /// Rows that are packed together: enough to make good use of a chunk of the right side that comes from far away,
    /// one block when all of it stays near.
    fn batch_rows(&self, panels: usize) -> usize {
        let most_rows = self.kernels.most_rows();
        let right_bytes = panels * self.chunk() * self.panel_group_lines() * size_of::<Line>();
        if right_bytes <= NEAR_BYTES && self.kernels.order == Order::Grouped {
            return most_rows;
        }
        let fit = (ACTIVATION_BYTES / (self.chunk() * size_of::<Line>())).clamp(most_rows, MOST_BATCH_ROWS);
        let mut batches = self.m.div_ceil(fit / most_rows * most_rows);
        // An even share for each thread, as long as a chunk of the right side still meets rows enough.
        let threads = rayon::current_num_threads();
        let even = batches.next_multiple_of(threads).max(ROW_TASKS_A_THREAD * threads);
        if threads > 1 && self.m / even >= LEAST_BATCH_ROWS {
            batches = even;
        }
        self.m.div_ceil(batches).next_multiple_of(most_rows)
    }

    /// Lines that a group of inputs occupies in a panel.
    fn panel_group_lines(&self) -> usize {
        match self.kernels.activation {
            Activation::F32 | Activation::Pairs => self.kernels.width,
            Activation::Widened => self.kernels.width / 2,
        }
    }

    /// Groups in the first chunk, the largest one.
    fn chunk(&self) -> usize {
        self.depth.min(self.groups.len())
    }

    /// Computes some rows of some panels on this thread, `batch` rows at a time.
    fn task(&self, rows: Range<usize>, batch: usize, panels: Range<usize>, y: Place, add: bool) {
        let (most_rows, row_step) = (self.kernels.most_rows(), self.kernels.row_step);
        let depth = self.chunk();
        let scratch_rows = batch.min(rows.len()).next_multiple_of(row_step);
        with_scratch(Scratch::Activations, scratch_rows * depth, |scratch| {
            if let Some(session) = &self.kernels.session {
                // SAFETY: the instruction set was detected before its kernels were chosen.
                unsafe { (session.enter)() };
            }
            for first in rows.clone().step_by(batch) {
                let blocks = Blocks::new(first..rows.end.min(first + batch), most_rows, row_step);
                for chunk in self.groups.clone().step_by(depth) {
                    let groups = chunk..self.groups.end.min(chunk + depth);
                    self.pack_batch(&blocks, groups.clone(), scratch);
                    let add = add || chunk > self.groups.start;
                    let last = groups.end == self.groups.end;
                    match &self.beside {
                        None => {
                            for panel in panels.clone() {
                                self.panel(&blocks, groups.clone(), panel, scratch, y, add, None);
                            }
                        }
                        Some(beside) => self.chunk_beside(beside, &blocks, &groups, scratch, y, add, last),
                    }
                }
            }
            if let Some(session) = &self.kernels.session {
                // SAFETY: entered above.
                unsafe { (session.leave)() };
            }
        });
    }

    /// Packs a chunk of a batch: block by block where rows lie in one piece, group by group where inputs do.
    fn pack_batch(&self, blocks: &Blocks, groups: Range<usize>, scratch: &mut [Line]) {
        let step = match self.kernels.order {
            Order::Grouped => groups.len(),
            Order::Interleaved => 1,
        };
        for first in groups.clone().step_by(step) {
            for block in blocks.iter() {
                let start = block.packed_before * groups.len() + (first - groups.start) * block.padded;
                let part = Part { rows: block.rows, padded: block.padded, groups: first..first + step };
                (self.pack)(part, &mut scratch[start..][..block.padded * step]);
            }
        }
    }

    /// A chunk of `u` and of all panels; the last one completes `u` and adds `u up`.
    #[allow(clippy::too_many_arguments)]
    fn chunk_beside(
        &self,
        beside: &Beside<'_>,
        blocks: &Blocks,
        groups: &Range<usize>,
        scratch: &[Line],
        y: Place,
        add: bool,
        last: bool,
    ) {
        let (activation, rank) = (self.kernels.activation, beside.rank);
        let down = Product {
            kernels: self.kernels,
            panels: beside.down,
            groups: self.groups.clone(),
            depth: self.depth,
            m: self.m,
            n: rank,
            pack: &self.pack,
            beside: None,
        };
        let u = Place { values: SharedValues::F32(beside.u), stride: rank };
        for panel in 0..rank.div_ceil(self.kernels.width) {
            down.panel(blocks, groups.clone(), panel, scratch, u, groups.start > self.groups.start, None);
        }
        let panels = 0..self.n.div_ceil(self.kernels.width);
        if !last {
            for panel in panels {
                self.panel(blocks, groups.clone(), panel, scratch, y, add, None);
            }
            return;
        }
        with_scratch(Scratch::Narrow, blocks.padded() * beside.up_groups, |narrow| {
            for block in blocks.iter() {
                let lines = &mut narrow[block.packed_before * beside.up_groups..][..block.padded * beside.up_groups];
                // SAFETY: the rows of this task, which alone writes and reads them.
                let u = unsafe {
                    std::slice::from_raw_parts(beside.u.at(block.rows.start * rank), block.rows.len() * rank)
                };
                let part = Part { rows: 0..block.rows.len(), padded: block.padded, groups: 0..beside.up_groups };
                pack_rows(activation, Values::F32(u), rank, &part, lines);
            }
            for panel in panels {
                self.panel(blocks, groups.clone(), panel, scratch, y, add, Some((beside, &*narrow)));
            }
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
        y: Place,
        add: bool,
        beside: Option<(&Beside<'_>, &[Line])>,
    ) {
        let group_lines = self.panel_group_lines();
        let before = panel * self.groups.len() + groups.start - self.groups.start;
        let right = &self.panels[before * group_lines..][..groups.len() * group_lines];
        let start: *const u32 = right.as_ptr().cast();
        let next = start.wrapping_add(self.groups.len() * group_lines * GROUP);
        for (index, block) in blocks.iter().enumerate() {
            let ahead = match (blocks.count, index) {
                (1, _) => Ahead { next: start.wrapping_add(AHEAD_WORDS), step: PANEL },
                (_, 0) => Ahead { next, step: PANEL / 2 },
                (_, 1) => Ahead { next: next.wrapping_add(right.len() * GROUP / 2), step: PANEL / 2 },
                _ => Ahead { next: start, step: 0 },
            };
            let left = &scratch[block.packed_before * groups.len()..][..block.padded * groups.len()];
            let width = self.kernels.width;
            let (first, rows) = (panel * width, block.rows.len());
            let columns = width.min(self.n - first);
            let start = block.rows.start * y.stride + first;
            let both = |tile: Tile| {
                self.block(&block, left, right, groups.len(), tile, add, ahead);
                if let Some((beside, narrow)) = beside {
                    self.block_beside(beside, &block, narrow, panel, tile);
                }
            };
            match y.values {
                // SAFETY: rows and columns of the block lie inside `y`, and no other task has them.
                SharedValues::F32(y_values) => {
                    both(Tile { start: unsafe { y_values.at(start) }, stride: y.stride, rows, columns });
                }
                SharedValues::Bf16(y_values) => {
                    let mut copy = [Line([0; GROUP]); BLOCK * BLOCK / GROUP];
                    let sums: &mut [f32] = bytemuck::cast_slice_mut(&mut copy);
                    both(Tile { start: sums.as_mut_ptr(), stride: width, rows: block.padded, columns: width });
                    for (r, sums) in sums.chunks_exact(width).take(rows).enumerate() {
                        // SAFETY: as above.
                        let row = unsafe { std::slice::from_raw_parts_mut(y_values.at(start + r * y.stride), columns) };
                        round_row(&sums[..columns], bytemuck::cast_slice_mut(row));
                    }
                }
            }
        }
    }

    /// Adds `u up` to a block, the groups of `u` only that the panel touches.
    fn block_beside(&self, beside: &Beside<'_>, block: &Block, narrow: &[Line], panel: usize, tile: Tile) {
        let (inputs, group_lines) = (self.kernels.activation.group_inputs(), self.panel_group_lines());
        let touched = &beside.touched[panel];
        if touched.is_empty() {
            return;
        }
        let groups = touched.start / inputs..touched.end.div_ceil(inputs);
        let left = &narrow[block.packed_before * beside.up_groups + groups.start * block.padded..];
        let left = &left[..block.padded * groups.len()];
        let right = &beside.up[(panel * beside.up_groups + groups.start) * group_lines..][..groups.len() * group_lines];
        let ahead = Ahead { next: right.as_ptr().cast(), step: 0 };
        self.block(block, left, right, groups.len(), tile, true, ahead);
    }

    /// One microkernel call; a block that reaches beyond the result goes through a copy of full size.
    #[allow(clippy::too_many_arguments)]
    fn block(&self, block: &Block, left: &[Line], right: &[Line], groups: usize, tile: Tile, add: bool, ahead: Ahead) {
        let Tile { start, stride, rows, columns } = tile;
        let width = self.kernels.width;
        let micro = self.kernels.micro[block.padded / self.kernels.row_step - 1];
        let (a, b) = (left.as_ptr().cast(), right.as_ptr().cast());
        // SAFETY: the instruction set was detected before its kernels were chosen; `left` and `right` are packed for
        // this kernel with `groups` groups (the slices were cut to that length); the tile is this task's to write.
        unsafe {
            if rows == block.padded && columns == width {
                micro(a, b, groups, start, stride, add, ahead);
                return;
            }
            let mut copy = [0.0_f32; BLOCK * BLOCK];
            if add {
                for r in 0..rows {
                    start.add(r * stride).copy_to_nonoverlapping(copy[r * width..].as_mut_ptr(), columns);
                }
            }
            micro(a, b, groups, copy.as_mut_ptr(), width, add, ahead);
            for r in 0..rows {
                start.add(r * stride).copy_from_nonoverlapping(copy[r * width..].as_ptr(), columns);
            }
        }
    }
}

/// A task's rows cut into blocks of nearly one size.
pub(super) struct Blocks {
    rows: Range<usize>,
    count: usize,
    row_step: usize,
}

/// The rows of one microkernel call.
pub(super) struct Block {
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
                rows: self.rows.start + start..self.rows.end.min(self.rows.start + end),
                padded: end - start,
                packed_before: start,
            }
        })
    }
}

/// Packs rows of a row-major matrix: `lines[group][row]`, what lies beyond the rows and columns becomes zero.
pub(super) fn pack_rows(activation: Activation, x: Values<'_>, columns: usize, part: &Part, lines: &mut [Line]) {
    let inputs = activation.group_inputs();
    let first = part.groups.start * inputs;
    let last = columns.min(part.groups.end * inputs);
    for (r, row) in part.rows.clone().enumerate() {
        let (lines, next) = (&mut lines[r..], (part.rows.start + r + ROWS_AHEAD) * columns + first);
        match x {
            Values::F32(x) => {
                prefetch_row(x.as_ptr().wrapping_add(next), last - first);
                let row = &x[row * columns..][first..last];
                pack_row(activation, row, lines, part.padded, part.groups.len());
            }
            Values::Bf16(x) => {
                prefetch_row(x.as_ptr().wrapping_add(next).cast(), (last - first) / 2);
                let row = &x[row * columns..][first..last];
                pack_rounded_row(activation, row, lines, part.padded, part.groups.len());
            }
        }
    }
    let empty = Line([0; GROUP]);
    for r in part.rows.len()..part.padded {
        lines[r..].iter_mut().step_by(part.padded).for_each(|line| *line = empty);
    }
}

/// Rows that are asked for ahead of their packing.
const ROWS_AHEAD: usize = 4;

/// Asks the caches for `count` f32; any address will do.
pub(super) fn prefetch_row(row: *const f32, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for i in (0..count).step_by(GROUP) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(i).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (row, count);
}
